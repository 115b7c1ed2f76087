"""The pictures of the report, made from the tables of ``evaluate.py``."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qfitlatent.chemistry.residues import RESIDUE_TYPES
from qfitlatent.evaluation.intervals import auroc, roc_curve
from qfitlatent.evaluation.words import label, ordered, pick, style
from qfitlatent.pages.figures import BLUE, INK, ORANGE, Figure, new_figure, save
from qfitlatent.tables.columns import KEYS

Tables = Mapping[str, pa.Table]


def draw_pictures(tables: Tables, populations: list[str], folder: Path) -> dict[str, Path]:
    """Every picture that the tables have the numbers for; name -> its SVG.

    tables: by_group, calibration, curves, scores, altlocs, and chi_maps where there is a model.
    """
    figures: dict[str, Figure | None] = {}
    for population in populations:
        for name, draw in (
            ("information_gain", information_gain),
            ("calibration", calibration),
            ("altloc_recall_precision", mode_curves),
        ):
            figures[f"{name}_{population}"] = draw(tables, population)
    figures["occupancy"] = occupancy(tables)
    figures["chi_maps"] = chi_maps(tables)
    figures["heterogeneity_roc"] = heterogeneity_roc(tables)
    return {name: save(figure, folder / name) for name, figure in figures.items() if figure}


def _by_method(table: pa.Table) -> dict[str, pa.Table]:
    """The rows of each method that a curve is drawn of: the uniform density knows nothing."""
    methods = ordered(set(table["method"].to_pylist()) - {"uniform"})
    return {method: pick(table, method=method) for method in methods}


def _draw_methods(panel: Any, curves: Mapping[str, Iterable[np.ndarray]], **labels: str) -> None:
    """One line x, y a method, the model's the widest; markers stand at places of their own."""
    for i, (method, points) in enumerate(curves.items()):
        look = style(method, curves)
        panel.plot(
            *points, color=look["colour"], ls=look["line"], marker=look["marker"], ms=4,
            markevery=(0.04 * i, 0.2), lw=2 if method == "model" else 1.2,
            label=labels.get(method, label(method)),
        )  # fmt: skip


def _numbers(table: pa.Table, names: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    """Columns as float64; null is nan."""
    return tuple(table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in names)


def _diagonal(axes: Any, words: str | None = None) -> None:
    axes.plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--", label=words)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")


