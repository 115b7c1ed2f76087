"""Runs side by side, paired on the residues that all of them were scored on.

Reads each run's ``evaluation/scores.parquet``. Differences are to the first run, on the same
residues, with bootstrap intervals over entries; a baseline that is the same for all runs (the type
library of the first run) stands beside them.
"""

import sys
from functools import reduce
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json, write_json, write_text
from qfitlatent.evaluation.columns import COMPARE
from qfitlatent.evaluation.figures import figures_of, figures_with_intervals
from qfitlatent.evaluation.intervals import bootstrap_weights
from qfitlatent.evaluation.residues import overall
from qfitlatent.evaluation.words import POPULATIONS, difference_rows, figure_rows, label, pick
from qfitlatent.pages.readmes import write_readme
from qfitlatent.pages.render import render
from qfitlatent.tables.columns import KEYS
from qfitlatent.tables.keys import row_keys
from qfitlatent.tables.parquet import conform, read_table, write_table

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
    names: list[str],
    bootstrap_samples: int,
    seed: int,
    log: TextIO | None = None,
) -> pa.Table:
    """Write ``compare.parquet``, ``compare.json`` and ``compare.html``; returns the table.

    names: one a folder. A run that cannot be compared is left out: the page says which and why, and
    so does ``log``. Raises QfitLatentError where nothing is left to compare.
    """
    folders = [Path(folder) for folder in evaluation_dirs]
    if not folders:
        raise QfitLatentError("No evaluated run to compare: run `snakemake evaluate` first.")
    if len(names) != len(folders) or len({*names, LIBRARY}) != len(names) + 1:
        raise QfitLatentError(f"Each compared run needs a name of its own, got {', '.join(names)}.")
    tables, left_out = _comparable(dict(zip(names, folders, strict=True)))
    for name, why in left_out.items():
        print(f"{name} is left out: {why}", file=log or sys.stderr)
    if not tables:
        raise QfitLatentError(
            "No run can be compared. "
            + " ".join(f"{name}: {why}" for name, why in left_out.items())
        )
    folders = [folder for name, folder in zip(names, folders, strict=True) if name in tables]
    names = list(tables)
    library = _scores(folders[0], LIBRARY)
    if len(library):
        tables[LIBRARY] = library
    tables = _on_the_same_residues(tables)
    table = _figures(tables, names[0], bootstrap_samples, seed)

    out_dir = Path(out_dir)
    write_table(table, out_dir / "compare.parquet", COMPARE)
    write_json(out_dir / "compare.json", _nested(table))
    page = _page(_nested(table), names, folders, len(next(iter(tables.values()))), left_out)
    write_text(out_dir / "compare.html", page)
    write_readme("readmes/compare.md", out_dir)
    return table


def _comparable(folders: dict[str, Path]) -> tuple[dict[str, pa.Table], dict[str, str]]:
    """The scores of as many runs as share residues, and why the others are left out."""
    tables, left_out = {}, {}
    for name, folder in folders.items():
        try:
            tables[name] = _scores(folder, "model")
            read_json(folder / "metrics.json")["run"]
        except (QfitLatentError, OSError, ValueError, LookupError) as error:
            left_out[name] = f"its evaluation cannot be used ({error}); evaluate it again."
            tables.pop(name, None)
            continue
        if not len(tables[name]):
            del tables[name]
            left_out[name] = "its evaluation has no model, only baselines."
    keys = dict(zip(tables, row_keys(*tables.values()), strict=True)) if tables else {}
    together: list[str] = []
    for start in keys:
        kept, common = [start], keys[start]
        for name in keys:
            shared = np.intersect1d(common, keys[name])
            if name != start and len(shared):
                kept, common = [*kept, name], shared
        together = max(together, kept, key=len)
    for name in keys.keys() - set(together):
        left_out[name] = (
            f"it was evaluated on other residues than {together[0]}, on another data set or split."
        )
    return {name: tables[name] for name in keys if name in together}, dict(sorted(left_out.items()))


def _scores(folder: Path, method: str) -> pa.Table:
    """The rows of one method; none where it was not scored."""
    columns = [*KEYS, "method", "population", "distinct_rotamers", "entropy", *METRICS]
    return pick(read_table(folder / "scores.parquet", columns), method=method)


def _on_the_same_residues(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """The rows whose residue every table has, in the same order."""
    keys = row_keys(*tables.values())
    common = reduce(np.intersect1d, keys)
    if not len(common):  # only the library of the first run can be on other residues
        raise QfitLatentError(
            f"The {LIBRARY} was scored on other residues: evaluate the run again."
        )
    order = [np.argsort(key) for key in keys]
    return {
        name: table.take(rows[np.searchsorted(key, common, sorter=rows)])
        for (name, table), key, rows in zip(tables.items(), keys, order, strict=True)
    }


def _figures(tables: dict[str, pa.Table], first: str, num_draws: int, seed: int) -> pa.Table:
    """Every metric of every run, and its paired difference to the first, with intervals."""
    some = tables[first]
    entries, entry = np.unique(some["entry"].to_numpy(), return_inverse=True)
    scores = {
        name: {metric: table[metric].to_numpy() for metric in (*METRICS, "entropy")}
        for name, table in tables.items()
    }
    table = figures_with_intervals(
        figures_of(scores, METRICS, [first]),
        scores,
        some["distinct_rotamers"].to_numpy(),
        some["population"].to_numpy() == "multiconformer",
        entry,
        [overall(len(some))],
        bootstrap_weights(len(entries), num_draws, seed),
    )
    return conform(table.append_column("run", table["method"]), COMPARE, "compare")


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


def _page(
    nested: dict[str, Any],
    names: list[str],
    folders: list[Path],
    num: int,
    left_out: dict[str, str],
) -> str:
    figures, differences = {}, {}
    for population, found in nested.items():
        runs, others = found["figures"], found.get("differences", {})
        figures[population] = ["figure", *map(_shown, runs)], figure_rows(runs)
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
        left_out=[f"{name}: {why}" for name, why in left_out.items()],
    )


def _shown(name: str) -> str:
    return label(name) if name == LIBRARY else name
