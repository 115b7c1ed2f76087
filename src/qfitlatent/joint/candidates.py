"""The side chains that each residue may have, and what its density asks for each.

A candidate is a mode of the density, or the mode with chi1 and chi2 displaced. Its cost is -log of
the mode's mass, and for a displaced one what the density loses on the way, in nats: a broad mode
gives way for less than a sharp one.

Shapes: N residues, K components, J modes, C candidates of all residues, D=4 chi. Radians.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self, TypeVar

import numpy as np

from qfitlatent.chemistry.building import closable_proline_chi
from qfitlatent.chemistry.geometry import circular_distance
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI, NUM_CHI_MAX, PI_SYMMETRIC, TOKEN

MIN_MASS = 0.005
MAX_MODES = 16
"""Modes that become candidates (SPEC 12)."""

STEP = np.deg2rad(12.0)
"""Displacement of chi1 and chi2."""

MAX_LOSS = 8.0
"""Nats at which the loss of a displaced side chain ends: a density's tails are not known better."""

_MAX_KAPPA = 500.0
"""A kernel of 2.6 degrees: no candidate is worse off than with that."""

_KERNELS_AT_A_TIME = 1 << 16
"""Components whose parameters are held at a time."""

_PROLINE = TOKEN["PRO"]

_FEW = 3
"""Side chains of a residue, on average, below which the parameters are copied for each."""


