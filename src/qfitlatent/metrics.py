"""Metrics of SPEC 8: what a density over chi says of the altlocs that were observed.

``score_density`` takes any object with the protocol of ``mixture.py`` (log_prob, sample, modes) and
gives one value a residue or one a row; ``bootstrap_means`` and the functions below it turn those
into figures with intervals over entries. Nothing here loops over residues.

Lower is better for nll, nll_folded, wasserstein_rad; higher for recall, precision and the rotamer
accuracies. ``nll`` is properly normalised on the full circle; ``nll_folded`` is the training loss
of SPEC 7 and flatters by up to log 2 for each pi-symmetric chi.

Shapes: N residues, M observed rows (residue x altloc), D=4 chi, S samples, J modes, A altlocs of
one residue, E entries, B bootstrap resamples, F figures, L levels of a group.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.density.rows import Observed, altloc_columns, sum_rows
from qfitlatent.density.von_mises import circular_distance

TOLERANCES_DEGREES = (20, 40)
"""Rotamer accuracy: a chi is right when it is this close."""


ROTAMER_METRICS = tuple(
    f"{part}_within_{tolerance}"
    for tolerance in TOLERANCES_DEGREES
    for part in ("chi1", "chi12", "all")
)


RESIDUE_METRICS = (
    "nll",
    "nll_folded",
    "recall",
    "precision",
    "wasserstein_rad",
    *ROTAMER_METRICS,
    "entropy",
    "heterogeneity",
    "num_modes",
)


MODES_KEPT = 16
"""Modes of a residue that are kept for the recall and precision curves, heaviest first."""


SMALLEST_MODE = 0.01
"""Modes below this mass are left out of the curves over the weight threshold."""


PRICE_SWEEPS = 6
"""Rounds over the altlocs that find the prices from which optimal transport starts."""


MASS_TOLERANCE = 1e-7
"""Optimal transport stops when less than this share of the mass is at the wrong altloc."""


@dataclass(frozen=True)
class ScoreSettings:
    """The numbers behind the metrics; defaults are those of SPEC 8."""

    num_samples: int = 256
    mode_weight: float = 0.1
    mode_merge_degrees: float = 30.0
    match_degrees: float = 30.0
    distinct_degrees: float = 40.0


def score_density(
    density,
    observed: Observed,
    settings: ScoreSettings,
    generator: torch.Generator,
    index: Tensor | None = None,
) -> dict[str, np.ndarray]:
    """All of ``RESIDUE_METRICS`` as (N,); hdr, predicted_occupancy and match_weight as (M,).

    density: protocol over N residues or, with ``index`` (N,) long, over fewer that are shared (a
    library has one row a residue type). hdr is the probability mass of the region denser than the
    observed altloc, match_weight the mass of the heaviest mode near it. Also mode_weight (N,J),
    mode_chi (N,J,4) and mode_match (N,J), heaviest first, for the curves. Values that a residue
    does not have (chi1+2 of SER) are nan.
    """
    if index is None:
        index = torch.arange(observed.num_residues)
    rows = index[observed.row_residue]
    out: dict[str, Tensor] = {}
    log_prob = density.log_prob(observed.chi, observed.defined, rows)
    folded = density.log_prob(observed.chi, observed.defined, rows, folded=True)
    out["nll"] = -sum_rows(observed.occupancy * log_prob, observed)
    out["nll_folded"] = -sum_rows(observed.occupancy * folded, observed)

    samples, log_samples = _draws(density, observed, settings.num_samples, generator, index)
    out["entropy"] = -log_samples.mean(0)[index]
    out["hdr"] = _hdr(density, samples, log_samples, log_prob, observed, rows)
    out["heterogeneity"] = _two_draws_differ(samples, index, observed, settings)

    distance, near = _sample_distances(samples, observed, rows, settings)
    out["predicted_occupancy"] = _predicted_occupancy(distance, near, observed)
    out["wasserstein_rad"] = wasserstein(distance, observed)

    modes = density.modes(SMALLEST_MODE, math.radians(settings.mode_merge_degrees))
    weight, chi = _heaviest(modes, index)
    out |= _mode_metrics(weight, chi, observed, settings)
    return {name: value.numpy() for name, value in out.items()}


def _draws(density, observed: Observed, num: int, generator: torch.Generator, index: Tensor):
    """(S,N,4) draws and their (S,N) log density."""
    if not isinstance(density, VonMisesMixture):
        return density.sample_with_log_prob(num, generator)
    samples = density.sample(num, generator)
    mask = torch.zeros(samples.shape[1:], dtype=torch.bool)
    mask[index] = observed.chi_mask
    return samples, sample_log_prob(density, samples, mask)


def sample_log_prob(density: VonMisesMixture, samples: Tensor, mask: Tensor) -> Tensor:
    """(S,N) log-density of samples (S,N,4) at their own residues; mask (N,4) the chi that exist.

    The mixture is evaluated through its natural parameters, one batched matrix product instead of a
    cosine for every sample, component and chi: six times faster for large K.
    """
    num_samples, num, _ = samples.shape
    out = torch.empty(num, num_samples)
    block = max(1, (1 << 19) // (num_samples * density.log_weight.shape[1]))
    for start in range(0, num, block):
        part = slice(start, start + block)
        out[part] = _mixture_log_prob(density, samples[:, part].transpose(0, 1), mask[part], part)
    return out.T


def _mixture_log_prob(density, chi: Tensor, mask: Tensor, part: slice) -> Tensor:
    """(n,S) for chi (n,S,4): a symmetric chi counts each component at mu and mu + pi, half each."""
    kappa = density.kappa[part].float() * mask[:, None, :]
    mean = density.mean[part].float()
    eta = torch.cat([kappa * mean.cos(), kappa * mean.sin()], dim=-1)
    log_norm = torch.special.i0e(kappa).log() + kappa + math.log(2 * math.pi)
    base = density.log_weight[part].float() - (log_norm * mask[:, None, :]).sum(-1)
    point = torch.cat([chi.cos(), chi.sin()], dim=-1)
    logit = torch.baddbmm(base[:, None, :], point, eta.transpose(1, 2))
    symmetric = density.symmetric[part] & mask
    turned = symmetric.any(1)
    if turned.any():
        if int(symmetric.sum(1).max()) > 1:
            raise ValueError("A residue type with two pi-symmetric chi is not supported here.")
        flip = torch.where(symmetric[turned], -1.0, 1.0).repeat(1, 2)
        other = torch.baddbmm(
            base[turned][:, None, :], point[turned], (eta[turned] * flip[:, None]).transpose(1, 2)
        )
        result = logit.logsumexp(2)
        both = torch.logaddexp(result[turned], other.logsumexp(2)) - math.log(2.0)
        result[turned] = both
        return result
    return logit.logsumexp(2)


def _hdr(
    density,
    samples: Tensor,
    log_samples: Tensor,
    log_prob: Tensor,
    observed: Observed,
    rows: Tensor,
) -> Tensor:
    """(M,) mass of the region denser than the observed altloc, from the samples.

    A row with a missing chi is judged by the density of the chi it has, so its samples are
    evaluated again without the missing ones.
    """
    denser = (log_samples[:, rows] > log_prob).float().mean(0)
    partial = (observed.defined != observed.chi_mask[observed.row_residue]).any(1)
    if partial.any():
        at = rows[partial]
        chi = samples[:, at]
        num_samples, num, num_chi = chi.shape
        again = density.log_prob(
            chi.reshape(-1, num_chi),
            observed.defined[partial].repeat(num_samples, 1),
            at.repeat(num_samples),
        ).view(num_samples, num)
        denser[partial] = (again > log_prob[partial]).float().mean(0)
    return denser


def _two_draws_differ(
    samples: Tensor, index: Tensor, observed: Observed, settings: ScoreSettings
) -> Tensor:
    """(N,) probability that two draws are distinct rotamers: some chi beyond the limit."""
    half = samples.shape[0] // 2
    distance = circular_distance(
        samples[:half, index], samples[half : 2 * half, index], observed.symmetric
    )
    far = (distance > math.radians(settings.distinct_degrees)) & observed.chi_mask
    return far.any(-1).float().mean(0)


def _sample_distances(
    samples: Tensor, observed: Observed, rows: Tensor, settings: ScoreSettings
) -> tuple[Tensor, Tensor]:
    """(S,M) root mean square distance over the row's chi, and whether every chi is near."""
    distance = circular_distance(
        samples[:, rows], observed.chi, observed.symmetric[observed.row_residue]
    )
    distance = distance * observed.defined
    near = (distance <= math.radians(settings.distinct_degrees)).all(-1)
    count = observed.defined.sum(-1).clamp(min=1)
    return (distance.square().sum(-1) / count).sqrt(), near


