"""Joint states drawn from exp(-energy), and how often each candidate is in them.

Shapes: N residues, C_n candidates of a residue, S chains.
"""

import numpy as np

from qfitlatent.joint.search import Problem, neighbours

SWEEPS = 16
"""Over all residues; the first half is forgotten."""


def draw_states(
    problem: Problem, num: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray]]:
    """(S,N) states of num independent chains, and (C_n,) the marginal of each candidate.

    A marginal is the mean of the conditional probabilities over chains and sweeps, which varies
    less than a count of states does.
    """
    near = neighbours(problem)
    state = np.zeros((num, len(problem.own)), dtype=np.int64)
    for n, own in enumerate(problem.own):
        state[:, n] = _choose(np.broadcast_to(own, (num, len(own))), rng)
    marginal = [np.zeros(len(own)) for own in problem.own]
    several = [n for n, own in enumerate(problem.own) if len(own) > 1]
    for sweep in range(SWEEPS):
        for n in several:
            energy = np.broadcast_to(problem.own[n], (num, len(problem.own[n])))
            for j, table in near[n].items():
                energy = energy + table.T[state[:, j]]
            state[:, n] = _choose(energy, rng)
            if sweep >= SWEEPS // 2:
                weight = np.exp(energy.min(axis=1, keepdims=True) - energy)
                marginal[n] += (weight / weight.sum(axis=1, keepdims=True)).mean(axis=0)
    for each in marginal:
        each /= max(float(each.sum()), 1e-300)
        if len(each) == 1:
            each[:] = 1.0
    return state, marginal


def _choose(energy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(S,) candidates drawn from exp(-energy), energy (S,C)."""
    return (rng.gumbel(size=energy.shape) - energy).argmax(axis=1)
