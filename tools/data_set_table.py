"""What each step of making a data set leaves, as a table in Markdown.

python tools/data_set_table.py results/data/real experiments/real/altlocs_unknown.csv
"""

import sys
from pathlib import Path

import pandas as pd

from qfitlatent.tables.names import EXCLUDED, SPLITS
from qfitlatent.tables.parquet import read_table

HEAD = (
    "entries",
    "chains",
    "clusters",
    "chains of the largest",
    "residues",
    "two altlocs",
    "distinct conformers",
)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    dataset = Path(sys.argv[1])
    columns = ["entry", "chain", "num_chi", "num_conformers", "num_distinct_conformers"]
    residues = read_table(dataset / "tables/residues.parquet", columns).to_pandas()
    residues = residues[residues["num_conformers"] > 0]
    split = read_table(dataset / "split.parquet").to_pandas()
    rows = residues.merge(split, on=["entry", "chain"])
    unknown = rows["entry"].isin(pd.read_csv(sys.argv[2], dtype=str)["entry"])
    steps = {"read, with a chi": rows}
    steps |= {name: rows[rows["split"] == name] for name in (*SPLITS[::-1], EXCLUDED)}
    training = rows["split"] == SPLITS[0]
    steps["train, altlocs kept"] = rows[training & ~unknown]
    steps["train, altlocs stripped or not known"] = rows[training & unknown]
    print(f"| | {' | '.join(HEAD)} |\n|---|{'---:|' * len(HEAD)}")
    for name, part in steps.items():
        chains = part[["entry", "chain", "cluster"]].drop_duplicates()
        cells = [
            part["entry"].nunique(),
            len(chains),
            chains["cluster"].nunique(),
            int(chains["cluster"].value_counts().max()) if len(chains) else 0,
            len(part),
            int((part["num_conformers"] > 1).sum()),
            int((part["num_distinct_conformers"] > 1).sum()),
        ]
        print(f"| {name} | {' | '.join(f'{value:,}' for value in cells)} |")


if __name__ == "__main__":
    main()
