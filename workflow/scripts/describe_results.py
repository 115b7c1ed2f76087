"""Writes the README.md of the folders of results, the data set and the run."""

from qfitlatent.base.job import job
from qfitlatent.pages.render import write_readmes

with job(snakemake.rule, snakemake.log[0]):
    write_readmes(
        dict(snakemake.output.items()),
        dataset=snakemake.params.dataset,
        run=snakemake.params.run,
        source=snakemake.params.source,
    )
