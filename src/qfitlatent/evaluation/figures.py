"""Figures with intervals, from the scores of residues (SPEC 8).

Shapes: N residues, M observed rows, F figures, L levels of a group, B bootstrap resamples.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from qfitlatent.evaluation.columns import BY_GROUP, CALIBRATION, CURVES
from qfitlatent.evaluation.intervals import Interval, bootstrap_auroc, bootstrap_means
from qfitlatent.evaluation.residues import EvaluationSet, Group, population_masks
from qfitlatent.evaluation.scores import recall_precision
from qfitlatent.tables.parquet import conform

NOMINAL = np.round(np.arange(0.0, 1.0001, 0.05), 2)
"""Nominal coverages of the calibration curve; 0.5, 0.8 and 0.95 are among them."""

THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
AUROC = {
    "auroc_entropy": "entropy",
    "auroc_two_draws": "heterogeneity",
    "auroc_p_heterogeneous": "p_heterogeneous",
}
"""Finding heterogeneity: the figure, and the score that residues are ranked by."""

AUROC_GROUPS = ("overall", "type", "num_chi", "well_determined")
Scores = Mapping[str, Mapping[str, np.ndarray]]
"""By method, then by metric: (N,) values, nan where there is none."""


Source = tuple[str, str]
"""Method and metric: where scores have the values of a figure."""

Means = tuple[Source, Source | None]
"""What a figure is the mean of; with a second, minus that one on the same residues."""

Apply = Callable[[Callable[[Any], pa.Table], Sequence[Any]], Iterable[pa.Table]]


class Figure(NamedTuple):
    """What a figure is of; with a reference, the method minus it on the same residues."""

    method: str
    reference: str | None
    metric: str


def figures_of(
    scores: Scores, metrics: Sequence[str], references: Sequence[str]
) -> dict[Figure, Means]:
    """Every metric of every method, and its differences to each reference."""
    found: dict[Figure, Means] = {}
    for method in scores:
        for metric in metrics:
            own = (method, metric)
            found[Figure(method, None, metric)] = own, None
            for reference in references:
                if method not in references:
                    found[Figure(method, reference, metric)] = own, (reference, metric)
    return found


def information_gain(scores: Scores) -> dict[Figure, Means]:
    """nll of the type library minus that of each other method."""
    library = "type_library"
    return {
        Figure(method, None, "information_gain"): ((library, "nll"), (method, "nll"))
        for method in scores
        if library in scores and method != library
    }


def figures_with_intervals(
    figures: Mapping[Figure, Means],
    scores: Scores,
    distinct: np.ndarray,
    several: np.ndarray,
    entry: np.ndarray,
    groups: Sequence[Group],
    draws: np.ndarray,
    apply: Apply = map,
) -> pa.Table:
    """Means of the scores (N,) in every group and population, with intervals over entries.

    After them how well scores find the residues that are distinct (N,) bool (``AUROC``). several
    (N,) bool: residues with two or more altlocs; entry (N,) number of the entry; draws (B,E) as
    ``bootstrap_weights`` gives them; apply as ``map``, or side by side. The columns are those of
    ``columns.BY_GROUP``.
    """
    found = {
        Figure(method, None, figure): table[score]
        for method, table in scores.items()
        for figure, score in AUROC.items()
        if score in table
    }
    masks = population_masks(several)
    sources = list(
        dict.fromkeys(source for means in figures.values() for source in means if source)
    )
    place = {source: number for number, source in enumerate(sources)}
    terms = [(place[one], place[other] if other else None) for one, other in figures.values()]

    @lru_cache(maxsize=1)
    def values_of(population: str) -> list[np.ndarray]:
        return [scores[method][metric][masks[population]] for method, metric in sources]

    def of_group(part: tuple[str, Group]) -> pa.Table:
        population, group = part
        mask, own = masks[population], values_of(population)
        level, size = group.level[mask], len(group.levels)
        # An entry has no interval over entries.
        weights = draws if group.name != "entry" else None
        means = bootstrap_means(own, entry[mask], weights, level, size, figures=terms)
        rows = [_rows(list(figures), means, population, group)]
        if found and group.name in AUROC_GROUPS:
            ranks = np.stack([score[mask] for score in found.values()], axis=1)
            areas = bootstrap_auroc(ranks, distinct[mask], entry[mask], draws, level, size)
            rows.append(_rows(list(found), areas, population, group))
        return pa.concat_tables(rows)

    parts = [(population, group) for population in masks for group in groups]
    return pa.concat_tables(apply(of_group, parts))


def _rows(names: list[Figure], figures: Interval, population: str, group: Group) -> pa.Table:
    """Rows of BY_GROUP for all figures (L,F) that a residue stands behind."""
    at = level, figure = np.nonzero(figures.count)
    columns = {
        "population": pa.repeat(population, len(level)),
        **{
            column: pa.array([name[i] for name in names], pa.string()).take(figure)
            for i, column in enumerate(Figure._fields)
        },
        "group": pa.repeat(group.name, len(level)),
        "level": pa.array(group.levels, pa.string()).take(level),
        **{
            column: pa.array(getattr(figures, column)[at], from_pandas=True)
            for column in ("value", "low", "high")
        },
        "num_residues": figures.count[at],
        "num_entries": figures.num_entries[at],
    }
    return conform(pa.table(columns), BY_GROUP, "figures")


def calibration_table(scores: Scores, data: EvaluationSet, draws: np.ndarray) -> pa.Table:
    """Occupancy-weighted share of the altlocs inside each highest-density region."""
    residue = data.observed.row_residue.numpy()
    entry, occupancy = data.entry[residue], data.observed.occupancy.numpy()
    parts = []
    for population, mask in population_masks(data.several).items():
        rows = mask[residue]
        for method, table in scores.items():
            hdr = table["hdr"][rows]
            known = np.isfinite(hdr)
            inside = [np.where(known, hdr <= nominal, np.nan) for nominal in NOMINAL]
            figures = bootstrap_means(inside, entry[rows], draws, row_weight=occupancy[rows])
            columns = {
                "population": pa.repeat(population, len(NOMINAL)),
                "method": pa.repeat(method, len(NOMINAL)),
                "nominal": NOMINAL,
                "coverage": pa.array(figures.value[0], from_pandas=True),
                "low": pa.array(figures.low[0], from_pandas=True),
                "high": pa.array(figures.high[0], from_pandas=True),
                "num_altlocs": figures.count[0],
                "num_entries": figures.num_entries[0],
            }
            parts.append(conform(pa.table(columns), CALIBRATION, "calibration"))
    return pa.concat_tables(parts)


def threshold_table(scores: Scores, data: EvaluationSet) -> pa.Table:
    """Recall and precision of the altlocs as the smallest mode weight that counts is varied."""
    rows = []
    for method, table in scores.items():
        weight, match = (torch.from_numpy(table[n]) for n in ("mode_weight", "mode_match"))
        near = torch.from_numpy(np.nan_to_num(table["match_weight"]))
        covered = np.isfinite(table["nll"])
        for threshold in THRESHOLDS:
            recall, precision = recall_precision(weight, match, near, data.observed, threshold)
            for population, mask in population_masks(data.several).items():
                keep = torch.from_numpy(mask & covered)
                if not keep.any():
                    continue
                # At a threshold that no mode of any residue reaches there is no precision.
                known = precision[keep & precision.isfinite()]
                rows.append(
                    {
                        "population": population,
                        "method": method,
                        "mode_weight": threshold,
                        "recall": float(recall[keep].mean()),
                        "precision": float(known.mean()) if len(known) else None,
                    }
                )
    return pa.Table.from_pylist(rows, schema=CURVES)
