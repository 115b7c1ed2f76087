"""Measures the model beside its baselines on held-out clusters."""

from pathlib import Path

import torch

from qfitlatent.base.job import job
from qfitlatent.evaluation.evaluate import evaluate_run
from qfitlatent.evaluation.settings import EvaluationSettings

with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from) as log:
    torch.set_num_threads(snakemake.threads)
    evaluate_run(
        snakemake.input.model,
        Path(snakemake.input.tables[0]).parent,
        snakemake.input.split,
        Path(snakemake.output.metrics).parent,
        EvaluationSettings(**snakemake.params.evaluate),
        truth_dir=snakemake.params.truth,
        altlocs_unknown=snakemake.params.altlocs_unknown,
        predicted=Path(snakemake.input.predicted[0]).parent if snakemake.input.predicted else None,
        log=log,
        processes=snakemake.threads,
    )
