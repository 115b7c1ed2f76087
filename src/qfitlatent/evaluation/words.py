"""The words, colours and order of the report."""

import math
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

LABELS = {
    "model": "qFitLatent",
    "uniform": "uniform",
    "nearest_rotamer": "nearest rotamer",
    "type_library": "type library",
    "backbone_library": "backbone library",
    "generator": "generator (truth)",
}


COLOURS = {
    "model": "#0b4f8a",
    "backbone_library": "#c8641b",
    "type_library": "#7a8794",
    "nearest_rotamer": "#b8a13a",
    "uniform": "#c9cfd6",
    "generator": "#2f7d4f",
}


OTHER_COLOURS = ("#8a2d6b", "#5b4ea3", "#3b8f8f", "#a33b3b")


POPULATION_WORDS = {
    "multiconformer": "Residues with two or more observed altlocs",
    "single": "Residues with a single observed conformer",
    "all": "All residues with chi angles",
}


METRIC_WORDS = {
    "nll": ("NLL", "nats", 3, 1),
    "nll_folded": ("NLL, folded", "nats", 3, 1),
    "information_gain": ("information gain over the type library", "nats", 3, 1),
    "gap_to_entropy": ("gap to the generator's entropy", "nats", 3, 1),
    "chi1_within_20": ("chi1 within 20°", "%", 1, 100),
    "chi12_within_20": ("chi1+2 within 20°", "%", 1, 100),
    "all_within_20": ("all chi within 20°", "%", 1, 100),
    "chi1_within_40": ("chi1 within 40°", "%", 1, 100),
    "chi12_within_40": ("chi1+2 within 40°", "%", 1, 100),
    "all_within_40": ("all chi within 40°", "%", 1, 100),
    "recall": ("altloc recall", "%", 1, 100),
    "precision": ("altloc precision", "%", 1, 100),
    "wasserstein_rad": ("occupancy error, Wasserstein-1", "degrees", 1, 180 / math.pi),
    "coverage_50": ("coverage of the 50 % region", "%", 1, 100),
    "coverage_80": ("coverage of the 80 % region", "%", 1, 100),
    "coverage_95": ("coverage of the 95 % region", "%", 1, 100),
    "auroc_entropy": ("finding heterogeneity: AUROC of the entropy", "", 3, 1),
    "auroc_two_draws": ("finding heterogeneity: AUROC of two draws differing", "", 3, 1),
}
"""Metric: (words, unit, decimals, factor)."""


GROUP_WORDS = {
    "num_chi": "number of chi",
    "resolution_angstrom": "resolution, angstrom",
    "num_neighbours": "neighbours within 10 angstrom",
    "num_conformers": "observed conformers",
    "altloc_distance_degrees": "distance between altlocs, degrees",
    "secondary": "secondary structure",
}


def label(method: str) -> str:
    return LABELS.get(method, method.replace("_", " "))


METHOD_ORDER = ("model", "backbone_library", "type_library", "nearest_rotamer", "uniform")


def ordered(methods: Iterable[str]) -> list[str]:
    """The model first, then the baselines from best to simplest, then any other method."""
    rank = {name: i for i, name in enumerate(METHOD_ORDER)}
    return sorted(methods, key=lambda name: (rank.get(name, len(rank)), name))


def colour(method: str, methods: list[str]) -> str:
    if method in COLOURS:
        return COLOURS[method]
    others = [m for m in methods if m not in COLOURS]
    return OTHER_COLOURS[others.index(method) % len(OTHER_COLOURS)]


def pick(table: pa.Table, **wanted: str | None) -> pa.Table:
    for name, value in wanted.items():
        column = table[name]
        table = table.filter(pc.is_null(column) if value is None else pc.equal(column, value))
    return table


def number(value: float | None) -> float:
    return math.nan if value is None else value


def figure_text(entry: dict[str, Any] | None, metric: str, unit: bool = False) -> str:
    """A figure with its interval: ``2.02 (1.95 to 2.10)``; a dash where there is none."""
    if entry is None or entry["value"] is None:
        return "–"
    _, name, decimals, factor = METRIC_WORDS[metric]
    text = f"{entry['value'] * factor:.{decimals}f}"
    if unit and name:
        text += f" {name}"
    if entry["low"] is None or entry["high"] is None:
        return text
    low, high = (entry[k] * factor for k in ("low", "high"))
    return f"{text} ({low:.{decimals}f} to {high:.{decimals}f})"
