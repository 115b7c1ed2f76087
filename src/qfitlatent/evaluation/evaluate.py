"""Evaluation of a run on one part of the split, beside every baseline (SPEC 8).

Reads the tables and the split, fits the baselines on the training part, scores the model and the
baselines by the same code on the same residues, and writes

- ``predictions.parquet``: the model's modes, one row a residue and mode;
- ``scores.parquet``: one row a residue and method;
- ``altlocs.parquet``: one row an observed altloc and method;
- ``by_group.parquet``: every figure of every group with its interval, and paired differences;
- ``calibration.parquet``: coverage of the highest-density regions;
- ``curves.parquet``: recall and precision over the weight threshold;
- ``chi_maps.parquet``: predicted chi1/chi2 density of residues from best to worst;
- ``metrics.json``: the overall figures;
- figures, ``report.html`` and the cards, through ``report.write_report``.

Populations are never mixed silently: ``multiconformer`` (two or more observed altlocs: the set R of
SPEC 7), ``single`` (one conformer) and ``all`` (both). Only residues with a backbone frame and at
least one chi observed are scored.
"""

import math
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from qfitlatent.base.files import atomic_path, write_json
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI, NUM_CHI_MAX
from qfitlatent.density.libraries import fit_baselines
from qfitlatent.density.rows import altloc_spread
from qfitlatent.evaluation.figures import (
    ROW_METRICS,
    calibration_table,
    group_figures,
    score_method,
    summary,
    threshold_table,
)
from qfitlatent.evaluation.methods import (
    GENERATOR,
    MODEL,
    external_method,
    library_method,
    model_method,
    refuse_repeated,
    table_method,
)
from qfitlatent.evaluation.residues import (
    EvaluationSet,
    read_evaluation_set,
    residue_groups,
    resolution_of,
)
from qfitlatent.evaluation.settings import CHUNK_RESIDUES, DISTINCT_DEGREES, EvaluationSettings
from qfitlatent.simulate.truth import read_truth
from qfitlatent.tables.columns import KEYS
from qfitlatent.tables.parquet import read_table


def evaluate_run(
    source: str | Path | None,
    tables_dir: str | Path,
    split_path: str | Path,
    out_dir: str | Path,
    settings: EvaluationSettings,
    truth_dir: str | Path | None = None,
    log: TextIO | None = None,
    report: bool = True,
) -> dict[str, Any]:
    """Score a run and write everything below out_dir; returns the metrics. Progress goes to log.

    source is a run folder or model file; None scores the baselines alone.

    truth_dir is the simulator's folder: with it, the generator is scored too and the gap to its
    entropy given. Without ``report`` no page, figure and card is made.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    data = read_evaluation_set(tables_dir, split_path, settings.split)
    training = read_evaluation_set(tables_dir, split_path, "train")
    libraries = fit_baselines(training.observations, settings.baselines, settings.seed)

    loaded = None
    methods = [library_method(library, data, CHUNK_RESIDUES) for library in libraries.values()]
    methods += [external_method(setting, data, CHUNK_RESIDUES) for setting in settings.external]
    if truth_dir is not None:
        truth = read_truth(truth_dir, data.entries)
        methods.append(table_method(GENERATOR, truth, data, CHUNK_RESIDUES))
    if source is not None:
        from qfitlatent.model.checkpoint import load_model
        from qfitlatent.model.dataset import Dataset

        loaded = load_model(source)
        dataset = Dataset.load(tables_dir, split_path, splits=(settings.split,))
        methods.insert(0, model_method(loaded.model, dataset, data))
    refuse_repeated([m.name for m in methods])

    scores = {m.name: score_method(m, data, settings, log) for m in methods}
    if GENERATOR in scores:
        entropy = scores[GENERATOR]["entropy"]
        for table in scores.values():
            table["gap_to_entropy"] = table["nll"] - entropy

    spread = altloc_spread(data.observed()).numpy()
    distinct = spread > math.radians(DISTINCT_DEGREES)
    entries = read_table(Path(tables_dir) / "entries.parquet", ["entry", "resolution_angstrom"])
    groups = residue_groups(data, resolution_of(entries, data.entries), spread)
    references = [*libraries] + [GENERATOR] * (GENERATOR in scores)
    by_group = group_figures(scores, references, data, groups, distinct, settings)
    calibration = calibration_table(scores, data, settings)

    _write(by_group, out_dir / "by_group.parquet")
    _write(calibration, out_dir / "calibration.parquet")
    _write(threshold_table(scores, data), out_dir / "curves.parquet")
    _write(scores_table(scores, data, distinct, spread), out_dir / "scores.parquet")
    _write(altlocs_table(scores, data), out_dir / "altlocs.parquet")
    if MODEL in scores:
        _write(predictions_table(scores[MODEL], data), out_dir / "predictions.parquet")
        chosen = representative_residues(scores[MODEL]["nll"], data, distinct)
        _write(chi_maps(loaded.model, dataset, data, chosen), out_dir / "chi_maps.parquet")
    metrics = summary(by_group, calibration, data, training, libraries, settings)
    metrics["run"] = describe_run(loaded, truth_dir is not None)
    write_json(out_dir / "metrics.json", metrics)
    if report:
        from qfitlatent.evaluation.report import write_report

        write_report(out_dir, None if loaded is None else loaded.path.parent)
    return metrics


def describe_run(loaded, is_simulated: bool) -> dict[str, Any]:
    """What the report says of the run; the model's settings come from its own file."""
    if loaded is None:
        return {"is_simulated": is_simulated}
    config = loaded.config
    return {
        "is_simulated": is_simulated,
        "run": config.get("run"),
        "dataset": config.get("dataset"),
        "model": config["model"],
        "num_parameters": sum(p.numel() for p in loaded.model.parameters()),
        "train": config.get("train", {}),
        "seed": config.get("seed"),
    }


