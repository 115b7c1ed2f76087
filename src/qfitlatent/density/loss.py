"""The loss of SPEC 7: occupancy-weighted negative log likelihood."""

import torch
from torch import Tensor

from qfitlatent.density.protocol import Density


def occupancy_nll(log_prob: Tensor, occupancy: Tensor, rows: Tensor, num_residues: int) -> Tensor:
    """(N,) -sum_a o_a log p_a of each residue; 0 for a residue without rows.

    log_prob (M,), occupancy (M,) normalised over a residue's rows, rows (M,) long.
    """
    zero = log_prob.new_zeros(num_residues)
    return zero.index_add(0, rows, -occupancy.to(log_prob.dtype) * log_prob)


def residue_weights(
    defined: Tensor,
    rows: Tensor,
    num_residues: int,
    single_weight: float = 0.0,
    multiconformer_weight: float = 1.0,
    several: Tensor | None = None,
) -> Tensor:
    """(N,) how much each residue counts in the loss; by default 1 in R of SPEC 7 and 0 outside.

    R: at least two observed altlocs, and at least one defined chi. several (N,) bool: the residues
    of multiconformer_weight where they are not those with two altlocs; the others with a chi have
    single_weight (option ``train_on: all``).
    """
    num_altlocs = torch.bincount(rows, minlength=num_residues)
    has_chi = torch.zeros_like(num_altlocs).index_add_(0, rows, defined.any(-1).long()) > 0
    several = num_altlocs >= 2 if several is None else several
    weight = torch.where(several, multiconformer_weight, single_weight)
    return torch.where(has_chi, weight, 0.0)


def nll_sum(
    density: Density,
    chi: Tensor,
    defined: Tensor,
    occupancy: Tensor,
    rows: Tensor,
    *,
    single_weight: float = 0.0,
    multiconformer_weight: float = 1.0,
    several: Tensor | None = None,
    folded: bool = True,
) -> tuple[Tensor, Tensor]:
    """Weighted sum over residues of the loss of SPEC 7, and the sum of the weights: two scalars.

    density over N residues; chi (M,D), defined (M,D), occupancy (M,) and rows (M,) long
    as in ``log_prob``; the weights are ``residue_weights``. Only rows that count are scored. The
    quotient of the two over several proteins or processes is the loss of all their residues
    together.
    """
    num_residues = len(density)
    weight = residue_weights(
        defined, rows, num_residues, single_weight, multiconformer_weight, several
    )
    used = weight[rows] > 0
    at = rows[used]
    log_prob = density.log_prob(chi[used], defined[used], at, folded=folded)
    nll = occupancy_nll(log_prob, occupancy[used], at, num_residues)
    weight = weight.to(nll.dtype)
    return (weight * nll).sum(), weight.sum()
