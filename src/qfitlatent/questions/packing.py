"""A folder of native structures, scored in the way papers on side-chain packing do.

A residue counts where chi1 of its altloc of highest occupancy was observed; so does each of its
later chi that was, pi-symmetric ones folded. Core residues have at least ``CORE_NEIGHBOURS`` others
with CB within 10 angstrom, surface residues at most ``SURFACE_NEIGHBOURS``. Chains that the model
was trained on are left out, for whatever is scored beside it, too.

Shapes: N residues of a target that count, D=4 chi.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import pyarrow as pa
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import find_in_folder
from qfitlatent.chemistry.residues import CHI_DEFINED
from qfitlatent.joint.model import joint_model
from qfitlatent.joint.quality import chi_apart
from qfitlatent.model.batch import Protein
from qfitlatent.model.checkpoint import LoadedModel
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.prediction.judge import known_of
from qfitlatent.prediction.judged import Known, subject_of
from qfitlatent.prediction.predict import predicted_arrays
from qfitlatent.prediction.records import (
    Input,
    Predicted,
    Unusable,
    Written,
    find_structures,
    read_input,
)
from qfitlatent.prediction.runner import Runner
from qfitlatent.prediction.settings import PredictionSettings
from qfitlatent.questions.columns import ANGLES, PACKING, SHARES
from qfitlatent.tables.parquet import conform, write_csv

CORE_NEIGHBOURS, SURFACE_NEIGHBOURS = 20, 15
REGIONS = {
    "all": (0, np.inf),
    "core": (CORE_NEIGHBOURS, np.inf),
    "surface": (0, SURFACE_NEIGHBOURS),
}
"""Fewest and most neighbours of the residues of each part."""

POOLED, MEAN = "pooled", "mean of targets"
HEAVIEST, JOINT = "heaviest modes", "joint model"


@dataclass(frozen=True)
class Target:
    """apart: of each method (N,D) radians from the native, nan where not known; neighbours (N,).

    num_learnt_from residues are left out, num_missing because a method has not all their chi.
    """

    apart: Mapping[str, np.ndarray]
    neighbours: np.ndarray
    num_learnt_from: int
    num_missing: int


class Packing(NamedTuple):
    """Rows of ``PACKING``, the targets by name, and what became of each native."""

    table: pa.Table
    targets: dict[str, Target]
    results: list[Written]


def score_packing(
    natives: Sequence[str | Path],
    predicted: Mapping[str, str | Path],
    out: str | Path,
    model: str | Path | LoadedModel | None,
    settings: PredictionSettings,
    stream: TextIO | None = None,
) -> Packing:
    """The model's heaviest modes and joint model, and side chains that others predicted.

    predicted: folder of models by the name of the method. A model's file is called as its native,
    with or without something behind an underscore; its residues are found by the numbers of the
    author. Residues that one method lacks count for none. Writes the table to ``out`` as CSV.

    Raises QfitLatentError where nothing can be scored.
    """
    found = find_structures(natives, settings.pattern)
    models = {name: _files_of(folder, found) for name, folder in predicted.items()}
    runner = Runner(model, replace(settings, workers=0))
    targets: dict[str, Target] = {}
    results = runner.run(
        found, {}, partial(_known, runner), partial(_score, targets, models), stream
    )
    if not targets:
        raise QfitLatentError(f"No native can be scored; the first: {results[0].error}")
    table = packing_table(targets)
    write_csv(out, table)
    return Packing(table, targets, results)


def _files_of(folder: str | Path, natives: Mapping[Path, str]) -> dict[str, Path]:
    """The model of each native; of one in two formats the mmCIF."""
    if not Path(folder).is_dir():
        raise QfitLatentError(f"There is no folder {folder} of models: correct --predicted.")
    found = sorted(find_in_folder(folder, "*").items(), reverse=True)
    there = {name: path for path, name in found}  # .cif stands before .pdb, and replaces it
    models = {}
    for entry in natives.values():
        own = [entry] if entry in there else [x for x in there if x.startswith(f"{entry}_")]
        if not own:
            raise QfitLatentError(
                f"The folder {folder} has no model of {entry}: call it {entry}.pdb or .cif."
            )
        if len(own) > 1:
            raise QfitLatentError(
                f"The folder {folder} has several models of {entry}, {own[0]} and {own[1]}: "
                "leave one."
            )
        models[entry] = there[own[0]]
    return models


def _known(
    runner: Runner, given: Input, protein: Protein, s: Tensor
) -> tuple[Predicted, Known, float]:
    predicted = predicted_arrays(runner, given, protein, s)
    learnt = runner.learnt_from(given)
    learnt = np.zeros(len(protein), bool) if learnt is None else learnt[predicted.row]
    known = known_of(protein, ~learnt, learnt, altlocs_kept=True)
    if not (np.isfinite(known.main()[:, 0]) & ~learnt).any():
        raise Unusable(
            "learnt_from" if learnt.any() else "no_chi",
            f"{given.path} is left out: "
            + ("the model was trained on its chains." if learnt.any() else "it shows no chi."),
        )
    return predicted, known, runner.settings.min_weight


def _score(
    targets: dict[str, Target],
    models: Mapping[str, Mapping[str, Path]],
    given: Input,
    value: tuple[Predicted, Known, float],
) -> Written:
    predicted, known, min_weight = value
    subject = subject_of(given, predicted)
    token, native = subject.densities.token, known.main()
    joint = joint_model(subject.protein, subject.densities, predicted.heterogeneous, min_weight)
    chi = {HEAVIEST: subject.densities.mode_chi[:, 0], JOINT: joint.states.chi[:, 0]}
    for name, paths in models.items():
        chi[name] = _chi_of(paths[given.entry], given, predicted.row, token)
    seen = np.isfinite(native) & CHI_DEFINED[token]
    counts = seen[:, 0] & known.counts
    has_all = np.stack([(np.isfinite(x) | ~seen).all(1) for x in chi.values()]).all(0)
    kept = counts & has_all
    apart = {
        name: np.where(seen, chi_apart(token, x, native), np.nan)[kept] for name, x in chi.items()
    }
    neighbours = given.tables["residues"]["num_neighbours"].to_numpy()[predicted.row[kept]]
    num_learnt = int((seen[:, 0] & known.learnt).sum())
    targets[given.entry] = Target(apart, neighbours, num_learnt, int((counts & ~kept).sum()))
    return Written(given.entry, given.path, num_residues=int(kept.sum()))


def _chi_of(path: Path, given: Input, row: np.ndarray, token: np.ndarray) -> np.ndarray:
    """(N,D) chi of the same residues, rows (N,) of the native, in a model; nan where it has none.

    Raises QfitLatentError where it has none of them.
    """
    tables = read_input(path).tables
    protein = protein_from_tables(tables)
    residue, first = np.unique(protein.row_residue.numpy(), return_index=True)
    chi = np.where(protein.defined.numpy(), protein.chi.numpy(), np.nan)[first]
    at = protein.residue_row.numpy()[residue]
    names = ["author_chain", "author_number", "insertion_code"]
    own = protein.token.numpy()[residue].tolist()
    there, wanted = (
        list(zip(*(t["residues"][n].take(pa.array(r)).to_pylist() for n in names), k, strict=True))
        for t, r, k in ((tables, at, own), (given.tables, row, token.tolist()))
    )
    place = {key: n for n, key in enumerate(there)}
    found = np.array([place.get(key, -1) for key in wanted])
    if (found < 0).all():
        raise Unusable(
            "other_numbers",
            f"{path} has no residue of {given.path}: chains, numbers and types must be the same.",
        )
    return np.where(found[:, None] >= 0, chi[found], np.nan)


def packing_table(targets: Mapping[str, Target]) -> pa.Table:
    """Rows of ``PACKING``: each method and part, pooled, as the mean over targets, and each."""
    rows = []
    for region, (low, high) in REGIONS.items():
        inside = {
            name: (t.neighbours >= low) & (t.neighbours <= high)
            for name, t in sorted(targets.items())
        }
        inside = {name: own for name, own in inside.items() if own.any()}
        for method in next(iter(targets.values())).apart if inside else ():
            each = {name: targets[name].apart[method][own] for name, own in inside.items()}
            figures = {name: figures_of(apart) for name, apart in each.items()}
            every = np.concatenate(list(each.values()))
            head: dict[str, Any] = {"method": method, "residues": region}
            total = head | {"num_targets": len(each), "num_residues": len(every)}
            rows.append(total | {"target": POOLED} | figures_of(every))
            rows.append(total | {"target": MEAN} | _mean(list(figures.values())))
            rows += [
                head | {"target": name, "num_targets": 1, "num_residues": len(each[name])} | own
                for name, own in figures.items()
            ]
    columns = {name: [row[name] for row in rows] for name in PACKING.names}
    return conform(pa.table(columns, schema=PACKING), PACKING, "the packing")


def figures_of(apart: np.ndarray) -> dict[str, float | None]:
    """Shares of residues (N,D) whose chi1, and whose every chi, are near; mean error of each chi.

    A chi that is not known counts for neither.
    """
    degrees = np.degrees(apart)
    known = np.isfinite(degrees)
    figures: dict[str, float | None] = {}
    for name, (num, limit) in SHARES.items():
        near = (degrees[:, :num] <= limit) | ~known[:, :num]
        figures[name] = float(near.all(1).mean())
    for d, name in enumerate(ANGLES):
        figures[name] = float(degrees[known[:, d], d].mean()) if known[:, d].any() else None
    return figures


def _mean(figures: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean over targets; of an angle over those that have it."""
    means: dict[str, float | None] = {}
    for name in figures[0]:
        values = [value for own in figures if (value := own[name]) is not None]
        means[name] = float(np.mean(values)) if values else None
    return means


def as_text(packing: Packing) -> str:
    """The table of papers: pooled and mean of targets; shares in %, errors in degrees."""
    names = [*SHARES, *ANGLES]
    short = [name.removesuffix("_degrees").replace("_", " ") for name in names]
    lines = [f"| method | residues | | targets | residues | {' | '.join(short)} |"]
    lines.append(f"|---|---|---|---:|---:|{'---:|' * len(names)}")
    for row in packing.table.to_pylist():
        if row["target"] in (POOLED, MEAN):
            cells = [_cell(row[name], name in SHARES) for name in names]
            head = [row["method"], row["residues"], row["target"]]
            counts = [str(row["num_targets"]), str(row["num_residues"])]
            lines.append(f"| {' | '.join([*head, *counts, *cells])} |")
    return "\n".join(lines)


def _cell(value: float | None, is_share: bool) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f} %" if is_share else f"{value:.1f}"
