"""How well numbers agree with measured ones: correlations and errors, protein by protein.

Shapes: R values, B bootstrap resamples.
"""

from typing import NamedTuple

import numpy as np

FIGURES = ("pearson", "spearman", "rmse")


class Agreement(NamedTuple):
    """Value, low and high of each of ``FIGURES``, (3,3); nan where there is none."""

    figures: np.ndarray
    num: int


def agreement(
    predicted: np.ndarray, measured: np.ndarray, num_samples: int, seed: int
) -> Agreement:
    """Of R pairs, with 95 % percentile intervals over resampled pairs.

    Ranks are those among all pairs. A correlation of what does not vary, and any figure of fewer
    than three pairs, is nan.
    """
    num = len(measured)
    figures = np.full((len(FIGURES), 3), np.nan)
    if num < 3:
        return Agreement(figures, num)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(num, np.full(num, 1.0 / num), num_samples).astype(np.float64)
    of_all, of_drawn = (_figures(w, predicted, measured) for w in (np.ones((1, num)), drawn))
    figures[:, 0] = of_all[:, 0]
    for row, values in zip(figures, of_drawn, strict=True):
        known = values[np.isfinite(values)]
        if np.isfinite(row[0]) and len(known):
            row[1:] = np.percentile(known, [2.5, 97.5])
    return Agreement(figures, num)


def _figures(weight: np.ndarray, predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(3,B) figures of pairs that count weight (B,R) times."""
    share = weight / weight.sum(1, keepdims=True)
    square = share @ (predicted - measured) ** 2
    return np.stack(
        [
            _correlation(share, predicted, measured),
            _correlation(share, mean_rank(predicted), mean_rank(measured)),
            np.sqrt(square),
        ]
    )


def _correlation(share: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(B,) weighted correlation; nan where a or b does not vary."""
    a, b = a - a.mean(), b - b.mean()
    mean_a, mean_b = share @ a, share @ b
    spread = (share @ a**2 - mean_a**2) * (share @ b**2 - mean_b**2)
    least = 1e-12 * np.ptp(a) ** 2 * np.ptp(b) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (share @ (a * b) - mean_a * mean_b) / np.sqrt(spread)
    return np.where(spread > least, value, np.nan)


def mean_rank(values: np.ndarray) -> np.ndarray:
    """Rank of each value from 0, ties averaged."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - 0.5 * (count + 1))[place]


def mean_of_others(values: np.ndarray, group: np.ndarray, protein: np.ndarray) -> np.ndarray:
    """(R,) mean of the values of the same group in other proteins; nan where there are none."""
    own_group = group[:, None] == group[None, :]
    other = own_group & (protein[:, None] != protein[None, :])
    num = other.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(num > 0, other @ values / num, np.nan)
