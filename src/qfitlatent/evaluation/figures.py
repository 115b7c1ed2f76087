"""Figures of every method and group, from scores to tables (SPEC 8).

Shapes: N residues, M observed rows, F figures, L levels of a group, B bootstrap resamples.
"""

import io
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from qfitlatent.base.progress import Progress
from qfitlatent.chemistry.residues import NUM_CHI_MAX
from qfitlatent.density.libraries import Library
from qfitlatent.evaluation.columns import BY_GROUP_SCHEMA
from qfitlatent.evaluation.intervals import bootstrap_auroc, bootstrap_means, bootstrap_weights
from qfitlatent.evaluation.methods import Method
from qfitlatent.evaluation.residues import EvaluationSet, Group, group_size, population_masks
from qfitlatent.evaluation.scores import RESIDUE_METRICS, recall_precision, score_density
from qfitlatent.evaluation.settings import EvaluationSettings

NOMINAL = np.round(np.arange(0.0, 1.0001, 0.05), 2)
"""Nominal coverages of the calibration curve; 0.5, 0.8 and 0.95 are among them."""


THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


ROW_METRICS = ("hdr", "predicted_occupancy", "match_weight")


MODE_ARRAYS = ("mode_weight", "mode_chi", "mode_match")


MODES_WIDTH = 16


def score_method(
    method: Method,
    data: EvaluationSet,
    settings: EvaluationSettings,
    log: TextIO | None = None,
) -> dict[str, np.ndarray]:
    """All metrics of one method: (N,) float32, (M,) for the rows, (N,J,...) for the modes.

    Residues that the method does not cover stay nan. Draws depend on the seed and on the first
    residue of the chunk only. Progress goes to ``log``.
    """
    num, num_rows = data.num, len(data.observations.row_residue)
    out = {name: np.full(num, np.nan, dtype=np.float32) for name in RESIDUE_METRICS}
    out |= {name: np.full(num_rows, np.nan, dtype=np.float32) for name in ROW_METRICS}
    out["mode_weight"] = np.zeros((num, MODES_WIDTH), dtype=np.float32)
    out["mode_chi"] = np.zeros((num, MODES_WIDTH, NUM_CHI_MAX), dtype=np.float32)
    out["mode_match"] = np.zeros((num, MODES_WIDTH), dtype=bool)
    start = np.searchsorted(data.observations.row_residue, np.arange(num + 1))
    with torch.inference_mode(), Progress(num, "residues", log or io.StringIO()) as progress:
        progress.update(0, method=method.name)
        for rows, density, index in method.chunks():
            generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + int(rows[0]))
            scores = score_density(
                density, data.observed(rows), settings.num_samples, generator, index
            )
            altlocs = (
                np.concatenate([np.arange(start[r], start[r + 1]) for r in rows])
                if (len(rows) != rows[-1] - rows[0] + 1)
                else np.arange(start[rows[0]], start[rows[-1] + 1])
            )
            for name in RESIDUE_METRICS:
                out[name][rows] = scores[name]
            for name in ROW_METRICS:
                out[name][altlocs] = scores[name]
            for name in MODE_ARRAYS:
                width = scores[name].shape[1]
                out[name][rows, :width] = scores[name]
            progress.update(len(rows))
    return out


def group_figures(
    scores: dict[str, dict[str, np.ndarray]],
    references: list[str],
    data: EvaluationSet,
    groups: list[Group],
    distinct: np.ndarray,
    settings: EvaluationSettings,
) -> pa.Table:
    """Every metric of every method in every group and population, with intervals over entries.

    Besides the metrics: ``information_gain`` (nll of the type library minus the method's) and the
    paired differences of all metrics to each reference.
    """
    o = data.observations
    names: list[tuple[str, str | None, str]] = []
    values = []
    for method, table in scores.items():
        for metric, column in table.items():
            if column.shape != (data.num,):
                continue
            names.append((method, None, metric))
            values.append(column)
            for reference in references:
                if reference != method and metric in scores[reference] and method not in references:
                    names.append((method, reference, metric))
                    values.append(column - scores[reference][metric])
        if "type_library" in scores and method != "type_library":
            names.append((method, None, "information_gain"))
            values.append(scores["type_library"]["nll"] - table["nll"])
    matrix = np.stack(values, axis=1).astype(np.float64)
    draws = bootstrap_weights(len(data.entries), settings.bootstrap_samples, settings.seed)
    out: dict[str, list] = {name: [] for name in BY_GROUP_SCHEMA.names}
    for population, mask in population_masks(data).items():
        if not mask.any():
            continue
        for group in groups:
            weights = draws if group.name != "entry" else draws[:1]
            figures = bootstrap_means(
                matrix[mask], o.entry[mask], weights, group.level[mask], len(group.levels)
            )
            level, figure = np.nonzero(figures.count)
            for column, index in (("method", 0), ("reference", 1), ("metric", 2)):
                out[column] += [names[f][index] for f in figure]
            out["population"] += [population] * len(level)
            out["group"] += [group.name] * len(level)
            out["level"] += [group.levels[i] for i in level]
            for column, array in (
                ("value", figures.value),
                ("low", figures.low),
                ("high", figures.high),
                ("num_residues", figures.count),
                ("num_entries", figures.num_entries),
            ):
                out[column] += array[level, figure].tolist()
        _add_auroc(out, scores, population, mask, data, groups, distinct, draws)
    for column in ("value", "low", "high"):
        out[column] = [None if v != v else v for v in out[column]]
    return pa.table(out, schema=BY_GROUP_SCHEMA)


