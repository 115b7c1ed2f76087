"""The pictures of the report, made from the tables of ``evaluate.py``."""

import csv
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qfitlatent.chemistry.residues import RESIDUE_TYPES
from qfitlatent.evaluation.intervals import auroc, roc_curve
from qfitlatent.evaluation.words import COLOURS, colour, label, number, ordered, pick
from qfitlatent.pages.figures import pyplot, save


def draw_information_gain(by_group: pa.Table, population: str, folder: Path) -> str | None:
    """NLL of each baseline minus the model's, by residue type, with intervals."""
    plt = pyplot()
    shown = [
        m for m in ("type_library", "backbone_library") if m in by_group["reference"].to_pylist()
    ]
    if not shown:
        return None
    figure, axes = plt.subplots(figsize=(5.6, 5.2), layout="constrained")
    types = pick(
        by_group, population=population, method="model", reference=None, metric="nll", group="type"
    )["level"].to_pylist()
    types = [t for t in RESIDUE_TYPES if t in types]
    for offset, reference in zip((-0.16, 0.16), shown, strict=False):
        rows = pick(
            by_group, population=population, method="model", reference=reference, metric="nll",
            group="type",
        ).to_pylist()  # fmt: skip
        at = {row["level"]: row for row in rows}
        y = np.array([types.index(t) for t in types if t in at]) + offset
        value = np.array([-at[t]["value"] for t in types if t in at])
        low = np.array([-number(at[t]["high"]) for t in types if t in at])
        high = np.array([-number(at[t]["low"]) for t in types if t in at])
        error = np.nan_to_num(np.abs(np.stack([value - low, high - value])))
        axes.errorbar(
            value, y, xerr=error, fmt="o", ms=4, lw=1.2,
            color=COLOURS[reference], label=f"over the {label(reference)}",
        )  # fmt: skip
    axes.axvline(0, color="#444", lw=0.8)
    axes.set_yticks(range(len(types)), types)
    axes.invert_yaxis()
    axes.grid(axis="x", color="#e6e9ec")
    axes.set_xlabel("information gained by the model (nats per residue; right is better)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    name = f"information_gain_{population}"
    save(figure, folder, name)
    return name


def draw_calibration(calibration: pa.Table, population: str, folder: Path) -> str:
    """Coverage of the highest-density regions against their nominal mass."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(4.4, 4.2), layout="constrained")
    axes.plot([0, 1], [0, 1], color="#444", lw=0.8, ls="--", label="perfect")
    rows = pick(calibration, population=population)
    methods = ordered(set(rows["method"].to_pylist()))
    for method in methods:
        if method == "uniform":
            continue
        part = rows.filter(pc.equal(rows["method"], method))
        x, y = part["nominal"].to_numpy(), part["coverage"].to_numpy(zero_copy_only=False)
        tone = colour(method, methods)
        axes.plot(x, y, color=tone, lw=2 if method == "model" else 1.2, label=label(method))
        if method == "model":
            low, high = (part[n].to_numpy(zero_copy_only=False) for n in ("low", "high"))
            axes.fill_between(x, low, high, color=tone, alpha=0.18, lw=0)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel("nominal mass of the highest-density region")
    axes.set_ylabel("observed altlocs inside, by occupancy")
    axes.legend(loc="upper left")
    name = f"calibration_{population}"
    save(figure, folder, name)
    return name


def draw_mode_curves(curves: pa.Table, population: str, folder: Path) -> str:
    """Recall and precision against the smallest weight that makes a mode."""
    plt = pyplot()
    figure, panels = plt.subplots(1, 2, figsize=(6.6, 3.2), layout="constrained", sharey=True)
    rows = pick(curves, population=population)
    methods = ordered(set(rows["method"].to_pylist()))
    for method in methods:
        if method == "uniform":
            continue
        part = rows.filter(pc.equal(rows["method"], method))
        for panel, column in zip(panels, ("recall", "precision"), strict=True):
            panel.plot(
                part["mode_weight"].to_numpy(), part[column].to_numpy(zero_copy_only=False),
                color=colour(method, methods), lw=2 if method == "model" else 1.2,
                label=label(method),
            )  # fmt: skip
            panel.set(title=f"altloc {column}", xlabel="smallest weight of a mode", ylim=(0, 1))
            panel.grid(color="#eef0f2")
            panel.axvline(0.1, color="#999", lw=0.7, ls=":")
    panels[1].legend(fontsize=8)
    name = f"altloc_recall_precision_{population}"
    save(figure, folder, name)
    return name


def draw_occupancy(altlocs: pa.Table, multiple: np.ndarray, folder: Path) -> str | None:
    """Predicted mass near each observed altloc against its occupancy (multiconformer residues)."""
    keep = multiple & np.asarray(pc.equal(altlocs["method"], "model"))
    observed = altlocs["occupancy"].to_numpy()[keep]
    predicted = altlocs["predicted_occupancy"].to_numpy(zero_copy_only=False)[keep]
    known = np.isfinite(predicted)
    if known.sum() < 2:
        return None
    observed, predicted = observed[known], predicted[known]
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(4.6, 4.0), layout="constrained")
    picture = axes.hexbin(
        observed, predicted, gridsize=24, extent=(0, 1, 0, 1), bins="log", cmap="Blues", mincnt=1
    )
    figure.colorbar(picture, label="altlocs", shrink=0.8)
    bins = np.clip((observed * 10).astype(int), 0, 9)
    count = np.bincount(bins, minlength=10)
    filled = count > 4
    middle = np.bincount(bins, observed, 10)[filled] / count[filled]
    mean = np.bincount(bins, predicted, 10)[filled] / count[filled]
    axes.plot(middle, mean, "o-", color="#c8641b", lw=1.5, ms=4, label="mean")
    axes.plot([0, 1], [0, 1], color="#444", lw=0.8, ls="--")
    axes.set(xlabel="observed occupancy", ylabel="predicted mass near the altloc", aspect="equal")
    axes.legend(loc="upper left")
    save(figure, folder, "occupancy")
    return "occupancy"


def draw_chi_maps(maps: pa.Table, altlocs: pa.Table, folder: Path) -> str | None:
    """Predicted density over chi1 and chi2 with the observed altlocs, best to worst residue."""
    if not len(maps):
        return None
    plt = pyplot()
    keys = list(
        dict.fromkeys(zip(*(maps[n].to_pylist() for n in ("entry", "chain", "index", "name"))))  # noqa: B905
    )
    columns = min(3, len(keys))
    lines = -(-len(keys) // columns)
    figure, panels = plt.subplots(
        lines, columns, figsize=(2.5 * columns, 2.6 * lines), layout="constrained", squeeze=False
    )
    degrees = [-180, -60, 60, 180]
    for panel in panels.flat[len(keys) :]:
        panel.set_visible(False)
    for panel, (entry, chain, index, name) in zip(panels.flat, keys, strict=False):
        part = pick(maps, entry=entry, chain=chain, index=index)
        size = round(math.sqrt(len(part)))
        density = part["density"].to_numpy().reshape(size, size)
        # Square root: the eye then sees minor rotamers beside the main one.
        panel.imshow(
            np.sqrt(density.T), origin="lower", extent=(-180, 180, -180, 180), cmap="Blues"
        )
        seen = pick(altlocs, entry=entry, chain=chain, index=index, method="model")
        chi = [np.degrees(seen[f"chi{d}_rad"].to_numpy(zero_copy_only=False)) for d in (1, 2)]
        area = 120 * seen["occupancy"].to_numpy()
        panel.scatter(*chi, s=area, facecolors="none", edgecolors="#c8641b", linewidths=1.4)
        panel.set(xticks=degrees, yticks=degrees, xlim=(-180, 180), ylim=(-180, 180))
        panel.set_title(f"{entry} {chain} {name} {index}", fontsize=8)
    for panel in panels[-1]:
        panel.set_xlabel("chi1 (degrees)")
    for panel in panels[:, 0]:
        panel.set_ylabel("chi2 (degrees)")
    save(figure, folder, "chi_maps")
    return "chi_maps"


def draw_learning_curve(run_dir: Path, folder: Path) -> str | None:
    """Loss and validation NLL over the steps, from the run's ``metrics.csv``."""
    path = run_dir / "metrics.csv"
    if not path.exists():
        return None
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return None
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
    for name, words, tone in (
        ("train_loss", "training loss", "#7a8794"),
        ("validation_loss", "validation loss", "#0b4f8a"),
        ("validation_nll_multiconformer", "validation NLL, multiconformer", "#c8641b"),
        ("validation_nll_single", "validation NLL, single", "#2f7d4f"),
    ):
        points = [(float(r["epoch"]), float(r[name])) for r in rows if r.get(name)]
        if points:
            axes.plot(*zip(*points, strict=True), color=tone, label=words, marker=".", ms=3)
    axes.set(xlabel="epoch", ylabel="nats per residue")
    axes.grid(color="#eef0f2")
    axes.legend(fontsize=8)
    save(figure, folder, "learning_curve")
    return "learning_curve"


def draw_roc(scores: pa.Table, folder: Path) -> str | None:
    """Finding residues with distinct rotamers by predicted entropy, all residues."""
    methods = ordered(set(scores["method"].to_pylist()))
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(4.4, 4.2), layout="constrained")
    drawn = False
    for method in methods:
        part = scores.filter(pc.equal(scores["method"], method))
        entropy = part["entropy"].to_numpy(zero_copy_only=False)
        distinct = part["distinct_rotamers"].to_numpy(zero_copy_only=False).astype(bool)
        known = np.isfinite(entropy)
        entropy, distinct = entropy[known], distinct[known]
        if method == "uniform" or not distinct.any() or distinct.all():
            continue
        drawn = True
        curve = roc_curve(entropy, distinct)
        axes.plot(
            curve[:, 0], curve[:, 1], color=colour(method, methods),
            lw=2 if method == "model" else 1.2,
            label=f"{label(method)} {auroc(entropy, distinct):.3f}",
        )  # fmt: skip
    axes.plot([0, 1], [0, 1], color="#444", lw=0.8, ls="--")
    axes.set(
        xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1),
        aspect="equal",
    )  # fmt: skip
    axes.legend(title="area", loc="lower right")
    if not drawn:
        plt.close(figure)
        return None
    save(figure, folder, "heterogeneity_roc")
    return "heterogeneity_roc"
