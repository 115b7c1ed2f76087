"""Figures of predicted models, from the tables that ``prediction/judge.py`` writes.

Shapes: N residues, B bootstrap resamples, E entries.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from qfitlatent.evaluation.intervals import bootstrap_means, bootstrap_weights
from qfitlatent.evaluation.words import PREDICTED
from qfitlatent.joint.bonds import SG_SG
from qfitlatent.tables.parquet import read_table

NUM_TENTHS = 10
DISULFIDE_OFF = 0.1
"""Angstrom that SG-SG may be off the ideal."""

CB_CB_ANGSTROM = (3.4, 4.25)
"""Between cysteines whose backbones allow a disulfide: of ideal angles, chi3 60 to 120 degrees."""

METAL_OFF = 0.3
"""Angstrom that the bond of a metal may be off the deposited one."""

MODELS = tuple(PREDICTED)
Figure = dict[str, Any]
"""``value`` with its interval ``low`` to ``high``, and ``num`` of what is behind it."""


def predicted_figures(folder: str | Path, num_samples: int, seed: int) -> dict[str, Any]:
    """For ``metrics.json``; every figure has an interval over entries.

    models: model -> figure; gain: accuracy of the joint model minus that of the heaviest modes, on
    the same residues; altlocs: figures of those that are written; confidence: by tenths of it.
    """
    folder = Path(folder)
    entries = read_table(folder / "entries.parquet").to_pylist()
    residues = read_table(folder / "residues.parquet")
    bonds = read_table(folder / "bonds.parquet")
    names = np.unique(residues["entry"].to_numpy())
    draws = bootstrap_weights(len(names), num_samples, seed)
    mean, mean_of_bonds = (
        _Means(np.searchsorted(names, table["entry"].to_numpy()), draws)
        for table in (residues, bonds)
    )
    models, gain = _models(residues, mean)
    for model, figures in _bonds(bonds, mean_of_bonds).items():
        models[model] |= figures
    return {
        "num_entries": len(names),
        "num_residues": len(residues),
        "num_learnt_from": sum(row["num_learnt_from"] or 0 for row in entries),
        "left_out": {row["entry"]: row["detail"] for row in entries if row["reason"]},
        "models": models,
        "gain": gain,
        "altlocs": _altlocs(residues, mean),
        "confidence": _confidence(residues, mean),
    }


class _Means:
    """Means over residues, with intervals over their entries: entry (N,), draws (B,E)."""

    def __init__(self, entry: np.ndarray, draws: np.ndarray) -> None:
        self._entry, self._draws = entry, draws

    def __call__(self, values: np.ndarray, where: np.ndarray | None = None) -> Figure:
        """Of values (N,), nan ones left out, where (N,) bool."""
        values = values.astype(np.float64)
        if where is not None:
            values = np.where(where, values, np.nan)
        found = bootstrap_means([values], self._entry, self._draws)
        figure = {name: float(getattr(found, name)[0, 0]) for name in ("value", "low", "high")}
        return {name: x if np.isfinite(x) else None for name, x in figure.items()} | {
            "num": int(found.count[0, 0])
        }


def _column(table: pa.Table, name: str) -> np.ndarray:
    """As float64; null is nan."""
    return table[name].to_numpy(zero_copy_only=False).astype(np.float64)


def _times(figure: Figure, factor: float, power: float = 1.0) -> Figure:
    """The figure to a power, times a factor."""
    ends = {name: figure[name] for name in ("value", "low", "high")}
    scaled = {name: None if x is None else factor * x**power for name, x in ends.items()}
    return figure | scaled


def _models(
    residues: pa.Table, mean: _Means
) -> tuple[dict[str, dict[str, Figure]], dict[str, Figure]]:
    """Clashes, accuracy and geometry of each model; the gain in accuracy of the joint one."""
    figures: dict[str, dict[str, Figure]] = {
        model: {"clashes": _times(mean(_column(residues, f"{model}_clashes")), 100)}
        for model in MODELS
    }
    gain = {}
    for figure, part, degrees in (
        ("chi1_within_20", "chi1", 20),
        ("all_within_20", "chi", 20),
        ("all_within_40", "chi", 40),
    ):
        right = {}
        for model in ("heaviest", "joint"):
            error = _column(residues, f"{model}_{part}_error_rad")
            right[model] = np.where(np.isnan(error), np.nan, error <= np.deg2rad(degrees))
            figures[model][figure] = mean(right[model])
        gain[figure] = mean(right["joint"] - right["heaviest"])
    for figure, column, factor in (
        ("bonds_angstrom", "bonds_angstrom", 1.0),
        ("angles_degrees", "angles_rad", 180 / np.pi),
    ):
        for model in ("joint", "deposited"):
            square = mean(_column(residues, f"{model}_{column}") ** 2)
            figures[model][figure] = _times(square, factor, 0.5)
    return figures, gain


def _altlocs(residues: pa.Table, mean: _Means) -> dict[str, Figure]:
    """Of residues with chi; beside what was deposited, where that is known."""
    has_chi = np.isfinite(_column(residues, "confidence"))
    written = _column(residues, "num_conformers") > 1
    found = _column(residues, "is_heterogeneous")
    return {
        "altlocs_written": mean(written, has_chi),
        "altlocs_precision": mean(found, has_chi & written),
        "altlocs_base_rate": mean(found, has_chi),
        "altlocs_recall": mean(written, has_chi & (found == 1)),
        "altlocs_occupancy_error": mean(_column(residues, "occupancy_error")),
        "altlocs_clashes": _times(mean(_column(residues, "altloc_clashes")), 100),
    }


def _bonds(bonds: pa.Table, mean: _Means) -> dict[str, dict[str, Figure]]:
    """Shares of the deposited disulfides and metals' bonds whose length is right."""
    kind = bonds["kind"].to_numpy()
    there = _column(bonds, "is_deposited") > 0
    cb_cb, deposited = _column(bonds, "cb_cb_angstrom"), _column(bonds, "deposited_angstrom")
    disulfide, metal = there & (kind == "disulfide"), there & (kind == "metal")
    allowed = disulfide & (cb_cb >= CB_CB_ANGSTROM[0]) & (cb_cb <= CB_CB_ANGSTROM[1])
    figures = {}
    for model in MODELS:
        length = _column(bonds, f"{model}_angstrom")
        off = np.abs(length - SG_SG)
        figures[model] = {
            "disulfides": mean(off <= DISULFIDE_OFF, disulfide),
            "disulfides_allowed": mean(off <= DISULFIDE_OFF, allowed),
        }
        if model != "deposited":
            off = np.abs(length - deposited)
            figures[model]["metal_bonds"] = mean(off <= METAL_OFF, metal)
    return figures


def _confidence(residues: pa.Table, mean: _Means) -> list[dict[str, Any]]:
    """By tenths of the confidence: its mean, and how often all chi are within 40 degrees."""
    sure, error = _column(residues, "confidence"), _column(residues, "joint_chi_error_rad")
    right = np.where(np.isnan(error), np.nan, error <= np.deg2rad(40))
    known = np.isfinite(sure) & np.isfinite(right)
    tenth = np.minimum(np.nan_to_num(sure) * NUM_TENTHS, NUM_TENTHS - 1).astype(int)
    return [
        {
            "from": t / NUM_TENTHS,
            "predicted": float(sure[known & (tenth == t)].mean()),
            "observed": mean(right, known & (tenth == t)),
        }
        for t in np.unique(tenth[known]).tolist()
    ]
