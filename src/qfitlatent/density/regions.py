"""What the points of a density say of it: highest-density regions, and how often two draws differ.

Shapes: N residues, M observed rows (residue x altloc), D chi, S points, R of them.
"""

import math

import torch
from torch import Tensor

from qfitlatent.density.protocol import Density
from qfitlatent.density.quantiles import Points

PARTNERS = 256
"""Points that all points are compared with: the first 256 fill the density evenly, too."""

_PAIR_BLOCK = 1 << 20
"""Pairs of points held at once."""


@torch.no_grad()
def hdr_level(
    density: Density, points: Points, chi: Tensor, defined: Tensor, rows: Tensor
) -> Tensor:
    """(M,) probability mass of the region denser than each observed chi (M,D).

    A chi lies inside its residue's highest-density region of mass p where this is below p. points
    are those of the density; defined (M,D), rows (M,) long. A row with a chi missing is judged by
    the density of those it has, so that its residue's points are weighed again without it.
    """
    used = defined & density.chi_mask[rows]
    own = density.log_prob(chi, used, rows)
    level = (points.log_prob[:, rows] > own).to(own.dtype).mean(0)
    partial = torch.nonzero((used != density.chi_mask[rows]).any(1))[:, 0]
    if len(partial):
        at = rows[partial]
        again = density.select(at).sample_log_prob(points.chi[:, at], used[partial])
        level[partial] = (again > own[partial]).to(own.dtype).mean(0)
    return level


@torch.no_grad()
def differ_beyond(points: Points, density: Density, limit: float) -> Tensor:
    """(N,) probability that two draws differ by more than limit (radians, below pi/2) in some chi.

    All points against ``PARTNERS`` of them. The cosine of a difference is a matrix product, and
    two angles are near where it is large; where chi is pi-symmetric its sign does not matter.
    """
    cos, sin = (f(points.chi).permute(1, 2, 0) for f in (torch.cos, torch.sin))  # (N,D,S)
    num_points = cos.shape[2]
    num_partners = min(PARTNERS, num_points)
    apart = cos.new_zeros(len(density))
    size = max(1, _PAIR_BLOCK // (num_points * num_partners))
    for at in torch.arange(len(density), device=cos.device).split(size):
        near = torch.ones(len(at), num_points, num_partners, dtype=torch.bool, device=cos.device)
        for d in range(cos.shape[1]):
            if not density.chi_mask[at, d].any():
                continue
            ours = torch.stack([cos[at, d], sin[at, d]], dim=-1)  # (n,S,2)
            cosine = ours @ ours[:, :num_partners].mT
            turned = density.symmetric[at, d]
            if turned.any():
                cosine[turned] = cosine[turned].abs()
            near &= cosine >= math.cos(limit)
        apart[at] = 1.0 - near.flatten(1).sum(1) / float(num_points * num_partners)
    return apart
