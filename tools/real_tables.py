"""Prints the tables of docs/real_model.md from the evaluation of the shipped model.

    python tools/real_tables.py results/runs/real/evaluation results/runs/real_spec/evaluation

The first folder is measured against the targets; every folder after it is a row of its own beside
the baselines, scored on the same residues.
"""

import json
import sys
from pathlib import Path
from typing import Any

from qfitlatent.tables.parquet import read_table

# figure, population, target, whether less is better
TARGETS = (
    ("nll", "all", 0.33, True),
    ("nll", "multiconformer", 1.90, True),
    ("chi1_within_20", "single", 0.86, False),
    ("all_within_20", "single", 0.66, False),
    ("auroc_p_heterogeneous", "all", 0.73, False),
)
COVERAGES = (50, 80, 95)
COVERAGE_TOLERANCE = 0.02
YES_NO = {True: "yes", False: "no"}
COLUMNS = (
    ("nll", "multiconformer"),
    ("nll", "single"),
    ("nll", "all"),
    ("all_within_20", "single"),
    ("chi1_within_20", "single"),
    ("recall", "multiconformer"),
    ("auroc_two_draws", "all"),
)
WELL_DETERMINED = ("nll", "chi1_within_20", "all_within_20")


def read(folder: str) -> dict[str, Any]:
    return json.loads((Path(folder) / "metrics.json").read_text("utf-8"))["populations"]


def interval(cell: dict[str, float]) -> str:
    return f"{cell['value']:.3f} ({cell['low']:.3f} to {cell['high']:.3f})"


def well_determined(folder: str) -> None:
    """The model's figures on residues whose labels can be trusted, beside those on the others."""
    table = read_table(Path(folder) / "by_group.parquet").to_pylist()
    rows = {
        (row["level"], row["population"], row["metric"]): row
        for row in table
        if row["group"] == "well_determined"
        and row["method"] == "model"
        and row["reference"] is None
    }
    print("| Well determined | Residues | Number | " + " | ".join(WELL_DETERMINED) + " |")
    print("|---|---|---:|" + "---:|" * len(WELL_DETERMINED))
    for level, population in sorted({key[:2] for key in rows}, reverse=True):
        cells = [rows[level, population, metric] for metric in WELL_DETERMINED]
        shown = " | ".join(interval(cell) for cell in cells)
        print(f"| {level} | {population} | {cells[0]['num_residues']:,} | {shown} |")


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    evaluations = {Path(name).parent.name: read(name) for name in sys.argv[1:]}
    first = next(iter(evaluations.values()))
    print("| Figure | Residues | Measured (95 % interval) | Target | Met |")
    print("|---|---|---:|---:|---|")
    for figure, population, target, less in TARGETS:
        cell = first[population]["methods"]["model"][figure]
        met = cell["value"] <= target if less else cell["value"] >= target
        bound = f"at {'most' if less else 'least'} {target:.2f}"
        print(f"| {figure} | {population} | {interval(cell)} | {bound} | {YES_NO[met]} |")
    for percent in COVERAGES:
        cell = first["all"]["methods"]["model"][f"coverage_{percent}"]
        met = abs(cell["value"] - percent / 100) <= COVERAGE_TOLERANCE
        bound = f"{percent / 100:.2f} within {COVERAGE_TOLERANCE}"
        name = f"coverage of the {percent} % region"
        print(f"| {name} | all | {interval(cell)} | {bound} | {YES_NO[met]} |")
    print()
    well_determined(sys.argv[1])
    print()
    print("| Method | " + " | ".join(f"{figure}, {part}" for figure, part in COLUMNS) + " |")
    print("|---|" + "---:|" * len(COLUMNS))
    for run, populations in evaluations.items():
        methods = populations["all"]["methods"]
        # The baselines are the same in every folder: they are printed with the last one.
        last = run == list(evaluations)[-1]
        for method in ["model", *(m for m in methods if m != "model" and last)]:
            cells = [
                populations[part]["methods"][method][figure]["value"] for figure, part in COLUMNS
            ]
            name = f"`{run}`" if method == "model" else method
            print(f"| {name} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")


if __name__ == "__main__":
    main()
