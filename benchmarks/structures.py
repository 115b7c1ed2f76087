"""Which side chains change between two crystals of one protein: ranked by the predicted difference.

    python benchmarks/structures.py FOLDER --pairs pairs.csv --split split.csv --of validation

FOLDER holds the structure files, named by their ids. Of the pairs (columns id1, chain1, id2,
chain2, author names) those are taken of which an entry is of the split (columns entry and split,
a row an entry or a chain) and neither has a chain that was learnt from. Residues of one type that
both crystals show are ranked by the predicted distance; a change is an observed distance of at
least ``observed_above``. Beside it: how often residues of the type change in the other pairs, and
how mixed the prediction is on one backbone. 95 % intervals by bootstrap over pairs.
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from qfitlatent.base import config
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import structure_id
from qfitlatent.model.checkpoint import load_model
from qfitlatent.questions.compare import compare_structures
from qfitlatent.questions.differences import Thresholds

DRAWS = 1000


def chosen_pairs(pairs: Path, split: Path, of: str, folder: Path) -> list[tuple[str, ...]]:
    """Files and chains of the pairs; of those of one protein chain in the split the first."""
    sets: dict[str, set[str]] = {}
    with open(split, newline="") as file:
        for row in csv.DictReader(file):
            sets.setdefault(row["entry"], set()).add(row["split"])
    files = {structure_id(path): path for path in sorted(folder.iterdir())}
    found, seen = [], set()
    with open(pairs, newline="") as file:
        for row in csv.DictReader(file):
            ids = row["id1"], row["id2"]
            kinds = [sets.get(name, set()) for name in ids]
            every = set().union(*kinds)
            if of not in every or "train" in every or not set(ids) <= files.keys():
                continue
            held = ids[0] if of in kinds[0] else ids[1]
            if held not in seen:
                seen.add(held)
                found.append((files[ids[0]], row["chain1"], files[ids[1]]))
    return found


def auroc(score: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> float:
    """Probability that a positive stands above a negative, ties as half."""
    _, group = np.unique(score, return_inverse=True)
    up, down = (np.bincount(group, weight * of) for of in (positive, ~positive))
    below = np.cumsum(down) - down
    return float((up * (below + 0.5 * down)).sum() / (up.sum() * down.sum()))


def with_interval(
    value: Callable[[np.ndarray], float], pair: np.ndarray
) -> tuple[float, float, float]:
    """Of a function of weights, by bootstrap over pairs."""
    rng, num = np.random.default_rng(0), pair.max() + 1
    drawn = [
        value(np.bincount(rng.integers(0, num, num), minlength=num)[pair].astype(float))
        for _ in range(DRAWS)
    ]
    return (value(np.ones(len(pair))), *np.nanpercentile(drawn, [2.5, 97.5]))


def by_type(rows: pd.DataFrame) -> np.ndarray:
    """(n,) how often residues of the type change in all other pairs."""
    counts = rows.groupby(["name_a", "pair"])["changed"].agg(["sum", "count"])
    total = counts.groupby("name_a").transform("sum") - counts
    rate = (total["sum"] / total["count"].where(total["count"] > 0)).fillna(0.0)
    return rate.reindex(pd.MultiIndex.from_frame(rows[["name_a", "pair"]])).to_numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--of", default="validation")
    parser.add_argument("--model", help="run folder or model file; default: the shipped one")
    parser.add_argument("--max-pairs", type=int)
    parser.add_argument("--rows", type=Path, help="CSV file for all residues")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(given.model)
    tables = []
    pairs = chosen_pairs(given.pairs, given.split, given.of, given.folder)[: given.max_pairs]
    for number, (one, chain, two) in enumerate(pairs):
        try:
            table = compare_structures(one, two, model).differences.to_pandas()
        except QfitLatentError as error:
            print(f"left out: {error}")
            continue
        tables.append(table[table["author_chain_a"] == chain].assign(pair=number))
    rows = pd.concat(tables)
    rows = rows[rows["observed_distance"].notna()].reset_index(drop=True)
    if given.rows:
        rows.to_csv(given.rows, index=False)
    limits = config.settings(Thresholds, "compare_structures")
    rows["pair"] = rows["pair"].astype("category").cat.codes
    rows["changed"] = rows["observed_distance"] >= limits.observed_above
    changed, pair = rows["changed"].to_numpy(), rows["pair"].to_numpy()
    top = np.maximum(rows["predicted_a"], rows["predicted_b"]).to_numpy()
    scores = {
        "predicted distance": rows["predicted_distance"].to_numpy(),
        "how often the type changes": by_type(rows),
        "how mixed the named well is": top * (1.0 - top),
    }
    print(f"{pair.max() + 1} pairs, {len(rows)} residues, {changed.mean():.1%} change\n")
    print("| ranked by | AUROC of a change |\n|---|---|")
    for name, score in scores.items():
        value, low, high = with_interval(lambda w, s=score: auroc(s, changed, w), pair)
        print(f"| {name} | {value:.3f} ({low:.3f} to {high:.3f}) |")
    print("\n| of the observed changes | share |\n|---|---|")
    of = rows[changed]
    opposite = (of["share"] <= -limits.explained_from) & (of["share_high"] < 0)
    for name, held in (
        ("explained", of["decision"] == "explained"),
        ("as much, the other way", opposite),
    ):
        print(f"| {name} | {held.mean():.1%} |")
    still = rows[~changed]
    outside = (still["predicted_change_low"] > 0) | (still["predicted_change_high"] < 0)
    print(f"\nwithout an observed change: interval without 0 {outside.mean():.1%}, ", end="")
    print(f"not observed {(still['decision'] == 'not observed').mean():.1%}")


if __name__ == "__main__":
    main()
