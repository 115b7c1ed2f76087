"""Checks the tables and shows them in a page; fails on rows that break an invariant."""

from pathlib import Path

from qfitlatent.base.job import job
from qfitlatent.dataset.audit import make_audit

with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from):
    make_audit(
        Path(snakemake.input.tables[0]).parent,
        snakemake.input.split,
        Path(snakemake.output[0]).parent,
        snakemake.params.audit["max_uncounted_fraction"],
    )
