"""The energy of a joint state, in nats of the density: costs of its side chains and their contacts.

Two atoms closer than their contact distance cost by the square of their overlap, up to a cap. The
contact distance is a share of the sum of radii; it leaves room for hydrogen bonds between N and O,
and for the bonds of metals. Attraction is left to the density.

Shapes: N residues, C candidates of a residue, A its moved atoms, M atoms around.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from qfitlatent.chemistry.neighbours import pairs_within
from qfitlatent.joint.atoms import (
    KIND,
    KINDS,
    NUM_MOVED,
    SIDE_CHAIN_KIND,
    Backbones,
    Surroundings,
)
from qfitlatent.joint.bonds import Bonds
from qfitlatent.joint.candidates import Candidates

RADIUS = {"C": 1.75, "N": 1.55, "O": 1.45, "S": 1.80, "metal": 1.20, "other": 1.75}
"""Angstrom."""

SHARE = 0.94
"""Of the sum of radii at which two atoms touch."""

POLAR = 2.60
"""Contact of N and O with each other, angstrom: a short hydrogen bond."""

LIGAND = 1.90
"""Contact of a metal with N, O and S, angstrom."""

STIFFNESS = 24.0
"""Nats per square angstrom of overlap."""

CAP = 16.0
"""Nats that two atoms cost at most."""

CLASH = 2.5
"""Heavy atoms of different residues that are nearer clash, angstrom."""

NEGLIGIBLE = 0.01
"""Nats below which two residues do not meet."""

MAX_CONTACT = 2 * max(RADIUS.values()) * SHARE


def _contacts() -> np.ndarray:
    radius = np.array([RADIUS[kind] for kind in KINDS])
    contact = SHARE * (radius[:, None] + radius)
    polar = [KIND["N"], KIND["O"]]
    contact[np.ix_(polar, polar)] = POLAR
    for kind in ("N", "O", "S"):
        contact[KIND[kind], KIND["metal"]] = contact[KIND["metal"], KIND[kind]] = LIGAND
    return contact


CONTACT = _contacts()
"""(6,6) angstrom, by kind."""


@dataclass(frozen=True)
class Problem:
    """What is to be minimised: own[n] (C_n,) and pair[i, j] (C_i,C_j) float32, i < j, in nats."""

    own: list[np.ndarray]
    pair: dict[tuple[int, int], np.ndarray]


class Energy:
    """Of side chains on N backbones among atoms that stay."""

    def __init__(self, backbones: Backbones, around: Surroundings, bonds: Bonds) -> None:
        self.backbones, self.bonds = backbones, bonds
        # Near zero, half the time of float64 is exact to 1e-4 angstrom.
        self.centre = backbones.translation.mean(axis=0)
        self.position = (around.position - self.centre).astype(np.float32)
        self.kind, self.excluded = around.kind, around.excluded
        self.atom_kind = [
            SIDE_CHAIN_KIND[t, 1 : 1 + NUM_MOVED[t]] for t in backbones.token.tolist()
        ]

    def atoms(self, candidates: Candidates) -> list[np.ndarray]:
        """(C_n,A_n,3) float32 about the centre."""
        moved = self.backbones.moved_atoms(candidates)
        return [(atoms - self.centre).astype(np.float32) for atoms in moved]

    def own(self, candidates: Candidates, atoms: list[np.ndarray]) -> list[np.ndarray]:
        """(C_n,) cost of each candidate and its contacts with what stays.

        A residue without a choice has its cost alone.
        """
        start = candidates.start(len(atoms))
        energy = [
            candidates.cost[first:last].copy() for first, last in itertools.pairwise(start.tolist())
        ]
        centre, reach = spheres(atoms)
        centre[np.diff(start) < 2] = np.nan
        radius = float(reach.max(initial=0.0)) + MAX_CONTACT
        residue, atom = pairs_within(centre, self.position, radius)
        near = ((centre[residue] - self.position[atom]) ** 2).sum(axis=1)
        met = near <= (reach[residue] + MAX_CONTACT) ** 2
        met &= (self.excluded[atom] != residue[:, None]).all(axis=1)
        residue, atom = residue[met], atom[met]
        first = np.searchsorted(residue, np.arange(len(atoms) + 1))
        for n in np.unique(residue).tolist():
            there = atom[first[n] : first[n + 1]]
            contact = CONTACT[self.atom_kind[n][:, None], self.kind[there]]
            energy[n] += overlaps(atoms[n], self.position[None, there], contact)[:, 0]
        return energy

    def problem(self, candidates: Candidates, atoms: list[np.ndarray]) -> Problem:
        """All that a choice decides: what two residues without one cost each other is left out."""
        own = self.own(candidates, atoms)
        start = candidates.start(len(atoms))
        centre, reach = spheres(atoms)
        radius = 2 * float(reach.max(initial=0.0)) + MAX_CONTACT
        some = np.where((np.diff(start) > 1)[:, None], centre, np.nan)
        first, second = pairs_within(some, centre, radius)
        both = np.isfinite(some[second, 0])
        apart = np.sqrt(((centre[first] - centre[second]) ** 2).sum(axis=1))
        met = (first != second) & ((first < second) | ~both)
        met &= apart <= reach[first] + reach[second] + MAX_CONTACT
        pair = {}
        ordered = np.sort(np.stack((first[met], second[met]), axis=1), axis=1)
        for i, j in ordered[np.lexsort(ordered.T[::-1])].tolist():
            sphere_i, sphere_j = ((centre[n], reach[n] + MAX_CONTACT) for n in (i, j))
            at_i, at_j = _within(atoms[i], *sphere_j), _within(atoms[j], *sphere_i)
            contact = CONTACT[self.atom_kind[i][at_i[1], None], self.atom_kind[j][at_j[1]]]
            energy = np.zeros((len(atoms[i]), len(atoms[j])), dtype=np.float32)
            if contact.size:
                meet = overlaps(atoms[i][np.ix_(*at_i)], atoms[j][np.ix_(*at_j)], contact)
                energy[np.ix_(at_i[0], at_j[0])] = meet
            bond_i, bond_j = (candidates.bond[start[n] : start[n + 1]] for n in (i, j))
            self.bonds.add_pair(energy, bond_i, bond_j)
            if np.abs(energy).max() > NEGLIGIBLE:
                pair[i, j] = energy
        return Problem(own, pair)

    def contacts(
        self, state: Candidates, atoms: list[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(P,2) residues as of ``clashing``, (P,) nats of contacts, and (P,) bool: it is a clash.

        ``state`` has one candidate of each residue, atoms (1,A_n,3) as ``atoms`` gives them.
        """
        pairs, apart, contact = self._contacts(state, atoms)
        return pairs, nats(apart, contact), _is_clash(apart, contact)

    def strain(self, state: Candidates) -> np.ndarray:
        """(N,) nats of the contacts of each residue, ``state`` having one candidate of each."""
        pairs, apart, contact = self._contacts(state, self.atoms(state))
        each = np.repeat(nats(apart, contact), 2).reshape(pairs.shape)
        both = pairs >= 0
        return np.bincount(pairs[both], each[both], len(self.atom_kind))

    def clashing(self, state: Candidates) -> set[tuple[int, int]]:
        """Residues that clash in ``state``; the second is -1 for an atom that stays."""
        pairs, apart, contact = self._contacts(state, self.atoms(state))
        return set(map(tuple, pairs[_is_clash(apart, contact)].tolist()))

    def _contacts(
        self, state: Candidates, atoms: list[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(P,2) residues as of ``clashing``, (P,) squared distance, and contact distance.

        Of atoms that may touch; those that make a bond with each other are none.
        """
        residue = np.repeat(np.arange(len(atoms)), [own.shape[1] for own in atoms])
        position = np.concatenate([own[0] for own in atoms])
        kind = np.concatenate(self.atom_kind)
        i, j = pairs_within(position, position, MAX_CONTACT)
        is_bond = (state.bond[residue[i]] == state.bond[residue[j]]) & (state.bond[residue[i]] >= 0)
        met = (residue[i] < residue[j]) & ~is_bond
        i, j = i[met], j[met]
        k, m = pairs_within(position, self.position, MAX_CONTACT)
        met = (self.excluded[m] != residue[k][:, None]).all(axis=1)
        k, m = k[met], m[met]
        pairs = np.concatenate((residue[i], residue[k])), np.concatenate((residue[j], 0 * m - 1))
        square = (
            ((position[i] - position[j]) ** 2).sum(axis=1),
            ((position[k] - self.position[m]) ** 2).sum(axis=1),
        )
        contact = CONTACT[kind[i], kind[j]], CONTACT[kind[k], self.kind[m]]
        return np.stack(pairs, axis=1), np.concatenate(square), np.concatenate(contact)


def _is_clash(square: np.ndarray, contact: np.ndarray) -> np.ndarray:
    """(P,) bool of atoms at these squared distances; bonds of metals are shorter."""
    return (square <= CLASH**2) & (contact > CLASH)


def nats(square: np.ndarray, contact: np.ndarray) -> np.ndarray:
    """(P,) nats of atoms at these squared distances."""
    overlap = np.maximum(contact**2 - square, 0.0) / (2 * contact)
    return np.minimum(STIFFNESS * overlap**2, CAP)


def _within(atoms: np.ndarray, centre: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Candidates, and atoms, of which any is within the radius: indices for atoms (C,A,3)."""
    offset = atoms - centre.astype(np.float32)
    near = np.einsum("cax,cax->ca", offset, offset) <= radius**2
    return near.any(axis=1).nonzero()[0], near.any(axis=0).nonzero()[0]


def overlaps(a: np.ndarray, b: np.ndarray, contact: np.ndarray) -> np.ndarray:
    """(C,C') nats of the contacts of side chains a (C,A,3) and b (C',A',3), contact (A,A').

    The overlap is (contact^2 - d^2) / (2 contact), which is contact - d to first order and needs
    no root.
    """
    num_a, size_a, _ = a.shape
    num_b, size_b, _ = b.shape
    rows, columns = a.reshape(-1, 3), b.reshape(-1, 3)
    middle = columns.mean(axis=0)
    rows, columns = rows - middle, columns - middle
    room = 2.0 * (rows @ columns.T)
    room -= np.einsum("ij,ij->i", rows, rows)[:, None]
    room -= np.einsum("ij,ij->i", columns, columns)
    room = room.reshape(num_a, -1)  # (C, A C' A')
    square = np.repeat((contact**2)[:, None], num_b, axis=1).astype(np.float32).reshape(-1)
    scale = np.repeat((np.sqrt(STIFFNESS) / (2 * contact))[:, None], num_b, axis=1)
    room += square
    np.maximum(room, 0.0, out=room)
    room *= scale.astype(np.float32).reshape(-1)
    room *= room
    np.minimum(room, CAP, out=room)
    room = room.reshape(-1, size_b) @ np.ones(size_b, dtype=np.float32)
    return room.reshape(num_a, size_a, num_b).sum(axis=1)


def spheres(atoms: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(N,3) centre and (N,) radius of all candidates' atoms; nan and 0 where there are none."""
    centre, radius = np.full((len(atoms), 3), np.nan), np.zeros(len(atoms))
    for n, own in enumerate(atoms):
        if own.size:
            low, high = own.min(axis=(0, 1)), own.max(axis=(0, 1))
            centre[n] = (low + high) / 2
            radius[n] = np.sqrt(((own - centre[n].astype(np.float32)) ** 2).sum(axis=2).max())
    return centre, radius
