"""Prints the table of the search in docs/real_model.md from finished runs.

    python tools/search_table.py results/runs/all results/runs/all_*

Each row is the epoch that the run kept: the one of its smallest validation loss. Differences are to
the first run of the list.
"""

import csv
import sys
from pathlib import Path

COLUMNS = ("validation_nll_multiconformer", "validation_nll_single")
READ = (*COLUMNS, "epoch", "validation_loss", "seconds")


def kept_epoch(run: Path) -> dict[str, float]:
    with open(run / "metrics.csv", newline="") as file:
        rows = [{name: float(row[name]) for name in READ} for row in csv.DictReader(file)]
    kept = min(rows, key=lambda row: row["validation_loss"])
    return kept | {"epochs": len(rows), "minutes": rows[-1]["seconds"] / 60}


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    runs = {Path(name).name: kept_epoch(Path(name)) for name in sys.argv[1:]}
    first = next(iter(runs.values()))
    print("| Run | Multiconformer | | Single | | Kept epoch | Minutes |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, kept in runs.items():
        cells = [f"{kept[c]:.3f} | {kept[c] - first[c]:+.3f}" for c in COLUMNS]
        epoch = f"{kept['epoch']:.0f} of {kept['epochs']}"
        print(f"| `{name}` | {' | '.join(cells)} | {epoch} | {kept['minutes']:.0f} |")


if __name__ == "__main__":
    main()
