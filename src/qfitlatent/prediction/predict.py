"""The trained model in use: predict structures; score.py and sample.py do the rest.

Structures are read, and results written, by worker processes while the network runs here on batches
of similar length; what is written does not depend on either.

Shapes: N residues of a structure, K components, J modes, D=4 chi.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import NUM_CHI
from qfitlatent.density.observables import observables
from qfitlatent.density.protocol import Density
from qfitlatent.model.batch import Protein
from qfitlatent.model.checkpoint import LoadedModel
from qfitlatent.prediction.outputs import PREDICTION, write_prediction
from qfitlatent.prediction.records import Input, Predicted, Written
from qfitlatent.prediction.results import Results
from qfitlatent.prediction.runner import Runner, Timing, joint_densities
from qfitlatent.prediction.settings import PredictionSettings

IDENTITY = (
    *("min_weight", "merge_within_degrees", "heterogeneous_above", "ambiguous_above"),
    *("surroundings", "residues", "fix", "mutate", "truncate", "min_confidence"),
    *("b_factors", "passes"),
)
"""Settings that decide about a prediction."""


def predict_structures(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    model: str | Path | LoadedModel | None = None,
    settings: PredictionSettings | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    stream: TextIO | None = None,
    timing: Timing | None = None,
) -> list[Written]:
    """Predict structures and write the files of ``outputs`` for each into ``out``.

    Args:
        paths: files, and folders that stand for the structures in them; or one of them.
        model: a run folder, a model file, or None for the one inside the package.
        settings: section ``predict`` of the configuration; None for its defaults.
        overwrite: write over what an earlier prediction left.
        resume: leave out structures that this model has predicted with these settings.
        stream: where the progress goes; None for no progress.
        timing: filled with the seconds spent.

    Returns:
        One ``Written`` a structure, sorted by path; ``error`` says why there are no files, and so
        does ``failures.csv`` where there are several structures.

    Raises:
        QfitLatentError: before anything is written, for paths, model or settings that cannot be
            used and for results that are already there; and when no structure could be used.
    """
    runner = Runner(model, settings, timing)
    identity = runner.identity(*IDENTITY)
    return runner.run_into(
        Results("predict", Path(out), PREDICTION, identity),
        paths,
        partial(predicted_arrays, runner),
        write_prediction,
        overwrite=overwrite,
        resume=resume,
        stream=stream,
    )


def predicted_arrays(runner: Runner, given: Input, protein: Protein, s: Tensor) -> Predicted:
    """Arrays to be written, as of ``predicted_density``."""
    return predicted_density(runner, given, protein, s)[1]


def predicted_density(
    runner: Runner, given: Input, protein: Protein, s: Tensor
) -> tuple[Density, Predicted]:
    """The density of each residue, and it as arrays: the joint step takes the modes as candidates.

    s (N,d_s) is the protein's representation.
    """
    settings = runner.settings
    has_chi = torch.from_numpy(NUM_CHI)[protein.token] > 0
    with torch.inference_mode():
        start = time.perf_counter()
        density = runner.density(s, protein.token)
        mixture = density.as_mixture()
        entropy = density.entropy()
        runner.timing.head += time.perf_counter() - start
        densities = joint_densities(mixture, protein.token, settings)
        observed = observables(mixture, densities.token)
        p_heterogeneous = runner.p_heterogeneous(s, protein.token)
    disagreement = np.full(len(protein), np.nan, dtype=np.float32)
    if runner.passes is not None:
        disagreement = runner.passes.disagreement(protein).numpy()
    top_weight = densities.mode_weight[:, 0].clip(max=1.0)  # a sum of rounded weights
    if p_heterogeneous is None:
        heterogeneous = 1.0 - top_weight >= settings.ambiguous_above
        p_heterogeneous = np.full(len(protein), np.nan, dtype=np.float32)
    else:
        heterogeneous = p_heterogeneous >= settings.heterogeneous_above
    predicted = Predicted(
        row=protein.residue_row.numpy(),
        entropy=entropy.numpy(),
        top_weight=top_weight,
        p_heterogeneous=p_heterogeneous,
        heterogeneous=heterogeneous,
        disagreement=disagreement,
        unlike_training=runner.unlike_training(s, protein.token),
        nearest=runner.nearest(given),
        no_reference=runner.no_reference,
        rotamer_entropy=observed.rotamer_entropy,
        observables=observed.values,
        **{name: getattr(densities, name) for name in _OF_DENSITIES},
    )
    for name in ("weight", "mean", "kappa", "entropy", "mode_chi"):
        if not np.isfinite(getattr(predicted, name)[has_chi.numpy()]).all():
            raise QfitLatentError(
                f"The model gives {name} that is not a number for {given.entry}: the model is "
                "damaged or its training diverged; use another."
            )
    return density, predicted


_OF_DENSITIES = ("weight", "mean", "kappa", "mode_weight", "mode_chi")
