"""How well can residues with distinct rotamers be found at all? Prints the AUROC of scores.

    python tools/heterogeneity_limit.py results/data/real results/runs/real/evaluation --split test

Beside the entropy and the two draws of the evaluated run (SPEC 8) stand gradient-boosted trees that
are trained for this question alone, on the training part: from backbone and sequence (types,
torsions and exposure of the residue and of four on either side, and places in the chain), and with
what no run sees: resolution, B-factor. The last rows know the answer in part: the share of such
residues in the entry, alone and times the two draws. Needs scikit-learn.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from qfitlatent.density.rows import altloc_spread
from qfitlatent.evaluation.residues import read_evaluation_set
from qfitlatent.evaluation.settings import DISTINCT_DEGREES
from qfitlatent.tables.columns import KEYS

OWN = ["token", "phi_rad", "psi_rad", "num_neighbours"]
NEIGHBOURS = [k for k in range(-4, 5) if k]
BACKBONE = [*OWN, "from_start", "from_end", *(f"{name}{k}" for k in NEIGHBOURS for name in OWN)]
SEEDS = range(3)


def all_features(tables: Path) -> pd.DataFrame:
    """One row a residue: its keys, ``BACKBONE``, resolution and mean B-factor of its side chain."""
    residues = pq.read_table(tables / "residues.parquet", columns=[*KEYS, *OWN]).to_pandas()
    residues = residues.sort_values(list(KEYS), ignore_index=True)
    chains = residues.groupby(["entry", "chain"])
    shifted = [chains[OWN].shift(-k).add_suffix(str(k)) for k in NEIGHBOURS]
    residues = pd.concat([residues, *shifted], axis=1)
    residues["from_start"] = chains.cumcount()
    residues["from_end"] = chains.cumcount(ascending=False)
    columns = ["entry", "resolution_angstrom"]
    entries = pq.read_table(tables / "entries.parquet", columns=columns).to_pandas()
    columns = [*KEYS, "mean_b_angstrom2"]
    b = pq.read_table(tables / "conformers.parquet", columns=columns).to_pandas()
    b = b.groupby(list(KEYS), as_index=False).mean()
    return residues.merge(entries, on="entry").merge(b, on=list(KEYS), how="left")


def of_split(dataset: Path, features: pd.DataFrame, split: str) -> pd.DataFrame:
    """The scored residues of a split with their features and whether rotamers are ``distinct``."""
    data = read_evaluation_set(dataset / "tables", dataset / "split.parquet", split)
    rows = data.columns.select(list(KEYS)).to_pandas()
    spread = np.degrees(altloc_spread(data.observed).numpy())
    rows["distinct"] = spread > DISTINCT_DEGREES
    return rows.merge(features, on=list(KEYS), validate="one_to_one")


def trees(train: pd.DataFrame, test: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """Probability of each row of ``test``, mean over the seeds."""
    models = [
        HistGradientBoostingClassifier(
            max_iter=300,
            learning_rate=0.04,
            max_leaf_nodes=15,
            min_samples_leaf=80,
            l2_regularization=5.0,
            early_stopping=False,
            random_state=seed,
        ).fit(train[columns], train["distinct"])
        for seed in SEEDS
    ]
    return np.mean([model.predict_proba(test[columns])[:, 1] for model in models], axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="folder with tables/ and split.parquet")
    parser.add_argument("evaluation", type=Path, help="evaluation folder of a run on that split")
    parser.add_argument("--split", default="test")
    options = parser.parse_args()
    features = all_features(options.dataset / "tables")
    train = of_split(options.dataset, features, "train")
    test = of_split(options.dataset, features, options.split)
    scores = pq.read_table(
        options.evaluation / "scores.parquet",
        columns=[*KEYS, "method", "entropy", "heterogeneity"],
        filters=[("method", "==", "model")],
    ).to_pandas()
    test = test.merge(scores, on=list(KEYS), validate="one_to_one")
    share = test.groupby("entry")["distinct"].transform("mean")
    rows = {
        "entropy of the run": test["entropy"],
        "two draws of the run": test["heterogeneity"],
        "trees: backbone and sequence": trees(train, test, BACKBONE),
        "trees: and resolution": trees(train, test, [*BACKBONE, "resolution_angstrom"]),
        "trees: and B-factor": trees(train, test, [*BACKBONE, "mean_b_angstrom2"]),
        "share in the entry": share,
        "share in the entry, times two draws": share * test["heterogeneity"],
    }
    print(f"{len(test)} residues, {test['distinct'].sum()} with distinct rotamers\n")
    print("| Score | AUROC |\n|---|---:|")
    for name, score in rows.items():
        print(f"| {name} | {roc_auc_score(test['distinct'], score):.3f} |")


if __name__ == "__main__":
    main()
