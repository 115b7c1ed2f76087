"""Order parameters, couplings and rotamer populations of mixtures, all in closed form.

Within a component the chi are independent, and of a von Mises chi everything below asks for the
first two circular moments alone, A1 = I1/I0 and A2 = I2/I0 of its concentration:

    S2 = 3/2 sum_ij <u_i u_j>^2 - 1/2,

u the unit vector of the methyl axis in the frame of the backbone (Lipari & Szabo, J. Am. Chem. Soc.
104 (1982) 4546, in the limit of long times), is built from the outer product u u^T, which each chi
from the last to the first turns about its bond: there its parts that turn once with chi shrink by
A1, and those that turn twice by A2. J is linear in <cos theta> and <cos 2 theta>. A population is
an integral of von Mises kernels.

Shapes: N residues, Q kinds, W the most that a residue type has, R values, K components, D chi.
Angles in radians.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qfitlatent.chemistry.observables import (
    MAX_DEPTH,
    NUM_ROTAMERIC,
    ROTAMERS,
    Axis,
    Karplus,
    kinds,
    kinds_of,
)
from qfitlatent.chemistry.residues import NUM_CHI
from qfitlatent.density.mixture import VonMisesMixture

SERIES_TERMS, NORMAL_FROM_KAPPA = 30, 10.5
"""Of the integral of a kernel: terms of the series, and from where a normal one is as good."""

_SMALLEST_KAPPA = 1e-3
"""Below it a kernel is flat to 1e-3, and A2 from A1 would lose its digits."""

LIGHTEST = math.log(1e-7)
"""Logarithm of the weight from which a component counts."""

RESIDUES_AT_A_TIME = 128
"""Whose components are held in fp64."""


class Observables(NamedTuple):
    """values (N,W) of the kinds of each residue's type, ``kinds_of``, then nan; rotamer_entropy
    (N,), in units of kB, over the thirds of the circle of all chi that have rotamers."""

    values: np.ndarray
    rotamer_entropy: np.ndarray


@torch.no_grad()
def observables(mixture: VonMisesMixture, token: np.ndarray) -> Observables:
    """What can be measured of residues of types token (N,), in fp64."""
    values = np.full((len(token), kinds_of().shape[1]), np.nan)
    entropy = np.zeros(len(token))
    for num_chi in np.unique(NUM_CHI[token[NUM_CHI[token] > 0]]):
        # The fewer chi, the fewer components: what only fills up the arrays is not computed with.
        every = np.flatnonzero(NUM_CHI[token] == num_chi)
        for first in range(0, len(every), RESIDUES_AT_A_TIME):
            rows = every[first : first + RESIDUES_AT_A_TIME]
            own = _heavy(mixture.select(torch.from_numpy(rows)))
            values[rows], entropy[rows] = _of_alike(own, token[rows])
    return Observables(values, entropy)


def _heavy(mixture: VonMisesMixture) -> VonMisesMixture:
    """The components that count, the heaviest first, in fp64."""
    num = int((mixture.log_weight > LIGHTEST).sum(1).max())
    log_weight, order = mixture.log_weight.double().topk(num, dim=1)
    wide = order[..., None].expand(-1, -1, mixture.mean.shape[-1])
    mean, kappa = (x.double().gather(1, wide) for x in (mixture.mean, mixture.kappa))
    masks = mixture.chi_mask, mixture.symmetric
    return VonMisesMixture(log_weight.log_softmax(1), mean, kappa, *masks)


def _of_alike(mixture: VonMisesMixture, token: np.ndarray) -> Observables:
    kind = kinds_of()[token]
    quantity = np.array([one.quantity for one in kinds()])[kind]
    values = np.full(kind.shape, np.nan)
    weight, mean = mixture.log_weight.exp(), mixture.mean
    first = _first_moment(mixture.kappa)
    second = _second_moment(mixture.kappa, first)
    for name, of, parameters in (
        ("S2", _order_parameters, _axes()),
        ("3J", _couplings, _curves()),
    ):
        at = np.nonzero((quantity == name) & (kind >= 0))
        row, own = at[0], torch.from_numpy(parameters[kind[at]])
        values[at] = of(weight[row], mean[row], first[row], second[row], own).numpy()
    shares = _shares(mixture, torch.from_numpy(NUM_ROTAMERIC)[token])
    third = (weight[:, None] @ shares[:, :, 0])[:, 0].numpy()  # (N,3)
    at = np.nonzero((quantity == "population") & (kind >= 0))
    values[at] = third[at[0], _thirds()[kind[at]]]
    return Observables(values, _rotamer_entropy(weight, shares).numpy())


def _shares(mixture: VonMisesMixture, num_rotameric: Tensor) -> Tensor:
    """(N,K,D,3) share of each component in each third of each of its first num_rotameric (N,) chi.

    Of other chi all is in the first third.
    """
    dims = torch.arange(mixture.mean.shape[-1])
    has = (dims < num_rotameric[:, None])[:, None].expand_as(mixture.mean)
    at = torch.nonzero(has.flatten())[:, 0]
    mean, kappa = (x.flatten().index_select(0, at) for x in (mixture.mean, mixture.kappa))
    edge = torch.arange(len(ROTAMERS) + 1, dtype=mean.dtype) * (2.0 * math.pi / len(ROTAMERS))
    below = von_mises_share(edge[:-1] - mean[:, None], kappa[:, None].expand(-1, len(ROTAMERS)))
    below = torch.cat([below, 1.0 + below[:, :1]], dim=1)
    shares = torch.zeros((has.numel(), len(ROTAMERS)), dtype=mean.dtype)
    shares[:, 0] = 1.0
    return shares.index_copy_(0, at, below.diff(dim=1)).view(*has.shape, len(ROTAMERS))


def _rotamer_entropy(weight: Tensor, shares: Tensor) -> Tensor:
    """(N,) -sum p log p over the joint thirds of the chi."""
    first, second, third, last = shares.unbind(2)
    near = (first[..., :, None] * second[..., None, :]).flatten(2) * weight[..., None]
    far = (third[..., :, None] * last[..., None, :]).flatten(2)
    return torch.special.entr((near.mT @ far).clamp(min=0.0)).sum((1, 2))


def _first_moment(kappa: Tensor) -> Tensor:
    """A1, elementwise, in fp64."""
    kappa = kappa.clamp(min=_SMALLEST_KAPPA)
    return torch.special.i1e(kappa) / torch.special.i0e(kappa)


def _second_moment(kappa: Tensor, first: Tensor) -> Tensor:
    """A2 from A1, elementwise, in fp64."""
    return 1.0 - 2.0 * first / kappa.clamp(min=_SMALLEST_KAPPA)


def _order_parameters(
    weight: Tensor, mean: Tensor, first: Tensor, second: Tensor, axis: Tensor
) -> Tensor:
    """(R,) S2 of axes (R,3,2), angle and offset of each chi, nan beyond the last.

    <u u^T> is kept by its parts in the frame of the bond that the next chi turns about, x along
    it: xx; (xy, xz), which turn with chi; (yy - zz)/2 and yz, which turn with 2 chi. The trace is
    1.
    """
    outer = torch.zeros((*weight.shape, 3, 3), dtype=weight.dtype)  # (R,K,3,3)
    outer[..., 0, 0] = 1.0
    for d in reversed(range(MAX_DEPTH)):
        angle, offset = axis[:, d].unbind(1)
        has = ~angle.isnan()
        turn = _turn(angle[has])[:, None]
        chi = mean[has, :, d] + offset[has, None]
        seen = turn @ outer[has] @ turn.mT
        outer[has] = _averaged(seen, chi, first[has, :, d], second[has, :, d])
    mixed = (weight[..., None, None] * outer).sum(1)
    return 1.5 * mixed.square().sum((1, 2)) - 0.5


def _turn(angle: Tensor) -> Tensor:
    """(R,3,3) axes of the next bond, at this bond angle and a dihedral of 0, seen from this one."""
    cos, sin = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    rows = (-cos, -sin, zero), (sin, -cos, zero), (zero, zero, one)
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _averaged(outer: Tensor, chi: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(R,K,3,3) mean of outer, turned about x by angles around chi with these moments."""
    cos, sin = first * chi.cos(), first * chi.sin()
    cos2, sin2 = second * (2.0 * chi).cos(), second * (2.0 * chi).sin()
    xx, xy, xz = outer[..., 0, 0], outer[..., 0, 1], outer[..., 0, 2]
    half, yz = 0.5 * (outer[..., 1, 1] - outer[..., 2, 2]), outer[..., 1, 2]
    xy, xz = cos * xy - sin * xz, sin * xy + cos * xz
    half, yz = cos2 * half - sin2 * yz, sin2 * half + cos2 * yz
    rest = 0.5 * (1.0 - xx)
    rows = (xx, xy, xz), (xy, rest + half, yz), (xz, yz, rest - half)
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _couplings(
    weight: Tensor, mean: Tensor, first: Tensor, second: Tensor, curve: Tensor
) -> Tensor:
    """(R,) Hz, of curves (R,4): shift, A, B, C."""
    shift, a, b, c = curve[:, :, None].unbind(1)
    theta = mean[..., 0] + shift
    square = 0.5 * (1.0 + second[..., 0] * (2.0 * theta).cos())
    return (weight * (a * square + b * first[..., 0] * theta.cos() + c)).sum(1)


