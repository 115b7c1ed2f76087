"""Averages trained runs into a run of its own."""

from pathlib import Path

from qfitlatent.base.job import job
from qfitlatent.training.average import average_runs

with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from) as log:
    average_runs(
        dict(snakemake.config),
        Path(snakemake.input.tables[0]).parent,
        snakemake.input.split,
        Path(snakemake.output.model).parent,
        log,
    )
