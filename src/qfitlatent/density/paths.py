"""A density that goes chi by chi, as one mixture: its heaviest component paths.

The path (k1, .., kD) has weight prod_d pi_dkd and the means and concentrations that it meets on its
way, each conditional being that at the means of the components before it. That of the last chi, if
it is chi2 or chi3, is taken at several points within the component before: where it depends on
which, that component is split into narrower ones (the chi2 of a ring follows its chi1); elsewhere
the conditionals are merged into one that is as wide as all of them together. Paths that are given
up are not lost: those of a residue in one rotamer of chi1 and chi2 stand as one component.

Shapes: N residues, P paths of all residues, Q points of a component, K components of a chi, D chi.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from qfitlatent.chemistry.residues import NUM_CHI_MAX
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.density.protocol import Head
from qfitlatent.density.von_mises import (
    bessel_ratio_minus_one,
    kappa_of_resultant,
    log_sum_exp,
    log_von_mises,
    merge_components,
    wrap,
)

BEAM_WIDTH = 96
"""Component paths of a residue that are kept."""

RESIDUES_AT_A_TIME = 256
"""So that the memory of all their paths does not grow with the structure."""

STEP_COMPONENTS = 12
"""Components of one chi after merging: an average has many that are all but the same."""

NEGLIGIBLE = 1e-4
"""Share of the heaviest component path below which another is not followed."""

POINTS = (-2.4, -1.8, -1.2, -0.6, 0.0, 0.6, 1.2, 1.8, 2.4)
"""Where a component is split, in its standard deviations."""

POINT_WEIGHTS = (0.0094, 0.0400, 0.1126, 0.2093, 0.2574, 0.2093, 0.1126, 0.0400, 0.0094)
"""A normal distribution's, so that the parts together are as wide as the whole."""

NARROWER = 0.397
"""Standard deviation of a part, in those of the whole."""

MIN_SPLIT_KAPPA = 1.0
"""A wider component is no bell that parts could make up."""

SPLIT_BEFORE = (1, 2)
"""Last chi, from 0, before which components are split: a fourth costs much and gains nothing."""

NUM_CELLS = 3
"""Rotamers of a chi, by which paths that are given up are put together."""

MAX_RESULTANT = 1.0 - 1e-4
"""Of such paths: a concentration of 5,000."""

MIN_INFORMATION = 1e-2
"""Nats, weighed by the path, that a split has to save."""


class Paths(NamedTuple):
    """P paths of all residues; mean and kappa (P,D), of chi that a path has not reached 0."""

    residue: Tensor  # (P,) long
    weight: Tensor  # (P,) logarithm
    mean: Tensor
    kappa: Tensor

    def take(self, at: Tensor) -> Paths:
        return Paths(*(values[at] for values in self))


def as_mixture(
    head: Head, own: Sequence[Tensor], chi_mask: Tensor, symmetric: Tensor
) -> VonMisesMixture:
    """The paths as a mixture; own (D) tensors (N,hidden) as the density slices them.

    The last component is flat (kappa = 0): what was too light for a component of its own.
    """
    blocks = torch.arange(len(chi_mask), device=chi_mask.device).split(RESIDUES_AT_A_TIME)
    parts = []
    for rows in blocks:
        some = _paths(head, [x[rows] for x in own], chi_mask[rows], symmetric[rows])
        parts.append(some._replace(residue=rows[some.residue]))
    every = Paths(*(torch.cat(x) for x in zip(*parts, strict=True)))
    return _padded(every, chi_mask, symmetric)


def _paths(head: Head, own: Sequence[Tensor], chi_mask: Tensor, symmetric: Tensor) -> Paths:
    """Those of N residues, sorted, and behind them what was given up, by rotamer."""
    num, like = len(chi_mask), own[0]
    paths = Paths(
        torch.arange(num, device=like.device),
        like.new_zeros(num),
        like.new_zeros((num, NUM_CHI_MAX)),
        like.new_full((num, NUM_CHI_MAX), head.kappa_min),
    )
    given_up: list[Paths] = []
    after = torch.cat([chi_mask[:, 1:], torch.zeros_like(chi_mask[:, :1])], dim=1)
    for d in range(NUM_CHI_MAX):
        longer, last = (mask[paths.residue, d] for mask in (chi_mask, ~after))
        split = longer & last & (d in SPLIT_BEFORE)
        parts = [paths.take(~longer)]
        for at, step in ((longer & ~split, _at_the_mean), (split, _within)):
            if at.any():
                parts += step(head, own[d], d, paths.take(at), chi_mask, symmetric)
        joined = Paths(*(torch.cat(x) for x in zip(*parts, strict=True)))
        paths, others = _heaviest(joined, num)
        given_up.append(others)
    rest = _by_rotamer(Paths(*(torch.cat(x) for x in zip(*given_up, strict=True))), num)
    every = Paths(*(torch.cat(x) for x in zip(paths, rest, strict=True)))
    return _sorted(every)


