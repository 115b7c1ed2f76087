"""The joint model: what holds for any protein."""

import itertools

import numpy as np
import pytest

from helpers.crowded import NO_METALS, crowded, moved, near_pairs, reordered, turn
from qfitlatent.chemistry.residues import NUM_CHI
from qfitlatent.joint import candidates, contacts, model
from qfitlatent.joint.atoms import Backbones
from qfitlatent.joint.bonds import find_bonds
from qfitlatent.joint.candidates import candidates_of_modes
from qfitlatent.joint.energy import Energy
from qfitlatent.joint.model import joint_model
from qfitlatent.joint.sampling import num_candidates, sample_joint
from qfitlatent.joint.states import MAX_LABELS, hundredths, is_distinct

CLASH = 2.5


def model_of(protein, densities, seed=0, heterogeneous=True):
    several = np.full(len(densities), heterogeneous)
    return joint_model(protein, densities, several, 0.1, seed)


@pytest.mark.parametrize("seed", range(3))
def test_side_chains_fit_each_other(seed):
    protein, densities = crowded(seed=seed)
    alone = near_pairs(protein, densities.mode_chi[:, 0], CLASH)
    joint = near_pairs(protein, model_of(protein, densities).states.chi[:, 0], CLASH)
    assert len(alone) >= 3
    assert len(joint) <= len(alone) / 4  # modes at random do not always leave a way out


@pytest.mark.parametrize("seed", range(2))
def test_turning_and_moving_the_protein_changes_nothing(seed):
    protein, densities = crowded(seed=seed)
    here = model_of(protein, densities)
    there = model_of(moved(protein, turn(seed), np.array([300.0, -20.0, 5.0])), densities)
    assert there.states.chi == pytest.approx(here.states.chi, abs=1e-6)
    assert there.states.occupancy.tolist() == here.states.occupancy.tolist()
    assert there.strain == pytest.approx(here.strain, abs=0.01)


def test_the_order_of_chains_changes_nothing():
    protein, densities = crowded(num_helices=3, seed=1)
    here = model_of(protein, densities, heterogeneous=False)
    length = len(densities) // 3
    order = np.r_[2 * length : 3 * length, :length, length : 2 * length]
    there = model_of(*reordered(protein, densities, order), heterogeneous=False)
    assert there.states.chi == pytest.approx(here.states.chi[order], abs=1e-6)


def test_two_runs_are_the_same():
    protein, densities = crowded(seed=4)
    first, again = (model_of(protein, densities, seed=5) for _ in range(2))
    assert first.states.chi.tobytes() == again.states.chi.tobytes()
    assert first.states.occupancy.tobytes() == again.states.occupancy.tobytes()


def test_side_chains_are_built_and_held_against_each_other_once(monkeypatch):
    """Operations of a whole model: labels and relaxation add little to candidates and best state.

    And they grow with the number of residues.
    """
    built, met = [], []
    build, meet = Backbones.build, contacts._meet

    def counted_build(self, residue, chi):
        built.append(len(residue))
        return build(self, residue, chi)

    def counted_meet(a, kind_a, b, kind_b):
        met.append(len(a) * len(b))
        return meet(a, kind_a, b, kind_b)

    per_residue = []
    for num in (2, 4):
        protein, densities = crowded(num_helices=num)
        every = candidates_of_modes(densities)
        monkeypatch.setattr(Backbones, "build", counted_build)
        monkeypatch.setattr(contacts, "_meet", counted_meet)
        energy = Energy(
            protein.backbones, protein.around, find_bonds(protein.backbones, densities, NO_METALS)
        )
        built.clear(), met.clear()
        energy.problem(energy.built(every))
        once = sum(built), sum(met)
        built.clear(), met.clear()
        model_of(protein, densities)
        assert sum(built) < 2 * once[0]
        assert sum(met) < once[1]  # unlikely candidates are left out first
        per_residue.append(sum(met) / len(densities))
    assert per_residue[1] < 2 * per_residue[0]


