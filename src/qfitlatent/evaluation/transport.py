"""Wasserstein-1 distances on the torus between observed altlocs and a density (SPEC 8).

Shapes: N residues, A altlocs of one residue, S samples.
"""

import itertools
import math
from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from qfitlatent.density.rows import Observed

MOST_ALTLOCS = 12
"""Residues with more have no distance: sets of altlocs, all of which are looked at, double with
each. The data set of the shipped model has five at most."""

TOLERANCE = 1e-7
"""Prices are the best when a round over all sets of targets gains no more than this."""


def wasserstein(distance: Tensor, observed: Observed) -> Tensor:
    """(N,) W1 between the S equally weighted samples and the observed altlocs, in radians.

    distance (M,S) is the ground metric: root mean square over chi of the circular distance,
    symmetry-aware. nan for a residue with more than ``MOST_ALTLOCS``.
    """
    out = torch.full((len(observed),), math.nan)
    for rows in observed.rows_by_number():
        if len(rows) <= MOST_ALTLOCS:
            found = transport_cost(distance[rows], observed.occupancy[rows])
            out[observed.row_residue[rows[0]]] = found
    return out


def transport_cost(cost: Tensor, demand: Tensor) -> Tensor:
    """(n,) optimal transport cost, to 1e-6, of S equal sources to A targets, many problems at once.

    cost (A,n,S); demand (A,n), of which a problem's sum is made 1. The optimum is the largest value
    of the dual: every target gets a price, sources go where cost less price is smallest, and the
    value is their mean of that plus the prices by demand. It is L-concave in the prices (Murota
    2003, chapter 7): where it does not grow as the targets of any set become dearer together, it
    is largest. So each set in turn is taken to its best price, until a round gains nothing; of a
    hundred problems the last is solved in about six. Solved ones are put aside.
    """
    num_targets, num, _ = cost.shape
    left = cost.numpy().copy()  # cost less price
    share = (demand / demand.sum(0)).double().numpy()
    price, last, total = np.zeros(share.shape), np.full(num, -math.inf), np.empty(num)
    number = np.arange(num)
    while len(number):
        # A set and all the others do the same: the last target keeps its price.
        for size in range(1, num_targets):
            for dearer in itertools.combinations(range(num_targets - 1), size):
                _find_best_price(left, price, share, dearer)
        value = (price * share).sum(0) + left.min(0).mean(1, dtype=float)
        total[number] = value
        if num_targets < 3:  # there is no set, or one
            break
        todo = value - last > TOLERANCE
        number, last = number[todo], value[todo]
        left, price, share = left[:, todo], price[:, todo], share[:, todo]
    return torch.from_numpy(total).float()


def _find_best_price(
    left: np.ndarray, price: np.ndarray, share: np.ndarray, dearer: Sequence[int]
) -> None:
    """Change the price of these targets together to where the dual is largest, all in place.

    They then win as many sources from the others as they demand: those of smallest margin.
    """
    others = [a for a in range(len(left)) if a not in dearer]
    ours, theirs = (reduce(np.minimum, [left[a] for a in side]) for side in (dearer, others))
    margin = np.sort(ours - theirs, axis=1)
    num_won = (share[list(dearer)].sum(0) * margin.shape[1]).astype(int)
    num_won = np.minimum(num_won, margin.shape[1] - 1)
    change = np.take_along_axis(margin, num_won[:, None], axis=1)
    for a in dearer:
        left[a] -= change
        price[a] += change[:, 0]
