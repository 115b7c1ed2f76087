"""Who is near whom, by cells: the time grows with the number of points."""

import itertools

import numpy as np

PAIRS_AT_A_TIME = 1 << 18
"""Of points in cells side by side, whose distances are held at a time."""

_SHIFTS = np.array(list(itertools.product((-1, 0, 1), repeat=2)))


def pairs_within(a: np.ndarray, b: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """(P,) rows of a (N,3) and (P,) of b (M,3) that are at most ``radius`` apart, sorted.

    A point that is not finite is near nothing.
    """
    rows_a, rows_b = (np.flatnonzero(np.isfinite(x).all(axis=1)) for x in (a, b))
    a, b = a[rows_a], b[rows_b]
    if not len(a) or not len(b):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    origin = np.minimum(a.min(axis=0), b.min(axis=0)) - radius
    # A cell beside the last of each axis, so that no shift wraps round.
    cell_a, cell_b = (((x - origin) // radius).astype(np.int64) + 1 for x in (a, b))
    size = np.maximum(cell_a.max(axis=0), cell_b.max(axis=0)) + 2
    stride = np.array((size[1] * size[2], size[2], 1))
    code_b = cell_b @ stride
    order = np.argsort(code_b, kind="stable")
    code_b = code_b[order]
    # Three cells that differ in the last axis alone stand in a row.
    codes = (cell_a @ stride)[:, None] + _SHIFTS @ stride[:2]
    first = np.searchsorted(code_b, codes - 1, side="left")
    count = np.searchsorted(code_b, codes + 1, side="right") - first
    total = count.sum(axis=1).cumsum()
    parts = np.searchsorted(total, np.arange(PAIRS_AT_A_TIME, total[-1], PAIRS_AT_A_TIME))
    found = []
    for low, high in itertools.pairwise([0, *np.unique(parts).tolist(), len(a)]):
        num = count[low:high].ravel()
        i = np.repeat(np.repeat(np.arange(low, high), len(_SHIFTS)), num)
        within = np.arange(len(i)) - np.repeat(np.cumsum(num) - num, num)
        j = order[np.repeat(first[low:high].ravel(), num) + within]
        apart = a[i] - b[j]
        near = np.einsum("ij,ij->i", apart, apart) <= radius**2
        found.append(np.sort(i[near] * len(b) + j[near]))
    i, j = np.divmod(np.concatenate(found), len(b))
    return rows_a[i], rows_b[j]
