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

LOG_2PI = math.log(2.0 * math.pi)


SERIES_FROM_KAPPA = 30.0
"""Above this, A(kappa) - 1 comes from its asymptotic series: I1/I0 - 1 cancels."""


def _bessel_ratio_series(num_terms: int) -> tuple[float, ...]:
    """c_1, c_2, ... of I1/I0 = 1 + sum_n c_n kappa^-n, from A' = 1 - A/kappa - A^2 term by term."""
    c = [1.0]
    for n in range(1, num_terms + 1):
        c.append(((n - 2) * c[n - 1] - sum(c[i] * c[n - i] for i in range(1, n))) / 2.0)
    return tuple(c[1:])


_SERIES = _bessel_ratio_series(12)


KAPPA_MAX = 2000.0
"""Narrowest component that is fitted, 1.3 degrees: below what coordinates tell."""


MERGE_DEVIATIONS, MERGE_RATIO = 1.5, 10.0
"""Components are merged within so many standard deviations and up to this ratio of their kappa."""


_SMALLEST_SAMPLED_KAPPA = 1e-6
"""Below this the kernel is flat to within fp32."""


_SAMPLE_BLOCK = 1 << 22
"""Kernel evaluations held at once where samples are scored."""


def bessel_ratio_minus_one(kappa: Tensor) -> Tensor:
    """A(kappa) - 1 = I1(kappa)/I0(kappa) - 1, accurate for every kappa >= 0; elementwise."""
    large = kappa > SERIES_FROM_KAPPA
    inverse = 1.0 / torch.where(large, kappa, SERIES_FROM_KAPPA)
    series = torch.zeros_like(inverse)
    for c in reversed(_SERIES):
        series = (series + c) * inverse
    small = torch.where(large, 1.0, kappa)
    ratio = torch.special.i1e(small) / torch.special.i0e(small) - 1.0
    return torch.where(large, series, ratio)


class _LogI0e(torch.autograd.Function):
    @staticmethod
    def forward(ctx, kappa: Tensor) -> Tensor:
        ctx.save_for_backward(kappa)
        return torch.special.i0e(kappa).log()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (kappa,) = ctx.saved_tensors
        return gradient * bessel_ratio_minus_one(kappa)


def log_i0e(kappa: Tensor) -> Tensor:
    """log(I0(kappa) exp(-kappa)) with a gradient that stays exact at large kappa; elementwise."""
    return _LogI0e.apply(kappa)


def log_von_mises(
    delta: Tensor,
    kappa: Tensor,
    symmetric: Tensor | None = None,
    folded: bool = False,
    log_norm: Tensor | None = None,
) -> Tensor:
    """log vM(delta; kappa), elementwise; delta in radians, on any branch.

    symmetric: bool, broadcastable: chi and chi + pi are the same there. With f the folded residual,
    sin^2(f/2) is the smaller of sin^2(d/2) and cos^2(d/2) and cos f = |cos d|, so nothing is ever
    folded; the proper form adds the far lobe as log((1 + exp(-2 kappa |cos d|)) / 2). log_norm is
    log_i0e(kappa) + log 2 pi where the caller has it.
    """
    half = 0.5 * delta
    square = half.sin().square()
    if log_norm is None:
        log_norm = log_i0e(kappa) + LOG_2PI
    if symmetric is None or not symmetric.any():
        return -2.0 * kappa * square - log_norm
    far = half.cos().square()
    near = torch.where(symmetric, torch.minimum(square, far), square)
    value = -2.0 * kappa * near - log_norm
    if folded:
        return value
    lobe = torch.log1p(torch.exp(-2.0 * kappa * (far - square).abs())) - math.log(2.0)
    return value + torch.where(symmetric, lobe, 0.0)


def wrap(angle: Tensor) -> Tensor:
    """The angle on (-pi, pi]."""
    return math.pi - torch.remainder(math.pi - angle, 2.0 * math.pi)


def fold(angle: Tensor) -> Tensor:
    """The angle of a pi-symmetric chi on (-pi/2, pi/2]."""
    return 0.5 * math.pi - torch.remainder(0.5 * math.pi - angle, math.pi)


def circular_distance(a: Tensor, b: Tensor, symmetric: Tensor) -> Tensor:
    """|a - b| on the circle, at most pi; at most pi/2 where symmetric."""
    distance = wrap(a - b).abs()
    return torch.where(symmetric, torch.minimum(distance, math.pi - distance), distance)


