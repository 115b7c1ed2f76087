"""The backbone-dependent library: components whose weights, means and widths follow phi and psi.

Shapes: M observed rows, K components, D chi of one residue type, G nodes of the phi/psi grid along
one angle.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from qfitlatent.density.components import Components, TypeRows, length_of
from qfitlatent.density.merging import kappa_of

GRID_NODES = 36
"""G: 10 degrees between the nodes of phi and psi, interpolated bilinearly."""

KERNELS = (4.0, 12.0, 40.0, 120.0)
"""Concentrations of the phi/psi kernels, broad (29 degrees) to narrow (5 degrees)."""

SHRINKAGES = (6.0, 18.0, 54.0, 162.0)
"""Pseudo-observations, tried, by which a kernel's estimate is held to the broader one's."""

BACKBONE_STEPS = 4
"""Rounds of expectation and smoothing of the backbone-dependent library."""


@dataclass
class BackboneComponents:
    """weight (G,G,K), eta (G,G,K,D,2) at the nodes of phi and psi; node g at -pi + 2 pi g / G."""

    weight: Tensor
    eta: Tensor

    def at(self, phi_psi: Tensor) -> tuple[Tensor, Tensor]:
        """weight (N,K) and eta (N,K,D,2) at phi_psi (N,2) radians, bilinear and periodic."""
        node, share = _corners(phi_psi)
        weight, eta = (
            embedding_bag(node, table, per_sample_weights=share, mode="sum")
            for table in (self.weight.flatten(0, 1), self.eta.flatten(0, 1).flatten(1))
        )
        return weight, eta.unflatten(1, self.eta.shape[2:])


def _corners(phi_psi: Tensor) -> tuple[Tensor, Tensor]:
    """The four nodes around phi_psi (N,2): (N,4) long in the flattened grid, and their shares."""
    position = torch.remainder(phi_psi + math.pi, 2 * math.pi) / (2 * math.pi) * GRID_NODES
    lower = position.floor()
    corners = torch.cartesian_prod(torch.arange(2), torch.arange(2))  # (4,2)
    node = (lower.long()[:, None] + corners) % GRID_NODES
    share = (position - lower).float()[:, None]
    share = torch.where(corners == 1, share, 1 - share)
    return node[..., 0] * GRID_NODES + node[..., 1], share.prod(-1)


def _smoothing_matrix(concentration: float) -> Tensor:
    """(G,G) circulant von Mises kernel, 1 at distance 0, so that sums stay counts."""
    angle = torch.arange(GRID_NODES) * (2 * math.pi / GRID_NODES)
    difference = angle[:, None] - angle[None, :]
    return torch.exp(concentration * (difference.cos() - 1.0))


def _kernel_sums(grid: Tensor, kernels: Sequence[float]) -> list[Tensor]:
    """Statistics (G,G,F) summed under each kernel around every node."""
    sums = []
    for concentration in kernels:
        kernel = _smoothing_matrix(concentration)
        sums.append(kernel @ (kernel @ grid.flatten(1)).view_as(grid))
    return sums


def _smooth(sums: Sequence[Tensor], prior: Tensor, shrinkage: float) -> Tensor:
    """Statistics (G,G,F) per observation; the last column counts the observations.

    From broad to narrow each kernel's sums are averaged with ``shrinkage`` pseudo-observations of
    the estimate before it; prior (F,) stands before the broadest.
    """
    estimate = prior.expand_as(sums[0])
    for total in sums:
        estimate = torch.add(total, estimate, alpha=shrinkage) / (total[..., -1:] + shrinkage)
    return estimate


@dataclass
class BackboneFit:
    """Rows of one residue type, their phi_psi (M,2), and the library they are smoothed to."""

    rows: TypeRows
    phi_psi: Tensor
    library: Components

    def prior(self) -> Tensor:
        """(F,) what the library alone says of the statistics: the estimate far from any row."""
        kappa = self.library.kappa
        length = torch.special.i1e(kappa) / torch.special.i0e(kappa)
        direction = self.library.eta / kappa.clamp(min=1e-12)[..., None]
        weight = self.library.weight
        return torch.cat(
            [
                weight.repeat_interleave(kappa.shape[1]),
                (weight[:, None, None] * length[..., None] * direction).flatten(),
                weight,
                torch.ones(1),
            ]
        )

    def expect(self, current: BackboneComponents | None, kernels: Sequence[float]) -> list[Tensor]:
        """(G,G,F) expected counts and resultants of each component, summed under each kernel.

        current None stands for the library itself.
        """
        rows, weight, eta = self.rows, self.library.weight, self.library.eta
        if current is not None:
            weight, eta = current.at(self.phi_psi)
        posterior, _ = rows.responsibilities(weight.log(), eta)
        straight, turned = rows.turned(posterior)
        mass, lever = straight, straight[:, :, None]
        if turned is not None:
            mass = straight + turned
            lever = straight[:, :, None] + turned[:, :, None] * rows.sign
        statistics = torch.cat(
            [
                (mass[:, :, None] * rows.defined[:, None]).flatten(1),
                (lever[..., None] * rows.point[:, None]).flatten(1),
                mass,
                rows.weight[:, None],
            ],
            dim=1,
        )
        row, start, share = self._deposits
        grid = embedding_bag(row, statistics, start, per_sample_weights=share, mode="sum")
        return _kernel_sums(grid.view(GRID_NODES, GRID_NODES, -1), kernels)

    @functools.cached_property
    def _deposits(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (4M,) in the order of the nodes that they are shared between, where each node's
        begin (G G,), and the shares (4M,)."""
        node, share = _corners(self.phi_psi)
        nodes, order = node.flatten().sort(stable=True)
        start = torch.searchsorted(nodes, torch.arange(GRID_NODES * GRID_NODES))
        return order // node.shape[1], start, share.flatten()[order]

    def maximise(self, sums: Sequence[Tensor], shrinkage: float) -> BackboneComponents:
        """Weights, means and concentrations at the nodes from the smoothed statistics."""
        num, num_chi = self.library.kappa.shape
        smooth = _smooth(sums, self.prior(), shrinkage)
        split = [num * num_chi, 2 * num * num_chi, num, 1]
        count, resultant, weight, _ = smooth.split(split, dim=-1)
        resultant = resultant.unflatten(-1, (num, num_chi, 2))
        length = length_of(resultant)
        mean_length = length / count.unflatten(-1, (num, num_chi)).clamp(min=1e-12)
        eta = resultant / length.clamp(min=1e-12)[..., None]
        eta = eta * kappa_of(mean_length)[..., None]
        eta[:, :, 0] = 0.0
        weight = weight.clamp(min=1e-6)
        return BackboneComponents(weight / weight.sum(-1, keepdim=True), eta)

    def fit(self, kernels: tuple[float, ...], shrinkage: float) -> BackboneComponents:
        """Rounds of expectation and smoothing, from the library."""
        current = self.maximise(self.expect(None, kernels), shrinkage)
        for _ in range(BACKBONE_STEPS - 1):
            current = self.maximise(self.expect(current, kernels), shrinkage)
        return current
