"""Joint states drawn at random: side chains from the densities, weighed by their contacts.

The candidates of a residue are draws from its own density, so that each weighs the same and all of
the density's width is there; Gibbs sampling then chooses among them by the contacts. With more and
more candidates that is the density of SPEC 12's energy.

Shapes: N residues, S draws, P candidates of a residue, D=4 chi.
"""

import numpy as np

from qfitlatent.joint.bonds import find_bonds
from qfitlatent.joint.candidates import Candidates, Densities
from qfitlatent.joint.energy import Energy
from qfitlatent.joint.gibbs import draw_states
from qfitlatent.joint.model import Protein

BATCH = 16
"""Joint states that are drawn from one set of candidates."""

CANDIDATES_PER_DRAW = 2
"""Draws from the densities for each joint state."""


def num_candidates(num: int) -> int:
    """Draws from the densities that ``num`` joint states are chosen from."""
    return -(-num // BATCH) * BATCH * CANDIDATES_PER_DRAW


def sample_joint(
    protein: Protein, densities: Densities, drawn: np.ndarray, num: int, seed: int
) -> np.ndarray:
    """(S,N,D) chi of num joint states; drawn (P,N,D) from the densities, P = num_candidates(num).

    A batch of states is chosen from candidates of its own: states of one batch may share some.
    """
    bonds = find_bonds(protein.backbones, densities, protein.metals, protein.recorded)
    energy = Energy(protein.backbones, protein.around, bonds)
    rng = np.random.default_rng(seed)
    states = []
    for pool in np.split(drawn, len(drawn) // (BATCH * CANDIDATES_PER_DRAW)):
        candidates = energy.built(_equal(pool).joined(bonds.candidates))
        free, problem = energy.problem(candidates)
        state, _ = draw_states(problem, BATCH, rng)
        rows = np.tile(candidates.start(len(densities))[:-1], (BATCH, 1))
        rows[:, free] += state
        states.append(candidates.chi[rows])
    return np.concatenate(states)[:num]


def _equal(pool: np.ndarray) -> Candidates:
    """The draws (P,N,D) of each residue as candidates that share its probability."""
    num, num_residues, _ = pool.shape
    rows = num * num_residues
    return Candidates(
        residue=np.repeat(np.arange(num_residues), num),
        chi=pool.swapaxes(0, 1).reshape(rows, -1).astype(np.float64),
        cost=np.full(rows, np.log(num)),
        mode=np.zeros(rows, dtype=np.int64),
        bond=np.full(rows, -1),
        spread=np.zeros(rows),
    )
