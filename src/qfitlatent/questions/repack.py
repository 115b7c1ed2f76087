"""The best joint state of a site whose first residue has a given type; no torch here.

It is found as that of a whole protein is (``joint.model``), without the last step, in which side
chains give way within the width of their density: their sub-rotamers of 12 degrees are enough to
tell a type that has room from one that has none. The unchanged type is repacked in the same way, so
that what is held against it is the change alone. The neighbours have the densities of the unchanged
protein: how the change moves those is a figure of its own. What they can do by themselves is hence
the same for all types, and is worked out once.

Shapes: n residues of a site, C candidates of the first, J modes, D=4 chi.
"""

from dataclasses import fields, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from qfitlatent.chemistry.residues import NUM_CHI, TOKEN
from qfitlatent.joint.atoms import KIND, Surroundings
from qfitlatent.joint.bonds import Bonds, find_bonds
from qfitlatent.joint.candidates import MIN_MASS, Candidates, Densities, candidates_of_modes
from qfitlatent.joint.contacts import contacts_with, near_atoms, near_residues, pair_tables
from qfitlatent.joint.energy import NEGLIGIBLE, Built, Energy, Problem
from qfitlatent.joint.model import WINDOW, likely, likely_candidates
from qfitlatent.joint.search import best_state
from qfitlatent.prediction.looks import CLASH_NATS
from qfitlatent.questions.sites import Site

METAL_ANGSTROM = 12.0
"""From CB: the reach of an arginine, and a bond."""


class Repacked(NamedTuple):
    """The best state of a site, in nats.

    energy: of all its side chains and their contacts; contacts: of these alone; strain: of the
    contacts of the first residue; num_clashes: pairs of a residue and another, or what stays, with
    atoms within 2.5 angstrom; chi (D,) of the first, and fitting_mass, the share of its modes that
    fit, 1 where it has no chi.
    """

    energy: float
    contacts: float
    strain: float
    num_clashes: int
    chi: np.ndarray
    fitting_mass: float


class Packing:
    """One site, to be packed around any type of its first residue."""

    def __init__(self, site: Site, densities: Densities) -> None:
        """densities of the n residues in the unchanged protein; those of the first are not read."""
        self.site, self.densities = site, densities
        without = _as(site, TOKEN["GLY"])
        first = np.arange(len(densities)) == 0
        one = np.where(first[:, None], 0.0, densities.mode_weight)
        one[0, 0] = 1.0  # glycine has one side chain, of no atoms
        known = replace(densities, token=without.backbones.token, mode_weight=one)
        bonds = find_bonds(without.backbones, known, without.metals, without.recorded)
        energy = Energy(without.backbones, without.around, bonds)
        found = likely_candidates(energy, known)
        self.candidates = found.select(np.flatnonzero(found.residue > 0))
        self.free, self.problem = energy.problem(found)
        self.bonds = bonds

    def __call__(self, token: int, own: Densities) -> Repacked:
        """The first residue as ``token``, with this density (of one residue)."""
        site = _as(self.site, token)
        if self._may_bond(token):
            # What the neighbours can do need not be the same any more.
            every = _first_of(own, self.densities)
            bonds = find_bonds(site.backbones, every, site.metals, site.recorded)
            energy = Energy(site.backbones, site.around, bonds)
            found = likely_candidates(energy, every)
            free, problem = energy.problem(found)
        else:
            energy = Energy(site.backbones, site.around, self.bonds)
            found, free, problem = self._around(energy, candidates_of_modes(own))
        rows = found.start(len(energy))[:-1]
        rows[free] += best_state(problem, 0)
        best = found.select(rows)
        met = energy.contacts(best, np.ones(len(best), dtype=bool))
        once = (met.residue[:, 1] < 0) | (met.residue[:, 0] < met.residue[:, 1])
        strain, contacts = float(met.strain(len(best))[0]), float(met.nats[once].sum())
        return Repacked(
            energy=float(best.cost.sum()) + contacts + _disulfides(energy.bonds, best),
            contacts=contacts,
            strain=strain,
            num_clashes=len(met.clashing()),
            chi=best.chi[0],
            fitting_mass=_fitting_mass(problem, found, own, strain),
        )

    def _may_bond(self, token: int) -> bool:
        """Whether the first residue could make a disulfide or bind a metal."""
        if token == TOKEN["CYS"] and (self.site.backbones.token[1:] == token).any():
            return True
        metals = self.site.metals.position
        return bool((np.linalg.norm(metals - self.site.cb, axis=1) <= METAL_ANGSTROM).any())

    def _around(self, energy: Energy, own: Candidates) -> tuple[Built, np.ndarray, Problem]:
        """All candidates, and who has a choice, the first always; the neighbours are known."""
        first, rest = likely(energy.built(own), WINDOW), self.candidates
        if energy.backbones.token[0] != TOKEN["GLY"]:
            rest = replace(rest, contact=rest.contact + self._with_cb)
        every = first.joined(rest)
        has_choice = np.isin(every.residue, self.free)
        stay = every.select(np.flatnonzero((every.residue > 0) & ~has_choice))
        free = np.append(0, self.free)
        some = every.select(np.flatnonzero((every.residue == 0) | has_choice))
        atoms = energy.atoms(some, free)
        alone = energy.contact_with(stay, first)
        each = [first.cost + first.contact + alone]
        start = rest.start(len(energy))
        for j, known in zip(self.free.tolist(), self.problem.own, strict=True):
            rows = slice(start[j], start[j + 1])
            each.append(known + rest.contact[rows] - self.candidates.contact[rows])
        i, j = near_residues(atoms)
        pair = {(i + 1, j + 1): table for (i, j), table in self.problem.pair.items()}
        for _, k, table in pair_tables(atoms, i[i == 0], j[i == 0]):
            if table.max() > NEGLIGIBLE:
                pair[0, k] = table
        return every, free, Problem(each, pair)

    @cached_property
    def _with_cb(self) -> np.ndarray:
        """(C,) nats of the neighbours' candidates with CB of the first."""
        energy = Energy(self.site.backbones, self.site.around, self.bonds)
        cb = (self.site.cb - energy.centre).astype(np.float32)[None]
        atoms = energy.atoms(self.candidates, np.arange(1, len(energy)))
        return contacts_with(atoms, *near_atoms(atoms, cb), cb, np.array([KIND["C"]]))


