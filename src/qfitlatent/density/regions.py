"""Highest-density regions, from draws: the calibration of SPEC 8.

Shapes: N residues, M observed rows (residue x altloc), D chi, S samples.
"""

import torch
from torch import Tensor

from qfitlatent.density.protocol import Density


@torch.no_grad()
def hdr_level(
    density: Density,
    samples: Tensor,
    log_samples: Tensor,
    chi: Tensor,
    defined: Tensor,
    rows: Tensor,
) -> Tensor:
    """(M,) probability mass of the region denser than each observed chi (M,D).

    A chi lies inside its residue's highest-density region of mass p where this is below p. samples
    (S,N,D) and log_samples (S,N) are ``density.sample_with_log_prob``; defined (M,D), rows (M,)
    long. A row with a chi missing is judged by the density of those it has, so that its residue's
    draws are weighed again without it.
    """
    used = defined & density.chi_mask[rows]
    own = density.log_prob(chi, used, rows)
    level = (log_samples[:, rows] > own).to(own.dtype).mean(0)
    partial = torch.nonzero((used != density.chi_mask[rows]).any(1))[:, 0]
    if len(partial):
        at = rows[partial]
        again = density.select(at).sample_log_prob(samples[:, at], used[partial])
        level[partial] = (again > own[partial]).to(own.dtype).mean(0)
    return level
