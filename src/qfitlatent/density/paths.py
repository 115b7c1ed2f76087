"""A density that goes chi by chi, as one mixture: its component paths.

The path (k1, .., kD) has weight prod_d pi_dkd and the means and concentrations that it meets on its
way, each conditional being that at the means of the components before it. That this holds within a
component too, and not at its mean alone, one that another chi follows is made narrow: a wide one
becomes kernels round the circle, and the heavier a path, the more parts the component that it has
come to is divided into. Paths that are too many are put together (``reduction.py``): no mass is
lost on the way.

Shapes: N residues, P paths of all residues, K components of a chi, D chi.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from qfitlatent.chemistry.residues import NUM_CHI_MAX
from qfitlatent.density.merging import merge_components
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.density.protocol import Head
from qfitlatent.density.reduction import Paths, in_order, joined, reduced
from qfitlatent.density.von_mises import exp_of_share, wrap

RESIDUES_AT_A_TIME = 256
"""So that the memory of all their paths does not grow with the structure."""

SIZES = (13, 96, 256, 420)
"""Paths of a residue with one chi, two, three, four: what its mixture has at most, but for a few
broad ones. These sizes and the numbers below were chosen on validation entries, for the loss of
the shipped model's mixture against its time and its size (``benchmarks/written_mixture.py``)."""

BEAM = (16, 48, 128)
"""Paths with one chi, two, three that are followed to the next chi, before they are divided."""

PARTS = ((0.1, 5), (0.005, 3))
"""From a path's weight on, into how many parts its component is divided where two chi follow."""

PARTS_BEFORE_LAST = ((0.2, 13), (0.03, 9), (0.007, 3))
"""The same where one chi follows: the chi2 of a ring is all but given by its chi1."""

SPACING_AND_WIDTH = {3: (1.15, 0.7), 5: (1.0, 0.5), 9: (0.7, 0.3), 13: (0.5, 0.22)}
"""Of so many parts, in standard deviations of the whole."""

NUM_COMPONENTS, NUM_LAST_COMPONENTS = 8, 7
"""Components of a chi after merging: that another follows, and that none does."""

LEAST_WEIGHT = 7e-5
"""Components with which a path would be lighter stand as one."""

WIDTH = math.radians(11.0)
"""Standard deviation of the kernels that a wide component becomes."""

WIDE = 1.2
"""A component is wide from so many widths on."""

SPACING = 1.4
"""Of these kernels round the circle, in widths, at most."""

FLAT = 1e-4
"""Weight of the flat component: no place has no density."""


def as_mixture(
    head: Head, own: Sequence[Tensor], chi_mask: Tensor, symmetric: Tensor
) -> VonMisesMixture:
    """The paths as a mixture; own (D) tensors (N,hidden) as the density slices them.

    The last component of a residue is flat (kappa = 0).
    """
    blocks = torch.arange(len(chi_mask), device=chi_mask.device).split(RESIDUES_AT_A_TIME)
    parts = []
    for rows in blocks:
        paths = _paths(head, [x[rows] for x in own], chi_mask[rows].sum(1), symmetric[rows])
        parts.append(paths._replace(residue=rows[paths.residue]))
    return _padded(joined(parts), chi_mask, symmetric)


def _paths(head: Head, own: Sequence[Tensor], num_chi: Tensor, symmetric: Tensor) -> Paths:
    """The paths of residues with num_chi (N,) chi."""
    num, like = len(num_chi), own[0]
    paths = Paths(
        torch.arange(num, device=like.device),
        like.new_zeros(num),
        like.new_zeros((num, NUM_CHI_MAX)),
        like.new_full((num, NUM_CHI_MAX), head.kappa_min),
    )
    ended = []
    for d in range(NUM_CHI_MAX):
        longer = num_chi[paths.residue] > d
        ended.append(paths.take(~longer))
        paths = paths.take(longer)
        if not len(paths.residue):
            break
        at = paths.residue
        known = torch.ones((len(at), d), dtype=torch.bool, device=at.device)
        step = head.step(d, own[d].index_select(0, at), paths.mean[:, :d], known)
        last = num_chi[at] == d + 1
        parts = []
        if last.any():
            parts.append(_ended(paths.take(last), d, [x[last] for x in step], symmetric))
        if not last.all():
            parts += _continued(paths.take(~last), d, [x[~last] for x in step], num_chi)
        paths = joined(parts)
    return joined([*ended, paths])


def _ended(paths: Paths, d: int, step: Sequence[Tensor], symmetric: Tensor) -> Paths:
    """Paths by their last chi longer."""
    log_weight, mean, kappa = step
    own = symmetric[paths.residue, d, None]
    components = (exp_of_share(log_weight), mean, kappa)
    children = merge_components(*components, own, _least(paths), NUM_LAST_COMPONENTS)
    return reduced(_longer(paths, d, children), SIZES[d], symmetric)


