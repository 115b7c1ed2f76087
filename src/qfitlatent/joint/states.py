"""From the best joint state to altlocs: states of groups of heterogeneous residues that touch.

A is the best joint state. In B, C, ... as many residues of a group as can take a rotamer that no
earlier label has, at the least energy; the others stay as they are under an earlier label. A label
is thus one state of the whole group, and its population is one number for all of its residues: the
one with which the occupancies come nearest to the marginals of the joint energy.

Shapes: N residues, L labels, n residues of a group, D=4 chi.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from qfitlatent.chemistry.geometry import circular_distance
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI, PI_SYMMETRIC
from qfitlatent.joint.candidates import Densities
from qfitlatent.joint.energy import Built, Energy
from qfitlatent.joint.gibbs import draw_states
from qfitlatent.joint.relax import relax
from qfitlatent.joint.search import best_of, components, restrict

MAX_LABELS = 4
"""A to D: deposited models hardly have more."""

DISTINCT = np.deg2rad(40.0)
"""Two rotamers are distinct where some chi differs by more."""

REWARD = 4.0
"""Nats that a residue may cost in B, C, ... for a rotamer that no earlier label has."""

MAX_STRAIN = 2.5
"""Nats of contacts, beyond those in A, from which on a label is not written."""

PLAUSIBLE = 0.02
"""Of the likeliest candidate of a residue: less likely ones do not make residues touch."""

CHAINS = 64
"""Of the sampling behind the marginals."""


@dataclass(frozen=True)
class Group:
    """Residues (n,) 0..N-1 whose altlocs belong together, and population (L,) of each label."""

    residues: tuple[int, ...]
    population: np.ndarray
    distance: float
    """Mean over the residues of the total variation between occupancies and marginals, 0 to 1."""


@dataclass(frozen=True)
class States:
    """chi (N,L,D) and occupancy (N,L) of each residue under each label, A first.

    A residue that has the same side chain under several labels has it under the first of them, and
    occupancy 0 under the others; occupancies are hundredths that sum to 100.
    """

    chi: np.ndarray
    occupancy: np.ndarray
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class _Label:
    """A joint state, one candidate a residue; first (N,) is the first label of each side chain."""

    state: Built
    first: np.ndarray


def is_distinct(token: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(C,) whether side chains a and b (C,D) of types token (C,) are distinct rotamers."""
    apart = circular_distance(a, b, PI_SYMMETRIC[token])
    return (np.where(CHI_DEFINED[token], apart, 0.0) > DISTINCT).any(axis=-1)


def hundredths(weight: np.ndarray) -> np.ndarray:
    """(N,J) int: weights (N,J) in hundredths that sum to exactly 100, by largest remainder.

    A weight above 0 gets at least 1, so that no built conformer has occupancy 0.00; the residue's
    largest share pays for it. Rows of zeros stay zeros.
    """
    weight = np.asarray(weight, dtype=np.float64)
    total = weight.sum(axis=1, keepdims=True)
    share = 100.0 * weight / np.where(total > 0, total, 1.0)
    whole = np.floor(share).astype(np.int64)
    missing = np.where(total[:, 0] > 0, 100 - whole.sum(axis=1), 0)
    rank = np.argsort(np.argsort(-(share - whole), axis=1, kind="stable"), axis=1)
    whole += rank < missing[:, None]
    lacking = (weight > 0) & (whole == 0)
    whole += lacking
    largest = np.argmax(whole, axis=1)
    whole[np.arange(len(whole)), largest] -= lacking.sum(axis=1)
    return whole


