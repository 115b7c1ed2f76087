"""Runs side by side, paired on the residues that all of them were scored on.

Reads each run's ``evaluation/scores.parquet``. Differences are to the first run, on the same
residues, with bootstrap intervals over entries; a baseline that is the same for all runs (the type
library of the first run) stands beside them.
"""

import html
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path, read_json, write_json, write_text
from qfitlatent.evaluation.columns import COMPARE_SCHEMA
from qfitlatent.evaluation.intervals import bootstrap_auroc, bootstrap_means, bootstrap_weights
from qfitlatent.evaluation.words import METRIC_WORDS, POPULATION_WORDS, figure_text, label
from qfitlatent.pages.render import html_page, html_table
from qfitlatent.tables.columns import KEYS
from qfitlatent.tables.parquet import read_table

METRICS = (
    "nll",
    "nll_folded",
    "chi1_within_20",
    "chi12_within_20",
    "all_within_20",
    "all_within_40",
    "recall",
    "precision",
    "wasserstein_rad",
)


def compare_runs(
    evaluation_dirs: list[str | Path],
    out_dir: str | Path,
    names: list[str] | None = None,
    bootstrap_samples: int = 1000,
    seed: int = 0,
) -> pa.Table:
    """Write ``compare.parquet``, ``compare.json`` and ``compare.html``; returns the table.

    names: one a folder, default the name of the folder above. Raises QfitLatentError where there
    is nothing to compare, or where the runs share no residue.
    """
    folders = [Path(folder) for folder in evaluation_dirs]
    if not folders:
        raise QfitLatentError("No evaluated run to compare: run `snakemake evaluate` first.")
    names = names or [folder.parent.name for folder in folders]
    repeated = [name for name in names if names.count(name) > 1]
    if len(names) != len(folders) or repeated:
        raise QfitLatentError(f"Each compared run needs a name of its own, got {', '.join(names)}.")
    tables = {n: _scores(f, "model", n) for n, f in zip(names, folders, strict=True)}
    library = _scores(folders[0], "type_library", names[0], required=False)
    if library is not None:
        tables["type_library"] = library
    tables = _on_the_same_residues(tables)
    table = _figures(tables, names[0], bootstrap_samples, seed)

    out_dir = Path(out_dir)
    with atomic_path(out_dir / "compare.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd")
    write_json(out_dir / "compare.json", _nested(table))
    page = _page(table, names, folders, len(next(iter(tables.values()))))
    write_text(out_dir / "compare.html", page)
    return table


def _scores(folder: Path, method: str, name: str, required: bool = True) -> pa.Table | None:
    table = read_table(
        folder / "scores.parquet",
        [*KEYS, "method", "population", "distinct_rotamers", "entropy", *METRICS],
    )
    table = table.filter(pc.equal(table["method"], method))
    if len(table):
        return table
    if required:
        raise QfitLatentError(
            f"The evaluation of {name} in {folder} has no model, only baselines: leave it out."
        )
    return None