def _continued(paths: Paths, d: int, step: Sequence[Tensor], num_chi: Tensor) -> list[Paths]:
    """Paths by a chi longer that another follows."""
    components = _narrow(*step)
    none = torch.zeros((len(num_chi), NUM_CHI_MAX), dtype=torch.bool, device=num_chi.device)
    own = none[paths.residue, d, None]
    children = merge_components(*components, own, _least(paths), NUM_COMPONENTS)
    paths = reduced(_longer(paths, d, children), BEAM[d], none)
    before_last = num_chi[paths.residue] == d + 2
    return [
        *_divided(paths.take(~before_last), d, PARTS),
        *_divided(paths.take(before_last), d, PARTS_BEFORE_LAST),
    ]


def _narrow(log_weight: Tensor, mean: Tensor, kappa: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, mean, kappa (P,K+G): narrow components, and G kernels in the place of wide ones."""
    narrow = 1.0 / WIDTH**2
    weight, wide = exp_of_share(log_weight), kappa < narrow / WIDE**2
    num = math.ceil(2.0 * math.pi / (SPACING * WIDTH))
    place = torch.arange(num, device=mean.device) * (2.0 * math.pi / num)
    # A kernel is as wide as it is, and the kernels' shares have the rest of the component's width.
    spread = 1.0 / (1.0 / kappa.clamp(min=1e-3) - 1.0 / narrow).clamp(min=1e-6)
    spread = torch.where(wide, spread, 1.0)[..., None]
    share = (spread * (place - mean[..., None]).cos()).softmax(-1)
    poured = (torch.where(wide, weight, 0.0)[..., None] * share).sum(1)
    return (
        torch.cat([torch.where(wide, 0.0, weight), poured], dim=1),
        torch.cat([mean, place.expand(len(mean), num)], dim=1),
        torch.cat([kappa, torch.full_like(poured, narrow)], dim=1),
    )


def _divided(paths: Paths, d: int, parts: Sequence[tuple[float, int]]) -> list[Paths]:
    """Paths of at least so much weight as so many, their component of chi d divided."""
    divided = []
    for least, num in parts:
        heavy = (paths.weight > math.log(least)) & (paths.kappa[:, d] > 1.0)
        divided.append(_in_parts(paths.take(heavy), d, num))
        paths = paths.take(~heavy)
    return [*divided, paths]


def parts_of_a_normal(num: int) -> tuple[Tensor, Tensor, float]:
    """Place and weight (num,) of the parts of a normal distribution, in its deviations; width."""
    spacing, width = SPACING_AND_WIDTH[num]
    place = spacing * (torch.arange(num) - 0.5 * (num - 1))
    return place, (-0.5 * place.square() / (1.0 - width**2)).softmax(0), width


def _in_parts(paths: Paths, d: int, num: int) -> Paths:
    """Each path as ``num`` that make up its component of chi d."""
    place, share, width = parts_of_a_normal(num)
    mean, kappa = (x.repeat_interleave(num, 0) for x in (paths.mean, paths.kappa))
    turn = paths.kappa[:, d, None].rsqrt() * place.to(mean)
    mean[:, d] = wrap(paths.mean[:, d, None] + turn).flatten()
    kappa[:, d] /= width**2
    weight = paths.weight[:, None] + share.log().to(mean)
    return Paths(paths.residue.repeat_interleave(num), weight.flatten(), mean, kappa)


def _least(paths: Paths) -> Tensor:
    """(P,1) the share below which components of a path's next chi stand as one."""
    return (LEAST_WEIGHT / paths.weight.exp()).clamp(max=1.0)[:, None]


def _longer(paths: Paths, d: int, children: Sequence[Tensor]) -> Paths:
    """Each path once for each of its children (P,K) in chi d."""
    share, mean, kappa = children
    path, child = torch.nonzero(share > 0, as_tuple=True)
    means, kappas = paths.mean[path], paths.kappa[path]
    means[:, d], kappas[:, d] = mean[path, child], kappa[path, child]
    weight = paths.weight[path] + share[path, child].log()
    return Paths(paths.residue[path], weight, means, kappas)


def _padded(paths: Paths, chi_mask: Tensor, symmetric: Tensor) -> VonMisesMixture:
    """(N,K) components, those of a residue heaviest first, then the flat one, then weight 0."""
    num = len(chi_mask)
    paths, number = in_order(paths)
    count = torch.bincount(paths.residue, minlength=num)
    width = int(count.max()) + 1 if num else 1
    weight = paths.weight.new_full((num, width), -math.inf)
    mean, kappa = paths.mean.new_zeros((2, num, width, NUM_CHI_MAX))
    at = paths.residue, number
    weight[at], mean[at], kappa[at] = paths.weight, paths.mean, paths.kappa
    weight.scatter_(1, count[:, None], math.log(FLAT))
    return VonMisesMixture(weight.log_softmax(1), mean, kappa, chi_mask, symmetric)
