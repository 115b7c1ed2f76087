"""The trained model in use: predict, score, sample and embed structures.

    from qfitlatent.predict import predict_structures, score_structures

    predict_structures(["my.pdb"], out="predicted")      # with the model that ships
    score_structures(["qfit.pdb"], "scores.parquet", model="results/runs/simulated")

``model`` is a run folder, a model file, or None for the one inside the package. A folder stands for
the structures in it. Structures are read, and results written, by worker processes while the
network runs here on batches of similar length; what is written does not depend on either.

Shapes: N residues of a structure, M observed rows, K components, J modes, S samples, D=4 chi.
"""

from __future__ import annotations

import copy
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path, sha256_file
from qfitlatent.base.progress import Progress
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI, PI_SYMMETRIC
from qfitlatent.density.autoregressive import AutoregressiveDensity
from qfitlatent.density.mixture import Modes, VonMisesMixture
from qfitlatent.density.von_mises import circular_distance
from qfitlatent.model.batch import Protein, collate
from qfitlatent.model.checkpoint import LoadedModel, load_model
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.model.heads import density_of
from qfitlatent.prediction_files import (
    SAMPLES,
    SCORES,
    Input,
    Predicted,
    Written,
    embedding_schema,
    find_structures,
    is_done,
    output_paths,
    read_input,
    structure_id,
    write_prediction,
    write_sample_models,
)
from qfitlatent.tables.columns import chi_columns, id_columns
from qfitlatent.tables.parquet import TableWriter, conform, write_table

Density = VonMisesMixture | AutoregressiveDensity


BATCH_RESIDUES = {"cpu": 1024, "cuda": 16384, "mps": 4096}
"""Residues of a batch, padding included: enough to fill the device, few enough for its memory."""


WINDOW = 32
"""Structures that are sorted by length before they are cut into batches."""


PADDING = 0.25
"""A batch's shortest structure is at most so much shorter than its longest."""


WORKERS_FROM = 8
"""From so many structures on, reading and writing go to processes of their own."""


MATCH_RADIANS = math.radians(30.0)
"""An altloc is near a mode when every chi is (SPEC 8)."""


HDR_SAMPLES = 512


@dataclass
class Timing:
    """Seconds of one call: all of it, in the encoder, and in the head that turns it into densities.

    The head's beam search and its draws for the entropy are counted with it.
    """

    total: float = 0.0
    encoder: float = 0.0
    head: float = 0.0
    started: float = field(default_factory=time.perf_counter)


