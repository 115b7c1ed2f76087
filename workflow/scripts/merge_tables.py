"""Concatenates the tables of all shards, in the order of their keys."""

from pathlib import Path

from qfitlatent.base.job import job
from qfitlatent.tables import schemas
from qfitlatent.tables.parquet import merge_tables

with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from):
    for out in map(Path, snakemake.output):
        parts = [path for path in snakemake.input.shards if Path(path).name == out.name]
        merge_tables(parts, out, schemas.SCHEMAS[out.stem])
