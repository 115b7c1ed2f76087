"""Side-chain atoms of all candidates at once, and the atoms around them that stay.

Shapes: N residues, C candidates, A = 10 side-chain atoms of the largest type, M atoms that stay.
"""

from dataclasses import dataclass

import numpy as np

from qfitlatent.chemistry.building import MAX_SIDE_CHAIN_ATOMS, build_side_chains
from qfitlatent.chemistry.residues import NUM_CHI, NUM_TOKENS, RESIDUE_TYPES, SIDE_CHAIN_ATOMS

KINDS = ("C", "N", "O", "S", "metal", "other")
"""Kinds of atoms that the energy tells apart; selenium counts as sulphur."""

KIND = {name: number for number, name in enumerate(KINDS)}


def kind_of(element: str, is_metal: bool = False) -> int:
    """The kind of an element, upper case."""
    if is_metal:
        return KIND["metal"]
    return KIND.get({"SE": "S"}.get(element, element), KIND["other"])


SIDE_CHAIN_KIND = np.full((NUM_TOKENS, MAX_SIDE_CHAIN_ATOMS), -1)
"""(21, A) kind of each side-chain atom; -1 where the type has none."""

for _token, _name in enumerate(RESIDUE_TYPES):
    for _column, _atom in enumerate(SIDE_CHAIN_ATOMS[_name]):
        SIDE_CHAIN_KIND[_token, _column] = KIND[_atom[0]]

NUM_MOVED = np.where(NUM_CHI > 0, (SIDE_CHAIN_KIND >= 0).sum(axis=1) - 1, 0)
"""(21,) atoms that chi move: all of a side chain but CB, where the type has chi."""


def moved_names(token: int) -> tuple[str, ...]:
    """The atoms of a residue type that chi move, in their order."""
    return SIDE_CHAIN_ATOMS[RESIDUE_TYPES[token]][1:] if NUM_CHI[token] else ()


CANDIDATES_AT_A_TIME = 1 << 14
"""Side chains that are built at a time, in float64 and with room for the largest type."""


@dataclass(frozen=True)
class Backbones:
    """Where N side chains hang: rotation (N,3,3), translation (N,3), nitrogen (N,3), token (N,)."""

    rotation: np.ndarray
    translation: np.ndarray
    nitrogen: np.ndarray
    token: np.ndarray

    def __len__(self) -> int:
        return len(self.token)

    def select(self, rows: np.ndarray) -> "Backbones":
        return Backbones(*(x[rows] for x in vars(self).values()))

    def build(self, residue: np.ndarray, chi: np.ndarray) -> np.ndarray:
        """(C,A,3) side chains chi (C,D) of the residues (C,), nan where there is no atom."""
        return build_side_chains(
            self.rotation[residue],
            self.translation[residue],
            self.token[residue],
            chi,
            nitrogen=self.nitrogen[residue],
        )[0]

    def cb(self) -> np.ndarray:
        """(N,3) CB of each residue, nan for glycine and unknown ones."""
        return self.build(np.arange(len(self)), np.zeros((len(self), 4)))[:, 0]

    def moved(self, residue: np.ndarray, chi: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """(C,A-1,3) float32 about the centre (3,): the atoms beyond CB, nan where there is none.

        Near zero, half the time of float64 is exact to 1e-4 angstrom.
        """
        atoms = np.empty((len(residue), MAX_SIDE_CHAIN_ATOMS - 1, 3), dtype=np.float32)
        for first in range(0, len(residue), CANDIDATES_AT_A_TIME):
            rows = slice(first, first + CANDIDATES_AT_A_TIME)
            atoms[rows] = self.build(residue[rows], chi[rows])[:, 1:] - centre
        return atoms


@dataclass(frozen=True)
class Surroundings:
    """Atoms that stay: position (M,3), kind (M,), and the residues that do not meet them.

    excluded (M,2) residues 0..N-1, or -1: a side chain meets neither the backbone that it hangs on
    nor C of the residue before and N of the residue behind. Those are within three bonds of CB: the
    density knows of them.
    """

    position: np.ndarray
    kind: np.ndarray
    excluded: np.ndarray
