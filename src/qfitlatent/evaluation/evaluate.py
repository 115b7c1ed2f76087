"""Evaluation of a run on one part of the split, beside every baseline (SPEC 8).

Reads the tables and the split, fits the baselines on the training part, scores the model and the
baselines by the same code on the same residues, and writes the files that
``data/readmes/evaluation.md`` lists: tables, ``metrics.json``, and the report with its pictures.

Populations are never mixed silently: ``multiconformer`` (two or more observed altlocs: the set R of
SPEC 7), ``single`` (one conformer) and ``all`` (both). Only residues with a backbone frame and at
least one chi observed are scored.
"""

import io
import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from qfitlatent.base.files import write_json
from qfitlatent.base.forked import forked
from qfitlatent.base.progress import Progress
from qfitlatent.chemistry.residues import NUM_CHI_MAX
from qfitlatent.density.libraries import fit_baselines
from qfitlatent.density.rows import altloc_spread
from qfitlatent.evaluation.columns import GENERATOR, MODEL, RESIDUE_METRICS, ROW_METRICS
from qfitlatent.evaluation.figures import (
    calibration_table,
    figures_of,
    figures_with_intervals,
    information_gain,
    threshold_table,
)
from qfitlatent.evaluation.intervals import bootstrap_weights
from qfitlatent.evaluation.methods import (
    Method,
    external_method,
    library_method,
    model_method,
    refuse_repeated,
    table_method,
)
from qfitlatent.evaluation.outputs import output_figures, output_scores
from qfitlatent.evaluation.predicted import predicted_figures
from qfitlatent.evaluation.report import write_report
from qfitlatent.evaluation.residues import (
    EvaluationSet,
    read_evaluation_set,
    read_resolutions,
    residue_groups,
)
from qfitlatent.evaluation.scores import MODES_KEPT, describe, score_density
from qfitlatent.evaluation.settings import DISTINCT_DEGREES, EvaluationSettings
from qfitlatent.evaluation.tables import (
    altlocs_table,
    chi_maps,
    predictions_table,
    representative_residues,
    scores_table,
)
from qfitlatent.model.checkpoint import LoadedModel, load_model
from qfitlatent.simulate.truth import read_truth
from qfitlatent.tables.parquet import write_table


def evaluate_run(
    source: str | Path | None,
    tables_dir: str | Path,
    split_path: str | Path,
    out_dir: str | Path,
    settings: EvaluationSettings,
    truth_dir: str | Path | None = None,
    log: TextIO | None = None,
    report: bool = True,
    altlocs_unknown: str | Path | None = None,
    processes: int = 1,
    predicted: str | Path | None = None,
) -> dict[str, Any]:
    """Score a run and write everything below out_dir; returns the metrics. Progress goes to log.

    source is a run folder or model file; None scores the baselines alone. truth_dir is the
    simulator's folder: with it, the generator is scored too and the gap to its entropy given.
    altlocs_unknown is the list ``train.altlocs_unknown``: no evidence for p_heterogeneous.
    predicted is the folder of ``prediction.judge``: with it, predicted models are evaluated, too.
    Without ``report`` no page, figure and card is made. Several processes share the work, and have
    no part in the result. Raises QfitLatentError for inputs that
    cannot be read or do not fit together.
    """
    out_dir = Path(out_dir)
    loaded = None if source is None else load_model(source)
    learnt = None if loaded is None else loaded.learnt
    data = read_evaluation_set(tables_dir, split_path, settings.split, learnt, altlocs_unknown)
    training = read_evaluation_set(tables_dir, split_path, "train")
    side_by_side = partial(forked, num_processes=processes, prepare=_one_thread)
    libraries = fit_baselines(training.observed, settings.baselines, settings.seed, side_by_side)

    methods = [library_method(library, data) for library in libraries.values()]
    methods += [external_method(setting, data) for setting in settings.external]
    if truth_dir is not None:
        methods.append(table_method(GENERATOR, read_truth(truth_dir, data.entries), data))
    if loaded is not None:
        methods.insert(0, model_method(loaded.model, data))
    refuse_repeated([m.name for m in methods])

    scores = {m.name: score_method(m, data, settings, log, processes) for m in methods}
    metrics = [column.name for column in RESIDUE_METRICS]
    if GENERATOR in scores:
        entropy = scores[GENERATOR]["entropy"]
        for table in scores.values():
            table["gap_to_entropy"] = table["nll"] - entropy
        metrics.append("gap_to_entropy")

    spread = altloc_spread(data.observed).numpy()
    distinct = spread > math.radians(DISTINCT_DEGREES)
    groups = residue_groups(data, read_resolutions(tables_dir, data.entries), spread)
    references = [*libraries] + [GENERATOR] * (GENERATOR in scores)
    figures = figures_of(scores, metrics, references) | information_gain(scores)
    draws = bootstrap_weights(len(data.entries), settings.bootstrap_samples, settings.seed)
    by_group = figures_with_intervals(
        figures, scores, distinct, data.several, data.entry, groups, draws, side_by_side
    )
    calibration = calibration_table(scores, data, draws)

    tables = {
        "by_group": by_group,
        "calibration": calibration,
        "curves": threshold_table(scores, data),
        "scores": scores_table(scores, data, distinct, spread),
        "altlocs": altlocs_table(scores, data),
    }
    if loaded is not None:
        chosen = representative_residues(scores[MODEL]["nll"], data, distinct)
        tables["predictions"] = predictions_table(scores[MODEL], data)
        tables["chi_maps"] = chi_maps(loaded.model, data, chosen)
    for name, table in tables.items():
        write_table(table, out_dir / f"{name}.parquet", table.schema)
    metrics_of_run = {
        "settings": settings.reported(),
        "populations": overall_figures(by_group, calibration),
        "evaluated": data.size(),
        "learnt_from": data.left_out() if loaded is None or learnt else None,
        "trained_on": training.size(),
        "baseline_choices": {name: library.choices for name, library in libraries.items()},
        "outputs": output_figures(scores[MODEL], data, draws)
        if "p_heterogeneous" in scores.get(MODEL, {})
        else None,
        "predicted_models": None
        if predicted is None
        else predicted_figures(predicted, settings.bootstrap_samples, settings.seed),
        "unit": "nll, nll_folded, information_gain, entropy in nats per residue; "
        "wasserstein_rad in radians; the others are shares",
        "run": describe_run(loaded, truth_dir is not None),
    }
    write_json(out_dir / "metrics.json", metrics_of_run)
    if report:
        write_report(out_dir, None if loaded is None else loaded.path.parent, tables)
    return metrics_of_run


