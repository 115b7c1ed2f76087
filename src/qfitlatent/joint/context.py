"""Deposited side chains among their deposited neighbours, and the joint states that fit better.

The energy is that of the joint model (``energy.py``): what the density asks for a side chain, and
its contacts. A side chain meets atoms that are blank or of its own altloc; a blank one meets, of
what has altlocs, the one with the highest occupancy. Most side chains cannot gain much whatever
stands around them, since their density has no likelier rotamer and they touch nothing: those stay.
The others are released together, each with all its rotamers and the one that is deposited, and the
best state of all of them is searched for: of two side chains that clash, that one moves which gains
most by it.

Shapes: M side chains (a residue and altloc each), R of them released, C candidates, A = 9 atoms
beyond CB of the largest type, Q other atoms, D=4 chi. Angstrom, nats.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from qfitlatent.chemistry.neighbours import pairs_within
from qfitlatent.chemistry.residues import NUM_CHI
from qfitlatent.joint.atoms import SIDE_CHAIN_KIND, Backbones
from qfitlatent.joint.candidates import Candidates, Densities, candidates_of_modes
from qfitlatent.joint.contacts import (
    CONTACT,
    MAX_CONTACT,
    atoms_of,
    contacts_with,
    nats,
    near_atoms,
    near_residues,
    pair_tables,
)
from qfitlatent.joint.energy import NEGLIGIBLE, Problem
from qfitlatent.joint.search import (
    best_state,
    components,
    energy_of,
    neighbours,
    problem_of,
    restrict,
)
from qfitlatent.joint.states import is_distinct


@dataclass(frozen=True)
class SideChains:
    """M side chains as they stand, those of a residue together.

    residue (M,) of the backbones; group (M,) number of the residue in the structure; label (M,)
    altloc, "" for blank; is_main (M,) bool: blank, or the altloc with the highest occupancy;
    is_held (M,) bool: a bond holds it, so that it is not released; chi (M,D); position (M,A,3) of
    the atoms beyond CB, nan where the type has none.
    """

    residue: np.ndarray
    group: np.ndarray
    label: np.ndarray
    is_main: np.ndarray
    is_held: np.ndarray
    chi: np.ndarray
    position: np.ndarray


@dataclass(frozen=True)
class Others:
    """Q atoms that are no part of these side chains.

    position (Q,3), kind (Q,); group, label, is_main (Q,) as of side chains; beside (Q,) the group
    whose side chain does not meet it, being next to it in the chain; -1 for none.
    """

    position: np.ndarray
    kind: np.ndarray
    group: np.ndarray
    label: np.ndarray
    is_main: np.ndarray
    beside: np.ndarray


@dataclass(frozen=True)
class Deposited:
    """The side chains of a structure, the backbones that they hang on, and all around them.

    linked (L,2): groups that a covalent bond or a metal's bond joins; they do not clash.
    """

    backbones: Backbones
    side_chains: SideChains
    others: Others
    linked: np.ndarray


@dataclass(frozen=True)
class InContext:
    """What is known of each of M side chains.

    cost (M,) nats that the density asks for it; strain (M,) of its contacts; gain (M,) of the best
    joint state over the best one in which it stays as it is, at most what it can gain itself; chi
    (M,D) of its rotamer there, nan where it is not distinct; strain_left (M,) of the contacts in
    that state. Of a side chain that could not gain enough to be worth a look, the deposited one
    counts as the best. usual (M,) nats that a draw of the density costs more than the likeliest
    side chain, on average.

    contact (M,2): the worst contact, as number of the own atom 0..A-1, and of the other: 0..Q-1 of
    the other atoms, Q + A m + a of atom a of side chain m; -1 where it touches nothing.
    contact_angstrom (M,) and contact_nats (M,) of it.
    """

    cost: np.ndarray
    strain: np.ndarray
    gain: np.ndarray
    chi: np.ndarray
    strain_left: np.ndarray
    usual: np.ndarray
    contact: np.ndarray
    contact_angstrom: np.ndarray
    contact_nats: np.ndarray

    @property
    def look(self) -> np.ndarray:
        """(M,) nats that a better rotamer gains beyond the usual, or of strain that none relieves.

        Long side chains are hardly ever in their likeliest rotamer, and need not be.
        """
        stays = np.minimum(self.strain, self.strain_left)
        return np.maximum(np.maximum(self.gain - self.usual, stays), 0.0)


class _Sight:
    """Which side chains meet which groups of atoms."""

    def __init__(self, deposited: Deposited) -> None:
        side_chains = deposited.side_chains
        self.group, self.label = side_chains.group, side_chains.label
        both = np.concatenate((deposited.linked, deposited.linked[:, ::-1]))
        self._size = 1 + max(
            (int(x.max(initial=0)) for x in (self.group, deposited.others.group, both)), default=0
        )
        self._linked = np.unique(both @ np.array((self._size, 1)))

    def meets(
        self, row: np.ndarray, group: np.ndarray, label: np.ndarray, is_main: np.ndarray
    ) -> np.ndarray:
        """(P,) bool: side chains (P,) meet atoms of these groups (P,) and labels (P,)."""
        own = self.label[row]
        met = (label == "") | (label == own) | ((own == "") & is_main)
        met &= group != self.group[row]
        return met & ~np.isin(self.group[row] * self._size + group, self._linked)


def in_context(
    deposited: Deposited, densities: Densities, look_above: float, seed: int = 0
) -> InContext:
    """The energy of each side chain, and the best state of those that could be worth a look."""
    rows = deposited.side_chains
    cost = densities.cost(rows.residue, rows.chi)
    strain, *contact = _contacts(deposited)
    least = -np.log(densities.mode_weight[rows.residue, 0])
    usual = usual_excess(densities)[rows.residue]
    most = cost - least + strain
    released = np.flatnonzero((most - usual >= look_above) & ~rows.is_held)
    gain, left = np.zeros(len(cost)), strain.copy()
    chi = np.full(rows.chi.shape, np.nan)
    if len(released):
        energy = (cost + strain)[released]
        found = _released(deposited, densities, released, cost[released], energy, seed)
        gain[released], chi[released], left[released] = found
        gain = np.minimum(gain, most)  # what is beyond is gained by those that move with it
    return InContext(cost, strain, gain, chi, left, usual, *contact)


def usual_excess(densities: Densities) -> np.ndarray:
    """(N,) nats that a draw costs more than the likeliest side chain, on average.

    Exact for which mode it is of; within a mode, a nat for each chi.
    """
    weight = densities.mode_weight / densities.mode_weight.sum(axis=1, keepdims=True)
    log = np.log(np.where(weight > 0, weight, 1.0))
    return log[:, 0] - (weight * log).sum(axis=1) + NUM_CHI[densities.token]


def _contacts(
    deposited: Deposited,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(M,) strain, and the worst contact of each side chain as of ``InContext``."""
    rows, others = deposited.side_chains, deposited.others
    num, size = rows.position.shape[:2]
    owner, atom = np.nonzero(np.isfinite(rows.position[..., 0]))
    position = rows.position[owner, atom]
    kind = SIDE_CHAIN_KIND[deposited.backbones.token[rows.residue[owner]], atom + 1]
    sight = _Sight(deposited)

    i, q = pairs_within(position, others.position, MAX_CONTACT)
    met = sight.meets(owner[i], others.group[q], others.label[q], others.is_main[q])
    met &= others.beside[q] != rows.group[owner[i]]
    i, q = i[met], q[met]
    a, b = pairs_within(position, position, MAX_CONTACT)
    met = sight.meets(owner[a], rows.group[owner[b]], rows.label[owner[b]], rows.is_main[owner[b]])
    a, b = a[met], b[met]

    own = np.r_[i, a]
    other = np.r_[q, len(others.kind) + size * owner[b] + atom[b]]
    where = np.concatenate((others.position[q], position[b]))
    square = ((position[own] - where) ** 2).sum(axis=1)
    energy = nats(square, CONTACT[kind[own], np.r_[others.kind[q], kind[b]]])
    strain = np.bincount(owner[own], weights=energy, minlength=num)

    touching = np.flatnonzero(energy > NEGLIGIBLE)
    order = touching[np.lexsort((energy[touching], owner[own[touching]]))]
    last = np.flatnonzero(np.diff(owner[own[order]], append=num))
    worst = order[last]
    at = owner[own[worst]]
    contact = np.full((num, 2), -1)
    contact[at] = np.stack((atom[own[worst]], other[worst]), axis=1)
    apart, most = np.full(num, np.nan), np.zeros(num)
    apart[at], most[at] = np.sqrt(square[worst]), energy[worst]
    return strain, contact, apart, most


