"""How likely the deposited conformers of structures are, residue by residue.

Shapes: N residues, M observed rows, J modes, D=4 chi.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import CHI_DEFINED, PI_SYMMETRIC
from qfitlatent.density.mixture import Modes
from qfitlatent.density.protocol import Density
from qfitlatent.density.regions import hdr_level
from qfitlatent.density.von_mises import circular_distance
from qfitlatent.model.batch import Protein
from qfitlatent.model.checkpoint import LoadedModel
from qfitlatent.prediction.columns import SCORES
from qfitlatent.prediction.records import Input, Written, find_structures
from qfitlatent.prediction.runner import (
    Runner,
    as_rows,
    new_generator,
    new_progress,
    num_workers,
    worker_pool,
)
from qfitlatent.tables.columns import chi_columns, id_columns
from qfitlatent.tables.keys import observed_rows, row_keys
from qfitlatent.tables.parquet import TableWriter, conform

MATCH_RADIANS = math.radians(30.0)
"""An altloc is near a mode when every chi is (SPEC 8)."""


HDR_SAMPLES = 512


def score_structures(
    paths: Sequence[str | Path],
    out: str | Path,
    model: str | Path | LoadedModel | None = None,
    *,
    surprising_above: float = 0.95,
    seed: int = 0,
    overwrite: bool = False,
    workers: int | None = None,
    device: str = "auto",
    stream: TextIO | None = None,
) -> list[Written]:
    """Score the conformers of multiconformer structures: one Parquet file, sorted by residue.

    A row a residue and altloc, with the columns of ``prediction_files.SCORES``. hdr_level is the
    predicted probability of anything more likely than the conformer; above ``surprising_above`` the
    conformer is surprising. missing_weight is the weight of the modes that no altloc of the residue
    comes within 30 degrees of, and missing_chi the heaviest of them: an altloc that may be missing.

    Raises QfitLatentError as ``predict_structures`` does.
    """
    out = Path(out)
    if out.is_dir():
        raise QfitLatentError(f"{out} is a folder: give the name of a Parquet file with --out.")
    if out.exists() and not overwrite:
        raise QfitLatentError(f"{out} exists already: add --overwrite, or choose another name.")
    runner = Runner(model, device)
    found = find_structures(paths)
    results: dict[Path, Written] = {}
    tables: dict[str, pa.Table] = {}
    num = num_workers(len(found), workers)
    with worker_pool(num) as executor, new_progress(len(found), stream) as progress:
        for given, protein, s in runner.run(found, executor, num):
            if protein is None or s is None:
                if len(found) == 1:
                    raise QfitLatentError(given.error)
                results[given.path] = Written(given.entry, given.path, error=given.error)
                progress.update(1, failures=1)
                continue
            density = runner.density(s, protein.token)
            table = _score(
                density, protein, given, surprising_above, new_generator(seed, given.entry)
            )
            tables[given.entry] = table
            results[given.path] = Written(given.entry, given.path, num_residues=len(protein))
            progress.update(1)
    if not tables:
        raise QfitLatentError(
            f"None of the {len(found)} structures can be used; the first: {results[found[0]].error}"
        )
    with TableWriter(out, SCORES) as writer:
        for entry in sorted(tables):
            writer.write(tables[entry])
    return [results[path] for path in found]


@torch.inference_mode()
def _score(
    density: Density,
    protein: Protein,
    given: Input,
    surprising_above: float,
    generator: torch.Generator,
) -> pa.Table:
    """Rows of SCORES for one structure."""
    chi, defined, rows = protein.chi, protein.defined, protein.row_residue
    symmetric = torch.from_numpy(PI_SYMMETRIC)[protein.token]
    draws = density.sample_with_log_prob(HDR_SAMPLES, generator)
    level = hdr_level(density, *draws, chi, defined, rows).numpy()
    modes = density.modes(0.1, MATCH_RADIANS)
    missing_weight, missing_chi = missing_modes(modes, chi, defined, rows, symmetric)

    observed = _observed_rows(given)
    columns: dict[str, Any] = id_columns(given.tables["residues"], as_rows(protein)[rows.numpy()])
    for name in ("altloc", "occupancy", "occupancy_normalised"):
        columns[name] = observed[name]
    columns |= chi_columns("chi", chi.numpy(), "_rad", defined.numpy())
    columns["nll"] = -density.log_prob(chi, defined, rows).numpy()
    columns["nll_folded"] = -density.log_prob(chi, defined, rows, folded=True).numpy()
    columns["hdr_level"] = level
    columns["is_surprising"] = level > surprising_above
    columns["missing_weight"] = missing_weight[rows].numpy()
    mask = (
        CHI_DEFINED[protein.token.numpy()[rows.numpy()]]
        & (missing_weight[rows] > 0).numpy()[:, None]
    )
    columns |= chi_columns("missing_chi", missing_chi[rows].numpy(), "_rad", mask)
    return conform(pa.table(columns), SCORES, given.path)


def _observed_rows(given: Input) -> pa.Table:
    """The observed conformers of residues with a frame: the rows M of the protein, in order."""
    frames, conformers = given.tables["frames"], given.tables["conformers"]
    key, conformer_key = row_keys(frames, conformers)
    residue = np.searchsorted(key, conformer_key)
    has_frame = np.asarray(frames["rotation"].combine_chunks().is_valid())
    rows, _, _ = observed_rows(conformers, np.where(has_frame[residue], residue, -1))
    return conformers.take(pa.array(rows))


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
