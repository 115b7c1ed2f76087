"""Keys and lists of a table as numpy arrays, and the joins made with them."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa


def read_column(table: pa.Table) -> Callable[[str], np.ndarray]:
    """Column as numpy; a null number becomes nan."""
    return lambda name: table.column(name).to_numpy()


def chain_keys(*tables: pa.Table) -> list[np.ndarray]:
    """One sortable integer for each row's entry and chain, comparable between the tables."""
    codes = []
    for name in ("entry", "chain"):
        values = np.concatenate([t.column(name).cast(pa.string()).to_numpy() for t in tables])
        names, code = np.unique(values, return_inverse=True)
        codes.append((len(names), code))
    key = codes[0][1] * codes[1][0] + codes[1][1]
    return np.split(key, np.cumsum([len(t) for t in tables])[:-1])


def row_keys(*tables: pa.Table) -> list[np.ndarray]:
    """One sortable integer for each row's entry, chain and index, comparable between the tables."""
    index = np.concatenate([read_column(t)("index") for t in tables]).astype(np.int64)
    index -= index.min(initial=0)
    key = np.concatenate(chain_keys(*tables)) * (int(index.max(initial=0)) + 1) + index
    return np.split(key, np.cumsum([len(t) for t in tables])[:-1])


def find_rows(key: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Row of each wanted key in ``key``, which is sorted; -1 where it is not there."""
    at = np.minimum(np.searchsorted(key, wanted), max(0, len(key) - 1))
    return np.where(key[at] == wanted, at, -1) if len(key) else np.full(len(wanted), -1)


def begins_run(values: np.ndarray) -> np.ndarray:
    """(n,) bool: the value differs from the one before it, as the first one does."""
    return np.r_[True, values[1:] != values[:-1]][: len(values)]


def fixed_list(column: pa.ChunkedArray, shape: tuple[int, ...]) -> np.ndarray:
    """(n, *shape) of a fixed-size list column without nulls, as float64."""
    flat = column.combine_chunks().flatten().to_numpy().astype(np.float64)
    return flat.reshape(len(column), *shape)
