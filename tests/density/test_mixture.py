"""The mixture and the loss against mpmath, quadrature and the formula written out as loops."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from qfitlatent.density.loss import nll_sum
from qfitlatent.density.merging import kappa_of, merge_components, resultant_and_log_i0e
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.density.von_mises import (
    bessel_ratio_minus_one,
    fold,
    log_i0e,
    log_von_mises,
    sample_von_mises,
    von_mises_entropy,
    wrap,
)

KAPPAS = (1e-3, 1e-2, 0.3, 1.0, 7.0, 29.9, 30.1, 200.0, 1e3, 1e4, 1e5, 1e6)
ALL = torch.ones((), dtype=torch.bool)


def exact_log_i0(kappa: float) -> mpmath.mpf:
    """log I0 with 40 digits; mpmath's besseli is slow far out, its asymptotic form is not."""
    mpmath.mp.dps = 40
    x = mpmath.mpf(kappa)
    if kappa < 1e4:
        return mpmath.log(mpmath.besseli(0, x))
    terms, term = mpmath.mpf(1), mpmath.mpf(1)
    for k in range(1, 12):
        term *= mpmath.mpf((2 * k - 1) ** 2) / (8 * k * x)
        terms += term
    return x - mpmath.log(2 * mpmath.pi * x) / 2 + mpmath.log(terms)


def exact_ratio_minus_one(kappa: float) -> float:
    """I1/I0 - 1 as the derivative of log I0, in 40 digits."""
    h = mpmath.mpf(kappa) * mpmath.mpf(10) ** -12
    x = mpmath.mpf(kappa)
    return float((exact_log_i0(x + h) - exact_log_i0(x - h)) / (2 * h) - 1)


def exact_log_von_mises(delta: float, kappa: float) -> float:
    x, k = mpmath.mpf(delta), mpmath.mpf(kappa)
    return float(k * mpmath.cos(x) - exact_log_i0(kappa) - mpmath.log(2 * mpmath.pi))


def random_mixture(num=6, k=5, d=4, seed=0, dtype=torch.float64, kappa=(0.3, 30.0)):
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(shape, generator=generator, dtype=dtype)

    low, high = math.log(kappa[0]), math.log(kappa[1])
    chi_mask = torch.arange(d) < torch.arange(num)[:, None] % (d + 1)
    chi_mask[: min(num, 2)] = True
    symmetric = (rand(num, d) < 0.4) & chi_mask
    return VonMisesMixture(
        (2 * rand(num, k)).log_softmax(1),
        (2 * rand(num, k, d) - 1) * math.pi,
        (low + (high - low) * rand(num, k, d)).exp(),
        chi_mask,
        symmetric,
    )


def random_rows(mixture, num_rows=20, seed=1):
    generator = torch.Generator().manual_seed(seed)
    d = mixture.mean.shape[-1]
    rows = torch.arange(num_rows) % len(mixture)
    rows = rows.sort().values
    chi = (2 * torch.rand((num_rows, d), generator=generator, dtype=mixture.mean.dtype) - 1) * 3
    defined = mixture.chi_mask[rows] & (torch.rand((num_rows, d), generator=generator) < 0.8)
    occupancy = torch.rand(num_rows, generator=generator, dtype=mixture.mean.dtype)
    occupancy[3] = 0.0
    total = torch.zeros(len(mixture), dtype=chi.dtype).index_add_(0, rows, occupancy)
    return chi, defined, occupancy / total[rows], rows


def mean_nll(mixture, *rows, **options):
    """The loss of SPEC 7: mean over R."""
    total, weight = nll_sum(mixture, *rows, **options)
    return total / weight


# --- The kernel -------------------------------------------------------------------------------


