"""What a model is to remember of its training set, beside it: before ``ship_model.py``.

    python tools/training_set.py results/runs/real results/data/real

The first is a run folder or model file, the second the folder of its data set, with tables/ and
split.parquet. ``training_set.safetensors`` beside the model then has, of each residue type, where
single representations of training residues lie (of 560 training entries, the first by a hash of
their names), how far those of the validation split lie from there, and the sequences of all
training chains (docs/ignorance.md).
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import torch

from qfitlatent.chemistry.residues import NUM_CHI, ONE_LETTER
from qfitlatent.model.batch import collate
from qfitlatent.model.checkpoint import LoadedModel, load_model
from qfitlatent.model.dataset import Dataset
from qfitlatent.model.learnt import MIN_RESIDUES
from qfitlatent.model.reference import QUANTILES, REFERENCE_FILE, Reference, fit
from qfitlatent.tables.keys import begins_run, chain_keys
from qfitlatent.tables.parquet import read_table

NUM_ENTRIES = 560


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    loaded, data = load_model(sys.argv[1]), Path(sys.argv[2])
    path = loaded.path.with_name(REFERENCE_FILE)
    make_reference(loaded, data).save(path)
    print(f"{path}: {path.stat().st_size} bytes")


def make_reference(loaded: LoadedModel, data: Path, num_entries: int = NUM_ENTRIES) -> Reference:
    """SystemExit where the data set is not the one that the model learnt from."""
    chains, sequences = training_chains(loaded, data)
    s, token = representations(loaded, data, "train", num_entries)
    basis, mean, factor = fit(s, token)
    unscaled = Reference(loaded.about.version, basis, mean, factor, QUANTILES, chains, sequences)
    s, token = representations(loaded, data, "validation", 0)
    has_chi = NUM_CHI[token] > 0
    distance = unscaled.distance(s[has_chi], token[has_chi])
    quantiles = np.quantile(distance, QUANTILES)
    return Reference(loaded.about.version, basis, mean, factor, quantiles, chains, sequences)


def training_chains(
    loaded: LoadedModel, data: Path
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Each distinct sequence of the chains that the model learnt from, under its first name."""
    split = read_table(data / "split.parquet", ["entry", "chain", "split"])
    split = split.filter(pc.equal(split["split"], "train"))
    named = set(zip(split["entry"].to_pylist(), split["chain"].to_pylist(), strict=True))
    if loaded.learnt is None or named != loaded.learnt.chains:
        sys.exit(
            f"The training chains of {data} are not those of {loaded.path}: give its data set."
        )
    residues = read_table(data / "tables" / "residues.parquet", ["entry", "chain", "token"])
    residue_chain, chosen = chain_keys(residues, split)
    first = np.flatnonzero(begins_run(residue_chain))
    taken = np.isin(residue_chain[first], chosen)
    letters = np.array(list(ONE_LETTER))[residues["token"].to_numpy()]
    names = residues.select(["entry", "chain"]).take(first[taken]).to_pylist()
    ends = np.r_[first[1:], len(residues)]
    found: dict[str, tuple[str, str]] = {}
    for row, begin, end in zip(names, first[taken], ends[taken], strict=True):
        if end - begin >= MIN_RESIDUES:
            found.setdefault("".join(letters[begin:end]), (row["entry"], row["chain"]))
    return tuple(found.values()), tuple(found)


@torch.inference_mode()
def representations(
    loaded: LoadedModel, data: Path, split: str, num_entries: int
) -> tuple[np.ndarray, np.ndarray]:
    """s (N,W) and token (N,) of a split; of the first entries by hash, or of all for 0."""
    dataset = Dataset.load(data / "tables", data / "split.parquet", (split,), num_entries)
    parts = []
    for at in range(len(dataset)):
        protein = dataset[at]
        parts.append((loaded.model.encode(collate([protein])).numpy(), protein.token.numpy()))
    s, token = (np.concatenate(part) for part in zip(*parts, strict=True))
    return s.astype(np.float64), token


if __name__ == "__main__":
    main()
