"""The best joint state: dead ends are eliminated, small components solved exactly, others annealed.

Shapes: N residues, C_n candidates of a residue.
"""

from dataclasses import dataclass, field

import numpy as np

from qfitlatent.joint.energy import Built, Energy, Problem

MAX_TABLE = 200_000
"""Entries of the largest table of an exact elimination; a component that needs more is annealed."""

COMPARED = 4
"""Candidates that all others of a residue are held against in Goldstein's criterion."""

TEMPERATURES = np.geomspace(3.0, 0.15, 30)
"""Of the annealing, nats."""


def best_of(energy: Energy, candidates: Built, seed: int) -> np.ndarray:
    """(N,) the rows of the candidates that are the best joint state of all residues."""
    free, problem = energy.problem(candidates)
    rows = candidates.start(len(energy))[:-1]
    rows[free] += best_state(problem, seed)
    return rows


def best_state(problem: Problem, seed: int) -> np.ndarray:
    """(N,) the candidate of each residue in the state of lowest energy.

    Exact but for components of the graph of contacts whose elimination would need a table larger
    than MAX_TABLE, where it is the best that annealing and descent find.
    """
    kept = eliminate_dead_ends(problem)
    reduced = restrict(problem, kept)
    state = np.array([own.argmin() for own in reduced.own], dtype=np.int64)
    for component in components(reduced):
        if len(component) == 1:
            continue
        part = eliminate(reduced, component)
        if part is None:
            part = anneal(reduced, component, seed)
        state[component] = part
    return np.array([kept[n][state[n]] for n in range(len(state))], dtype=np.int64)


def energy_of(problem: Problem, state: np.ndarray) -> float:
    """Nats of a joint state (N,)."""
    own = sum(float(own[s]) for own, s in zip(problem.own, state, strict=True))
    return own + sum(float(pair[state[i], state[j]]) for (i, j), pair in problem.pair.items())


def restrict(problem: Problem, kept: list[np.ndarray]) -> Problem:
    """The problem with only these candidates; who has one left is added to its neighbours."""
    own = [energy[kept[n]] for n, energy in enumerate(problem.own)]
    pair = {}
    for (i, j), energy in problem.pair.items():
        part = _part(energy, kept[i], kept[j])
        if len(kept[i]) == 1:
            own[j] = own[j] + part[0]
        elif len(kept[j]) == 1:
            own[i] = own[i] + part[:, 0]
        elif np.ptp(part) > 0:
            pair[i, j] = part
        else:
            own[i] = own[i] + part[0, 0]
    return Problem(own, pair)


