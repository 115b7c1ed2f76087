"""Keys and lists of a table as numpy arrays, and the joins made with them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.tables.columns import CHI_COLUMNS, OBSERVED_COLUMNS


def read_column(table: pa.Table):
    """Column as numpy; a null number becomes nan."""
    return lambda name: table.column(name).to_numpy()


def observed_rows(
    conformers: pa.Table, residue: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the conformers of some residues show: rows with at least one observed chi.

    residue (M,) number of each conformer's residue, from 0; -1 leaves the row out.

    Returns:
        rows (m,) of the table; chi (m,4), nan where undefined or not observed; occupancy (m,),
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


def row_keys(*tables: pa.Table) -> list[np.ndarray]:
    """One sortable integer for each row's key, comparable between the tables."""
    codes = []
    for name in ("entry", "chain"):
        values = pa.chunked_array([c for t in tables for c in t.column(name).chunks], pa.string())
        names, code = np.unique(values.to_numpy(), return_inverse=True)
        codes.append((len(names), code))
    index = np.concatenate([read_column(t)("index") for t in tables]).astype(np.int64)
    width = int(index.max(initial=0)) + 1
    key = (codes[0][1] * codes[1][0] + codes[1][1]) * width + index
    ends = np.cumsum([len(t) for t in tables])
    return np.split(key, ends[:-1])


class KeyCodes:
    """One integer for each (entry, chain, index), the same in every table of the dataset."""

    def __init__(self, residues: pa.Table) -> None:
        self.entries = pc.unique(residues["entry"])
        self.chains = pc.unique(residues["chain"])

    def chain_codes(self, table: pa.Table) -> np.ndarray:
        entry = pc.fill_null(pc.index_in(table["entry"], self.entries), -1).to_numpy()
        chain = pc.fill_null(pc.index_in(table["chain"], self.chains), -1).to_numpy()
        code = entry.astype(np.int64) * len(self.chains) + chain
        return np.where((entry < 0) | (chain < 0), -1, code)

    def codes(self, table: pa.Table) -> np.ndarray:
        """(rows,) int64, -1 for an entry or chain that the residues table does not have."""
        chain = self.chain_codes(table)
        return np.where(chain < 0, -1, (chain << 24) + table["index"].to_numpy())


def positions(codes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Position of each wanted code; raises QfitLatentError where one is missing."""
    order = np.argsort(codes, kind="stable")
    at = np.minimum(np.searchsorted(codes[order], wanted), len(order) - 1)
    found = order[at]
    if not np.array_equal(codes[found], wanted):
        raise QfitLatentError(
            "The frames or conformers table names a residue that the residues table lacks: "
            "the tables belong to different datasets; run the preprocessing again."
        )
    return found


def fixed_list(column: pa.ChunkedArray, shape: tuple[int, ...]) -> np.ndarray:
    """(n, *shape) of a fixed-size list column without nulls, as float64."""
    flat = column.combine_chunks().flatten().to_numpy().astype(np.float64)
    return flat.reshape(len(column), *shape)
