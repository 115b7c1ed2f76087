"""How probable it is that a side chain stands where it is written, by its own density; no torch.

Shapes: n residues, K components, D=4 chi.
"""

import numpy as np

from qfitlatent.chemistry.residues import CHI_DEFINED, PI_SYMMETRIC

RIGHT_RADIANS = np.deg2rad(40.0)
"""A chi angle is right when it is so near (SPEC 8)."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
_WIDTHS = 8.0
"""Beyond so many standard deviations a kernel holds nothing."""


def confidence(
    weight: np.ndarray, mean: np.ndarray, kappa: np.ndarray, token: np.ndarray, chi: np.ndarray
) -> np.ndarray:
    """(n,D) probability that chi 1 to d are all right; behind a type's last chi it stays.

    weight (n,K), mean and kappa (n,K,D): the density; token (n,); chi (n,D) radians as written.
    """
    symmetric = PI_SYMMETRIC[token][:, None]
    away = chi[:, None] - mean
    right = interval_mass(away, kappa)
    opposite = interval_mass(away + np.pi, kappa)
    right = np.where(symmetric, right + opposite, right)
    right = np.where(CHI_DEFINED[token][:, None], right, 1.0)
    together = np.cumprod(right, axis=2)
    return np.clip((weight[..., None] * together).sum(axis=1) / weight.sum(1)[:, None], 0.0, 1.0)


def interval_mass(away: np.ndarray, kappa: np.ndarray) -> np.ndarray:
    """Mass of a von Mises kernel within RIGHT_RADIANS of a point ``away`` from its mean.

    By quadrature where the kernel is: exact to 1e-6 from flat to kappa 1e6.
    """
    away = np.abs((away + np.pi) % (2 * np.pi) - np.pi)
    kappa = np.maximum(kappa, 0.0)
    reach = np.minimum(np.pi, _WIDTHS / np.sqrt(np.maximum(kappa, 1e-6)))
    total = np.zeros(np.broadcast_shapes(away.shape, kappa.shape))
    # The interval may reach beyond the seam at pi, and go on at -pi.
    for turn in (0.0, -2 * np.pi):
        low = np.maximum(away - RIGHT_RADIANS + turn, -reach)
        high = np.minimum(away + RIGHT_RADIANS + turn, reach)
        half = np.maximum(high - low, 0.0) / 2
        at = (low + half)[..., None] + half[..., None] * _NODES
        density = np.exp(-2.0 * kappa[..., None] * np.sin(at / 2) ** 2)
        total = total + half * (density @ _WEIGHTS)
    return total / (2 * np.pi * _i0e(kappa))


def _i0e(kappa: np.ndarray) -> np.ndarray:
    """exp(-kappa) I0(kappa): by numpy, from 50 on by the asymptotic series (A&S 9.7.1)."""
    small = np.minimum(kappa, 50.0)
    large = np.maximum(kappa, 50.0)
    inverse = 1.0 / (8.0 * large)
    series = 1.0 + inverse * (1.0 + 4.5 * inverse * (1.0 + 25.0 / 3.0 * inverse))
    return np.where(
        kappa < 50.0, np.i0(small) * np.exp(-small), series / np.sqrt(2 * np.pi * large)
    )
