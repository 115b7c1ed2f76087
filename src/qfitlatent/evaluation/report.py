"""Figures, the self-contained report, and the cards: all made from the tables of ``evaluate.py``.

Nothing is computed here that is not in those tables, so the words, the pictures and
``metrics.json`` cannot disagree. The report is one HTML file: styles and pictures inside, no
script, no request to the network.
"""

import html
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json, write_text
from qfitlatent.evaluation.pictures import (
    draw_calibration,
    draw_chi_maps,
    draw_information_gain,
    draw_learning_curve,
    draw_mode_curves,
    draw_occupancy,
    draw_roc,
)
from qfitlatent.evaluation.words import (
    GROUP_WORDS,
    METRIC_WORDS,
    POPULATION_WORDS,
    figure_text,
    label,
    ordered,
    pick,
)
from qfitlatent.pages.render import html_figure, html_page, html_table, markdown_table
from qfitlatent.tables.parquet import read_table

NUM_EXTREMES = 20


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
    rows = pick(by_group, population=population, reference=None, metric="nll", group=group)
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
    part = pick(scores, method="model", population=population)
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
        for r in pick(scores, method="type_library").select(["entry", "chain", "index", "nll"])
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
    for row in of_wanted(pick(tables["altlocs"], method="model")):
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
