"""Points that stand for equal shares of a density."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.density.quantiles import even_points, mixture_quantile, von_mises_quantile
from qfitlatent.density.von_mises import log_von_mises


@pytest.mark.parametrize("kappa", [1e-3, 0.5, 3.0, 30.0, 500.0, 8e3, 1e6])
def test_quantiles_are_those_of_the_kernel(kappa):
    """To 0.002 of its width, from the middle to the tails."""
    share = torch.tensor([1e-4, 0.01, 0.2, 0.4, 0.5, 0.7, 0.99, 0.9999])
    ours = von_mises_quantile(share, torch.full_like(share, kappa))
    theirs = stats.vonmises.ppf(share.numpy(), kappa)
    np.testing.assert_allclose(
        ours * math.sqrt(1 + kappa), theirs * math.sqrt(1 + kappa), atol=2e-3
    )


def test_points_fill_the_cube_evenly():
    """Each half, quarter and eighth of each side has its share, of the first 2^m also."""
    points = even_points(256, 4)
    assert points.min() > 0
    assert points.max() < 1
    for num in (64, 128, 256):
        for axis in points[:num].T:
            assert (torch.histc(axis, 8, 0, 1) == num / 8).all()


def test_mixture_quantiles_hold_the_mass_of_every_component():
    """Equal steps in share have equal mass; a mass that is moved by a share of it is nowhere."""
    g = torch.Generator().manual_seed(0)
    log_weight = torch.randn(6, 5, generator=g).log_softmax(1)
    mean = (torch.rand(6, 5, generator=g) * 2 - 1) * math.pi
    kappa = torch.rand(6, 5, generator=g) * 300 + 0.1
    num = 4096
    share = ((torch.arange(num) + 0.5) / num).expand(6, -1)
    angle = mixture_quantile(share, log_weight, mean, kappa)
    assert angle.abs().max() <= math.pi
    edges = torch.linspace(-math.pi, math.pi, 41)
    counts = torch.stack([torch.histc(a, 40, -math.pi, math.pi) for a in angle]) / num
    fine = edges[:-1, None] + (torch.arange(200) + 0.5) / 200 * (edges[1] - edges[0])
    log_p = log_weight[:, None, None] + log_von_mises(
        fine[None, ..., None] - mean[:, None, None], kappa[:, None, None]
    )
    mass = log_p.exp().sum(-1).mean(-1) * (2 * math.pi / 40)
    torch.testing.assert_close(counts, mass, atol=2e-3, rtol=0)


def test_points_of_a_mixture_stand_for_equal_mass():
    """E_p[q/p] = 1 for any density q, here the uniform one, to what 1,024 points leave."""
    g = torch.Generator().manual_seed(1)
    weight = torch.randn(30, 6, generator=g).log_softmax(1)
    mean = (torch.rand(30, 6, 2, generator=g) * 2 - 1) * math.pi
    mask, symmetric = torch.ones(30, 2, dtype=torch.bool), torch.rand(30, 2, generator=g) < 0.3
    mixture = VonMisesMixture(weight, mean, torch.rand(30, 6, 2, generator=g) * 2, mask, symmetric)
    points = mixture.points(1024)
    ratio = (-2 * math.log(2 * math.pi) - points.log_prob).exp().mean(0)
    assert float((ratio - 1).abs().max()) < 0.03
