"""How much a model loses on backbones that people have, beside the deposited ones.

    python benchmarks/robustness.py results/data/real --split validation --pairs pairs.csv

Displaced backbones: smooth deformations (a sum of plane waves with wavelengths of 15 to 40
angstrom, scaled to the rms given), which move N, CA and C alike; frames and torsions follow. Other
crystals: for each pair of a table with the columns id1, chain1, id2, chain2 (author names) of which
one chain is of the split, the densities of the *other* entry's backbone are scored on this one's
side chains, beside its own backbone on the same residues. Nats a residue, 95 % intervals by
bootstrap over entries or pairs.
"""

import argparse
import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from qfitlatent.chemistry.residues import UNKNOWN_TOKEN
from qfitlatent.density.protocol import Density
from qfitlatent.model.batch import Protein
from qfitlatent.model.checkpoint import load_model
from qfitlatent.model.dataset import Dataset
from qfitlatent.model.features import LOCAL_ATOMS
from qfitlatent.model.network import DensityNetwork
from qfitlatent.questions.alignment import aligned
from qfitlatent.questions.coordinate_error import on_atoms
from qfitlatent.tables.names import EXCLUDED, SPLITS
from qfitlatent.tables.parquet import read_table

RMS_ANGSTROM = (0.2, 0.5, 1.0)
NUM_WAVES = 12
WAVELENGTHS_ANGSTROM = (15.0, 40.0)
MIN_ALIGNED = 30
"""Residues that a pair must share."""


@dataclass
class Scores:
    """nll (n,) of residues, which show several altlocs (n,) bool, and their unit (n,) long."""

    nll: Tensor
    several: Tensor
    unit: Tensor


def residue_nll(density: Density, protein: Protein) -> tuple[Tensor, Tensor]:
    """(N,) occupancy-weighted -log density and (N,) number of altlocs; 0 where none is observed."""
    rows = protein.row_residue
    log_prob = density.log_prob(protein.chi, protein.defined, rows)
    nll = torch.zeros(len(protein)).index_add_(0, rows, -protein.occupancy * log_prob)
    return nll, torch.bincount(rows, minlength=len(protein))


