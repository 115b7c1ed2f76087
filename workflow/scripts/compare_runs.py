"""Puts evaluated runs side by side, paired on the same residues."""

from pathlib import Path

from qfitlatent.base.job import job
from qfitlatent.evaluation.compare import compare_runs

with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from) as log:
    folders = [Path(path).parent for path in snakemake.input.runs]
    compare_runs(
        folders,
        Path(snakemake.output[0]).parent,
        names=[folder.parent.name for folder in folders],
        bootstrap_samples=snakemake.params.bootstrap_samples,
        seed=snakemake.params.seed,
        log=log,
    )
