"""Prints the tables of docs/real_model.md from the evaluation of the shipped model.

    python tools/real_tables.py results/runs/real/evaluation results/runs/real_spec/evaluation

The first folder is measured against the targets; every folder after it is a row of its own beside
the baselines, scored on the same residues.
"""

import json
import sys
from pathlib import Path
from typing import Any

# figure, population, reference (None: the value itself), target, stretch
TARGETS = (
    ("nll", "all", "type_library", 0.85, 1.15),
    ("nll", "all", "backbone_library", 0.40, 0.70),
    ("nll", "multiconformer", "type_library", 0.40, 0.65),
    ("nll", "multiconformer", "backbone_library", 0.25, 0.45),
    ("all_within_20", "single", None, 0.52, 0.62),
    ("chi1_within_20", "single", None, 0.76, 0.86),
    ("auroc_entropy", "all", None, 0.75, None),
    ("auroc_two_draws", "all", None, 0.75, None),
)
COVERAGES = (50, 80, 95)
COLUMNS = (
    ("nll", "multiconformer"),
    ("nll", "single"),
    ("nll", "all"),
    ("all_within_20", "single"),
    ("chi1_within_20", "single"),
    ("recall", "multiconformer"),
    ("auroc_two_draws", "all"),
)


def read(folder: str) -> dict[str, Any]:
    return json.loads((Path(folder) / "metrics.json").read_text("utf-8"))["populations"]


def value_of(populations, figure, population, reference) -> tuple[float, float, float]:
    """Value and 95 % interval; the gain over the reference, positive is better, if there is one."""
    if reference is None:
        cell = populations[population]["methods"]["model"][figure]
        return cell["value"], cell["low"], cell["high"]
    cell = populations[population]["differences"]["model"][reference][figure]
    return -cell["value"], -cell["high"], -cell["low"]


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    evaluations = {Path(name).parent.name: read(name) for name in sys.argv[1:]}
    first = next(iter(evaluations.values()))
    print("| Figure | Residues | Better than | Measured (95 % interval) | Target | Stretch | Met |")
    print("|---|---|---|---:|---:|---:|---|")
    for figure, population, reference, target, stretch in TARGETS:
        value, low, high = value_of(first, figure, population, reference)
        met = "yes" if value >= target else "no"
        further = "" if stretch is None else f"{stretch:.2f}"
        interval = f"{value:.3f} ({low:.3f} to {high:.3f})"
        print(
            f"| {figure} | {population} | {reference or ''} | {interval} "
            f"| {target:.2f} | {further} | {met} |"
        )
    for percent in COVERAGES:
        value, low, high = value_of(first, f"coverage_{percent}", "all", None)
        met = "yes" if abs(value - percent / 100) <= 0.03 else "no"
        print(
            f"| coverage of the {percent} % region | all | | {value:.3f} ({low:.3f} to {high:.3f}) "
            f"| {percent / 100:.2f} within 0.03 | | {met} |"
        )
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