@pytest.mark.parametrize("kappa", KAPPAS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_log_i0e_and_its_derivative(kappa, dtype, tolerance):
    k = torch.tensor(kappa, dtype=dtype, requires_grad=True)
    value = log_i0e(k)
    value.backward()
    stored = float(k.detach())
    exact = float(exact_log_i0(stored) - mpmath.mpf(stored))
    # log_i0e enters sums of order log 2 pi, so its error counts against 1.
    assert float(value.detach()) == pytest.approx(exact, rel=tolerance, abs=tolerance / 10)
    assert float(k.grad) == pytest.approx(exact_ratio_minus_one(stored), rel=tolerance)


@pytest.mark.parametrize("kappa", KAPPAS)
@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0, 5.0])
def test_kernel_in_fp32_agrees_with_mpmath(kappa, spread):
    """At distances where the density lives, and far out, in value and in both gradients."""
    k = torch.tensor(kappa, requires_grad=True)
    delta = torch.tensor(min(3.1, spread / math.sqrt(kappa)), requires_grad=True)
    value = log_von_mises(delta, k)
    value.backward()
    x, exact_k = float(delta.detach()), float(k.detach())
    exact = exact_log_von_mises(x, exact_k)
    # 1e-5 relative in the density itself is 1e-5 absolute in its logarithm.
    assert float(value.detach()) == pytest.approx(exact, abs=1e-5)
    slope = -exact_k * math.sin(x)
    assert float(delta.grad) == pytest.approx(slope, rel=1e-5, abs=1e-6)
    steepness = -2 * math.sin(x / 2) ** 2 - exact_ratio_minus_one(exact_k)
    scale = max(abs(exact_ratio_minus_one(exact_k)), 2 * math.sin(x / 2) ** 2)
    assert float(k.grad) == pytest.approx(steepness, abs=1e-5 * scale)


@pytest.mark.parametrize("kappa", [1e-3, 0.5, 3.0, 40.0, 2e3])
def test_kernel_integrates_to_one_and_its_folded_form_to_between_one_and_two(kappa):
    n = 1 << 14
    delta = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n) - math.pi
    k = torch.full_like(delta, kappa)

    def mass(**options):
        return float(log_von_mises(delta, k, **options).exp().mean() * 2 * math.pi)

    assert mass() == pytest.approx(1.0, rel=1e-9)
    assert mass(symmetric=ALL) == pytest.approx(1.0, rel=1e-9)
    folded = mass(symmetric=ALL, folded=True)
    assert 1.0 < folded <= 2.0 + 1e-9
    if kappa > 30:
        assert folded == pytest.approx(2.0, rel=1e-9)


@pytest.mark.parametrize("kappa", KAPPAS)
def test_kernel_of_a_symmetric_chi_in_fp32_agrees_with_fp64(kappa):
    delta = torch.tensor([0.0, 0.7, 1.3, 1.6]) / math.sqrt(max(kappa, 1.0))
    delta = torch.cat([delta, delta + math.pi])
    k = torch.full_like(delta, kappa)
    for folded in (False, True):
        single = log_von_mises(delta, k, ALL, folded)
        double = log_von_mises(delta.double(), k.double(), ALL, folded)
        torch.testing.assert_close(single.double(), double, atol=1e-5, rtol=0)


@given(delta=st.floats(-20, 20), kappa=st.floats(1e-3, 1e3))
def test_the_folded_form_is_the_formula_of_the_specification(delta, kappa):
    folded = math.atan2(math.sin(2 * delta), math.cos(2 * delta)) / 2
    d, k = (torch.tensor(x, dtype=torch.float64) for x in (delta, kappa))
    value = float(log_von_mises(d, k, ALL, folded=True))
    plain = float(log_von_mises(torch.tensor(folded, dtype=torch.float64), k))
    assert value == pytest.approx(plain, rel=1e-9, abs=1e-9)
    both = np.logaddexp(float(log_von_mises(d, k)), float(log_von_mises(d + math.pi, k)))
    assert float(log_von_mises(d, k, ALL)) == pytest.approx(both - math.log(2), abs=1e-9)


