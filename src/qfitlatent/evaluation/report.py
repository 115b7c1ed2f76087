"""The self-contained report and the cards: all made from the tables of ``evaluate.py``.

Nothing is computed here that is not in those tables, so the words, the pictures and
``metrics.json`` cannot disagree. The words are templates, ``data/pages/`` and ``data/words.yaml``.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json, write_text
from qfitlatent.evaluation.pictures import confidence, draw_pictures
from qfitlatent.evaluation.words import (
    GROUPS,
    METRICS,
    NONE,
    POPULATIONS,
    PREDICTED,
    WORDS,
    Rows,
    best_of,
    cell,
    difference_rows,
    figure_cells,
    figure_rows,
    figure_text,
    label,
    ordered,
    pick,
    title,
)
from qfitlatent.pages.figures import save
from qfitlatent.pages.readmes import write_readme
from qfitlatent.pages.render import Cell, embedded, render
from qfitlatent.tables.columns import CHI_COLUMNS, KEYS
from qfitlatent.tables.parquet import read_table

NUM_EXTREMES = 20
DIFFERENCES = ("nll", "nll_folded", "all_within_20", "recall", "precision", "wasserstein_rad")
"""Metrics whose paired differences are shown."""


def write_report(
    out_dir: str | Path,
    run_dir: str | Path | None = None,
    tables: Mapping[str, pa.Table] | None = None,
) -> None:
    """Figures, ``report.html``, ``MODEL_CARD.md`` and ``DATASET_CARD.md`` in an evaluation folder.

    run_dir: the run folder whose learning curve is shown. tables: the folder's, where they are at
    hand; otherwise they are read.
    Raises QfitLatentError where the evaluation's tables are missing.
    """
    out_dir = Path(out_dir)
    if not (out_dir / "metrics.json").exists():
        raise QfitLatentError(f"No evaluation in {out_dir}: run `snakemake evaluate` first.")
    metrics = read_json(out_dir / "metrics.json")
    found = metrics["populations"]
    metrics["populations"] = {name: found[name] for name in POPULATIONS if name in found}
    methods = next(iter(metrics["populations"].values()))["methods"]
    has_model = "model" in methods
    names = ["by_group", "calibration", "curves", "scores", "altlocs"]
    names += ["chi_maps", "predictions"] * has_model
    tables = tables or {name: read_table(out_dir / f"{name}.parquet") for name in names}

    pictures = draw_pictures(tables, list(metrics["populations"]), out_dir / "figures")
    if metrics["predicted_models"]:
        figure = confidence(metrics["predicted_models"]["confidence"])
        pictures["confidence"] = save(figure, out_dir / "figures" / "confidence")
    curve = Path(run_dir, "learning_curve.svg") if run_dir else None
    if curve is not None and curve.exists():
        pictures["learning_curve"] = curve
    facts = {
        "has_model": has_model,
        "subject": label(ordered(methods)[0]),
        "run": metrics["run"],
        "trained_on": metrics["trained_on"],
        "evaluated": metrics["evaluated"],
        "learnt_from": metrics["learnt_from"],
        "settings": metrics["settings"],
        "kind": "simulated" if metrics["run"]["is_simulated"] else "experimental",
        "keys": key_figures(metrics),
        "figures": {
            population: (["figure"] + [label(m) for m in shown], figure_rows(shown))
            for population, shown in _figures(metrics).items()
        },
        "titles": POPULATIONS,
    }
    facts["lead"] = render("pages/lead.md.j2", **facts).strip()
    page = render(
        "pages/report.html.j2",
        **facts,
        differences=_differences(metrics),
        groups=_group_tables(tables["by_group"], metrics["populations"]),
        extremes=_extremes(tables) if has_model else {},
        pictures={name: embedded(path) for name, path in pictures.items()},
        predicted=_predicted(metrics["predicted_models"]),
    )
    write_text(out_dir / "report.html", page)
    write_text(out_dir / "DATASET_CARD.md", render("pages/dataset_card.md.j2", **facts))
    if has_model:
        write_text(out_dir / "MODEL_CARD.md", render("pages/model_card.md.j2", **facts))
    has_predicted = bool(metrics["predicted_models"])
    write_readme("readmes/evaluation.md", out_dir, has_model=has_model, has_predicted=has_predicted)


def _figures(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """population -> method in the order of the page -> metric -> figure."""
    return {
        population: {method: found["methods"][method] for method in ordered(found["methods"])}
        for population, found in metrics["populations"].items()
    }


def key_figures(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures to open with: of the model, or of the first baseline where there is none."""
    found = []
    figures = _figures(metrics)
    for key in WORDS["keys"]:
        of_methods = figures.get(key["population"], {})
        ours, *others = of_methods or [""]
        metric = next((m for m in key["metrics"] if of_methods.get(ours, {}).get(m)), None)
        if metric is None:
            continue
        by_method = {name: figure.get(metric) for name, figure in of_methods.items()}
        rival = best_of({name: by_method[name] for name in others}, metric)
        more = ""
        if rival:
            text = figure_text(by_method[rival], metric)
            more = f"The best of the others, {label(rival)}, has {text}."
        found.append(
            {
                "title": METRICS[metric]["words"],
                "unit": METRICS[metric]["unit"],
                "figure": cell(by_method[ours], metric),
                "sentence": key["sentence"].format(**by_method[ours]),
                "more": more,
            }
        )
    return found


