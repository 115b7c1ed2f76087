"""The loss of SPEC 7: occupancy-weighted negative log likelihood."""

import torch
from torch import Tensor

from qfitlatent.density.protocol import Density


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
    residue_weight: Tensor | None = None,
    folded: bool = True,
) -> tuple[Tensor, Tensor]:
    """Weighted sum over residues of the loss of SPEC 7, and the sum of the weights: two scalars.

    density over N residues; chi (M,D), defined (M,D), occupancy (M,) normalised over a residue's
    rows, and rows (M,) long as in ``log_prob``. By default a residue weighs 1 in R of SPEC 7 and 0
    outside. several (N,) bool: the residues of multiconformer_weight where they are not those with
    two altlocs; the others with a chi have single_weight (option ``train_on: all``). residue_weight
    (N,), 1 in the mean over a data set, multiplies the loss of each residue and not the sum of the
    weights: where a batch is one protein, the weight of all its residues counts too. Only rows that
    count are scored. The quotient of the two over several proteins or processes is the loss of all
    their residues together.
    """
    num_altlocs = torch.bincount(rows, minlength=len(density))
    has_chi = torch.zeros_like(num_altlocs).index_add_(0, rows, defined.any(-1).long()) > 0
    several = num_altlocs >= 2 if several is None else several
    weight = torch.where(several, multiconformer_weight, single_weight)
    weight = torch.where(has_chi, weight, 0.0)
    factor = weight if residue_weight is None else weight * residue_weight

    used = factor[rows] > 0
    at = rows[used]
    log_prob = density.log_prob(chi[used], defined[used], at, folded=folded)
    # (N,) -sum_a o_a log p_a, 0 for a residue without rows
    nll = log_prob.new_zeros(len(density))
    nll = nll.index_add(0, at, -occupancy[used].to(log_prob.dtype) * log_prob)
    return (factor.to(nll.dtype) * nll).sum(), weight.to(nll.dtype).sum()
