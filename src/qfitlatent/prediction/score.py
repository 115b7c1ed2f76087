"""How likely the deposited conformers of structures are, residue by residue.

Shapes: N residues, M observed rows, J modes, D=4 chi.
"""

import math
from collections.abc import Sequence
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
from qfitlatent.prediction.records import Input, Written, find_structures, is_batch, unusable_names
from qfitlatent.prediction.results import conclude, output_folder
from qfitlatent.prediction.runner import Runner
from qfitlatent.prediction.settings import PredictionSettings, failures_table
from qfitlatent.tables.columns import chi_columns, id_columns
from qfitlatent.tables.parquet import conform, table_writer

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

    Raises QfitLatentError as ``predict_structures`` does; the table of failures is beside ``out``,
    ``scores.failures.csv`` beside ``scores.parquet``.
    """
    out = Path(out)
    if out.is_dir():
        raise QfitLatentError(f"{out} is a folder: give the name of a Parquet file with --out.")
    if out.exists() and not overwrite:
        raise QfitLatentError(f"{out} exists already: add --overwrite, or choose another name.")
    runner = Runner(model, settings)
    found = find_structures(paths, runner.settings.pattern)
    tables: dict[str, pa.Table] = {}

    def compute(given: Input, protein: Protein, s: Tensor) -> Written:
        tables[given.entry] = _score(runner, given, protein, s)
        return Written(given.entry, given.path, num_residues=len(protein))

    with output_folder(out.parent):
        results = runner.run(found, unusable_names(found), compute, None, stream)
        conclude(results, failures_table("score", out), is_batch(paths))
        try:
            with table_writer(out, SCORES, runner.about_model()) as writer:
                for entry in sorted(tables):
                    writer.write(tables[entry])
        except OSError as error:
            raise QfitLatentError(
                f"{out} cannot be written ({error.strerror}): make room or choose another name."
            ) from error
    return results


@torch.inference_mode()
def _score(runner: Runner, given: Input, protein: Protein, s: Tensor) -> pa.Table:
    """Rows of SCORES for one structure."""
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
    return conform(pa.table(columns), SCORES, given.path)


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