def _as(site: Site, token: int) -> Site:
    """The site whose first residue has this type, and CB where the type has it."""
    metals, recorded, around = site.metals, site.recorded, site.around
    if token != site.backbones.token[0]:
        metals = replace(metals, links=tuple(link for link in metals.links if link[0]))
        recorded = frozenset(pair for pair in recorded if 0 not in pair)
    if token != TOKEN["GLY"]:
        around = Surroundings(
            np.concatenate((around.position, site.cb[None])),
            np.r_[around.kind, KIND["C"]],
            np.concatenate((around.excluded, [[0, -1]])),
        )
    backbones = replace(site.backbones, token=np.r_[token, site.backbones.token[1:]])
    return replace(site, backbones=backbones, around=around, metals=metals, recorded=recorded)


def _first_of(own: Densities, rest: Densities) -> Densities:
    """``rest`` with ``own`` in the place of its first residue; the narrower is filled with 0."""
    values = []
    for a, b in ((getattr(own, f.name), getattr(rest, f.name)[1:]) for f in fields(Densities)):
        both = np.zeros((1 + len(b), *np.maximum(a.shape[1:], b.shape[1:])), dtype=b.dtype)
        both[(slice(0, 1), *map(slice, a.shape[1:]))] = a
        both[(slice(1, None), *map(slice, b.shape[1:]))] = b
        values.append(both)
    return Densities(*values)


def _disulfides(bonds: Bonds, best: Candidates) -> float:
    """What the bonds gain that two of the chosen side chains make with each other."""
    number, times = np.unique(best.bond[best.bond >= 0], return_counts=True)
    return float(bonds.energy[number[times == 2]].sum())


def _fitting_mass(problem: Problem, candidates: Candidates, own: Densities, strain: float) -> float:
    """The share of the first residue's modes, by mass, of which a side chain fits.

    One fits when its contacts cost less than a clash, each neighbour by itself having given way to
    it: a lower bound of them, as two neighbours may want the same room.
    """
    if not NUM_CHI[own.token[0]]:
        return 1.0
    first = candidates.select(np.flatnonzero(candidates.residue == 0))
    contacts = problem.own[0] - first.cost
    if len(first) == 1:  # the problem may leave out what one without a choice touches
        contacts = np.array([strain])
    else:
        for (i, j), pair in problem.pair.items():
            if i == 0:
                contacts = contacts + (problem.own[j] + pair).min(axis=1) - problem.own[j].min()
    weight = own.mode_weight[0]
    fits = np.zeros(len(weight), dtype=bool)
    fits[first.mode[contacts <= CLASH_NATS]] = True
    counts = weight >= MIN_MASS
    counts[0] = True
    return float(weight[counts & fits].sum() / weight[counts].sum())
