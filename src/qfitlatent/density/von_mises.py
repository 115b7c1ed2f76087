"""The von Mises kernel: log I0, log density, sampling, merging of components.

Everything is finite, values and gradients, for kappa from 1e-3 to 1e6 in fp32. Two rewritings do
it: kappa cos d - kappa = -2 kappa sin^2(d/2), which does not cancel, and log i0e in place of
log I0, with a series for its derivative at large kappa. Angles in radians on (-pi, pi].
"""

import math
from typing import Any

import torch
from torch import Tensor

from qfitlatent.density.bessel import bessel_ratio_minus_one, log_i0e_of

LOG_2PI = math.log(2.0 * math.pi)
LOG_NOTHING = -60.0
"""Logarithm of a share that no sum notices. A CPU takes ninety times as long over an exponential
that underflows, and as long again over every product with what is left of it."""

KAPPA_MAX = 2000.0
"""Narrowest component that is fitted, 1.3 degrees: below what coordinates tell."""

_SMALLEST_SAMPLED_KAPPA = 1e-6
"""Below this the kernel is flat to within fp32."""


def exp_of_share(log_share: Tensor) -> Tensor:
    """exp of logarithms of shares, at most about 0; from ``LOG_NOTHING`` down as small as there."""
    return log_share.clamp(min=LOG_NOTHING).exp()


def log_sum_exp(x: Tensor, dim: int = -1) -> Tensor:
    """log sum exp over a dimension, which needs a finite number at least."""
    top = x.detach().amax(dim, keepdim=True)
    return exp_of_share(x - top).sum(dim).log() + top.squeeze(dim)


def log_one_and(x: Tensor) -> Tensor:
    """log(1 + x), right to 1e-7 in itself if not in its digits: a tenth of the time of log1p."""
    return (1.0 + x).log()


def log_add_exp(a: Tensor, b: Tensor) -> Tensor:
    """log(exp a + exp b), elementwise: a tenth of the time of logaddexp where they are apart."""
    top = torch.maximum(a, b)
    return top + log_one_and(exp_of_share(torch.minimum(a, b) - top))


def log_sum_and_entropy(x: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
    """``log_sum_exp(x)`` and ``categorical_entropy(x)``, for little more than one of them."""
    top = x.detach().amax(dim, keepdim=True)
    below = (x - top).clamp(min=LOG_NOTHING)
    share = below.exp()
    total = share.sum(dim)
    log_total = total.log()
    return log_total + top.squeeze(dim), log_total - (share * below).sum(dim) / total


class _LogI0e(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kappa: Tensor) -> Tensor:
        ctx.save_for_backward(kappa)
        return log_i0e_of(kappa)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (kappa,) = ctx.saved_tensors
        return gradient * bessel_ratio_minus_one(kappa)


def log_i0e(kappa: Tensor) -> Tensor:
    """log(I0(kappa) exp(-kappa)) with a gradient that stays exact at large kappa; elementwise."""
    return _LogI0e.apply(kappa)


def log_i0(kappa: Tensor) -> Tensor:
    """log I0(kappa), finite for every kappa >= 0; elementwise."""
    return log_i0e(kappa) + kappa


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
    # Arithmetic in the place of torch.where, which takes ten times as long. Both squares are at
    # most 1, so that the far lobe of a chi without one is never the nearer.
    far, has_far = half.cos().square(), symmetric.to(square.dtype)
    near = torch.minimum(square, far + 2.0 * (1.0 - has_far))
    value = -2.0 * kappa * near - log_norm
    if folded:
        return value
    lobe = log_one_and(exp_of_share(-2.0 * kappa * (far - square).abs())) - math.log(2.0)
    return value + lobe * has_far


def wrap(angle: Tensor) -> Tensor:
    """The angle on (-pi, pi]."""
    return math.pi - torch.remainder(math.pi - angle, 2.0 * math.pi)


def fold(angle: Tensor) -> Tensor:
    """The angle of a pi-symmetric chi on (-pi/2, pi/2]."""
    return 0.5 * math.pi - torch.remainder(0.5 * math.pi - angle, math.pi)


def principal(angle: Tensor, symmetric: Tensor) -> Tensor:
    """The angle on (-pi, pi], or on (-pi/2, pi/2] where symmetric."""
    angle = wrap(angle)
    return torch.where(symmetric, fold(angle), angle)


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


def categorical_entropy(log_weight: Tensor) -> Tensor:
    """-sum_k p log p over the last dimension, nats, with p in proportion to exp(log_weight)."""
    return log_sum_and_entropy(log_weight)[1]


_QUADRATURE_STEPS = 32
_SEPARATE_LOBES_FROM_KAPPA = 20.0
"""From here a lobe at mu and one at mu + pi overlap by less than exp(-2 kappa) = 1e-17."""


def kernel_entropy(kappa: Tensor, log_norm: Tensor) -> Tensor:
    """Entropy of one lobe in nats, elementwise; log_norm as in ``log_von_mises``."""
    # -E[-2 kappa sin^2(d/2)] = kappa (1 - A(kappa))
    return log_norm - kappa * bessel_ratio_minus_one(kappa)


def von_mises_entropy(kappa: Tensor, symmetric: Tensor) -> Tensor:
    """Entropy of one von Mises kernel in nats, elementwise; of both lobes where symmetric.

    Two lobes apart add log 2; where they overlap, the trapezoid rule over the circle, which
    converges exponentially for a periodic function: over a quarter of it, as all four are alike.
    """
    single = kernel_entropy(kappa, log_i0e(kappa) + LOG_2PI)
    symmetric = symmetric.expand_as(kappa)
    entropy = torch.where(symmetric, single + math.log(2.0), single)
    overlapping = symmetric & (kappa < _SEPARATE_LOBES_FROM_KAPPA)
    if overlapping.any():
        own = kappa[overlapping][:, None]
        step = 0.5 * math.pi / _QUADRATURE_STEPS
        delta = step * torch.arange(_QUADRATURE_STEPS + 1, device=kappa.device, dtype=kappa.dtype)
        log_p = log_von_mises(delta, own, torch.ones_like(own, dtype=torch.bool))
        weight = torch.full_like(delta, 4.0 * step)
        weight[[0, -1]] *= 0.5
        entropy[overlapping] = -(exp_of_share(log_p) * log_p) @ weight
    return entropy


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
