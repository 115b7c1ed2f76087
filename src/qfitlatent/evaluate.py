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

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path, write_json
from qfitlatent.base.progress import Progress
from qfitlatent.chemistry.residues import (
    CHI_DEFINED,
    NUM_CHI,
    NUM_CHI_MAX,
    PI_SYMMETRIC,
    RESIDUE_TYPES,
)
from qfitlatent.density.libraries import Library, fit_baselines
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.density.rows import Observations, Observed, altloc_spread
from qfitlatent.metrics import (
    RESIDUE_METRICS,
    ScoreSettings,
    bootstrap_auroc,
    bootstrap_means,
    bootstrap_weights,
    recall_precision,
    score_density,
)
from qfitlatent.tables.columns import KEYS
from qfitlatent.tables.keys import KeyCodes, positions
from qfitlatent.tables.parquet import read_table

MODEL = "model"


GENERATOR = "generator"


DEFAULT_SETTINGS: dict[str, Any] = {
    "split": "test",
    "model": None,
    "bootstrap_samples": 1000,
    "num_samples": 256,
    "mode_weight": 0.1,
    "mode_merge_degrees": 30.0,
    "match_degrees": 30.0,
    "distinct_degrees": 40.0,
    "seed": 0,
    "chunk_residues": 2048,
    "baselines": ["uniform", "nearest_rotamer", "type_library", "backbone_library"],
    "external": [],
    "report": True,
}


POPULATIONS = ("multiconformer", "single", "all")


NOMINAL = np.round(np.arange(0.0, 1.0001, 0.05), 2)
"""Nominal coverages of the calibration curve; 0.5, 0.8 and 0.95 are among them."""


THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


RESOLUTION_EDGES = (1.2, 1.5, 1.8, 2.2)


NEIGHBOUR_EDGES = (10, 15, 20, 25)


SPREAD_EDGES_DEGREES = (20, 40, 80)


MIXTURE_COLUMNS = {
    "entry": "entry id as in the tables",
    "chain": "label chain",
    "index": "0-based residue index in the chain",
    "component": "0, 1, ... within the residue",
    "weight": "weight of the component; normalised over the residue",
    **{f"mean{d}_rad": f"mean of chi{d} in radians, null where undefined" for d in range(1, 5)},
    **{f"kappa{d}": f"concentration of chi{d}, null where undefined" for d in range(1, 5)},
}
"""Columns of an external table of kind ``mixture``; the simulator's truth tables have them too."""


SAMPLE_COLUMNS = {
    "entry": "entry id as in the tables",
    "chain": "label chain",
    "index": "0-based residue index in the chain",
    "weight": "optional weight of the sample (1 where the column is absent)",
    **{f"chi{d}_rad": f"chi{d} in radians, null where undefined" for d in range(1, 5)},
}
"""Columns of an external table of kind ``samples``; a packer's single answer is one sample."""


@dataclass(frozen=True)
class EvaluationSet:
    """Residues with chi and observed altlocs of one part of the split, sorted by key.

    residue_row (N,) row in the residues table; columns holds the covariates of each residue;
    observations its altlocs. altloc (M,) labels.
    """

    observations: Observations
    residue_row: np.ndarray
    columns: pa.Table
    entries: list[str]
    altloc: pa.Array
    num_without_frame: int

    @property
    def num(self) -> int:
        return len(self.residue_row)

    def observed(self, rows: np.ndarray | None = None) -> Observed:
        """All residues, or those of ascending positions ``rows``, for the metrics."""
        o = self.observations
        if rows is not None:
            keep = np.zeros(self.num, dtype=bool)
            keep[rows] = True
            o = o.select(keep)
        return Observed(
            torch.from_numpy(o.chi.astype(np.float32)),
            torch.from_numpy(o.defined),
            torch.from_numpy(o.row_residue),
            torch.from_numpy(o.occupancy.astype(np.float32)),
            torch.from_numpy(CHI_DEFINED[o.token]),
            torch.from_numpy(PI_SYMMETRIC[o.token]),
        )


RESIDUE_COLUMNS = (
    *KEYS, "author_chain", "author_number", "insertion_code", "name", "token", "phi_rad",
    "psi_rad", "num_chi", "num_neighbours", "secondary",
)  # fmt: skip


