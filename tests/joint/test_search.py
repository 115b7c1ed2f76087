"""Small problems: the search finds what trying everything finds."""

import itertools

import numpy as np
import pytest

from qfitlatent.joint import search
from qfitlatent.joint.energy import Problem
from qfitlatent.joint.gibbs import draw_states


def random_problem(seed, num=6, share=0.6):
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 5, num)
    own = [rng.exponential(2.0, n) for n in size]
    pair = {
        (i, j): rng.choice([0.0, 6.0], (size[i], size[j]), p=[0.6, 0.4]) + rng.exponential(0.2)
        for i, j in itertools.combinations(range(num), 2)
        if rng.random() < share
    }
    return Problem(own, pair)


def all_states(problem):
    states = itertools.product(*(range(len(own)) for own in problem.own))
    return {state: search.energy_of(problem, np.array(state)) for state in states}


@pytest.mark.parametrize("seed", range(12))
def test_the_best_state_is_the_best_of_all(seed):
    problem = random_problem(seed)
    energies = all_states(problem)
    found = search.best_state(problem, 0)
    assert energies[tuple(found)] == pytest.approx(min(energies.values()), abs=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_a_dead_end_is_in_no_best_state(seed):
    problem = random_problem(seed)
    energies = all_states(problem)
    best = min(energies, key=energies.get)
    kept = search.eliminate_dead_ends(problem)
    assert all(state in kept[n] for n, state in enumerate(best))


def test_what_cannot_be_solved_exactly_is_annealed_the_same_each_time(monkeypatch):
    monkeypatch.setattr(search, "MAX_TABLE", 8)
    gaps = []
    for seed in range(8):
        problem = random_problem(seed, num=7, share=1.0)
        first, again = (search.best_state(problem, 3) for _ in range(2))
        assert first.tolist() == again.tolist()
        gaps.append(search.energy_of(problem, first) - min(all_states(problem).values()))
    assert min(gaps) > -1e-9
    assert np.mean(np.array(gaps) < 1e-9) >= 0.7


def test_a_bond_is_found_through_the_clash_before_it():
    """Two residues that are bonded, and clash when one of them alone is ready for it."""
    own = [np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.array([0.0, 0.3, 0.1])]
    bond, touch = [[0.0, 16.0], [16.0, -12.0]], [[0.2, 0.0, 0.1], [0.0, 0.2, 0.3]]
    problem = Problem(own, {(0, 1): np.array(bond), (1, 2): np.array(touch)})
    assert search.anneal(problem, [0, 1, 2], 0).tolist() == [1, 1, 0]
    state, marginal = draw_states(problem, 64, np.random.default_rng(0))
    assert (state[:, :2] == 1).all()
    assert marginal[0] == pytest.approx([0.0, 1.0], abs=1e-3)


def test_components_are_those_of_the_graph():
    pair = {(0, 3): np.array([[0.0, 1.0]]), (1, 2): np.array([[2.0, 0.0], [0.0, 1.0]])}
    problem = Problem([np.zeros(1), np.zeros(2), np.zeros(2), np.zeros(2)], pair)
    assert search.components(problem) == [[0, 3], [1, 2]]
    alone = search.restrict(problem, [np.arange(len(own)) for own in problem.own])
    assert search.components(alone) == [[0], [1, 2], [3]]
    assert alone.own[3].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("seed", range(3))
def test_draws_follow_the_boltzmann_weights(seed):
    problem = random_problem(seed, num=5)
    energies = all_states(problem)
    weight = {state: np.exp(-energy) for state, energy in energies.items()}
    total = sum(weight.values())
    states, marginal = draw_states(problem, 800, np.random.default_rng(seed))
    for n, own in enumerate(problem.own):
        exact = [
            sum(w for state, w in weight.items() if state[n] == c) / total for c in range(len(own))
        ]
        assert marginal[n] == pytest.approx(exact, abs=0.04)
        counted = np.bincount(states[:, n], minlength=len(own)) / len(states)
        assert counted == pytest.approx(exact, abs=0.08)