def information_gain(tables: Tables, population: str) -> Figure | None:
    """NLL of each library minus the model's, by residue type, with intervals."""
    rows = pick(
        tables["by_group"], population=population, method="model", metric="nll", group="type"
    )
    types = [t for t in RESIDUE_TYPES if t in set(rows["level"].to_pylist())]
    shown = [m for m in ("type_library", "backbone_library") if m in rows["reference"].to_pylist()]
    if not shown:
        return None
    figure, axes = new_figure(5.6, 5.2)
    for offset, reference in zip((-0.16, 0.16), shown, strict=False):
        part = pick(rows, reference=reference)
        y = np.array([types.index(t) for t in part["level"].to_pylist()]) + offset
        value, low, high = _numbers(part, ("value", "low", "high"))
        # A type of one entry has a value and no interval.
        error = np.nan_to_num(np.abs(np.stack([value - high, value - low])))
        look = style(reference, shown)
        axes.errorbar(
            -value, y, xerr=error, fmt=look["marker"], ms=4, lw=1.2, color=look["colour"],
            label=f"over the {label(reference)}",
        )  # fmt: skip
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(range(len(types)), types)
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.set_xlabel("information gained by the model (nats per residue; right is better)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


def calibration(tables: Tables, population: str) -> Figure:
    """Coverage of the highest-density regions against their nominal mass."""
    figure, axes = new_figure(4.4, 4.2)
    _diagonal(axes, "perfect")
    rows = _by_method(pick(tables["calibration"], population=population))
    _draw_methods(axes, {m: _numbers(t, ("nominal", "coverage")) for m, t in rows.items()})
    if "model" in rows:
        x, low, high = _numbers(rows["model"], ("nominal", "low", "high"))
        axes.fill_between(x, low, high, color=style("model", rows)["colour"], alpha=0.18, lw=0)
    axes.set_xlabel("nominal mass of the highest-density region")
    axes.set_ylabel("observed altlocs inside, by occupancy")
    axes.legend(loc="upper left")
    return figure


def mode_curves(tables: Tables, population: str) -> Figure:
    """Recall and precision against the smallest weight that makes a mode."""
    figure, panels = new_figure(6.6, 3.2, columns=2, sharey=True)
    rows = _by_method(pick(tables["curves"], population=population))
    for panel, name in zip(panels, ("recall", "precision"), strict=True):
        _draw_methods(panel, {m: _numbers(t, ("mode_weight", name)) for m, t in rows.items()})
        panel.set(title=f"altloc {name}", xlabel="smallest weight of a mode", ylim=(0, 1))
        panel.grid()
        panel.axvline(0.1, color="#999999", lw=0.7, ls=":")
    panels[1].legend()
    return figure


def occupancy(tables: Tables) -> Figure | None:
    """Predicted mass near each observed altloc against its occupancy (multiconformer residues)."""
    rows = pick(tables["altlocs"], method="model")
    several = pick(tables["scores"], method="model", population="multiconformer").select(KEYS)
    rows = rows.join(several, list(KEYS), join_type="left semi")
    rows = rows.sort_by([(name, "ascending") for name in (*KEYS, "altloc")])
    observed, predicted = _numbers(rows, ("occupancy", "predicted_occupancy"))
    known = np.isfinite(predicted)
    if known.sum() < 2:
        return None
    observed, predicted = observed[known], predicted[known]
    figure, axes = new_figure(4.6, 4.0)
    picture = axes.hexbin(
        observed, predicted, gridsize=24, extent=(0, 1, 0, 1), bins="log", cmap="Blues", mincnt=1
    )
    figure.colorbar(picture, label="altlocs", shrink=0.8)
    bins = np.clip((observed * 10).astype(int), 0, 9)
    count = np.bincount(bins, minlength=10)
    filled = count > 4
    middle = np.bincount(bins, observed, 10)[filled] / count[filled]
    mean = np.bincount(bins, predicted, 10)[filled] / count[filled]
    axes.plot(middle, mean, "o-", color=ORANGE, lw=1.5, ms=4, label="mean")
    _diagonal(axes)
    axes.set(xlabel="observed occupancy", ylabel="predicted mass near the altloc")
    axes.legend(loc="upper left")
    return figure


def chi_maps(tables: Tables) -> Figure | None:
    """Predicted density over chi1 and chi2 with the observed altlocs, best to worst residue."""
    maps = tables.get("chi_maps")
    if maps is None or not len(maps):
        return None
    columns = (maps[name].to_pylist() for name in (*KEYS, "name"))
    residues = list(dict.fromkeys(zip(*columns, strict=True)))
    across = min(3, len(residues))
    lines = -(-len(residues) // across)
    figure, panels = new_figure(2.5 * across, 2.6 * lines, lines, across, squeeze=False)
    degrees = [-180, -60, 60, 180]
    for panel in panels.flat[len(residues) :]:
        panel.set_visible(False)
    for panel, (entry, chain, index, name) in zip(panels.flat, residues, strict=False):
        wanted = {"entry": entry, "chain": chain, "index": index}
        (density,) = _numbers(pick(maps, **wanted), ("density",))
        size = math.isqrt(len(density))
        # Square root: the eye then sees minor rotamers beside the main one.
        panel.imshow(
            np.sqrt(density.reshape(size, size).T), origin="lower", cmap="Blues",
            extent=(-180, 180, -180, 180),
        )  # fmt: skip
        seen = pick(tables["altlocs"], **wanted, method="model")
        chi1, chi2, weight = _numbers(seen, ("chi1_rad", "chi2_rad", "occupancy"))
        panel.scatter(
            np.degrees(chi1), np.degrees(chi2), s=120 * weight, facecolors="none",
            edgecolors=ORANGE, linewidths=1.4,
        )  # fmt: skip
        panel.set(xticks=degrees, yticks=degrees, xlim=(-180, 180), ylim=(-180, 180))
        panel.set_title(f"{entry} {chain} {name} {index}", fontsize=8)
    figure.supxlabel("chi1 (degrees)", fontsize=9)
    figure.supylabel("chi2 (degrees)", fontsize=9)
    return figure


def heterogeneity_roc(tables: Tables) -> Figure | None:
    """Finding residues with distinct rotamers by predicted entropy, all residues."""
    curves, areas = {}, {}
    for method, table in _by_method(tables["scores"]).items():
        table = table.filter(pc.is_finite(table["entropy"]))
        entropy, distinct = _numbers(table, ("entropy", "distinct_rotamers"))
        if 0 < distinct.sum() < len(distinct):
            curves[method] = roc_curve(entropy, distinct > 0).T
            areas[method] = f"{label(method)} {auroc(entropy, distinct > 0):.3f}"
    if not curves:
        return None
    figure, axes = new_figure(4.4, 4.2)
    _diagonal(axes)
    _draw_methods(axes, curves, **areas)
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    axes.legend(title="area", loc="lower right")
    return figure


def confidence(tenths: list[dict[str, Any]]) -> Figure:
    """How often a side chain is right against the confidence that it has, by tenths."""
    figure, axes = new_figure(4.4, 4.2)
    _diagonal(axes, "perfect")
    said = np.array([tenth["predicted"] for tenth in tenths])
    value, low, high = (
        np.array([tenth["observed"][name] for tenth in tenths], dtype=float)
        for name in ("value", "low", "high")
    )
    error = np.nan_to_num(np.abs(np.stack([value - low, high - value])))
    axes.errorbar(said, value, yerr=error, fmt="o", ms=5, lw=1.2, color=BLUE, label="by tenths")
    axes.set_xlabel("confidence of a residue")
    axes.set_ylabel("share with every chi within 40 degrees")
    axes.legend(loc="upper left")
    return figure