MAP_NODES = 72
"""Nodes of a chi1/chi2 map along one angle: 5 degrees."""


NUM_MAPS = 6


def representative_residues(
    nll: np.ndarray, data: EvaluationSet, distinct: np.ndarray
) -> np.ndarray:
    """Positions of residues with two chi and distinct rotamers, evenly spaced in nll."""
    candidates = np.flatnonzero(distinct & (NUM_CHI[data.observations.token] == 2))
    if not len(candidates):
        candidates = np.flatnonzero(NUM_CHI[data.observations.token] == 2)
    candidates = candidates[np.argsort(nll[candidates], kind="stable")]
    quantiles = np.linspace(0.05, 0.95, NUM_MAPS) * max(0, len(candidates) - 1)
    return np.unique(candidates[np.round(quantiles).astype(int)]) if len(candidates) else candidates


def chi_maps(model, dataset, data: EvaluationSet, chosen: np.ndarray) -> pa.Table:
    """Predicted density per square radian of residues with two chi, on a grid."""
    angle = torch.arange(MAP_NODES) * (2 * math.pi / MAP_NODES) - math.pi
    grid = torch.cartesian_prod(angle, angle)
    chi = torch.cat([grid, torch.zeros_like(grid)], dim=1)
    defined = torch.tensor([True, True, False, False]).expand(len(chi), -1)
    parts = []
    entries = set(data.columns["entry"].take(chosen).to_pylist())
    rows = set(data.residue_row[chosen].tolist())
    with torch.inference_mode():
        for i in range(len(dataset)):
            protein = dataset[i]
            if protein.entry not in entries:
                continue
            density = model.predict(protein)
            for local, row in enumerate(protein.residue_row.tolist()):
                if row not in rows:
                    continue
                log_p = density.log_prob(chi, defined, torch.full((len(chi),), local))
                position = int(np.searchsorted(data.residue_row, row))
                keys = data.columns.select([*KEYS, "name"]).slice(position, 1)
                table = keys.take(np.zeros(len(chi), dtype=np.int64))
                table = table.append_column("chi1_rad", pa.array(grid[:, 0].numpy()))
                table = table.append_column("chi2_rad", pa.array(grid[:, 1].numpy()))
                parts.append(table.append_column("density", pa.array(log_p.exp().numpy())))
    if parts:
        return pa.concat_tables(parts)
    empty = data.columns.select([*KEYS, "name"]).slice(0, 0)
    for name in ("chi1_rad", "chi2_rad", "density"):
        empty = empty.append_column(name, pa.array([], pa.float32()))
    return empty


