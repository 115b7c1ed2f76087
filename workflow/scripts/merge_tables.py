"""Concatenates the tables of all shards; stops where too many files raised an unknown error."""

from pathlib import Path

from qfitlatent.base.job import job
from qfitlatent.structure.rejections import check_unexpected
from qfitlatent.tables import schemas
from qfitlatent.tables.parquet import merge_tables, read_table

with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from) as log:
    for out in map(Path, snakemake.output):
        parts = [path for path in snakemake.input.shards if Path(path).name == out.name]
        merge_tables(parts, out, schemas.SCHEMAS[out.stem])
    rejected = read_table(next(path for path in snakemake.output if "rejected" in path))
    num_entries = len(read_table(snakemake.input.download[0], ["entry"]))
    print(check_unexpected(rejected, num_entries, snakemake.params.max_missing_fraction), file=log)
