"""Predicts the structures that a table of measurements names, and compares the two."""

from pathlib import Path

import torch

from qfitlatent.base.config import settings
from qfitlatent.base.job import job
from qfitlatent.prediction.settings import PredictionSettings
from qfitlatent.questions.experiment_of_model import compare_model

with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from) as log:
    torch.set_num_threads(snakemake.threads)
    compare_model(
        snakemake.input.measured,
        Path(snakemake.output[0]).parent,
        snakemake.input.model,
        settings(PredictionSettings, "predict", snakemake.params.predict),
        snakemake.params.bootstrap_samples,
        snakemake.params.seed,
        structures=snakemake.input.structures or None,
        download_path=snakemake.input.download or None,
        stream=log,
    )
