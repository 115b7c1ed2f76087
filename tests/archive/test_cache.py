"""What is on the disk: after a second run, damage, a full disk, and a kill at any moment."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from helpers import archive_server as server_of
from helpers.archive_run import Runner, assert_there, put
from helpers.archive_server import gzipped, mmcif
from qfitlatent.base.errors import QfitLatentError


def test_second_run_asks_nothing_and_writes_the_same_log(run, server):
    put(server, "1abc", "2xyz")
    run("1abc", "2xyz")
    before, asked = run.log.read_bytes(), len(server.requests)
    run("1abc", "2xyz")
    assert run.log.read_bytes() == before
    assert len(server.requests) == asked


def test_second_run_fetches_only_what_is_missing(run, server):
    put(server, "1abc", "2xyz", "3def")
    run("1abc", "2xyz")
    Path(run.cache / "rcsb/xy/2xyz.cif.gz").unlink()
    rows = run("1abc", "2xyz", "3def")
    assert [server.asked(f"/{entry}.cif.gz") for entry in ("1abc", "2xyz", "3def")] == [1, 2, 1]
    assert all(row["reason"] is None for row in rows.values())


def test_a_file_that_changes_on_the_server_is_not_rewritten(run, server):
    old = put(server, "1abc")["/1abc.cif.gz"]
    run("1abc")
    server.files["/1abc.cif.gz"] = gzipped(mmcif("1abc", 30))
    assert_there(run, run("1abc")["1abc"], old)
    assert server.asked("/1abc.cif.gz") == 1


@pytest.mark.parametrize("damage", ["bytes", "length", "record"])
def test_damaged_cache_is_fetched_again_and_said(run, server, damage):
    data = put(server, "1abc")["/1abc.cif.gz"]
    path = Path(run("1abc")["1abc"]["path"])
    if damage == "bytes":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "length":
        path.write_bytes(data[:-1])
    else:
        path.with_name("1abc.record.json").write_text('{"path": ')
    row = run("1abc")["1abc"]
    assert_there(run, row, data)
    said = "record in the cache was unreadable" if damage == "record" else "logged sha256"
    assert said in row["detail"]
    assert said in run.text
    assert server.asked("/1abc.cif.gz") == 2
    run("1abc")
    assert server.asked("/1abc.cif.gz") == 2
    assert said not in run.text


def test_the_cache_is_shared_by_data_sets_and_may_be_moved(run, server, tmp_path):
    data = put(server, "1abc")["/1abc.cif.gz"]
    run("1abc")
    run.cache = run.cache.rename(tmp_path / "elsewhere")
    run.log = tmp_path / "another" / "log.parquet"
    row = run("1abc")["1abc"]
    assert_there(run, row, data)
    assert Path(row["path"]).is_relative_to(run.cache)
    assert server.asked("/1abc.cif.gz") == 1


PROGRAM = """
    import os, resource, sys
    from qfitlatent.archive.client import download_entries
    from qfitlatent.archive.entries import EntryRef
    from qfitlatent.base.errors import QfitLatentError
    settings, cache, log, limit, ids = {settings!r}, {cache!r}, {log!r}, {limit!r}, {ids!r}
    steps = iter(range(1, {kill_at!r}))
    def step(call):
        def stepped(*arguments):
            if {kill_at!r} and next(steps, None) is None:
                os.kill(os.getpid(), 9)
            return call(*arguments)
        return stepped
    os.fsync, os.replace = step(os.fsync), step(os.replace)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        download_entries([EntryRef(i) for i in ids], "rcsb", settings, cache, log)
    except QfitLatentError as error:
        sys.exit(str(error))
