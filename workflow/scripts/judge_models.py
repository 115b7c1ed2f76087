"""Predicts entries of a split as whole models, and holds them against what was deposited."""

from pathlib import Path

import torch

from qfitlatent.base.config import settings
from qfitlatent.base.job import job
from qfitlatent.prediction.judge import judge_models
from qfitlatent.prediction.settings import PredictionSettings

# Worker processes that Python starts afresh import this file, too.
if __name__ == "__main__":
    with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from) as log:
        torch.set_num_threads(1)
        judge_models(
            snakemake.input.download,
            snakemake.input.split,
            snakemake.params.split,
            snakemake.params.num_entries,
            Path(snakemake.output[0]).parent,
            snakemake.input.model,
            settings(PredictionSettings, "predict", snakemake.params.predict),
            altlocs_unknown=snakemake.params.altlocs_unknown,
            threads=snakemake.threads,
            stream=log,
        )
