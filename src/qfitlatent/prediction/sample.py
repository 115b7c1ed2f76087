"""Draws of side chains, and embeddings, of structures.

Shapes: N residues, S samples, D=4 chi.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.joint.sampling import num_candidates
from qfitlatent.model.batch import Protein
from qfitlatent.model.checkpoint import LoadedModel
from qfitlatent.prediction.outputs import (
    EMBEDDING,
    sample_suffixes,
    write_embedding,
    write_samples,
)
from qfitlatent.prediction.records import Drawn, Input, Unusable, Written
from qfitlatent.prediction.results import Results
from qfitlatent.prediction.runner import Runner, joint_densities
from qfitlatent.prediction.settings import FORMATS, PredictionSettings

MAX_DRAWN_RESIDUES = 2_000_000
"""Residues times draws of one structure: some 20 million atoms, which take 3 GB."""


def sample_structures(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    model: str | Path | LoadedModel | None = None,
    settings: PredictionSettings | None = None,
    *,
    num: int,
    file_format: str = FORMATS[0],
    overwrite: bool = False,
    resume: bool = False,
    stream: TextIO | None = None,
) -> list[Written]:
    """Joint draws of all chi: ``<id>.samples.parquet``, and a model a draw with side chains.

    A draw is a state of the whole protein: the densities of its residues, and their contacts with
    each other and with what stays (``joint.sampling``). The table has the columns of
    ``columns.SAMPLES``, sorted by residue and draw; the coordinates are ``<id>_samples.cif`` or
    ``.pdb``. The same seed and structure give the same draws, whatever the file is called.

    Returns and raises as ``predict_structures`` does.
    """
    if not 1 <= num <= MAX_DRAWN_RESIDUES:
        raise QfitLatentError(
            f"The number of draws is {num:.6g}: ask for 1 to {MAX_DRAWN_RESIDUES}, fewer of more "
            "than one residue."
        )
    if file_format not in FORMATS:
        raise QfitLatentError(f"The format {file_format!r} is none of {', '.join(FORMATS)}.")
    runner = Runner(model, settings)
    keys = ("merge_within_degrees", "surroundings", "seed", "residues", "fix", "mutate")
    identity = runner.identity(*keys) | {"format": file_format, "num_samples": num}
    return runner.run_into(
        Results("sample", Path(out), sample_suffixes(file_format), identity),
        paths,
        partial(_drawn, runner, num),
        write_samples,
        overwrite=overwrite,
        resume=resume,
        stream=stream,
    )


def _drawn(runner: Runner, num: int, given: Input, protein: Protein, s: Tensor) -> Drawn:
    """Draws from the densities, of which the worker process makes joint states."""
    most = MAX_DRAWN_RESIDUES // len(protein)
    if num > most:
        raise Unusable(
            "too_many_draws",
            f"{given.path} has {len(protein)} residues: ask for at most {most} draws at once, and "
            "for more of them with other seeds.",
        )
    with torch.inference_mode():
        density = runner.density(s, protein.token)
        generator = torch.Generator().manual_seed(runner.settings.seed)
        chi = density.sample(num_candidates(num), generator).numpy()
        densities = joint_densities(density.as_mixture(), protein.token, runner.settings)
    return Drawn(protein.residue_row.numpy(), densities, chi, num)


def embed_structures(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    model: str | Path | LoadedModel | None = None,
    settings: PredictionSettings | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    stream: TextIO | None = None,
) -> list[Written]:
    """The final single representation of each residue: ``<id>.embedding.parquet`` and ``.npz``.

    It is that of the whole network, without dropout. The npz holds ``embedding`` (N,d_s) float32
    and the id columns as arrays of N.

    Returns and raises as ``predict_structures`` does.
    """
    runner = Runner(model, settings, embeds=True)
    return runner.run_into(
        Results("embed", Path(out), EMBEDDING, runner.identity("mutate")),
        paths,
        lambda given, protein, s: (protein.residue_row.numpy(), s.numpy()),
        write_embedding,
        overwrite=overwrite,
        resume=resume,
        stream=stream,
    )
