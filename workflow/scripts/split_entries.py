"""Divides the entries into training, validation and test set by sequence cluster."""

from pathlib import Path

from qfitlatent.base.job import job
from qfitlatent.dataset.split import split_entries, summary

with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from) as log:
    table = split_entries(
        Path(snakemake.input.tables[0]).parent,
        snakemake.output[0],
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        **snakemake.params.split,
    )
    print(summary(table), file=log)