def _part(table: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """These rows and columns, ascending; the table itself where they are all."""
    if len(columns) < table.shape[1]:
        table = table[:, columns]
    return table[rows] if len(rows) < len(table) else table


def problem_of(problem: Problem, part: list[int]) -> Problem:
    """Of these residues alone, numbered in their order."""
    number = {n: k for k, n in enumerate(part)}
    pair = {
        (number[i], number[j]): energy
        for (i, j), energy in problem.pair.items()
        if i in number and j in number
    }
    return Problem([problem.own[n] for n in part], pair)


def neighbours(problem: Problem) -> list[dict[int, np.ndarray]]:
    """For each residue its neighbours and the pair energies, its own candidates first."""
    near: list[dict[int, np.ndarray]] = [{} for _ in problem.own]
    for (i, j), energy in problem.pair.items():
        near[i][j], near[j][i] = energy, energy.T
    return near


def eliminate_dead_ends(problem: Problem) -> list[np.ndarray]:
    """Candidates of each residue that a best state may hold, until none can be struck any more.

    A candidate r goes when another t is better whatever the neighbours do: E(r) - E(t) + sum_j
    min_s [E(r,s) - E(t,s)] > 0 (Goldstein, Biophys J 66 (1994) 1335).
    """
    near, owns = neighbours(problem), list(problem.own)  # of those that are kept
    kept = [np.arange(len(own)) for own in owns]
    waiting = set(range(len(kept)))
    while waiting:
        changed: set[int] = set()
        for n in sorted(waiting):
            if len(kept[n]) == 1:
                continue
            own = owns[n]
            mean = own.copy()
            for table in near[n].values():
                mean += table.sum(axis=1) / table.shape[1]
            against = np.argsort(mean, kind="stable")[:COMPARED]
            gap = own[:, None] - own[against]
            for table in near[n].values():
                gap += (table[:, None] - table[against]).min(axis=2)
            alive = np.flatnonzero(~(gap > 1e-9).any(axis=1))
            if len(alive) < len(own):
                kept[n], owns[n] = kept[n][alive], own[alive]
                for j, table in near[n].items():
                    near[n][j] = table[alive]
                    near[j][n] = near[n][j].T
                changed |= {n, *near[n]}
        waiting = changed
    return kept


def components(problem: Problem) -> list[list[int]]:
    """Residues that are connected by pair energies, each list in order."""
    near = neighbours(problem)
    seen: set[int] = set()
    found = []
    for n in range(len(near)):
        if n in seen:
            continue
        seen.add(n)
        stack, component = [n], []
        while stack:
            at = stack.pop()
            component.append(at)
            new = [j for j in near[at] if j not in seen]
            seen.update(new)
            stack += new
        found.append(sorted(component))
    return found


@dataclass
class _Step:
    """A residue that was eliminated: for all states of its neighbours, its energies (..., C_n)."""

    residue: int
    scope: list[int] = field(default_factory=list)
    table: np.ndarray = field(default_factory=lambda: np.zeros(0))


def eliminate(problem: Problem, component: list[int]) -> np.ndarray | None:
    """(n,) the best state of a component; None where a table would be too large.

    Residues are eliminated one by one, the one with the smallest table first (a tree decomposition
    by the greedy heuristic); then each takes its best candidate, in the reverse order.
    """
    size = {n: len(problem.own[n]) for n in component}
    factors: dict[int, list[tuple[tuple[int, ...], np.ndarray]]] = {n: [] for n in component}
    near: dict[int, set[int]] = {n: set() for n in component}
    for n in component:
        factors[n].append(((n,), problem.own[n]))
    inside = set(component)
    for (i, j), energy in problem.pair.items():
        if i in inside:
            factors[i].append(((i, j), energy))
            factors[j].append(((i, j), energy))
            near[i].add(j)
            near[j].add(i)
    steps = []
    left = dict.fromkeys(component)
    while left:
        width = {
            n: size[n] * int(np.prod([size[j] for j in near[n]], dtype=np.float64)) for n in left
        }
        n = min(left, key=lambda n: (width[n], n))
        if width[n] > MAX_TABLE:
            return None
        scope = sorted(near[n])
        axes = {r: axis for axis, r in enumerate([*scope, n])}
        table = np.zeros([size[r] for r in axes])
        for members, energy in factors[n]:
            order = sorted(range(len(members)), key=lambda k: axes[members[k]])
            shape = np.ones(len(axes), dtype=np.int64)
            for k in order:
                shape[axes[members[k]]] = size[members[k]]
            table += energy.transpose(order).reshape(shape)
        steps.append(_Step(n, scope, table))
        best = table.min(axis=-1)
        for r in scope:
            factors[r] = [f for f in factors[r] if n not in f[0]]
            factors[r].append((tuple(scope), best))
            near[r] |= set(scope) - {r}
            near[r].discard(n)
        del left[n]
    state: dict[int, int] = {}
    for step in reversed(steps):
        at = tuple(state[r] for r in step.scope)
        state[step.residue] = int(step.table[at].argmin())
    return np.array([state[n] for n in component])


def attracting(problem: Problem) -> list[tuple[int, int]]:
    """Pairs of residues that can be bonded: there is a clash on the way of each by itself."""
    return [pair for pair, energy in problem.pair.items() if energy.min() < 0]


def anneal(problem: Problem, component: list[int], seed: int) -> np.ndarray:
    """(n,) a good state of a component: Gibbs sampling as it cools, then descent.

    Residues move one by one, and those that can be bonded two by two as well.
    """
    rng = np.random.default_rng((seed, len(component)))
    near = neighbours(problem)
    state = {n: int(problem.own[n].argmin()) for n in component}
    moves: list[tuple[int, ...]] = [(n,) for n in component]
    moves += [pair for pair in attracting(problem) if pair[0] in state]

    def energies(move: tuple[int, ...]) -> np.ndarray:
        """(C_n,), or (C_i,C_j) of two."""
        each = [
            problem.own[n]
            + sum(table[:, state[j]] for j, table in near[n].items() if j not in move)
            for n in move
        ]
        if len(move) == 1:
            return each[0]
        return each[0][:, None] + each[1] + problem.pair[move[0], move[1]]

    def take(move: tuple[int, ...], energy: np.ndarray) -> None:
        chosen = np.unravel_index(int(energy.argmin()), energy.shape)
        state.update(zip(move, map(int, chosen), strict=True))

    for temperature in TEMPERATURES:
        for move in moves:
            energy = energies(move)
            take(move, energy / temperature - rng.gumbel(size=energy.shape))
    moved = True
    while moved:
        moved = False
        for move in moves:
            energy = energies(move)
            if energy.min() < energy[tuple(state[n] for n in move)] - 1e-9:
                take(move, energy)
                moved = True
    return np.array([state[n] for n in component])