def _predicted_occupancy(distance: Tensor, near: Tensor, observed: Observed) -> Tensor:
    """(M,) mass of the samples within ``distinct_degrees`` of the altloc and nearest to it."""
    spread = altloc_columns(distance, observed, math.inf)
    nearest = spread.argmin(-1)[:, observed.row_residue] == observed.altloc_number()
    return (nearest & near).float().mean(0)


def wasserstein(distance: Tensor, observed: Observed) -> Tensor:
    """(N,) exact W1 between the S equally weighted samples and the observed altlocs, in radians.

    distance (S,M) is the ground metric: root mean square over chi of the circular distance,
    symmetry-aware. One altloc needs no transport problem, two are solved by sorting, more by
    ``transport_cost``.
    """
    cost = altloc_columns(distance, observed, math.inf).permute(1, 0, 2)  # (N,S,A)
    mass = altloc_columns(observed.occupancy.to(distance.dtype), observed, 0.0)
    mass = mass / mass.sum(1, keepdim=True)
    num = observed.num_conformers
    out = torch.full((observed.num_residues,), math.nan)
    one, two = num == 1, num == 2
    out[one] = cost[one][:, :, 0].mean(1)
    if two.any():
        out[two] = _two_atoms(cost[two][:, :, :2], mass[two][:, 0])
    for width in range(3, cost.shape[2] + 1):
        same = num == width
        if same.any():
            out[same] = transport_cost(cost[same][:, :, :width], mass[same][:, :width])
    return out


