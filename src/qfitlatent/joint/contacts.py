"""What atoms of candidates cost each other: dense blocks of those that are near, a residue each.

Two atoms closer than their contact distance cost by the square of their overlap, up to a cap. The
contact distance is a share of the sum of radii; it leaves room for hydrogen bonds between N and O,
and for the bonds of metals.

Shapes: N residues, C candidates of all residues, K atoms of them, Q atoms that stay, P pairs.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from qfitlatent.chemistry.neighbours import pairs_within
from qfitlatent.joint.atoms import KIND, KINDS

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

MAX_CONTACT = 2 * max(RADIUS.values()) * SHARE

BLOCK = 1 << 17
"""Pairs of atoms that are held at a time: half a megabyte, which stays in the cache."""


CANDIDATES_AT_A_TIME = 1 << 15
"""Whose atoms are put in their order at a time."""


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

_SQUARE = (CONTACT**2).astype(np.float32)
_SCALE = (np.sqrt(STIFFNESS) / (2 * CONTACT)).astype(np.float32)
_MOST = np.float32(np.sqrt(CAP))


class Atoms(NamedTuple):
    """Atoms of candidates; those of a residue n are (A_n,C_n), one row after the other.

    position (K,3) float32; kind (N,A), of which the first A_n count; start (N+1,) and first (N+1,):
    where the candidates and the atoms of each residue begin; centre and reach, (N,3) and (N,), of a
    sphere around all atoms of a residue, nan and 0 where there are none.
    """

    position: np.ndarray
    kind: np.ndarray
    start: np.ndarray
    first: np.ndarray
    centre: np.ndarray
    reach: np.ndarray

    def of(self, n: int) -> np.ndarray:
        """(A_n,C_n,3) positions."""
        num = int(self.start[n + 1] - self.start[n])
        return self.position[self.first[n] : self.first[n + 1]].reshape(-1, num, 3)


def atoms_of(position: np.ndarray, kind: np.ndarray, start: np.ndarray) -> Atoms:
    """Of candidates' positions (C,A,3), nan for none, and kinds (N,A) of their residues.

    start (N+1,) as of ``Atoms``; each residue has candidates, all with the same atoms.
    """
    size = np.diff(start)
    num_atoms = np.isfinite(position[start[:-1], :, 0]).sum(axis=1)
    first = np.append(0, np.cumsum(num_atoms * size))
    residue = np.repeat(np.arange(len(size)), size)
    there = np.empty((first[-1], 3), dtype=np.float32)
    for at in range(0, len(position), CANDIDATES_AT_A_TIME):
        own = residue[at : at + CANDIDATES_AT_A_TIME]
        candidate, atom = np.nonzero(np.arange(position.shape[1]) < num_atoms[own][:, None])
        n, candidate = own[candidate], candidate + at
        there[first[n] + atom * size[n] + candidate - start[n]] = position[candidate, atom]
    centre, reach = np.full((len(size), 3), np.nan, np.float32), np.zeros(len(size))
    some = np.flatnonzero(num_atoms)
    if len(some):
        begin = first[some]
        low, high = (f.reduceat(there, begin, axis=0) for f in (np.minimum, np.maximum))
        centre[some] = (low + high) / 2
        offset = there - np.repeat(centre[some], np.diff(first)[some], axis=0)
        square = np.einsum("ij,ij->i", offset, offset)
        reach[some] = np.sqrt(np.maximum.reduceat(square, begin))
    return Atoms(there, kind, start, first, centre, reach)


def near_atoms(atoms: Atoms, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P,) residues, ascending, and (P,) of the atoms (Q,3) that their candidates may touch."""
    n, q = pairs_within(atoms.centre, position, float(atoms.reach.max(initial=0.0)) + MAX_CONTACT)
    square = ((atoms.centre[n] - position[q]) ** 2).sum(axis=1)
    near = square <= (atoms.reach[n] + MAX_CONTACT) ** 2
    return n[near], q[near]


