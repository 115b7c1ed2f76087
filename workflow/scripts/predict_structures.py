"""Applies the model to every structure of a folder."""

from qfitlatent.job import job
from qfitlatent.predict import predict_folder

with job(snakemake.rule, snakemake.log[0]) as log:
    predict_folder(
        snakemake.params.predict["structures"],
        snakemake.output[0],
        model=snakemake.input.model,
        min_weight=snakemake.params.predict["min_weight"],
        threads=snakemake.threads,
        stream=log,
    )
