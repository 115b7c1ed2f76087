"""Angles and backbone frames, in float64 numpy (SPEC 3 and 4).

Shapes: N points or residues. Lengths in angstrom, angles in radians. Where an input is nan, or a
direction does not exist, the result is nan (or not ``ok``), never a made-up number.
"""

import numpy as np

MIN_SINE = 1e-3
"""Smallest sine of the angle N-CA-C that still gives a frame: below it the plane is noise."""

MIN_LENGTH_ANGSTROM = 1e-3
"""Atoms nearer than this coincide."""


def wrap(angle: np.ndarray) -> np.ndarray:
    """The same angle in (-pi, pi]."""
    turned = np.arctan2(np.sin(angle), np.cos(angle))
    return np.where(turned <= -np.pi, np.pi, turned)


def fold(angle: np.ndarray) -> np.ndarray:
    """Pi-symmetric angles to (-pi/2, pi/2]: an angle and the same + pi are one conformation."""
    return angle - np.pi * np.ceil(angle / np.pi - 0.5)


def circular_distance(a: np.ndarray, b: np.ndarray, symmetric: np.ndarray) -> np.ndarray:
    """Distance of two angles in [0, pi]; where ``symmetric``, a and a + pi are the same."""
    apart = np.abs(a - b) % (2 * np.pi)
    apart = np.minimum(apart, 2 * np.pi - apart)
    return np.where(symmetric, np.minimum(apart, np.pi - apart), apart)


def dihedral(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """(N,) dihedral a-b-c-d in (-pi, pi], IUPAC sign: clockwise positive looking along b-c.

    nan where three of the points are on a line, or two neighbours coincide.
    """
    u, v, w = b - a, c - b, d - c
    n1, n2 = cross(u, v), cross(v, w)
    length = np.sqrt(_dot(v, v))
    sine, cosine = length * _dot(u, n2), _dot(n1, n2)
    defined = (sine != 0) | (cosine != 0)
    angle = np.arctan2(sine, cosine)
    return np.where(defined, np.where(angle <= -np.pi, np.pi, angle), np.nan)


def frames(
    n: np.ndarray, ca: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Backbone frames of SPEC 4: rotation (N,3,3) local to global, translation (N,3), ok (N,) bool.

    CA is the origin, C lies on +x, N in the xy-plane with positive y. Not ``ok`` where an atom is
    missing (nan), two coincide, or the three are on a line; rotation is nan there.
    """
    to_c, to_n = c - ca, n - ca
    length_c, length_n = np.sqrt(_dot(to_c, to_c)), np.sqrt(_dot(to_n, to_n))
    across = cross(to_c, to_n)
    with np.errstate(invalid="ignore", divide="ignore"):
        ok = (length_c > MIN_LENGTH_ANGSTROM) & (length_n > MIN_LENGTH_ANGSTROM)
        ok &= np.sqrt(_dot(across, across)) > MIN_SINE * length_c * length_n
        rotation = axes(n, ca, c)
    rotation[~ok] = np.nan
    return rotation, np.array(ca, dtype=np.float64), ok


def axes(n: np.ndarray, ca: np.ndarray, c: np.ndarray) -> np.ndarray:
    """(...,3,3) the axes x, y, z of SPEC 4 as columns, of backbones that have them."""
    x = unit(c - ca)
    z = unit(cross(x, n - ca))
    return np.stack((x, cross(z, x), z), axis=-1)


def virtual_cb(n: np.ndarray, ca: np.ndarray, c: np.ndarray) -> np.ndarray:
    """(N,3) where CB is, or in glycine would be, from the backbone alone.

    Coefficients of the ideal L-alanine, as in Dauparas et al. 2022 (ProteinMPNN).
    """
    b, d = ca - n, c - ca
    return -0.58273431 * cross(b, d) + 0.56802827 * b - 0.54067466 * d + ca


def unit(v: np.ndarray) -> np.ndarray:
    """The direction of vectors on the last axis."""
    return v / np.sqrt((v * v).sum(axis=-1, keepdims=True))


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("...i,...i->...", a, b)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """np.cross on the last axis, several times faster for small arrays."""
    a0, a1, a2 = a[..., 0], a[..., 1], a[..., 2]
    b0, b1, b2 = b[..., 0], b[..., 1], b[..., 2]
    return np.stack([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], axis=-1)
