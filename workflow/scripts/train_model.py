"""Trains the model, or goes on where an interrupted training stopped."""

from pathlib import Path

from qfitlatent.job import job
from qfitlatent.train import train_run

with job(snakemake.rule, snakemake.log[0]) as log:
    train_run(
        snakemake.config,
        Path(snakemake.input.tables[0]).parent,
        Path(snakemake.input.split),
        Path(snakemake.output.model).parent,
        threads=snakemake.threads,
        log=log,
    )
