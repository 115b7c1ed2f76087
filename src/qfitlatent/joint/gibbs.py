"""Joint states drawn from exp(-energy), and how often each candidate is in them.

Shapes: N residues, C_n candidates of a residue, S chains.
"""

import numpy as np

from qfitlatent.joint.search import Problem, attracting, neighbours

SWEEPS = 16
"""Over all residues; the first half is forgotten."""


def draw_states(
    problem: Problem, num: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray]]:
    """(S,N) states of num independent chains, and (C_n,) the marginal of each candidate.

    Residues that can be bonded move two by two as well. A marginal is the mean of the conditional
    probabilities over chains and sweeps, which varies less than a count of states does; that of a
    residue without neighbours is its own probability.
    """
    near = neighbours(problem)
    state = np.zeros((num, len(problem.own)), dtype=np.int64)
    marginal = [_weight(own) for own in problem.own]
    for n, weight in enumerate(marginal):
        state[:, n] = _choose(np.broadcast_to(weight, (num, len(weight))), rng)
    several = [n for n, own in enumerate(problem.own) if len(own) > 1 and near[n]]
    for n in several:
        marginal[n] = np.zeros(len(problem.own[n]))
    pairs = attracting(problem)
    for sweep in range(SWEEPS):
        for i, j in pairs:
            both = np.broadcast_to(problem.pair[i, j], (num, *problem.pair[i, j].shape))
            both = both + _conditional(problem, near, state, i, j)[:, :, None]
            both = both + _conditional(problem, near, state, j, i)[:, None]
            chosen = _choose(_weight(both.reshape(num, -1)), rng)
            state[:, i], state[:, j] = np.divmod(chosen, both.shape[2])
        for n in several:
            weight = _weight(_conditional(problem, near, state, n))
            state[:, n] = _choose(weight, rng)
            if sweep >= SWEEPS // 2:
                marginal[n] += (weight / weight.sum(axis=1, keepdims=True)).mean(axis=0)
    for each in marginal:
        each /= each.sum()
    return state, marginal


def _conditional(
    problem: Problem,
    near: list[dict[int, np.ndarray]],
    state: np.ndarray,
    n: int,
    but: int = -1,
) -> np.ndarray:
    """(S,C_n) energy of residue n, the others as in the states (S,N), one of them left out."""
    energy = np.broadcast_to(problem.own[n], (len(state), len(problem.own[n])))
    for j, table in near[n].items():
        if j != but:
            energy = energy + table.T[state[:, j]]
    return energy


def _weight(energy: np.ndarray) -> np.ndarray:
    """(...,C) exp(-energy), 1 of the best."""
    return np.exp(energy.min(axis=-1, keepdims=True) - energy)


def _choose(weight: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(S,) candidates drawn in proportion to weight (S,C)."""
    upper = weight.cumsum(axis=1)
    below = rng.random((len(weight), 1)) * upper[:, -1:]
    return (upper <= below).sum(axis=1).clip(max=weight.shape[1] - 1)