class _Inline(Executor):
    """Runs what is submitted at once, in this process."""

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def _workers(num: int) -> Iterator[Executor]:
    """Processes of their own, started afresh: a fork would copy torch's threads and locks."""
    if num == 0:
        yield _Inline()
        return
    pool = ProcessPoolExecutor(num, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def num_workers(num_structures: int, asked: int | None) -> int:
    """Worker processes: as asked; otherwise none for few structures, else half of the cores."""
    if asked is not None:
        return asked
    if num_structures < WORKERS_FROM:
        return 0
    return max(1, min(8, len(os.sched_getaffinity(0)) // 2))


class Runner:
    """A model on its device, and the densities of many structures from it."""

    def __init__(self, model: str | Path | LoadedModel | None, device: str = "auto") -> None:
        loaded = model if isinstance(model, LoadedModel) else load_model(model)
        self.device = device(device)
        self.path = loaded.path
        self.sha256 = sha256_file(loaded.path)
        self.model = loaded.model.eval()
        if not all(torch.isfinite(value).all() for value in self.model.parameters()):
            raise QfitLatentError(
                f"The model {loaded.path} has weights that are not a number: it is damaged or its "
                "training diverged; use another."
            )
        # Densities are small and are evaluated on the CPU; the trunk is what needs the device.
        self.head = copy.deepcopy(self.model.head)
        self.model = self.model.to(self.device)
        self.timing = Timing()

    @torch.inference_mode()
    def encode(self, proteins: Sequence[Protein]) -> list[Tensor]:
        """(N,d_s) final single representation of each protein, on the CPU."""
        start = time.perf_counter()
        sizes = [len(protein) for protein in proteins]
        s = self.model.encode(collate(proteins).to(self.device)).float().cpu()
        self.timing.encoder += time.perf_counter() - start
        return list(s.split(sizes))

    @torch.inference_mode()
    def density(self, s: Tensor, token: Tensor) -> Density:
        """The density of residues s (N,d_s) of types token (N,), on the CPU."""
        chi_mask = torch.from_numpy(CHI_DEFINED)[token]
        symmetric = torch.from_numpy(PI_SYMMETRIC)[token]
        return density_of(self.head, s, chi_mask, symmetric)

    def run(
        self, paths: Sequence[Path], executor: Executor, num_parallel: int
    ) -> Iterator[tuple[Input, Protein | None, Tensor | None]]:
        """Each structure with its protein and single representation (N,d_s), as they come.

        A structure that cannot be used comes with its ``error`` and without the other two.
        """
        budget = BATCH_RESIDUES[self.device.type]
        for window in _windows(paths, executor, num_parallel):
            yield from ((given, None, None) for given in window if given.error)
            # A read that meets no other structure goes straight through.
            proteins = [
                (given, protein_from_tables(given.tables)) for given in window if not given.error
            ]
            for batch in batches_by_length(proteins, budget):
                encoded = self.encode([protein for _, protein in batch])
                yield from (
                    (given, protein, s) for (given, protein), s in zip(batch, encoded, strict=True)
                )


def _windows(paths: Sequence[Path], executor: Executor, num_parallel: int) -> Iterator[list[Input]]:
    """What has been read, in the order of paths, up to WINDOW at a time, reading ahead of it."""
    ahead = WINDOW + 4 * num_parallel if num_parallel else 1
    pending: list[Future] = []
    remaining = iter(paths)
    window: list[Input] = []
    while True:
        for path in remaining:
            pending.append(executor.submit(read_input, path))
            if len(pending) >= ahead:
                break
        if not pending:
            break
        window.append(pending.pop(0).result())
        if len(window) == WINDOW:
            yield window
            window = []
    if window:
        yield window


def batches_by_length(
    proteins: Sequence[tuple[Input, Protein]], budget: int
) -> list[list[tuple[Input, Protein]]]:
    """Structures of similar length together; a batch has at most ``budget`` padded residues.

    One that is longer than the budget is a batch of its own.
    """
    batches: list[list[tuple[Input, Protein]]] = []
    longest = 0
    for item in sorted(proteins, key=lambda item: -len(item[1])):
        size = len(item[1])
        fits = batches and longest * (len(batches[-1]) + 1) <= budget
        if fits and size >= (1.0 - PADDING) * longest:
            batches[-1].append(item)
        else:
            batches.append([item])
            longest = size
    return batches


def _generator(seed: int, entry: str) -> torch.Generator:
    """Draws depend on the seed and the structure's id, not on what else is predicted."""
    digest = int.from_bytes(entry.encode(), "little") % (2**61 - 1)
    return torch.Generator().manual_seed((seed * 1_000_003 + digest) % (2**63 - 1))


def _as_rows(protein: Protein) -> np.ndarray:
    return protein.residue_row.numpy()


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
    _check_folder(out)
    done = {path for path in found if resume and is_done(out, path, identity)}
    todo = [path for path in found if path not in done]
    if not overwrite:
        _refuse_existing(out, todo, only_finished=resume)
    results = {path: Written(structure_id(path), path, notes=("done before",)) for path in done}
    num = num_workers(len(todo), workers)
    with (
        _workers(num) as executor,
        _progress(len(found), stream) as progress,
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
    _finish(runner, timing)
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
        sampled = density.select(has_chi).entropy(entropy_samples, _generator(seed, entry))
        runner.timing.head += time.perf_counter() - start
        entropy[has_chi] = sampled
        modes = mixture.modes(min_weight, math.radians(merge_within_degrees))
    width = int(modes.valid.sum(1).max())
    predicted = Predicted(
        row=_as_rows(protein),
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


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise QfitLatentError(f"{out} is a file: give a folder with --out.")


def _refuse_existing(out: Path, paths: Sequence[Path], only_finished: bool) -> None:
    """Results of an interrupted call count as absent where resuming."""
    for path in paths:
        files = output_paths(out, structure_id(path))
        for file in files[-1:] if only_finished else files:
            if file.exists():
                raise QfitLatentError(
                    f"{file} exists already: add --overwrite, or choose another folder with --out."
                )


def _progress(total: int, stream: TextIO | None) -> Progress:
    return Progress(total, "structures", stream or open(os.devnull, "w"))


def _finish(runner: Runner, timing: Timing | None) -> None:
    if timing is not None:
        timing.encoder, timing.head = runner.timing.encoder, runner.timing.head
        timing.total = time.perf_counter() - runner.timing.started


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
    with _workers(num) as executor, _progress(len(found), stream) as progress:
        for given, protein, s in runner.run(found, executor, num):
            if protein is None or s is None:
                if len(found) == 1:
                    raise QfitLatentError(given.error)
                results[given.path] = Written(given.entry, given.path, error=given.error)
                progress.update(1, failures=1)
                continue
            density = runner.density(s, protein.token)
            table = _score(density, protein, given, surprising_above, _generator(seed, given.entry))
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
    level = density.hdr_level(chi, defined, rows, HDR_SAMPLES, generator).numpy()
    modes = density.as_mixture().modes(0.1, MATCH_RADIANS)
    missing_weight, missing_chi = missing_modes(modes, chi, defined, rows, symmetric)

    observed = _observed_rows(given, protein)
    columns: dict[str, Any] = id_columns(given.tables["residues"], _as_rows(protein)[rows.numpy()])
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


def _observed_rows(given: Input, protein: Protein) -> pa.Table:
    """The conformers of residues that have a frame: the rows M of the protein, in order."""
    has_frame = given.tables["frames"]["rotation"].is_valid()
    residues = given.tables["residues"].select(["chain", "index"]).filter(has_frame)
    keys = set(zip(residues["chain"].to_pylist(), residues["index"].to_pylist(), strict=True))
    conformers = given.tables["conformers"]
    pairs = zip(conformers["chain"].to_pylist(), conformers["index"].to_pylist(), strict=True)
    return conformers.filter(pa.array([pair in keys for pair in pairs], pa.bool_()))


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


def sample_structure(
    path: str | Path,
    num: int,
    out: str | Path = ".",
    model: str | Path | LoadedModel | None = None,
    *,
    seed: int = 0,
    file_format: str = "cif",
    overwrite: bool = False,
    device: str = "auto",
) -> list[Path]:
    """Independent draws of all chi: ``<id>.samples.parquet``, and a model a draw with side chains.

    The parquet has the columns of ``prediction_files.SAMPLES``, sorted by residue and draw; the
    coordinates are ``<id>_samples.cif`` or ``.pdb``. The same seed gives the same draws.

    Returns the paths written. Raises QfitLatentError as ``predict_structures`` does.
    """
    if num < 1:
        raise QfitLatentError(f"The number of draws is {num}: ask for at least 1.")
    if file_format not in ("cif", "pdb"):
        raise QfitLatentError(f"The format {file_format!r} is neither cif nor pdb.")
    runner, given, protein, files = _one(
        path, out, model, device, overwrite, (".samples.parquet", f"_samples.{file_format}")
    )
    (s,) = runner.encode([protein])
    with torch.inference_mode():
        density = runner.density(s, protein.token)
        chi = density.sample(num, _generator(seed, given.entry)).numpy()  # (S,N,D)
    has_chi = NUM_CHI[protein.token.numpy()] > 0
    rows = _as_rows(protein)[has_chi]
    columns: dict[str, Any] = id_columns(given.tables["residues"], np.repeat(rows, num))
    columns["sample"] = np.tile(np.arange(num), len(rows))
    mask = np.repeat(CHI_DEFINED[protein.token.numpy()[has_chi]], num, axis=0)
    columns |= chi_columns(
        "chi", chi[:, has_chi].transpose(1, 0, 2).reshape(-1, chi.shape[2]), "_rad", mask
    )
    note = {"model_sha256": runner.sha256, "input_sha256": given.sha256, "seed": str(seed)}
    if not write_sample_models(given, _as_rows(protein), chi, files[1], note):
        raise QfitLatentError(
            f"{path} has chain names of three characters, for which the PDB format has no room: "
            "use --format cif."
        )
    write_table(conform(pa.table(columns), SAMPLES, files[0]), files[0], SAMPLES)
    return files


def embed_structure(
    path: str | Path,
    out: str | Path = ".",
    model: str | Path | LoadedModel | None = None,
    *,
    overwrite: bool = False,
    device: str = "auto",
) -> list[Path]:
    """The final single representation of each residue: ``<id>.embedding.parquet`` and ``.npz``.

    The npz holds ``embedding`` (N,d_s) float32 and the id columns as arrays of N.

    Returns the paths written. Raises QfitLatentError as ``predict_structures`` does.
    """
    suffixes = (".embedding.parquet", ".embedding.npz")
    runner, given, protein, files = _one(path, out, model, device, overwrite, suffixes)
    runner.model.dropout_passes = 0  # a vector of the whole network, not of what masks leave of it
    (s,) = runner.encode([protein])
    ids = id_columns(given.tables["residues"], _as_rows(protein))
    schema = embedding_schema(s.shape[1])
    flat = pa.array(s.numpy().reshape(-1), pa.float32())
    embedding = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("embedding").type)
    write_table(pa.table({**ids, "embedding": embedding}), files[0], schema)
    arrays = {
        name: np.asarray(column.to_pylist(), dtype="U" if pa.types.is_string(column.type) else None)
        for name, column in ids.items()
        if not column.null_count
    }
    with atomic_path(files[1]) as temporary, open(temporary, "wb") as file:
        np.savez(file, embedding=s.numpy(), **arrays)
    return files


def _one(
    path: str | Path,
    out: str | Path,
    model: str | Path | LoadedModel | None,
    device: str,
    overwrite: bool,
    suffixes: Sequence[str],
) -> tuple[Runner, Input, Protein, list[Path]]:
    """A model and a single structure; the files that are to be written are not there."""
    out = Path(out)
    _check_folder(out)
    files = [out / f"{structure_id(path)}{suffix}" for suffix in suffixes]
    for file in files:
        if file.exists() and not overwrite:
            raise QfitLatentError(
                f"{file} exists already: add --overwrite, or choose another folder with --out."
            )
    if not Path(path).is_file():
        raise QfitLatentError(f"There is no file {path}: correct the path.")
    runner = Runner(model, device)
    given = read_input(Path(path))
    if given.error:
        raise QfitLatentError(given.error)
    protein = protein_from_tables(given.tables)
    return runner, given, protein, files
