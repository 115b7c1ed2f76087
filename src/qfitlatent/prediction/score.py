"""How likely the deposited conformers of structures are, residue by residue.

Shapes: N residues, M observed rows, J modes, D=4 chi.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import torch
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import write_text
from qfitlatent.chemistry.residues import CHI_DEFINED, PI_SYMMETRIC
from qfitlatent.density.mixture import Modes
from qfitlatent.density.regions import hdr_level
from qfitlatent.density.von_mises import circular_distance
from qfitlatent.model.batch import Protein
from qfitlatent.model.checkpoint import LoadedModel
from qfitlatent.prediction.columns import SCORES, SEEN
from qfitlatent.prediction.handover import looks_for_coot
from qfitlatent.prediction.looks import (
    label_of,
    looks_of,
    place_of_look,
    worst_first,
    write_looks,
)
from qfitlatent.prediction.outputs import SCORE, write_scores
from qfitlatent.prediction.records import Input, Scored, Written
from qfitlatent.prediction.results import Results, output_folder
from qfitlatent.prediction.runner import Runner, joint_densities
from qfitlatent.prediction.settings import (
    PredictionSettings,
    failures_table,
    look_list,
    surroundings_table,
)
from qfitlatent.tables.columns import chi_columns, id_columns
from qfitlatent.tables.parquet import read_table, table_writer, write_csv

MATCH_RADIANS = math.radians(30.0)
"""An altloc is near a mode when every chi is (SPEC 8)."""

HDR_POINTS = 256
"""Points of each residue's density behind hdr_level: on average right to 0.005."""


def score_structures(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    model: str | Path | LoadedModel | None = None,
    settings: PredictionSettings | None = None,
    *,
    overwrite: bool = False,
    stream: TextIO | None = None,
) -> list[Written]:
    """Score the conformers of multiconformer structures: one Parquet file, sorted by residue.

    A row a residue and altloc, with the columns of ``columns.SCORES``. hdr_level is the predicted
    probability of anything more likely than the conformer; above ``surprising_above`` the
    conformer is surprising. missing_weight is the weight of the modes that no altloc of the residue
    comes within 30 degrees of, and missing_chi the heaviest of them: an altloc that may be missing.
    look says how much better, in its deposited surroundings, another rotamer is (``looks``); what
    is worth a look stands in lists, the worst first: ``scores.look.csv`` and ``scores.look.txt``
    beside ``scores.parquet``, and of one structure ``scores.look.coot.py`` for Coot. ``num_looks``
    of a result is how many there are. What stood around the side chains, and what of it counted,
    is in ``scores.surroundings.csv``.

    The rows of each structure are kept in a folder beside ``out`` as soon as they are there,
    ``scores.parts`` beside ``scores.parquet``, until all are: a run that was stopped goes on there.

    Raises QfitLatentError as ``predict_structures`` does; the table of failures is beside ``out``,
    ``scores.failures.csv`` beside ``scores.parquet``.
    """
    out = Path(out)
    if out.is_dir():
        raise QfitLatentError(f"{out} is a folder: give the name of a Parquet file with --out.")
    for path in (out, *look_paths(out), surroundings_table(out)):
        if path.exists() and not overwrite:
            raise QfitLatentError(
                f"{path} exists already: add --overwrite, or choose another name."
            )
    runner = Runner(model, settings)
    identity = runner.identity(*IDENTITY)
    parts = Results("score", out.with_name(f"{out.stem}.parts"), SCORE, identity)
    with output_folder(out.parent):
        results = runner.run_into(
            parts,
            paths,
            partial(_score, runner),
            write_scores,
            overwrite=True,
            resume=True,
            stream=stream,
            failures=failures_table("score", out),
        )
        looks = _join(parts, [r for r in results if not r.error], out, runner.about_model())
    return [_told(result, looks) for result in results]


IDENTITY = (
    *("min_weight", "merge_within_degrees", "surprising_above", "look_above"),
    "surroundings",
)
"""Settings that decide about a score."""


def look_paths(out: Path) -> list[Path]:
    """What is worth a look, beside a table of scores: as CSV, as text and, of one structure, for
    Coot."""
    return [look_list(out, suffix) for suffix in (".csv", ".txt", ".coot.py")]


