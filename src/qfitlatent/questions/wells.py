"""Rotamer wells: the populations by which structures are compared and ensembles averaged.

A well is a stretch of chi1 and, where the type has one, of chi2, with its borders where side
chains are rare: thirds for tetrahedral angles (p, t, m around 60, 180, -60 degrees), quarters
around 0, 90, 180 and -90 degrees for the planar chi2 of ASN, HIS and TRP, halves of the half turn
(around 0 and 90) for the pi-symmetric chi2 of ASP, PHE and TYR, the sign of chi1 for the ring of
PRO. What lies farther out (chi3, chi4) is summed over.

Shapes: N residues, M observed rows, S points, W wells, D=4 chi, B bins.
"""

import math

import numpy as np

from qfitlatent.chemistry.residues import (
    CHI_DEFINED,
    NUM_CHI,
    NUM_TOKENS,
    PI_SYMMETRIC,
    RESIDUE_TYPES,
    TOKEN,
)
from qfitlatent.density.protocol import Density
from qfitlatent.model.batch import Protein

NUM_WELLS = 12
"""W: of the types that have most, ASN, HIS and TRP."""

NUM_BINS = 72
"""B of the circle of a chi, 5 degrees each; of a pi-symmetric one, of its half circle."""

_THIRDS, _QUARTERS, _HALVES = ("p", "t", "m"), ("0", "90", "180", "-90"), ("0", "90")
_RING = ("endo", "exo")
"""Of PRO: chi1 above and below 0 (Lovell et al., Proteins 40 (2000) 389)."""

_PLANAR = {"ASN": _QUARTERS, "HIS": _QUARTERS, "TRP": _QUARTERS} | dict.fromkeys(
    ("ASP", "PHE", "TYR"), _HALVES
)


def _cells(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the cells of chi1 and of chi2 are called; one without a name where there is no chi."""
    if name == "PRO":
        return _RING, ("",)
    num = NUM_CHI[TOKEN[name]]
    return _THIRDS if num else ("",), _PLANAR.get(name, _THIRDS) if num > 1 else ("",)


_OF_TYPE = (*map(_cells, RESIDUE_TYPES), (("",), ("",)))
WELL_NAMES = tuple(
    tuple(a + b for a in first for b in second) if first != ("",) else ()
    for first, second in _OF_TYPE
)
"""Of each token the names of its wells: ``mt``, ``m-90``; none of a type without chi."""

_COUNT = np.array([[len(first), len(second)] for first, second in _OF_TYPE])
_PERIOD = np.where(PI_SYMMETRIC, math.pi, 2 * math.pi)  # (21,D)
_OFFSET = np.zeros((NUM_TOKENS, 2))
for _name in _PLANAR:  # the first cell has 0 in its middle
    _OFFSET[TOKEN[_name], 1] = math.pi / 4


def needs_chi(token: np.ndarray) -> np.ndarray:
    """(N,D) bool: the chi that the well of a residue of this token (N,) is made of."""
    needed = np.zeros((len(token), CHI_DEFINED.shape[1]), dtype=bool)
    needed[:, :2] = _COUNT[token] > 1
    return needed


def wells_of(token: np.ndarray, chi: np.ndarray) -> np.ndarray:
    """(...,N) number of the well of side chains chi (...,N,D), radians, of types token (N,)."""
    period, count = _PERIOD[token, :2], _COUNT[token]
    turn = np.remainder(chi[..., :2] + _OFFSET[token], period) / period
    cell = np.minimum((turn * count).astype(np.int64), count - 1)
    return cell[..., 0] * count[:, 1] + cell[..., 1]


def predicted_wells(token: np.ndarray, chi: np.ndarray) -> np.ndarray:
    """(N,W) share of points chi (S,N,D) in each well; sums to 1."""
    place = np.arange(len(token)) * NUM_WELLS + wells_of(token, chi)
    counts = np.bincount(place.ravel(), minlength=len(token) * NUM_WELLS)
    return counts.reshape(-1, NUM_WELLS) / len(chi)


def points_of(density: Density, num: int) -> np.ndarray:
    """(S,N,D) points that stand for equal shares of each residue's density, radians."""
    return density.points(num).chi.numpy()


def observed_wells(protein: Protein) -> tuple[np.ndarray, np.ndarray]:
    """(N,W) share of the conformers, by occupancy, in each well; (N,) bool: some show their well.

    A conformer without chi1, or without a chi2 that its type has, counts for nothing.
    """
    row, token = protein.row_residue.numpy(), protein.token.numpy()
    chi, defined = protein.chi.numpy(), protein.defined.numpy()
    whole = (defined | ~needs_chi(token)[row]).all(axis=1) & (NUM_CHI[token][row] > 0)
    row = row[whole]
    place = row * NUM_WELLS + wells_of(token[row], chi[whole])
    weight = protein.occupancy.numpy().astype(float)[whole]
    sums = np.bincount(place, weight, len(token) * NUM_WELLS).reshape(-1, NUM_WELLS)
    total = sums.sum(axis=1)
    seen = total > 0
    return sums / np.where(seen, total, 1.0)[:, None], seen


def histograms(token: np.ndarray, chi: np.ndarray) -> np.ndarray:
    """(N,D,B) share of points chi (S,N,D) in each bin of each chi; sums to 1."""
    turn = np.remainder(chi, _PERIOD[token]) / _PERIOD[token]
    cell = np.minimum((turn * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    num = math.prod(chi.shape[1:])
    place = np.arange(num).reshape(chi.shape[1:]) * NUM_BINS + cell
    counts = np.bincount(place.ravel(), minlength=num * NUM_BINS)
    return counts.reshape(*chi.shape[1:], NUM_BINS) / len(chi)


def circular_wasserstein(token: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """(N,D) Wasserstein-1 distance of histograms (N,D,B) on the circle, degrees; nan without chi.

    On a circle it is the least, over a constant, of the mean distance between the cumulative sums,
    and the median is that constant (Rabin, Delon, Gousseau, J. Math. Imaging Vis. 41 (2011) 147).
    """
    ahead = np.cumsum(one - two, axis=-1)
    away = np.abs(ahead - np.median(ahead, axis=-1, keepdims=True)).mean(axis=-1)
    return np.where(CHI_DEFINED[token], away * np.degrees(_PERIOD[token]), np.nan)


def shannon(population: np.ndarray) -> np.ndarray:
    """(...,) entropy of populations (...,W), nats."""
    return -(population * np.log(np.where(population > 0, population, 1.0))).sum(axis=-1)
