"""How likely the deposited conformers of structures are, residue by residue.

Shapes: N residues, M observed rows, J modes, D=4 chi.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import torch
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import CHI_DEFINED, PI_SYMMETRIC
from qfitlatent.density.mixture import Modes
from qfitlatent.density.regions import hdr_level
from qfitlatent.density.von_mises import circular_distance
from qfitlatent.model.batch import Protein
from qfitlatent.model.checkpoint import LoadedModel
from qfitlatent.prediction.columns import SCORES
from qfitlatent.prediction.outputs import SCORE, write_scores
from qfitlatent.prediction.records import Input, Written
from qfitlatent.prediction.results import Results, output_folder
from qfitlatent.prediction.runner import Runner
from qfitlatent.prediction.settings import PredictionSettings, failures_table
from qfitlatent.tables.columns import chi_columns, id_columns
from qfitlatent.tables.parquet import conform, read_table, table_writer

MATCH_RADIANS = math.radians(30.0)
"""An altloc is near a mode when every chi is (SPEC 8)."""

HDR_POINTS = 512
"""Points of each residue's density behind hdr_level."""


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

    The rows of each structure are kept in a folder beside ``out`` as soon as they are there,
    ``scores.parts`` beside ``scores.parquet``, until all are: a run that was stopped goes on there.

    Raises QfitLatentError as ``predict_structures`` does; the table of failures is beside ``out``,
    ``scores.failures.csv`` beside ``scores.parquet``.
    """
    out = Path(out)
    if out.is_dir():
        raise QfitLatentError(f"{out} is a folder: give the name of a Parquet file with --out.")
    if out.exists() and not overwrite:
        raise QfitLatentError(f"{out} exists already: add --overwrite, or choose another name.")
    runner = Runner(model, settings)
    identity = runner.identity("min_weight", "merge_within_degrees", "surprising_above")
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
        _join(parts, [r.entry for r in results if not r.error], out, runner.about_model())
    return results


def _join(parts: Results, entries: Sequence[str], out: Path, about: dict[str, str]) -> None:
    """The parts as one table, sorted by entry, and the parts gone.

    Raises QfitLatentError where there is no room.
    """
    try:
        with table_writer(out, SCORES, about) as writer:
            for entry in sorted(entries):
                writer.write(read_table(parts.paths(entry)[0]))
    except OSError as error:
        raise QfitLatentError(
            f"{out} cannot be written ({error.strerror}): make room or choose another name."
        ) from error
    for suffix in parts.suffixes:
        for path in parts.folder.glob(f"*{suffix}"):
            path.unlink()
    parts.folder.rmdir()


@torch.inference_mode()
def _score(runner: Runner, given: Input, protein: Protein, s: Tensor) -> tuple[pa.Table, int]:
    """Rows of SCORES for one structure, and its number of residues."""
    settings, density = runner.settings, runner.density(s, protein.token)
    chi, defined, rows = protein.chi, protein.defined, protein.row_residue
    symmetric = torch.from_numpy(PI_SYMMETRIC)[protein.token]
    level = hdr_level(density, density.points(HDR_POINTS), chi, defined, rows).numpy()
    modes = density.modes(settings.min_weight, math.radians(settings.merge_within_degrees))
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
    mask = (
        CHI_DEFINED[protein.token.numpy()[rows.numpy()]]
        & (missing_weight[rows] > 0).numpy()[:, None]
    )
    columns |= chi_columns("missing_chi", missing_chi[rows].numpy(), "_rad", mask)
    return conform(pa.table(columns), SCORES, given.path), len(protein)


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
