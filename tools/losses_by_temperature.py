"""Prints the losses of models by the temperature of their densities, before calibration.

    python tools/losses_by_temperature.py results/data/real results/runs/real_weight_4 shipped

Nats per residue of either population. Of two models the better one is that whose losses no
temperature of the other reaches together: weights of the populations in the training loss, and the
epoch that is kept, move along such a line, too.
"""

import argparse
from pathlib import Path

import torch
from altloc_losses import single

from qfitlatent.density.width import Width
from qfitlatent.model.calibration import Calibration
from qfitlatent.model.checkpoint import load_model
from qfitlatent.model.dataset import Dataset

TEMPERATURES = (1.0, 1.1, 1.2)
FLAT = 1e-4
"""Share of a flat component in each chi."""


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of a data set: tables/ and split.parquet")
    parser.add_argument("models", nargs="+", help="run folders, model files, or shipped")
    parser.add_argument("--split", default="validation", help="part of the split")
    options = parser.parse_args()
    files = (options.data / "tables", options.data / "split.parquet", (options.split,))
    data = Dataset.load(*files)
    observed, _, _ = data.observed()
    several = observed.num_conformers > 1
    print("| Model | Temperature | Multiconformer | Single | All |\n|---|---:|---:|---:|---:|")
    for name in options.models:
        model = load_model(name).model.eval()
        s = single(model, data)
        for temperature in TEMPERATURES:
            model.calibrate(Calibration(Width(temperature, 1.0, FLAT)))
            density = model.density(s, observed.token)
            loss = -density.log_prob(observed.chi, observed.defined, observed.row_residue)
            loss = observed.sum_rows(observed.occupancy * loss)
            parts = (loss[several], loss[~several], loss)
            cells = " | ".join(f"{float(part.mean()):.3f}" for part in parts)
            print(f"| {Path(name).name} | {temperature} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
