"""Prints the learning curve in docs/real_model.md, and what more entries would give by it.

    python tools/learning_curve.py results/runs/real_784 results/runs/real_1568
        results/runs/real_2_0 --entries 190000

Each row has the smallest validation loss of a run, of either population at its own epoch: what the
data hold, whichever the recipe prefers. The rows after them double the entries. Without a bend each
doubling gains what the last one did; with the bend of the curve the gains shrink as those of the
last two did, which is a power law through three points.
"""

import argparse
import csv
import json
import math
from pathlib import Path

COLUMNS = ("validation_nll_multiconformer", "validation_nll_single")


def read(run: Path) -> tuple[dict[str, int], dict[str, float]]:
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return manifest, {c: min(float(row[c]) for row in rows) for c in COLUMNS}


def further(losses: list[float], doublings: float) -> tuple[float, float]:
    """The loss so many doublings after the last of three: without a bend, with the curve's bend."""
    first, last = losses[0] - losses[1], losses[1] - losses[2]
    ratio = min(max(last / first, 0.0), 1.0)
    terms = doublings if ratio == 1 else ratio * (1 - ratio**doublings) / (1 - ratio)
    return losses[2] - doublings * last, losses[2] - last * terms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs=3, type=Path, metavar="RUN")
    parser.add_argument("--entries", type=int, required=True, help="how many there could be")
    options = parser.parse_args()
    runs = [read(run) for run in options.runs]
    print("| Entries | Residues with altlocs | Multiconformer | Single |")
    print("|---:|---:|---:|---:|")
    for manifest, kept in runs:
        counts = f"{manifest['num_train_entries']} | {manifest['num_train_multiconformer']}"
        print(f"| {counts} | {' | '.join(f'{kept[c]:.3f}' for c in COLUMNS)} |")
    largest = runs[-1][0]["num_train_entries"]
    for entries in (2 * largest, options.entries):
        doublings = math.log2(entries / largest)
        cells = []
        for column in COLUMNS:
            straight, bent = further([kept[column] for _, kept in runs], doublings)
            cells.append(f"{straight:.2f} to {bent:.2f}")
        print(f"| {entries} (by the curve) | | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
