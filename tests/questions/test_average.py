"""Averages over backbones: sums, whose order does not matter."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from qfitlatent.chemistry.residues import CHI_DEFINED, PI_SYMMETRIC, TOKEN
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.prediction.records import Predicted
from qfitlatent.questions import average
from qfitlatent.questions.average import Mean, MixtureMean, deviation

TYPES = np.array([TOKEN[name] for name in ("SER", "LEU", "PHE", "LYS")])


def mean_of(weights, values):
    mean = Mean(*values.shape[1:])
    for weight, value in zip(weights, values, strict=True):
        mean.add(weight, value)
    return mean


def test_mean_and_scatter_are_those_of_numpy():
    rng = np.random.default_rng(1)
    values = rng.dirichlet(np.ones(5), (12, 3))  # (F,N,W)
    mean = mean_of(np.full(12, 1 / 12), values)
    assert mean.value == pytest.approx(values.mean(0))
    assert mean.value.sum(1) == pytest.approx(1.0)
    assert mean.spread == pytest.approx(values.std(0))
    for n in range(3):
        expected = np.cov(values[:, n].T) / 12
        assert mean.covariance[n] == pytest.approx(expected)
        direction = rng.normal(size=(3, 5))
        found = deviation(mean.covariance, direction)[n]
        assert found == pytest.approx(np.sqrt(direction[n] @ expected @ direction[n]))


def test_order_and_scale_of_the_weights_change_nothing():
    rng = np.random.default_rng(2)
    values, weights = rng.dirichlet(np.ones(4), (9, 2)), rng.uniform(0.1, 2.0, 9)
    one, order = mean_of(weights, values), rng.permutation(9)
    two = mean_of(3.0 * weights[order], values[order])
    for name in ("value", "spread", "covariance"):
        assert getattr(one, name) == pytest.approx(getattr(two, name)), name


def test_a_residue_that_some_backbones_lack_is_the_mean_of_the_others():
    mean = Mean(2, 2)
    mean.add(0.5, np.array([[1.0, 0.0], [1.0, 0.0]]))
    mean.add(0.5, np.array([[0.0, 1.0]]), np.array([0]))
    assert mean.value.tolist() == [[0.5, 0.5], [1.0, 0.0]]
    assert mean.count.tolist() == [2, 1]
    assert (mean.covariance[1] == 0).all()


def predicted(seed, num_components=40):
    """Random mixtures of ``TYPES``, the last component flat."""
    rng = np.random.default_rng(seed)
    shape = (len(TYPES), num_components)
    weight = rng.dirichlet(np.full(num_components, 0.3), len(TYPES)).astype(np.float32)
    has_chi = CHI_DEFINED[TYPES][:, None]
    mean = rng.uniform(-np.pi, np.pi, (*shape, 4)) * has_chi
    kappa = rng.uniform(5.0, 60.0, (*shape, 4)) * has_chi
    kappa[:, -1] = 0.0
    names = [field.name for field in fields(Predicted)]
    known = {"weight": weight, "mean": mean, "kappa": kappa}
    return Predicted(**(dict.fromkeys(names, weight) | known))


def log_prob(found, chi):
    mixture = VonMisesMixture(
        torch.from_numpy(np.maximum(found.weight, 1e-30)).log(),
        *(torch.from_numpy(np.asarray(x, dtype=np.float32)) for x in (found.mean, found.kappa)),
        chi_mask=torch.from_numpy(CHI_DEFINED[TYPES]),
        symmetric=torch.from_numpy(PI_SYMMETRIC[TYPES]),
    )
    return mixture.sample_log_prob(torch.from_numpy(chi)).numpy()


def mixture_of(shares, parts):
    mean = MixtureMean(TYPES)
    for share, part in zip(shares, parts, strict=True):
        mean.add(share, part)
    return mean.predicted()


def test_one_backbone_s_mixture_is_its_own():
    one = predicted(1)
    assert mixture_of([1.0], [one]) is one


@pytest.mark.parametrize("held", [2, 64])
def test_the_mean_of_mixtures_is_the_mean_of_densities(monkeypatch, held):
    monkeypatch.setattr(average, "MAX_HELD", held)
    parts, shares = [predicted(seed) for seed in range(4)], [0.4, 0.3, 0.2, 0.1]
    found = mixture_of(shares, parts)
    assert found.weight.sum(1) == pytest.approx(1.0, abs=1e-5)
    chi = np.random.default_rng(5).uniform(-np.pi, np.pi, (400, len(TYPES), 4)).astype(np.float32)
    exact = sum(
        share * np.exp(log_prob(part, chi)) for share, part in zip(shares, parts, strict=True)
    )
    # Where a residue has few chi nearly all components stay; where it has more, alike ones join.
    away = np.abs(np.exp(log_prob(found, chi)) - exact).mean(0) / exact.mean(0)
    assert (away < 0.5).all(), away


def test_the_order_of_backbones_does_not_change_the_mixture():
    parts, shares = [predicted(seed) for seed in range(4)], [0.4, 0.3, 0.2, 0.1]
    one, two = mixture_of(shares, parts), mixture_of(shares[::-1], parts[::-1])
    chi = np.random.default_rng(6).uniform(-np.pi, np.pi, (100, len(TYPES), 4)).astype(np.float32)
    assert log_prob(one, chi) == pytest.approx(log_prob(two, chi), abs=1e-2)