def _write(table: pa.Table, path: Path) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _repeat(columns: pa.Table, times: int) -> dict[str, pa.ChunkedArray]:
    repeated = pa.concat_tables([columns] * times)
    return {name: repeated[name] for name in columns.column_names}


def scores_table(
    scores: dict[str, dict[str, np.ndarray]],
    data: EvaluationSet,
    distinct: np.ndarray,
    spread: np.ndarray,
) -> pa.Table:
    """One row a residue and method; nan becomes null."""
    o = data.observations
    keys = data.columns.select(
        [*KEYS, "author_chain", "author_number", "insertion_code", "name", "secondary"]
    )
    keys = keys.append_column("num_neighbours", data.columns["num_neighbours"])
    keys = keys.append_column("num_conformers", pa.array(o.num_conformers.astype(np.int8)))
    keys = keys.append_column("altloc_distance_rad", pa.array(spread.astype(np.float32)))
    keys = keys.append_column("distinct_rotamers", pa.array(distinct))
    names = np.where(o.num_conformers > 1, "multiconformer", "single")
    keys = keys.append_column("population", pa.array(names))
    table = pa.table(_repeat(keys, len(scores)))
    method = np.repeat(list(scores), data.num)
    table = table.append_column("method", pa.array(method))
    metrics = [n for n, v in next(iter(scores.values())).items() if v.shape == (data.num,)]
    for name in metrics:
        if name in ROW_METRICS:
            continue
        column = np.concatenate([s[name] for s in scores.values()])
        table = table.append_column(name, pa.array(column, from_pandas=True))
    return table


def altlocs_table(scores: dict[str, dict[str, np.ndarray]], data: EvaluationSet) -> pa.Table:
    """One row an observed altloc and method: what was seen, and what the method gave it."""
    o = data.observations
    keys = data.columns.select([*KEYS, "name"]).take(o.row_residue)
    keys = keys.append_column("altloc", data.altloc)
    keys = keys.append_column("occupancy", pa.array(o.occupancy.astype(np.float32)))
    for d in range(NUM_CHI_MAX):
        chi = np.where(o.defined[:, d], o.chi[:, d], np.nan).astype(np.float32)
        keys = keys.append_column(f"chi{d + 1}_rad", pa.array(chi, from_pandas=True))
    table = pa.table(_repeat(keys, len(scores)))
    table = table.append_column("method", pa.array(np.repeat(list(scores), len(o.row_residue))))
    for name in ROW_METRICS:
        column = np.concatenate([s[name] for s in scores.values()])
        table = table.append_column(name, pa.array(column, from_pandas=True))
    return table


def predictions_table(scores: dict[str, np.ndarray], data: EvaluationSet) -> pa.Table:
    """The model's modes, heaviest first: one row a residue and mode."""
    residue, mode = np.nonzero(scores["mode_weight"] > 0)
    keys = data.columns.select([*KEYS, "name"]).take(residue)
    keys = keys.append_column("mode", pa.array(mode.astype(np.int8)))
    keys = keys.append_column("weight", pa.array(scores["mode_weight"][residue, mode]))
    mask = CHI_DEFINED[data.observations.token[residue]]
    chi = scores["mode_chi"][residue, mode]
    for d in range(NUM_CHI_MAX):
        column = np.where(mask[:, d], chi[:, d], np.nan).astype(np.float32)
        keys = keys.append_column(f"chi{d + 1}_rad", pa.array(column, from_pandas=True))
    return keys.append_column("is_near_altloc", pa.array(scores["mode_match"][residue, mode]))
