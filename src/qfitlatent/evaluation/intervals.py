"""Bootstrap intervals over entries, and areas under ROC curves with theirs.

Shapes: N residues, E entries, B bootstrap resamples, F figures.
"""

from dataclasses import dataclass

import numpy as np


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
    value, low, high = np.full((3, num_levels, num_figures), np.nan)
    count, entries = np.zeros((2, num_levels, num_figures), dtype=np.int64)

    def of_cells(values: np.ndarray) -> np.ndarray:
        return np.bincount(cell, values, num_levels * num_entries).reshape(shape)

    # Most figures are known for the same residues: what depends on these alone is made once.
    of_known: dict[bytes, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for f in range(num_figures):
        known = np.isfinite(values[:, f])
        w = known.astype(float) if row_weight is None else known * row_weight
        key = known.tobytes()
        if key not in of_known:
            mass = of_cells(w)
            of_known[key] = of_cells(known), mass, weights @ mass.T
        present, mass, drawn_mass = of_known[key]
        sums = of_cells(np.where(known, values[:, f], 0.0) * w)
        count[:, f] = present.sum(1)
        entries[:, f] = (present > 0).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            value[:, f] = sums.sum(1) / mass.sum(1)
            drawn = (weights @ sums.T) / drawn_mass  # (B,L)
        several = entries[:, f] > 1
        low[several, f], high[several, f] = (end[several] for end in _percentiles(drawn))
    return Interval(value, low, high, count, entries)


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
    for at in np.ndindex(*shape):
        keep = (level == at[0]) & np.isfinite(scores[:, at[1]])
        score, positive, of_entry = scores[keep, at[1]], label[keep], entry[keep]
        if not positive.any() or positive.all():
            continue
        rank = np.argsort(np.argsort(score, kind="stable"), kind="stable")
        cell = of_entry * num_bins + rank * num_bins // len(score)
        mass = [
            np.bincount(cell, kind, weights.shape[1] * num_bins).reshape(-1, num_bins)
            for kind in (positive, ~positive)
        ]
        drawn = _auroc_of_bins(weights @ mass[0], weights @ mass[1])
        value[at] = auroc(score, positive)
        low[at], high[at] = (end[0] for end in _percentiles(drawn[:, None]))
        count[at], num_entries[at] = len(score), len(np.unique(of_entry))
    return Interval(value, low, high, count, num_entries)


def roc_curve(score: np.ndarray, label: np.ndarray, num_points: int = 201) -> np.ndarray:
    """(P,2) false and true positive rate as the threshold falls, for a picture."""
    order = np.argsort(-score, kind="stable")
    true = np.concatenate([[0], np.cumsum(label[order])]) / max(1, label.sum())
    false = np.concatenate([[0], np.cumsum(~label[order])]) / max(1, (~label).sum())
    at = np.unique(np.linspace(0, len(score), num_points).astype(int))
    return np.stack([false[at], true[at]], axis=1)
