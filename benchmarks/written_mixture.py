"""What the mixture that predict writes loses of the model's own density, nats per residue.

    python benchmarks/written_mixture.py results/data/real [--model MODEL] [--split validation]

Both densities are scored on the same observed residues of a part of the split: with several
altlocs, with one conformer, all, and by residue type; beside them the rows of the mixture table.
"""

import argparse
from pathlib import Path

import torch

from qfitlatent.chemistry.residues import RESIDUE_TYPES
from qfitlatent.model.checkpoint import load_model
from qfitlatent.model.dataset import Dataset

MIN_WEIGHT = 1e-12
"""Components below it are padding, and stand in no table."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of a data set: tables/ and split.parquet")
    parser.add_argument("--model", default=None, help="run folder or model file; default shipped")
    parser.add_argument("--split", default="validation", help="part of the split")
    parser.add_argument("--entries", type=int, default=0, help="so many entries; 0 is all")
    options = parser.parse_args()
    model = load_model(options.model).model
    files = (options.data / "tables", options.data / "split.parquet", (options.split,))
    data = Dataset.load(*files, max_entries=options.entries)
    parts = [losses(model, protein) for protein in data]
    token, several, own, written, rows = (torch.cat(x) for x in zip(*parts, strict=True))
    print("| residues | number | own density | written | lost | rows a residue |")
    print("|---|---:|---:|---:|---:|---:|")
    groups = {"with altlocs": several, "one conformer": ~several, "all": several | ~several}
    groups |= {name: token == number for number, name in enumerate(RESIDUE_TYPES)}
    for name, mask in groups.items():
        if mask.any():
            a, b, c = (float(x[mask].mean()) for x in (own, written, rows))
            print(f"| {name} | {int(mask.sum())} | {a:.3f} | {b:.3f} | {b - a:.3f} | {c:.1f} |")


def losses(model, protein) -> tuple[torch.Tensor, ...]:
    """Of each residue that shows a chi: type, several altlocs, both NLL, rows of the table."""
    density = model.predict(protein)
    shown = protein.row_residue.unique()
    mixture = density.as_mixture()
    nll = []
    for one in (density, mixture):
        log_prob = one.log_prob(protein.chi, protein.defined, protein.row_residue)
        total = torch.zeros(len(protein)).index_add(
            0, protein.row_residue, -protein.occupancy * log_prob
        )
        nll.append(total[shown])
    several = torch.bincount(protein.row_residue, minlength=len(protein)) > 1
    rows = (mixture.log_weight.exp() > MIN_WEIGHT).sum(1).float()
    return protein.token[shown], several[shown], *nll, rows[shown]


if __name__ == "__main__":
    with torch.inference_mode():
        main()
