"""Every metric against its closed form or a brute-force value."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from qfitlatent.chemistry.residues import CHI_DEFINED, PI_SYMMETRIC, TOKEN
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.density.rows import DISTINCT_DEGREES, Observed, altloc_spread
from qfitlatent.density.von_mises import circular_distance
from qfitlatent.evaluation import transport
from qfitlatent.evaluation.columns import RESIDUE_METRICS
from qfitlatent.evaluation.intervals import (
    _percentiles,
    auroc,
    bootstrap_auroc,
    bootstrap_means,
    bootstrap_weights,
)
from qfitlatent.evaluation.scores import describe, recall_precision, score_density
from qfitlatent.evaluation.transport import transport_cost, wasserstein


def mixture_of(token, log_weight, mean, kappa) -> VonMisesMixture:
    """Residues of these types with these components: log_weight (N,K), the others (N,K,4)."""
    masks = (
        torch.from_numpy(of_type[np.asarray(token)]) for of_type in (CHI_DEFINED, PI_SYMMETRIC)
    )
    return VonMisesMixture(log_weight, mean, kappa, *masks)


def mixture(token: np.ndarray, num_components: int, seed: int) -> VonMisesMixture:
    g = torch.Generator().manual_seed(seed)
    num = len(token)
    return mixture_of(
        token,
        torch.randn(num, num_components, generator=g).log_softmax(1),
        (torch.rand(num, num_components, 4, generator=g) * 2 - 1) * math.pi,
        torch.rand(num, num_components, 4, generator=g) * 40 + 2,
    )


def observed_as(token, rows, chi, occupancy) -> Observed:
    """Residues of these types with altlocs of these chi: token (N,), rows (M,), chi (M,4)."""
    token = torch.as_tensor(token)
    num = len(token)
    return Observed(
        token=token,
        phi_psi=torch.zeros(num, 2),
        entry=torch.arange(num),
        num_distinct=torch.bincount(rows, minlength=num),
        row_residue=rows,
        chi=chi,
        defined=torch.from_numpy(CHI_DEFINED)[token][rows],
        occupancy=occupancy,
    )


def observe(density: VonMisesMixture, token, num_altlocs: np.ndarray, seed: int) -> Observed:
    """Altlocs drawn from the density itself, with random occupancies."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.from_numpy(np.repeat(np.arange(len(num_altlocs)), num_altlocs))
    chi = density.select(rows).sample(1, g)[0]
    weight = torch.rand(len(rows), generator=g) + 0.1
    total = torch.zeros(len(num_altlocs)).index_add_(0, rows, weight)
    return observed_as(token, rows, chi, weight / total[rows])


def score(density, observed: Observed, num_samples: int = 256, index=None):
    index = torch.arange(len(observed)) if index is None else index
    return score_density(describe(density, num_samples), observed, index)


@pytest.fixture(scope="module")
def own() -> tuple[VonMisesMixture, Observed, dict]:
    """A generator of 1500 residues, what it was observed as, and its own scores."""
    rng = np.random.default_rng(0)
    token = rng.choice([t for t in range(20) if CHI_DEFINED[t].any()], 1500)
    density = mixture(token, 3, 1)
    observed = observe(density, token, rng.integers(1, 5, 1500), 2)
    return density, observed, score(density, observed)


def test_nll_of_the_generator_is_its_entropy(own):
    _, _, scores = own
    difference = scores["nll"] - scores["entropy"]
    error = difference.std() / math.sqrt(len(difference))
    assert abs(difference.mean()) < 4 * error
    assert error < 0.07


def test_calibration_of_the_generator_is_the_diagonal(own):
    _, _, scores = own
    for level in (0.1, 0.5, 0.8, 0.95):
        inside = (scores["hdr"] <= level).mean()
        error = math.sqrt(level * (1 - level) / len(scores["hdr"]))
        assert abs(inside - level) < 5 * error


def test_folded_form_flatters_by_log_2_for_each_symmetric_chi():
    token = np.array([TOKEN["PHE"], TOKEN["LEU"]])
    ones = torch.ones(2, 1, 4)
    density = mixture_of(token, torch.zeros(2, 1), ones, 50 * ones)
    scores = score(density, observe(density, token, np.array([2, 2]), 0))
    np.testing.assert_allclose(scores["nll"] - scores["nll_folded"], [math.log(2), 0.0], atol=1e-5)


def test_order_of_the_altlocs_does_not_matter(own):
    density, observed, scores = own
    order = torch.randperm(len(observed.row_residue), generator=torch.Generator().manual_seed(9))
    order = order[observed.row_residue[order].argsort(stable=True)]
    rows = {name: getattr(observed, name)[order] for name in ("chi", "defined", "occupancy")}
    shuffled = replace(observed, row_residue=observed.row_residue[order], **rows)
    again = score(density, shuffled)
    for metric in RESIDUE_METRICS:
        name = metric.name
        np.testing.assert_allclose(again[name], scores[name], atol=2e-5, err_msg=name)


