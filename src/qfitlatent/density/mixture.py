"""Mixtures of von Mises kernels over the chi angles of residues; usable alone, needs only torch.

    p_i(chi) = sum_k pi_ik prod_d exp(kappa_ikd cos(chi_d - mu_ikd)) / (2 pi I0(kappa_ikd))

One component index serves all angles of a residue, so the density is joint over its chi (SPEC 7).
A pi-symmetric chi (SPEC 3) comes in the two forms of SPEC 8: ``folded`` takes the residual to
(-pi/2, pi/2] as the training loss does, and integrates to between 1 and 2; the proper form, the
default everywhere, is half a kernel at chi and half at chi + pi, and integrates to 1.

Shapes: N residues, M observed rows (residue x altloc), K components, D chi, S samples, J modes.
Angles in radians on (-pi, pi].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qfitlatent.density.merging import resultant_of, times
from qfitlatent.density.quantiles import Points, choose, even_points, von_mises_quantile
from qfitlatent.density.von_mises import (
    LOG_2PI,
    categorical_entropy,
    log_add_exp,
    log_i0,
    log_i0e,
    log_sum_and_entropy,
    log_sum_exp,
    log_von_mises,
    principal,
    sample_von_mises,
    von_mises_entropy,
    wrap,
)

ENTROPY_POINTS = 512
"""Points behind the part of the entropy that is no closed form."""

RESIDUES_AT_A_TIME = 512
"""Whose components are merged to modes at a time."""

_SAMPLE_BLOCK = 1 << 19
"""Kernel evaluations held at once where samples are scored."""


@dataclass(frozen=True)
class Modes:
    """Merged components of N residues, heaviest first.

    weight (N,J) sums to 1, less what a flat component has; chi (N,J,D), pi-symmetric ones on
    (-pi/2, pi/2], 0 where the type has no such chi; valid (N,J) bool: at least the weight asked for
    (the heaviest always is).
    """

    weight: Tensor
    chi: Tensor
    valid: Tensor


@dataclass(frozen=True)
class VonMisesMixture:
    """A mixture for each of N residues.

    log_weight (N,K), normalised by log_softmax; mean (N,K,D) radians; kappa (N,K,D);
    chi_mask (N,D) bool: the residue type defines the chi; symmetric (N,D) bool: it is pi-symmetric.
    """

    log_weight: Tensor
    mean: Tensor
    kappa: Tensor
    chi_mask: Tensor
    symmetric: Tensor

    def __len__(self) -> int:
        return self.log_weight.shape[0]

    @property
    def num_components(self) -> int:
        return self.log_weight.shape[1]

    def select(self, rows: Tensor) -> VonMisesMixture:
        """The mixtures of these residues: rows (n,) long, or (N,) bool."""
        return VonMisesMixture(*(x[rows] for x in vars(self).values()))

    def first(self, num: int) -> VonMisesMixture:
        """The mixtures of the first num components, where those behind have no weight."""
        log_weight, mean, kappa = (x[:, :num] for x in (self.log_weight, self.mean, self.kappa))
        return replace(self, log_weight=log_weight, mean=mean, kappa=kappa)

    def to(self, *args: Any, **kwargs: Any) -> VonMisesMixture:
        """Parameters to a device or dtype; masks follow the device only."""
        moved = VonMisesMixture(*(x.to(*args, **kwargs) for x in vars(self).values()))
        return replace(moved, chi_mask=moved.chi_mask.bool(), symmetric=moved.symmetric.bool())

    def as_mixture(self) -> VonMisesMixture:
        return self

    def log_prob(
        self, chi: Tensor, defined: Tensor, rows: Tensor | None = None, folded: bool = False
    ) -> Tensor:
        """(M,) log density in nats of observed chi (M,D).

        defined (M,D) bool: a chi that is missing, or that the type does not have, leaves the
        product, which integrates it out; what chi holds there is not read. rows (M,) long: the
        residue of each row, default one row a residue. A row without any chi has log density 0.
        """
        at = (lambda x: x) if rows is None else (lambda x: x[rows])
        num_chi = _num_used(self.chi_mask)
        used = (defined & at(self.chi_mask))[:, None, :num_chi]
        delta = torch.where(used, chi[:, None, :num_chi] - at(self.mean[..., :num_chi]), 0.0)
        symmetric = at(self.symmetric)[:, None, :num_chi] & used
        kappa = self.kappa[..., :num_chi]
        log_norm = at(log_i0e(kappa) + LOG_2PI)
        kernel = log_von_mises(delta, at(kappa), symmetric, folded, log_norm)  # (M,K,d)
        return log_sum_exp(at(self.log_weight) + (kernel * used.to(kernel.dtype)).sum(-1))

    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """(S,N,D) exact independent draws from the proper form; 0 where the type has no such chi.

        The generator lives on the device of the parameters.
        """
        weight = self.log_weight.detach().exp()
        component = torch.multinomial(weight, num, replacement=True, generator=generator)  # (N,S)
        component = component.T[..., None].expand(-1, -1, self.mean.shape[-1])  # (S,N,D)
        mean = self.mean.detach().transpose(0, 1).gather(0, component)
        kappa = self.kappa.detach().transpose(0, 1).gather(0, component)
        chi = sample_von_mises(mean, kappa, generator)
        turned = torch.rand(chi.shape, generator=generator, device=chi.device) < 0.5
        chi = torch.where(turned & self.symmetric, wrap(chi + math.pi), chi)
        return torch.where(self.chi_mask, chi, 0.0)

    def points(self, num: int) -> Points:
        """S points of equal mass: a component by its weight, and a quantile of each of its chi.

        Components stand by rotamer, and there by chi1, so that neighbours in share are neighbours.
        """
        cube = even_points(num, 1 + self.mean.shape[-1]).to(self.mean)
        share = cube[:, 0].repeat(len(self), 1)
        turn = torch.remainder(self.mean, 2 * math.pi) / (2 * math.pi)
        place = 3 ** torch.arange(turn.shape[-1], device=turn.device).flip(0)
        order = ((3 * turn).floor() * place).sum(-1).add(turn[..., 0]).argsort(dim=1, stable=True)
        chosen, _ = choose(share, self.log_weight.detach().exp().gather(1, order))
        component = order.gather(1, chosen)  # (N,S)
        chi = self.mean.new_zeros((*self.chi_mask.T.shape, num))  # (D,N,S)
        for d in self.chi_mask.any(0).nonzero()[:, 0].tolist():
            mean, kappa = (x.detach()[..., d].gather(1, component) for x in (self.mean, self.kappa))
            angle = wrap(mean + von_mises_quantile(cube[:, 1 + d], kappa))
            torch.mul(angle, self.chi_mask[:, d, None], out=chi[d])
        chi = chi.permute(2, 1, 0)
        found = [log_sum_and_entropy(x, dim=1) for x in self._component_log_prob(chi)]
        log_prob, doubt = (torch.cat(x) for x in zip(*found, strict=True))
        entropy = self._known_entropy() - doubt.mean(1)
        return Points(chi, log_prob.T, torch.where(self.chi_mask.any(1), entropy, 0.0))

    def sample_log_prob(self, samples: Tensor, defined: Tensor | None = None) -> Tensor:
        """(S,N) proper log density of samples (S,N,D), over the chi in defined (N,D) if given."""
        blocks = self._component_log_prob(samples, defined)
        return torch.cat([log_sum_exp(x, dim=1) for x in blocks]).T

    def _component_log_prob(
        self, samples: Tensor, defined: Tensor | None = None
    ) -> Iterator[Tensor]:
        """log pi_k + log f_k of samples (S,N,D): blocks of residues, (n,K,S).

        kappa cos(chi - mu) is the dot product of (cos chi, sin chi) and kappa (cos mu, sin mu): one
        matrix product in place of a sine for every draw, component and chi, six times faster for
        large K. In fp32 its error grows to 1e-7 kappa nats, which means of draws do not notice.
        """
        used = self.chi_mask if defined is None else defined & self.chi_mask
        symmetric = self.symmetric & used
        num_chi = _num_used(used)
        kappa = torch.where(used[:, None, :], self.kappa, 0.0)
        eta = torch.stack([kappa * self.mean.cos(), kappa * self.mean.sin()], dim=2)
        eta = eta[..., :num_chi]  # (N,K,2,d)
        log_norm = torch.where(used[:, None, :], log_i0(self.kappa) + LOG_2PI, 0.0).sum(-1)
        halves = symmetric.sum(1, keepdim=True).to(self.log_weight.dtype)
        base = self.log_weight - log_norm - math.log(2.0) * halves
        base = base.clamp(min=torch.finfo(base.dtype).min)  # twice minus infinity has no sum
        size = max(1, _SAMPLE_BLOCK // (len(samples) * self.num_components))
        for start in range(0, len(self), size):
            block = slice(start, start + size)
            chi = samples[:, block, :num_chi].permute(1, 2, 0)
            point = torch.cat([chi.cos(), chi.sin()], dim=1)  # (n,2d,S)
            own_base, own_eta = base[block, :, None], eta[block]
            joint = torch.baddbmm(own_base, own_eta.flatten(2), point)
            for at, sign in _half_turns(symmetric[block, :num_chi]):
                turned = (own_eta[at] * sign).flatten(2)
                turned = torch.baddbmm(own_base[at], turned, point[at])
                joint[at] = log_add_exp(joint[at], turned)
            yield joint

    def entropy(self) -> Tensor:
        """(N,) differential entropy of the proper form, nats; 0 for a residue without chi.

        H(chi) = H(chi|k) + H(k) - H(k|chi): the first two are exact, and only the last, the doubt
        about the component that a chi came from, is a mean over points. It lies between 0 and log K
        and vanishes for separate components, so few suffice; one component is exact.
        """
        return self.points(ENTROPY_POINTS).entropy

    def _known_entropy(self) -> Tensor:
        """(N,) H(chi|k) + H(k)."""
        kernel = von_mises_entropy(self.kappa, self.symmetric[:, None, :])
        kernel = torch.where(self.chi_mask[:, None, :], kernel, 0.0).sum(-1)  # (N,K)
        return (self.log_weight.exp() * kernel).sum(1) + categorical_entropy(self.log_weight)

    def modes(self, min_weight: float, merge_within: float) -> Modes:
        """Components merged where every chi of theirs lies within merge_within (radians).

        Heaviest component first, each joins the heaviest mode near whose first component it is, or
        begins one; chains do not form, and the order of components does not matter. A mode's
        weight is the sum of its components', its chi their mean direction, in which a component
        counts by its weight and its concentration. min_weight only sets ``valid``. J = K. A flat
        component (kappa of 0 in all chi) is no mode, unless a residue has no other.
        """
        if len(self) > RESIDUES_AT_A_TIME:
            blocks = torch.arange(len(self), device=self.mean.device).split(RESIDUES_AT_A_TIME)
            parts = [vars(self.select(rows).modes(min_weight, merge_within)) for rows in blocks]
            return Modes(*(torch.cat([part[name] for part in parts]) for name in parts[0]))
        flat = ((self.kappa == 0) | ~self.chi_mask[:, None, :]).all(-1)
        flat &= ~flat.all(1, keepdim=True)
        weight = self.log_weight.detach().exp().masked_fill(flat, 0.0)
        weight, order = weight.sort(dim=1, descending=True, stable=True)
        wide = order[..., None].expand(-1, -1, self.mean.shape[-1])
        mean, kappa = self.mean.detach().gather(1, wide), self.kappa.detach().gather(1, wide)
        residue, component = torch.nonzero(weight > 0, as_tuple=True)
        own = mean[residue, component]
        head = self._heads(residue, component, own, merge_within)

        share = weight[residue, component]
        at = residue * self.num_components + head
        total = torch.zeros_like(weight).view(-1).index_add_(0, at, share).view_as(weight)
        # Turned to its head's side first, so that chi and chi + pi of a symmetric angle add up.
        residual = principal(own - mean[residue, head], self.symmetric[residue])
        pull = share[:, None] * resultant_of(kappa[residue, component])
        sin, cos = (
            torch.zeros_like(mean).view(-1, mean.shape[-1]).index_add_(0, at, x).view_as(mean)
            for x in (pull * residual.sin(), pull * residual.cos())
        )
        chi = principal(mean + torch.atan2(sin, cos), self.symmetric[:, None, :])
        chi = torch.where(self.chi_mask[:, None, :] & (total > 0)[..., None], chi, 0.0)

        total, order = total.sort(dim=1, descending=True, stable=True)
        chi = chi.gather(1, order[..., None].expand_as(chi))
        valid = total >= min_weight
        valid[:, :1] = True
        return Modes(total, chi, valid & (total > 0))

    def _heads(self, residue: Tensor, component: Tensor, mean: Tensor, within: float) -> Tensor:
        """(C,) the number of the heaviest component of its residue near which each of C is.

        residue and component (C,), mean (C,D); those of a residue together, heaviest first. In each
        round the first that is left of every residue takes those of the others that are near it.
        """
        multiple = times(self.symmetric[residue])
        angle = torch.where(self.chi_mask[residue], mean * multiple, 0.0)
        # One row a chi, and what a round keeps of all of them in one copy.
        table = torch.cat([angle.cos(), angle.sin(), (multiple * within).cos()], dim=1).T
        head, left = component.clone(), torch.arange(len(residue), device=residue.device)
        while len(left):
            _, num_left = residue[left].unique_consecutive(return_counts=True)
            first = num_left.cumsum(0) - num_left
            at = first.repeat_interleave(num_left)
            cos, sin, nearest = table.chunk(3)
            apart = torch.addcmul(cos * cos[:, at], sin, sin[:, at])  # cosine of the distance
            far = (apart < nearest).any(0).index_fill_(0, first, False)
            head[left] = component[left[at]]
            keep = torch.nonzero(far)[:, 0]
            left, table = left[keep], table.index_select(1, keep)
        return head


def _num_used(used: Tensor) -> int:
    """Chi up to the last that some residue has: those behind need no arithmetic; used (N,D)."""
    return int((used.any(0) * torch.arange(1, used.shape[1] + 1, device=used.device)).max())


def _half_turns(symmetric: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The lobes of a kernel beside the one at its mean: symmetric (N,D) bool.

    Residues (n,) long that have the lobe, and sign (D,), -1 for the chi in which it is turned by
    pi. A residue with two symmetric chi has three such lobes.
    """
    dims = symmetric.any(0).nonzero()[:, 0].tolist()
    for size in range(1, int(symmetric.sum(1).max()) + 1 if dims else 0):
        for turned in itertools.combinations(dims, size):
            sign = torch.ones(symmetric.shape[1], device=symmetric.device)
            sign[list(turned)] = -1.0
            yield symmetric[:, list(turned)].all(1).nonzero()[:, 0], sign