def _on_the_same_residues(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """The rows whose residue every table has, in the same order."""
    first = next(iter(tables.values())).select(list(KEYS))
    common = first
    for table in tables.values():
        common = common.join(table.select(list(KEYS)), keys=list(KEYS), join_type="left semi")
    if not len(common):
        raise QfitLatentError(
            "The compared runs share no residue: they were evaluated on different data or splits."
        )
    common = common.sort_by([(key, "ascending") for key in KEYS])
    order = [(key, "ascending") for key in KEYS]
    return {
        name: table.join(common, keys=list(KEYS), join_type="left semi").sort_by(order)
        for name, table in tables.items()
    }


def _figures(tables: dict[str, pa.Table], first: str, num_draws: int, seed: int) -> pa.Table:
    some = tables[first]
    entries, entry = np.unique(
        some["entry"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True
    )
    draws = bootstrap_weights(len(entries), num_draws, seed)
    population = some["population"].to_numpy(zero_copy_only=False).astype(str)
    distinct = some["distinct_rotamers"].to_numpy(zero_copy_only=False).astype(bool)
    columns = {
        name: np.stack([t[m].to_numpy(zero_copy_only=False).astype(float) for m in METRICS], 1)
        for name, t in tables.items()
    }
    rows: list[dict[str, Any]] = []
    for kind in POPULATION_WORDS:
        mask = np.ones(len(entry), dtype=bool) if kind == "all" else population == kind
        if not mask.any():
            continue
        for name, values in columns.items():
            for reference in (None, first):
                if name == reference:
                    continue
                shown = values if reference is None else values - columns[reference]
                figures = bootstrap_means(shown[mask], entry[mask], draws)
                for m, metric in enumerate(METRICS):
                    rows.append(
                        {
                            "population": kind,
                            "run": name,
                            "reference": reference,
                            "metric": metric,
                            "value": figures.value[0, m],
                            "low": figures.low[0, m],
                            "high": figures.high[0, m],
                            "num_residues": int(figures.count[0, m]),
                            "num_entries": int(figures.num_entries[0, m]),
                        }
                    )
            label_here = distinct[mask]
            if label_here.any() and not label_here.all():
                entropy = tables[name]["entropy"].to_numpy(zero_copy_only=False)[mask]
                value, low, high = bootstrap_auroc(entropy, label_here, entry[mask], draws)
                rows.append(
                    {
                        "population": kind,
                        "run": name,
                        "reference": None,
                        "metric": "auroc_entropy",
                        "value": value,
                        "low": low,
                        "high": high,
                        "num_residues": int(mask.sum()),
                        "num_entries": len(np.unique(entry[mask])),
                    }
                )
    for row in rows:
        for key in ("value", "low", "high"):
            row[key] = None if row[key] != row[key] else float(row[key])
    return pa.Table.from_pylist(rows, schema=COMPARE_SCHEMA)


def _nested(table: pa.Table) -> dict[str, Any]:
    """population -> figures or differences -> run -> metric -> value, low, high."""
    out: dict[str, Any] = {}
    for row in table.to_pylist():
        kind = "figures" if row["reference"] is None else "differences"
        place = out.setdefault(row["population"], {}).setdefault(kind, {})
        place.setdefault(row["run"], {})[row["metric"]] = {
            key: row[key] for key in ("reference", "value", "low", "high", "num_residues")
        }
    return out


def _page(table: pa.Table, names: list[str], folders: list[Path], num: int) -> str:
    nested = _nested(table)
    body = ["<h1>Runs side by side</h1>"]
    words = (
        f"{len(names)} runs on the {num:,} residues that all of them were scored on. In "
        f"parentheses: 95 % intervals over entries. Differences are to {names[0]}."
    )
    body.append(f"<p class=lead>{html.escape(words)}</p>")
    for population, title in POPULATION_WORDS.items():
        if population not in nested:
            continue
        body.append(f"<h2>{html.escape(title)}</h2>")
        for kind, heading in (("figures", ""), ("differences", f"minus {names[0]}")):
            runs = nested[population].get(kind, {})
            if not runs:
                continue
            shown = [m for m in METRIC_WORDS if any(m in figures for figures in runs.values())]
            head = [heading or "run", *(_heading(metric) for metric in shown)]
            rows = [
                [label(run), *(figure_text(figures.get(m), m) for m in shown)]
                for run, figures in runs.items()
            ]
            body.append(html_table(head, rows, plain=True))
    body.append("<h2>The runs</h2>")
    rows = []
    for name, folder in zip(names, folders, strict=True):
        run = read_json(folder / "metrics.json")["run"]
        model = run.get("model", {})
        rows.append(
            [
                name,
                str(run.get("dataset") or "–"),
                f"{run.get('num_parameters', 0):,}",
                ", ".join(f"{key} {value}" for key, value in sorted(model.items())),
            ]
        )
    body.append(html_table(["run", "dataset", "parameters", "model"], rows, plain=True, text=1))
    return html_page("qFitLatent: runs side by side", "".join(body))


def _heading(metric: str) -> str:
    words, unit, _, _ = METRIC_WORDS[metric]
    return f"{words}, {unit}" if unit else words
