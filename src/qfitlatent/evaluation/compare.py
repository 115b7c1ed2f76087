"""Runs side by side, paired on the residues that all of them were scored on.

Reads each run's ``evaluation/scores.parquet``. Differences are to the first run, on the same
residues, with bootstrap intervals over entries; a baseline that is the same for all runs (the type
library of the first run) stands beside them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json, write_json, write_text
from qfitlatent.evaluation.columns import COMPARE_SCHEMA
from qfitlatent.evaluation.intervals import bootstrap_auroc, bootstrap_means, bootstrap_weights
from qfitlatent.evaluation.words import POPULATIONS, difference_rows, figure_rows, label
from qfitlatent.pages.readmes import write_readme
from qfitlatent.pages.render import render
from qfitlatent.tables.columns import KEYS
from qfitlatent.tables.parquet import read_table, write_table

LIBRARY = "type_library"
"""The baseline beside the runs; no run may have this name."""

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
    if len(names) != len(folders) or len({*names, LIBRARY}) != len(names) + 1:
        raise QfitLatentError(f"Each compared run needs a name of its own, got {', '.join(names)}.")
    tables = {n: _scores(f, "model", n) for n, f in zip(names, folders, strict=True)}
    library = _scores(folders[0], LIBRARY, names[0], required=False)
    if library is not None:
        tables[LIBRARY] = library
    tables = _on_the_same_residues(tables)
    table = _figures(tables, names[0], bootstrap_samples, seed)

    out_dir = Path(out_dir)
    write_table(table, out_dir / "compare.parquet", COMPARE_SCHEMA)
    write_json(out_dir / "compare.json", _nested(table))
    page = _page(_nested(table), names, folders, len(next(iter(tables.values()))))
    write_text(out_dir / "compare.html", page)
    write_readme("readmes/compare.md", out_dir)
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
    keys = list(KEYS)
    common = next(iter(tables.values())).select(keys)
    for table in tables.values():
        common = common.join(table.select(keys), keys, join_type="left semi")
    if not len(common):
        raise QfitLatentError(
            "The compared runs share no residue: they were evaluated on different data or splits."
        )
    order = [(key, "ascending") for key in KEYS]
    return {
        name: table.join(common, keys, join_type="left semi").sort_by(order)
        for name, table in tables.items()
    }


def _figures(tables: dict[str, pa.Table], first: str, num_draws: int, seed: int) -> pa.Table:
    """Every metric of every run, and its paired difference to the first, with intervals."""
    some = tables[first]
    entries, entry = np.unique(_column(some, "entry").astype(str), return_inverse=True)
    draws = bootstrap_weights(len(entries), num_draws, seed)
    population = _column(some, "population").astype(str)
    distinct = _column(some, "distinct_rotamers").astype(bool)
    values = {
        name: np.stack([_column(table, metric).astype(float) for metric in METRICS], axis=1)
        for name, table in tables.items()
    }
    rows: list[dict[str, Any]] = []
    for kind in POPULATIONS:
        mask = np.ones(len(entry), dtype=bool) if kind == "all" else population == kind
        for name in tables if mask.any() else ():
            facts: dict[str, Any] = {"population": kind, "run": name}
            for reference in (None, first) if name != first else (None,):
                shown = values[name] - (0.0 if reference is None else values[reference])
                means = bootstrap_means(shown[mask], entry[mask], draws)
                for m, metric in enumerate(METRICS):
                    row = facts | {"reference": reference, "metric": metric}
                    for key in ("value", "low", "high", "num_entries"):
                        row[key] = getattr(means, key)[0, m]
                    rows.append(row | {"num_residues": means.count[0, m]})
            if 0 < distinct[mask].sum() < mask.sum():
                entropy = _column(tables[name], "entropy")[mask]
                value, low, high = bootstrap_auroc(entropy, distinct[mask], entry[mask], draws)
                row = facts | {"metric": "auroc_entropy", "value": value, "low": low, "high": high}
                row["num_entries"] = len(np.unique(entry[mask]))
                rows.append(row | {"num_residues": mask.sum()})
    table = {
        name: pa.array([row.get(name) for row in rows], kind, from_pandas=True)
        for name, kind in zip(COMPARE_SCHEMA.names, COMPARE_SCHEMA.types, strict=True)
    }
    return pa.table(table, schema=COMPARE_SCHEMA)


def _column(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy(zero_copy_only=False)


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


def _page(nested: dict[str, Any], names: list[str], folders: list[Path], num: int) -> str:
    figures, differences = {}, {}
    for population, found in nested.items():
        runs, others = found["figures"], found.get("differences", {})
        figures[population] = ["", *map(_shown, runs)], figure_rows(runs)
        if others:
            head = [f"minus {names[0]}", *map(_shown, others)]
            differences[population] = head, difference_rows(others, METRICS)
    rows = []
    for name, folder in zip(names, folders, strict=True):
        run = read_json(folder / "metrics.json")["run"]
        model = ", ".join(f"{key} {value}" for key, value in sorted(run.get("model", {}).items()))
        rows.append([name, run.get("dataset") or "–", run.get("num_parameters", 0), model])
    return render(
        "pages/compare.html.j2",
        runs=rows,
        num_residues=num,
        figures=figures,
        differences=differences,
        titles=POPULATIONS,
    )


def _shown(name: str) -> str:
    return label(name) if name == LIBRARY else name
