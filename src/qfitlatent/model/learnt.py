"""Which chains a model learnt from, in its header, so that nothing scores it on them.

A chain is known by entry and name, and by a digest of its sequence, so that a copy under another
name, or another crystal of the same construct, is recognised, too. Relatives are not: keeping those
apart is the split's work (SPEC 5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from qfitlatent.tables.keys import begins_run, chain_keys
from qfitlatent.tables.parquet import read_table

COLUMNS = ("entry", "chain", "token")
"""What is read of a residues table."""

MIN_RESIDUES = 15
"""Shorter sequences are known by entry and name alone: equal peptides are no evidence."""

_DIGEST_CHARACTERS = 16


@dataclass(frozen=True)
class Learnt:
    """The chains of a training set: (entry, chain) pairs, and digests of their sequences."""

    chains: frozenset[tuple[str, str]]
    sequences: frozenset[str]

    @classmethod
    def of(cls, residues: pa.Table) -> Learnt:
        """Of the chains in a residues table (``COLUMNS``)."""
        named = list(_chains(residues))
        return cls(
            frozenset((entry, chain) for entry, chain, _, _ in named),
            frozenset(digest for _, _, _, digest in named if digest),
        )

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Learnt:
        chains = ((entry, name) for entry, names in record["chains"].items() for name in names)
        return cls(frozenset(chains), frozenset(record["sequences"]))

    def __or__(self, other: Learnt | None) -> Learnt:
        """What either learnt from."""
        if other is None:
            return self
        return Learnt(self.chains | other.chains, self.sequences | other.sequences)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: entry -> names of chains, and the digests, sorted."""
        chains: dict[str, list[str]] = {}
        for entry, name in sorted(self.chains):
            chains.setdefault(entry, []).append(name)
        return {"chains": chains, "sequences": sorted(self.sequences)}

    def rows(self, residues: pa.Table) -> np.ndarray:
        """(N,) bool: the residue is of a chain that was learnt from."""
        known = np.zeros(len(residues), dtype=bool)
        for entry, chain, rows, digest in _chains(residues):
            known[rows] = (entry, chain) in self.chains or digest in self.sequences
        return known


def learnt_chains(tables_dir: str | Path, chains: pa.Table) -> Learnt:
    """Of some chains (entry, chain) of a data set."""
    residues = read_table(Path(tables_dir) / "residues.parquet", list(COLUMNS))
    residue_chain, chosen = chain_keys(residues, chains)
    return Learnt.of(residues.filter(pa.array(np.isin(residue_chain, chosen))))


def _chains(residues: pa.Table) -> Iterator[tuple[str, str, slice, str]]:
    """Entry, name, rows and digest of each chain; no digest where it is short."""
    if not len(residues):
        return
    (key,) = chain_keys(residues)
    first = np.flatnonzero(begins_run(key))
    token = residues["token"].to_numpy().astype(np.int8)
    names = residues.select(["entry", "chain"]).take(pa.array(first)).to_pylist()
    for row, begin, end in zip(names, first, [*first[1:], len(key)], strict=True):
        sequence = hashlib.sha256(token[begin:end].tobytes()).hexdigest()[:_DIGEST_CHARACTERS]
        digest = sequence if end - begin >= MIN_RESIDUES else ""
        yield row["entry"], row["chain"], slice(begin, end), digest
