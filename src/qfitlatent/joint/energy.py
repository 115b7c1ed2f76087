"""The energy of a joint state, in nats of the density: costs of its side chains and their contacts.

Attraction is left to the density; what contacts cost is in ``contacts``.

Shapes: N residues, R of them with a choice, C candidates, A = 9 atoms beyond CB of the largest
type, M atoms around.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from qfitlatent.chemistry.neighbours import pairs_within
from qfitlatent.joint.atoms import SIDE_CHAIN_KIND, Backbones, Surroundings
from qfitlatent.joint.bonds import Bonds
from qfitlatent.joint.candidates import Candidates
from qfitlatent.joint.contacts import (
    CONTACT,
    MAX_CONTACT,
    Atoms,
    atoms_of,
    contacts_with,
    nats,
    near_atoms,
    near_residues,
    pair_tables,
)

CLASH = 2.5
"""Heavy atoms of different residues that are nearer clash, angstrom."""

NEGLIGIBLE = 0.01
"""Nats below which two residues do not meet."""


@dataclass(frozen=True)
class Built(Candidates):
    """Candidates with their atoms, and what these meet of what stays.

    position (C,A,3) float32 about the centre of the energy, nan where there is no atom; contact
    (C,) nats.
    """

    position: np.ndarray
    contact: np.ndarray


@dataclass(frozen=True)
class Problem:
    """What is to be minimised: own[n] (C_n,) and pair[i, j] (C_i,C_j) float32, i < j, in nats."""

    own: list[np.ndarray]
    pair: dict[tuple[int, int], np.ndarray]


class Contacts(NamedTuple):
    """P atoms of some side chains and those that they may touch.

    residue (P,2), the second -1 for an atom that stays; square (P,) of their distance; contact (P,)
    distance. Of two of these side chains each stands first once.
    """

    residue: np.ndarray
    square: np.ndarray
    contact: np.ndarray

    @property
    def nats(self) -> np.ndarray:
        """(P,) of each."""
        return nats(self.square, self.contact)

    def strain(self, num: int) -> np.ndarray:
        """(N,) nats of the contacts of each of these side chains."""
        return np.bincount(self.residue[:, 0], self.nats, num)

    def clashing(self) -> set[tuple[int, int]]:
        """Residues that clash, the lower one first; the second is -1 for an atom that stays."""
        # Bonds of metals are shorter.
        pairs = self.residue[(self.square <= CLASH**2) & (self.contact > CLASH)]
        rest = pairs[:, 1] < 0
        pairs[~rest] = np.sort(pairs[~rest], axis=1)
        return set(map(tuple, pairs.tolist()))


class Energy:
    """Of side chains on N backbones among atoms that stay."""

    def __init__(self, backbones: Backbones, around: Surroundings, bonds: Bonds) -> None:
        self.backbones, self.bonds = backbones, bonds
        self.centre = backbones.translation.mean(axis=0)
        self.position = (around.position - self.centre).astype(np.float32)
        self.kind, self.excluded = around.kind, around.excluded
        self.atom_kind = SIDE_CHAIN_KIND[backbones.token, 1:]  # (N,A)

    def __len__(self) -> int:
        return len(self.backbones)

    def built(self, candidates: Candidates) -> Built:
        """Each is built, and held against what stays, once."""
        residues, which = np.unique(candidates.residue, return_inverse=True)
        start = np.searchsorted(which, np.arange(len(residues) + 1))
        position = self.backbones.moved(candidates.residue, candidates.chi, self.centre)
        atoms = atoms_of(position, self.atom_kind[residues], start)
        n, q = near_atoms(atoms, self.position)
        met = (self.excluded[q] != residues[n][:, None]).all(axis=1)
        contact = contacts_with(atoms, n[met], q[met], self.position, self.kind)
        return Built(**vars(candidates), position=position, contact=contact)

    def atoms(self, candidates: Built, residues: np.ndarray) -> Atoms:
        """Of all candidates of these residues (R,), which have some each; there are no others."""
        start = np.searchsorted(candidates.residue, np.append(residues, len(self)))
        return atoms_of(candidates.position, self.atom_kind[residues], start)

    def problem(self, candidates: Built) -> tuple[np.ndarray, Problem]:
        """Residues (R,) that have a choice, and all that it decides; the others stay.

        Who can make a bond counts as having one.
        """
        start = candidates.start(len(self))
        has_choice = np.diff(start) > 1
        has_choice[candidates.residue[candidates.bond >= 0]] = True
        free = np.flatnonzero(has_choice)
        chosen = has_choice[candidates.residue]
        start = np.searchsorted(candidates.residue[chosen], np.append(free, len(self)))
        atoms = atoms_of(candidates.position[chosen], self.atom_kind[free], start)
        others = candidates.select(np.flatnonzero(~chosen))
        energy = (candidates.cost + candidates.contact)[chosen] + self._with(others, atoms, free)
        own = [energy[low:high] for low, high in itertools.pairwise(start.tolist())]
        pair = {}
        bond = candidates.bond[chosen]
        can_bond = np.maximum.reduceat(bond, start[:-1]) >= 0 if len(free) else has_choice
        for i, j, table in pair_tables(atoms, *near_residues(atoms)):
            if can_bond[i] and can_bond[j]:
                bond_i, bond_j = (bond[start[n] : start[n + 1]] for n in (i, j))
                self.bonds.add_pair(table, bond_i, bond_j)
            if np.abs(table).max() > NEGLIGIBLE:
                pair[i, j] = table
        return free, Problem(own, pair)

    def contact_with(self, state: Built, candidates: Built) -> np.ndarray:
        """(C,) nats of candidates with the side chains of the other residues in ``state``."""
        residues = np.unique(candidates.residue)
        return self._with(state, self.atoms(candidates, residues), residues)

    def _with(self, state: Built, atoms: Atoms, residues: np.ndarray) -> np.ndarray:
        """(C,) nats of candidates of these residues (R,) with side chains of other residues."""
        row, atom = np.nonzero(np.isfinite(state.position[..., 0]))
        owner = state.residue[row]
        position, kind = state.position[row, atom], self.atom_kind[owner, atom]
        n, q = near_atoms(atoms, position)
        met = owner[q] != residues[n]
        return contacts_with(atoms, n[met], q[met], position, kind)

    def contacts(self, state: Built, of: np.ndarray) -> Contacts:
        """Of the residues ``of`` (N,) bool in ``state``, one candidate a residue.

        Atoms that make a bond with each other are none.
        """
        residue, atom = np.nonzero(np.isfinite(state.position[..., 0]))
        position = state.position[residue, atom]
        own = np.flatnonzero(of[residue])
        kind = self.atom_kind[residue, atom]
        every, kinds = np.concatenate((position, self.position)), np.r_[kind, self.kind]
        i, j = pairs_within(position[own], every, MAX_CONTACT)
        i = own[i]
        # Whose the second is, which bond it makes, and who does not meet it.
        owner = np.r_[residue, np.full(len(self.position), -1)]
        bond = np.r_[state.bond[residue], np.full(len(self.position), -1)]
        stranger = np.concatenate((np.stack((residue, residue), axis=1), self.excluded))
        is_bond = (bond[i] == bond[j]) & (bond[j] >= 0)
        met = (stranger[j] != residue[i][:, None]).all(axis=1) & ~is_bond
        i, j = i[met], j[met]
        square = ((position[i] - every[j]) ** 2).sum(axis=1)
        pairs = np.stack((residue[i], owner[j]), axis=1)
        return Contacts(pairs, square, CONTACT[kind[i], kinds[j]])
