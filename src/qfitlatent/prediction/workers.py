"""Worker processes that read and write structures, for a process that has the network.

A worker starts afresh and imports what it is asked to do, so nothing here imports torch: that would
take each of them two seconds of a core.
"""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from qfitlatent.base.files import structure_id
from qfitlatent.base.lean import without_pandas
from qfitlatent.base.machine import num_cores
from qfitlatent.prediction.records import Input, Written, attempt, read_inputs

WINDOW = 32
"""Structures that are sorted by length before they are cut into batches, once work is under way."""

WORKERS_FROM = 8
"""From so many structures on, reading and writing go to processes of their own."""

T = TypeVar("T")

Write = Callable[[Input, Any], Written]
"""What was computed to files; without torch, and found by name in a worker process."""

Computed = tuple[Path, Input | Written, Any]
"""Path, input and what ``compute`` gives, or what became of the structure instead."""


class Workers:
    """``map`` in processes of their own, or here where there are none.

    They are started afresh: a fork would copy torch's threads and locks.
    """

    def __init__(self, num: int) -> None:
        self.num = num

    def __enter__(self) -> Self:
        self._pool = self._new_pool(self.num) if self.num else None
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def read(self, items: Sequence[tuple[Path, str]]) -> Callable[[], list[Input | Written]]:
        """Paths and ids, as ``map`` does."""
        return self.map(_read, items) if self._pool else partial(read_inputs, items)

    def map(self, step: Callable[[Any], Any], items: Sequence[tuple]) -> Callable[[], list]:
        """Begins; the function that is returned waits. The first of each item is a path."""
        pool = self._pool
        if pool is None:
            return lambda: [step(item) for item in items]
        with _deaf_to_interrupts():
            results = pool.map(step, items)

        def wait() -> list:
            try:
                return list(results)
            except BrokenProcessPool:
                if self._pool is pool:
                    self._pool = self._new_pool(self.num)
                return [self._alone(step, item) for item in items]

        return wait

    def _alone(self, step: Callable[[Any], Any], item: tuple) -> Any:
        """An item in a process of its own: that one dies whose item killed the others."""
        try:
            with self._new_pool(1) as pool:
                with _deaf_to_interrupts():
                    future = pool.submit(step, item)
                return future.result()
        except BrokenProcessPool:
            path = item[0]
            sentence = (
                f"{path} ended the process that worked on it, as too little memory does: predict "
                "it by itself, on a larger machine."
            )
            return Written(structure_id(path), path, "process_died", sentence)

    def _new_pool(self, num: int) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(num, mp_context=spawn, initializer=without_pandas)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that start here finish what they write when Ctrl-C ends this one.

    They inherit that the signal is blocked; here it arrives when the block ends.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def windows(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """One item, then two, four and so on to ``WINDOW``: the first result does not wait."""
    start, size = 0, 1
    while start < len(items):
        yield items[start : start + size]
        start, size = start + size, min(2 * size, WINDOW)


def num_workers(num_structures: int, asked: int | None) -> int:
    """Worker processes: as asked; otherwise none for few structures, else half of the cores.

    None where there is one core: they would only take turns.
    """
    if asked is not None:
        return asked
    return 0 if num_structures < WORKERS_FROM else min(8, num_cores() // 2)


def _read(item: tuple[Path, str]) -> Input | Written:
    return read_inputs([item])[0]


def write_computed(writes: Write, item: Computed) -> Written:
    path, given, value = item
    if isinstance(given, Written):
        return given
    return attempt(writes, path, given, value)


def ahead(one: bool, begun: Iterable[Callable[[], list]]) -> Iterator[list]:
    """What has been begun, in its order; ``one``: the next is begun before one is waited for."""
    waiting: deque[Callable[[], list]] = deque()
    for wait in begun:
        waiting.append(wait)
        if len(waiting) > one:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()