def score_method(
    method: Method,
    data: EvaluationSet,
    settings: EvaluationSettings,
    log: TextIO | None = None,
    processes: int = 1,
) -> dict[str, np.ndarray]:
    """All metrics of one method: (N,) float32, (M,) for the rows, (N,J,...) for the modes.

    Residues that the method does not cover stay nan. Progress goes to ``log``; several processes
    have parts of the residues each.
    """
    num, num_rows = data.num, len(data.observed.row_residue)
    of_residues = {c.name: np.full(num, np.nan, dtype=np.float32) for c in RESIDUE_METRICS}
    of_residues |= {
        "mode_weight": np.zeros((num, MODES_KEPT), dtype=np.float32),
        "mode_chi": np.zeros((num, MODES_KEPT, NUM_CHI_MAX), dtype=np.float32),
        "mode_match": np.zeros((num, MODES_KEPT), dtype=bool),
    }
    of_rows = {c.name: np.full(num_rows, np.nan, dtype=np.float32) for c in ROW_METRICS}

    shared = None
    if method.shared is not None:
        with torch.inference_mode():
            shared = describe(method.shared, settings.num_samples)

    def scored(part: np.ndarray) -> Scored:
        with torch.inference_mode():
            rows, density, index, outputs = method.chunk(part)
            keep = torch.zeros(num, dtype=torch.bool)
            keep[torch.from_numpy(rows)] = True
            observed, altlocs = data.observed.select(keep), keep[data.observed.row_residue]
            described = shared or describe(density, settings.num_samples)
            scores = score_density(described, observed, index)
            if outputs is not None:
                scores |= output_scores(outputs)
        return Scored(rows, altlocs.nonzero()[:, 0].numpy(), scores)

    with Progress(num, "residues", log or io.StringIO()) as progress:
        progress.update(0, method=method.name)
        for rows, altlocs, scores in forked(scored, method.parts, processes, _one_thread):
            for name, values in scores.items():
                if name in of_rows:
                    of_rows[name][altlocs] = values
                    continue
                out = of_residues.setdefault(name, np.full(num, np.nan, dtype=np.float32))
                at = (rows, slice(0, values.shape[1])) if values.ndim > 1 else rows
                out[at] = values
            progress.update(len(rows))
    return of_residues | of_rows


class Scored(NamedTuple):
    """Scores of some residues: rows (n,), altlocs (m,) their positions among all."""

    rows: np.ndarray
    altlocs: np.ndarray
    scores: dict[str, np.ndarray]


def _one_thread() -> None:
    torch.set_num_threads(1)


def overall_figures(by_group: pa.Table, calibration: pa.Table) -> dict[str, Any]:
    """The figures of all residues, nested: population, methods or differences, metric, interval."""
    overall = by_group.filter(pc.equal(by_group["group"], "overall")).to_pylist()
    figures: dict[str, Any] = {}
    for row in overall:
        place = figures.setdefault(row["population"], {})
        key = "methods" if row["reference"] is None else "differences"
        place = place.setdefault(key, {}).setdefault(row["method"], {})
        if row["reference"] is not None:
            place = place.setdefault(row["reference"], {})
        place[row["metric"]] = {
            name: row[name] for name in ("value", "low", "high", "num_residues", "num_entries")
        }
    for row in calibration.to_pylist():
        if row["nominal"] in (0.5, 0.8, 0.95):
            place = figures[row["population"]]["methods"][row["method"]]
            place[f"coverage_{round(100 * row['nominal'])}"] = {"value": row["coverage"]} | {
                name: row[name] for name in ("low", "high", "num_altlocs", "num_entries")
            }
    return figures


def describe_run(loaded: LoadedModel | None, is_simulated: bool) -> dict[str, Any]:
    """What the report says of the run; the model's settings come from its own file."""
    config = {} if loaded is None else loaded.config
    told = {name: config.get(name) for name in ("run", "dataset")} | {"is_simulated": is_simulated}
    if loaded is None:
        return told
    return told | {
        "model": config["model"],
        "num_parameters": sum(p.numel() for p in loaded.model.parameters()),
        "train": config.get("train", {}),
        "seed": config.get("seed"),
    }