CONFORMER_COLUMNS = (
    *KEYS, "altloc", "rank", "occupancy_normalised", *(f"chi{d}_rad" for d in range(1, 5)),
)  # fmt: skip


def read_evaluation_set(
    tables_dir: str | Path, split_path: str | Path, split: str
) -> EvaluationSet:
    """The residues of one part of the split. Raises QfitLatentError where there are none."""
    tables_dir = Path(tables_dir)
    residues = read_table(tables_dir / "residues.parquet", list(RESIDUE_COLUMNS))
    conformers = read_table(tables_dir / "conformers.parquet", list(CONFORMER_COLUMNS))
    frames = read_table(tables_dir / "frames.parquet", [*KEYS, "rotation"])
    part = read_table(split_path, ["entry", "chain", "split"])

    key = KeyCodes(residues)
    row_of_key = key.codes(residues)
    in_part = np.isin(
        key.chain_codes(residues), key.chain_codes(part.filter(pc.equal(part["split"], split)))
    )
    framed = np.zeros(len(residues), dtype=bool)
    with_frame = frames.filter(pc.is_valid(frames["rotation"])).select(list(KEYS))
    framed[positions(row_of_key, key.codes(with_frame))] = True

    owner = positions(row_of_key, key.codes(conformers))
    order = np.lexsort((conformers["rank"].to_numpy(), owner))
    has_conformer = np.bincount(owner, minlength=len(residues)) > 0
    usable = in_part & has_conformer & (residues["num_chi"].to_numpy() > 0)
    keep = usable & framed
    if not keep.any():
        raise QfitLatentError(
            f"No residue of the split {split!r} has chi angles in {tables_dir}: "
            "choose another `evaluate.split` or add entries."
        )
    number = np.cumsum(keep) - 1
    rows = order[keep[owner[order]]]
    chosen = conformers.take(rows)
    chi = np.stack(
        [chosen[f"chi{d}_rad"].to_numpy(zero_copy_only=False) for d in range(1, 5)], axis=1
    ).astype(np.float64)
    defined = np.isfinite(chi)
    columns = residues.filter(keep)
    names, entry = np.unique(
        columns["entry"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True
    )
    observations = Observations(
        token=columns["token"].to_numpy().astype(np.int64),
        phi_psi=np.stack(
            [columns[n].to_numpy(zero_copy_only=False) for n in ("phi_rad", "psi_rad")], axis=1
        ).astype(np.float64),
        entry=entry,
        row_residue=number[owner[rows]],
        chi=np.where(defined, chi, 0.0),
        defined=defined,
        occupancy=chosen["occupancy_normalised"].to_numpy().astype(np.float64),
    )
    return EvaluationSet(
        observations,
        np.flatnonzero(keep),
        columns,
        list(names),
        chosen["altloc"].combine_chunks(),
        int((usable & ~framed).sum()),
    )


Chunks = Iterator[tuple[np.ndarray, object, torch.Tensor | None]]
"""(ascending positions of residues, density, index of each residue's row in the density)."""


@dataclass(frozen=True)
class Method:
    """A name and a function that yields densities for all residues, some at a time."""

    name: str
    chunks: Callable[[], Chunks]


def library_method(library: Library, data: EvaluationSet, chunk: int) -> Method:
    """A baseline; one that ignores the backbone is drawn from once a residue type only."""
    o = data.observations

    def chunks() -> Chunks:
        shared = None
        if not library.backbone:
            types = np.arange(len(NUM_CHI))
            shared = library.density(types, np.full((len(types), 2), np.nan))
        for start in range(0, data.num, chunk):
            rows = np.arange(start, min(start + chunk, data.num))
            if shared is not None:
                yield rows, shared, torch.from_numpy(o.token[rows])
            else:
                yield rows, library.density(o.token[rows], o.phi_psi[rows]), None

    return Method(library.name, chunks)


def model_method(model, dataset, data: EvaluationSet) -> Method:
    """The trained model, one protein at a time; residues without observations are predicted too."""
    position = np.full(int(data.residue_row.max()) + 1, -1)
    position[data.residue_row] = np.arange(data.num)

    def chunks() -> Chunks:
        for i in range(len(dataset)):
            protein = dataset[i]
            row = protein.residue_row.numpy()
            at = np.where(row < len(position), position[np.minimum(row, len(position) - 1)], -1)
            local = np.flatnonzero(at >= 0)
            if not len(local):
                continue
            local = local[np.argsort(at[local])]
            density = model.predict(protein)
            yield at[local], density.select(torch.from_numpy(local)), None

    return Method(MODEL, chunks)


def table_method(name: str, table: pa.Table, data: EvaluationSet, chunk: int) -> Method:
    """Mixtures given as a table with ``MIXTURE_COLUMNS``; residues it lacks stay unscored."""
    key = KeyCodes(data.columns)
    codes = key.codes(table)
    table = table.filter(pa.array(codes >= 0))
    own = key.codes(data.columns)
    order = np.argsort(own)
    at = np.minimum(np.searchsorted(own[order], codes[codes >= 0]), len(own) - 1)
    known = own[order][at] == codes[codes >= 0]
    table, residue = table.filter(pa.array(known)), order[at[known]]
    if not len(residue):
        raise QfitLatentError(
            f"The external table {name!r} has none of the evaluated residues: "
            "its columns entry, chain and index must be those of the residues table."
        )
    rank = np.lexsort((np.arange(len(residue)), residue))
    residue, table = residue[rank], table.take(rank)
    covered, first, count = np.unique(residue, return_index=True, return_counts=True)
    slot = np.arange(len(residue)) - np.repeat(first, count)
    row = np.repeat(np.arange(len(covered)), count)
    num = int(count.max())
    weight = np.zeros((len(covered), num))
    weight[row, slot] = table["weight"].to_numpy()
    if not (weight >= 0).all() or not (weight.sum(1) > 0).all():
        raise QfitLatentError(
            f"The external table {name!r} has a residue whose weights are negative or all zero."
        )
    mean = np.zeros((len(covered), num, NUM_CHI_MAX))
    kappa = np.zeros_like(mean)
    token = data.observations.token[covered]
    for d in range(NUM_CHI_MAX):
        for array, column in ((mean, f"mean{d + 1}_rad"), (kappa, f"kappa{d + 1}")):
            values = table[column].to_numpy(zero_copy_only=False).astype(float)
            needed = CHI_DEFINED[token][row, d]
            if not np.isfinite(values[needed]).all():
                raise QfitLatentError(
                    f"The external table {name!r} has no {column} for a residue whose type "
                    "has this chi."
                )
            array[row, slot, d] = np.where(needed, values, 0.0)

    def chunks() -> Chunks:
        for start in range(0, len(covered), chunk):
            part = slice(start, start + chunk)
            w = weight[part] / weight[part].sum(1, keepdims=True)
            yield (
                covered[part],
                VonMisesMixture(
                    log_weight=torch.from_numpy(np.log(np.maximum(w, 1e-12))).float(),
                    mean=torch.from_numpy(mean[part]).float(),
                    kappa=torch.from_numpy(kappa[part]).float(),
                    chi_mask=torch.from_numpy(CHI_DEFINED[token[part]]),
                    symmetric=torch.from_numpy(PI_SYMMETRIC[token[part]]),
                ),
                None,
            )

    return Method(name, chunks)


def external_method(setting: dict[str, Any], data: EvaluationSet, chunk: int) -> Method:
    """A user's table (``evaluate.external``): mixtures, or samples widened to von Mises kernels."""
    name, path = setting["name"], Path(setting["path"])
    if not path.exists():
        raise QfitLatentError(f"No external table at {path}: correct `evaluate.external`.")
    table = pq.read_table(path)
    kind = setting.get("kind", "mixture")
    wanted = MIXTURE_COLUMNS if kind == "mixture" else SAMPLE_COLUMNS
    missing = [
        c for c in wanted if c not in table.column_names and c not in ("weight", "component")
    ]
    if missing or (kind == "mixture" and "weight" not in table.column_names):
        raise QfitLatentError(
            f"The external table {path} of kind {kind} has no column "
            f"{(missing or ['weight'])[0]!r}: it needs {', '.join(wanted)}."
        )
    if kind == "samples":
        sigma = math.radians(float(setting.get("smoothing_degrees", 15.0)))
        columns = {k: table[k] for k in KEYS}
        ones = pa.array(np.ones(len(table)))
        columns["weight"] = table["weight"] if "weight" in table.column_names else ones
        for d in range(1, 5):
            chi = table[f"chi{d}_rad"]
            columns[f"mean{d}_rad"] = chi
            columns[f"kappa{d}"] = pc.if_else(pc.is_valid(chi), 1.0 / sigma**2, None)
        table = pa.table(columns)
    return table_method(name, table, data, chunk)


def read_truth_table(truth_dir: str | Path, entries: list[str]) -> pa.Table:
    """The simulator's truth of these entries, wherever below truth_dir their tables lie."""
    found = {path.stem: path for path in sorted(Path(truth_dir).rglob("*.parquet"))}
    missing = [entry for entry in entries if entry not in found]
    if missing:
        raise QfitLatentError(
            f"No truth table of entry {missing[0]} below {truth_dir}: were all entries simulated?"
        )
    return pa.concat_tables([pq.read_table(found[entry]) for entry in entries])


ROW_METRICS = ("hdr", "predicted_occupancy", "match_weight")


MODE_ARRAYS = ("mode_weight", "mode_chi", "mode_match")


MODES_WIDTH = 16


def score_method(
    method: Method,
    data: EvaluationSet,
    settings: ScoreSettings,
    seed: int,
    log: TextIO | None = None,
) -> dict[str, np.ndarray]:
    """All metrics of one method: (N,) float32, (M,) for the rows, (N,J,...) for the modes.

    Residues that the method does not cover stay nan. Draws depend on the seed and on the first
    residue of the chunk only. Progress goes to ``log``.
    """
    num, num_rows = data.num, len(data.observations.row_residue)
    out = {name: np.full(num, np.nan, dtype=np.float32) for name in RESIDUE_METRICS}
    out |= {name: np.full(num_rows, np.nan, dtype=np.float32) for name in ROW_METRICS}
    out["mode_weight"] = np.zeros((num, MODES_WIDTH), dtype=np.float32)
    out["mode_chi"] = np.zeros((num, MODES_WIDTH, NUM_CHI_MAX), dtype=np.float32)
    out["mode_match"] = np.zeros((num, MODES_WIDTH), dtype=bool)
    start = np.searchsorted(data.observations.row_residue, np.arange(num + 1))
    with torch.inference_mode(), Progress(num, "residues", log or io.StringIO()) as progress:
        progress.update(0, method=method.name)
        for rows, density, index in method.chunks():
            generator = torch.Generator().manual_seed(seed * 1_000_003 + int(rows[0]))
            scores = score_density(density, data.observed(rows), settings, generator, index)
            altlocs = (
                np.concatenate([np.arange(start[r], start[r + 1]) for r in rows])
                if (len(rows) != rows[-1] - rows[0] + 1)
                else np.arange(start[rows[0]], start[rows[-1] + 1])
            )
            for name in RESIDUE_METRICS:
                out[name][rows] = scores[name]
            for name in ROW_METRICS:
                out[name][altlocs] = scores[name]
            for name in MODE_ARRAYS:
                width = scores[name].shape[1]
                out[name][rows, :width] = scores[name]
            progress.update(len(rows))
    return out


@dataclass(frozen=True)
class Group:
    """A way to divide the residues: level (N,) number into ``levels``."""

    name: str
    levels: list[str]
    level: np.ndarray


def residue_groups(data: EvaluationSet, resolution: np.ndarray, spread: np.ndarray) -> list[Group]:
    """The divisions of the figures; resolution (E,) angstrom, spread (N,) radians."""
    o, columns = data.observations, data.columns
    conformers = np.minimum(o.num_conformers, 4)
    of_entry = resolution[o.entry]
    unknown = len(RESOLUTION_EDGES) + 1
    strata = np.where(np.isfinite(of_entry), np.digitize(of_entry, RESOLUTION_EDGES), unknown)
    secondary = columns["secondary"].to_numpy(zero_copy_only=False).astype(str)
    shapes, shape = np.unique(secondary, return_inverse=True)
    neighbours = np.digitize(columns["num_neighbours"].to_numpy(), NEIGHBOUR_EDGES)
    apart = np.where(
        o.num_conformers > 1, np.digitize(np.degrees(spread), SPREAD_EDGES_DEGREES) + 1, 0
    )
    return [
        Group("overall", ["all"], np.zeros(data.num, dtype=np.int64)),
        Group("type", list(RESIDUE_TYPES), o.token),
        Group("num_chi", ["1", "2", "3", "4"], NUM_CHI[o.token].astype(np.int64) - 1),
        Group("resolution_angstrom", [*_ranges(RESOLUTION_EDGES), "unknown"], strata),
        Group("num_neighbours", _ranges(NEIGHBOUR_EDGES), neighbours),
        Group("num_conformers", ["1", "2", "3", "4 or more"], conformers - 1),
        Group("altloc_distance_degrees", ["one", *_ranges(SPREAD_EDGES_DEGREES)], apart),
        Group("secondary", list(shapes), shape),
        Group("entry", data.entries, o.entry),
    ]


def _ranges(edges: tuple[float, ...]) -> list[str]:
    middle = [f"{low} to {high}" for low, high in pairwise(edges)]
    return [f"below {edges[0]}", *middle, f"{edges[-1]} or more"]


BY_GROUP_SCHEMA = pa.schema(
    [
        pa.field("population", pa.string(), False),
        pa.field("method", pa.string(), False),
        pa.field(
            "reference",
            pa.string(),
            True,
            {b"description": b"null: the figure itself; else method minus reference, paired"},
        ),
        pa.field("metric", pa.string(), False),
        pa.field("group", pa.string(), False),
        pa.field("level", pa.string(), False),
        pa.field("value", pa.float64()),
        pa.field("low", pa.float64(), True, {b"description": b"2.5 % of the resampled entries"}),
        pa.field("high", pa.float64(), True, {b"description": b"97.5 % of the resampled entries"}),
        pa.field("num_residues", pa.int64(), False),
        pa.field("num_entries", pa.int64(), False),
    ],
    {b"qfitlatent_schema": b"1"},
)


def population_masks(data: EvaluationSet) -> dict[str, np.ndarray]:
    """(N,) bool for each of ``POPULATIONS``."""
    several = data.observations.num_conformers > 1
    return {"multiconformer": several, "single": ~several, "all": np.ones(data.num, dtype=bool)}


def group_figures(
    scores: dict[str, dict[str, np.ndarray]],
    references: list[str],
    data: EvaluationSet,
    groups: list[Group],
    distinct: np.ndarray,
    settings: dict[str, Any],
) -> pa.Table:
    """Every metric of every method in every group and population, with intervals over entries.

    Besides the metrics: ``information_gain`` (nll of the type library minus the method's) and the
    paired differences of all metrics to each reference.
    """
    o = data.observations
    names: list[tuple[str, str | None, str]] = []
    values = []
    for method, table in scores.items():
        for metric, column in table.items():
            if column.shape != (data.num,):
                continue
            names.append((method, None, metric))
            values.append(column)
            for reference in references:
                if reference != method and metric in scores[reference] and method not in references:
                    names.append((method, reference, metric))
                    values.append(column - scores[reference][metric])
        if "type_library" in scores and method != "type_library":
            names.append((method, None, "information_gain"))
            values.append(scores["type_library"]["nll"] - table["nll"])
    matrix = np.stack(values, axis=1).astype(np.float64)
    draws = bootstrap_weights(len(data.entries), settings["bootstrap_samples"], settings["seed"])
    out: dict[str, list] = {name: [] for name in BY_GROUP_SCHEMA.names}
    for population, mask in population_masks(data).items():
        if not mask.any():
            continue
        for group in groups:
            weights = draws if group.name != "entry" else draws[:1]
            figures = bootstrap_means(
                matrix[mask], o.entry[mask], weights, group.level[mask], len(group.levels)
            )
            level, figure = np.nonzero(figures.count)
            for column, index in (("method", 0), ("reference", 1), ("metric", 2)):
                out[column] += [names[f][index] for f in figure]
            out["population"] += [population] * len(level)
            out["group"] += [group.name] * len(level)
            out["level"] += [group.levels[i] for i in level]
            for column, array in (
                ("value", figures.value),
                ("low", figures.low),
                ("high", figures.high),
                ("num_residues", figures.count),
                ("num_entries", figures.num_entries),
            ):
                out[column] += array[level, figure].tolist()
        _add_auroc(out, scores, population, mask, data, groups, distinct, draws)
    for column in ("value", "low", "high"):
        out[column] = [None if v != v else v for v in out[column]]
    return pa.table(out, schema=BY_GROUP_SCHEMA)


def _add_auroc(
    out: dict[str, list],
    scores: dict[str, dict[str, np.ndarray]],
    population: str,
    mask: np.ndarray,
    data: EvaluationSet,
    groups: list[Group],
    distinct: np.ndarray,
    draws: np.ndarray,
) -> None:
    """Finding heterogeneity, by predicted entropy and by how often two draws differ."""
    for method, table in scores.items():
        for metric, column in (("auroc_entropy", "entropy"), ("auroc_two_draws", "heterogeneity")):
            if column not in table:
                continue
            for group in groups:
                if group.name not in ("overall", "type", "num_chi"):
                    continue
                for i, level in enumerate(group.levels):
                    keep = mask & (group.level == i) & np.isfinite(table[column])
                    label = distinct[keep]
                    if not label.any() or label.all():
                        continue
                    entry = data.observations.entry[keep]
                    value, low, high = bootstrap_auroc(table[column][keep], label, entry, draws)
                    out["population"].append(population)
                    out["method"].append(method)
                    out["reference"].append(None)
                    out["metric"].append(metric)
                    out["group"].append(group.name)
                    out["level"].append(level)
                    out["value"].append(value)
                    out["low"].append(low)
                    out["high"].append(high)
                    out["num_residues"].append(int(keep.sum()))
                    out["num_entries"].append(len(np.unique(entry)))


def calibration_table(
    scores: dict[str, dict[str, np.ndarray]], data: EvaluationSet, settings: dict[str, Any]
) -> pa.Table:
    """Occupancy-weighted share of the altlocs inside each highest-density region."""
    o = data.observations
    draws = bootstrap_weights(len(data.entries), settings["bootstrap_samples"], settings["seed"])
    parts = []
    for population, mask in population_masks(data).items():
        rows = mask[o.row_residue]
        if not rows.any():
            continue
        for method, table in scores.items():
            hdr = table["hdr"][rows]
            inside = np.where(np.isfinite(hdr)[:, None], hdr[:, None] <= NOMINAL, np.nan)
            figures = bootstrap_means(
                inside, o.entry[o.row_residue[rows]], draws, row_weight=o.occupancy[rows]
            )
            size = len(NOMINAL)
            parts.append(
                pa.table(
                    {
                        "population": [population] * size,
                        "method": [method] * size,
                        "nominal": NOMINAL,
                        "coverage": figures.value[0],
                        "low": figures.low[0],
                        "high": figures.high[0],
                        "num_altlocs": figures.count[0],
                        "num_entries": figures.num_entries[0],
                    }
                )
            )
    return pa.concat_tables(parts)


def threshold_table(scores: dict[str, dict[str, np.ndarray]], data: EvaluationSet) -> pa.Table:
    """Recall and precision of the altlocs as the smallest mode weight that counts is varied."""
    observed = data.observed()
    out: dict[str, list] = {
        name: [] for name in ("population", "method", "mode_weight", "recall", "precision")
    }
    for method, table in scores.items():
        weight, match = (torch.from_numpy(table[n]) for n in ("mode_weight", "mode_match"))
        covered = np.isfinite(table["nll"])
        near = torch.from_numpy(np.nan_to_num(table["match_weight"]))
        for threshold in THRESHOLDS:
            recall, precision = recall_precision(weight, match, near, observed, threshold)
            for population, mask in population_masks(data).items():
                keep = torch.from_numpy(mask & covered)
                if not keep.any():
                    continue
                out["population"].append(population)
                out["method"].append(method)
                out["mode_weight"].append(threshold)
                out["recall"].append(float(recall[keep].mean()))
                # At a threshold that no mode of any residue reaches there is no precision.
                known = precision[keep & precision.isfinite()]
                out["precision"].append(float(known.mean()) if len(known) else None)
    return pa.table(out)


def evaluate_run(
    source: str | Path | None,
    tables_dir: str | Path,
    split_path: str | Path,
    out_dir: str | Path,
    settings: dict[str, Any],
    truth_dir: str | Path | None = None,
    log: TextIO | None = None,
) -> dict[str, Any]:
    """Score a run and write everything below out_dir; returns the metrics. Progress goes to log.

    source is a run folder or model file; None scores the baselines alone.

    settings is the config section ``evaluate``; absent keys take ``DEFAULT_SETTINGS``. truth_dir is
    the simulator's folder: with it, the generator is scored too and the gap to its entropy given.
    """
    settings = DEFAULT_SETTINGS | settings
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    chunk, seed = settings["chunk_residues"], settings["seed"]
    numbers = ScoreSettings(
        **{k: settings[k] for k in ScoreSettings.__dataclass_fields__ if k in settings}
    )
    data = read_evaluation_set(tables_dir, split_path, settings["split"])
    training = read_evaluation_set(tables_dir, split_path, "train")
    libraries = fit_baselines(training.observations, tuple(settings["baselines"]), seed)

    loaded = None
    methods = [library_method(library, data, chunk) for library in libraries.values()]
    methods += [external_method(setting, data, chunk) for setting in settings["external"]]
    if truth_dir is not None:
        truth = read_truth_table(truth_dir, data.entries)
        methods.append(table_method(GENERATOR, truth, data, chunk))
    if source is not None:
        from qfitlatent.model.checkpoint import load_model
        from qfitlatent.model.dataset import Dataset

        loaded = load_model(source)
        dataset = Dataset.load(tables_dir, split_path, splits=(settings["split"],))
        methods.insert(0, model_method(loaded.model, dataset, data))
    _refuse_repeated([m.name for m in methods])

    scores = {m.name: score_method(m, data, numbers, seed, log) for m in methods}
    if GENERATOR in scores:
        entropy = scores[GENERATOR]["entropy"]
        for table in scores.values():
            table["gap_to_entropy"] = table["nll"] - entropy

    spread = altloc_spread(data.observed()).numpy()
    distinct = spread > math.radians(settings["distinct_degrees"])
    entries = read_table(Path(tables_dir) / "entries.parquet", ["entry", "resolution_angstrom"])
    groups = residue_groups(data, _resolution(entries, data.entries), spread)
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
    if settings["report"]:
        from qfitlatent.report import write_report

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


def _refuse_repeated(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise QfitLatentError(
                f"Two methods are called {name!r}: rename the one in `evaluate.external`."
            )


def _resolution(entries: pa.Table, names: list[str]) -> np.ndarray:
    """(E,) angstrom of the named entries, nan where unknown."""
    at = pc.index_in(pa.array(names), entries["entry"].combine_chunks()).to_numpy(
        zero_copy_only=False
    )
    values = entries["resolution_angstrom"].to_numpy(zero_copy_only=False).astype(float)
    return values[at.astype(int)]


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


def summary(
    by_group: pa.Table,
    calibration: pa.Table,
    data: EvaluationSet,
    training: EvaluationSet,
    libraries: dict[str, Library],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """The overall figures, nested: population, methods or differences, metric, interval."""
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
            place[f"coverage_{round(100 * row['nominal'])}"] = {
                "value": row["coverage"], "low": row["low"], "high": row["high"],
                "num_altlocs": row["num_altlocs"], "num_entries": row["num_entries"],
            }  # fmt: skip
    return {
        "settings": settings,
        "populations": figures,
        "evaluated": _size(data),
        "trained_on": _size(training),
        "baseline_choices": {name: library.choices for name, library in libraries.items()},
        "unit": "nll, nll_folded, information_gain, entropy in nats per residue; "
        "wasserstein_rad in radians; the others are shares",
    }


def _size(data: EvaluationSet) -> dict[str, int]:
    several = data.observations.num_conformers > 1
    return {
        "num_entries": len(data.entries),
        "num_residues": data.num,
        "num_multiconformer": int(several.sum()),
        "num_single": int((~several).sum()),
        "num_altlocs": len(data.observations.row_residue),
        "num_without_frame": data.num_without_frame,
    }