def von_mises_share(angle: Tensor, kappa: Tensor) -> Tensor:
    """Integral of vM(0, kappa) from 0 to an angle on any branch, elementwise, in fp64; to 1e-8.

    Hill, ACM Trans Math Softw 3 (1977) 279: the Fourier series by downward recurrence, or a normal
    kernel with a correction where kappa is large.
    """
    turns = torch.round(angle / (2.0 * math.pi))
    angle = angle - 2.0 * math.pi * turns
    shape, angle, kappa = angle.shape, angle.flatten(), kappa.flatten()
    share, narrow = torch.empty_like(angle), kappa >= NORMAL_FROM_KAPPA
    for form, those in ((_normal_share, narrow), (_series_share, ~narrow)):
        at = torch.nonzero(those)[:, 0]
        share.index_copy_(0, at, form(angle.index_select(0, at), kappa.index_select(0, at)))
    return share.view(shape) + turns


def _series_share(angle: Tensor, kappa: Tensor) -> Tensor:
    ratio, total = torch.zeros_like(angle), torch.zeros_like(angle)
    twice = 2.0 * angle.cos()
    above, sin = ((n * angle).sin() for n in (SERIES_TERMS + 1, SERIES_TERMS))
    for n in range(SERIES_TERMS, 0, -1):
        ratio = kappa / (2.0 * n + kappa * ratio)  # I_n / I_(n-1)
        total = ratio * (sin / n + total)
        above, sin = sin, twice * sin - above  # of n - 1 times the angle
    return angle / (2.0 * math.pi) + total / math.pi


