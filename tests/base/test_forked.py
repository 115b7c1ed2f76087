"""Work that copies of the process share."""

import os

import pytest

from qfitlatent.base.contained import CAN_FORK
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.forked import forked

ready: list[int] = []


def prepare() -> None:
    ready.append(1)


def work(item: int) -> tuple[int, int, bool]:
    return item * factor, os.getpid(), bool(ready)


factor = 3


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order_whoever_makes_them(processes):
    results = list(forked(work, range(6), processes, prepare))
    assert [value for value, _, _ in results] == [0, 3, 6, 9, 12, 15]
    in_copies = processes > 1 and CAN_FORK
    assert all((pid != os.getpid()) == prepared == in_copies for _, pid, prepared in results)
    assert not ready


def test_errors_reach_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(forked(lambda item: 1 // item, [1, 0, 1, 1], 2, prepare))


@pytest.mark.skipif(not CAN_FORK, reason="no copies here")
def test_a_copy_that_dies_is_a_sentence():
    with pytest.raises(QfitLatentError, match="too little memory"):
        list(forked(lambda item: os._exit(9) if item else 0, [0, 1], 2, prepare))
