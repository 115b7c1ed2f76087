"""The trained model in use: predict, score, sample and embed structures.

    from qfitlatent.prediction.predict import predict_structures
    from qfitlatent.prediction.score import score_structures

    predict_structures(["my.pdb"], out="predicted")      # with the model that ships
    score_structures(["qfit.pdb"], "scores.parquet", model="results/runs/simulated")

``model`` is a run folder, a model file, or None for the one inside the package. A folder stands for
the structures in it. Structures are read, and results written, by worker processes while the
network runs here on batches of similar length; what is written does not depend on either.

Shapes: N residues of a structure, M observed rows, K components, J modes, S samples, D=4 chi.
"""

import math
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path, sweep
from qfitlatent.chemistry.residues import NUM_CHI
from qfitlatent.model.batch import Protein
from qfitlatent.model.checkpoint import LoadedModel
from qfitlatent.prediction.outputs import is_done, output_paths, write_prediction
from qfitlatent.prediction.records import Predicted, Written, find_structures, structure_id
from qfitlatent.prediction.runner import (
    Runner,
    Timing,
    as_rows,
    finish,
    new_generator,
    new_progress,
    num_workers,
    worker_pool,
)


def predict_structures(
    paths: Sequence[str | Path],
    model: str | Path | LoadedModel | None = None,
    out: str | Path = ".",
    *,
    min_weight: float = 0.1,
    merge_within_degrees: float = 30.0,
    entropy_samples: int = 32,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    workers: int | None = None,
    device: str = "auto",
    stream: TextIO | None = None,
    timing: Timing | None = None,
) -> list[Written]:
    """Predict structures and write the files of ``prediction_files`` for each into ``out``.

    Args:
        min_weight: smallest weight of a mode that becomes an altloc, 0.01 to 1.
        merge_within_degrees: components are one mode when every chi is so near.
        entropy_samples: draws behind the entropy (``VonMisesMixture.entropy``).
        overwrite: write over what an earlier prediction left.
        resume: leave out structures that this model has predicted with these settings.
        workers: processes that read and write; None chooses.
        stream: where the progress goes; None for no progress.
        timing: filled with the seconds spent.

    Returns:
        One ``Written`` a structure, in the order of paths; ``error`` says why there are no files.

    Raises:
        QfitLatentError: before anything is written, for paths, model or options that cannot be
            used, for results that are already there, and when the only structure is unusable.
    """
    if not 0.01 <= min_weight <= 1.0:
        raise QfitLatentError(
            f"The smallest weight of a mode is {min_weight}: choose one from 0.01 to 1."
        )
    runner = Runner(model, device)
    out = Path(out)
    found = find_structures(paths)
    identity = {
        "format_version": "1",
        "model": runner.path.name,
        "model_sha256": runner.sha256,
        "min_weight": min_weight,
        "merge_within_degrees": merge_within_degrees,
        "entropy_samples": entropy_samples,
        "seed": seed,
    }
    check_folder(out)
    done = {path for path in found if resume and is_done(out, path, identity)}
    todo = [path for path in found if path not in done]
    if not overwrite:
        _refuse_existing(out, todo, only_finished=resume)
    results = {path: Written(structure_id(path), path, notes=("done before",)) for path in done}
    num = num_workers(len(todo), workers)
    with (
        worker_pool(num) as executor,
        new_progress(len(found), stream) as progress,
    ):
        progress.update(len(done))
        writes: dict[Future, Path] = {}

        def collect(block: bool) -> None:
            while writes:
                finished, _ = wait(writes, 0 if not block else None, FIRST_COMPLETED)
                for future in finished:
                    written = future.result()
                    results[writes.pop(future)] = written
                    progress.update(1, residues=written.num_residues)
                if not finished or len(writes) <= 4 * num:
                    return

        for given, protein, s in runner.run(todo, executor, num):
            if protein is None or s is None:
                if len(found) == 1:
                    raise QfitLatentError(given.error)
                results[given.path] = Written(given.entry, given.path, error=given.error)
                progress.update(1, failures=1)
                continue
            predicted = _predicted(
                runner, s, protein, given.entry, min_weight, merge_within_degrees,
                entropy_samples, seed,
            )  # fmt: skip
            writes[executor.submit(write_prediction, given, predicted, out, identity)] = given.path
            collect(block=len(writes) > 4 * num)
        while writes:
            collect(block=True)
    finish(runner, timing)
    return [results[path] for path in found]


