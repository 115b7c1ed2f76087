"""Keys and lists of a table as numpy arrays, and the joins made with them."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa


def read_column(table: pa.Table) -> Callable[[str], np.ndarray]:
    """Column as numpy; a null number becomes nan."""
    return lambda name: table.column(name).to_numpy()


def sorted_names(*columns: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Names of all columns together, sorted, and (n,) the number of each row's; rows in turn.

    As ``np.unique`` has them, which sorts every row's name: seconds for a million residues.
    """
    chunks = [chunk for column in columns for chunk in column.cast(pa.string()).chunks]
    text = pa.chunked_array(chunks, pa.string()).combine_chunks().dictionary_encode()
    names = text.dictionary.to_numpy(zero_copy_only=False)
    order = np.argsort(names)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return names[order], rank[text.indices.to_numpy()]


def chain_keys(*tables: pa.Table) -> list[np.ndarray]:
    """One sortable integer for each row's entry and chain, comparable between the tables."""
    (_, entry), (chains, chain) = (
        sorted_names(*(table.column(name) for table in tables)) for name in ("entry", "chain")
    )
    key = entry * len(chains) + chain
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