def _two_atoms(cost: Tensor, first: Tensor) -> Tensor:
    """Optimal transport of S equal masses to two atoms: those that gain most go to the first."""
    num_samples = cost.shape[1]
    gain = (cost[:, :, 0] - cost[:, :, 1]).sort(dim=1).values
    share = (first[:, None] * num_samples - torch.arange(num_samples)).clamp(0.0, 1.0)
    return (cost[:, :, 1].sum(1) + (gain * share).sum(1)) / num_samples


def transport_cost(cost: Tensor, demand: Tensor) -> Tensor:
    """(n,) exact optimal transport cost of S equal sources to A targets, many problems at once.

    cost (n,S,A), demand (n,A) summing to 1. Every source starts at the target that is nearest
    after a price for each target (``_prices``), which is optimal for what the targets then hold.
    Successive shortest paths do the rest: mass moves from targets with too much to targets with
    too little along the cheapest path, a step from a to b costing the smallest
    cost[s,b] - cost[s,a] over the sources s held at a (Ahuja, Magnanti, Orlin 1993, section 9.7).
    Each round moves one path of every problem that still has surplus; good prices leave few.
    """
    num, num_samples, _ = cost.shape
    cost = cost.double()
    demand = demand.double()
    demand = demand / demand.sum(1, keepdim=True)
    held = torch.zeros_like(cost)
    priced = cost - _prices(cost, demand)[:, None, :]
    held.scatter_(2, priced.argmin(2, keepdim=True), 1.0 / num_samples)
    # move[s,a,b] never changes; only which sources are held at a does.
    move = cost[:, :, None, :] - cost[:, :, :, None]  # (n,S,A,A)
    active = torch.arange(num)
    while True:
        surplus = held[active].sum(1) - demand[active]
        todo = surplus.clamp(min=0.0).sum(1) > MASS_TOLERANCE
        active, surplus = active[todo], surplus[todo]
        if not len(active):
            break
        _move_along_cheapest_path(held, move, active, surplus)
    return (held * cost).sum((1, 2)).float()


