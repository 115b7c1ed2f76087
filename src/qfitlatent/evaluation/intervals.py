"""Bootstrap intervals over entries, and areas under ROC curves with theirs.

Shapes: N residues, E entries, B bootstrap resamples, F figures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


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


Term = tuple[int, int | None]
"""The value that a figure is the mean of; with a second, minus that one on the same residues."""


def bootstrap_means(
    values: Sequence[np.ndarray],
    entry: np.ndarray,
    weights: np.ndarray | None,
    level: np.ndarray | None = None,
    num_levels: int = 1,
    row_weight: np.ndarray | None = None,
    figures: Sequence[Term] | None = None,
) -> Interval:
    """Means of F figures of values, each (N,), per level, each array of the result (L,F).

    figures None: the values themselves. What is nan is left out of its own figures only. entry (N,)
    number of the entry, level (N,) number of the level. A level with one entry has no interval;
    weights None: every level is one.
    """
    num_entries = 1 if weights is None else weights.shape[1]
    level = np.zeros(len(entry), dtype=np.int64) if level is None else level
    cell = level if weights is None else level * num_entries + entry
    values, figures, alike = _by_residues(
        values, figures or [(v, None) for v in range(len(values))]
    )
    value, low, high = np.full((3, num_levels, len(figures)), np.nan)
    count, entries = np.zeros((2, num_levels, len(figures)), dtype=np.int64)

    def of_cells(cell: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        sums = np.bincount(cell, values, num_levels * num_entries)
        return sums.reshape(num_levels, num_entries)

    for members, of_members in alike:
        mask = np.isfinite(values[members[0]])
        known = slice(None) if mask.all() else mask  # no copy where nothing is left out
        own, w = cell[known], 1.0 if row_weight is None else row_weight[known]
        present, mass = of_cells(own), of_cells(own, np.broadcast_to(w, own.shape))
        sums = np.stack([of_cells(own, values[v][known] * w) for v in members])  # (V,L,E)
        several = np.flatnonzero((present > 0).sum(1) > 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = dict(zip(members, sums.sum(2) / mass.sum(1), strict=True))
            if weights is not None:
                drawn = sums[:, several].reshape(-1, num_entries) @ weights.T
                drawn = drawn.reshape(len(members), len(several), len(weights))  # (V,l,B)
                resampled = dict(zip(members, drawn / (mass[several] @ weights.T), strict=True))
        for f in of_members:
            count[:, f], entries[:, f] = present.sum(1), (present > 0).sum(1)
            value[:, f] = _less(means, figures[f])
            if weights is not None and len(several):
                low[several, f], high[several, f] = _percentiles(_less(resampled, figures[f]))
    return Interval(value, low, high, count, entries)


def _by_residues(
    values: Sequence[np.ndarray], figures: Sequence[Term]
) -> tuple[list[np.ndarray], list[Term], list[tuple[list[int], list[int]]]]:
    """Values and figures, and which values and figures are known for the same residues.

    These are summed and drawn together, and the difference of two is one of means. That of values
    for different residues becomes a value of its own.
    """
    values, terms = list(values), []
    masks = [np.isfinite(value).tobytes() for value in values]
    for one, other in figures:
        if other is not None and masks[one] != masks[other]:
            values.append(values[one] - values[other])
            masks.append(np.isfinite(values[-1]).tobytes())
            one, other = len(values) - 1, None
        terms.append((one, other))
    groups: dict[bytes, tuple[list[int], list[int]]] = {mask: ([], []) for mask in masks}
    for v, mask in enumerate(masks):
        groups[mask][0].append(v)
    for f, (one, _) in enumerate(terms):
        groups[masks[one]][1].append(f)
    return values, terms, list(groups.values())


def _less(of_values: Mapping[int, np.ndarray], term: Term) -> np.ndarray:
    one, other = term
    return of_values[one] if other is None else of_values[one] - of_values[other]


def _percentiles(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2.5 and 97.5 % of drawn (L,B) along the resamples; those without the level are left out.

    One sort, in which nan come last, for both: a quarter of the time of numpy's percentiles.
    """
    drawn = np.sort(drawn, axis=1)
    last = np.maximum(np.isfinite(drawn).sum(1) - 1, 0)
    ends = []
    for share in (0.025, 0.975):
        place = share * last
        below = np.floor(place).astype(int)
        above = np.minimum(below + 1, last)
        lower, upper = (drawn[np.arange(len(drawn)), at] for at in (below, above))
        ends.append(lower + (place - below) * (upper - lower))
    return ends[0], ends[1]


