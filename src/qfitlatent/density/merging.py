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
from qfitlatent.density.von_mises import KAPPA_MAX, kappa_of_resultant, wrap

MERGE_DEVIATIONS, MERGE_RATIO = 1.5, 2.5
"""Components are merged within so many standard deviations and up to this ratio of their kappa."""

NODES = 2048
"""Of a table, even in a logarithm: interpolation is right to 1e-5 of the value."""


@cache
def _of_lack() -> Tensor:
    """(NODES,) kappa by -log(1 - A)."""
    fall = torch.linspace(0.0, math.log(2.2 * KAPPA_MAX), NODES, dtype=torch.float64)
    return kappa_of_resultant(-torch.expm1(-fall), steps=20).float()


def resultant_and_log_i0e(kappa: Tensor) -> tuple[Tensor, Tensor]:
    """A(kappa) and log(I0(kappa) exp(-kappa)), elementwise."""
    return 1.0 + bessel_ratio_minus_one(kappa), log_i0e_of(kappa)


def kappa_of(resultant: Tensor) -> Tensor:
    """kappa with A(kappa) = resultant, elementwise, at most ``KAPPA_MAX``; to 1e-5 of it."""
    fall = -torch.log1p(-resultant.clamp(max=1.0 - 1e-7))
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
    multiple = times(symmetric)
    angle, width = mean * multiple, kappa / multiple.square()
    length, _ = resultant_and_log_i0e(width)
    cos, sin = angle.cos(), angle.sin()
    left: tuple[Tensor, ...] = (weight, width, cos, sin, length * cos, length * sin, least)
    rows = torch.arange(len(weight), device=weight.device)
    size, x, y = weight.new_zeros((3, len(weight), num + 1))
    only = torch.full(size.shape, -1, device=weight.device)  # of which there is no other
    for part in range(num + 1):
        has = left[0].amax(1) > 0
        if not has.all():
            rows, left = rows[has], tuple(values[has] for values in left)
        if not len(rows):
            break
        rest, width, cos, sin, east, north, lightest = left
        heaviest, at = rest.max(dim=1, keepdim=True)
        own = width.gather(1, at)
        # 1 - cos of the distance is half its square: a component 90 degrees off is far.
        apart = 1.0 - cos * cos.gather(1, at) - sin * sin.gather(1, at)
        taken = apart * own <= 0.5 * MERGE_DEVIATIONS**2
        taken &= (width <= MERGE_RATIO * own) & (own <= MERGE_RATIO * width)
        taken.scatter_(1, at, True)
        taken |= (heaviest < lightest) | (part == num)
        share = rest * taken
        size[rows, part] = share.sum(1)
        x[rows, part], y[rows, part] = (share * east).sum(1), (share * north).sum(1)
        only[rows, part] = torch.where((share > 0).sum(1) == 1, at[:, 0], -1)
        left = (rest - share, *left[1:])
    used = max(1, int((size > 0).any(0).sum()))
    size, x, y, only = (values[:, :used] for values in (size, x, y, only))
    length = torch.hypot(x, y) / size.clamp(min=torch.finfo(size.dtype).tiny)
    merged = kappa_of(length) * multiple.square()
    turned = wrap(torch.atan2(y, x) / multiple)
    alone, at = only >= 0, only.clamp(min=0)
    return (
        size,
        torch.where(alone, mean.gather(1, at), turned),
        torch.where(alone, kappa.gather(1, at), merged),
    )