def joint_states(
    energy: Energy,
    densities: Densities,
    best: Built,
    candidates: Built,
    heterogeneous: np.ndarray,
    min_population: float,
    seed: int,
) -> States:
    """Labels for the heterogeneous (N,) bool residues; the others are as in ``best``, one each.

    ``candidates`` of the heterogeneous residues are what B, C, ... choose from. No label of a group
    has a population below min_population.
    """
    num, token = len(densities), densities.token
    several = heterogeneous & (NUM_CHI[token] > 0) & (best.bond < 0)
    choice = candidates.select(np.flatnonzero(several[candidates.residue] & (candidates.bond < 0)))
    choice, marginal, touching = _marginals(energy, best, choice, several, seed)
    labels = _labels(energy, densities, best, choice, marginal, min_population, seed)
    chi = np.repeat(best.chi[:, None], MAX_LABELS, axis=1)
    occupancy = np.zeros((num, MAX_LABELS), dtype=np.int64)
    occupancy[:, 0] = 100
    first = np.stack([label.first for label in labels], axis=1)
    every = np.stack([label.state.chi for label in labels], axis=1)
    target = _targets(token, every, first, choice, marginal)
    groups = []
    for members in touching:
        kept, population = _populations(first[members], target[members], min_population)
        whole = hundredths(population[None])[0]
        same = (first[members][:, kept, None] == first[members][:, None, kept]).argmax(axis=2)
        written = np.zeros((len(members), MAX_LABELS), dtype=np.int64)
        np.add.at(written, (np.arange(len(members))[:, None], same), whole)
        chi[members, : len(kept)] = every[members][:, kept]
        occupancy[members] = written
        wanted = np.take_along_axis(target[members], first[members][:, kept], axis=1)
        differs = (written > 0).sum(axis=1) > 1
        if differs.any():
            off = np.abs(
                written[:, : len(kept)] / 100 - np.where(written[:, : len(kept)] > 0, wanted, 0.0)
            )
            residues = tuple(np.array(members)[differs].tolist())
            groups.append(Group(residues, whole / 100, float(off[differs].sum(axis=1).mean() / 2)))
    return States(chi, occupancy, tuple(groups))


def _marginals(
    energy: Energy, best: Built, choice: Built, several: np.ndarray, seed: int
) -> tuple[Built, np.ndarray, list[list[int]]]:
    """The plausible ones of the candidates, their marginals (C,), and the groups that touch.

    A mode counts by its mass, over its sub-rotamers: hence the spread beside the cost.
    """
    has_choice = np.isin(np.arange(len(several)), choice.residue)
    every = best.select(np.flatnonzero(~has_choice)).joined(choice)
    free, problem = energy.problem(replace(every, cost=every.cost + every.spread))
    _, marginals = draw_states(problem, CHAINS, np.random.default_rng(seed))
    kept = [np.flatnonzero(each >= PLAUSIBLE * each.max()) for each in marginals]
    parts = [free[part] for part in components(restrict(problem, kept))]
    touching = [part.tolist() for part in parts if has_choice[part].all()]
    start = every.start(len(several))[free]
    none = np.zeros(0, dtype=np.int64)
    rows = np.concatenate([none, *(first + some for first, some in zip(start, kept, strict=True))])
    marginal = np.concatenate([none, *(m[k] for m, k in zip(marginals, kept, strict=True))])
    chosen = has_choice[every.residue[rows]]
    return every.select(rows[chosen]), marginal[chosen], touching


def _labels(
    energy: Energy,
    densities: Densities,
    best: Built,
    choice: Built,
    marginal: np.ndarray,
    min_population: float,
    seed: int,
) -> list[_Label]:
    """A, B, ... of all groups at once, while any residue finds a rotamer that it has not yet."""
    num = len(best)
    labels = [_Label(best, np.zeros(num, dtype=np.int64))]
    rest = energy.contacts(best, np.isin(np.arange(num), choice.residue))
    at_rest, clashing = rest.strain(num), rest.clashing()
    unused = np.ones(len(choice), dtype=bool)
    for number in range(1, MAX_LABELS):
        last = labels[-1].state.chi[choice.residue]
        unused &= is_distinct(densities.token[choice.residue], choice.chi, last)
        left = np.bincount(choice.residue, weights=marginal * unused, minlength=num)
        active = left >= min_population
        while active.any():
            new = choice.select(np.flatnonzero(unused & active[choice.residue]))
            label = _next_label(energy, densities, labels, new, seed)
            taken = label.first == number
            contacts = energy.contacts(label.state, taken)
            strained = taken & (contacts.strain(num) > at_rest + MAX_STRAIN)
            new_clash = np.array(list(contacts.clashing() - clashing), dtype=np.int64)
            strained |= taken & np.isin(np.arange(num), new_clash)
            if not strained.any():
                break
            active &= ~strained
        if not active.any() or not taken.any():
            break
        labels.append(label)
    return labels


