"""Work in a process of its own that limits of time and memory can stop.

A library that hangs or crashes in compiled code cannot be stopped from within its own process.
"""

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, MutableSequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

POLL_S = 0.5
CAN_FORK = sys.platform.startswith("linux")
"""Elsewhere a process cannot be copied safely; work is then done in this one, without limits."""


@dataclass(frozen=True)
class Limits:
    """What one item may take: seconds by the clock, gigabytes beside what the program has."""

    seconds: float
    memory_gb: float


class Stopped(Exception):
    """The process ended before its work: at items first to last; first is -1 for none of them.

    by_limit: it took too long, or was killed from outside, as systems do that run out of memory.
    """

    def __init__(self, first: int, last: int, why: str, by_limit: bool) -> None:
        super().__init__(why)
        self.first, self.last, self.by_limit = first, last, by_limit


Watch = Callable[[int, int], None]
"""Called with the first and last number of the items that are now worked on."""


def contained(work: Callable[[Watch], Iterator[bytes]], limits: Limits) -> Iterator[bytes]:
    """What ``work`` yields, from a copy of this process.

    Time counts from each call of its watch to the next, or to the next piece.

    Raises:
        Stopped: the process took too long, or ended in another way than by finishing its work.
    """
    if not CAN_FORK:
        yield from work(lambda first, last: None)
        return
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    state = fork.RawArray("q", [-1, -1, 0])
    process = fork.Process(target=_run, args=(work, limits, receiver, sender, state), daemon=True)
    process.start()
    sender.close()
    seen, since = tuple(state), time.monotonic()
    try:
        while True:
            if receiver.poll(POLL_S):
                try:
                    piece = receiver.recv_bytes()
                except EOFError:
                    break
                yield piece
            now = tuple(state)
            if now != seen or now[0] < 0:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > limits.seconds:
                raise Stopped(
                    now[0], now[1], f"it took longer than {limits.seconds:g} seconds", True
                )
        process.join()
        if process.exitcode:
            raise _stopped(process.exitcode, state)
    finally:
        process.kill()
        process.join()
        receiver.close()


def _stopped(exitcode: int, state: MutableSequence[int]) -> Stopped:
    if exitcode == -9:  # SIGKILL
        return Stopped(state[0], state[1], "the process was killed, as for want of memory", True)
    how = f"died of signal {-exitcode}" if exitcode < 0 else "ended with an error"
    return Stopped(state[0], state[1], f"the process {how}", False)


def _run(
    work: Callable[[Watch], Iterator[bytes]],
    limits: Limits,
    receiver: Connection,
    sender: Connection,
    state: MutableSequence[int],
) -> None:
    receiver.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other side, which ends this
    _limit_memory(limits.memory_gb)

    def watch(first: int, last: int) -> None:
        state[0], state[1], state[2] = first, last, state[2] + 1

    for piece in work(watch):
        watch(-1, -1)  # waiting until the other side takes it is nobody's fault
        sender.send_bytes(piece)


def _limit_memory(gigabytes: float) -> None:
    """Memory beyond what the process has already fails to be allocated (MemoryError)."""
    import resource  # Unix alone has it

    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + int(gigabytes * 1e9)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    bounds = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([most, *bounds]), hard))
