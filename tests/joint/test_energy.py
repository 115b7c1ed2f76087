"""Costs and contacts, against a loop over atoms and against the density itself."""

import numpy as np
import pytest
import torch

from helpers.crowded import crowded, densities_of
from qfitlatent.chemistry.residues import CHI_DEFINED, PI_SYMMETRIC, RESIDUE_TYPES
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.joint import energy as module
from qfitlatent.joint.bonds import find_bonds
from qfitlatent.joint.candidates import MIN_MASS, candidates_of_modes
from qfitlatent.joint.energy import CONTACT, Energy, overlaps
from qfitlatent.joint.search import energy_of


def energy_and_candidates(seed=0):
    protein, densities = crowded(seed=seed)
    bonds = find_bonds(protein.backbones, densities, protein.metals)
    return Energy(protein.backbones, protein.around, bonds), candidates_of_modes(densities)


def test_overlaps_are_a_sum_over_atoms():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(scale=2.0, size=(3, size, 3)).astype(np.float32) for size in (2, 4))
    contact = rng.uniform(2.5, 3.5, (2, 4))
    expected = np.zeros((3, 3))
    for i, j, x, y in np.ndindex(3, 3, 2, 4):
        square = ((a[i, x] - b[j, y]) ** 2).sum()
        overlap = max(contact[x, y] ** 2 - square, 0.0) / (2 * contact[x, y])
        expected[i, j] += min(module.STIFFNESS * overlap**2, module.CAP)
    assert overlaps(a, b, contact) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_contacts_are_symmetric_and_leave_room_for_hydrogen_bonds():
    assert (CONTACT == CONTACT.T).all()
    assert CONTACT[module.KIND["N"], module.KIND["O"]] < 2.65
    assert CONTACT[module.KIND["metal"], module.KIND["S"]] < 2.3


def test_a_state_costs_what_its_atoms_cost():
    energy, candidates = energy_and_candidates()
    problem = energy.problem(candidates, energy.atoms(candidates))
    num = len(problem.own)
    start = candidates.start(num)[:-1]
    rng = np.random.default_rng(1)
    states = [rng.integers([len(own) for own in problem.own]) for _ in range(2)]
    by_problem, by_atoms = [], []
    for state in states:
        chosen = candidates.select(start + state)
        by_problem.append(energy_of(problem, state))
        own = energy.own(candidates, energy.atoms(candidates))
        around = sum(own[n][s] for n, s in enumerate(state)) - chosen.cost.sum()
        # The strain counts a contact of two side chains for both.
        by_atoms.append(chosen.cost.sum() + (energy.strain(chosen).sum() + around) / 2)
    assert by_problem == pytest.approx(by_atoms, rel=1e-3)


def test_log_density_is_that_of_the_mixture():
    rng = np.random.default_rng(2)
    token = np.arange(20)
    densities = densities_of(token, rng)
    mixture = VonMisesMixture(
        torch.from_numpy(densities.weight).log(),
        torch.from_numpy(densities.mean),
        torch.from_numpy(densities.kappa),
        torch.from_numpy(CHI_DEFINED[token]),
        torch.from_numpy(PI_SYMMETRIC[token]),
    )
    residue = np.repeat(token, 3)
    chi = rng.uniform(-np.pi, np.pi, (len(residue), 4))
    expected = mixture.log_prob(
        torch.from_numpy(chi), torch.from_numpy(CHI_DEFINED[residue]), torch.from_numpy(residue)
    ).numpy()
    # A symmetric chi: all of the density is counted on either half.
    assert densities.log_density(residue, chi) == pytest.approx(expected, abs=1e-4)


def test_candidates_of_a_mode_weigh_as_much_as_the_mode():
    densities = densities_of(np.arange(20), np.random.default_rng(3))
    candidates = candidates_of_modes(densities)
    assert (np.diff(candidates.residue) >= 0).all()
    weight = np.zeros((20, 4))
    rows = np.exp(-candidates.cost - candidates.spread)
    np.add.at(weight, (candidates.residue, candidates.mode), rows)
    known = np.where(densities.mode_weight >= MIN_MASS, densities.mode_weight, 0.0)
    assert weight == pytest.approx(known, abs=1e-9)
    proline = candidates.residue == RESIDUE_TYPES.index("PRO")
    assert np.count_nonzero(proline) <= 4
