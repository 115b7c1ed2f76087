"""Costs and contacts, against a loop over atoms and against the density itself."""

import numpy as np
import pytest
import torch

from helpers.crowded import crowded, densities_of
from qfitlatent.chemistry.residues import CHI_DEFINED, PI_SYMMETRIC, RESIDUE_TYPES
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.joint import contacts
from qfitlatent.joint.atoms import KIND
from qfitlatent.joint.bonds import find_bonds
from qfitlatent.joint.candidates import MIN_MASS, candidates_of_modes
from qfitlatent.joint.contacts import CONTACT
from qfitlatent.joint.energy import Energy
from qfitlatent.joint.search import energy_of


def energy_and_candidates(seed=0):
    protein, densities = crowded(seed=seed)
    bonds = find_bonds(protein.backbones, densities, protein.metals)
    energy = Energy(protein.backbones, protein.around, bonds)
    return energy, energy.built(candidates_of_modes(densities))


def test_contacts_are_a_sum_over_atoms(monkeypatch):
    """Of candidates of three residues, in blocks that end within a candidate."""
    monkeypatch.setattr(contacts, "BLOCK", 5)
    rng = np.random.default_rng(0)
    start, kinds = np.array([0, 3, 5, 9]), rng.integers(0, 6, (3, 4))
    num_atoms, kind = np.array([4, 2, 3]), np.repeat(kinds, np.diff(start), axis=0)
    position = rng.normal(scale=1.5, size=(9, 4, 3)).astype(np.float32)
    position[np.arange(4) >= np.repeat(num_atoms, np.diff(start))[:, None]] = np.nan
    atoms = contacts.atoms_of(position, kinds, start)

    def between(candidate, other, other_kind):
        square = ((position[candidate][:, None] - other) ** 2).sum(axis=2)
        energy = contacts.nats(square, CONTACT[kind[candidate][:, None], other_kind])
        return np.nansum(energy)

    tables = {(i, j): t for i, j, t in contacts.pair_tables(atoms, *contacts.near_residues(atoms))}
    assert set(tables) == {(0, 1), (0, 2), (1, 2)}
    for (i, j), table in tables.items():
        for a, b in np.ndindex(table.shape):
            expected = between(start[i] + a, position[start[j] + b], kind[start[j] + b])
            assert table[a, b] == pytest.approx(expected, rel=1e-3, abs=1e-3)

    rest, rest_kind = rng.normal(scale=1.5, size=(7, 3)).astype(np.float32), rng.integers(0, 6, 7)
    n, q = contacts.near_atoms(atoms, rest)
    met = (n != 1) | (q != 2)  # one residue does not meet one atom
    found = contacts.contacts_with(atoms, n[met], q[met], rest, rest_kind)
    for c, energy in enumerate(found):
        kept = np.arange(7) != (2 if 3 <= c < 5 else -1)
        expected = between(c, rest[kept], rest_kind[kept])
        assert energy == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_contacts_are_symmetric_and_leave_room_for_hydrogen_bonds():
    assert (CONTACT == CONTACT.T).all()
    assert CONTACT[KIND["N"], KIND["O"]] < 2.65
    assert CONTACT[KIND["metal"], KIND["S"]] < 2.3


def test_a_state_costs_what_its_atoms_cost():
    energy, candidates = energy_and_candidates()
    free, problem = energy.problem(candidates)
    everyone = np.ones(len(energy), dtype=bool)
    rng = np.random.default_rng(1)
    by_problem, by_atoms = [], []
    for _ in range(2):
        state = rng.integers([len(own) for own in problem.own])
        rows = candidates.start(len(energy))[:-1]
        rows[free] += state
        chosen = candidates.select(rows)
        cost, around = chosen.cost[free].sum(), chosen.contact[free].sum()
        by_problem.append(energy_of(problem, state))
        # The strain counts a contact of two side chains for both.
        strain = energy.contacts(chosen, everyone).strain(len(energy))
        by_atoms.append(cost + (strain.sum() + around) / 2)
    assert by_problem == pytest.approx(by_atoms, rel=1e-3)


def test_who_has_no_choice_is_met_as_an_atom_that_stays():
    energy, candidates = energy_and_candidates()
    free, problem = energy.problem(candidates)
    start, first = candidates.start(len(energy)), free[0]
    rows = np.arange(len(candidates))
    fewer = candidates.select(rows[(candidates.residue != first) | (rows == start[first] + 1)])
    left, reduced = energy.problem(fewer)
    assert left.tolist() == free[1:].tolist()
    state = np.zeros(len(left), dtype=np.int64)
    before = energy_of(problem, np.r_[1, state]) - problem.own[0][1]
    assert energy_of(reduced, state) == pytest.approx(before, rel=1e-4)


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
