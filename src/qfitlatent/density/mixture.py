"""Mixtures of von Mises kernels over the chi angles of residues; usable alone, needs only torch.

    p_i(chi) = sum_k pi_ik prod_d exp(kappa_ikd cos(chi_d - mu_ikd)) / (2 pi I0(kappa_ikd))

One component index serves all angles of a residue, so the density is joint over its chi (SPEC 7).
A pi-symmetric chi (SPEC 3) comes in the two forms of SPEC 8: ``folded`` takes the residual to
(-pi/2, pi/2] as the training loss does, and integrates to between 1 and 2; the proper form, the
default everywhere, is half a kernel at chi and half at chi + pi, and integrates to 1.

Everything is finite, values and gradients, for kappa from 1e-3 to 1e6 in fp32. Three rewritings do
it: kappa cos d - kappa = -2 kappa sin^2(d/2), which does not cancel; log i0e in place of log I0,
with a series for its derivative at large kappa; and log-sum-exp over log-softmax weights.

Shapes: N residues, M observed rows (residue x altloc), K components, D chi, S samples, J modes,
R residues in the loss. Angles in radians on (-pi, pi].
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from qfitlatent.density.von_mises import (
    LOG_2PI,
    bessel_ratio_minus_one,
    categorical_entropy,
    circular_distance,
    fold,
    log_i0e,
    log_von_mises,
    resultant,
    sample_von_mises,
    von_mises_entropy,
    wrap,
)

_SAMPLE_BLOCK = 1 << 22
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
        return self._map(lambda x: x[rows])

    def to(self, *args, **kwargs) -> VonMisesMixture:
        """Parameters to a device or dtype; masks follow the device only."""
        moved = self._map(lambda x: x.to(*args, **kwargs))
        return replace(moved, chi_mask=moved.chi_mask.bool(), symmetric=moved.symmetric.bool())

    def detach(self) -> VonMisesMixture:
        return self._map(Tensor.detach)

    def as_mixture(self, num_components: int | None = None) -> VonMisesMixture:
        """Itself, or only its heaviest components with their weights scaled to sum to 1."""
        if num_components is None or num_components >= self.num_components:
            return self
        order = self.log_weight.topk(num_components, dim=1).indices
        wide = order[..., None].expand(-1, -1, self.mean.shape[-1])
        return replace(
            self,
            log_weight=self.log_weight.gather(1, order).log_softmax(1),
            mean=self.mean.gather(1, wide),
            kappa=self.kappa.gather(1, wide),
        )

    def marginal(self, dims: list[int] | int) -> VonMisesMixture:
        """The density of some chi alone (0-based), the others integrated out; D = len(dims)."""
        dims = [dims] if isinstance(dims, int) else list(dims)
        return replace(
            self,
            mean=self.mean[..., dims],
            kappa=self.kappa[..., dims],
            chi_mask=self.chi_mask[:, dims],
            symmetric=self.symmetric[:, dims],
        )

    def log_prob(
        self, chi: Tensor, defined: Tensor, rows: Tensor | None = None, folded: bool = False
    ) -> Tensor:
        """(M,) log density in nats of observed chi (M,D).

        defined (M,D) bool: a chi that is missing, or that the type does not have, leaves the
        product, which integrates it out; what chi holds there is not read. rows (M,) long: the
        residue of each row, default one row a residue. A row without any chi has log density 0.
        """
        at = (lambda x: x) if rows is None else (lambda x: x[rows])
        used = (defined & at(self.chi_mask))[:, None, :]
        delta = torch.where(used, chi[:, None, :] - at(self.mean), 0.0)  # (M,K,D)
        symmetric = at(self.symmetric)[:, None, :] & used
        kernel = log_von_mises(delta, at(self.kappa), symmetric, folded)
        return (at(self.log_weight) + torch.where(used, kernel, 0.0).sum(-1)).logsumexp(-1)

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

    def sample_log_prob(self, samples: Tensor, defined: Tensor | None = None) -> Tensor:
        """(S,N) proper log density of samples (S,N,D), over the chi in defined (N,D) if given."""
        return torch.cat([x.logsumexp(-1) for x in self._component_log_prob(samples, defined)])

    def _component_log_prob(
        self, samples: Tensor, defined: Tensor | None = None
    ) -> Iterator[Tensor]:
        """log pi_k + log f_k of samples (S,N,D): blocks of (s,N,K)."""
        used = (self.chi_mask if defined is None else defined & self.chi_mask)[:, None, :]
        symmetric = self.symmetric[:, None, :] & used
        log_norm = log_i0e(self.kappa) + LOG_2PI  # once a residue, not once a sample
        block = max(1, _SAMPLE_BLOCK // max(1, self.kappa.numel()))
        for part in samples.split(block):
            delta = torch.where(used, part[:, :, None, :] - self.mean, 0.0)  # (s,N,K,D)
            kernel = log_von_mises(delta, self.kappa, symmetric, log_norm=log_norm)
            yield self.log_weight + torch.where(used, kernel, 0.0).sum(-1)

    def entropy(self, num_samples: int = 64, generator: torch.Generator | None = None) -> Tensor:
        """(N,) differential entropy of the proper form, nats; 0 for a residue without chi.

        H(chi) = H(chi|k) + H(k) - H(k|chi): the first two are exact, and only the last, the doubt
        about the component that a chi came from, is a mean over draws. It lies between 0 and log K
        and vanishes for separate components, so few draws suffice; one component is exact.
        """
        kernel = von_mises_entropy(self.kappa, self.symmetric[:, None, :])
        kernel = torch.where(self.chi_mask[:, None, :], kernel, 0.0).sum(-1)  # (N,K)
        weight = self.log_weight.exp()
        entropy = (weight * kernel).sum(1) + categorical_entropy(self.log_weight)
        if self.num_components == 1:
            return entropy
        samples = self.sample(num_samples, generator)
        doubt = torch.cat(
            [categorical_entropy(x.log_softmax(-1)) for x in self._component_log_prob(samples)]
        ).mean(0)
        return torch.where(self.chi_mask.any(1), entropy - doubt, 0.0)

    def mean_direction(self) -> tuple[Tensor, Tensor]:
        """(N,D) circular mean and (N,D) resultant length in [0,1] of each chi.

        Of the doubled angle, halved again, where the chi is pi-symmetric.
        """
        length = resultant(self.kappa, self.symmetric[:, None, :])  # (N,K,D)
        weight = self.log_weight.exp()[..., None] * length
        times = torch.where(self.symmetric, 2.0, 1.0)
        angle = self.mean * times[:, None, :]
        sin, cos = (weight * angle.sin()).sum(1), (weight * angle.cos()).sum(1)
        direction = torch.atan2(sin, cos) / times
        return (
            torch.where(self.chi_mask, direction, 0.0),
            torch.where(self.chi_mask, torch.hypot(sin, cos), 0.0),
        )

    def modes(self, min_weight: float = 0.1, merge_within: float = math.radians(30.0)) -> Modes:
        """Components merged where every chi of theirs lies within merge_within (radians).

        Heaviest component first, each joins the heaviest mode near whose first component it is, or
        begins one; chains do not form, and the order of components does not matter. A mode's
        weight is the sum of its components', its chi their mean direction, in which a component
        counts by its weight and its concentration. min_weight only sets ``valid``. J = K. A flat
        component (kappa of 0 in all chi) is no mode, unless a residue has no other.
        """
        flat = ((self.kappa == 0) | ~self.chi_mask[:, None, :]).all(-1)
        flat &= ~flat.all(1, keepdim=True)
        weight = self.log_weight.detach().exp().masked_fill(flat, 0.0)
        weight, order = weight.sort(dim=1, descending=True, stable=True)
        wide = order[..., None].expand(-1, -1, self.mean.shape[-1])
        mean, kappa = self.mean.detach().gather(1, wide), self.kappa.detach().gather(1, wide)
        symmetric = self.symmetric[:, None, :]
        num_components = self.num_components
        head = torch.arange(num_components, device=weight.device).repeat(len(self), 1)
        is_head = torch.zeros_like(head, dtype=torch.bool)
        is_head[:, :1] = True
        for k in range(1, num_components):
            distance = circular_distance(mean[:, :k], mean[:, k : k + 1], symmetric)
            near = ((distance <= merge_within) | ~self.chi_mask[:, None, :]).all(-1)
            near &= is_head[:, :k]  # (N,k)
            found = near.any(1)
            head[:, k] = torch.where(found, near.int().argmax(1), k)
            is_head[:, k] = ~found

        total = torch.zeros_like(weight).scatter_add_(1, head, weight)
        # Turned to its head's side first, so that chi and chi + pi of a symmetric angle add up.
        start = mean.gather(1, head[..., None].expand_as(mean))
        residual = wrap(mean - start)
        residual = torch.where(symmetric, fold(residual), residual)
        pull = weight[..., None] * (1.0 + bessel_ratio_minus_one(kappa))
        target = head[..., None].expand_as(mean)
        sin = torch.zeros_like(mean).scatter_add_(1, target, pull * residual.sin())
        cos = torch.zeros_like(mean).scatter_add_(1, target, pull * residual.cos())
        chi = wrap(mean + torch.atan2(sin, cos))
        chi = torch.where(symmetric, fold(chi), chi)
        chi = torch.where(self.chi_mask[:, None, :] & is_head[..., None], chi, 0.0)

        total, order = total.sort(dim=1, descending=True, stable=True)
        chi = chi.gather(1, order[..., None].expand_as(chi))
        valid = total >= min_weight
        valid[:, :1] = True
        return Modes(total, chi, valid & (total > 0))

    def hdr_level(
        self,
        chi: Tensor,
        defined: Tensor,
        rows: Tensor | None = None,
        num_samples: int = 1000,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """(M,) probability mass of the region denser than each observed chi (M,D), by sampling.

        The point lies inside the residue's highest-density region of mass p when this is below p.
        A row with missing chi is judged by the density of those it has.
        """
        if rows is None:
            rows = torch.arange(len(self), device=chi.device)
        samples = self.sample(num_samples, generator)  # (S,N,D)
        level = torch.empty(len(rows), dtype=self.mean.dtype, device=chi.device)
        size = max(1, _SAMPLE_BLOCK // (num_samples * self.num_components * chi.shape[-1]))
        for part in torch.arange(len(rows), device=chi.device).split(size):
            at = rows[part]
            here = self.select(at)
            own = here.log_prob(chi[part], defined[part])
            level[part] = (
                (here.sample_log_prob(samples[:, at], defined[part]) > own).to(level).mean(0)
            )
        return level

    def to_columns(self) -> dict[str, np.ndarray]:
        """One row a residue that has chi, and component: residue, component, weight, mean<d>_rad,
        kappa<d>; nan where the type has no such chi."""
        num_components = self.num_components
        residue = self.chi_mask.any(-1).nonzero()[:, 0]
        here = self.select(residue).detach().to("cpu")
        mask = here.chi_mask[:, None, :].expand_as(here.mean)
        columns = {
            "residue": residue.cpu().repeat_interleave(num_components).numpy(),
            "component": np.tile(np.arange(num_components), len(residue)),
            "weight": here.log_weight.exp().reshape(-1).numpy(),
        }
        for name, value, unit in (("mean", here.mean, "_rad"), ("kappa", here.kappa, "")):
            value = torch.where(mask, value, math.nan).reshape(-1, mask.shape[-1]).numpy()
            columns |= {f"{name}{d + 1}{unit}": value[:, d] for d in range(mask.shape[-1])}
        return columns

    def _map(self, function) -> VonMisesMixture:
        return VonMisesMixture(
            *(
                function(x)
                for x in (self.log_weight, self.mean, self.kappa, self.chi_mask, self.symmetric)
            )
        )