def _released(
    deposited: Deposited,
    densities: Densities,
    released: np.ndarray,
    cost: np.ndarray,
    energy: np.ndarray,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(R,) gain, (R,D) chi of the better rotamer or nan, and (R,) strain left.

    cost (R,) and energy (R,) of the deposited ones: a rotamer that costs more than that energy by
    itself cannot be better.
    """
    rows = deposited.side_chains
    residue = rows.residue[released]
    own, backbones = densities.select(residue), deposited.backbones.select(residue)
    candidates = _candidates(deposited, own, released, cost, energy)
    start = candidates.start(len(released))
    centre = backbones.translation.mean(axis=0)
    position = backbones.moved(candidates.residue, candidates.chi, centre)
    # The deposited one is the last, and stands where it is deposited.
    position[start[1:] - 1] = rows.position[released] - centre
    problem = _problem(deposited, released, candidates, position, centre)
    chosen = best_state(problem, seed)
    reached = [each[c] for each, c in zip(problem.own, chosen, strict=True)]
    for (i, j), pair in problem.pair.items():
        met = pair[chosen[i], chosen[j]]
        reached[i], reached[j] = reached[i] + met, reached[j] + met
    best = candidates.select(start[:-1] + chosen)
    moved = is_distinct(own.token, best.chi, rows.chi[released])
    gain = np.where(moved, _gains(problem, chosen, moved, seed), 0.0)
    return gain, np.where(moved[:, None], best.chi, np.nan), np.array(reached) - best.cost


def _gains(problem: Problem, chosen: np.ndarray, moved: np.ndarray, seed: int) -> np.ndarray:
    """(R,) energy of the best state in which a side chain stays as deposited, less the best of all.

    Only what touches another side chain that moves needs a search of its own.
    """
    near = neighbours(problem)
    gain = np.zeros(len(chosen))
    for part in components(problem):
        for n in (n for n in part if moved[n]):
            if not any(moved[j] for j in near[n]):
                energy = problem.own[n] + sum(pair[:, chosen[j]] for j, pair in near[n].items())
                gain[n] = energy[-1] - energy[chosen[n]]
                continue
            own = problem_of(problem, part)
            best = energy_of(own, chosen[part])
            at = part.index(n)
            kept = [np.arange(len(energy)) for energy in own.own]
            kept[at] = kept[at][-1:]
            stays = restrict(own, kept)
            gain[n] = energy_of(stays, best_state(stays, seed)) - best
    return gain


def _candidates(
    deposited: Deposited,
    densities: Densities,
    released: np.ndarray,
    cost: np.ndarray,
    energy: np.ndarray,
) -> Candidates:
    """Rotamers that no other altloc of the residue has, and last the deposited side chain."""
    rows = deposited.side_chains
    every = candidates_of_modes(densities)
    every = every.select(np.flatnonzero(every.cost <= energy[every.residue]))
    first = np.searchsorted(rows.residue, np.arange(len(deposited.backbones) + 1))
    taken = np.zeros(len(every), dtype=bool)
    start = every.start(len(released))
    for r, m in enumerate(released.tolist()):
        for other in range(first[rows.residue[m]], first[rows.residue[m] + 1]):
            if other != m:
                some = slice(start[r], start[r + 1])
                token = densities.token[every.residue[some]]
                taken[some] |= ~is_distinct(token, every.chi[some], rows.chi[None, other])
    every = every.select(np.flatnonzero(~taken))
    each = np.arange(len(released))
    chi, none = rows.chi[released], np.full(len(each), -1)
    mode = densities.nearest_mode(each, chi)
    return every.joined(Candidates(each, chi, cost, mode, none, np.zeros(len(each))))


def _problem(
    deposited: Deposited,
    released: np.ndarray,
    candidates: Candidates,
    position: np.ndarray,
    centre: np.ndarray,
) -> Problem:
    """Of the released side chains among all that stays; position (C,A,3) about the centre (3,)."""
    rows, sight = deposited.side_chains, _Sight(deposited)
    start = candidates.start(len(released))
    kind = SIDE_CHAIN_KIND[deposited.backbones.token[rows.residue[released]], 1:]
    atoms = atoms_of(position, kind, start)
    stays = _all_but(deposited, released)
    where = (stays.position - centre).astype(np.float32)
    r, q = near_atoms(atoms, where)
    met = sight.meets(released[r], stays.group[q], stays.label[q], stays.is_main[q])
    met &= stays.beside[q] != rows.group[released[r]]
    energy = candidates.cost + contacts_with(atoms, r[met], q[met], where, stays.kind)
    own = [energy[first:last] for first, last in itertools.pairwise(start.tolist())]

    i, j = near_residues(atoms)
    a, b = released[i], released[j]
    met = sight.meets(a, rows.group[b], rows.label[b], rows.is_main[b])
    met |= sight.meets(b, rows.group[a], rows.label[a], rows.is_main[a])
    tables = pair_tables(atoms, i[met], j[met])
    return Problem(own, {(x, y): table for x, y, table in tables if table.max() > NEGLIGIBLE})


def _all_but(deposited: Deposited, released: np.ndarray) -> Others:
    """The other atoms, and those of the side chains that are not released."""
    rows, others = deposited.side_chains, deposited.others
    stays = np.ones(len(rows.residue), dtype=bool)
    stays[released] = False
    owner, atom = np.nonzero(np.isfinite(rows.position[..., 0]) & stays[:, None])
    token = deposited.backbones.token[rows.residue[owner]]
    return Others(
        np.concatenate((others.position, rows.position[owner, atom])),
        np.r_[others.kind, SIDE_CHAIN_KIND[token, atom + 1]],
        np.r_[others.group, rows.group[owner]],
        np.r_[others.label, rows.label[owner]],
        np.r_[others.is_main, rows.is_main[owner]],
        np.r_[others.beside, np.full(len(owner), -1)],
    )