@dataclass(frozen=True)
class Densities:
    """Mixtures over chi of N residues, and their modes.

    token (N,); weight (N,K), mean and kappa (N,K,D) of the components; mode_weight (N,J), heaviest
    first and 0 where there is none, mode_chi (N,J,D).
    """

    token: np.ndarray
    weight: np.ndarray
    mean: np.ndarray
    kappa: np.ndarray
    mode_weight: np.ndarray
    mode_chi: np.ndarray

    def __len__(self) -> int:
        return len(self.token)

    def select(self, rows: np.ndarray) -> "Densities":
        return Densities(*(getattr(self, field.name)[rows] for field in fields(self)))

    def log_density(self, residue: np.ndarray, chi: np.ndarray) -> np.ndarray:
        """(C,) log density of chi (C,D) of the residues (C,), in nats; those of a residue together.

        A kernel is exp(eta . (cos chi, sin chi, 1)), of the components that have weight: one small
        matrix product a residue, or one sum for all where a residue has few.
        """
        point = np.ones((len(chi), 2 * NUM_CHI_MAX + 1), dtype=np.float32)
        point[:, :NUM_CHI_MAX], point[:, NUM_CHI_MAX:-1] = np.cos(chi), np.sin(chi)
        starts = np.flatnonzero(np.diff(residue, prepend=-1))
        own, bounds = residue[starts], np.append(starts, len(residue))
        of = _of_few if len(residue) < _FEW * len(own) else _of_many
        density = np.zeros(len(residue))
        total = self._num[own].cumsum()
        most = total.max(initial=0)
        cuts = np.searchsorted(total, np.arange(_KERNELS_AT_A_TIME, most, _KERNELS_AT_A_TIME))
        for low, high in itertools.pairwise([0, *np.unique(cuts).tolist(), len(own)]):
            rows = slice(bounds[low], bounds[high])
            size = np.diff(bounds[low : high + 1])
            density[rows] = of(*self._kernels(own[low:high]), size, point[rows])
        return density

    @cached_property
    def _num(self) -> np.ndarray:
        """(N,) components of each residue that have weight."""
        return np.count_nonzero(self.weight > 0, axis=1)

    def _kernels(self, residues: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """eta (M,2D+1) float32 of the kernels of these residues (n,), and where those of each
        begin, (n+1,); the last of eta is the log of weight over norm.

        Where a chi is symmetric a component is two kernels, one turned by pi.
        """
        residue, component = np.nonzero(self.weight[residues] > 0)
        at = residues[residue], component
        token = self.token[at[0]]
        defined, symmetric = CHI_DEFINED[token], PI_SYMMETRIC[token]
        weight, mean, kappa = (
            x[at].astype(np.float64) for x in (self.weight, self.mean, self.kappa)
        )
        kappa = np.where(defined, np.minimum(kappa, _MAX_KAPPA), 0.0)
        norm = (_log_i0e(kappa) + kappa + _LOG_2PI) * defined
        num = 1 + np.logical_or.reduce(symmetric, axis=1)
        base = np.log(weight / num) - norm.sum(axis=1)
        eta = np.column_stack((kappa * np.cos(mean), kappa * np.sin(mean), base))
        row = np.repeat(np.arange(len(eta)), num)
        eta = eta[row].astype(np.float32)
        second = np.flatnonzero(np.diff(row, prepend=-1) == 0)
        turned = symmetric[row[second]]
        eta[second, :-1] *= np.where(np.concatenate((turned, turned), axis=1), -1.0, 1.0)
        return eta, np.searchsorted(residue[row], np.arange(len(residues) + 1))

    def cost(
        self, residue: np.ndarray, chi: np.ndarray, mode: np.ndarray | None = None
    ) -> np.ndarray:
        """(C,) nats of side chains chi (C,D) that belong to a mode (C,), by default the nearest.

        -log of the mode's mass and what the density loses between the mode and chi.
        """
        if mode is None:
            mode = self.nearest_mode(residue, chi)
        width = self.mode_weight.shape[1]
        modes, which = np.unique(residue * width + mode, return_inverse=True)
        n, m = np.divmod(modes, width)
        every = np.concatenate((n, residue))
        order = np.argsort(every, kind="stable")
        points = np.concatenate((self.mode_chi[n, m], chi))
        log = np.empty(len(every))
        log[order] = self.log_density(every[order], points[order])
        loss = log[: len(n)][which] - log[len(n) :]
        return np.clip(loss, 0.0, MAX_LOSS) - np.log(self.mode_weight[residue, mode])

    def nearest_mode(self, residue: np.ndarray, chi: np.ndarray) -> np.ndarray:
        """(C,) the mode whose farthest chi is nearest."""
        token = self.token[residue, None]
        apart = circular_distance(chi[:, None], self.mode_chi[residue], PI_SYMMETRIC[token])
        apart = np.where(CHI_DEFINED[token], apart, 0.0).max(axis=2)
        return np.where(self.mode_weight[residue] > 0, apart, np.inf).argmin(axis=1)


@dataclass(frozen=True)
class Candidates:
    """Side chains to choose from, those of a residue together, residues in order.

    residue (C,), chi (C,D), cost (C,) nats, mode (C,); bond (C,) number of the bond that a
    candidate makes (``bonds``), -1 for none; spread (C,) nats: with it beside their costs, all
    candidates of a mode together weigh as much as the mode.
    """

    residue: np.ndarray
    chi: np.ndarray
    cost: np.ndarray
    mode: np.ndarray
    bond: np.ndarray
    spread: np.ndarray

    def __len__(self) -> int:
        return len(self.residue)

    def start(self, num_residues: int) -> np.ndarray:
        """(N+1,) where the candidates of each residue begin."""
        return np.searchsorted(self.residue, np.arange(num_residues + 1))

    def select(self, rows: np.ndarray) -> Self:
        return type(self)(*(x[rows] for x in vars(self).values()))

    def between(self, first: int, last: int) -> Self:
        """Those of the residues from first to before last; the arrays are not copied."""
        low, high = np.searchsorted(self.residue, (first, last))
        return type(self)(*(x[low:high] for x in vars(self).values()))

    def joined(self, other: Self) -> Self:
        both = self.followed_by([other])
        return both.select(np.argsort(both.residue, kind="stable"))

    def followed_by(self, others: Sequence[Self]) -> Self:
        """All of these, one after the other."""
        columns = zip(*(vars(x).values() for x in (self, *others)), strict=True)
        return type(self)(*map(np.concatenate, columns))


Chosen = TypeVar("Chosen", bound=Candidates)


def modes_of(densities: Densities) -> Candidates:
    """The modes; a residue without chi has one candidate that has no atoms.

    A proline's chi are those with which its ring closes.
    """
    weight = densities.mode_weight[:, :MAX_MODES]
    is_mode = weight >= MIN_MASS
    is_mode[:, 0] = True
    residue, mode = np.nonzero(is_mode)
    chi = densities.mode_chi[residue, mode]
    cost = -np.log(densities.mode_weight[residue, mode])
    proline = np.flatnonzero(densities.token[residue] == _PROLINE)
    chi[proline, :2] = closable_proline_chi(chi[proline])
    cost[proline] = densities.cost(residue[proline], chi[proline], mode[proline])
    return Candidates(residue, chi, cost, mode, np.full(len(chi), -1), np.zeros(len(chi)))


def with_sub_rotamers(densities: Densities, modes: Chosen) -> tuple[Chosen, Candidates]:
    """The modes, and beside them those with chi1 and chi2 displaced; both with their spread."""
    moves = np.array([(a, b, 0, 0) for a in (0, -STEP, STEP) for b in (0, -STEP, STEP)])[1:]
    moved = displaced(densities, modes, moves)
    of_mode, of_moved = (x.residue * MAX_MODES + x.mode for x in (modes, moved))
    total = np.bincount(np.r_[of_mode, of_moved], weights=np.exp(-np.r_[modes.cost, moved.cost]))
    mass = densities.mode_weight[:, :MAX_MODES]
    both = (
        replace(x, spread=np.log(total[number] / mass[x.residue, x.mode]))
        for x, number in ((modes, of_mode), (moved, of_moved))
    )
    return tuple(both)  # type: ignore[return-value]


def candidates_of_modes(densities: Densities) -> Candidates:
    """Modes and their sub-rotamers."""
    modes, moved = with_sub_rotamers(densities, modes_of(densities))
    return modes.joined(moved)


def displaced(densities: Densities, base: Candidates, moves: np.ndarray) -> Candidates:
    """Candidates with their chi moved by each of the moves (M,D) that the residue's type has.

    A proline is not moved: its ring would leave the two forms that close.
    """
    num = densities.token[base.residue]
    used = (moves != 0)[None] & ~CHI_DEFINED[num][:, None]
    which, move = np.nonzero(
        ~used.any(axis=2) & (num != _PROLINE)[:, None] & (NUM_CHI[num] > 0)[:, None]
    )
    residue, mode = base.residue[which], base.mode[which]
    chi = (base.chi[which] + moves[move] + np.pi) % (2 * np.pi) - np.pi
    cost = densities.cost(residue, chi, mode)
    return Candidates(residue, chi, cost, mode, base.bond[which], base.spread[which])


def _of_many(eta: np.ndarray, start: np.ndarray, size: np.ndarray, point: np.ndarray) -> np.ndarray:
    """(C,) log density at points (C,2D+1), of which each residue has so many (n,)."""
    density = np.empty(len(point))
    end = 0
    for n, num in enumerate(size.tolist()):
        first, end = end, end + num
        density[first:end] = _log_sum_exp(point[first:end] @ eta[start[n] : start[n + 1]].T)
    return density


def _of_few(eta: np.ndarray, start: np.ndarray, size: np.ndarray, point: np.ndarray) -> np.ndarray:
    """The same, each point with every kernel of its residue in one list."""
    residue = np.repeat(np.arange(len(size)), size)
    num = np.diff(start)[residue]
    first = np.cumsum(num) - num
    of = np.repeat(np.arange(len(residue)), num)
    row = np.arange(len(of)) + (start[residue] - first)[of]
    log = np.einsum("ij,ij->i", eta[row], point[of])
    top = np.maximum.reduceat(log, first)
    return np.log(np.add.reduceat(np.exp(log - top[of]), first)).astype(np.float64) + top


_LOG_2PI = np.log(2 * np.pi)


def _log_sum_exp(log: np.ndarray) -> np.ndarray:
    top = log.max(axis=1)
    return np.log(np.exp(log - top[:, None]).sum(axis=1)) + top


def _log_i0e(kappa: np.ndarray) -> np.ndarray:
    """log of I0(kappa) exp(-kappa), to 1e-7 (Abramowitz & Stegun 9.8.1 and 9.8.2)."""
    small = np.minimum(kappa, 3.75)
    t = (small / 3.75) ** 2
    low = np.log(np.polynomial.polynomial.polyval(t, _I0_SMALL)) - small
    large = np.maximum(kappa, 3.75)
    high = np.log(np.polynomial.polynomial.polyval(3.75 / large, _I0_LARGE)) - 0.5 * np.log(large)
    return np.where(kappa < 3.75, low, high)


_I0_SMALL = (1.0, 3.5156229, 3.0899424, 1.2067492, 0.2659732, 0.0360768, 0.0045813)
_I0_LARGE = (
    *(0.39894228, 0.01328592, 0.00225319, -0.00157565, 0.00916281),
    *(-0.02057706, 0.02635537, -0.01647633, 0.00392377),
)