@given(st.floats(-100, 100))
def test_wrap_and_fold_stay_in_their_intervals(angle):
    x = torch.tensor(angle, dtype=torch.float64)
    assert -math.pi < float(wrap(x)) <= math.pi
    assert -math.pi / 2 < float(fold(x)) <= math.pi / 2
    assert math.cos(float(wrap(x))) == pytest.approx(math.cos(angle), abs=1e-9)
    assert math.cos(2 * float(fold(x))) == pytest.approx(math.cos(2 * angle), abs=1e-9)
    assert float(wrap(torch.tensor(-math.pi, dtype=torch.float64))) == math.pi


# --- The mixture's density --------------------------------------------------------------------


def loop_log_prob(mixture, chi, defined, rows, folded):
    """SPEC 7 and 8 as they stand: exponentials, Bessel function, product, sum, logarithm."""
    out = []
    for m, n in enumerate(rows.tolist()):
        total = 0.0
        for k in range(mixture.num_components):
            product = math.exp(float(mixture.log_weight[n, k]))
            for d in range(chi.shape[1]):
                if not defined[m, d]:
                    continue
                kappa = float(mixture.kappa[n, k, d])
                delta = float(chi[m, d] - mixture.mean[n, k, d])
                i0 = float(mpmath.besseli(0, kappa))

                def kernel(x, kappa=kappa, i0=i0):
                    return math.exp(kappa * math.cos(x)) / (2 * math.pi * i0)

                if not mixture.symmetric[n, d]:
                    product *= kernel(delta)
                elif folded:
                    product *= kernel(math.atan2(math.sin(2 * delta), math.cos(2 * delta)) / 2)
                else:
                    product *= 0.5 * kernel(delta) + 0.5 * kernel(delta + math.pi)
            total += product
        out.append(math.log(total))
    return np.array(out)


@pytest.mark.parametrize("folded", [True, False])
def test_log_prob_and_loss_equal_plain_loops(folded):
    mixture = random_mixture()
    chi, defined, occupancy, rows = random_rows(mixture)
    expected = loop_log_prob(mixture, chi, defined, rows, folded)
    np.testing.assert_allclose(
        mixture.log_prob(chi, defined, rows, folded=folded).numpy(),
        expected,
        rtol=1e-10,
        atol=1e-12,
    )
    losses = []
    for n in range(len(mixture)):
        altlocs = [m for m in range(len(rows)) if rows[m] == n]
        if len(altlocs) >= 2 and any(defined[m].any() for m in altlocs):
            losses.append(-sum(float(occupancy[m]) * expected[m] for m in altlocs))
    assert 0 < len(losses) < len(mixture)  # the residue type without chi is not in R
    loss = mean_nll(mixture, chi, defined, occupancy, rows, folded=folded)
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-10)


