"""Structures through the network: worker processes read and write, batches of like length run here.

Shapes: N residues of a structure, K components, S samples.
"""

import copy
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import sha256_file
from qfitlatent.base.progress import Progress
from qfitlatent.chemistry.residues import CHI_DEFINED, PI_SYMMETRIC
from qfitlatent.density.protocol import Density
from qfitlatent.model.batch import Protein, collate
from qfitlatent.model.checkpoint import LoadedModel, load_model
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.model.device import choose_device
from qfitlatent.prediction.records import Input, read_input

BATCH_RESIDUES = {"cpu": 1024, "cuda": 16384, "mps": 4096}
"""Residues of a batch, padding included: enough to fill the device, few enough for its memory."""


WINDOW = 32
"""Structures that are sorted by length before they are cut into batches."""


PADDING = 0.25
"""A batch's shortest structure is at most so much shorter than its longest."""


WORKERS_FROM = 8
"""From so many structures on, reading and writing go to processes of their own."""


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
def worker_pool(num: int) -> Iterator[Executor]:
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
        self.device = choose_device(device)
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
    def embed(self, protein: Protein) -> Tensor:
        """(N,width) final single representation without dropout, on the CPU."""
        return self.model.embed(collate([protein]).to(self.device)).float().cpu()

    @torch.inference_mode()
    def density(self, s: Tensor, token: Tensor) -> Density:
        """The density of residues s (N,d_s) of types token (N,), on the CPU."""
        chi_mask = torch.from_numpy(CHI_DEFINED)[token]
        symmetric = torch.from_numpy(PI_SYMMETRIC)[token]
        return self.head(s, chi_mask, symmetric)

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


def new_generator(seed: int, entry: str) -> torch.Generator:
    """Draws depend on the seed and the structure's id, not on what else is predicted."""
    digest = int.from_bytes(entry.encode(), "little") % (2**61 - 1)
    return torch.Generator().manual_seed((seed * 1_000_003 + digest) % (2**63 - 1))


def as_rows(protein: Protein) -> np.ndarray:
    return protein.residue_row.numpy()


def new_progress(total: int, stream: TextIO | None) -> Progress:
    return Progress(total, "structures", stream or open(os.devnull, "w"))


def finish(runner: Runner, timing: Timing | None) -> None:
    if timing is not None:
        timing.encoder, timing.head = runner.timing.encoder, runner.timing.head
        timing.total = time.perf_counter() - runner.timing.started
