"""Component paths of residues, and fewer of them in the place of many.

Shapes: N residues, P paths of all residues, L light and H heavy ones, D chi.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from qfitlatent.density.merging import kappa_of, resultant_and_log_i0e, times
from qfitlatent.density.von_mises import wrap

OWN_WEIGHT = 5e-4
"""A lighter path is not kept as it is, however few a residue has."""

COMPARED_WEIGHT = 2e-4
"""A lighter path is not compared with others."""

MAX_DIVERGENCE = 3.0
"""Nats: a path joins no other from which it diverges more."""

NUM_CELLS = 3
"""Rotamers of a chi."""


class Paths(NamedTuple):
    """P paths of all residues; mean and kappa (P,D), of chi that a path has not reached 0."""

    residue: Tensor  # (P,) long
    weight: Tensor  # (P,) logarithm
    mean: Tensor
    kappa: Tensor

    def take(self, at: Tensor) -> Paths:
        """The paths at (n,) long, or where at (P,) bool."""
        if at.dtype == torch.bool:
            at = torch.nonzero(at)[:, 0]
        return Paths(*(values.index_select(0, at) for values in self))


def joined(parts: Sequence[Paths]) -> Paths:
    """The paths of all parts."""
    return Paths(*(torch.cat(values) for values in zip(*parts, strict=True)))


def in_order(paths: Paths) -> tuple[Paths, Tensor]:
    """Residue after residue, the heaviest path first; (P,) the number of each in its residue."""
    # A logarithm of a weight is between -64 and 0: what is lighter underflowed.
    order = (paths.residue * 64.0 - paths.weight.double()).argsort(stable=True)
    paths = paths.take(order)
    count = torch.bincount(paths.residue)
    first = count.cumsum(0) - count
    number = torch.arange(len(paths.residue), device=first.device)
    return paths, number - first[paths.residue]


def reduced(paths: Paths, size: int, symmetric: Tensor) -> Paths:
    """At most ``size`` paths of a residue, and a few for what is far from all of these.

    A lighter path joins the heavy one from which it diverges least, which becomes as wide as both
    (Goldberger and Roweis, NIPS 17 (2004) 505). One that diverges much from all, or is too light to
    be compared, goes with those in its rotamer. symmetric (N,D) bool.
    """
    paths, number = in_order(paths)
    heavy = (number < size) & (paths.weight > math.log(OWN_WEIGHT)) | (number == 0)
    if heavy.all():
        return paths
    multiple = times(symmetric[paths.residue])
    angle, width = paths.mean * multiple, paths.kappa / multiple.square()
    length, log_norm = resultant_and_log_i0e(width)
    cos, sin = angle.cos(), angle.sin()
    moment = torch.cat([length * cos, length * sin], dim=1)
    norm = (log_norm + width).sum(1)

    light = torch.nonzero(~heavy)[:, 0]
    of = torch.arange(len(number), device=number.device)
    of[light] = len(number) + _rotamer(paths.take(light))
    light = light[paths.weight[light] > math.log(COMPARED_WEIGHT)]
    if len(light):
        kept = torch.nonzero(heavy)[:, 0]
        natural = torch.cat([width * cos, width * sin], dim=1)[kept]
        nearest, log_density = _nearest(
            (paths.residue[light], moment[light]), (paths.residue[kept], natural, norm[kept])
        )
        divergence = (width * length).sum(1)[light] - norm[light] - log_density
        near = divergence < MAX_DIVERGENCE
        of[light[near]] = kept[nearest[near]]
    return _together(paths, of, moment, symmetric)


def _nearest(
    light: tuple[Tensor, Tensor], heavy: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """(L,) the heavy path of the same residue that is likeliest by the light; that log density.

    light: residue and moment (L,2D); heavy: residue, natural parameters (H,2D) and log norm. Both
    stand residue after residue.
    """
    residue, num_light = light[0].unique_consecutive(return_counts=True)
    start = torch.searchsorted(heavy[0], residue).tolist()
    end = torch.searchsorted(heavy[0], residue, right=True).tolist()
    nearest, log_density = [], []
    for moment, first, last in zip(light[1].split(num_light.tolist()), start, end, strict=True):
        score = torch.addmm(-heavy[2][first:last], moment, heavy[1][first:last].T)
        best, at = score.max(dim=1)
        nearest.append(at + first)
        log_density.append(best)
    return torch.cat(nearest), torch.cat(log_density)


def _rotamer(paths: Paths) -> Tensor:
    """(P,) long, the same for paths of one residue in the same rotamer of every chi."""
    cell = torch.remainder(paths.mean, 2 * math.pi) * (NUM_CELLS / (2 * math.pi))
    number = paths.residue
    for one in cell.long().clamp(max=NUM_CELLS - 1).unbind(1):
        number = number * NUM_CELLS + one
    return number


def _together(paths: Paths, of: Tensor, moment: Tensor, symmetric: Tensor) -> Paths:
    """One path for those with the same number ``of`` (P,), with their mean moment (P,2D)."""
    group, of = of.unique(return_inverse=True)
    weight = paths.weight.exp()
    total = weight.new_zeros(len(group)).index_add(0, of, weight)
    sums = moment.new_zeros((len(group), moment.shape[1]))
    east, north = sums.index_add(0, of, moment * weight[:, None]).chunk(2, dim=1)
    residue = torch.zeros_like(group).index_copy(0, of, paths.residue)
    multiple = times(symmetric[residue])
    mean = wrap(torch.atan2(north, east) / multiple)
    kappa = kappa_of(torch.hypot(east, north) / total[:, None]) * multiple.square()
    return Paths(residue, total.log(), mean, kappa)