def _normal_share(angle: Tensor, kappa: Tensor) -> Tensor:
    c = 24.0 * kappa
    v = c - 56.0
    z = (0.5 * angle).sin() * ((54.0 / (347.0 / v + 26.0 - c) - 6.0 + c) / 12.0).sqrt()
    s = 2.0 * z.square()
    v = v - s + 3.0
    y = ((s + 1.75) * s + 83.5) / v - (c - 2.0 * s - 16.0) / 3.0
    return 0.5 * torch.erf(z - s / y.square() * z)


@cache
def _axes() -> np.ndarray:
    """(Q,3,2) angle and offset of each chi of an order parameter's axis; nan where there is none"""
    table = np.full((len(kinds()), MAX_DEPTH, 2), np.nan)
    for row, kind in zip(table, kinds(), strict=True):
        if isinstance(kind.form, Axis):
            row[: len(kind.form.angle)] = np.column_stack((kind.form.angle, kind.form.offset))
    return table


@cache
def _curves() -> np.ndarray:
    """(Q,4) shift, A, B, C of a coupling; nan of what is none."""
    forms = [kind.form for kind in kinds()]
    nothing = Karplus(*[math.nan] * 4)
    curves = [form if isinstance(form, Karplus) else nothing for form in forms]
    return np.array([(curve.shift, curve.a, curve.b, curve.c) for curve in curves])


@cache
def _thirds() -> np.ndarray:
    """(Q,) number of the third of the circle of a population; 0 of what is none."""
    return np.array([ROTAMERS.index(k.site) if k.form is None else 0 for k in kinds()])
