"""A density that goes chi by chi, as a mixture: what is split, and what is left over."""

import math

import pytest
import torch

from qfitlatent.density import paths
from qfitlatent.density.autoregressive import AutoregressiveDensity


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


def test_a_component_is_split_where_the_next_chi_follows_it(monkeypatch):
    density = of(Ring(30.0, 100.0))
    assert lost(density) < 0.1
    monkeypatch.setattr(paths, "MIN_INFORMATION", math.inf)
    assert lost(density) > 0.5  # one component cannot say what goes with what


def test_a_component_is_not_split_where_the_next_chi_is_the_same_everywhere():
    density = of(Ring(30.0, 200.0, follows=0.0))
    assert (density.as_mixture().log_weight > -math.inf).sum() == 1
    assert lost(density) == pytest.approx(0.0, abs=1e-3)


def test_parts_of_a_component_are_together_what_it_is():
    share, point = (torch.tensor(x) for x in (paths.POINT_WEIGHTS, paths.POINTS))
    assert float(share.sum()) == pytest.approx(1.0, abs=1e-3)
    assert float((share * point**2).sum()) + paths.NARROWER**2 == pytest.approx(1.0, abs=0.01)


def test_paths_that_are_given_up_keep_their_weight_and_place():
    found = paths.Paths(
        torch.tensor([0, 0, 1, 1]),
        torch.tensor([0.1, 0.3, 0.2, 0.2]).log(),
        torch.tensor([[1.0, 1.2, 0, 0], [1.2, 1.0, 0, 0], [1.0, 3.0, 0, 0], [-1.0, 3.0, 0, 0]]),
        torch.tensor([[50.0, 50.0, 0, 0]]).expand(4, -1),
    )
    merged = paths._by_rotamer(found, 2)
    assert merged.residue.tolist() == [0, 1, 1]
    torch.testing.assert_close(merged.weight.exp(), torch.tensor([0.4, 0.2, 0.2]))
    assert merged.mean[0, :2].tolist() == pytest.approx([1.15, 1.05], abs=1e-3)
    assert (merged.kappa[0, :2] < 50).all()
    assert (merged.kappa[0, :2] > 30).all()
    torch.testing.assert_close(merged.kappa[1, :2], torch.full((2,), 50.0), rtol=0.05, atol=0)
    assert (merged.kappa[:, 2:] < 1e-3).all()
