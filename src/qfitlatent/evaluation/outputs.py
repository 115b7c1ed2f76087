"""Figures of what a model says beside its density (SPEC 11): p_heterogeneous and b_rank.

Shapes: N residues that are scored, B bootstrap resamples.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from qfitlatent.evaluation.intervals import auroc, bootstrap_auroc, bootstrap_means
from qfitlatent.evaluation.residues import EvaluationSet
from qfitlatent.model.outputs import Outputs

NUM_TENTHS = 10
LEVELS = (0.5, 0.8, 0.95)
Said = Mapping[str, np.ndarray]


def output_scores(said: Outputs) -> dict[str, np.ndarray]:
    """Columns of ``scores.parquet``."""
    return {
        "p_heterogeneous": said.p_heterogeneous.numpy(),
        "b_rank_mean": said.b_rank_mean.numpy(),
        "b_rank_spread": said.b_rank_spread.numpy(),
    }


def output_figures(said: Said, data: EvaluationSet, draws: np.ndarray) -> dict[str, Any]:
    """For ``metrics.json``: over all residues that are evidence, and over the well-determined.

    said has (N,) values of ``output_scores``, and the entropy that p_heterogeneous is put beside;
    draws (B,E) as ``bootstrap_weights`` gives them.
    """
    well = data.well_determined
    return {
        name: {
            "p_heterogeneous": _heterogeneous(said, data, draws, mask),
            "b_rank": _b_rank(said, data, draws, mask),
        }
        for name, mask in (("all", np.ones_like(well)), ("well_determined", well))
        if mask.any()
    }


def _heterogeneous(
    said: Said, data: EvaluationSet, draws: np.ndarray, mask: np.ndarray
) -> dict[str, Any]:
    """AUROC, NLL and reliability on the residues whose altlocs were kept."""
    truth = data.labels("heterogeneous")
    known = mask & np.isfinite(truth)
    p, entropy = said["p_heterogeneous"][known], said["entropy"][known]
    positive, entry = truth[known] > 0, data.entry[known]
    if not positive.any() or positive.all():
        return {"num_residues": int(known.sum()), "num_heterogeneous": int(positive.sum())}
    ranks = np.stack([p, entropy], axis=1)
    areas = bootstrap_auroc(ranks, positive, entry, draws, np.zeros(len(p), dtype=np.int64), 1)
    p_safe = np.clip(p.astype(float), 1e-7, 1 - 1e-7)
    nll = -np.where(positive, np.log(p_safe), np.log1p(-p_safe))
    rate = float(positive.mean())
    tenth = np.minimum((p * NUM_TENTHS).astype(int), NUM_TENTHS - 1)
    order = np.argsort(p, kind="stable")
    return {
        "num_residues": len(p),
        "num_heterogeneous": int(positive.sum()),
        "auroc": _interval(areas, 0),
        "auroc_entropy": _interval(areas, 1),
        "nll": float(nll.mean()),
        "nll_of_rate": -rate * np.log(rate) - (1 - rate) * np.log1p(-rate),
        # By the probability itself, and by its rank: most residues are improbable.
        "reliability": [_reliability(p, positive, tenth == n) for n in np.unique(tenth)],
        "reliability_by_rank": [
            _reliability(p, positive, part) for part in np.array_split(order, NUM_TENTHS)
        ],
    }


def _reliability(p: np.ndarray, positive: np.ndarray, part: np.ndarray) -> dict[str, Any]:
    """Mean probability and observed frequency of some residues."""
    found = positive[part]
    return {
        "num_residues": len(found),
        "predicted": float(p[part].mean()) if len(found) else None,
        "observed": float(found.mean()) if len(found) else None,
    }


def _b_rank(said: Said, data: EvaluationSet, draws: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """Correlation, NLL, error and coverage on the residues that have a B rank."""
    truth, mean, spread = data.labels("b_rank"), said["b_rank_mean"], said["b_rank_spread"]
    known = mask & np.isfinite(truth) & np.isfinite(mean)
    if known.sum() < 2:
        return {"num_residues": int(known.sum())}
    truth, mean, spread, entry = truth[known], mean[known], spread[known], data.entry[known]
    z = (truth - mean) / spread
    half = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(LEVELS) / 2 + 0.5).numpy()
    values = [np.abs(truth - mean), z**2 / 2 + np.log(spread * np.sqrt(2 * np.pi))]
    values += [np.abs(z) <= width for width in half]
    means = bootstrap_means(values, entry, draws)
    names = ["absolute_error", "nll", *(f"coverage_{round(100 * level)}" for level in LEVELS)]
    return {
        "num_residues": int(known.sum()),
        "correlation": _correlation(truth, mean),
        "spearman": _correlation(_ranks(truth), _ranks(mean)),
        "auroc_poorly_determined": auroc(mean, truth >= 0.8),
        **{name: _interval(means, i) for i, name in enumerate(names)},
    }


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson's; None where one of the two does not vary."""
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else None


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(float)


def _interval(figures: Any, column: int) -> dict[str, float | None]:
    found = {name: float(getattr(figures, name)[0, column]) for name in ("value", "low", "high")}
    return {name: x if np.isfinite(x) else None for name, x in found.items()}