def test_density_shared_by_residues_scores_like_one_row_each():
    token = np.array([TOKEN["LYS"], TOKEN["SER"]])
    shared = mixture(token, 4, 3)
    index = torch.tensor([0, 1, 1, 0, 1])
    observed = observe(shared.select(index), token[index], np.array([2, 1, 3, 1, 2]), 4)
    scores = score(shared, observed, 2048, index)
    alone = score(shared.select(index), observed, 2048)
    for name in ("nll", "nll_folded", "recall", "precision", "all_within_40"):
        np.testing.assert_allclose(scores[name], alone[name], atol=1e-5)
    for name in ("entropy", "wasserstein_rad"):
        np.testing.assert_allclose(scores[name], alone[name], atol=1e-5)


def test_missing_chi_leave_every_metric_finite_or_null(own):
    density, observed, _ = own
    missing = observed.defined.clone()
    several = missing.sum(1) > 1
    last = missing.sum(1) - 1
    missing[several, last[several]] = False
    partial = replace(observed, chi=torch.where(missing, observed.chi, 0.0), defined=missing)
    again = score(density, partial)
    for name in ("nll", "entropy", "wasserstein_rad", "recall", "heterogeneity"):
        assert np.isfinite(again[name]).all()
    incomplete = several[np.searchsorted(observed.row_residue.numpy(), np.arange(1500))]
    assert np.isnan(again["all_within_20"][incomplete.numpy()]).all()
    # Judged by the chi that are there, the generator stays calibrated.
    assert abs((again["hdr"] <= 0.5).mean() - 0.5) < 0.05


# --- Wasserstein ------------------------------------------------------------------------------


def exact_transport(cost: np.ndarray, demand: np.ndarray) -> float:
    num_samples, num_atoms = cost.shape
    supply = np.kron(np.eye(num_samples), np.ones(num_atoms))
    need = np.kron(np.ones(num_samples), np.eye(num_atoms))
    right = np.concatenate([np.full(num_samples, 1 / num_samples), demand])
    return linprog(cost.ravel(), A_eq=np.concatenate([supply, need]), b_eq=right).fun