def sample_von_mises(
    mean: Tensor, kappa: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """One exact draw for each element; fp64 inside, the dtype of mean outside.

    Best & Fisher, Appl Statist 28 (1979) 152: rejection from a wrapped Cauchy, which is a uniform
    angle under a Moebius map, here tan(x/2) = (1-rho)/(1+rho) tan(u/2). In half angles neither the
    proposal nor kappa (r - cos x) cancels at large kappa. At least 0.65 of proposals are accepted.
    A kappa that is not finite gives nan.
    """
    kappa64 = kappa.detach().double().clamp(min=_SMALLEST_SAMPLED_KAPPA).reshape(-1)
    tau = 1.0 + (1.0 + 4.0 * kappa64.square()).sqrt()
    rho = (tau - (2.0 * tau).sqrt()) / (2.0 * kappa64)
    # tau - sqrt(2 tau) loses all digits for small kappa, where rho = kappa/2.
    rho = torch.where(kappa64 < 1e-5, 0.5 * kappa64, rho)
    scale = (1.0 - rho) / (1.0 + rho)
    offset = kappa64 * (1.0 - rho).square() / (2.0 * rho)  # kappa (r - 1)

    angle = torch.full_like(kappa64, math.nan)
    # No proposal is ever accepted where the offset is nan.
    pending = torch.nonzero(offset.isfinite()).squeeze(1)
    while len(pending):
        u = torch.rand(
            (2, len(pending)), generator=generator, dtype=torch.float64, device=kappa64.device
        )
        proposal = 2.0 * torch.atan(scale[pending] * torch.tan(math.pi * (u[0] - 0.5)))
        c = offset[pending] + 2.0 * kappa64[pending] * (0.5 * proposal).sin().square()
        accepted = u[1] < c * torch.exp(1.0 - c)
        angle[pending[accepted]] = proposal[accepted]
        pending = pending[~accepted]
    return wrap(angle.view(kappa.shape) + mean.detach().double()).to(mean.dtype)


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
        length = _resultant(self.kappa, self.symmetric[:, None, :])  # (N,K,D)
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


def categorical_entropy(log_weight: Tensor) -> Tensor:
    """-sum_k p log p over the last dimension, nats; finite where p underflows to 0."""
    return -(log_weight.exp() * log_weight).sum(-1)


_QUADRATURE_POINTS = 256


_SEPARATE_LOBES_FROM_KAPPA = 50.0
"""From here a lobe at mu and one at mu + pi overlap by less than exp(-2 kappa) = 1e-43."""


def von_mises_entropy(kappa: Tensor, symmetric: Tensor) -> Tensor:
    """Entropy of one von Mises kernel in nats, elementwise; of both lobes where symmetric.

    Two lobes apart add log 2; where they overlap, the trapezoid rule over the circle, which
    converges exponentially for a periodic function.
    """
    # -E[-2 kappa sin^2(d/2)] = kappa (1 - A(kappa))
    single = log_i0e(kappa) + LOG_2PI - kappa * bessel_ratio_minus_one(kappa)
    symmetric = symmetric.expand_as(kappa)
    entropy = torch.where(symmetric, single + math.log(2.0), single)
    overlapping = symmetric & (kappa < _SEPARATE_LOBES_FROM_KAPPA)
    if overlapping.any():
        step = 2.0 * math.pi / _QUADRATURE_POINTS
        delta = torch.arange(_QUADRATURE_POINTS, device=kappa.device, dtype=kappa.dtype) * step
        both = torch.ones((), dtype=torch.bool, device=kappa.device)
        log_p = log_von_mises(delta, kappa[overlapping][:, None], both)
        entropy[overlapping] = -(log_p.exp() * log_p).sum(-1) * step
    return entropy


def _resultant(kappa: Tensor, doubled: Tensor) -> Tensor:
    """E[cos delta], or E[cos 2 delta] = I2/I0 = 1 - 2 A(kappa) / kappa where doubled."""
    first = 1.0 + bessel_ratio_minus_one(kappa)
    small = kappa < 0.1  # 1 - 2A/kappa cancels there: kappa^2/8 - kappa^4/48 + ...
    second = torch.where(
        small,
        kappa.square() / 8.0 - kappa.pow(4) / 48.0,
        1.0 - 2.0 * first / torch.where(small, 1.0, kappa),
    )
    return torch.where(doubled, second, first)


def kappa_of_resultant(resultant: Tensor, steps: int = 3) -> Tensor:
    """Solve I1(k)/I0(k) = R for k: Banerjee et al. 2005 (eq. 4.4), then Newton steps.

    Newton works on 1 - R, which keeps its digits for narrow components.
    """
    r = resultant.double().clamp(0.0, 1.0 - 1.0 / (2.2 * KAPPA_MAX))
    kappa = (r * (2.0 - r * r) / (1.0 - r * r)).clamp(min=1e-6)
    for _ in range(steps):
        a = torch.special.i1e(kappa) / torch.special.i0e(kappa)
        slope = (1.0 - a / kappa - a * a).clamp(min=1e-9)
        kappa = (kappa - (a - r) / slope).clamp(1e-6, KAPPA_MAX)
    return kappa.to(resultant.dtype)


def merge_components(
    weight: Tensor, mean: Tensor, kappa: Tensor, symmetric: Tensor, num: int, negligible: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Alike components of one angle as one: weight, mean, kappa (R,J), J <= num, from (R,T).

    The heaviest takes those near it and about as wide, keeping their mean resultant; then the
    heaviest of those left does. Left out, and missing from the sum of the weights, is what comes
    after the ``num``-th, and components lighter than ``negligible``. symmetric (R,1) bool.
    """
    short = -bessel_ratio_minus_one(kappa)  # 1 - A(kappa), which keeps its digits
    rest, parts = weight.clone(), []
    for _ in range(num):
        heaviest, at = rest.max(dim=1, keepdim=True)
        if float(heaviest.max()) < negligible:
            break
        centre, own = mean.gather(1, at), kappa.gather(1, at)
        delta = wrap(mean - centre)
        delta = torch.where(symmetric, fold(delta), delta)
        taken = delta.square() * own <= MERGE_DEVIATIONS**2
        taken &= (kappa < MERGE_RATIO * own) & (own < MERGE_RATIO * kappa)
        taken.scatter_(1, at, True)
        share = torch.where(taken, rest, 0.0)
        total = share.sum(1, keepdim=True)
        share = share / total.clamp(min=torch.finfo(share.dtype).tiny)
        sine = (share * (1.0 - short) * delta.sin()).sum(1, keepdim=True)
        # One minus the cosine part, then one minus the length.
        lack = share * (short + (1.0 - short) * 2.0 * (delta / 2.0).sin().square())
        lack = lack.sum(1, keepdim=True).double()
        length = ((1.0 - lack).square() + sine.square()).sqrt()
        lack_of_length = (lack * (2.0 - lack) - sine.square()) / (1.0 + length)
        merged = kappa_of_resultant(1.0 - lack_of_length, steps=1).to(kappa.dtype)
        alone = (share > 0).sum(1, keepdim=True) <= 1
        turned = wrap(centre + torch.atan2(sine, (1.0 - lack).to(sine.dtype)))
        parts.append((total, turned, torch.where(alone, own, merged)))
        rest = rest.masked_fill(taken, 0.0)
    return tuple(torch.cat(x, dim=1) for x in zip(*parts, strict=True))


def occupancy_nll(log_prob: Tensor, occupancy: Tensor, rows: Tensor, num_residues: int) -> Tensor:
    """(N,) -sum_a o_a log p_a of each residue; 0 for a residue without rows.

    log_prob (M,), occupancy (M,) normalised over a residue's rows, rows (M,) long.
    """
    zero = log_prob.new_zeros(num_residues)
    return zero.index_add(0, rows, -occupancy.to(log_prob.dtype) * log_prob)


def residue_weights(
    defined: Tensor,
    rows: Tensor,
    num_residues: int,
    single_weight: float = 0.0,
    multiconformer_weight: float = 1.0,
) -> Tensor:
    """(N,) how much each residue counts in the loss; by default 1 in R of SPEC 7 and 0 outside.

    R: at least two observed altlocs, and at least one defined chi. single_weight is that of
    residues with one altloc (option ``train_on: all``).
    """
    num_altlocs = torch.bincount(rows, minlength=num_residues)
    has_chi = torch.zeros_like(num_altlocs).index_add_(0, rows, defined.any(-1).long()) > 0
    weight = torch.where(num_altlocs >= 2, multiconformer_weight, single_weight)
    return torch.where(has_chi, weight, 0.0)


def nll_sum(
    density,
    chi: Tensor,
    defined: Tensor,
    occupancy: Tensor,
    rows: Tensor,
    *,
    single_weight: float = 0.0,
    multiconformer_weight: float = 1.0,
    folded: bool = True,
) -> tuple[Tensor, Tensor]:
    """Weighted sum over residues of the loss of SPEC 7, and the sum of the weights: two scalars.

    density: protocol over N residues; chi (M,D), defined (M,D), occupancy (M,) and rows (M,) long
    as in ``log_prob``. Only rows that count are scored. The quotient of the two over several
    proteins or processes is the loss of all their residues together.
    """
    num_residues = len(density)
    weight = residue_weights(defined, rows, num_residues, single_weight, multiconformer_weight)
    used = weight[rows] > 0
    at = rows[used]
    log_prob = density.log_prob(chi[used], defined[used], at, folded=folded)
    nll = occupancy_nll(log_prob, occupancy[used], at, num_residues)
    weight = weight.to(nll.dtype)
    return (weight * nll).sum(), weight.sum()


def mixture_nll(density, chi, defined, occupancy, rows, **options) -> Tensor:
    """The loss of SPEC 7: mean over R, a scalar; 0, with zero gradients, where R is empty."""
    total, weight = nll_sum(density, chi, defined, occupancy, rows, **options)
    return total / torch.where(weight > 0, weight, 1.0)