def displaced(protein: Protein, rms: float, rng: np.random.Generator) -> Protein:
    """The protein on a smoothly deformed backbone."""
    rotation, ca = (x.double().numpy() for x in (protein.rotation, protein.translation))
    local = LOCAL_ATOMS[:3].double().numpy()  # N, CA, C
    atoms = np.einsum("nij,aj->nai", rotation, local) + ca[:, None]
    direction = rng.normal(size=(NUM_WAVES, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    wave = 2 * math.pi * direction / rng.uniform(*WAVELENGTHS_ANGSTROM, (NUM_WAVES, 1))
    phase = rng.uniform(0, 2 * math.pi, NUM_WAVES)
    moved = np.sin(atoms @ wave.T + phase) @ rng.normal(size=(NUM_WAVES, 3))
    moved *= rms / np.sqrt((moved[:, 1] ** 2).sum(-1).mean())
    return on_atoms(protein, atoms, atoms + moved)


def on_displaced(model: DensityNetwork, dataset: Dataset, rms: float) -> Scores:
    rng = np.random.default_rng(0)
    parts = []
    for number, protein in enumerate(dataset):
        given = displaced(protein, rms, rng) if rms else protein
        nll, num = residue_nll(model.predict(given), protein)
        seen = num > 0
        parts.append((nll[seen], num[seen] > 1, torch.full((int(seen.sum()),), number)))
    return joined(parts)


def joined(parts: list[tuple[Tensor, Tensor, Tensor]]) -> Scores:
    return Scores(*(torch.cat(part) for part in zip(*parts, strict=True)))


def on_other_crystals(
    model: DensityNetwork, folder: Path, split: str, pairs: Path
) -> tuple[Scores, Scores]:
    """The same residues on their own backbone, and on that of another crystal."""
    tables, split_path = folder / "tables", folder / "split.parquet"
    every = Dataset.load(tables, split_path, (*SPLITS, EXCLUDED))
    names = read_table(tables / "residues.parquet", ["author_chain"])["author_chain"]
    scored = read_table(split_path, ["entry", "chain", "split"])
    scored = scored.filter(pc.equal(scored["split"], split))
    chain_of = read_table(tables / "residues.parquet", ["entry", "chain", "author_chain"])
    chain_of = chain_of.group_by(["entry", "chain", "author_chain"]).aggregate([])
    held = {
        (row["entry"], row["author_chain"])
        for row in chain_of.join(scored, ["entry", "chain"], join_type="inner").to_pylist()
    }
    place = {entry: number for number, entry in enumerate(every.entries)}
    own: list[tuple[Tensor, Tensor, Tensor]] = []
    other: list[tuple[Tensor, Tensor, Tensor]] = []
    for number, (one, its_chain, two, chain) in enumerate(_directed(pairs)):
        if (one, its_chain) not in held or one not in place or two not in place:
            continue
        first, second = every[place[one]], every[place[two]]
        a, b = (
            torch.from_numpy(np.flatnonzero(names.take(p.residue_row.numpy()).to_numpy() == c))
            for p, c in ((first, its_chain), (second, chain))
        )
        at, to = _aligned(first.token[a], second.token[b])
        if len(at) < MIN_ALIGNED:
            continue
        truth = first.select(a[at])
        for found, protein, rows in ((own, first, a[at]), (other, second, b[to])):
            nll, num = residue_nll(model.predict(protein).select(rows), truth)
            seen = num > 0
            found.append((nll[seen], num[seen] > 1, torch.full((int(seen.sum()),), number)))
    return joined(own), joined(other)


def _directed(path: Path) -> Iterator[tuple[str, str, str, str]]:
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            one, two = (row["id1"], row["chain1"]), (row["id2"], row["chain2"])
            yield *one, *two
            yield *two, *one


def _aligned(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of equal types in a global alignment of two sequences of tokens."""
    a, b = tuple(one.tolist()), tuple(two.tolist())
    pairs = [(i, j) for i, j in aligned(a, b) if a[i] == b[j] != UNKNOWN_TOKEN]
    found = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def row(name: str, scores: Scores) -> str:
    cells = []
    for mask in (scores.several, ~scores.several, torch.ones_like(scores.several)):
        value, low, high = interval(scores.nll[mask], scores.unit[mask])
        cells.append(f"{value:.3f} ({low:.3f} to {high:.3f}) |")
    return f"| {name} | {' '.join(cells)} {len(scores.nll)} |"


def interval(nll: Tensor, unit: Tensor) -> tuple[float, float, float]:
    """Mean, and its 95 % interval by bootstrap over the units."""
    _, number = unit.unique(return_inverse=True)
    sums = torch.bincount(number, nll.double()).numpy()
    counts = torch.bincount(number).numpy()
    drawn = np.random.default_rng(0).integers(0, len(sums), (1000, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(nll.mean()), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="folder with tables/ and split.parquet")
    parser.add_argument("--model", help="run folder or model file; default: the shipped one")
    parser.add_argument("--split", default="validation", choices=SPLITS)
    parser.add_argument("--pairs", type=Path, help="table of pairs of chains")
    given = parser.parse_args()
    model = load_model(given.model).model
    dataset = Dataset.load(
        given.dataset / "tables", given.dataset / "split.parquet", (given.split,)
    )
    print("| Backbone | nll, with altlocs | nll, one conformer | nll, all | residues |")
    print("|---|---:|---:|---:|---:|")
    for rms in (0.0, *RMS_ANGSTROM):
        name = f"displaced by {rms:g} angstrom" if rms else "deposited"
        print(row(name, on_displaced(model, dataset, rms)), flush=True)
    if given.pairs:
        own, other = on_other_crystals(model, given.dataset, given.split, given.pairs)
        print(row("deposited, chains with another crystal", own))
        print(row("of the other crystal", other))


if __name__ == "__main__":
    main()
