"""Entries whose side chains look wrong: a list to look at, and to leave out by `split.file`.

    python tools/suspicious_entries.py results/data/real experiments/real/suspicious.csv

For each entry, from the tables alone: the mean -log density, under the backbone-dependent library,
of its side chains that are buried (at least 20 neighbours within 10 angstrom), observed and of low
B (rank below 0.5), where ignorance and disorder are no excuse; how far that lies above other
entries, in robust standard errors; whether its copies of one chain agree in every chi within 2
degrees, as copies do that were not refined by themselves, so that one error is there twice; and
whether it has no resolution. Listed is what lies above the limit, worst first.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from qfitlatent.density.libraries import fit_baselines
from qfitlatent.density.rows import Observed
from qfitlatent.model.dataset import Dataset
from qfitlatent.tables.names import EXCLUDED, SPLITS
from qfitlatent.tables.parquet import read_table

LIBRARY = "backbone_library"
MIN_NEIGHBOURS = 20
MAX_B_RANK = 0.5
MIN_RESIDUES = 10
"""Judged residues that an entry must have."""

MAX_Z = 5.0
SAME_DEGREES = 2.0
SAME_SHARE = 0.98


def residue_nll(observed: Observed, training: Observed) -> np.ndarray:
    """(N,) -log density of the heaviest altloc under the library of the training residues."""
    library = fit_baselines(training, [LIBRARY])[LIBRARY]
    nll = []
    with torch.inference_mode():
        for start in range(0, len(observed), 4096):
            keep = torch.zeros(len(observed), dtype=torch.bool)
            keep[start : start + 4096] = True
            part = observed.select(keep)
            first = part.first_row
            density = library.density(part.token, part.phi_psi)
            rows = part.chi[first], part.defined[first], torch.arange(len(part))
            nll.append(-density.log_prob(*rows).numpy())
    return np.concatenate(nll)


def copies_alike(rows: pd.DataFrame) -> bool:
    """Whether two chains of an entry, with the same residues, have the same chi."""
    by_chain = [part.set_index("index") for _, part in rows.groupby("chain")]
    for i, one in enumerate(by_chain):
        for other in by_chain[:i]:
            both = one.join(other.add_suffix("_other"), how="inner")
            if len(both) < MIN_RESIDUES or (both["token"] != both["token_other"]).any():
                continue
            turn = np.angle(np.exp(1j * (both["chi1"] - both["chi1_other"])))
            if (np.abs(np.degrees(turn)) <= SAME_DEGREES).mean() >= SAME_SHARE:
                return True
    return False


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    dataset, out = Path(sys.argv[1]), Path(sys.argv[2])
    tables, split = dataset / "tables", dataset / "split.parquet"
    training, _, _ = Dataset.load(tables, split, SPLITS[:1]).observed()
    every = Dataset.load(tables, split, (*SPLITS, EXCLUDED))
    observed, row, _ = every.observed()
    columns = ["entry", "chain", "index", "token", "num_neighbours", "b_rank"]
    rows = read_table(tables / "residues.parquet", columns).take(row.numpy()).to_pandas()
    rows["nll"] = residue_nll(observed, training)
    rows["chi1"] = observed.chi[observed.first_row, 0].numpy()
    judged = rows[(rows["num_neighbours"] >= MIN_NEIGHBOURS) & (rows["b_rank"] < MAX_B_RANK)]
    judged = judged.assign(excess=judged["nll"] - judged.groupby("token")["nll"].transform("mean"))
    found = judged.groupby("entry")["excess"].agg(["size", "mean"]).reset_index()
    found.columns = ["entry", "num_judged", "excess_nll"]
    error = judged["excess"].std() / np.sqrt(found["num_judged"])
    between = 1.4826 * (found["excess_nll"] - found["excess_nll"].median()).abs().median()
    found["z"] = (found["excess_nll"] - found["excess_nll"].median()) / np.hypot(error, between)
    names = ["entry", "resolution_angstrom"]
    entries = read_table(tables / "entries.parquet", names).to_pandas()
    found = found.merge(entries, on="entry")
    found["no_resolution"] = found["resolution_angstrom"].isna()
    suspicious = found[(found["z"] > MAX_Z) & (found["num_judged"] >= MIN_RESIDUES)].copy()
    suspicious["copies_alike"] = [
        copies_alike(rows[rows["entry"] == entry]) for entry in suspicious["entry"]
    ]
    suspicious = suspicious.sort_values("z", ascending=False)
    suspicious.round(3).to_csv(out, index=False)
    print(
        f"{len(suspicious)} of {len(found)} entries are suspicious, "
        f"{int(suspicious['copies_alike'].sum())} of them with copies alike, "
        f"{int(suspicious['no_resolution'].sum())} without a resolution: {out}"
    )


if __name__ == "__main__":
    main()
