"""Components of one angle that are alike, as one.

A component is kept by its mean resultant, A(kappa) (cos mu, sin mu), which adds up: what several
have together is that of the one that takes their place. Of a pi-symmetric chi it is that of twice
the angle, in which a kernel at mu and its half turn are one, with a quarter of the concentration.

Shapes: R mixtures of one angle, T components, J of them after merging. Radians.
"""

import math
from functools import cache

import torch
from torch import Tensor

from qfitlatent.density.bessel import bessel_ratio_minus_one, log_i0e_of
from qfitlatent.density.von_mises import KAPPA_MAX, kappa_of_resultant, log_one_and, wrap

MERGE_DEVIATIONS, MERGE_RATIO = 1.5, 2.5
"""Components are merged within so many standard deviations and up to this ratio of their kappa."""

FEW = 0.6
"""Mixtures that are done are left out once so small a share of them is left."""

NODES = 2048
"""Of a table, even in a logarithm: interpolation is right to 1e-5 of the value."""


@cache
def _of_lack() -> Tensor:
    """(NODES,) kappa by -log(1 - A)."""
    fall = torch.linspace(0.0, math.log(2.2 * KAPPA_MAX), NODES, dtype=torch.float64)
    return kappa_of_resultant(-torch.expm1(-fall), steps=20).float()


def resultant_of(kappa: Tensor) -> Tensor:
    """A(kappa), elementwise."""
    return 1.0 + bessel_ratio_minus_one(kappa)


def resultant_and_log_i0e(kappa: Tensor) -> tuple[Tensor, Tensor]:
    """A(kappa) and log(I0(kappa) exp(-kappa)), elementwise."""
    return resultant_of(kappa), log_i0e_of(kappa)


def kappa_of(resultant: Tensor) -> Tensor:
    """kappa with A(kappa) = resultant, elementwise, at most ``KAPPA_MAX``; to 1e-5 of it."""
    fall = -log_one_and(-resultant.clamp(max=1.0 - 1e-7))
    place = (fall * ((NODES - 1) / math.log(2.2 * KAPPA_MAX))).clamp(0.0, NODES - 1.001)
    node, table = place.long(), _of_lack().to(place)
    lower, upper = table.take(node), table.take(node + 1)
    return torch.lerp(lower, upper, place - node)


def times(symmetric: Tensor) -> Tensor:
    """2 where pi-symmetric, else 1: by what angles are multiplied, for half turns to be one."""
    return 1.0 + symmetric.float()


def merge_components(
    weight: Tensor,
    mean: Tensor,
    kappa: Tensor,
    symmetric: Tensor,
    least: Tensor,
    num: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Alike components of one angle as one: weight, mean, kappa (R,J), J <= num + 1, from (R,T).

    The heaviest takes those near it and about as wide, keeping their mean resultant; then the
    heaviest of those left does. What is left after the ``num``-th, or from where all are lighter
    than least (R,1), stands as one. symmetric (R,1) bool.
    """
    # One mixture after the other along the last dimension: sums over T are sums of long vectors.
    multiple = times(symmetric).T
    weight, mean, kappa, least = (x.T.contiguous() for x in (weight, mean, kappa, least))
    angle, width = mean * multiple, kappa / multiple.square()
    length = resultant_of(width)
    width = width.clamp(min=torch.finfo(width.dtype).tiny)
    # 1 - cos of the distance is half its square: a component 90 degrees off is far.
    nearest = 1.0 - 0.5 * MERGE_DEVIATIONS**2 / width
    cos, sin = angle.cos(), angle.sin()
    rest, *left = weight, width.log(), nearest, cos, sin, length * cos, length * sin, least
    rows = torch.arange(weight.shape[1], device=weight.device)
    size, x, y = weight.new_zeros((3, num + 1, len(rows)))
    only = torch.full(size.shape, -1, device=weight.device)  # of which there is no other
    for part in range(num + 1):
        heaviest, at = rest.max(dim=0, keepdim=True)
        has = torch.nonzero(heaviest[0] > 0)[:, 0]
        if not len(has):
            break
        if len(has) < FEW * len(heaviest[0]):
            rows, rest, heaviest, at = (v.index_select(-1, has) for v in (rows, rest, heaviest, at))
            left = [v.index_select(1, has) for v in left]
        log_width, nearest, cos, sin, east, north, lightest = left
        near = torch.addcmul(cos * cos.gather(0, at), sin, sin.gather(0, at))
        taken = near >= nearest.gather(0, at)
        taken &= (log_width - log_width.gather(0, at)).abs_() <= math.log(MERGE_RATIO)
        taken.scatter_(0, at, True)
        taken |= (heaviest < lightest) | (part == num)
        share = rest * taken
        total = share.sum(0)
        size[part].index_copy_(0, rows, total)
        x[part].index_copy_(0, rows, (share * east).sum(0))
        y[part].index_copy_(0, rows, (share * north).sum(0))
        only[part].index_copy_(0, rows, torch.where(total == heaviest[0], at[0], -1))
        rest = rest - share
    used = max(1, int((size > 0).any(1).sum()))
    size, x, y, only = (values[:used] for values in (size, x, y, only))
    length = torch.hypot(x, y) / size.clamp(min=torch.finfo(size.dtype).tiny)
    merged = kappa_of(length) * multiple.square()
    turned = wrap(torch.atan2(y, x) / multiple)
    alone, at = only >= 0, only.clamp(min=0)
    return (
        size.T,
        torch.where(alone, mean.gather(0, at), turned).T,
        torch.where(alone, kappa.gather(0, at), merged).T,
    )
