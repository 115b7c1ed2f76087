"""Wasserstein-1 distances on the torus between observed altlocs and a density (SPEC 8).

Shapes: N residues, A altlocs of one residue, S samples.
"""

import math
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from qfitlatent.density.rows import Observed

PRICE_SWEEPS = 12
"""Rounds over the altlocs that find the prices from which optimal transport starts."""

MASS_TOLERANCE = 1e-7
"""Optimal transport stops when less than this share of the mass is at the wrong altloc."""

TIE_BREAK = 1e-6
"""Radians, at most, by which costs are changed so that none are equal."""

KEPT_SHARE = 0.75
"""Solved problems are put aside when this share or less is left to solve."""


def wasserstein(distance: Tensor, observed: Observed) -> Tensor:
    """(N,) exact W1 between the S equally weighted samples and the observed altlocs, in radians.

    distance (M,S) is the ground metric: root mean square over chi of the circular distance,
    symmetry-aware. One altloc needs no transport problem, two are solved by sorting, more by
    ``transport_cost``.
    """
    out = torch.full((len(observed),), math.nan)
    for rows in observed.rows_by_number():
        cost = distance[rows]  # (A,n,S)
        mass = observed.occupancy[rows].to(distance.dtype)
        mass = mass / mass.sum(0)
        if len(rows) == 1:
            found = cost[0].mean(1)
        elif len(rows) == 2:
            found = _two_atoms(cost, mass[0])
        else:
            found = transport_cost(cost, mass)
        out[observed.row_residue[rows[0]]] = found
    return out


def _two_atoms(cost: Tensor, first: Tensor) -> Tensor:
    """Optimal transport of S equal masses to two atoms: those that gain most go to the first."""
    num_samples = cost.shape[2]
    gain = _in_order(cost[0] - cost[1])
    share = (first[:, None] * num_samples - torch.arange(num_samples)).clamp(0.0, 1.0)
    return (cost[1].sum(1) + (gain * share).sum(1)) / num_samples


def _in_order(values: Tensor) -> Tensor:
    """values (n,S), each row ascending: numpy sorts twenty times as fast as torch does."""
    return torch.from_numpy(np.sort(values.numpy(), axis=1))


def transport_cost(cost: Tensor, demand: Tensor) -> Tensor:
    """(n,) optimal transport cost, to 1e-6, of S equal sources to A targets, many problems at once.

    cost (A,n,S), demand (A,n) summing to 1. Every source starts at the target that is nearest
    after a price for each target (``_prices``), which is optimal for what the targets then hold.
    Successive shortest paths do the rest: mass moves from targets with too much to targets with
    too little along the cheapest path, a step from a to b costing the smallest
    cost[b,s] - cost[a,s] over the sources s held at a (Ahuja, Magnanti, Orlin 1993, section 9.7).
    Each round moves one path of every problem that still has surplus; good prices leave few.
    """
    num_atoms, num, num_samples = cost.shape
    # Altlocs that are all but alike leave sources for which two targets are equally far: prices
    # cannot part them, and they would move one by one.
    apart = torch.arange(1, num_samples + 1) * torch.arange(1, num_atoms + 1)[:, None].sqrt()
    cost = cost.double() + TIE_BREAK * apart.double().frac()[:, None]
    demand = demand.double()
    demand = demand / demand.sum(0)
    priced = cost - _prices(cost.float(), demand.float()).double()[..., None]
    nearest = priced.min(0).indices  # eight times as fast as argmin
    held = torch.zeros_like(cost).scatter_(0, nearest[None], 1.0 / num_samples)
    total = cost.new_zeros(num)
    number = torch.arange(num)
    while True:
        surplus = held.sum(2) - demand
        todo = surplus.clamp(min=0.0).sum(0) > MASS_TOLERANCE
        if todo.sum() <= KEPT_SHARE * len(todo):
            total[number] = (held * cost).sum((0, 2))
            if not todo.any():
                return total.float()
            number, surplus = number[todo], surplus[:, todo]
            cost, demand, held = cost[:, todo], demand[:, todo], held[:, todo]
        _move_along_cheapest_path(held, cost, surplus)


def _prices(cost: Tensor, demand: Tensor) -> Tensor:
    """(A,n) prices under which the targets attract about what they demand.

    Coordinate ascent on the dual: each target in turn takes the price at which it wins as many
    sources from the others as it demands, between those of the last winner and the first loser.
    """
    num_atoms, _, num_samples = cost.shape
    price = torch.zeros_like(demand)
    wins = (demand * num_samples).round().long().clamp(1, num_samples - 1)
    for _ in range(PRICE_SWEEPS):
        for a in range(num_atoms):
            others = (cost[b] - price[b, :, None] for b in range(num_atoms) if b != a)
            margin = _in_order(cost[a] - reduce(torch.minimum, others))
            place = torch.stack([wins[a] - 1, wins[a]], dim=1)  # the last winner, the first loser
            price[a] = margin.gather(1, place).mean(1)
    return price


def _move_along_cheapest_path(held: Tensor, cost: Tensor, surplus: Tensor) -> None:
    """One augmentation of each problem that has a surplus (A,n); held (A,n,S) in place."""
    num_atoms, num = surplus.shape
    rows = torch.arange(num)
    # What a target does not hold, it cannot give.
    own = torch.where(held > MASS_TOLERANCE / 1000, cost, -math.inf)
    cheapest = (cost - own[:, None]).min(3)  # from, to: (A,A,n)
    arc, source = (x.permute(2, 0, 1) for x in cheapest)
    arc.diagonal(dim1=1, dim2=2).fill_(math.inf)
    # Bellman-Ford from all surplus targets; arcs may be negative, cycles never are.
    start = surplus.T > MASS_TOLERANCE / 100
    reach = torch.where(start, 0.0, math.inf).to(arc.dtype)
    before = torch.full(reach.shape, -1, dtype=torch.long)
    for _ in range(num_atoms - 1):
        through, via = (reach[:, :, None] + arc).min(1)
        better = through < reach - 1e-12
        reach = torch.where(better, through, reach)
        before = torch.where(better, via, before)
    end = reach.masked_fill(~(surplus.T < -MASS_TOLERANCE / 100), math.inf).argmin(1)
    # Walk back: the amount is limited by both ends and by each source on the way.
    amount = -surplus[end, rows]
    path = []
    at = end
    for _ in range(num_atoms - 1):
        origin = before[rows, at]
        step = origin >= 0
        from_atom = origin.clamp(min=0)
        which = source[rows, from_atom, at]
        limit = held[from_atom, rows, which]
        amount = torch.where(step, torch.minimum(amount, limit), amount)
        path.append((step, which, from_atom, at))
        at = torch.where(step, from_atom, at)
    amount = torch.minimum(amount, surplus[at, rows])
    for step, which, from_atom, to_atom in path:
        change = torch.where(step, amount, 0.0)
        held.index_put_((from_atom, rows, which), -change, accumulate=True)
        held.index_put_((to_atom, rows, which), change, accumulate=True)
