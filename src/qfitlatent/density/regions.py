"""What the points of a density say of it: highest-density regions, and how often two draws differ.

Shapes: N residues, M observed rows (residue x altloc), D chi, S points, R of them.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from qfitlatent.density.protocol import Density
from qfitlatent.density.quantiles import Points

PARTNERS = 128
"""Points that all points are compared with: the first 128 fill the density evenly, too."""

_PAIR_BLOCK = 1 << 18
"""Pairs of points held at once."""


@torch.no_grad()
def hdr_level(
    density: Density,
    points: Points,
    chi: Tensor,
    defined: Tensor,
    rows: Tensor,
    own: Tensor | None = None,
) -> Tensor:
    """(M,) probability mass of the region denser than each observed chi (M,D).

    A chi lies inside its residue's highest-density region of mass p where this is below p. points
    are those of the density; defined (M,D), rows (M,) long; own (M,) log densities of chi where
    they are known. A row with a chi missing is judged by the density of those it has, so that its
    residue's points are weighed again without it.
    """
    used = defined & density.chi_mask[rows]
    own = density.log_prob(chi, used, rows) if own is None else own
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

    All points against ``PARTNERS`` of them. Angles are 16-bit parts of their period, half a circle
    where chi is pi-symmetric, and to 1e-4 radians: the difference of two is the shorter way round
    because integers overflow, and a pair takes a tenth of the time of its cosine.
    """
    part = torch.where(density.symmetric, 2.0, 1.0) / (2.0 * math.pi)  # (N,D)
    # Even numbers, and odd ones for the partners: the difference whose absolute value is too large
    # for 16 bits is even.
    chi = points.chi.permute(1, 2, 0).contiguous()
    even = 2 * (chi * (part[..., None] * 2**15)).round().int()
    ours, partners = even.short(), (even[..., :PARTNERS] + 1).short()  # (N,D,S), (N,D,R)
    allowed = (limit * part * 2**16).round().short()
    num_points, num_partners = ours.shape[2], partners.shape[2]
    num_near = []
    for block in _slices(len(density), max(1, _PAIR_BLOCK // (num_points * num_partners))):
        a, b, most = ours[block], partners[block], allowed[block]
        excess = a.new_full((len(a), num_points, num_partners), -1)
        difference = torch.empty_like(excess)
        for d in density.chi_mask[block].any(0).nonzero()[:, 0].tolist():
            torch.sub(a[:, d, :, None], b[:, d, None], out=difference)
            difference.abs_().sub_(most[:, d, None, None])
            torch.maximum(excess, difference, out=excess)
        num_near.append(excess.le_(0).sum(2, dtype=torch.short).sum(1))
    return 1.0 - torch.cat([*num_near, ours.new_zeros(0)]) / float(num_points * num_partners)


def _slices(num: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, num, size))
