"""Asks the archive's search service for entries and keeps its answer with the date."""

from qfitlatent.job import job
from qfitlatent.search import search_entries

with job(snakemake.rule, snakemake.log[0]) as log:
    search_entries(
        snakemake.params.search, snakemake.params.download, snakemake.output[0], stream=log
    )