def _add_auroc(
    out: dict[str, list],
    scores: dict[str, dict[str, np.ndarray]],
    population: str,
    mask: np.ndarray,
    data: EvaluationSet,
    groups: list[Group],
    distinct: np.ndarray,
    draws: np.ndarray,
) -> None:
    """Finding heterogeneity, by predicted entropy and by how often two draws differ."""
    for method, table in scores.items():
        for metric, column in (("auroc_entropy", "entropy"), ("auroc_two_draws", "heterogeneity")):
            if column not in table:
                continue
            for group in groups:
                if group.name not in ("overall", "type", "num_chi"):
                    continue
                for i, level in enumerate(group.levels):
                    keep = mask & (group.level == i) & np.isfinite(table[column])
                    label = distinct[keep]
                    if not label.any() or label.all():
                        continue
                    entry = data.observations.entry[keep]
                    value, low, high = bootstrap_auroc(table[column][keep], label, entry, draws)
                    out["population"].append(population)
                    out["method"].append(method)
                    out["reference"].append(None)
                    out["metric"].append(metric)
                    out["group"].append(group.name)
                    out["level"].append(level)
                    out["value"].append(value)
                    out["low"].append(low)
                    out["high"].append(high)
                    out["num_residues"].append(int(keep.sum()))
                    out["num_entries"].append(len(np.unique(entry)))


def calibration_table(
    scores: dict[str, dict[str, np.ndarray]], data: EvaluationSet, settings: EvaluationSettings
) -> pa.Table:
    """Occupancy-weighted share of the altlocs inside each highest-density region."""
    o = data.observations
    draws = bootstrap_weights(len(data.entries), settings.bootstrap_samples, settings.seed)
    parts = []
    for population, mask in population_masks(data).items():
        rows = mask[o.row_residue]
        if not rows.any():
            continue
        for method, table in scores.items():
            hdr = table["hdr"][rows]
            inside = np.where(np.isfinite(hdr)[:, None], hdr[:, None] <= NOMINAL, np.nan)
            figures = bootstrap_means(
                inside, o.entry[o.row_residue[rows]], draws, row_weight=o.occupancy[rows]
            )
            size = len(NOMINAL)
            parts.append(
                pa.table(
                    {
                        "population": [population] * size,
                        "method": [method] * size,
                        "nominal": NOMINAL,
                        "coverage": figures.value[0],
                        "low": figures.low[0],
                        "high": figures.high[0],
                        "num_altlocs": figures.count[0],
                        "num_entries": figures.num_entries[0],
                    }
                )
            )
    return pa.concat_tables(parts)


def threshold_table(scores: dict[str, dict[str, np.ndarray]], data: EvaluationSet) -> pa.Table:
    """Recall and precision of the altlocs as the smallest mode weight that counts is varied."""
    observed = data.observed()
    out: dict[str, list] = {
        name: [] for name in ("population", "method", "mode_weight", "recall", "precision")
    }
    for method, table in scores.items():
        weight, match = (torch.from_numpy(table[n]) for n in ("mode_weight", "mode_match"))
        covered = np.isfinite(table["nll"])
        near = torch.from_numpy(np.nan_to_num(table["match_weight"]))
        for threshold in THRESHOLDS:
            recall, precision = recall_precision(weight, match, near, observed, threshold)
            for population, mask in population_masks(data).items():
                keep = torch.from_numpy(mask & covered)
                if not keep.any():
                    continue
                out["population"].append(population)
                out["method"].append(method)
                out["mode_weight"].append(threshold)
                out["recall"].append(float(recall[keep].mean()))
                # At a threshold that no mode of any residue reaches there is no precision.
                known = precision[keep & precision.isfinite()]
                out["precision"].append(float(known.mean()) if len(known) else None)
    return pa.table(out)


def summary(
    by_group: pa.Table,
    calibration: pa.Table,
    data: EvaluationSet,
    training: EvaluationSet,
    libraries: dict[str, Library],
    settings: EvaluationSettings,
) -> dict[str, Any]:
    """The overall figures, nested: population, methods or differences, metric, interval."""
    overall = by_group.filter(pc.equal(by_group["group"], "overall")).to_pylist()
    figures: dict[str, Any] = {}
    for row in overall:
        place = figures.setdefault(row["population"], {})
        key = "methods" if row["reference"] is None else "differences"
        place = place.setdefault(key, {}).setdefault(row["method"], {})
        if row["reference"] is not None:
            place = place.setdefault(row["reference"], {})
        place[row["metric"]] = {
            name: row[name] for name in ("value", "low", "high", "num_residues", "num_entries")
        }
    for row in calibration.to_pylist():
        if row["nominal"] in (0.5, 0.8, 0.95):
            place = figures[row["population"]]["methods"][row["method"]]
            place[f"coverage_{round(100 * row['nominal'])}"] = {
                "value": row["coverage"], "low": row["low"], "high": row["high"],
                "num_altlocs": row["num_altlocs"], "num_entries": row["num_entries"],
            }  # fmt: skip
    return {
        "settings": settings.reported(),
        "populations": figures,
        "evaluated": group_size(data),
        "trained_on": group_size(training),
        "baseline_choices": {name: library.choices for name, library in libraries.items()},
        "unit": "nll, nll_folded, information_gain, entropy in nats per residue; "
        "wasserstein_rad in radians; the others are shares",
    }
