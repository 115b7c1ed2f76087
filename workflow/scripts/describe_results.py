"""Writes the README.md of the folders of results, the data set and the run."""

from pathlib import Path

from qfitlatent.base.job import job
from qfitlatent.pages.readmes import write_readme

TEMPLATES = (
    "readmes/results.md",
    "readmes/data.md",
    "readmes/tables.md",
    "readmes/run.md",
    "readmes/logs.md",
    "readmes/benchmarks.md",
    "readmes/raw.md",
)

with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from):
    facts = {name: snakemake.params[name] for name in ("dataset", "run", "source")}
    for template in TEMPLATES:
        path = snakemake.output.get(Path(template).stem)
        if path is not None:  # there is no folder `raw` where nothing is downloaded
            write_readme(template, Path(path).parent, **facts)
