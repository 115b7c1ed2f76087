"""The tables of an evaluation with a row for each residue, altloc or mode, from the scores.

Shapes: N residues, M observed rows, J modes.
"""

import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch

from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI
from qfitlatent.evaluation.columns import ALTLOCS, CHI_MAPS, PREDICTIONS, SCORES
from qfitlatent.evaluation.figures import Scores
from qfitlatent.evaluation.residues import EvaluationSet
from qfitlatent.model.network import DensityNetwork
from qfitlatent.tables.columns import chi_columns
from qfitlatent.tables.parquet import conform

MAP_NODES = 72
"""Nodes of a chi1/chi2 map along one angle: 5 degrees."""

NUM_MAPS = 6


def scores_table(
    scores: Scores, data: EvaluationSet, distinct: np.ndarray, spread: np.ndarray
) -> pa.Table:
    """One row a residue and method; distinct (N,) bool, spread (N,) radians between altlocs."""
    columns = {name: data.columns[name] for name in data.columns.column_names}
    columns |= {
        "num_conformers": data.observed.num_conformers.numpy(),
        "num_distinct_conformers": data.observed.num_distinct.numpy(),
        "altloc_distance_rad": spread,
        "distinct_rotamers": distinct,
        "population": np.where(data.several, "multiconformer", "single"),
    }
    return _of_methods(pa.table(columns), scores, SCORES)


def altlocs_table(scores: Scores, data: EvaluationSet) -> pa.Table:
    """One row an observed altloc and method: what was seen, and what the method gave it."""
    o = data.observed
    columns = _residues(data, o.row_residue.numpy())
    columns |= {"altloc": data.altloc, "occupancy": o.occupancy.numpy()}
    columns |= chi_columns("chi", o.chi.numpy(), "_rad", o.defined.numpy())
    return _of_methods(pa.table(columns), scores, ALTLOCS)


def predictions_table(scores: Mapping[str, np.ndarray], data: EvaluationSet) -> pa.Table:
    """The model's modes, heaviest first: one row a residue and mode."""
    at = residue, mode = np.nonzero(scores["mode_weight"] > 0)
    mask = CHI_DEFINED[data.observed.token.numpy()[residue]]
    columns = _residues(data, residue) | {"mode": mode, "weight": scores["mode_weight"][at]}
    columns |= chi_columns("chi", scores["mode_chi"][at], "_rad", mask)
    columns["is_near_altloc"] = scores["mode_match"][at]
    return conform(pa.table(columns), PREDICTIONS, "predictions")


def representative_residues(
    nll: np.ndarray, data: EvaluationSet, distinct: np.ndarray
) -> np.ndarray:
    """Positions of residues with two chi and distinct rotamers, evenly spaced in nll."""
    two = NUM_CHI[data.observed.token.numpy()] == 2
    candidates = np.flatnonzero(distinct & two)
    if not len(candidates):
        candidates = np.flatnonzero(two)
    if not len(candidates):
        return candidates
    candidates = candidates[np.argsort(nll[candidates], kind="stable")]
    quantiles = np.linspace(0.05, 0.95, NUM_MAPS) * (len(candidates) - 1)
    return np.unique(candidates[np.round(quantiles).astype(int)])


def chi_maps(model: DensityNetwork, data: EvaluationSet, chosen: np.ndarray) -> pa.Table:
    """Predicted density per square radian of residues with two chi, on a grid."""
    angle = torch.arange(MAP_NODES) * (2 * math.pi / MAP_NODES) - math.pi
    grid = torch.cartesian_prod(angle, angle)
    chi = torch.cat([grid, torch.zeros_like(grid)], dim=1)
    defined = torch.tensor([True, True, False, False]).expand(len(chi), -1)
    density = []
    with torch.inference_mode():
        for position in chosen.tolist():
            entry = data.entries[int(data.observed.entry[position])]
            protein = data.dataset[data.dataset.entries.index(entry)]
            local = torch.searchsorted(protein.residue_row, data.residue_row[position])
            rows = local.expand(len(chi))
            density.append(model.predict(protein).log_prob(chi, defined, rows).exp())
    columns = _residues(data, np.repeat(chosen, len(chi))) | {
        "chi1_rad": np.tile(grid[:, 0].numpy(), len(chosen)),
        "chi2_rad": np.tile(grid[:, 1].numpy(), len(chosen)),
        "density": torch.cat([*density, torch.empty(0)]).numpy(),
    }
    return conform(pa.table(columns), CHI_MAPS, "chi_maps")


def _residues(data: EvaluationSet, rows: np.ndarray) -> dict[str, pa.ChunkedArray]:
    """The columns that say which residue, of these positions."""
    taken = data.columns.select(["entry", "chain", "index", "name"]).take(rows)
    return dict(zip(taken.column_names, taken.columns, strict=True))


def _of_methods(columns: pa.Table, scores: Scores, schema: pa.Schema) -> pa.Table:
    """The rows once for each method, beside them its metrics, which are the rest of the schema.

    A metric that is nan, or that the method does not have, is null.
    """
    metrics = [name for name in schema.names if name not in {*columns.column_names, "method"}]
    parts = []
    for method, table in scores.items():
        part = columns.append_column("method", pa.repeat(method, len(columns)))
        for name in metrics:
            values = table.get(name, np.full(len(columns), np.nan, dtype=np.float32))
            part = part.append_column(name, pa.array(values, from_pandas=True))
        parts.append(conform(part, schema, "scores"))
    return pa.concat_tables(parts)