def _prices(cost: Tensor, demand: Tensor) -> Tensor:
    """(n,A) prices under which the targets attract about what they demand.

    Coordinate ascent on the dual: each target in turn takes the price at which it wins as many
    sources from the others as it demands, between those of the last winner and the first loser.
    """
    num_samples, num_atoms = cost.shape[1:]
    price = torch.zeros_like(demand)
    wins = (demand * num_samples).round().long().clamp(1, num_samples - 1)
    for _ in range(PRICE_SWEEPS):
        for a in range(num_atoms):
            others = (cost - price[:, None, :]).index_fill(2, torch.tensor([a]), math.inf)
            margin = (cost[:, :, a] - others.amin(2)).sort(dim=1).values
            last = margin.gather(1, wins[:, a : a + 1] - 1)
            first_loser = margin.gather(1, wins[:, a : a + 1])
            price[:, a] = 0.5 * (last + first_loser)[:, 0]
    return price


def _move_along_cheapest_path(held: Tensor, move: Tensor, active: Tensor, surplus: Tensor) -> None:
    """One augmentation of each active problem, in place."""
    num_atoms = surplus.shape[1]
    rows = torch.arange(len(active))
    available = held[active] > MASS_TOLERANCE / 1000
    arc, source = move[active].masked_fill(~available[..., None], math.inf).min(1)  # (n,A,A)
    # Bellman-Ford from all surplus targets; arcs may be negative, cycles never are.
    start = surplus > MASS_TOLERANCE / 100
    reach = torch.where(start, 0.0, math.inf).to(arc.dtype)
    before = torch.full(reach.shape, -1, dtype=torch.long)
    for _ in range(num_atoms - 1):
        through, via = (reach[:, :, None] + arc).min(1)
        better = through < reach - 1e-12
        reach = torch.where(better, through, reach)
        before = torch.where(better, via, before)
    end = reach.masked_fill(~(surplus < -MASS_TOLERANCE / 100), math.inf).argmin(1)
    # Walk back: the amount is limited by both ends and by each source on the way.
    amount = -surplus[rows, end]
    path = []
    at = end
    for _ in range(num_atoms - 1):
        origin = before[rows, at]
        step = origin >= 0
        from_atom = origin.clamp(min=0)
        which = source[rows, from_atom, at]
        limit = held[active, which, from_atom]
        amount = torch.where(step, torch.minimum(amount, limit), amount)
        path.append((step, which, from_atom, at))
        at = torch.where(step, from_atom, at)
    amount = torch.minimum(amount, surplus[rows, at])
    for step, which, from_atom, to_atom in path:
        change = torch.where(step, amount, 0.0)
        held.index_put_((active, which, from_atom), -change, accumulate=True)
        held.index_put_((active, which, to_atom), change, accumulate=True)


def _heaviest(modes, index: Tensor) -> tuple[Tensor, Tensor]:
    """weight (N,J) descending, 0 where there is no mode, and chi (N,J,4)."""
    weight = torch.where(modes.valid, modes.weight, 0.0)
    order = weight.argsort(dim=1, descending=True, stable=True)[:, :MODES_KEPT]
    weight = weight.gather(1, order)
    chi = modes.chi.gather(1, order[..., None].expand(-1, -1, modes.chi.shape[-1]))
    return weight[index], chi[index]


