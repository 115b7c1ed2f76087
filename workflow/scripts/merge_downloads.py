"""Joins the logs of all shards, and stops where too many entries are missing."""

from qfitlatent.archive.log import check_missing, read_logs, write_log
from qfitlatent.base.job import job

with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from) as log:
    print(check_missing(snakemake.input.shards, snakemake.params.max_missing_fraction), file=log)
    write_log(read_logs(snakemake.input.shards).to_pylist(), snakemake.output[0])