def _at_the_mean(
    head: Head, own: Tensor, d: int, paths: Paths, chi_mask: Tensor, symmetric: Tensor
) -> list[Paths]:
    """Paths by one chi longer, its conditional being that at the means before."""
    at = paths.residue
    step = head.step(d, own[at], paths.mean[:, :d], chi_mask[at, :d])
    children = _merged(*step, symmetric[at, d, None])
    return [_longer(paths, d, children)]


def _within(
    head: Head, own: Tensor, d: int, paths: Paths, chi_mask: Tensor, symmetric: Tensor
) -> list[Paths]:
    """Paths by their last chi longer, its conditional being that at points of the one before."""
    at, num_points = paths.residue, len(POINTS)
    wide = paths.kappa[:, d - 1]
    can = wide >= MIN_SPLIT_KAPPA
    deviation = torch.where(can, wide.clamp(min=MIN_SPLIT_KAPPA).rsqrt(), 0.0)
    point = wrap(paths.mean[:, d - 1, None] + deviation[:, None] * wide.new_tensor(POINTS))
    chi = paths.mean[:, None, :d].repeat(1, num_points, 1)
    chi[..., d - 1] = point
    of = at.repeat_interleave(num_points)
    step = head.step(d, own[of], chi.flatten(0, 1), chi_mask[of, :d])
    share = wide.new_tensor(POINT_WEIGHTS)
    log_weight, mean, kappa = (x.unflatten(0, (-1, num_points)) for x in step)
    pooled = _merged(
        (log_weight + share.log()[:, None]).flatten(1),
        mean.flatten(1),
        kappa.flatten(1),
        symmetric[at, d, None],
    )
    each = [x.unflatten(0, (-1, num_points)) for x in _merged(*step, symmetric[of, d, None])]
    gain = _information(share, each, pooled, symmetric[at, d])
    split = can & (paths.weight.exp() * gain > MIN_INFORMATION)

    whole = _longer(paths.take(~split), d, [x[~split] for x in pooled])
    parents = paths.take(split)
    kept = parents.mean[:, None].repeat(1, num_points, 1)
    kept[..., d - 1] = point[split]
    narrow = parents.kappa[:, None].repeat(1, num_points, 1)
    narrow[..., d - 1] /= NARROWER**2
    parts = Paths(
        parents.residue.repeat_interleave(num_points),
        (parents.weight[:, None] + share.log()).flatten(),
        kept.flatten(0, 1),
        narrow.flatten(0, 1),
    )
    return [whole, _longer(parts, d, [x[split].flatten(0, 1) for x in each])]


def _information(
    share: Tensor, each: Sequence[Tensor], pooled: Sequence[Tensor], symmetric: Tensor
) -> Tensor:
    """(P,) nats that a chi's conditional tells of the point it is taken at.

    A mean over the means of the components: of the log density at each point (weight, mean and
    kappa (P,Q,K)) less that of all points together (P,K).
    """
    weight, mean, _ = each
    symmetric = symmetric[:, None, None, None]
    x = mean[..., None]
    tiny = torch.finfo(weight.dtype).tiny

    def log_density(weight: Tensor, mean: Tensor, kappa: Tensor) -> Tensor:
        kernel = log_von_mises(x - mean, kappa, symmetric)
        return log_sum_exp(weight.clamp(min=tiny).log() + kernel)

    own = log_density(*(values[:, :, None, :] for values in each))
    every = log_density(*(values[:, None, None, :] for values in pooled))
    return (share[:, None] * weight * (own - every)).sum((1, 2))