"""


def start(
    run: Runner, ids: list[str], limit: int = 0, kill_at: int = 0, **settings
) -> subprocess.Popen:
    """The same download in a process of its own."""
    code = textwrap.dedent(PROGRAM).format(
        settings=run.settings | settings,
        cache=str(run.cache),
        log=str(run.log),
        limit=limit,
        kill_at=kill_at,
        ids=ids,
    )
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)


def test_a_full_disk_is_one_sentence_and_what_arrived_stays(run, server):
    """RLIMIT_FSIZE gives EFBIG where a full disk gives ENOSPC; both are the same branch."""
    small = put(server, "1abc")["/1abc.cif.gz"]
    big = b"data_x\n" + random.Random(1).randbytes(60_000).hex().encode() + b"\n"
    server.files["/2big.cif.gz"] = gzipped(big)
    process = start(run, ["1abc", "2big"], limit=20_000, connections=1)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 1
    assert f"No space is left for {run.cache} after 1 of 2 entries" in said
    assert "Traceback" not in said
    assert not run.log.exists()
    assert run.files() == ["rcsb/ab/1abc.cif.gz", "rcsb/ab/1abc.record.json"]
    rows = run("1abc", "2big")
    assert_there(run, rows["1abc"], small)
    assert_there(run, rows["2big"], server.files["/2big.cif.gz"])
    assert server.asked("/1abc.cif.gz") == 1


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT"])
def test_no_space_and_quota(run, server, monkeypatch, number):
    import errno

    put(server, "1abc")

    def full(descriptor):
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(QfitLatentError, match="No space is left"):
        run("1abc")
    # The record alone is no file: the next run fetches it.
    assert run.files() == ["rcsb/ab/1abc.record.json"]
    monkeypatch.undo()
    assert_there(run, run("1abc")["1abc"], server.files["/1abc.cif.gz"])


def test_a_cache_that_cannot_be_written(run, server):
    put(server, "1abc")
    run.cache.write_text("a file where the folder should be")
    with pytest.raises(QfitLatentError, match="cannot be read or written after 0 of 1"):
        run("1abc")


@pytest.fixture
def anyone():
    """The rights of an ordinary user, also where the tests run as root; and a folder for them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)


def test_a_read_only_folder(server, anyone):
    put(server, "1abc", "2xyz")
    run = Runner(server, anyone)
    run("1abc")
    run.cache.joinpath("rcsb").chmod(0o555)
    run.cache.joinpath("rcsb/ab").chmod(0o555)
    try:
        assert run("1abc")["1abc"]["reason"] is None  # what is there needs no writing
        with pytest.raises(QfitLatentError, match=r"cannot be read or written .*Permission"):
            run("2xyz")
        assert len(run.files()) == 2
    finally:
        run.cache.joinpath("rcsb").chmod(0o755)
        run.cache.joinpath("rcsb/ab").chmod(0o755)
    assert run("2xyz")["2xyz"]["reason"] is None


def large(entry: str) -> bytes:
    """An entry that takes more than one piece, 160 kB that gzip cannot make smaller."""
    noise = random.Random(entry).randbytes(150_000).hex()
    return gzipped(mmcif(entry) + f"# {noise}\n".encode())


@pytest.mark.parametrize("moment", [0.1, 0.35])
def test_kill_in_mid_transfer(run, server, moment):
    """SIGKILL: nothing half-written under a final name, and the next run completes it."""
    ids = [f"{i}abc" for i in range(1, 9)]
    files = {f"/{entry}.cif.gz": large(entry) for entry in ids}
    server.files |= files
    for path in list(files)[1::2]:
        server.script[path] = [server_of.trickle(80_000, 2.0)]
    process = start(run, ids, read_timeout_s=5.0)
    deadline = time.monotonic() + 600
    while not any(name.endswith(".tmp") for name in run.files()) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=600)
    assert process.returncode == -signal.SIGKILL
    assert not run.log.exists()
    assert any(name.endswith(".tmp") for name in run.files())
    for name in run.files():
        if not Path(name).name.startswith(".") and name.endswith(".gz"):
            assert (run.cache / name).read_bytes() == files["/" + Path(name).name]
    for stale in run.cache.rglob(".*.tmp"):
        os.utime(stale, (0, 0))
    server.script.clear()
    rows = run(*ids)
    for entry in ids:
        assert_there(run, rows[entry], files[f"/{entry}.cif.gz"])
    assert not any(name.endswith(".tmp") for name in run.files())


@pytest.mark.parametrize("step", range(1, 6))
def test_kill_at_every_step(run, server, step):
    """Before each rename and fsync: of the record, of the file, of the log."""
    data = put(server, "1abc")["/1abc.cif.gz"]
    process = start(run, ["1abc"], kill_at=step)
    process.communicate(timeout=600)
    assert process.returncode == -signal.SIGKILL
    final = run.cache / "rcsb/ab/1abc.cif.gz"
    assert final.exists() == (step > 3)
    assert not run.log.exists()
    if final.exists():
        assert final.read_bytes() == data
    assert_there(run, run("1abc")["1abc"], data)
    assert server.asked("/1abc.cif.gz") == (1 if step > 3 else 2)
