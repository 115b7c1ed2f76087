"""Trains the model, or goes on where an interrupted training stopped."""

from pathlib import Path

from qfitlatent.base.job import job
from qfitlatent.training.launch import train

with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from) as log:
    train(
        dict(snakemake.config),
        Path(snakemake.input.tables[0]).parent,
        snakemake.input.split,
        Path(snakemake.output.model).parent,
        threads=snakemake.threads,
        log=log,
    )
