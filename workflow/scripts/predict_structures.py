"""Applies the model to every structure of a folder; failures.csv says what could not be used."""

from pathlib import Path

import torch

from qfitlatent.base.config import settings
from qfitlatent.base.job import job
from qfitlatent.model.checkpoint import load_model
from qfitlatent.pages.readmes import write_readme
from qfitlatent.prediction.predict import predict_structures
from qfitlatent.prediction.results import write_summary
from qfitlatent.prediction.settings import PredictionSettings

# Worker processes that Python starts afresh import this file, too.
if __name__ == "__main__":
    with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from) as log:
        torch.set_num_threads(snakemake.threads)
        summary = Path(snakemake.output[0])
        model = load_model(snakemake.input.model)
        print(f"model {model.about}", file=log)
        results = predict_structures(
            [snakemake.input.structures],
            summary.parent,
            model,
            settings(PredictionSettings, "predict", snakemake.params.predict),
            overwrite=True,
            resume=True,
            stream=log,
        )
        write_summary(results, summary)
        write_readme("readmes/predictions.md", summary.parent)