def test_missing_chi_integrate_out():
    """Leaving chi2 out of the product equals integrating the density over it."""
    mixture = random_mixture(num=2, d=2, seed=3)
    n = 720
    grid = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    for residue in range(2):
        chi = torch.stack((torch.full_like(grid, 0.4), grid), dim=1)
        at = torch.full((n,), residue)
        joint = mixture.log_prob(chi, torch.ones(n, 2, dtype=torch.bool), at).exp()
        alone = mixture.log_prob(
            torch.tensor([[0.4, math.nan]], dtype=torch.float64),
            torch.tensor([[True, False]]),
            torch.tensor([residue]),
        ).exp()
        assert float(joint.mean() * 2 * math.pi) == pytest.approx(float(alone), rel=1e-9)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_draws_are_weighed_as_anything_observed_is(seed, dtype):
    """Also where several chi of a residue are symmetric, or some are left out."""
    mixture = random_mixture(seed=seed, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    samples = mixture.sample(7, generator)
    rows = torch.arange(len(mixture)).repeat(7)
    flat = samples.flatten(0, 1)
    tolerance = {"atol": 1e-4 if dtype == torch.float32 else 1e-11, "rtol": 0}
    expected = mixture.log_prob(flat, mixture.chi_mask[rows], rows).view(7, -1)
    torch.testing.assert_close(mixture.sample_log_prob(samples), expected, **tolerance)
    defined = torch.rand(mixture.chi_mask.shape, generator=generator) < 0.6
    expected = mixture.log_prob(flat, defined[rows], rows).view(7, -1)
    torch.testing.assert_close(mixture.sample_log_prob(samples, defined), expected, **tolerance)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_order_of_components_and_of_altlocs_changes_nothing(seed):
    mixture = random_mixture(seed=seed)
    chi, defined, occupancy, rows = random_rows(mixture, seed=seed + 1)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    turned = VonMisesMixture(
        mixture.log_weight[:, order],
        mixture.mean[:, order],
        mixture.kappa[:, order],
        mixture.chi_mask,
        mixture.symmetric,
    )
    shuffle = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    args = [x[shuffle] for x in (chi, defined, occupancy, rows)]
    torch.testing.assert_close(
        mean_nll(turned, *args), mean_nll(mixture, chi, defined, occupancy, rows)
    )
    for ours, theirs in zip(
        vars(mixture.modes(0.05, 0.8)).values(), vars(turned.modes(0.05, 0.8)).values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("folded", [True, False])
def test_values_and_gradients_are_finite_for_every_kappa(folded):
    """fp32, kappa 1e-3 .. 1e6, weights down to exp(-200), rows far from every component, no chi."""
    base = random_mixture(num=40, seed=5, dtype=torch.float32, kappa=(1e-3, 1e6))
    log_weight = (200 * base.log_weight).log_softmax(1).requires_grad_()
    mean, kappa = base.mean.clone().requires_grad_(), base.kappa.clone().requires_grad_()
    mixture = VonMisesMixture(log_weight, mean, kappa, base.chi_mask, base.symmetric)
    chi, defined, occupancy, rows = random_rows(mixture, num_rows=100)
    chi = torch.where(defined, chi, math.nan)
    loss = mean_nll(mixture, chi, defined, occupancy, rows, folded=folded)
    loss.backward()
    assert torch.isfinite(loss)
    for x in (log_weight, mean, kappa):
        assert torch.isfinite(x.grad).all()
        assert (x.grad != 0).any()


def test_gradients_equal_finite_differences():
    mixture = random_mixture(seed=6)
    chi, defined, occupancy, rows = random_rows(mixture)

    def loss(log_weight, mean, kappa):
        moved = VonMisesMixture(
            log_weight.log_softmax(1), mean, kappa, mixture.chi_mask, mixture.symmetric
        )
        return mean_nll(moved, chi, defined, occupancy, rows)

    inputs = [x.clone().requires_grad_() for x in (mixture.log_weight, mixture.mean, mixture.kappa)]
    assert torch.autograd.gradcheck(loss, inputs)


# --- Which residues count ---------------------------------------------------------------------


def test_only_residues_with_two_altlocs_and_a_chi_enter_the_loss():
    mixture = random_mixture(num=4, d=4, seed=7)  # 0, 1: four chi; 2, 3: two and three
    rows = torch.tensor([0, 1, 1, 2, 2])
    chi = torch.zeros(5, 4, dtype=torch.float64)
    defined = mixture.chi_mask[rows].clone()
    defined[3:] = False
    occupancy = torch.tensor([1.0, 0.6, 0.4, 0.5, 0.5], dtype=torch.float64)
    observed = (chi, defined, occupancy, rows)
    total, weight = nll_sum(mixture, *observed)
    assert float(weight) == 1.0
    log_prob = mixture.log_prob(chi, defined, rows, folded=True)
    assert float(total) == pytest.approx(float(-(0.6 * log_prob[1] + 0.4 * log_prob[2])))

    total, weight = nll_sum(mixture, *observed, single_weight=0.25)
    assert float(weight) == 1.25
    assert float(total) == pytest.approx(
        float(-0.25 * log_prob[0] - 0.6 * log_prob[1] - 0.4 * log_prob[2])
    )
    # Altlocs that show one conformation weigh as a single one, where the caller says so.
    distinct = torch.tensor([False, False, True, False])
    _, weight = nll_sum(mixture, *observed, single_weight=0.25, several=distinct)
    assert float(weight) == 0.5


def test_nothing_to_score_gives_zero_and_zero_gradients():
    mixture = random_mixture(num=2)
    kappa = mixture.kappa.clone().requires_grad_()
    mixture = VonMisesMixture(
        mixture.log_weight, mixture.mean, kappa, mixture.chi_mask, mixture.symmetric
    )
    rows = torch.tensor([0])
    one = torch.ones(1, dtype=torch.float64)
    every = torch.ones(1, 4, dtype=torch.bool)
    total, weight = nll_sum(mixture, torch.zeros(1, 4).double(), every, one, rows)
    total.backward()
    assert (float(total.detach()), float(weight)) == (0.0, 0.0)
    assert (kappa.grad == 0).all()


# --- Sampling, entropy, regions ---------------------------------------------------------------


@pytest.mark.parametrize("kappa", [math.nan, math.inf])
def test_a_concentration_that_is_no_number_gives_nan_and_returns(kappa):
    """The rejection loop went on for ever."""
    draws = sample_von_mises(torch.zeros(3), torch.tensor([kappa, 1.0, 10.0]))
    assert draws.isnan().tolist() == [True, False, False]


@pytest.mark.parametrize("kappa", [1e-3, 0.1, 1.0, 4.0, 50.0, 1e3, 1e6])
def test_samples_follow_the_von_mises_distribution(kappa):
    generator = torch.Generator().manual_seed(7)
    mean = 2.5
    num = 20000
    draws = sample_von_mises(torch.full((num,), mean), torch.full((num,), kappa), generator)
    assert draws.dtype == torch.float32
    assert (draws.abs() <= math.pi + 1e-6).all()
    centred = wrap(draws.double() - mean).numpy()
    if kappa >= 1e5:  # scipy's cdf is the normal one there; fp32 angles resolve 2e-7 of 1e-3
        test = stats.kstest(centred, stats.norm(scale=1 / math.sqrt(kappa)).cdf)
    else:
        test = stats.kstest(centred, stats.vonmises(kappa).cdf)
    assert test.pvalue > 1e-3


def test_a_seed_gives_the_same_draws_and_symmetric_chi_turn_half_the_time():
    one = torch.ones(1, 1, dtype=torch.bool)
    mixture = VonMisesMixture(
        torch.zeros(1, 1), torch.full((1, 1, 1), 0.5), torch.full((1, 1, 1), 400.0), one, one
    )
    first = mixture.sample(4000, torch.Generator().manual_seed(3))
    again = mixture.sample(4000, torch.Generator().manual_seed(3))
    assert torch.equal(first, again)
    near = (wrap(first - 0.5).abs() < 1.0).double().mean()
    assert float(near) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("kappa", [1e-2, 1.0, 20.0, 49.0, 51.0, 1e4])
@pytest.mark.parametrize("symmetric", [False, True])
def test_entropy_of_one_kernel_is_exact(kappa, symmetric):
    n = 1 << 17
    delta = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n) - math.pi
    flag = torch.tensor(symmetric)
    log_p = log_von_mises(delta, torch.tensor(kappa, dtype=torch.float64), flag)
    expected = -float((log_p.exp() * log_p).mean()) * 2 * math.pi
    k = torch.full((1, 1, 1), kappa, dtype=torch.float64)
    mask = torch.ones(1, 1, dtype=torch.bool)
    mixture = VonMisesMixture(torch.zeros(1, 1).double(), k * 0, k, mask, flag.view(1, 1))
    assert float(mixture.entropy()) == pytest.approx(expected, rel=1e-8, abs=1e-8)
    single = von_mises_entropy(k.float(), flag)
    assert float(single) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("d", [1, 2])
def test_entropy_of_a_mixture_agrees_with_quadrature(d):
    """Few points suffice, as only the doubt about the component is left to them."""
    mixture = random_mixture(num=3, d=d, seed=8)
    n = 4096 if d == 1 else 300
    grid = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    chi = torch.cartesian_prod(*[grid] * d).view(-1, d)
    estimate = mixture.entropy()
    for residue in range(3):
        if not mixture.chi_mask[residue].any():
            assert float(estimate[residue]) == 0.0
            continue
        mask = mixture.chi_mask[residue]
        at = torch.full((len(chi),), residue)
        log_p = mixture.log_prob(chi, mask.expand(len(chi), d), at)
        exact = -float((log_p.exp() * log_p).mean()) * (2 * math.pi) ** int(mask.sum())
        assert float(estimate[residue]) == pytest.approx(exact, abs=0.015)
    assert (estimate > -10).all()


# --- Modes ------------------------------------------------------------------------------------


def hand_made(weights, means, kappas=None, symmetric=None):
    mean = torch.tensor(means, dtype=torch.float64)[None]
    mask = torch.ones(1, mean.shape[-1], dtype=torch.bool)
    kappa = torch.full_like(mean, 20.0) if kappas is None else torch.tensor(kappas)[None].double()
    symmetric = torch.zeros_like(mask) if symmetric is None else torch.tensor([symmetric])
    weight = torch.tensor([weights], dtype=torch.float64)
    return VonMisesMixture(weight.log(), mean, kappa, mask, symmetric)


def test_components_near_each_other_are_one_mode_across_the_seam():
    mixture = hand_made([0.3, 0.5, 0.15, 0.05], [[3.1], [-1.0], [-3.1], [1.0]])
    modes = mixture.modes(0.1, 0.5)
    np.testing.assert_allclose(modes.weight[0, :3], [0.5, 0.45, 0.05], rtol=1e-12)
    assert modes.valid[0].tolist() == [True, True, False, False]
    assert float(modes.chi[0, 0, 0]) == pytest.approx(-1.0)
    # Equal concentrations: the mean direction divides the seam by the weights, 2 to 1.
    off = wrap(modes.chi[0, 1, 0] - math.pi)
    assert float(off) == pytest.approx(-(math.pi - 3.1) / 3, rel=1e-3)


def test_modes_of_a_symmetric_chi_do_not_see_a_half_turn():
    mixture = hand_made([0.6, 0.4], [[1.0, 1.5], [1.0, 1.5 - math.pi]], symmetric=[False, True])
    modes = mixture.modes(0.1, 0.3)
    assert modes.valid[0].tolist() == [True, False]
    np.testing.assert_allclose(modes.chi[0, 0], [1.0, 1.5], atol=1e-9)
    plain = hand_made([0.6, 0.4], [[1.0, 1.5], [1.0, 1.5 - math.pi]])
    assert plain.modes(0.1, 0.3).valid[0].tolist() == [True, True]


def test_a_flat_component_does_not_move_a_mode():
    mixture = hand_made([0.5, 0.5], [[1.0], [1.4]], kappas=[[1000.0], [1e-3]])
    mode = mixture.modes(0.1, 0.6)
    assert float(mode.weight[0, 0]) == pytest.approx(1.0)
    assert float(mode.chi[0, 0, 0]) == pytest.approx(1.0, abs=1e-3)


def test_a_component_that_is_flat_everywhere_is_no_mode_beside_others():
    mixture = hand_made([0.7, 0.3], [[0.0], [1.4]], kappas=[[0.0], [50.0]])
    modes = mixture.modes(0.1, 0.6)
    assert modes.valid[0].tolist() == [True, False]
    assert float(modes.chi[0, 0, 0]) == pytest.approx(1.4)
    assert float(modes.weight[0, 0]) == pytest.approx(0.3)
    alone = hand_made([1.0], [[0.0]], kappas=[[0.0]]).modes(0.1, 0.6)
    assert alone.valid[0].tolist() == [True]


def resultant(weight, mean, kappa):
    length = weight * (1.0 + bessel_ratio_minus_one(kappa))
    return torch.stack([(length * mean.cos()).sum(-1), (length * mean.sin()).sum(-1)])


@pytest.mark.parametrize("centre", [0.4, math.pi - 0.05])
def test_merged_components_keep_their_weight_and_resultant(centre):
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(50, 9, generator=generator, dtype=torch.float64).softmax(1)
    mean = wrap(centre + 0.1 * torch.randn(50, 9, generator=generator, dtype=torch.float64))
    kappa = 30.0 + 30.0 * torch.rand(50, 9, generator=generator, dtype=torch.float64)
    plain = torch.zeros(50, 1, dtype=torch.bool)
    merged = merge_components(weight, mean, kappa, plain, torch.zeros(50, 1), 9)
    assert merged[0].shape[1] < 9
    torch.testing.assert_close(merged[0].sum(1), torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close(
        resultant(*merged), resultant(weight, mean, kappa), atol=1e-5, rtol=1e-5
    )


def test_what_is_far_or_of_another_width_is_not_merged_and_half_turns_are_one_where_symmetric():
    weight = torch.tensor([[0.4, 0.3, 0.2, 0.1]])
    mean = torch.tensor([[1.0, 1.0 - math.pi, 1.02, 1.0]])
    kappa = torch.tensor([[100.0, 100.0, 100.0, 2.0]])
    none = torch.zeros(1, 1)
    for symmetric, expected in ((False, [0.6, 0.3, 0.1]), (True, [0.9, 0.1])):
        mask = torch.tensor([[symmetric]])
        merged = merge_components(weight, mean, kappa, mask, none, 4)
        np.testing.assert_allclose(merged[0][0], expected, rtol=1e-6)
        assert float(merged[1][0, 0]) == pytest.approx(1.0 + 0.02 * 0.2 / expected[0], abs=1e-4)
        assert float(merged[2][0, -1]) == 2.0


@pytest.mark.parametrize(("num", "least"), [(1, 0.0), (4, 0.35)])
def test_components_that_are_too_many_or_too_light_stand_as_one(num, least):
    weight, mean = torch.tensor([[0.4, 0.3, 0.2, 0.1]]), torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    kappa, plain = torch.full_like(mean, 50.0), torch.tensor([[False]])
    merged = merge_components(weight, mean, kappa, plain, torch.tensor([[least]]), num)
    np.testing.assert_allclose(merged[0][0], [0.4, 0.6], rtol=1e-6)
    expected = resultant(weight[:, 1:], mean[:, 1:], kappa[:, 1:])
    torch.testing.assert_close(resultant(*(x[:, 1:] for x in merged)), expected)


def test_resultants_and_concentrations_of_the_tables_are_right():
    kappa = torch.logspace(-3, 3, 500)
    length, log_norm = resultant_and_log_i0e(kappa)
    exact = -bessel_ratio_minus_one(kappa.double())
    torch.testing.assert_close((1.0 - length).double(), exact, rtol=2e-4, atol=1e-5)
    torch.testing.assert_close(log_norm.double(), log_i0e(kappa.double()), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(kappa_of(1.0 - exact.float()), kappa, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_component_without_weight_changes_nothing(symmetric):
    weights, means = [0.6, 0.4], [[0.3], [1.2]]
    own = hand_made(weights, means, symmetric=[symmetric])
    padded = hand_made([*weights, 0.0], [*means, [0.0]], symmetric=[symmetric])
    draws = torch.linspace(-3.0, 3.0, 7, dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(padded.sample_log_prob(draws), own.sample_log_prob(draws))
    torch.testing.assert_close(padded.entropy(), own.entropy(), atol=1e-3, rtol=0)


def test_the_heaviest_mode_is_always_valid():
    mixture = hand_made([0.26, 0.25, 0.25, 0.24], [[0.0], [1.5], [3.0], [-1.5]])
    assert mixture.modes(0.5, 0.1).valid[0].tolist() == [True, False, False, False]
