"""Prints where the loss on residues with altlocs is, and what a width of their own would gain.

    python tools/altloc_losses.py results/data/real [--model MODEL] [--split validation]

First table: residues with altlocs, whose conformers are the same rotamer or distinct ones (a chi
differs by over 40 degrees), and of these the conformer of the highest occupancy and the others:
nats of each by the model's density, and their part of the mean loss over all residues with
altlocs. Second table: the loss under another width, the best of a grid, for these residues alone.
No model can use it: it would have to know that altlocs were modelled.
"""

import argparse
import itertools
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from qfitlatent.density.rows import DISTINCT_DEGREES, Observed, altloc_spread
from qfitlatent.density.width import Width
from qfitlatent.model.batch import collate
from qfitlatent.model.calibration import Calibration
from qfitlatent.model.checkpoint import load_model
from qfitlatent.model.dataset import Dataset
from qfitlatent.model.network import DensityNetwork

WIDTHS = tuple(
    Width(*values)
    for values in itertools.product((1.0, 1.2, 1.5, 2.0), (1.0, 0.7, 0.5, 0.3), (1e-3, 0.01, 0.05))
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of a data set: tables/ and split.parquet")
    parser.add_argument("--model", default=None, help="run folder or model file; default shipped")
    parser.add_argument("--split", default="validation", help="part of the split")
    options = parser.parse_args()
    model = load_model(options.model).model
    files = (options.data / "tables", options.data / "split.parquet", (options.split,))
    data = Dataset.load(*files)
    observed, _, _ = data.observed()
    observed = observed.select(observed.num_conformers > 1)
    s = single(model, data, more_than=1)

    def losses() -> Tensor:
        """(M,) nats of each conformer."""
        density = model.density(s, observed.token)
        return -density.log_prob(observed.chi, observed.defined, observed.row_residue)

    print_conformers(observed, losses())
    as_it_is = model.calibration or Calibration(Width(1.0, 1.0, 1e-3))
    found = {as_it_is.width: mean(observed, losses())}
    for width in WIDTHS:
        model.calibrate(replace(as_it_is, width=width))
        found[width] = mean(observed, losses())
    print(
        "\n| width | temperature | scale of kappa | flat share | nll |\n|---|---:|---:|---:|---:|"
    )
    for name, width in (
        ("of the model", as_it_is.width),
        ("best for these residues", min(found, key=lambda width: found[width])),
    ):
        values = (width.temperature, width.kappa_scale, width.flat)
        cells = " | ".join(f"{value:.3g}" for value in values)
        print(f"| {name} | {cells} | {found[width]:.3f} |")


@torch.inference_mode()
def single(model: DensityNetwork, data: Dataset, more_than: int = 0) -> Tensor:
    """(N,d_s) single representation of the residues with more than so many conformers."""
    parts = []
    for protein in data:
        num = torch.bincount(protein.row_residue, minlength=len(protein))
        parts.append(model.encode(collate([protein]))[num > more_than])
    return torch.cat(parts)


def mean(observed: Observed, loss: Tensor) -> float:
    """Nats per residue, of losses (M,) of the conformers."""
    return float(observed.sum_rows(observed.occupancy * loss).mean())


def print_conformers(observed: Observed, loss: Tensor) -> None:
    """The first table, of losses (M,) of the rows."""
    of = observed.row_residue
    # Of equal occupancies the first is the highest.
    heaviest = observed.altloc_number == observed.by_altloc(observed.occupancy, 0.0).argmax(1)[of]
    distinct = torch.rad2deg(altloc_spread(observed))[of] > DISTINCT_DEGREES
    print("| altlocs | conformer | conformers | occupancy | nats | of the mean |")
    print("|---|---|---:|---:|---:|---:|")
    for name, one in (("same rotamer", ~distinct), ("distinct rotamers", distinct)):
        for rank, mine in (("highest occupancy", heaviest), ("others", ~heaviest)):
            rows = one & mine
            occupancy = observed.occupancy[rows]
            nats = float((occupancy * loss[rows]).sum())
            print(
                f"| {name} | {rank} | {int(rows.sum())} | {float(occupancy.mean()):.2f} "
                f"| {nats / float(occupancy.sum()):.2f} | {nats / len(observed):.2f} |"
            )


if __name__ == "__main__":
    with torch.inference_mode():
        main()