@pytest.mark.parametrize("num_atoms", [1, 2, 3, 4, 6])
def test_transport_agrees_with_a_linear_program(num_atoms):
    rng = np.random.default_rng(num_atoms)
    num, num_samples = 12, 24
    cost = rng.random((num, num_samples, num_atoms)).astype(np.float32)
    cost[: num // 2] **= 6  # many samples close to one atom: demand is far from free choice
    demand = rng.dirichlet(np.full(num_atoms, 0.4), num) if num_atoms > 1 else np.ones((num, 1))
    exact = [exact_transport(c, d) for c, d in zip(cost, demand, strict=True)]
    rows = torch.arange(num).repeat_interleave(num_atoms)
    occupancy = torch.from_numpy(demand.ravel()).float()
    observed = observed_as([TOKEN["LYS"]] * num, rows, torch.zeros(len(rows), 4), occupancy)
    distance = torch.from_numpy(cost).permute(0, 2, 1).reshape(-1, num_samples)
    np.testing.assert_allclose(wasserstein(distance, observed).numpy(), exact, atol=2e-6)
    if num_atoms > 1:
        costs = torch.from_numpy(cost).permute(2, 0, 1)
        value = transport_cost(costs, torch.from_numpy(demand).T)
        np.testing.assert_allclose(value.numpy(), exact, atol=2e-6)


@pytest.mark.parametrize("num_atoms", [3, 4, 6])
def test_few_searches_find_the_prices_of_transport(num_atoms, monkeypatch):
    """Of 100 residues with 256 points each: searches along a line, of which the time is made."""
    searches = []

    def counted(*problem):
        searches.append(1)
        search(*problem)

    search = transport._find_best_price
    monkeypatch.setattr(transport, "_find_best_price", counted)
    generator = torch.Generator().manual_seed(num_atoms)
    rotamer = 4.0 * torch.randint(0, 3, (100, 256, 1), generator=generator)
    points = rotamer + torch.randn(100, 256, 2, generator=generator)
    atoms = 3.0 + 3.0 * torch.randn(num_atoms, 100, 1, 2, generator=generator)
    demand = torch.rand(num_atoms, 100, generator=generator)
    transport_cost((points - atoms).norm(dim=-1), demand / demand.sum(0))
    assert 0 < len(searches) <= 8 * (2 ** (num_atoms - 1) - 1)


def test_distance_of_too_many_altlocs_is_missing():
    """Beside it stands a residue with two, which has one."""
    num = transport.MOST_ALTLOCS + 1
    rows = torch.tensor([0] * num + [1, 1])
    occupancy = torch.tensor([1.0 / num] * num + [0.5, 0.5])
    observed = observed_as([TOKEN["LYS"]] * 2, rows, torch.zeros(len(rows), 4), occupancy)
    found = wasserstein(torch.ones(len(rows), 8), observed)
    assert found.isnan().tolist() == [True, False]


def test_occupancies_and_distances_are_those_of_points_taken_one_by_one(own):
    density, observed, scores = own
    points = density.points(256).chi
    for residue in torch.arange(0, len(observed), 60).tolist():
        rows = torch.nonzero(observed.row_residue == residue)[:, 0]
        distance = circular_distance(
            points[:, None, residue], observed.chi[rows], observed.symmetric[residue]
        )[..., observed.chi_mask[residue]]  # (S,A,d)
        mean = distance.square().mean(-1).sqrt()
        near = (distance <= math.radians(DISTINCT_DEGREES)).all(-1)
        own_points = mean.argmin(1)[:, None] == torch.arange(len(rows))
        expected = (near & own_points).float().mean(0)
        assert scores["predicted_occupancy"][rows] == pytest.approx(expected, abs=1 / 128)
        if len(rows) == 1:
            value = float(scores["wasserstein_rad"][residue])
            assert value == pytest.approx(float(mean.mean()), abs=1e-5)


def test_wasserstein_of_two_points_on_the_circle():
    """All mass at 60 degrees, half of the occupancy at 60 and half at 180: W1 is half of 120."""
    token, ones = [TOKEN["VAL"]], torch.ones(1, 1, 4)
    density = mixture_of(token, torch.zeros(1, 1), math.radians(60) * ones, 1e6 * ones)
    chi = torch.zeros(2, 4)
    chi[:, 0] = torch.tensor([math.radians(60), math.pi])
    half = torch.tensor([0.5, 0.5])
    observed = observed_as(token, torch.tensor([0, 0]), chi, half)
    value = score(density, observed)["wasserstein_rad"][0]
    assert value == pytest.approx(math.radians(60), abs=2e-3)
    assert altloc_spread(observed)[0] == pytest.approx(math.radians(120), abs=1e-5)


# --- Modes ------------------------------------------------------------------------------------


def leucine(chi1: list[int], weight: list[float], kappa: list[float]) -> VonMisesMixture:
    """LEU with these chi1 (degrees) and chi2 of 180."""
    mean = torch.zeros(1, len(chi1), 4)
    mean[0, :, 0] = torch.tensor(chi1).deg2rad()
    mean[0, :, 1] = math.pi
    wide = torch.tensor(kappa)[None, :, None].expand(1, -1, 4)
    return mixture_of([TOKEN["LEU"]], torch.tensor([weight]).log(), mean, wide)


def leucine_altlocs(chi: list[tuple[float, float]], occupancy: list[float]) -> Observed:
    rows = torch.zeros((len(chi), 4))
    rows[:, :2] = torch.tensor(chi).deg2rad()
    of_residue = torch.zeros(len(chi), dtype=torch.long)
    return observed_as([TOKEN["LEU"]], of_residue, rows, torch.tensor(occupancy))


def test_best_mode_is_the_heaviest_not_the_highest():
    """A peak of kappa 400 and mass 0.4 loses to two broad neighbours of 0.3 each."""
    density = leucine([-65, 175, -175], [0.4, 0.3, 0.3], [400.0, 10.0, 10.0])
    right = score(density, leucine_altlocs([(180, 180)], [1.0]))
    wrong = score(density, leucine_altlocs([(-65, 180)], [1.0]))
    assert right["all_within_20"][0] == 1
    assert wrong["all_within_20"][0] == 0


def test_recall_precision_and_accuracy_by_hand():
    density = leucine([-60, 60, 180], [0.7, 0.22, 0.08], [60.0, 60.0, 60.0])
    observed = leucine_altlocs([(-85, 170), (175, 180)], [0.6, 0.4])
    scores = score(density, observed, 64)
    assert scores["recall"][0] == 0.5  # the mode of weight 0.08 is too light to count
    assert scores["precision"][0] == pytest.approx(0.7 / 0.92, abs=1e-5)
    assert scores["num_modes"][0] == 2
    got = [scores[f"{part}_within_{t}"][0] for t in (20, 40) for part in ("chi1", "chi12", "all")]
    assert got == [0, 0, 0, 1, 1, 1]  # chi1 is 25 degrees off, against the altloc of 0.6
    lower, _ = recall_precision(
        torch.from_numpy(scores["mode_weight"]),
        torch.from_numpy(scores["mode_match"]),
        torch.from_numpy(scores["match_weight"]),
        observed,
        0.05,
    )
    assert lower[0] == 1.0


def test_accuracy_is_null_where_the_type_lacks_the_chi(own):
    _, observed, scores = own
    one = observed.chi_mask.sum(1).numpy() == 1
    assert np.isnan(scores["chi12_within_20"][one]).all()
    assert np.isfinite(scores["chi1_within_20"]).all()


def test_two_draws_of_two_equal_rotamers_differ_half_of_the_time():
    density = leucine([-60, 180], [0.5, 0.5], [300.0, 300.0])
    scores = score(density, leucine_altlocs([(-60, 180)], [1.0]))
    assert scores["heterogeneity"][0] == pytest.approx(0.5, abs=0.002)


# --- Intervals --------------------------------------------------------------------------------


def test_percentiles_are_those_of_numpy_without_what_is_not_there():
    drawn = np.random.default_rng(4).normal(size=(5, 101))
    drawn[1, 7:20] = drawn[2] = np.nan
    low, high = _percentiles(drawn)
    for row in (0, 1, 3, 4):
        assert [low[row], high[row]] == pytest.approx(np.nanpercentile(drawn[row], [2.5, 97.5]))
    assert np.isnan([low[2], high[2]]).all()


def test_resampled_areas_are_those_of_resampled_residues():
    """Each resample by its residues, written out; ranks of fewer residues than bins are exact."""
    rng = np.random.default_rng(5)
    score, label, entry = rng.random(200), rng.random(200) < 0.3, np.arange(200) // 10
    weights = bootstrap_weights(20, 50, 0)
    found = bootstrap_auroc(
        score[:, None], label, entry, weights, np.zeros(200, dtype=int), 1, num_bins=200
    )
    drawn = [auroc(score, label, w[entry]) for w in weights]
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert [found.low[0, 0], found.high[0, 0]] == pytest.approx([low, high], abs=1e-6)


def test_auroc_against_all_pairs():
    rng = np.random.default_rng(1)
    value = rng.integers(0, 6, 200).astype(float)
    truth = rng.random(200) < 0.3
    pairs = value[truth][:, None] - value[~truth][None]
    expected = (pairs > 0).mean() + 0.5 * (pairs == 0).mean()
    assert auroc(value, truth) == pytest.approx(expected, abs=1e-12)


def test_auroc_of_random_entropies_is_one_half_within_its_interval():
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(40):
        found = bootstrap_auroc(
            rng.random((1000, 1)),
            rng.random(1000) < 0.2,
            np.repeat(np.arange(50), 20),
            bootstrap_weights(50, 300, 0),
            np.zeros(1000, dtype=int),
            1,
        )
        low, value, high = (x[0, 0] for x in (found.low, found.value, found.high))
        assert low < value < high
        inside += low <= 0.5 <= high
    assert inside >= 34


def test_bootstrap_interval_is_that_of_the_normal_for_one_residue_an_entry():
    rng = np.random.default_rng(3)
    values = rng.normal(size=400)
    figures = bootstrap_means([values], np.arange(400), bootstrap_weights(400, 4000, 1))
    assert figures.value[0, 0] == pytest.approx(values.mean())
    expected = 2 * 1.96 * values.std() / 20
    assert figures.high[0, 0] - figures.low[0, 0] == pytest.approx(expected, rel=0.08)


def test_group_means_ignore_nan_and_one_entry_has_no_interval():
    figures = bootstrap_means(
        [np.array([1.0, 3.0, np.nan, 10.0])],
        np.array([0, 1, 1, 1]),
        bootstrap_weights(2, 100, 0),
        level=np.array([0, 0, 0, 1]),
        num_levels=3,
    )
    np.testing.assert_allclose(figures.value[:, 0], [2.0, 10.0, np.nan])
    assert figures.count[:, 0].tolist() == [2, 1, 0]
    assert np.isfinite(figures.low[0, 0])
    assert np.isnan(figures.low[1:, 0]).all()


def test_figures_of_no_residue_and_of_one_entry_have_no_interval_beside_others():
    """No entry of a small test set has a disulfide or a metal."""
    nothing, one, several = (np.array(x) for x in ([np.nan] * 3, [1.0, np.nan, 3.0], [1.0, 2, 6]))
    figures = bootstrap_means([nothing, one, several], np.array([0, 1, 0]), np.ones((7, 2)))
    assert figures.count[0].tolist() == [0, 2, 3]
    np.testing.assert_allclose(figures.value[0], [np.nan, 2.0, 3.0])
    np.testing.assert_allclose(figures.low[0], [np.nan, np.nan, 3.0])
