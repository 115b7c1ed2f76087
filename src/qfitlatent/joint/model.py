"""The joint model of a protein: from densities and what stays to the side chains that are written.

Shapes: N residues, L labels, J modes, D=4 chi.
"""

from dataclasses import dataclass

import numpy as np

from qfitlatent.chemistry.geometry import circular_distance
from qfitlatent.chemistry.residues import CHI_DEFINED, PI_SYMMETRIC
from qfitlatent.joint.atoms import Backbones, Surroundings
from qfitlatent.joint.bonds import Metals, find_bonds
from qfitlatent.joint.candidates import Candidates, Densities, candidates_of_modes
from qfitlatent.joint.energy import Energy, Problem
from qfitlatent.joint.relax import relax
from qfitlatent.joint.search import best_state
from qfitlatent.joint.states import DISTINCT, States, joint_states

WINDOW = 6.0
"""Nats above the best of a residue, by itself, from which on a candidate is left out."""


@dataclass(frozen=True)
class Protein:
    """N side chains to build, what stays around them, and the bonds that they may make.

    recorded: disulfides of the file, pairs of residues i < j.
    """

    backbones: Backbones
    around: Surroundings
    metals: Metals
    recorded: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class JointModel:
    """What is written: the states, and what is known about altloc A.

    mass (N,): of the density, within 40 degrees of A in every chi; support (N,): the probability of
    A's mode given the other side chains of A; strain (N,) nats of A's contacts.
    """

    states: States
    mass: np.ndarray
    support: np.ndarray
    strain: np.ndarray

    @property
    def confidence(self) -> np.ndarray:
        """(N,) probability that A is right: every chi within 40 degrees.

        A logistic function of the evidence, fitted on validation by ``benchmarks/joint.py
        --fit-confidence``.
        """
        return 1.0 / (1.0 + np.exp(-CONFIDENCE[0] - self.evidence @ CONFIDENCE[1:]))

    @property
    def evidence(self) -> np.ndarray:
        """(N,2) log odds of mass and support, between those of 1 and 99 %."""
        shown = np.clip(np.stack((self.mass, self.support), axis=1), 0.01, 0.99)
        return np.log(shown / (1.0 - shown))


CONFIDENCE = (-0.01, 0.45, 0.53)
"""Constant, and weights of the log odds of mass and support."""


def joint_model(
    protein: Protein,
    densities: Densities,
    heterogeneous: np.ndarray,
    min_population: float,
    seed: int = 0,
) -> JointModel:
    """The best joint state, and altlocs where heterogeneous (N,) bool allows them."""
    bonds = find_bonds(protein.backbones, densities, protein.metals, protein.recorded)
    energy = Energy(protein.backbones, protein.around, bonds)
    candidates = candidates_of_modes(densities).joined(bonds.candidates)
    candidates = likely(energy, candidates)
    problem = energy.problem(candidates, energy.atoms(candidates))
    chosen = best_state(problem, seed)
    support = _support(problem, candidates, chosen)
    del problem  # the largest thing here, and there is another to come
    best = candidates.select(candidates.start(len(chosen))[:-1] + chosen)
    best = relax(energy, densities, best, seed, np.ones(len(best), dtype=bool))
    states = joint_states(energy, densities, best, candidates, heterogeneous, min_population, seed)
    return JointModel(
        states,
        mass=mass_within(densities, best.chi),
        support=support,
        strain=energy.strain(best),
    )


def likely(energy: Energy, candidates: Candidates) -> Candidates:
    """Those within the window of the best of their residue, and all that make a bond."""
    own = energy.own(candidates, energy.atoms(candidates))
    above = np.concatenate([each - each.min() for each in own])
    return candidates.select(np.flatnonzero((above <= WINDOW) | (candidates.bond >= 0)))


def mass_within(densities: Densities, chi: np.ndarray) -> np.ndarray:
    """(N,) mass of the modes from which chi (N,D) is not distinct."""
    token = densities.token[:, None]
    apart = circular_distance(chi[:, None], densities.mode_chi, PI_SYMMETRIC[token])
    apart = np.where(CHI_DEFINED[token], apart, 0.0).max(axis=2)
    return np.where(apart <= DISTINCT, densities.mode_weight, 0.0).sum(axis=1)


def _support(problem: Problem, candidates: Candidates, chosen: np.ndarray) -> np.ndarray:
    """(N,) probability of each residue's chosen mode, the others being as chosen."""
    energy = [own.copy() for own in problem.own]
    for (i, j), pair in problem.pair.items():
        energy[i] += pair[:, chosen[j]]
        energy[j] += pair[chosen[i]]
    start = candidates.start(len(chosen))
    support = np.ones(len(chosen))
    for n, each in enumerate(energy):
        rows = slice(start[n], start[n + 1])
        weight = np.exp(each.min() - each - candidates.spread[rows])
        same = candidates.mode[rows] == candidates.mode[start[n] + chosen[n]]
        support[n] = weight[same].sum() / weight.sum()
    return support