def _mode_metrics(
    weight: Tensor, chi: Tensor, observed: Observed, settings: ScoreSettings
) -> dict[str, Tensor]:
    """Recall, precision and rotamer accuracy from modes weight (N,J), chi (N,J,4)."""
    row = observed.row_residue
    distance = circular_distance(chi[row], observed.chi[:, None], observed.symmetric[row][:, None])
    distance = distance * observed.defined[:, None]
    near = (distance <= math.radians(settings.match_degrees)).all(-1)  # (M,J)
    match_weight = torch.where(near, weight[row], 0.0).amax(1)
    mode_match = torch.zeros(weight.shape, dtype=torch.bool)
    mode_match = (
        torch.zeros(weight.shape, dtype=torch.long).index_add_(0, row, near.long()) > 0
    ) & (weight > 0)
    recall, precision = recall_precision(
        weight, mode_match, match_weight, observed, settings.mode_weight
    )
    out = {
        "recall": recall,
        "precision": precision,
        "num_modes": (weight >= settings.mode_weight).sum(1).float(),
        "match_weight": match_weight,
        "mode_weight": weight,
        "mode_chi": chi,
        "mode_match": mode_match,
    }
    return out | _rotamer_accuracy(chi[:, 0], weight[:, 0] > 0, observed)


def recall_precision(
    weight: Tensor, mode_match: Tensor, match_weight: Tensor, observed: Observed, threshold: float
) -> tuple[Tensor, Tensor]:
    """(N,) share of the altlocs near a mode of this weight; (N,) share of the modes near an altloc.

    Precision weighs each mode by its mass and is nan where no mode is heavy enough.
    """
    found = (match_weight >= threshold).float()
    recall = sum_rows(found, observed) / observed.num_conformers.clamp(min=1)
    heavy = torch.where(weight >= threshold, weight, 0.0)
    precision = (heavy * mode_match).sum(1) / heavy.sum(1)
    return recall, precision


def _rotamer_accuracy(best: Tensor, exists: Tensor, observed: Observed) -> dict[str, Tensor]:
    """Best mode (N,4) against the altloc of highest occupancy; nan where it lacks a chi."""
    occupancy = altloc_columns(observed.occupancy, observed, -1.0)
    start = observed.num_conformers.cumsum(0) - observed.num_conformers
    top = start + occupancy.argmax(1)
    distance = circular_distance(best, observed.chi[top], observed.symmetric)
    defined = observed.defined[top]
    mask = observed.chi_mask
    parts = {
        "chi1": torch.tensor([True, False, False, False]).expand_as(mask),
        "chi12": torch.tensor([True, True, False, False]).expand_as(mask),
        "all": mask,
    }
    out = {}
    for tolerance in TOLERANCES_DEGREES:
        near = distance <= math.radians(tolerance)
        for name, part in parts.items():
            applies = (defined | ~part).all(1) & exists & part.any(1)
            right = (near | ~part).all(1).float()
            out[f"{name}_within_{tolerance}"] = torch.where(applies, right, math.nan)
    return out


def bootstrap_weights(num_entries: int, num_samples: int, seed: int) -> np.ndarray:
    """(B,E) how often each entry is drawn in each resample of E entries with replacement."""
    rng = np.random.default_rng(seed)
    if num_entries == 0:
        return np.zeros((num_samples, 0))
    drawn = rng.multinomial(num_entries, np.full(num_entries, 1.0 / num_entries), num_samples)
    return drawn.astype(np.float64)  # products of integers would not use BLAS


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % percentile interval over resampled entries; nan where it has none."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    num_entries: np.ndarray


