"""The same work on many items, in copies of this process that run side by side."""

import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from qfitlatent.base.contained import CAN_FORK
from qfitlatent.base.errors import QfitLatentError

Item = TypeVar("Item")
Result = TypeVar("Result")

_work: list[Callable[[Any], Any]] = []
"""What this process is a copy for; empty in the original."""


def forked(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    num_processes: int,
    prepare: Callable[[], object],
) -> Iterator[Result]:
    """``map(work, items)``, by so many copies of this process, each of which calls prepare first.

    The copies see all that this process has in memory; only results are sent, pickled. One process,
    or a system on which processes cannot be copied safely: no copies, and nothing is prepared.

    Raises QfitLatentError where a copy ends before its work.
    """
    num_processes = min(num_processes, len(items))
    if num_processes < 2 or not CAN_FORK:
        yield from map(work, items)
        return
    fork = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(num_processes, fork, _begin, (work, prepare))
    try:
        for result in pool.map(_call, items):
            yield pickle.loads(result)
    except BrokenProcessPool as error:
        raise QfitLatentError(
            f"One of {num_processes} processes ended before its work, as too little memory does: "
            "give the job more memory, or fewer cores."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(work: Callable[[Any], Any], prepare: Callable[[], object]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the original, which ends this
    _work.append(work)
    prepare()


def _call(item: Any) -> bytes:
    """Pickled here: the pool would send tensors through shared memory, which may be little."""
    return pickle.dumps(_work[0](item), pickle.HIGHEST_PROTOCOL)
