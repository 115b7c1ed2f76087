"""Writes the README.md of the folders of results, the data set and the run."""

from pathlib import Path

from qfitlatent.base.job import job
from qfitlatent.pages.readmes import write_readme

with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from):
    facts = {name: snakemake.params[name] for name in ("dataset", "run", "source")}
    for template, path in (
        ("readmes/results.md", snakemake.output.results),
        ("readmes/data.md", snakemake.output.data),
        ("readmes/run.md", snakemake.output.run),
    ):
        write_readme(template, Path(path).parent, **facts)