def test_how_many_are_held_at_a_time_changes_nothing(monkeypatch):
    protein, densities = crowded(num_helices=3, seed=1)
    whole = model_of(protein, densities)
    monkeypatch.setattr(model, "RESIDUES_AT_A_TIME", 7)
    monkeypatch.setattr(candidates, "_KERNELS_AT_A_TIME", 5)
    monkeypatch.setattr(contacts, "CANDIDATES_AT_A_TIME", 11)
    parts = model_of(protein, densities)
    assert parts.states.chi == pytest.approx(whole.states.chi, abs=1e-6)
    assert parts.states.occupancy.tolist() == whole.states.occupancy.tolist()
    assert parts.support == pytest.approx(whole.support, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_altlocs_of_a_group_are_joint_states(seed):
    protein, densities = crowded(seed=seed)
    states = model_of(protein, densities).states
    token = densities.token
    assert (states.occupancy.sum(axis=1) == 100).all()
    assert ((states.occupancy == 0) | (states.occupancy >= 10)).all()
    assert (states.occupancy[:, 0] > 0).all()
    assert len(states.groups) > 0
    in_best = near_pairs(protein, states.chi[:, 0], CLASH)
    for label in range(1, MAX_LABELS):
        # Who has no side chain of this label shows that of an earlier one.
        assert near_pairs(protein, states.chi[:, label], CLASH) <= in_best
    in_groups = set()
    for group in states.groups:
        assert not in_groups & set(group.residues)
        in_groups |= set(group.residues)
        assert group.population.sum() == pytest.approx(1.0)
        assert (group.population >= 0.1 - 1e-9).all()
        assert 0.0 <= group.distance <= 1.0
        for n in group.residues:
            written = np.flatnonzero(states.occupancy[n])
            assert len(written) > 1
            assert written.max() < len(group.population)
            for pair in itertools.combinations(written, 2):
                assert is_distinct(token[n], *states.chi[n, list(pair)])
    assert in_groups == set(np.flatnonzero((states.occupancy > 0).sum(axis=1) > 1).tolist())


def test_groups_do_not_touch():
    protein, densities = crowded(num_helices=3, seed=2)
    states = model_of(protein, densities).states
    in_best = near_pairs(protein, states.chi[:, 0], CLASH)
    group_of = {n: g for g, group in enumerate(states.groups) for n in group.residues}
    for a in range(MAX_LABELS):
        for b in range(MAX_LABELS):
            chi = states.chi[:, a].copy()
            for n, g in group_of.items():
                if g % 2:
                    chi[n] = states.chi[n, b]
            assert near_pairs(protein, chi, CLASH) <= in_best


def test_who_is_not_heterogeneous_has_one_conformer():
    protein, densities = crowded(seed=3)
    states = model_of(protein, densities, heterogeneous=False).states
    assert (states.occupancy[:, 0] == 100).all()
    assert states.groups == ()


def test_what_is_known_about_a_conformer_is_a_probability():
    protein, densities = crowded(seed=5)
    model = model_of(protein, densities)
    for values in (model.mass, model.support):
        assert (values >= 0).all()
        assert (values <= 1 + 1e-9).all()
    none = NUM_CHI[densities.token] == 0
    assert model.strain[none] == pytest.approx(0.0)


def test_hundredths_sum_to_one_hundred():
    weight = np.array([[1.0, 1.0, 1.0], [0.996, 0.002, 0.002], [0.0, 0.0, 0.0], [0.7, 0.3, 0.0]])
    assert hundredths(weight).tolist() == [[34, 33, 33], [98, 1, 1], [0, 0, 0], [70, 30, 0]]


def test_draws_are_joint_states_of_the_density():
    protein, densities = crowded(seed=6)
    num = 20
    rng = np.random.default_rng(0)
    mode = np.array([rng.choice(4, num_candidates(num), p=w) for w in densities.mode_weight]).T
    drawn = densities.mode_chi[np.arange(len(densities)), mode]
    drawn = drawn + rng.normal(scale=0.15, size=drawn.shape)
    first, again = (sample_joint(protein, densities, drawn, num, 7) for _ in range(2))
    assert first.shape == (num, len(densities), 4)
    assert (first == again).all()
    pool = drawn.swapaxes(0, 1)
    assert all(np.isin(first[:, n, 0], pool[n, :, 0]).all() for n in range(len(densities)))
    clashes = [
        np.mean([len(near_pairs(protein, x, CLASH)) for x in some]) for some in (first, drawn)
    ]
    assert clashes[0] < 0.3 * clashes[1]