def _merged(log_weight: Tensor, mean: Tensor, kappa: Tensor, symmetric: Tensor) -> list[Tensor]:
    """Weight, mean and kappa of at most ``STEP_COMPONENTS``, alike ones merged."""
    return list(
        merge_components(log_weight.exp(), mean, kappa, symmetric, STEP_COMPONENTS, NEGLIGIBLE)
    )


def _longer(paths: Paths, d: int, children: Sequence[Tensor]) -> Paths:
    """Each path once for each of its children (P,K) in chi d."""
    weight, mean, kappa = children
    num = weight.shape[1]
    means, kappas = (x[:, None].repeat(1, num, 1) for x in (paths.mean, paths.kappa))
    means[..., d], kappas[..., d] = mean, kappa
    return Paths(
        paths.residue.repeat_interleave(num),
        (paths.weight[:, None] + weight.log()).flatten(),
        means.flatten(0, 1),
        kappas.flatten(0, 1),
    )


def _sorted(paths: Paths) -> Paths:
    """Residue after residue, the heaviest path first."""
    order = paths.weight.argsort(descending=True, stable=True)
    return paths.take(order[paths.residue[order].argsort(stable=True)])


def _heaviest(paths: Paths, num: int) -> tuple[Paths, Paths]:
    """At most ``BEAM_WIDTH`` paths a residue, without the negligible ones; and all the others."""
    paths = _sorted(paths.take(paths.weight.isfinite()))
    top = paths.weight.new_full((num,), -math.inf)
    top = top.scatter_reduce(0, paths.residue, paths.weight, "amax")
    kept = paths.weight >= top[paths.residue] + math.log(NEGLIGIBLE)
    kept &= _slot(paths, num) < BEAM_WIDTH
    return paths.take(kept), paths.take(~kept)


def _by_rotamer(paths: Paths, num: int) -> Paths:
    """One path for those of a residue in each of nine cells of chi1 and chi2, as wide as they are.

    Each chi has the mean resultant of theirs, 0 where they have not reached it.
    """
    turn = torch.remainder(paths.mean[:, :2], 2 * math.pi) / (2 * math.pi)
    cell = (turn * NUM_CELLS).long().clamp(max=NUM_CELLS - 1)
    group = (paths.residue * NUM_CELLS + cell[:, 0]) * NUM_CELLS + cell[:, 1]
    size = num * NUM_CELLS**2
    weight = paths.weight.exp()
    total = weight.new_zeros(size).index_add(0, group, weight)
    length = (1.0 + bessel_ratio_minus_one(paths.kappa)) * weight[:, None]
    east, north = (
        weight.new_zeros((size, NUM_CHI_MAX)).index_add(0, group, length * part)
        for part in (paths.mean.cos(), paths.mean.sin())
    )
    used = torch.nonzero(total > NEGLIGIBLE)[:, 0]
    east, north = (x[used] / total[used, None] for x in (east, north))
    resultant = torch.hypot(east, north).clamp(max=MAX_RESULTANT)
    return Paths(
        used // NUM_CELLS**2,
        total[used].log(),
        torch.atan2(north, east),
        kappa_of_resultant(resultant),
    )


def _slot(paths: Paths, num: int) -> Tensor:
    """(P,) number of each path within its residue, whose paths stand together."""
    count = torch.bincount(paths.residue, minlength=num)
    first = count.cumsum(0) - count
    return torch.arange(len(paths.residue), device=first.device) - first[paths.residue]


def _padded(paths: Paths, chi_mask: Tensor, symmetric: Tensor) -> VonMisesMixture:
    """(N,K+1) components, the last of which is flat."""
    num, slot = len(chi_mask), _slot(paths, len(chi_mask))
    width = int(slot.max()) + 1 if len(slot) else 1
    weight = paths.weight.new_full((num, width), -math.inf)
    mean, kappa = paths.mean.new_zeros((2, num, width + 1, NUM_CHI_MAX))
    at = paths.residue, slot
    weight[at], mean[at], kappa[at] = paths.weight, paths.mean, paths.kappa
    lost = 1.0 - weight.exp().sum(1, keepdim=True)
    lost = torch.where(lost > NEGLIGIBLE, lost, 0.0).log()
    log_weight = torch.cat([weight, lost], dim=1).log_softmax(1)
    return VonMisesMixture(log_weight, mean, kappa, chi_mask, symmetric)