def _differences(metrics: Mapping[str, Any]) -> dict[str, tuple[list[str], Rows]]:
    """population -> paired differences of the model to each reference."""
    tables = {}
    for population, found in metrics["populations"].items():
        differences = found.get("differences", {}).get("model", {})
        shown = {name: differences[name] for name in ordered(differences)}
        if shown:
            head = ["model minus", *map(label, shown)]
            tables[population] = (head, difference_rows(shown, DIFFERENCES))
    return tables


def _group_tables(
    by_group: pa.Table, populations: Mapping[str, Any]
) -> dict[str, list[tuple[str, list[str], Rows]]]:
    """population -> (words, head, rows) of each group: the NLL of every method in each level."""
    tables: dict[str, list[tuple[str, list[str], Rows]]] = {}
    for population in populations:
        # A single conformer has neither a number nor a distance to divide by.
        hidden = ("num_conformers", "altloc_distance_degrees") if population == "single" else ()
        for group, words in GROUPS.items():
            if population == "all" or group in hidden:
                continue
            found = pick(
                by_group, population=population, reference=None, metric="nll", group=group
            ).to_pylist()
            names = ordered({row["method"] for row in found})
            levels: dict[str, dict[str, Any]] = {}
            for row in found:
                levels.setdefault(row["level"], dict.fromkeys(names))[row["method"]] = row
            rows: Rows = []
            for level, figures in levels.items():
                num_residues = max(figure["num_residues"] for figure in figures.values() if figure)
                rows.append([level, num_residues, *figure_cells(figures, "nll")])
            head = [words, "residues", *map(label, names)]
            tables.setdefault(population, []).append((words, head, rows))
    return tables


def _extremes(tables: Mapping[str, pa.Table]) -> dict[str, list[tuple[str, Rows]]]:
    """population -> the residues that the model describes best, and worst, by NLL."""
    shown = {}
    for population in ("multiconformer", "single"):
        part = pick(tables["scores"], method="model", population=population).sort_by("nll")
        best = part.slice(0, NUM_EXTREMES).to_pylist()
        worst = part.slice(max(0, len(part) - NUM_EXTREMES)).to_pylist()[::-1]
        shown[population] = [("lowest", best), ("highest", worst)]
    wanted = {_key(row) for tables in shown.values() for _, rows in tables for row in rows}

    def of_wanted(table: pa.Table) -> list[dict[str, Any]]:
        entries = pa.array(sorted({key[0] for key in wanted}), pa.string())
        rows = table.filter(pc.is_in(table["entry"], entries)).to_pylist()
        return [row for row in rows if _key(row) in wanted]

    library = pick(tables["scores"], method="type_library").select([*KEYS, "nll"])
    of_library = {_key(row): f"{row['nll']:.2f}" for row in of_wanted(library)}
    altlocs: dict[tuple, list[str]] = {}
    for row in of_wanted(pick(tables["altlocs"], method="model")):
        altlocs.setdefault(_key(row), []).append(_chi_text(row, row["occupancy"]))
    modes = {
        _key(row): _chi_text(row, row["weight"])
        for row in of_wanted(pick(tables["predictions"], mode=0))
    }

    def cells(row: Mapping[str, Any]) -> list[str | int | Cell]:
        number = f"{row['author_number']}{row['insertion_code'] or ''}"
        return [
            f"{row['entry']} {row['author_chain']} {row['name']} {number}",
            f"{row['nll']:.2f}",
            of_library.get(_key(row), NONE),
            "; ".join(altlocs[_key(row)]),
            modes.get(_key(row), NONE),
        ]

    return {
        population: [(words, [cells(row) for row in rows]) for words, rows in tables]
        for population, tables in shown.items()
    }


def _predicted(found: Mapping[str, Any] | None) -> dict[str, Any]:
    """The tables of the predicted models; nothing where none were evaluated."""
    if not found:
        return {}
    models = {words: found["models"][name] for name, words in PREDICTED.items()}
    tenths = [
        [
            f"{tenth['from']:.1f} to {tenth['from'] + 0.1:.1f}",
            tenth["observed"]["num"],
            f"{100 * tenth['predicted']:.1f}",
            cell(tenth["observed"], "all_within_40"),
        ]
        for tenth in found["confidence"]
    ]
    return dict(found) | {
        "models": (["figure", *models], figure_rows(models)),
        "gain": (
            ["difference", "joint model minus heaviest modes"],
            difference_rows({"gain": found["gain"]}, [x for x in METRICS if x in found["gain"]]),
        ),
        "altlocs": (
            ["figure", "residues", "value"],
            [
                [title(x), found["altlocs"][x]["num"], cell(found["altlocs"][x], x)]
                for x in METRICS
                if x in found["altlocs"]
            ],
        ),
        "confidence": (["confidence", "residues", "mean, %", "right, %"], tenths),
    }


def _key(row: Mapping[str, Any]) -> tuple:
    return tuple(row[name] for name in KEYS)


def _chi_text(row: Mapping[str, Any], weight: float) -> str:
    angles = (row[name] for name in CHI_COLUMNS)
    return f"{', '.join(f'{math.degrees(a):.0f}' for a in angles if a is not None)} ({weight:.2f})"
