"""The logs of all shards: judged together, and written for files that are there already."""

import hashlib
import io
import os

import pyarrow.parquet as pq
import pytest

from helpers import archive_server as server_of
from helpers.archive_run import put
from helpers.archive_server import mmcif
from qfitlatent.archive.entries import EntryRef
from qfitlatent.archive.log import LOG_SCHEMA, check_missing, log_local_files, read_logs
from qfitlatent.base.errors import QfitLatentError


def test_too_many_missing_names_which_and_why(run, server, tmp_path):
    put(server, "1abc", "2abc", "3abc")
    run.log = tmp_path / "0.parquet"
    run("1abc", "2abc", status_url=None)
    run.log = tmp_path / "1.parquet"
    run("3abc", "4abc", status_url=None)
    logs = [tmp_path / "1.parquet", tmp_path / "0.parquet"]
    assert "3 of 4 entries are there" in check_missing(logs, 0.25)
    with pytest.raises(QfitLatentError) as error:
        check_missing(logs, 0.2)
    assert "1 of 4 entries are missing" in str(error.value)
    assert "4abc: not_found, HTTP 404" in str(error.value)
    assert "1 not_found" in str(error.value)
    assert read_logs(logs).column("entry").to_pylist() == ["1abc", "2abc", "3abc", "4abc"]


def test_shards_that_another_attempt_may_complete_are_asked_again(run, server, tmp_path):
    """Snakemake would take their logs for finished."""
    put(server, "1abc", "2abc")
    server.script["/2abc.cif.gz"] = [server_of.status(503)] * 3
    logs = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for path, ids in zip(logs, (("1abc", "9zzz"), ("2abc",)), strict=True):
        run.log = path
        run(*ids, status_url=None)
    with pytest.raises(QfitLatentError, match=r"2 of 3 .* Run again to ask for 1 of them"):
        check_missing(logs, 0.5)
    assert [path.exists() for path in logs] == [True, False]
    run("2abc", status_url=None)
    assert "2 of 3 entries are there" in check_missing(logs, 0.5)
    with pytest.raises(QfitLatentError, match="Remove them from the list"):
        check_missing(logs, 0.1)
    assert [path.exists() for path in logs] == [True, True]


def test_no_entry_at_all_is_always_too_few(run, server):
    run("1abc", status_url=None)
    with pytest.raises(QfitLatentError, match="1 of 1 entries are missing"):
        check_missing([run.log], 1.0)


def test_local_files_have_the_same_log(tmp_path):
    (tmp_path / "a.cif").write_bytes(mmcif("a"))
    (tmp_path / "folder.cif").mkdir()
    refs = [
        EntryRef("b", str(tmp_path / "b.cif")),
        EntryRef("a", str(tmp_path / "a.cif")),
        EntryRef("c"),
        EntryRef("d", str(tmp_path / "folder.cif")),
        EntryRef("e", str(tmp_path / "pipe.cif")),
    ]
    os.mkfifo(tmp_path / "pipe.cif")
    path = tmp_path / "log.parquet"
    rows = {r["entry"]: r for r in log_local_files(refs, "local", path, io.StringIO()).to_pylist()}
    assert list(rows) == ["a", "b", "c", "d", "e"]
    assert rows["a"]["sha256"] == hashlib.sha256(mmcif("a")).hexdigest()
    assert rows["a"]["num_bytes"] == len(mmcif("a"))
    assert rows["b"]["reason"] == rows["c"]["reason"] == rows["d"]["reason"] == "not_found"
    assert rows["e"]["detail"].endswith("pipe.cif: it is no regular file")
    assert rows["b"]["detail"].endswith("b.cif: No such file or directory")
    assert pq.read_schema(path).equals(LOG_SCHEMA)
    first = path.read_bytes()
    log_local_files(refs, "local", path, io.StringIO())
    assert path.read_bytes() == first
