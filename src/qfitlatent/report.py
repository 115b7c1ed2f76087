"""Figures, the self-contained report, and the cards: all made from the tables of ``evaluate.py``.

Nothing is computed here that is not in those tables, so the words, the pictures and
``metrics.json`` cannot disagree. The report is one HTML file: styles and pictures inside, no
script, no request to the network.
"""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json
from qfitlatent.chemistry.residues import RESIDUE_TYPES
from qfitlatent.metrics import auroc, roc_curve
from qfitlatent.pages.figures import pyplot, save
from qfitlatent.pages.render import html_figure, html_page, html_table, markdown_table, write_text
from qfitlatent.tables.parquet import read_table

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


NUM_EXTREMES = 20


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


def _pick(table: pa.Table, **wanted: str | None) -> pa.Table:
    for name, value in wanted.items():
        column = table[name]
        table = table.filter(pc.is_null(column) if value is None else pc.equal(column, value))
    return table


def draw_information_gain(by_group: pa.Table, population: str, folder: Path) -> str | None:
    """NLL of each baseline minus the model's, by residue type, with intervals."""
    plt = pyplot()
    shown = [
        m for m in ("type_library", "backbone_library") if m in by_group["reference"].to_pylist()
    ]
    if not shown:
        return None
    figure, axes = plt.subplots(figsize=(5.6, 5.2), layout="constrained")
    types = _pick(
        by_group, population=population, method="model", reference=None, metric="nll", group="type"
    )["level"].to_pylist()
    types = [t for t in RESIDUE_TYPES if t in types]
    for offset, reference in zip((-0.16, 0.16), shown, strict=False):
        rows = _pick(
            by_group, population=population, method="model", reference=reference, metric="nll",
            group="type",
        ).to_pylist()  # fmt: skip
        at = {row["level"]: row for row in rows}
        y = np.array([types.index(t) for t in types if t in at]) + offset
        value = np.array([-at[t]["value"] for t in types if t in at])
        low = np.array([-_number(at[t]["high"]) for t in types if t in at])
        high = np.array([-_number(at[t]["low"]) for t in types if t in at])
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


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def draw_calibration(calibration: pa.Table, population: str, folder: Path) -> str:
    """Coverage of the highest-density regions against their nominal mass."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(4.4, 4.2), layout="constrained")
    axes.plot([0, 1], [0, 1], color="#444", lw=0.8, ls="--", label="perfect")
    rows = _pick(calibration, population=population)
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
    rows = _pick(curves, population=population)
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
        part = _pick(maps, entry=entry, chain=chain, index=index)
        size = round(math.sqrt(len(part)))
        density = part["density"].to_numpy().reshape(size, size)
        # Square root: the eye then sees minor rotamers beside the main one.
        panel.imshow(
            np.sqrt(density.T), origin="lower", extent=(-180, 180, -180, 180), cmap="Blues"
        )
        seen = _pick(altlocs, entry=entry, chain=chain, index=index, method="model")
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


def headline(metrics: dict[str, Any]) -> str:
    """The paragraph at the top: what was trained on what, and how good it is."""
    run, trained, tested = metrics["run"], metrics["trained_on"], metrics["evaluated"]
    kind = "simulated" if run["is_simulated"] else "experimental"
    populations = metrics["populations"]
    if "model" not in next(iter(populations.values()))["methods"]:
        return (
            f"No model: the baselines alone, fitted on {trained['num_entries']:,} {kind} entries "
            f"({trained['num_residues']:,} residues) and scored on {tested['num_entries']:,} "
            f"entries of the {metrics['settings']['split']} split."
        )
    parts = [
        f"The run “{run['run']}” (head {run['model']['head']}, {run['num_parameters']:,} "
        f"parameters) was trained on the dataset “{run['dataset']}”: {trained['num_entries']:,} "
        f"{kind} entries with {trained['num_residues']:,} side chains, of which "
        f"{trained['num_multiconformer']:,} show two or more altlocs. It is scored on "
        f"{tested['num_entries']:,} entries of the {metrics['settings']['split']} split, from "
        "other sequence clusters."
    ]
    for population, words in (("multiconformer", "multiconformer"), ("single", "single-conformer")):
        if population not in populations:
            continue
        methods = populations[population]["methods"]
        text = (
            f"On {methods['model']['nll']['num_residues']:,} {words} residues its NLL is "
            f"{figure_text(methods['model']['nll'], 'nll')} nats per residue (lower is better)"
        )
        beside = [
            f"{figure_text(methods[m]['nll'], 'nll')} for the {label(m)}"
            for m in ("backbone_library", "type_library")
            if m in methods
        ]
        if beside:
            text += ", against " + " and ".join(beside)
        if "generator" in methods:
            gap = figure_text(methods["model"].get("gap_to_entropy"), "gap_to_entropy")
            text += f"; the gap to the entropy of the generator is {gap}"
        parts.append(text + ".")
    if "single" in populations:
        model = populations["single"]["methods"]["model"]
        parts.append(
            f"Its most probable conformation has chi1 right within 20° for "
            f"{figure_text(model['chi1_within_20'], 'chi1_within_20')} % of the single-conformer "
            f"residues and all chi for {figure_text(model['all_within_20'], 'all_within_20')} %."
        )
    parts.append("In parentheses: 95 % intervals over entries.")
    return " ".join(parts)


def _metric_rows(populations: dict[str, Any], population: str) -> tuple[list[str], list[list[str]]]:
    methods = populations[population]["methods"]
    names = ordered(methods)
    rows = []
    for metric, (words, unit, _, _) in METRIC_WORDS.items():
        if not any(metric in methods[m] for m in names):
            continue
        title = f"{words}, {unit}" if unit else words
        rows.append([title, *(figure_text(methods[m].get(metric), metric) for m in names)])
    return ["", *(label(m) for m in names)], rows


def _difference_rows(
    populations: dict[str, Any], population: str
) -> tuple[list[str], list[list[str]]]:
    """Paired differences of the model to each reference, for the main metrics."""
    differences = populations[population].get("differences", {}).get("model", {})
    differences = {name: differences[name] for name in ordered(differences)}
    shown = ["nll", "nll_folded", "all_within_20", "recall", "precision", "wasserstein_rad"]
    rows = []
    for metric in shown:
        words, unit, _, _ = METRIC_WORDS[metric]
        unit = "points" if unit == "%" else unit
        rows.append(
            [
                f"{words}, {unit}",
                *(figure_text(differences[m].get(metric), metric) for m in differences),
            ]
        )
    return ["model minus", *(label(m) for m in differences)], rows


def _group_rows(
    by_group: pa.Table, population: str, group: str
) -> tuple[list[str], list[list[str]]]:
    """NLL of every method in each level of a group."""
    rows = _pick(by_group, population=population, reference=None, metric="nll", group=group)
    methods = ordered(set(rows["method"].to_pylist()))
    levels = list(dict.fromkeys(rows["level"].to_pylist()))
    at = {(row["method"], row["level"]): row for row in rows.to_pylist()}
    out = []
    for level in levels:
        sizes = [at[m, level]["num_residues"] for m in methods if (m, level) in at]
        cells = [figure_text(at.get((m, level)), "nll") for m in methods]
        out.append([level, f"{max(sizes):,}", *cells])
    words = GROUP_WORDS.get(group, group)
    return [words, "residues", *(label(m) for m in methods)], out


def extreme_residues(scores: pa.Table, population: str) -> tuple[list[dict], list[dict]]:
    """The residues that the model describes best and worst, by NLL."""
    part = _pick(scores, method="model", population=population)
    if not len(part):
        return [], []
    part = part.sort_by("nll")
    best, worst = part.slice(0, NUM_EXTREMES), part.slice(max(0, len(part) - NUM_EXTREMES))
    return best.to_pylist(), worst.to_pylist()[::-1]


def _residue_rows(
    residues: list[dict], scores: pa.Table, altlocs: dict[tuple, list[str]], modes: dict
) -> tuple[list[str], list[list[str]]]:
    library = {
        (r["entry"], r["chain"], r["index"]): r["nll"]
        for r in _pick(scores, method="type_library").select(["entry", "chain", "index", "nll"])
        .to_pylist()
    }  # fmt: skip
    rows = []
    for r in residues:
        key = (r["entry"], r["chain"], r["index"])
        number = f"{r['author_number']}{r['insertion_code'] or ''}"
        rows.append(
            [
                f"{r['entry']} {r['author_chain']} {r['name']} {number}",
                f"{r['nll']:.2f}",
                f"{library[key]:.2f}" if key in library else "–",
                "; ".join(altlocs[key]),
                modes.get(key, "–"),
            ]
        )
    head = ["residue", "NLL", "type library", "observed chi (occupancy)", "heaviest mode (weight)"]
    return head, rows


def _chi_text(row: dict[str, Any], weight: float) -> str:
    angles = [row[f"chi{d}_rad"] for d in range(1, 5)]
    shown = [f"{math.degrees(a):.0f}" for a in angles if a is not None]
    return f"{', '.join(shown)} ({weight:.2f})"


def write_report(out_dir: str | Path, run_dir: str | Path | None = None) -> None:
    """Figures, ``report.html``, ``MODEL_CARD.md`` and ``DATASET_CARD.md`` in an evaluation folder.

    Raises QfitLatentError where the evaluation's tables are missing.
    """
    out_dir = Path(out_dir)
    if not (out_dir / "metrics.json").exists():
        raise QfitLatentError(f"No evaluation in {out_dir}: run `snakemake evaluate` first.")
    metrics = read_json(out_dir / "metrics.json")
    found = metrics["populations"]
    metrics["populations"] = {name: found[name] for name in POPULATION_WORDS if name in found}
    tables = {
        name: read_table(out_dir / f"{name}.parquet")
        for name in ("by_group", "calibration", "curves", "scores", "altlocs")
    }
    folder = out_dir / "figures"
    folder.mkdir(exist_ok=True)
    page = _body(metrics, tables, out_dir, folder, None if run_dir is None else Path(run_dir))
    run = metrics["run"].get("run")
    title = f"qFitLatent: {run}" if run else "qFitLatent: the baselines"
    write_text(out_dir / "report.html", html_page(title, page))
    if "model" in next(iter(metrics["populations"].values()))["methods"]:
        write_text(out_dir / "MODEL_CARD.md", model_card(metrics))
    write_text(out_dir / "DATASET_CARD.md", dataset_card(metrics))


def _body(
    metrics: dict[str, Any],
    tables: dict[str, pa.Table],
    out_dir: Path,
    folder: Path,
    run_dir: Path | None,
) -> str:
    populations = metrics["populations"]
    has_model = "model" in next(iter(populations.values()))["methods"]
    simulated = metrics["run"]["is_simulated"]
    title = "Evaluation on simulated data" if simulated else "Evaluation"
    out = io.StringIO()
    run = metrics["run"].get("run") or "baselines"
    out.write(f"<h1>{title}: {html.escape(str(run))}</h1>")
    out.write(f"<p class=lead>{html.escape(headline(metrics))}</p><nav>")
    for population in populations:
        out.write(f"<a href='#{population}'>{html.escape(POPULATION_WORDS[population])}</a> ")
    out.write(
        "<a href='#heterogeneity'>Finding heterogeneity</a> <a href='#method'>Method</a></nav>"
    )

    scores, altlocs = tables["scores"], tables["altlocs"]
    num_methods = len(set(scores["method"].to_pylist()))
    counts = scores["num_conformers"].to_numpy()[: len(scores) // num_methods]
    repeated = np.repeat(counts > 1, counts)
    multiple = np.tile(repeated, num_methods)
    for population in populations:
        out.write(f"<h2 id={population}>{html.escape(POPULATION_WORDS[population])}</h2>")
        out.write(html_table(*_metric_rows(populations, population), plain=not has_model))
        if has_model:
            out.write("<h3>Paired differences on the same residues</h3>")
            out.write(html_table(*_difference_rows(populations, population), plain=True))
            name = draw_information_gain(tables["by_group"], population, folder)
            out.write(
                html_figure(
                    folder, name,
                    "Information gained by the model over each library, by residue type, with "
                    "95 % intervals over entries.",
                )
            )  # fmt: skip
        name = draw_calibration(tables["calibration"], population, folder)
        out.write(
            html_figure(
                folder, name,
                "Calibration: how many of the observed altlocs, weighted by occupancy, lie in the "
                "highest-density region of each mass.",
            )
        )  # fmt: skip
        name = draw_mode_curves(tables["curves"], population, folder)
        out.write(
            html_figure(
                folder, name,
                "Recall and precision of altlocs as the smallest weight that makes a mode varies; "
                "the dotted line is the weight of the tables.",
            )
        )  # fmt: skip
        if population == "multiconformer" and has_model:
            out.write(
                html_figure(
                    folder, draw_occupancy(altlocs, multiple, folder),
                    "Predicted probability near each observed altloc against its occupancy.",
                )
            )  # fmt: skip
            maps = read_table(out_dir / "chi_maps.parquet")
            out.write(
                html_figure(
                    folder, draw_chi_maps(maps, altlocs, folder),
                    "Predicted density over chi1 and chi2 (square root, darker is denser) and the "
                    "observed altlocs (circles, area by occupancy) for residues with distinct "
                    "rotamers, evenly spaced from low to high NLL.",
                )
            )  # fmt: skip
        if population != "all":
            for group in GROUP_WORDS:
                if population == "single" and group in (
                    "num_conformers",
                    "altloc_distance_degrees",
                ):
                    continue
                out.write(f"<h3>NLL by {html.escape(GROUP_WORDS[group])}</h3>")
                out.write(
                    html_table(*_group_rows(tables["by_group"], population, group), plain=True)
                )
        if has_model and population != "all":
            out.write(_extremes_html(tables, out_dir, population))

    out.write("<h2 id=heterogeneity>Finding heterogeneity</h2>")
    out.write(
        html_figure(
            folder, draw_roc(scores, folder),
            "Finding residues with two or more distinct rotamers by the entropy of the "
            "prediction, among all residues; the area under each curve is in the legend.",
        )
    )  # fmt: skip
    if run_dir is not None:
        curve = html_figure(
            folder, draw_learning_curve(run_dir, folder), "Losses over the epochs of training."
        )
        if curve:
            out.write(f"<h2>Learning curve</h2>{curve}")
    out.write(f"<h2 id=method>Method</h2>{_method_html(metrics)}")
    return out.getvalue()


def _extremes_html(tables: dict[str, pa.Table], out_dir: Path, population: str) -> str:
    scores = tables["scores"]
    best, worst = extreme_residues(scores, population)
    wanted = {(r["entry"], r["chain"], r["index"]) for r in best + worst}
    entries = pa.array(sorted({key[0] for key in wanted}), pa.string())

    def of_wanted(table: pa.Table) -> list[dict]:
        rows = table.filter(pc.is_in(table["entry"], entries)).to_pylist()
        return [r for r in rows if (r["entry"], r["chain"], r["index"]) in wanted]

    altlocs: dict[tuple, list[str]] = {}
    for row in of_wanted(_pick(tables["altlocs"], method="model")):
        key = (row["entry"], row["chain"], row["index"])
        altlocs.setdefault(key, []).append(_chi_text(row, row["occupancy"]))
    predictions = read_table(out_dir / "predictions.parquet")
    modes = {
        (row["entry"], row["chain"], row["index"]): _chi_text(row, row["weight"])
        for row in of_wanted(predictions.filter(pc.equal(predictions["mode"], 0)))
    }
    out = ""
    for words, residues in (("lowest", best), ("highest", worst)):
        out += f"<h3>The {len(residues)} residues of {words} NLL</h3>"
        head, rows = _residue_rows(residues, scores, altlocs, modes)
        out += html_table(head, rows, plain=True, text=2)
    return out


def _method_html(metrics: dict[str, Any]) -> str:
    s = metrics["settings"]
    without = metrics["evaluated"]["num_without_frame"]
    items = [
        "NLL is properly normalised on the full circle; the folded form is that of the training "
        "loss and flatters by up to 0.69 nats for each pi-symmetric chi.",
        "The baselines are fitted on the training part of the split only; their numbers of "
        "components and their smoothing are chosen by the likelihood of held-out training entries.",
        f"Intervals: 2.5 to 97.5 % of {s['bootstrap_samples']:,} resamples of the entries.",
        f"A mode is probability mass of at least {s['mode_weight']}, components within "
        f"{s['mode_merge_degrees']}° in every chi merged; it matches an altloc within "
        f"{s['match_degrees']}° in every chi. Precision is the share of the modes' weight that "
        "matches.",
        "Occupancy error: exact Wasserstein-1 distance between the weighted altlocs and "
        f"{s['num_samples']} draws; the ground distance is the root mean square over chi of the "
        "circular distance.",
        "Rotamer accuracy: the mode of largest mass against the altloc of highest occupancy.",
        f"Distinct rotamers: any chi differs by more than {s['distinct_degrees']}°.",
        "Pi-symmetric chi (ASP 2, GLU 3, PHE 2, TYR 2) are compared modulo 180°.",
        f"Residues with chi but without a complete backbone are not scored: {without:,}.",
    ]
    return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in items) + "</ul>"


def model_card(metrics: dict[str, Any]) -> str:
    """What the model is, what it was trained on, how good it is, and what it is not for."""
    run, populations = metrics["run"], metrics["populations"]
    settings = ", ".join(f"`{k}` {v}" for k, v in sorted(run["model"].items()))
    training = ", ".join(f"`{k}` {v}" for k, v in sorted(run["train"].items()))
    kind = "simulated" if run["is_simulated"] else "experimental"
    parts = [
        f"# Model card: {run['run']}",
        headline(metrics),
        "## What it does",
        "From backbone frames and residue types it predicts, for each residue, a joint density "
        "over the chi angles of its side chain. The modes and their masses are candidates for "
        "altlocs and their occupancies.",
        "## Figures",
    ]
    for population in populations:
        parts += [
            f"### {POPULATION_WORDS[population]}",
            markdown_table(*_metric_rows(populations, population)),
        ]
    parts += [
        "## Settings",
        f"Model: {settings}.",
        f"Training: {training}. Seed {run['seed']}.",
        f"Parameters: {run['num_parameters']:,}.",
        "## Limits",
        f"- Trained on {kind} entries only; "
        + (
            "figures on simulated data say nothing about crystals."
            if run["is_simulated"]
            else "what a crystallographer modelled is what it learns, also where a second "
            "conformer was overlooked."
        ),
        "- Residues are predicted one by one given the backbone: joint states of neighbouring "
        "side chains are not.",
        "- No ligands, nucleic acids or crystal contacts are seen. Modified residues other than "
        "MSE and D residues have no prediction.",
        "- The backbone is that of the primary conformer.",
    ]
    return "\n\n".join(parts) + "\n"


def dataset_card(metrics: dict[str, Any]) -> str:
    """What the figures were fitted and scored on."""
    run = metrics["run"]
    kind = "simulated" if run["is_simulated"] else "experimental"
    names = {
        "num_entries": "entries",
        "num_residues": "residues with chi, an observed conformer and a backbone frame",
        "num_multiconformer": "of these with two or more altlocs",
        "num_single": "of these with a single conformer",
        "num_altlocs": "observed conformers",
        "num_without_frame": "residues left out for want of a backbone frame",
    }
    rows = [
        [words, f"{metrics['trained_on'][name]:,}", f"{metrics['evaluated'][name]:,}"]
        for name, words in names.items()
    ]
    split = metrics["settings"]["split"]
    return (
        "\n\n".join(
            [
                f"# Dataset card: {run.get('dataset') or 'data'}",
                f"{kind.capitalize()} entries, divided by sequence cluster: no cluster spans two "
                "parts of the split.",
                markdown_table(["", "train", split], rows),
                "What was left out before this, entry by entry, is in the table `rejected` beside "
                "the others, each row with its reason.",
            ]
        )
        + "\n"
    )