def bootstrap_means(
    values: np.ndarray,
    entry: np.ndarray,
    weights: np.ndarray,
    level: np.ndarray | None = None,
    num_levels: int = 1,
    row_weight: np.ndarray | None = None,
) -> Interval:
    """Means of values (N,F) per level, each array of the result (L,F).

    nan values are left out of their own figure only. entry (N,) number of the entry, level (N,)
    number of the level. A level with one entry has no interval.
    """
    num, num_figures = values.shape
    num_entries = weights.shape[1]
    level = np.zeros(num, dtype=np.int64) if level is None else level
    cell = level * num_entries + entry
    shape = (num_levels, num_entries)
    out = {k: np.full((num_levels, num_figures), np.nan) for k in ("value", "low", "high")}
    count = np.zeros((num_levels, num_figures), dtype=np.int64)
    entries = np.zeros_like(count)
    for f in range(num_figures):
        known = np.isfinite(values[:, f])
        w = known.astype(float) if row_weight is None else known * row_weight
        filled = np.where(known, values[:, f], 0.0)
        sums = np.bincount(cell, filled * w, num_levels * num_entries).reshape(shape)
        mass = np.bincount(cell, w, num_levels * num_entries).reshape(shape)
        present = np.bincount(cell, known, num_levels * num_entries).reshape(shape)
        count[:, f] = present.sum(1)
        entries[:, f] = (present > 0).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            out["value"][:, f] = sums.sum(1) / mass.sum(1)
            drawn = (weights @ sums.T) / (weights @ mass.T)  # (B,L)
        low, high = _percentiles(drawn)
        several = entries[:, f] > 1
        out["low"][several, f] = low[several]
        out["high"][several, f] = high[several]
    return Interval(out["value"], out["low"], out["high"], count, entries)


def _percentiles(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2.5 and 97.5 % of drawn (B,L) along the resamples; those without the level are left out."""
    empty = ~np.isfinite(drawn).any(0)
    safe = np.where(empty[None], 0.0, drawn)
    if np.isfinite(safe).all():
        low, high = np.percentile(safe, [2.5, 97.5], axis=0)
    else:
        low, high = np.nanpercentile(safe, [2.5, 97.5], axis=0)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def auroc(score: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Probability that a positive scores above a negative, ties counting half; nan without both.

    weight (N,) counts each residue that many times.
    """
    weight = np.ones(len(score)) if weight is None else weight
    order = np.argsort(score, kind="stable")
    _, first = np.unique(score[order], return_index=True)
    positive = np.add.reduceat((weight * label)[order], first) if len(first) else np.zeros(0)
    negative = np.add.reduceat((weight * ~label)[order], first) if len(first) else np.zeros(0)
    return float(_auroc_of_bins(positive[None], negative[None])[0])


def _auroc_of_bins(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """positive, negative (B,T) mass at ascending scores: (B,)."""
    below = np.cumsum(negative, 1) - 0.5 * negative
    total = positive.sum(1) * negative.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (positive * below).sum(1) / total, np.nan)


def bootstrap_auroc(
    score: np.ndarray,
    label: np.ndarray,
    entry: np.ndarray,
    weights: np.ndarray,
    num_bins: int = 256,
) -> tuple[float, float, float]:
    """AUROC and its 95 % interval over entries; the resamples see the score's rank in 256 bins."""
    if not len(score):
        return math.nan, math.nan, math.nan
    rank = np.argsort(np.argsort(score, kind="stable"), kind="stable")
    bins = rank * num_bins // len(score)
    shape = (weights.shape[1], num_bins)
    cell = entry * num_bins + bins
    positive = np.bincount(cell, label, shape[0] * shape[1]).reshape(shape)
    negative = np.bincount(cell, ~label, shape[0] * shape[1]).reshape(shape)
    drawn = _auroc_of_bins(weights @ positive, weights @ negative)
    low, high = _percentiles(drawn[:, None])
    return auroc(score, label), float(low[0]), float(high[0])


def roc_curve(score: np.ndarray, label: np.ndarray, num_points: int = 201) -> np.ndarray:
    """(P,2) false and true positive rate as the threshold falls, for a picture."""
    order = np.argsort(-score, kind="stable")
    true = np.concatenate([[0], np.cumsum(label[order])]) / max(1, label.sum())
    false = np.concatenate([[0], np.cumsum(~label[order])]) / max(1, (~label).sum())
    at = np.unique(np.linspace(0, len(score), num_points).astype(int))
    return np.stack([false[at], true[at]], axis=1)
