"""Side chains that are still too near to another give way within the width of their density."""

import itertools

import numpy as np

from qfitlatent.chemistry.residues import NUM_CHI
from qfitlatent.joint.candidates import Densities, displaced
from qfitlatent.joint.energy import Built, Energy
from qfitlatent.joint.search import best_of

STEPS = np.deg2rad((8.0, 4.0))
"""Displacements of all chi at once, a search each."""

STRAINED = 0.3
"""Nats of contacts from which on a side chain is moved."""

_MAX_MOVED = 3
"""Chi that are moved, from the first on: 27 candidates a residue."""


def relax(
    energy: Energy, densities: Densities, state: Built, seed: int, movable: np.ndarray
) -> Built:
    """One candidate a residue, as ``state`` and near it, with less strain.

    Only the movable (N,) bool residues move; those that make a bond stay.
    """
    movable = movable & (state.bond < 0) & (NUM_CHI[densities.token] > 0)
    directions = np.array(list(itertools.product((0, -1, 1), repeat=_MAX_MOVED)))[1:]
    moves = np.column_stack((directions, np.zeros(len(directions))))
    for step in STEPS:
        strain = energy.contacts(state, movable).strain(len(state))
        strained = (strain > STRAINED) & movable
        if not strained.any():
            break
        moved = displaced(densities, state.select(np.flatnonzero(strained)), step * moves)
        candidates = state.joined(energy.built(moved))
        state = candidates.select(best_of(energy, candidates, seed))
    return state
