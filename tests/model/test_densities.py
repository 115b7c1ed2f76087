"""What ``density.protocol.Density`` promises, of every density that a head or a library gives."""

import math

import pytest
import torch
from scipy import stats

from helpers.proteins import make_protein
from qfitlatent.base import config as configuration
from qfitlatent.density.libraries import uniform_library
from qfitlatent.density.regions import differ_beyond, hdr_level
from qfitlatent.density.von_mises import circular_distance
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
    samples = density.sample(8, rng())
    rows = torch.arange(len(density)).repeat(8)
    every = torch.ones(len(rows), 4, dtype=torch.bool)
    again = density.log_prob(samples.flatten(0, 1), every, rows).view(8, -1)
    torch.testing.assert_close(density.sample_log_prob(samples), again, atol=1e-4, rtol=1e-4)
    points = density.points(8)
    again = density.log_prob(points.chi.flatten(0, 1), every, rows).view(8, -1)
    torch.testing.assert_close(points.log_prob, again, atol=1e-4, rtol=1e-4)
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
    samples = density.sample(4000, rng())
    log_p = density.sample_log_prob(samples)
    log_q = -math.log(2 * math.pi) * density.chi_mask.sum(1)
    ratio = (log_q - log_p).exp()[:, density.chi_mask.sum(1) == 1]
    error = ratio.std(0) / math.sqrt(4000) + 1e-4
    assert ((ratio.mean(0) - 1.0).abs() < 5 * error).all()
    assert samples.isfinite().all()


def test_entropy_is_the_mean_log_density_of_draws(density):
    log_samples = density.sample_log_prob(density.sample(2000, rng()))
    error = log_samples.std(0) / math.sqrt(2000) + 0.02
    assert ((density.entropy() + log_samples.mean(0)).abs() < 5 * error).all()
    assert (density.entropy()[~density.chi_mask[:, 0]] == 0).all()


def test_a_draw_lies_in_the_region_of_mass_p_with_probability_p(density):
    """Also where chi2 is not looked at."""
    row = torch.nonzero(density.chi_mask.sum(1) == 2)[0]
    if float(density.points(64).log_prob[:, row].std()) < 1e-6:
        pytest.skip("a uniform density has no denser region")
    one, rows = density.select(row), torch.zeros(300, dtype=torch.long)
    draws = one.sample(300, rng())[:, 0]
    for num in (2, 1):
        defined = (torch.arange(4) < num).expand(300, 4)
        level = hdr_level(one, one.points(512), draws, defined, rows)
        assert stats.kstest(level.numpy(), "uniform").pvalue > 1e-4


def test_points_say_what_many_draws_say(density):
    """In the mean within 0.005 of 4,096 draws, themselves off by up to 0.008 a residue."""
    limit, draws, num = math.radians(40), density.sample(4096, rng()), len(density)
    mask, symmetric = density.chi_mask, density.symmetric
    chi, rows = density.sample(1, rng())[0], torch.arange(num)
    own, of_draws = density.log_prob(chi, mask), density.sample_log_prob(draws)
    points = density.points(512)

    def near(some):
        distance = circular_distance(some, chi, symmetric)
        return ((distance <= limit) | ~mask).all(-1).float(), (distance * mask).mean(-1)

    apart = (circular_distance(draws, draws.roll(1, 0), symmetric) > limit) & mask
    # What is looked at, of the draws (S,N), and what the points say of it (N,).
    compared = [
        ((of_draws > own).float(), hdr_level(density, points, chi, mask, rows)),
        (apart.any(-1).float(), differ_beyond(points, density, limit)),
        *((a, b.mean(0)) for a, b in zip(near(draws), near(points.chi), strict=True)),
    ]
    for of_each, value in compared:
        off = value - of_each.mean(0)
        own_error = of_each.std(0) / math.sqrt(4096)
        assert abs(float(off.mean())) < 0.005 + 2 * float(own_error.norm()) / num
        few = mask.sum(1) <= 2
        assert float(off[few].square().mean().sqrt()) < 0.01 + float(own_error[few].amax())


def test_the_figures_of_a_residue_do_not_depend_on_the_others(density):
    rows = torch.arange(len(density)).flip(0)[::3]
    some = density.select(rows)
    torch.testing.assert_close(some.entropy(), density.entropy()[rows], atol=1e-5, rtol=1e-5)
    ours, theirs = some.points(64), density.points(64)
    turn = circular_distance(ours.chi, theirs.chi[:, rows], torch.tensor(False)).amax(-1)
    # A point between two components may go to either by the last digit of a weight.
    assert float((turn > 1e-3).float().mean()) < 0.01


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
