"""From tables to tensors: a data set is read once and sliced by offsets.

Only residues with a backbone frame enter the model. The observed side-chain conformers are rows
beside the residues, so that the loss and the metrics score what was observed and nothing else.

Shapes: N residues of a protein (entry), M observed rows (residue x altloc), D=4 chi,
B proteins in a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.model.batch import Protein
from qfitlatent.tables.columns import CHI_COLUMNS, KEYS, OBSERVED_COLUMNS
from qfitlatent.tables.keys import fixed_list, observed_rows, read_column, row_keys
from qfitlatent.tables.names import SPLITS
from qfitlatent.tables.parquet import read_table

RESIDUE_COLUMNS = [
    *KEYS,
    "label_seq",
    "author_number",
    "segment",
    "token",
    "phi_rad",
    "psi_rad",
    "omega_rad",
]


CONFORMER_COLUMNS = [*KEYS, "occupancy_normalised", *CHI_COLUMNS, *OBSERVED_COLUMNS]


FRAME_COLUMNS = [*KEYS, "rotation", "translation_angstrom"]


class Dataset:
    """The proteins of one data set, in memory, sorted by entry.

    ``entries`` (E,) names; ``dataset[i]`` is the ``Protein`` of entry i, made from slices. An entry
    without any frame is left out.
    """

    def __init__(
        self, tables: Mapping[str, pa.Table], entries: Sequence[str] | None = None
    ) -> None:
        """tables: residues, frames and conformers (see schemas.py), sorted by key.

        entries: the ones to keep; default all.
        """
        residues, frames, conformers = (tables[n] for n in ("residues", "frames", "conformers"))
        if len(frames) != len(residues):
            raise QfitLatentError(
                f"The frames table has {len(frames)} rows and the residues table {len(residues)}: "
                "they come from different runs of the preprocessing; rerun it."
            )
        key, conformer_key = row_keys(residues, conformers)
        column = read_column(residues)
        wanted = np.asarray(frames.column("rotation").combine_chunks().is_valid())
        names, entry_code = np.unique(column("entry"), return_inverse=True)
        if entries is not None:
            wanted &= np.isin(names, np.asarray(list(entries), dtype=names.dtype))[entry_code]
        kept = np.flatnonzero(wanted)

        self._residue_row = torch.from_numpy(kept)
        self._token = torch.from_numpy(column("token")[kept].astype(np.int64))
        self._position = torch.from_numpy(_positions(column)[kept])
        self._chain = torch.from_numpy(np.unique(column("chain"), return_inverse=True)[1][kept])
        torsion = np.stack([column(f"{name}_rad") for name in ("phi", "psi", "omega")], axis=1)
        self._torsion = torch.from_numpy(torsion[kept].astype(np.float32))
        taken = frames.take(pa.array(kept)) if len(kept) < len(frames) else frames
        self._rotation = _rows(taken, "rotation", (3, 3))
        self._translation = _rows(taken, "translation_angstrom", (3,))

        new_row = np.full(len(residues), -1)
        new_row[kept] = np.arange(len(kept))
        at = np.searchsorted(key, conformer_key)
        row_residue = new_row[at]
        observed, chi, occupancy = observed_rows(conformers, row_residue)
        self._row_residue = torch.from_numpy(row_residue[observed])
        self._defined = torch.from_numpy(~np.isnan(chi))
        self._chi = torch.from_numpy(np.nan_to_num(chi).astype(np.float32))
        self._occupancy = torch.from_numpy(occupancy.astype(np.float32))

        codes, first = np.unique(entry_code[kept], return_index=True)
        self.entries: list[str] = [str(names[code]) for code in codes]
        self._offset = np.append(first, len(kept))
        self._row_offset = np.searchsorted(row_residue[observed], self._offset)

    @classmethod
    def load(
        cls,
        tables_dir: str | Path,
        split_path: str | Path | None = None,
        splits: Sequence[str] = SPLITS,
        max_entries: int = 0,
    ) -> Dataset:
        """The entries of these splits, or every entry where no split is given.

        max_entries: keep so many, the first by a hash of their names, so that a larger number holds
        the smaller; 0 keeps all.

        Raises QfitLatentError for a missing table or column, and for splits that hold no entry.
        """
        tables_dir = Path(tables_dir)
        tables = {
            "residues": read_table(tables_dir / "residues.parquet", RESIDUE_COLUMNS),
            "frames": read_table(tables_dir / "frames.parquet", FRAME_COLUMNS),
            "conformers": read_table(tables_dir / "conformers.parquet", CONFORMER_COLUMNS),
        }
        if split_path is None:
            return cls(tables)
        split = read_table(split_path, ["entry", "split"])
        chosen = np.isin(read_column(split)("split"), list(splits))
        entries = np.unique(read_column(split)("entry")[chosen])
        if max_entries:
            order = [hashlib.sha256(str(entry).encode()).digest() for entry in entries]
            entries = entries[np.argsort(order, kind="stable")[:max_entries]]
        dataset = cls(tables, entries)
        if not dataset.entries:
            raise QfitLatentError(
                f"No entry of {split_path} is in {' or '.join(splits)} and has a backbone: "
                "add entries or change `split.fractions`."
            )
        return dataset

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def num_residues(self) -> np.ndarray:
        """(E,) residues of each entry."""
        return np.diff(self._offset)

    def num_observed(self, multiconformer: bool) -> int:
        """Residues with a conformer, or with two and more if ``multiconformer``."""
        num_altlocs = torch.bincount(self._row_residue)
        return int((num_altlocs >= (2 if multiconformer else 1)).sum())

    def __getitem__(self, i: int) -> Protein:
        residues = slice(self._offset[i], self._offset[i + 1])
        rows = slice(self._row_offset[i], self._row_offset[i + 1])
        return Protein(
            entry=self.entries[i],
            token=self._token[residues],
            rotation=self._rotation[residues],
            translation=self._translation[residues],
            position=self._position[residues],
            chain=self._chain[residues],
            torsion=self._torsion[residues],
            residue_row=self._residue_row[residues],
            row_residue=self._row_residue[rows] - int(self._offset[i]),
            chi=self._chi[rows],
            defined=self._defined[rows],
            occupancy=self._occupancy[rows],
        )


def protein_from_tables(tables: Mapping[str, pa.Table]) -> Protein:
    """The protein of one entry's tables, as ``structure.read_entry`` gives them.

    Raises QfitLatentError where no residue has a complete backbone.
    """
    dataset = Dataset(tables)
    if not len(dataset):
        raise QfitLatentError(
            "No protein residue has all of N, CA and C, so there is no backbone to predict on."
        )
    return dataset[0]


def _rows(table: pa.Table, name: str, shape: tuple[int, ...]) -> Tensor:
    """(rows, *shape) float32 from a fixed-size list column without nulls."""
    return torch.from_numpy(fixed_list(table.column(name), shape).astype(np.float32))


def _positions(column) -> np.ndarray:
    """Polymer number of each residue, from ``label_seq`` where the file has it.

    A PDB file has none: there, residues of a segment follow one another, and across a chain break
    the author numbers say how many are missing (at least none).
    """
    index = column("index").astype(np.int64)
    label = column("label_seq").astype(np.float64)
    new_chain = index == 0
    new_segment = np.diff(column("segment"), prepend=0) != 0
    gap = np.diff(column("author_number").astype(np.int64), prepend=0)
    step = np.where(new_chain, 0, np.where(new_segment, np.maximum(gap, 1), 1))
    counted = np.cumsum(step)
    return np.where(np.isnan(label), counted, np.nan_to_num(label)).astype(np.int64)
