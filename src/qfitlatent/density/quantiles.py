"""Points that stand for equal shares of a density, in the place of draws.

A point of the unit cube is carried to the density by its quantiles: one coordinate chooses the
component by the cumulative weights, and where it falls within that share says which quantile of the
component it is. Points that fill the cube evenly (Sobol 1967) then fill the density evenly, so
that 512 of them tell as much of a residue with one or two chi as 4,096 draws.

Shapes: M rows, K components of one chi, Q and S points, D coordinates.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from qfitlatent.density.von_mises import log_one_and, wrap

Z_MAX, Z_NODES = 6.0, 97
"""Normal quantiles at which the table of von Mises quantiles has its nodes: 0 to Z_MAX, evenly."""

KAPPA_LARGE, KAPPA_NODES = 1e4, 193
"""Concentrations of the table, even in log(1 + kappa); beyond, the kernel is all but normal."""

_ARC_NODES = 1024
"""Nodes between the mean and the edge of the kernel from which the table is made."""


class Points(NamedTuple):
    """chi (S,N,D), each with the same share of its residue's mass, and their log density (S,N).

    The first 2^m of them fill the density evenly, too. A pi-symmetric chi may stand on one side
    only: no figure tells the two apart. entropy (N,) nats is that of the density as the points
    show it: better than the mean of their log density, as most of it is exact at each of them.
    """

    chi: Tensor
    log_prob: Tensor
    entropy: Tensor


@cache
def even_points(num: int, dims: int) -> Tensor:
    """(S,D) points of Sobol's sequence, moved into the middle of their cells."""
    engine = torch.quasirandom.SobolEngine(dims)
    return engine.draw(num, dtype=torch.float64).add_(0.5 / num).remainder_(1.0).float()


@cache
def _table() -> Tensor:
    """(KAPPA_NODES + 1, Z_NODES + 1): the quantile of Phi(z) at the nodes, and 0 behind them.

    In units of 1 / sqrt(1 + kappa), in which it hardly changes where kappa is large.
    """
    kappa = torch.linspace(0.0, math.log1p(KAPPA_LARGE), KAPPA_NODES, dtype=torch.float64).expm1()
    kappa = kappa[:, None]
    edge = (math.pi * (1.0 + kappa).sqrt()).clamp(max=2.0 * Z_MAX)
    nodes = torch.linspace(0.0, 1.0, _ARC_NODES, dtype=torch.float64) * edge
    density = torch.exp(-2.0 * kappa * (0.5 * nodes / (1.0 + kappa).sqrt()).sin().square())
    steps = 0.5 * (density[:, 1:] + density[:, :-1])
    # The mass further out than a node, which keeps its digits in the tail, as Phi(-z) does.
    beyond = torch.cat([steps.flip(1).cumsum(1).flip(1), torch.zeros_like(kappa)], dim=1)
    beyond = (0.5 * beyond / beyond[:, :1]).flip(1).contiguous()
    z = torch.linspace(0.0, Z_MAX, Z_NODES, dtype=torch.float64)
    wanted = torch.special.ndtr(-z).repeat(KAPPA_NODES, 1)
    at = torch.searchsorted(beyond, wanted).clamp(1, _ARC_NODES - 1)
    low, high = beyond.gather(1, at - 1), beyond.gather(1, at)
    place = at - 1 + ((wanted - low) / (high - low)).clamp(0.0, 1.0)
    table = (1.0 - place / (_ARC_NODES - 1)) * edge
    return torch.nn.functional.pad(table, (0, 1, 0, 1)).float()


def von_mises_quantile(share: Tensor, kappa: Tensor) -> Tensor:
    """Radians from the mean below which vM(0, kappa) has this share of its mass.

    Elementwise; a share that many kappa have in common may be given once, to be broadcast.
    """
    z = torch.special.ndtri(share.clamp(1e-9, 1.0 - 1e-7))
    across = (z.abs() * ((Z_NODES - 1) / Z_MAX)).clamp(max=Z_NODES - 1.001)
    down = log_one_and(kappa) * ((KAPPA_NODES - 1) / math.log1p(KAPPA_LARGE))
    down = down.clamp(max=KAPPA_NODES - 1.001)
    i, j = down.int(), across.int()
    down, across, table = down - i, across - j, _table().to(kappa)
    if share.dim() < kappa.dim():
        # The shares' own columns of the table, and there between two rows.
        table = torch.lerp(table[:, j], table[:, j + 1], across)
        node = i * len(share) + torch.arange(len(share), dtype=i.dtype, device=i.device)
        low, high = _taken(table, node), _taken(table, node + len(share))
    else:
        node = i * (Z_NODES + 1) + j
        below = node + Z_NODES + 1
        low = torch.lerp(_taken(table, node), _taken(table, node + 1), across)
        high = torch.lerp(_taken(table, below), _taken(table, below + 1), across)
    return torch.lerp(low, high, down) * torch.rsqrt(1.0 + kappa) * z.sign()


def _taken(table: Tensor, place: Tensor) -> Tensor:
    """Values of a table at places in it, read row by row: several times as fast as indexing."""
    return table.flatten().index_select(0, place.flatten()).view_as(place)


def choose(share: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """(M,Q) long, the component in whose part of weight (M,K) share (M,Q) falls; (M,K) the ends of
    the parts."""
    upper = weight.cumsum(1)
    upper = upper / upper[:, -1:]
    component = torch.searchsorted(upper, share.contiguous(), right=True)
    return component.clamp(max=weight.shape[1] - 1), upper


def mixture_quantile(share: Tensor, log_weight: Tensor, mean: Tensor, kappa: Tensor) -> Tensor:
    """(M,Q) angles of mixtures of one chi, each (M,K), at share (M,Q).

    Components stand in the order of their means, so that neighbours in share are neighbours on the
    circle.
    """
    mean, order = mean.sort(dim=1)
    weight = log_weight.exp().gather(1, order)
    component, upper = choose(share, weight)
    top, own = upper.gather(1, component), weight.gather(1, component)
    within = (1.0 - (top - share) / own.clamp(min=1e-12)).clamp(0.0, 1.0)
    turn = von_mises_quantile(within, kappa.gather(1, order).gather(1, component))
    return wrap(mean.gather(1, component) + turn)