def _join(
    parts: Results, results: Sequence[Written], out: Path, about: dict[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """The parts as one table, sorted by entry, and the parts gone; what is worth a look, by entry.

    Raises QfitLatentError where there is no room.
    """
    found, seen = [looks_of(SCORES.empty_table())], [SEEN.empty_table()]
    csv, text, coot = look_paths(out)
    by_entry: dict[str, list[dict[str, Any]]] = {}
    try:
        with table_writer(out, SCORES, about) as writer:
            for entry in sorted(result.entry for result in results):
                scores, around = map(read_table, parts.paths(entry)[:2])
                seen.append(around)
                found.append(looks_of(scores))
                writer.write(scores)
        looks = worst_first(pa.concat_tables(found))
        for look in looks.to_pylist():
            by_entry.setdefault(look["entry"], []).append(look)
        write_looks(looks, csv, text)
        write_csv(surroundings_table(out), pa.concat_tables(seen))
        coot.unlink(missing_ok=True)
        if len(results) == 1:
            (one,) = results
            where = Path(os.path.relpath(one.path, out.parent))
            listed = map(place_of_look, by_entry.get(one.entry, []))
            write_text(coot, looks_for_coot(one.entry, about["model"], where, listed))
    except OSError as error:
        raise QfitLatentError(
            f"{out} cannot be written ({error.strerror}): make room or choose another name."
        ) from error
    for suffix in parts.suffixes:
        for path in parts.folder.glob(f"*{suffix}"):
            path.unlink()
    parts.folder.rmdir()
    return by_entry


def _told(result: Written, looks: Mapping[str, list[dict[str, Any]]]) -> Written:
    """The result with what is worth a look in it, the worst in words."""
    own = looks.get(result.entry)
    if not own:
        return result
    worst = f"worst {label_of(own[0])}: {own[0]['reason']}"
    return replace(result, num_looks=len(own), notes=(*result.notes, worst))


@torch.inference_mode()
def _score(runner: Runner, given: Input, protein: Protein, s: Tensor) -> Scored:
    """What the densities say of one structure; its neighbours are looked at where it is written."""
    settings, density = runner.settings, runner.density(s, protein.token)
    chi, defined, rows = protein.chi, protein.defined, protein.row_residue
    symmetric = torch.from_numpy(PI_SYMMETRIC)[protein.token]
    level = hdr_level(density, density.points(HDR_POINTS), chi, defined, rows).numpy()
    mixture = density.as_mixture()
    modes = mixture.modes(settings.min_weight, math.radians(settings.merge_within_degrees))
    missing_weight, missing_chi = missing_modes(modes, chi, defined, rows, symmetric)

    observed = given.tables["conformers"].take(protein.conformer_row.numpy())
    at = protein.residue_row.numpy()[rows.numpy()]
    columns: dict[str, Any] = id_columns(given.tables["residues"], at)
    for name in ("altloc", "occupancy", "occupancy_normalised"):
        columns[name] = observed[name]
    columns |= chi_columns("chi", chi.numpy(), "_rad", defined.numpy())
    known = runner.learnt_from(given)
    columns["learnt_from"] = pa.nulls(len(at), pa.bool_()) if known is None else known[at]
    columns["nll"] = -density.log_prob(chi, defined, rows).numpy()
    columns["nll_folded"] = -density.log_prob(chi, defined, rows, folded=True).numpy()
    columns["hdr_level"] = level
    columns["is_surprising"] = level > settings.surprising_above
    columns["missing_weight"] = missing_weight[rows].numpy()
    has_chi = CHI_DEFINED[protein.token.numpy()[rows.numpy()]]
    mask = has_chi & (missing_weight[rows] > 0).numpy()[:, None]
    columns |= chi_columns("missing_chi", missing_chi[rows].numpy(), "_rad", mask)
    return Scored(
        row=protein.residue_row.numpy(),
        densities=joint_densities(mixture, protein.token, settings, modes),
        table=pa.table(columns),
        residue=rows.numpy(),
        chi=chi.numpy().astype(float),
        is_whole=(defined.numpy() == has_chi).all(axis=1),
    )


def missing_modes(
    modes: Modes, chi: Tensor, defined: Tensor, rows: Tensor, symmetric: Tensor
) -> tuple[Tensor, Tensor]:
    """(N,) weight of the valid modes that no row is near, (N,D) chi of the heaviest; 0 where none.

    chi (M,D), defined (M,D), rows (M,), symmetric (N,D). A row is near a mode when each of its
    defined chi is within 30 degrees.
    """
    distance = circular_distance(modes.chi[rows], chi[:, None], symmetric[rows][:, None])
    near = ((distance <= MATCH_RADIANS) | ~defined[:, None]).all(-1)  # (M,J)
    seen = torch.zeros(modes.weight.shape, dtype=torch.long).index_add_(0, rows, near.long()) > 0
    missing = torch.where(modes.valid & ~seen, modes.weight, 0.0)
    heaviest = missing.argmax(1)
    mode = modes.chi[torch.arange(len(missing)), heaviest]
    return missing.sum(1), torch.where((missing > 0).any(1)[:, None], mode, 0.0)