def predict_folder(
    folder: str | Path,
    out: str | Path,
    *,
    model: str | Path | None = None,
    min_weight: float = 0.1,
    threads: int | None = None,
    device: str = "auto",
    stream: TextIO | None = None,
) -> list[Written]:
    """Predict every structure of a folder, going on where an earlier call stopped.

    A structure that cannot be used is reported in ``failures.csv`` of the output folder.

    Raises QfitLatentError when not a single structure could be used.
    """
    if threads is not None:
        torch.set_num_threads(max(1, threads))
    results = predict_structures(
        [folder],
        model,
        out,
        min_weight=min_weight,
        overwrite=True,
        resume=True,
        device=device,
        stream=sys.stderr if stream is None else stream,
    )
    write_failures(results, out)
    if all(result.error for result in results):
        raise QfitLatentError(
            f"None of the {len(results)} structures in {folder} can be used; the first: "
            f"{results[0].error}"
        )
    return results


def write_failures(results: Sequence[Written], out: str | Path) -> None:
    """``failures.csv``: the structures without a prediction, and why; gone when there are none."""
    failures = [result for result in results if result.error]
    path = Path(out) / "failures.csv"
    if not failures:
        path.unlink(missing_ok=True)
        return
    table = pa.table(
        {
            "entry": [result.entry for result in failures],
            "path": [result.path.as_posix() for result in failures],
            "error": [result.error for result in failures],
        }
    )
    with atomic_path(path) as temporary:
        pa.csv.write_csv(table, temporary)


def _predicted(
    runner: Runner,
    s: Tensor,
    protein: Protein,
    entry: str,
    min_weight: float,
    merge_within_degrees: float,
    entropy_samples: int,
    seed: int,
) -> Predicted:
    """Arrays to be written; the heaviest mode always counts, others from min_weight on."""
    has_chi = torch.from_numpy(NUM_CHI)[protein.token] > 0
    entropy = torch.zeros(len(protein))
    with torch.inference_mode():
        start = time.perf_counter()
        density = runner.density(s, protein.token)
        mixture = density.as_mixture()
        sampled = density.select(has_chi).entropy(entropy_samples, new_generator(seed, entry))
        runner.timing.head += time.perf_counter() - start
        entropy[has_chi] = sampled
        modes = mixture.modes(min_weight, math.radians(merge_within_degrees))
    width = int(modes.valid.sum(1).max())
    predicted = Predicted(
        row=as_rows(protein),
        weight=mixture.log_weight.exp().numpy(),
        mean=mixture.mean.numpy(),
        kappa=mixture.kappa.numpy(),
        entropy=entropy.numpy(),
        top_weight=modes.weight[:, 0].clamp(max=1.0).numpy(),  # a sum of rounded weights
        mode_weight=torch.where(modes.valid, modes.weight, 0.0)[:, :width].numpy(),
        mode_chi=modes.chi[:, :width].numpy(),
    )
    for name in ("weight", "mean", "kappa", "entropy", "mode_chi"):
        if not np.isfinite(getattr(predicted, name)[has_chi.numpy()]).all():
            raise QfitLatentError(
                f"The model gives {name} that is not a number for {entry}: the model is damaged or "
                "its training diverged; use another."
            )
    return predicted


def check_folder(out: Path) -> None:
    """Refuses a file in the folder's place, and clears away what a killed process left in it."""
    if out.exists() and not out.is_dir():
        raise QfitLatentError(f"{out} is a file: give a folder with --out.")
    sweep(out)


def _refuse_existing(out: Path, paths: Sequence[Path], only_finished: bool) -> None:
    """Results of an interrupted call count as absent where resuming."""
    for path in paths:
        files = output_paths(out, structure_id(path))
        for file in files[-1:] if only_finished else files:
            if file.exists():
                raise QfitLatentError(
                    f"{file} exists already: add --overwrite, or choose another folder with --out."
                )