def auroc(score: np.ndarray, label: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Probability that a positive scores above a negative, ties counting half; nan without both.

    weight (N,) counts each residue that many times.
    """
    weight = np.ones(len(score)) if weight is None else weight
    order = np.argsort(score, kind="stable")
    _, first = np.unique(score[order], return_index=True)
    positive = np.add.reduceat((weight * label)[order], first) if len(first) else np.zeros(0)
    negative = np.add.reduceat((weight * ~label)[order], first) if len(first) else np.zeros(0)
    return float(_area(positive, negative, np.cumsum(negative)))


def _area(positive: np.ndarray, negative: np.ndarray, up_to: np.ndarray) -> np.ndarray:
    """(...) from mass at T ascending scores (T,...), and the negative mass up to and at each."""
    total = positive.sum(0).astype(float) * negative.sum(0)
    below = up_to - 0.5 * negative
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, np.einsum("t...,t...->...", positive, below) / total, np.nan)


def _auroc_of_bins(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """positive, negative (T,B) mass at ascending scores: (B,)."""
    up_to = negative.copy()
    for before, row in pairwise(up_to):  # numpy's sum along columns takes five times as long
        row += before
    return _area(positive, negative, up_to)


def bootstrap_auroc(
    scores: np.ndarray,
    label: np.ndarray,
    entry: np.ndarray,
    weights: np.ndarray,
    level: np.ndarray,
    num_levels: int,
    num_bins: int = 256,
) -> Interval:
    """AUROC of each column of scores (N,F) per level, each array of the result (L,F).

    label (N,) bool. The resamples see the score's rank in 256 bins. A level without a positive or
    without a negative has a count of 0; a score that is nan is left out.
    """
    shape = (num_levels, scores.shape[1])
    value, low, high = np.full((3, *shape), np.nan)
    count, num_entries = np.zeros((2, *shape), dtype=np.int64)
    of_entries = torch.from_numpy(np.ascontiguousarray(weights.T, dtype=np.float32))  # (E,B)
    for at in np.ndindex(*shape):
        keep = (level == at[0]) & np.isfinite(scores[:, at[1]])
        score, positive, of_entry = scores[keep, at[1]], label[keep], entry[keep]
        if not positive.any() or positive.all():
            continue
        order = np.argsort(score, kind="stable")
        positive, of_entry = positive[order], of_entry[order]
        bins = np.arange(len(order)) * num_bins // len(order)
        mass = [
            _mass_of_bins(bins[kind], of_entry[kind], of_entries, num_bins)
            for kind in (positive, ~positive)
        ]
        low[at], high[at] = (end[0] for end in _percentiles(_auroc_of_bins(*mass)[None]))
        value[at] = auroc(score[order], positive)
        count[at], num_entries[at] = len(score), np.count_nonzero(np.bincount(of_entry))
    return Interval(value, low, high, count, num_entries)


def _mass_of_bins(
    bins: np.ndarray, entry: np.ndarray, weights: Tensor, num_bins: int
) -> np.ndarray:
    """(num_bins,B) how often residues of a bin are drawn: bins (n,) ascending, weights (E,B).

    Only rows of weights are added up; a product with all entries would be mostly with zeros.
    """
    start = torch.from_numpy(np.searchsorted(bins, np.arange(num_bins)))
    return embedding_bag(torch.from_numpy(entry), weights, start, mode="sum").numpy()


def roc_curve(score: np.ndarray, label: np.ndarray, num_points: int = 201) -> np.ndarray:
    """(P,2) false and true positive rate as the threshold falls, for a picture."""
    order = np.argsort(-score, kind="stable")
    true = np.concatenate([[0], np.cumsum(label[order])]) / max(1, label.sum())
    false = np.concatenate([[0], np.cumsum(~label[order])]) / max(1, (~label).sum())
    at = np.unique(np.linspace(0, len(score), num_points).astype(int))
    return np.stack([false[at], true[at]], axis=1)