def near_residues(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """(P,) residues i and (P,) j > i of which some candidates may touch, in order."""
    radius = 2 * float(atoms.reach.max(initial=0.0)) + MAX_CONTACT
    i, j = pairs_within(atoms.centre, atoms.centre, radius)
    square = ((atoms.centre[i] - atoms.centre[j]) ** 2).sum(axis=1)
    near = (i < j) & (square <= (atoms.reach[i] + atoms.reach[j] + MAX_CONTACT) ** 2)
    return i[near], j[near]


def contacts_with(
    atoms: Atoms, n: np.ndarray, q: np.ndarray, position: np.ndarray, kind: np.ndarray
) -> np.ndarray:
    """(C,) nats of each candidate with atoms that stay, position (Q,3) float32 and kind (Q,).

    n (P,) ascending and q (P,): the residues and the atoms that they meet.
    """
    energy = np.zeros(int(atoms.start[-1]))
    bounds = np.searchsorted(n, np.arange(len(atoms.start)))
    for i in np.flatnonzero(np.diff(bounds)).tolist():
        there = q[bounds[i] : bounds[i + 1]]
        own = energy[atoms.start[i] : atoms.start[i + 1]]
        for meet in _meet(atoms.of(i), atoms.kind[i], position[there], kind[there]):
            own += meet.sum(axis=1)
    return energy


def pair_tables(
    atoms: Atoms, i: np.ndarray, j: np.ndarray
) -> Iterator[tuple[int, int, np.ndarray]]:
    """(i, j, nats (C_i,C_j) float32) of the pairs (P,) of residues, i ascending.

    All neighbours of a residue at once: their candidates that are near enough side by side. A pair
    that does not touch may be left out.
    """
    for n, group in itertools.groupby(zip(i.tolist(), j.tolist(), strict=True), lambda x: x[0]):
        own, kind = atoms.of(n), atoms.kind[n]
        found = [(m, _near(atoms.of(m), atoms.centre[n], atoms.reach[n])) for _, m in group]
        others = [(m, near) for m, near in found if len(near)]
        if not others:
            continue
        blocks = [atoms.of(m)[:, near] for m, near in others]
        there = np.concatenate([block.reshape(-1, 3) for block in blocks])
        kinds = np.concatenate(
            [
                np.repeat(atoms.kind[m, : len(block)], block.shape[1])
                for (m, _), block in zip(others, blocks, strict=True)
            ]
        )
        low = np.minimum.reduce(there, axis=0) - MAX_CONTACT
        high = np.maximum.reduce(there, axis=0) + MAX_CONTACT
        rows = np.flatnonzero(((own >= low) & (own <= high)).all(axis=2).any(axis=0))
        if not len(rows):
            continue
        meet = np.zeros((len(rows), len(there)), dtype=np.float32)
        for part in _meet(own[:, rows], kind, there, kinds):
            meet += part
        at = 0
        for (m, near), block in zip(others, blocks, strict=True):
            num, width, _ = block.shape
            of_pair = meet[:, at : at + num * width].reshape(len(rows), num, width).sum(axis=1)
            at += num * width
            table = np.zeros((own.shape[1], atoms.start[m + 1] - atoms.start[m]), dtype=np.float32)
            table[rows[:, None], near] = of_pair
            yield n, m, table


def _near(atoms: np.ndarray, centre: np.ndarray, reach: float) -> np.ndarray:
    """Candidates of atoms (A,C,3) of which any is near enough to the sphere."""
    offset = atoms - centre
    square = np.einsum("acx,acx->ac", offset, offset)
    return np.flatnonzero(square.min(axis=0) <= (reach + MAX_CONTACT) ** 2)


def _meet(
    a: np.ndarray, kind_a: np.ndarray, b: np.ndarray, kind_b: np.ndarray
) -> Iterator[np.ndarray]:
    """Nats (C,Q), float32, of some atoms of candidates a (A,C,3) at a time with atoms b (Q,3).

    The overlap is (contact^2 - d^2) / (2 contact), which is contact - d to first order and needs
    no root.
    """
    num, size, _ = a.shape
    middle = np.add.reduce(b, axis=0) / len(b)
    b = b - middle
    left = np.ones((num, size, 5), dtype=np.float32)
    left[..., :3] = a - middle
    np.einsum("acx,acx->ac", left[..., :3], left[..., :3], out=left[..., 4])
    right = np.empty((5, len(b)), dtype=np.float32)
    right[:3], right[4] = 2.0 * b.T, -1.0
    np.einsum("qx,qx->q", b, -b, out=right[3])
    square, scale = (x[kind_a[:num, None], kind_b] for x in (_SQUARE, _SCALE))
    scaled = right * scale[:, None]  # (A,5,Q): of each atom of a, root of the nats by one product
    scaled[:, 3] += square * scale
    step = max(1, BLOCK // max(1, size * len(b)))
    for first in range(0, num, step):
        some = slice(first, first + step)
        room = left[some] @ scaled[some]
        np.clip(room, 0.0, _MOST, out=room)
        room *= room
        yield room.sum(axis=0)


def nats(square: np.ndarray, contact: np.ndarray) -> np.ndarray:
    """(P,) nats of atoms at these squared distances."""
    overlap = np.maximum(contact**2 - square, 0.0) / (2 * contact)
    return np.minimum(STIFFNESS * overlap**2, CAP)
