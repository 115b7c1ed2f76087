"""From tables to tensors: a data set is read once and sliced by offsets.

Only residues with a backbone frame enter the model. The observed side-chain conformers are rows
beside the residues, so that the loss and the metrics score what was observed and nothing else: a
chi that hangs on an atom placed without density (SPEC 3) is left out here, for both.

Shapes: N residues of a protein (entry) or of all, M observed rows (residue x altloc), D=4 chi,
E entries.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.density.rows import DISTINCT_DEGREES, Observed, altloc_spread
from qfitlatent.model.batch import OBSERVED_FIELDS, Protein
from qfitlatent.model.labels import LabelWeights, unknown_entries
from qfitlatent.tables.columns import CHI_COLUMNS, KEYS, OBSERVED_COLUMNS
from qfitlatent.tables.keys import (
    chain_keys,
    find_rows,
    fixed_list,
    read_column,
    row_keys,
    sorted_names,
)
from qfitlatent.tables.parquet import read_table

COLUMNS = {
    "residues": [
        *KEYS,
        "label_seq",
        "author_number",
        "segment",
        "token",
        "phi_rad",
        "psi_rad",
        "omega_rad",
        "num_distinct_conformers",
        "b_rank",
    ],
    "frames": [*KEYS, "rotation", "translation_angstrom"],
    "conformers": [*KEYS, "occupancy_normalised", *CHI_COLUMNS, *OBSERVED_COLUMNS],
}
"""What is read of each table."""


def first_by_hash(entries: Sequence[str], number: int | None) -> list[str]:
    """So many by a hash of their names, sorted: a larger number holds the smaller; None for all."""
    order = sorted(entries, key=lambda entry: hashlib.sha256(entry.encode()).digest())
    return sorted(order[:number])


class Dataset:
    """The proteins of one data set, in memory, sorted by entry.

    ``entries`` (E,) names; ``dataset[i]`` is the ``Protein`` of entry i, made from slices. An entry
    without any frame is left out. ``num_without_frame`` counts the residues whose conformers are
    left out because they have none.
    """

    def __init__(
        self,
        tables: Mapping[str, pa.Table],
        chains: pa.Table | None = None,
        altlocs_unknown: str | Path | None = None,
        weights: LabelWeights | None = None,
    ) -> None:
        """tables: residues, frames and conformers (see schemas.py), sorted by key.

        chains: entry and chain of those whose conformers count; default all. The other chains of
        their entries are context: backbone and type, never their chi (SPEC 5).
        altlocs_unknown: list of entries that are no evidence that a residue is single.
        weights: of residues in the density loss; default 1 each. They need the column cluster of
        chains.
        """
        residues, frames, conformers = (tables[n] for n in ("residues", "frames", "conformers"))
        if len(frames) != len(residues):
            raise QfitLatentError(
                f"The frames table has {len(frames)} rows and the residues table {len(residues)}: "
                "they come from different runs of the preprocessing; rerun it."
            )
        self.chains = chains
        column = read_column(residues)
        wanted = np.asarray(frames.column("rotation").combine_chunks().is_valid())
        names, entry_code = sorted_names(residues.column("entry"))
        counts = np.ones(len(residues), dtype=bool)
        if chains is not None:
            residue_chain, chosen = chain_keys(residues, chains)
            counts = np.isin(residue_chain, chosen)
            wanted &= np.isin(entry_code, entry_code[counts])
        kept = np.flatnonzero(wanted)
        taken = frames.take(pa.array(kept)) if len(kept) < len(frames) else frames
        torsion = np.stack([column(f"{name}_rad") for name in ("phi", "psi", "omega")], axis=1)
        self._residues = {
            "token": torch.from_numpy(column("token")[kept].astype(np.int64)),
            "rotation": _floats(fixed_list(taken.column("rotation"), (3, 3))),
            "translation": _floats(fixed_list(taken.column("translation_angstrom"), (3,))),
            "position": torch.from_numpy(_positions(column)[kept]),
            "chain": torch.from_numpy(sorted_names(residues.column("chain"))[1][kept]),
            "torsion": _floats(torsion[kept]),
            "num_distinct": torch.from_numpy(
                column("num_distinct_conformers")[kept].astype(np.int64)
            ),
            "b_rank": _floats(column("b_rank")[kept]),
            "residue_row": torch.from_numpy(kept),
        }

        owner = find_rows(*row_keys(residues, conformers))
        if (owner < 0).any():
            raise QfitLatentError(
                "The conformers table names a residue that the residues table lacks: they come "
                "from different runs of the preprocessing; rerun it."
            )
        rows, chi, occupancy = _observed(conformers, np.where(counts[owner], owner, -1))
        new_row = np.full(len(residues), -1)
        new_row[kept] = np.arange(len(kept))
        row_residue = new_row[owner[rows]]
        framed = row_residue >= 0
        self.num_without_frame = len(np.unique(owner[rows[~framed]]))
        chi, row_residue = chi[framed], row_residue[framed]
        self._row_residue = torch.from_numpy(row_residue)
        self._rows = {
            "conformer_row": torch.from_numpy(rows[framed]),
            "chi": _floats(np.nan_to_num(chi)),
            "defined": torch.from_numpy(~np.isnan(chi)),
            "occupancy": _floats(occupancy[framed]),
        }

        unknown = torch.from_numpy(unknown_entries(names, altlocs_unknown)[entry_code[kept]])
        b_rank, shown = self._residues["b_rank"], torch.zeros(len(kept), dtype=torch.bool)
        shown[self._row_residue] = True
        self._residues["weight"] = torch.ones(len(kept))
        if weights is not None and chains is not None:
            size = torch.from_numpy(_cluster_size(residues, chains)[kept])
            self._residues["weight"] = weights.of(b_rank, unknown, size, shown)

        codes, first = np.unique(entry_code[kept], return_index=True)
        self.entries: list[str] = [str(names[code]) for code in codes]
        self._offset = np.append(first, len(kept))
        self._row_offset = np.searchsorted(row_residue, self._offset)
        distinct = altloc_spread(self._all_observed()) > math.radians(DISTINCT_DEGREES)
        self._residues["heterogeneous"] = distinct.float().where(shown & ~unknown, torch.nan)

    @classmethod
    def load(
        cls,
        tables_dir: str | Path,
        split_path: str | Path,
        splits: Sequence[str],
        max_entries: int = 0,
        altlocs_unknown: str | Path | None = None,
        weights: LabelWeights | None = None,
    ) -> Dataset:
        """The chains of these splits, with their entries around them.

        max_entries: keep so many (``first_by_hash``); 0 keeps all. altlocs_unknown and weights as
        in the constructor.

        Raises QfitLatentError for a missing table or column, for splits that hold no entry, and for
        a list of entries that cannot be read or names none of the data set.
        """
        tables = {
            name: read_table(Path(tables_dir) / f"{name}.parquet", columns)
            for name, columns in COLUMNS.items()
        }
        split = read_table(split_path, ["entry", "chain", "split", "cluster"])
        chains = split.filter(pc.is_in(split["split"], pa.array(list(splits))))
        if max_entries:
            few = first_by_hash(chains["entry"].unique().to_pylist(), max_entries)
            chains = chains.filter(pc.is_in(chains["entry"], pa.array(few, pa.string())))
        dataset = cls(tables, chains, altlocs_unknown, weights)
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

    def observed(self) -> tuple[Observed, Tensor, Tensor]:
        """The residues that show a chi, of all proteins together, and where they stand.

        Returns:
            the residues and their rows; rows (N,) of the residues table; (M,) of the conformers'.
        """
        every = self._all_observed()
        seen = every.num_conformers > 0
        rows = self._residues["residue_row"][seen]
        return every.select(seen), rows, self._rows["conformer_row"]

    def labels(self, name: str, rows: Tensor) -> Tensor:
        """(n,) heterogeneous or b_rank of the residues that are these rows (n,) of their table."""
        return self._residues[name][torch.searchsorted(self._residues["residue_row"], rows)]

    def _all_observed(self) -> Observed:
        """All residues, those that show no chi too."""
        residues = self._residues
        return Observed(
            token=residues["token"],
            phi_psi=residues["torsion"][:, :2],
            entry=torch.from_numpy(np.repeat(np.arange(len(self)), self.num_residues)),
            row_residue=self._row_residue,
            num_distinct=residues["num_distinct"],
            **{name: self._rows[name] for name in OBSERVED_FIELDS},
        )

    def __iter__(self) -> Iterator[Protein]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Protein:
        residues = slice(self._offset[i], self._offset[i + 1])
        rows = slice(self._row_offset[i], self._row_offset[i + 1])
        return Protein(
            entry=self.entries[i],
            row_residue=self._row_residue[rows] - int(self._offset[i]),
            **{name: values[residues] for name, values in self._residues.items()},
            **{name: values[rows] for name, values in self._rows.items()},
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


def _cluster_size(residues: pa.Table, chains: pa.Table) -> np.ndarray:
    """(N,) how many of the chains are of the cluster of each residue's chain; 0 for others."""
    residue_chain, chosen = chain_keys(residues, chains)
    _, cluster, counts = np.unique(
        chains["cluster"].to_numpy(), return_inverse=True, return_counts=True
    )
    order = np.argsort(chosen)
    at = find_rows(chosen[order], residue_chain)
    return np.where(at < 0, 0, counts[cluster][order][at])


def _floats(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _observed(
    conformers: pa.Table, residue: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the conformers of some residues show: rows with at least one observed chi.

    residue (M,) number of each conformer's residue, from 0; -1 leaves the row out.

    Returns:
        rows (m,) of the table; chi (m,D), nan where undefined or not observed; occupancy (m,),
        normalised over the rows of a residue that are left.
    """
    column = read_column(conformers)
    chi = np.stack([column(name) for name in CHI_COLUMNS], axis=1)
    seen = np.stack([conformers[name].fill_null(False).to_numpy() for name in OBSERVED_COLUMNS], 1)
    chi = np.where(seen, chi, np.nan)
    occupancy, wanted = column("occupancy_normalised"), residue >= 0
    rows = np.flatnonzero(wanted & ~np.isnan(chi).all(axis=1))
    if len(rows) < np.count_nonzero(wanted):
        left = np.bincount(residue[rows], occupancy[rows])
        occupancy = occupancy.copy()
        occupancy[rows] /= np.where(left > 0, left, 1.0)[residue[rows]]
    return rows, chi[rows], occupancy[rows]


def _positions(column: Callable[[str], np.ndarray]) -> np.ndarray:
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
