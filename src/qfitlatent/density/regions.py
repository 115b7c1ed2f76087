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

_RESIDUES_AT_ONCE = 512
"""Whose points a cache holds."""


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
    denser = points.log_prob.T.index_select(0, rows) > own[:, None]
    level = denser.to(own.dtype).mean(1)
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
    because integers overflow, and a pair takes a small part of the time of its cosine.
    """
    part = torch.where(density.symmetric, 2.0, 1.0).T * (2**16 / (2.0 * math.pi))  # (D,N)
    allowed = (limit * part).round().int().contiguous()
    num_near = []
    for block in _slices(len(density), _RESIDUES_AT_ONCE):
        num_chi = int(density.chi_mask[block].sum(1).max())
        # Each chi (S,n) by itself: torch is slow to turn round the last two of three axes.
        chi = [
            (points.chi[:, block, d].T * part[d, block, None]).round().int().short().T.contiguous()
            for d in range(num_chi)
        ]
        # Differences from -allowed to allowed, moved so that they begin at the smallest number.
        least = allowed[:num_chi, block]
        moved, end = (least - 2**15).short(), (2 * least - 2**15).short()
        ours = [of_chi + by for of_chi, by in zip(chi, moved, strict=True)]
        near = torch.zeros_like(ours[0])  # of which inside and too are one partner's
        inside, too = torch.empty_like(near), torch.empty_like(near)
        for r in range(min(len(near), PARTNERS)):
            torch.sub(ours[0], chi[0][r], out=inside).le_(end[0])
            for d in range(1, num_chi):
                inside &= torch.sub(ours[d], chi[d][r], out=too).le_(end[d])
            near += inside
        num_near.append(near.sum(0))
    num_pairs = len(points.chi) * min(len(points.chi), PARTNERS)
    return 1.0 - torch.cat([*num_near, part.new_zeros(0)]) / num_pairs


def _slices(num: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, num, size))
