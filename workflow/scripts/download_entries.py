"""Brings the entries of one shard: from an archive into the cache, or from the user's folder."""

from qfitlatent.archive.client import download_entries
from qfitlatent.archive.entries import EntryRef
from qfitlatent.archive.log import log_local_files
from qfitlatent.base.job import job

with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from) as log:
    refs = [EntryRef(*entry[:2]) for entry in snakemake.params.entries]
    if snakemake.params.source == "local":
        log_local_files(refs, "local", snakemake.output[0], log)
    else:
        download_entries(
            refs,
            snakemake.params.source,
            snakemake.config["download"] | snakemake.params.download,
            snakemake.params.cache,
            snakemake.output[0],
            connections=snakemake.resources.connections,
            stream=log,
        )
