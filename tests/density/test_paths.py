"""A density that goes chi by chi, as a mixture: what is divided, and what is put together."""

import math

import pytest
import torch

from qfitlatent.density import paths
from qfitlatent.density.autoregressive import AutoregressiveDensity
from qfitlatent.density.reduction import Paths, reduced
from qfitlatent.density.von_mises import log_von_mises


class Ring:
    """chi1 near 0, chi2 minus chi1, both with concentrations of their own."""

    kappa_min = 0.01

    def __init__(self, kappa1: float, kappa2: float, follows: float = -1.0) -> None:
        self.kappa, self.follows = (kappa1, kappa2), follows

    def residue(self, s):
        return s.new_zeros((len(s), 4))

    def step(self, d, residue, chi, known):
        mean = self.follows * chi[:, -1:] if d else residue.new_zeros((len(residue), 1))
        return torch.zeros_like(mean), mean, torch.full_like(mean, self.kappa[d])


def of(head) -> AutoregressiveDensity:
    mask = torch.tensor([[True, True, False, False]])
    return AutoregressiveDensity(head, torch.zeros(1, 4), mask, torch.zeros_like(mask))


def lost(density) -> float:
    """Nats that the mixture loses, over draws of the density."""
    draws = density.sample(4000, torch.Generator().manual_seed(1))[:, 0]
    every, rows = (
        torch.ones_like(draws, dtype=torch.bool),
        torch.zeros(len(draws), dtype=torch.long),
    )
    exact = density.log_prob(draws, every, rows)
    return float((exact - density.as_mixture().log_prob(draws, every, rows)).mean())


def test_a_component_is_divided_so_that_the_next_chi_can_follow_it(monkeypatch):
    density = of(Ring(30.0, 100.0))
    assert lost(density) < 0.02
    monkeypatch.setattr(paths, "PARTS_BEFORE_LAST", ())
    assert lost(density) > 0.5  # one component cannot say what goes with what


def test_the_next_chi_follows_within_a_wide_component_too():
    assert lost(of(Ring(0.5, 4.0))) < 0.05


def test_nothing_is_lost_where_the_next_chi_is_the_same_everywhere():
    density = of(Ring(30.0, 200.0, follows=0.0))
    assert lost(density) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("num", list(paths.SPACING_AND_WIDTH))
def test_parts_of_a_component_are_together_what_it_is(num):
    place, share, width = paths.parts_of_a_normal(num)
    x = torch.linspace(-5.0, 5.0, 501)[:, None]
    normal = torch.distributions.Normal
    log_parts = (share.log() + normal(place, width).log_prob(x)).logsumexp(1)
    log_whole = normal(0.0, 1.0).log_prob(x[:, 0])
    assert float((log_whole.exp() * (log_whole - log_parts)).sum()) * 0.02 < 0.005


def test_kernels_round_the_circle_are_together_the_wide_component_that_they_stand_for():
    mean, kappa = torch.tensor([[0.4, 2.0], [3.1, -1.0]]), torch.tensor([[4.0, 300.0], [0.01, 8.0]])
    weight = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
    components = paths._narrow(weight.log(), mean, kappa)
    axis = torch.linspace(-math.pi, math.pi, 181)[:, None, None]

    def density(weight, mean, kappa):
        return (weight * log_von_mises(axis - mean, kappa).exp()).sum(-1)

    own = density(weight, mean, kappa)
    torch.testing.assert_close(density(*components), own, atol=0.03, rtol=0.0)
    narrow = components[2][components[0] > 0]
    assert float(narrow.min()) == pytest.approx(1.0 / paths.WIDTH**2)


def some_paths(weight, mean, kappa=50.0) -> Paths:
    """Paths of residue 0 with a chi1 and a chi2."""
    mean = torch.tensor([[*place, 0.0, 0.0] for place in mean])
    kappa = torch.tensor([[kappa, kappa, 0.01, 0.01]]).expand(len(mean), -1)
    residue = torch.zeros(len(mean), dtype=torch.long)
    return Paths(residue, torch.tensor(weight).log(), mean, kappa)


NONE = torch.zeros(1, 4, dtype=torch.bool)


def test_a_light_path_joins_the_nearest_and_makes_it_wider():
    found = some_paths([0.5, 0.3, 0.2], [(1.0, 1.0), (-2.0, 2.0), (-2.2, 2.2)])
    near = reduced(found, 2, NONE)
    torch.testing.assert_close(near.weight.exp(), torch.tensor([0.5, 0.5]))
    assert near.mean[1, :2].tolist() == pytest.approx([-2.08, 2.08], abs=1e-3)
    assert float(near.kappa[1, 0]) < 45.0
    torch.testing.assert_close(near.kappa[0], found.kappa[0], rtol=1e-3, atol=1e-3)
    assert reduced(found, 3, NONE).weight.shape == (3,)


def test_half_turns_of_a_symmetric_chi_are_near():
    found = some_paths([0.7, 0.3], [(1.0, 1.5), (1.0, 1.5 - math.pi)])
    symmetric = torch.tensor([[False, True, False, False]])
    together = reduced(found, 1, symmetric)
    assert together.mean[:, :2].tolist() == [pytest.approx([1.0, 1.5], abs=1e-4)]
    torch.testing.assert_close(together.kappa[0], found.kappa[0], rtol=1e-3, atol=1e-3)


def test_paths_that_are_far_from_all_stand_by_rotamer_with_their_weight():
    places = [(1.0, 1.0), (3.0, 3.0), (3.2, 2.8), (-1.0, 1.0)]
    found = some_paths([0.6, 0.2, 0.1, 0.1], places)
    one = reduced(found, 1, NONE)
    weights, order = one.weight.exp().sort(descending=True)
    torch.testing.assert_close(weights, torch.tensor([0.6, 0.3, 0.1]))
    assert one.mean[order[1], :2].tolist() == pytest.approx([3.067, 2.933], abs=1e-2)
