"""The joint model of a protein: from densities and what stays to the side chains that are written.

Shapes: N residues, L labels, J modes, D=4 chi.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qfitlatent.chemistry.geometry import circular_distance
from qfitlatent.chemistry.neighbours import pairs_within
from qfitlatent.chemistry.residues import CHI_DEFINED, PI_SYMMETRIC
from qfitlatent.joint.atoms import Backbones, Surroundings
from qfitlatent.joint.bonds import Metals, find_bonds
from qfitlatent.joint.candidates import Candidates, Densities, modes_of, with_sub_rotamers
from qfitlatent.joint.energy import NEGLIGIBLE, Built, Energy
from qfitlatent.joint.relax import relax
from qfitlatent.joint.search import best_of
from qfitlatent.joint.states import DISTINCT, States, joint_states

WINDOW = 6.0
"""Nats above the best of a residue, by itself, from which on a candidate is left out."""

NARROW = 3.0
"""The same where the best state is first looked for."""

PLAUSIBLE = 4.0
"""The same for altlocs: what is left out weighs less than 0.02 of the best."""

STRAINED = 0.5
"""Nats of contacts from which on a side chain looks for a way out among all candidates."""

BESIDE_A_BOND = 8.0
"""Angstrom between CA: who may have to give way to a bond that is not made yet."""


RESIDUES_AT_A_TIME = 1024
"""Residues whose candidates are made and weighed at a time: what is left of them is held."""


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


CONFIDENCE = (-0.03, 0.42, 0.56)
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
    candidates = likely_candidates(energy, densities)
    best = _best(energy, likely(candidates, NARROW), seed)
    best = given_way(energy, candidates, best, seed)
    support = _support(energy, candidates, best)
    choice = heterogeneous[candidates.residue] & _is_likely(candidates, PLAUSIBLE)
    candidates = candidates.select(np.flatnonzero(choice))  # the others are not held any longer
    everyone = np.ones(len(best), dtype=bool)
    best = relax(energy, densities, best, seed, everyone)
    states = joint_states(energy, densities, best, candidates, heterogeneous, min_population, seed)
    return JointModel(
        states,
        mass=mass_within(densities, best.chi),
        support=support,
        strain=energy.contacts(best, everyone).strain(len(best)),
    )


def likely_candidates(energy: Energy, densities: Densities) -> Built:
    """Modes, their sub-rotamers and side chains that make a bond: those within the window."""
    modes, bonded = modes_of(densities), energy.bonds.candidates
    first, *others = (
        _likely_of(energy, densities, *(x.between(*at) for x in (modes, bonded)))
        for at in _blocks(len(densities))
    )
    return first.followed_by(others)


def _blocks(num: int) -> Iterator[tuple[int, int]]:
    """Of this many residues first and last, some at a time."""
    return itertools.pairwise([*range(0, num, RESIDUES_AT_A_TIME), num])


def _likely_of(
    energy: Energy, densities: Densities, modes: Candidates, bonded: Candidates
) -> Built:
    """Those of some residues.

    What costs more than the best mode of its residue and the window is not built.
    """
    built = energy.built(modes)
    most = _least(built) + WINDOW
    mass = densities.mode_weight[built.residue, built.mode]
    built = built.select(np.flatnonzero(-np.log(mass) <= most))
    built, moved = with_sub_rotamers(densities, built)
    row = np.searchsorted(modes.residue, moved.residue)
    moved = moved.select(np.flatnonzero(moved.cost <= most[row]))
    return likely(built.joined(energy.built(moved.joined(bonded))), WINDOW)


def likely(candidates: Built, window: float) -> Built:
    """Those within the window of the best of their residue by itself, and all that make a bond."""
    return candidates.select(np.flatnonzero(_is_likely(candidates, window)))


def _is_likely(candidates: Built, window: float) -> np.ndarray:
    above = candidates.cost + candidates.contact - _least(candidates)
    return (above <= window) | (candidates.bond >= 0)


def _least(candidates: Built) -> np.ndarray:
    """(C,) nats of the best candidate, by itself, of the residue of each."""
    first = np.flatnonzero(np.diff(candidates.residue, prepend=-1))
    least = np.minimum.reduceat(candidates.cost + candidates.contact, first)
    return np.repeat(least, np.diff(np.append(first, len(candidates))))


def given_way(energy: Energy, candidates: Built, best: Built, seed: int) -> Built:
    """The best state where some side chains have all candidates, and the others stay.

    These are the strained ones and whom they touch, and those at a bond that could be made.
    """
    contacts = energy.contacts(best, np.ones(len(best), dtype=bool))
    free = contacts.strain(len(best)) > STRAINED
    touching = contacts.residue[(contacts.nats > NEGLIGIBLE) & (contacts.residue[:, 1] >= 0)]
    free[touching[free[touching[:, 0]], 1]] = True
    could = np.zeros(len(best), dtype=bool)
    could[candidates.residue[candidates.bond >= 0]] = True
    place = energy.backbones.translation
    beside, _ = pairs_within(place, place[could & (best.bond < 0)], BESIDE_A_BOND)
    free[beside] = True
    stay = best.select(np.flatnonzero(~free))
    every = stay.joined(candidates.select(np.flatnonzero(free[candidates.residue])))
    return _best(energy, every, seed)


def _best(energy: Energy, candidates: Built, seed: int) -> Built:
    """The best joint state of all residues."""
    return candidates.select(best_of(energy, candidates, seed))


def mass_within(densities: Densities, chi: np.ndarray) -> np.ndarray:
    """(N,) mass of the modes from which chi (N,D) is not distinct."""
    token = densities.token[:, None]
    apart = circular_distance(chi[:, None], densities.mode_chi, PI_SYMMETRIC[token])
    apart = np.where(CHI_DEFINED[token], apart, 0.0).max(axis=2)
    return np.where(apart <= DISTINCT, densities.mode_weight, 0.0).sum(axis=1)


def _support(energy: Energy, candidates: Built, best: Built) -> np.ndarray:
    """(N,) probability of each residue's mode in the best state, the others being as there.

    That of a bond is 1.
    """
    parts = (candidates.between(*at) for at in _blocks(len(best)))
    met = np.concatenate([energy.contact_with(best, part) for part in parts])
    total = candidates.cost + candidates.contact + met
    first = np.flatnonzero(np.diff(candidates.residue, prepend=-1))
    n = candidates.residue
    weight = np.exp(np.minimum.reduceat(total, first)[n] - total - candidates.spread)
    same = candidates.mode == best.mode[n]
    support = np.bincount(n, weight * same, len(best)) / np.bincount(n, weight, len(best))
    return np.where(best.bond >= 0, 1.0, support)
