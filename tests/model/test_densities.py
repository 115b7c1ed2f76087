"""What ``density.protocol.Density`` promises, of every density that a head or a library gives."""

import math

import pytest
import torch
from scipy import stats

from helpers.proteins import make_protein
from qfitlatent.base import config as configuration
from qfitlatent.density.libraries import uniform_library
from qfitlatent.density.regions import hdr_level
from qfitlatent.model.average import AverageModel
from qfitlatent.model.network import QFitLatent
from qfitlatent.model.settings import ModelConfig

PROTEIN = make_protein(40)
SMALL = {"num_blocks": 1, "d_s": 16, "d_z": 4, "head_hidden": 16}
CHI_BY_CHI = {**SMALL, "head": "autoregressive", "mean": "atan2"}


def settings(**model) -> ModelConfig:
    return ModelConfig.from_dict(configuration.load({"model": model})["model"])


def make_density(name: str):
    torch.manual_seed(0)
    if name == "uniform library":
        return uniform_library().density(PROTEIN.token, PROTEIN.torsion[:, :2])
    models = {
        "mixture head": lambda: QFitLatent(settings(**SMALL)),
        "chi by chi": lambda: QFitLatent(settings(**CHI_BY_CHI)),
        "average": lambda: AverageModel(settings(**CHI_BY_CHI, dropout=0.3), 2, 2),
    }
    model = models[name]()
    with torch.no_grad():  # heads start nearly alike for all residues
        for parameter in model.head.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.predict(PROTEIN)


@pytest.fixture(params=["mixture head", "chi by chi", "average", "uniform library"])
def density(request):
    return make_density(request.param)


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_draws_have_the_log_density_of_anything_observed(density):
    samples, log_samples = density.sample_with_log_prob(8, rng())
    rows = torch.arange(len(density)).repeat(8)
    every = torch.ones(len(rows), 4, dtype=torch.bool)
    again = density.log_prob(samples.flatten(0, 1), every, rows).view(8, -1)
    torch.testing.assert_close(log_samples, again, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(density.sample_log_prob(samples), again, atol=1e-4, rtol=1e-4)
    first = (torch.arange(4) < 1).expand(len(density), 4)
    alone = density.log_prob(samples[0], first)
    torch.testing.assert_close(
        density.sample_log_prob(samples, first)[0], alone, atol=1e-4, rtol=1e-4
    )
    assert (samples[:, ~density.chi_mask] == 0).all()
    assert (alone[~density.chi_mask[:, 0]].abs() < 1e-6).all()  # weights add up to 1


def test_it_integrates_to_one_in_the_proper_form(density):
    num = 240
    angle = (torch.arange(num) + 0.5) * (2 * math.pi / num) - math.pi
    two = torch.nonzero(density.chi_mask.sum(1) == 2)[:2, 0]
    chi = torch.zeros(num * num, 4)
    chi[:, :2] = torch.cartesian_prod(angle, angle)
    every = torch.ones_like(chi, dtype=torch.bool)
    for row in two.tolist():
        log_p = density.log_prob(chi, every, torch.full((len(chi),), row)).detach()
        assert float(log_p.double().exp().mean()) * (2 * math.pi) ** 2 == pytest.approx(1, abs=1e-3)


def test_selected_and_moved_densities_are_the_same(density):
    rows = torch.tensor([7, 3, 21])
    chi, every = torch.rand(3, 4), torch.ones(3, 4, dtype=torch.bool)
    expected = density.log_prob(chi, every, rows)
    few = density.select(rows)
    assert len(few) == 3
    torch.testing.assert_close(few.log_prob(chi, every), expected)
    double = density.to(torch.float64)
    assert double.chi_mask.dtype == torch.bool
    value = double.log_prob(chi.double(), every, rows)
    torch.testing.assert_close(value, expected.double(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(density.log_prob(chi, every, rows), expected, atol=0, rtol=0)


def test_draws_follow_the_density(density):
    """E_p[q/p] = 1 for any density q: here the uniform one, over the chi of short side chains."""
    samples, log_p = density.sample_with_log_prob(4000, rng())
    log_q = -math.log(2 * math.pi) * density.chi_mask.sum(1)
    ratio = (log_q - log_p).exp()[:, density.chi_mask.sum(1) == 1]
    error = ratio.std(0) / math.sqrt(4000) + 1e-4
    assert ((ratio.mean(0) - 1.0).abs() < 5 * error).all()
    assert samples.isfinite().all()


def test_entropy_is_the_mean_log_density_of_draws(density):
    _, log_samples = density.sample_with_log_prob(2000, rng())
    error = log_samples.std(0) / math.sqrt(2000) + 0.03
    assert ((density.entropy(400, rng()) + log_samples.mean(0)).abs() < 5 * error).all()


def test_a_draw_lies_in_the_region_of_mass_p_with_probability_p(density):
    """Also where chi2 is not looked at."""
    row = torch.nonzero(density.chi_mask.sum(1) == 2)[0]
    if float(density.sample_with_log_prob(64, rng())[1][:, row].std()) < 1e-6:
        pytest.skip("a uniform density has no denser region")
    one, rows = density.select(row), torch.zeros(300, dtype=torch.long)
    draws, others = one.sample(300, rng())[:, 0], one.sample_with_log_prob(500)
    for num in (2, 1):
        defined = (torch.arange(4) < num).expand(300, 4)
        level = hdr_level(one, *others, draws, defined, rows)
        assert stats.kstest(level.numpy(), "uniform").pvalue > 1e-4


def test_modes_are_heaviest_first_and_those_of_its_mixture(density):
    modes = density.modes(0.05, math.radians(30))
    assert (modes.weight.diff(dim=1) <= 1e-6).all()
    assert (modes.weight.sum(1) <= 1 + 1e-5).all()
    assert modes.valid[:, 0].all()
    folded = modes.chi.abs().amax(1)[density.symmetric]
    assert (folded <= math.pi / 2 + 1e-6).all()
    for ours, theirs in zip(
        vars(modes).values(),
        vars(density.as_mixture().modes(0.05, math.radians(30))).values(),
        strict=True,
    ):
        assert torch.equal(ours, theirs)
