"""One file that breaks the reader is a row; the others are as if it were not there."""

import io
import os
import signal
import time

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from helpers.peptides import peptide, read, with_altlocs
from qfitlatent.archive.log import LOG_SCHEMA
from qfitlatent.base.contained import CAN_FORK
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.structure import preprocess
from qfitlatent.structure.rejections import check_unexpected
from qfitlatent.tables import schemas
from qfitlatent.tables.parquet import read_table

ENTRIES = ["a", "b", "bad", "c", "d"]


@pytest.fixture
def log(tmp_path):
    """The log of five good files."""
    rows = []
    for entry in ENTRIES:
        folder = tmp_path / entry
        folder.mkdir()
        read(folder, peptide(with_altlocs("LEU", {"A": (0.6, [1.0, 2.0]), "B": (0.4, [2.0, 1.0])})))
        rows.append({"entry": entry, "source": "local", "path": f"{folder}/x.cif", "attempts": 0})
    pq.write_table(pa.Table.from_pylist(rows, schema=LOG_SCHEMA), tmp_path / "log.parquet")
    return tmp_path / "log.parquet"


def tables_of(folder) -> dict[str, pa.Table]:
    return {name: read_table(folder / f"{name}.parquet") for name in schemas.SCHEMAS}


def run(log, name="out", **settings) -> tuple[dict[str, pa.Table], str]:
    stream = io.StringIO()
    preprocess.preprocess_entries(log, log.parent / name, settings, stream=stream)
    return tables_of(log.parent / name), stream.getvalue()


def raises() -> None:
    raise ZeroDivisionError("a mistake of ours")


def eats_memory() -> None:
    bytearray(50 << 30)


def hangs() -> None:
    time.sleep(600)


def crashes() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


forked = pytest.mark.skipif(not CAN_FORK, reason="no process of its own here")


@pytest.mark.parametrize("step", ["parse_file", "make_tables"])
@pytest.mark.parametrize(
    ("breaks", "reason", "words"),
    [
        (raises, "unexpected_error", "ZeroDivisionError: a mistake of ours"),
        pytest.param(eats_memory, "beyond_limit", "more memory", marks=forked),
        pytest.param(hangs, "beyond_limit", "longer than 1 second", marks=forked),
        pytest.param(crashes, "unexpected_error", f"signal {signal.SIGUSR1:d}", marks=forked),
    ],
)
def test_one_bad_file_is_a_row(log, monkeypatch, capfd, step, breaks, reason, words):
    whole, _ = run(log, "whole")
    original = getattr(preprocess, step)

    def breaking(given, *arguments, **options):
        bad = (
            "/bad/" in str(given)
            if step == "parse_file"
            else any(parsed.entry == "bad" and parsed.rejection is None for parsed in given)
        )
        if bad:
            breaks()
        return original(given, *arguments, **options)

    monkeypatch.setattr(preprocess, step, breaking)
    found, printed = run(log, max_seconds=1, max_memory_gb=1)
    (row,) = [r for r in found["rejected"].to_pylist() if r["scope"] == "entry"]
    assert (row["entry"], row["stage"], row["reason"]) == ("bad", "preprocess", reason)
    assert words in row["detail"]
    for name, table in whole.items():
        expected = table.filter(pc.not_equal(table["entry"], "bad"))
        got = found[name].filter(pc.not_equal(found[name]["entry"], "bad"))
        assert got.equals(expected), name
    assert ("1 of 5 entries raised an unexpected error" in printed) == (reason != "beyond_limit")
    assert ("Traceback" in capfd.readouterr().err) == (breaks in (raises, eats_memory))


def test_too_many_unexpected_errors_stop_the_run():
    rows = [
        {"entry": f"e{i}", "stage": "preprocess", "scope": "entry", "reason": reason, "detail": "x"}
        for i, reason in enumerate(["unexpected_error", "unexpected_error", "no_protein"])
    ]
    rejected = pa.Table.from_pylist(rows, schema=schemas.REJECTED)
    assert "2 of 40 entries" in check_unexpected(rejected, 40, 0.05)
    with pytest.raises(QfitLatentError, match=r"2 of 39 .* e0: x; e1: x"):
        check_unexpected(rejected, 39, 0.05)
