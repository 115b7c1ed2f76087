"""Reads the structures of one shard into tables."""

from pathlib import Path

from qfitlatent.base.job import job
from qfitlatent.structure.preprocess import preprocess_entries

with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from) as log:
    preprocess_entries(
        snakemake.input.log,
        Path(snakemake.output[0]).parent,
        snakemake.params.preprocess,
        stream=log,
    )
