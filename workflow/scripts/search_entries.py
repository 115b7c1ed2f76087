"""Asks the archive's search service for entries and keeps its answer with the date."""

from qfitlatent.archive.search import search_entries
from qfitlatent.base.job import job

with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from) as log:
    ids = search_entries(
        snakemake.params.search,
        snakemake.config["download"] | {"search_url": snakemake.params.search_url},
        snakemake.params.cache,
        snakemake.output[0],
    )
    print(f"{len(ids)} entries meet the criteria of entries.search", file=log)