def _next_label(
    energy: Energy, densities: Densities, labels: list[_Label], new: Built, seed: int
) -> _Label:
    """The best state in which a residue has a new side chain or that of an earlier label."""
    fresh = np.array([label.first == number for number, label in enumerate(labels)])  # (L,N)
    every = labels[0].state
    for number, label in enumerate(labels[1:], start=1):
        every = every.joined(label.state.select(np.flatnonzero(fresh[number])))
    # Those of a residue stand in this order, its new ones last.
    num_known = fresh.sum(axis=0)
    every = every.joined(new)
    start = every.start(len(num_known))
    is_new = np.arange(len(every)) - start[every.residue] >= num_known[every.residue]
    rows = best_of(energy, replace(every, cost=every.cost - REWARD * is_new), seed)
    chosen = rows - start[:-1]
    taken = chosen >= num_known
    order = np.argsort(~fresh, axis=0, kind="stable")
    earlier = order[np.minimum(chosen, len(labels) - 1), np.arange(len(chosen))]
    state = relax(energy, densities, every.select(rows), seed, taken)
    return _Label(state, np.where(taken, len(labels), earlier))


def _targets(
    token: np.ndarray,
    chi: np.ndarray,
    first: np.ndarray,
    choice: Built,
    marginal: np.ndarray,
) -> np.ndarray:
    """(N,L) marginal of the side chain that each label is the first to have, 0 under the others.

    chi (N,L,D), first (N,L). A candidate counts for the first label from which it is not distinct;
    what is near none is left out, and a residue's sum is 1.
    """
    n = choice.residue
    num_labels = chi.shape[1]
    near = np.stack(
        [
            (first[n, k] == k) & ~is_distinct(token[n], choice.chi, chi[n, k])
            for k in range(num_labels)
        ],
        axis=1,
    )
    target = np.zeros(first.shape)
    target[:, 0] = 1e-9
    rows = near.any(axis=1)
    np.add.at(target, (n[rows], near[rows].argmax(axis=1)), marginal[rows])
    return target / target.sum(axis=1, keepdims=True)


def _populations(
    first: np.ndarray, target: np.ndarray, min_population: float
) -> tuple[list[int], np.ndarray]:
    """Labels of a group, A first, and their populations, none below min_population.

    first (n,L) the first label that has the side chain of a label, target (n,L) the marginal of it.
    """
    kept = [k for k in range(first.shape[1]) if k == 0 or (first[:, k] == k).any()]
    while True:
        population = _nearest(first[:, kept], target)
        lightest = int(population[1:].argmin()) + 1 if len(kept) > 1 else 0
        if len(kept) == 1 or population[lightest] >= min_population:
            break
        del kept[lightest]
    if population[0] < min_population:
        population *= (1.0 - min_population) / population[1:].sum()
        population[0] = min_population
    return kept, population


def _nearest(first: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(L,) populations whose occupancies are nearest to the targets, by least squares.

    All supports are tried: there are 15 of 4 labels.
    """
    side_chains = np.arange(target.shape[1])
    shows = (first[:, None, :] == side_chains[:, None]).reshape(-1, first.shape[1]).astype(float)
    wanted = target.reshape(-1)
    best, least = np.zeros(first.shape[1]), np.inf
    for size in range(1, first.shape[1] + 1):
        for support in map(list, itertools.combinations(range(first.shape[1]), size)):
            trial = np.zeros(first.shape[1])
            trial[support] = 1.0
            if size > 1:
                rows = np.vstack((shows[:, support], np.full(size, _SUM_WEIGHT)))
                some = np.linalg.lstsq(rows, np.r_[wanted, _SUM_WEIGHT], rcond=None)[0]
                some = np.maximum(some, 0.0)
                trial[support] = some / max(some.sum(), 1e-9)
            error = ((shows @ trial - wanted) ** 2).sum()
            if error < least - 1e-12:
                best, least = trial, error
    return best


_SUM_WEIGHT = 1e3
"""Of the equation that populations sum to 1."""
