"""Applies the model to every structure of a folder, and says for each what became of it."""

import csv
from pathlib import Path

import torch

from qfitlatent.base.files import atomic_path
from qfitlatent.base.job import job
from qfitlatent.prediction.predict import predict_structures

with job(snakemake.rule, snakemake.log[0], snakemake.input.made_from) as log:
    torch.set_num_threads(snakemake.threads)
    summary = Path(snakemake.output[0])
    results = predict_structures(
        [snakemake.input.structures],
        snakemake.input.model,
        summary.parent,
        min_weight=snakemake.params.predict["min_weight"],
        overwrite=True,
        resume=True,
        stream=log,
    )
    with atomic_path(summary) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["structure", "num_residues", "error"])
        writer.writerows([result.entry, result.num_residues, result.error] for result in results)
