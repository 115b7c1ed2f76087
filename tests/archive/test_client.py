"""The archive client against a hostile server: what the log says, what is on disk, what is next."""

import gzip
import hashlib
import io
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from email.utils import formatdate
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from helpers import archive_server as server_of
from helpers.archive_server import ArchiveServer, gzipped, mmcif
from qfitlatent.archive import client, content, http, log
from qfitlatent.archive.client import download_entries
from qfitlatent.archive.entries import EntryRef, middle
from qfitlatent.archive.log import check_missing, log_local_files
from qfitlatent.base import config
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.tables.reasons import Reason

PDB = b"HEADER    HYDROLASE\nATOM      1  CA  ALA A   1      11.1  12.2  13.3  1.0 20.0\nEND\n"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Waits scaled down; everything else as it runs in earnest."""
    monkeypatch.setattr(http, "BACKOFF_S", 0.01)
    monkeypatch.setattr(http, "BACKOFF_MAX_S", 0.05)


@pytest.fixture
def server():
    with ArchiveServer() as running:
        yield running


class Runner:
    """Downloads with one server into one folder, as often as a test likes."""

    def __init__(self, server: ArchiveServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.cache, self.log = folder / "raw", folder / "log.parquet"
        self.text = ""
        self.settings = config.load()["download"] | {
            "rcsb_url": server.template,
            "rcsb_pdb_url": server.url + "/{id}.pdb.gz",
            "pdb_redo_url": server.url + "/redo/{id}_final.cif",
            "url": server.url + "/any/{id}",
            "status_url": server.url + "/obsolete.dat",
            "connections": 4,
            "connect_timeout_s": 2.0,
            "read_timeout_s": 0.3,
            "attempts": 3,
        }

    def __call__(self, *ids: str, source: str = "rcsb", **settings) -> dict[str, dict]:
        stream = io.StringIO()
        refs = [EntryRef(entry) for entry in ids]
        try:
            download_entries(
                refs, source, self.settings | settings, self.cache, self.log, stream=stream
            )
        finally:
            self.text = stream.getvalue()
        return {row["entry"]: row for row in pq.read_table(self.log).to_pylist()}

    def files(self) -> list[str]:
        """Everything below the cache, temporary files too."""
        return sorted(str(p.relative_to(self.cache)) for p in self.cache.rglob("*") if p.is_file())


@pytest.fixture
def run(server, tmp_path):
    return Runner(server, tmp_path)


def put(server: ArchiveServer, *ids: str, num_atoms: int = 20) -> dict[str, bytes]:
    files = {f"/{entry}.cif.gz": gzipped(mmcif(entry, num_atoms)) for entry in ids}
    server.files |= files
    return files


def assert_there(run: Runner, row: dict, data: bytes) -> None:
    """The row is that of a complete file, and the file has these bytes."""
    assert row["reason"] is None
    assert row["status"] == 200
    assert row["sha256"] == hashlib.sha256(data).hexdigest()
    assert row["num_bytes"] == len(data)
    assert Path(row["path"]).read_bytes() == data


def assert_missing(run: Runner, row: dict, reason: Reason, says: str) -> None:
    """The row gives the reason, and nothing of the file is on disk, under any name."""
    assert row["reason"] == reason
    assert says in row["detail"]
    assert row["path"] is None
    assert row["sha256"] is None
    assert run.files() == []
    assert f"{row['entry']}: " in run.text


# -- a server in good order -------------------------------------------------------------------


def test_layout_log_and_politeness(run, server):
    files = put(server, "1abc", "2xyz", "pdb_12345678")
    rows = run("1abc", "2xyz", "pdb_12345678")
    assert run.files() == [
        "rcsb/67/pdb_12345678.cif.gz",
        "rcsb/67/pdb_12345678.record.json",
        "rcsb/ab/1abc.cif.gz",
        "rcsb/ab/1abc.record.json",
        "rcsb/xy/2xyz.cif.gz",
        "rcsb/xy/2xyz.record.json",
    ]
    for entry, row in rows.items():
        assert_there(run, row, files[f"/{entry}.cif.gz"])
        assert row["url"] == server.url + f"/{entry}.cif.gz"
        assert (row["source"], row["attempts"]) == ("rcsb", 1)
        assert row["last_modified"] == "2015-10-21T07:28:00Z"
        assert 0 < row["seconds"] < 10
    for _, _, headers in server.requests:
        assert headers["User-Agent"].startswith("qFitLatent/")
        assert headers["Accept-Encoding"] == "identity"
    assert "3 of 3 entries are there" in run.text
    schema = pq.read_schema(run.log)
    assert schema.field("num_bytes").metadata[b"unit"] == b"byte"
    assert all(field.metadata[b"description"] for field in schema)


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


def test_templates_of_every_source(run, server):
    server.files |= {
        "/1abc.pdb.gz": gzipped(PDB),
        "/redo/1abc_final.cif": mmcif("1abc"),
        "/any/Mine-1.x": PDB,
        "/divided/mmCIF/ab/1abc.cif.gz": gzipped(mmcif("1abc")),
    }
    assert run("1abc", format="pdb")["1abc"]["path"].endswith("rcsb_pdb/ab/1abc.pdb.gz")
    assert run("1abc", source="pdb_redo")["1abc"]["path"].endswith("pdb_redo/ab/1abc.cif")
    mirror = server.url + "/divided/mmCIF/{mid}/{id}.cif.gz"
    assert run("1abc", rcsb_url=mirror)["1abc"]["url"].endswith("/ab/1abc.cif.gz")
    free = run("Mine-1.x", source="url")["Mine-1.x"]
    assert Path(free["path"]).name == "Mine-1.x.pdb"
    assert Path(free["path"]).parent.name == middle("Mine-1.x") == "1_"


@pytest.mark.parametrize(
    "template", ["http://x/{ID}.cif", "http://x/a.cif", "http://x/{id}/{", "http://x/{id[0]}"]
)
def test_bad_template_is_a_sentence(run, template):
    with pytest.raises(QfitLatentError, match=r"download\.url"):
        run("a", source="url", url=template)


def test_proxy_and_netrc_of_the_environment_hold(run, server, tmp_path, monkeypatch):
    data = put(server, "1abc")["/1abc.cif.gz"]
    server.files["http://archive.example/1abc.cif.gz"] = data
    netrc = tmp_path / "netrc"
    netrc.write_text("machine archive.example login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    row = run("1abc", rcsb_url="http://archive.example/{id}.cif.gz")["1abc"]
    assert_there(run, row, data)
    assert server.requests[0][2]["Authorization"].startswith("Basic ")
    assert_there(run, run("1abc", rcsb_url=server.template)["1abc"], data)


def test_connections_are_bounded(run, server):
    put(server, *(f"{i}abc" for i in range(10)))
    server.latency_s = 0.05
    run(*(f"{i}abc" for i in range(10)), connections=3)
    assert server.most_at_once == 3


# -- faults that pass -------------------------------------------------------------------------

PASSING = {
    "503 twice": [server_of.status(503)] * 2,
    "500, 504": [server_of.status(500), server_of.status(504)],
    "cut with length": [server_of.cut] * 2,
    "cut without length": [server_of.cut_silently] * 2,
    "chunks that end": [server_of.chunked(0.5)] * 2,
    "corrupt gzip": [server_of.corrupt] * 2,
    "html with 200": [server_of.html] * 2,
    "empty": [server_of.whole(b"")] * 2,
    "json with 200": [server_of.whole(b'{"error": "busy"}')] * 2,
    "reset": [server_of.reset] * 2,
    "stall before": [server_of.stall(0.8)],
    "stall within": [server_of.stall(0.8, after=0.5)],
    "one of each": [server_of.corrupt, server_of.status(502)],
}


@pytest.mark.parametrize("script", PASSING.values(), ids=PASSING.keys())
def test_a_fault_that_passes(run, server, script):
    data = put(server, "1abc", num_atoms=200)["/1abc.cif.gz"]
    server.script["/1abc.cif.gz"] = list(script)
    row = run("1abc")["1abc"]
    assert_there(run, row, data)
    assert row["attempts"] == len(script) + 1 == server.asked("/1abc.cif.gz")
    assert row["detail"] is None
    assert len(run.files()) == 2


STAYING = {
    "404": (server_of.status(404), Reason.NOT_FOUND, "HTTP 404", 1),
    "410": (server_of.status(410), Reason.NOT_FOUND, "HTTP 410", 1),
    "403": (server_of.status(403), Reason.REFUSED, "HTTP 403", 1),
    "501": (server_of.status(501), Reason.SERVER_ERROR, "HTTP 501", 1),
    "503": (server_of.status(503), Reason.SERVER_ERROR, "HTTP 503", 3),
    "429": (server_of.status(429), Reason.SERVER_ERROR, "HTTP 429", 3),
    "429, patience": (
        server_of.status(429, Retry_After="7200"),
        Reason.SERVER_ERROR,
        "asks to wait 2 h 00 min",
        1,
    ),
    "html": (server_of.html, Reason.BAD_RESPONSE, "a web page, beginning '<!DOCTYPE html>", 3),
    "cut": (server_of.cut, Reason.TRUNCATED, "cut short", 3),
    "cut silently": (server_of.cut_silently, Reason.TRUNCATED, "gzip stream ends too early", 3),
    "chunks": (server_of.chunked(0.5), Reason.TRUNCATED, "cut short", 3),
    "corrupt": (server_of.corrupt, Reason.CORRUPT, "gzip stream is damaged", 3),
    "stall": (server_of.stall(1.5), Reason.TIMEOUT, "no answer from 127.0.0.1", 3),
    "stall within": (server_of.stall(1.5, 0.5), Reason.TIMEOUT, "nothing arrived for 0.3 s", 3),
    "trickle": (server_of.trickle(10, 0.1), Reason.TIMEOUT, "bytes arrived in", 3),
    "reset": (server_of.reset, Reason.CONNECTION_ERROR, "no connection to 127.0.0.1", 3),
    "encoded": (
        server_of.whole(b"\x0b\x02\x80", Content_Encoding="br"),
        Reason.BAD_RESPONSE,
        "sent with Content-Encoding br",
        3,
    ),
    "redirects in a circle": (
        server_of.redirect("/1abc.cif.gz"),
        Reason.BAD_RESPONSE,
        "5 redirects",
        1,
    ),
    "redirect to a file": (
        server_of.redirect("file:///etc/passwd"),
        Reason.BAD_RESPONSE,
        "No connection adapters",
        1,
    ),
}


@pytest.mark.parametrize(("answer", "reason", "says", "attempts"), STAYING.values(), ids=STAYING)
def test_a_fault_that_stays(run, server, answer, reason, says, attempts):
    data = put(server, "1abc", num_atoms=200)["/1abc.cif.gz"]
    server.script["/1abc.cif.gz"] = [answer] * 20
    row = run("1abc", status_url=None)["1abc"]
    assert_missing(run, row, reason, says)
    assert row["attempts"] == attempts
    assert "1 are missing: 1 " in run.text
    # A missing entry is no final word: the next run asks again.
    server.script.clear()
    assert_there(run, run("1abc")["1abc"], data)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_holds_for_every_connection(run, server, form):
    put(server, *(f"{i}abc" for i in range(9)))
    after = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    server.script["/0abc.cif.gz"] = [server_of.status(429, Retry_After=after)]
    server.latency_s = 0.05
    rows = run(*(f"{i}abc" for i in range(9)), connections=2)
    assert all(row["reason"] is None for row in rows.values())
    assert rows["0abc"]["attempts"] == 2
    moments = [moment for _, moment, _ in server.requests]
    # At most the request already under way at the other connection; then silence for a second.
    assert sum(m - moments[0] < 0.9 for m in moments) <= 3
    assert max(later - earlier for earlier, later in itertools.pairwise(moments)) > 0.9


def test_retry_after_of_a_last_attempt_holds_too(run, server):
    put(server, "0abc", "1abc")
    server.script["/0abc.cif.gz"] = [server_of.status(429, Retry_After="1")]
    rows = run("0abc", "1abc", connections=1, attempts=1)
    assert rows["0abc"]["reason"] == Reason.SERVER_ERROR
    assert rows["1abc"]["reason"] is None
    assert server.requests[1][1] - server.requests[0][1] > 0.9


def test_redirect_is_followed_and_said(run, server):
    data = put(server, "1abc")["/1abc.cif.gz"]
    server.files["/moved/1abc.cif.gz"] = data
    server.script["/1abc.cif.gz"] = [server_of.redirect("/moved/1abc.cif.gz", 301)]
    row = run("1abc")["1abc"]
    assert_there(run, row, data)
    assert row["detail"] == f"redirected to {server.url}/moved/1abc.cif.gz"


@pytest.mark.parametrize(
    ("body", "encoding", "name"),
    [
        (gzipped(mmcif("1abc")), "gzip", "1abc.cif.gz"),
        (mmcif("1abc"), "gzip", "1abc.cif"),
        (mmcif("1abc"), "br", "1abc.cif"),
        (gzipped(PDB), "x-gzip", "1abc.pdb.gz"),
    ],
)
def test_wrong_content_encoding_does_not_matter(run, server, body, encoding, name):
    """The name follows the content, so that readers open the file as what it is."""
    server.script["/1abc.cif.gz"] = [server_of.whole(body, Content_Encoding=encoding)]
    row = run("1abc")["1abc"]
    assert_there(run, row, body)
    assert Path(row["path"]).name == name


def test_plain_text_of_unknown_length(run, server):
    """Without length and without gzip only syntax can tell; the log says that it had to."""
    text = mmcif("1abc", 50)
    server.files["/redo/1abc_final.cif"] = text
    server.script["/redo/1abc_final.cif"] = [server_of.cut_silently, server_of.no_length]
    row = run("1abc", source="pdb_redo")["1abc"]
    assert_there(run, row, text)
    assert row["attempts"] == 2
    assert "checked by syntax only" in row["detail"]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        (PDB, True),
        (PDB.rstrip(), True),
        (PDB[:-4], True),
        (PDB[:40], False),
        (mmcif("1abc"), True),
        (mmcif("1abc")[:-30], False),
        (b"data_x\nloop_\n_a.b\n_a.c\n1\n", False),
    ],
)
def test_end_of_plain_text(tmp_path, text, whole):
    path = tmp_path / "file"
    path.write_bytes(text)
    suffix = content.structure_suffix(text)
    if whole:
        content.check_text(path, suffix)
    else:
        with pytest.raises(http.Fault):
            content.check_text(path, suffix)


def test_gzip_of_several_members_and_every_cut_of_it():
    data = gzipped(mmcif("1abc")) + gzipped(b"# more\n")

    def check(pieces):
        checked = content.GzipCheck()
        for piece in pieces:
            checked.feed(piece)
        checked.close()

    check([data])
    check([data[i : i + 7] for i in range(0, len(data), 7)])
    first = len(gzipped(mmcif("1abc")))
    for end in range(len(data)):
        if end != first:  # that is a whole file of one member
            with pytest.raises(http.Fault):
                check([data[:end]])


def test_chunked_transfer_is_complete(run, server):
    data = put(server, "1abc", num_atoms=500)["/1abc.cif.gz"]
    server.script["/1abc.cif.gz"] = [server_of.chunked()]
    assert_there(run, run("1abc")["1abc"], data)


def test_content_decides_what_a_file_is():
    suffix = content.structure_suffix
    assert suffix(b"\xef\xbb\xbf# comment\n\n  \ndata_1ABC\n") == ".cif"
    assert suffix(b"DATA_x") == ".cif"
    assert suffix(b"CRYST1   10.0") == ".pdb"
    assert suffix(gzip.compress(b"REMARK 1\n")) == ".pdb.gz"
    for other in (b"", b"  \n", b"<html>", b"{}", b"\x00\x01", b"database", gzip.compress(b"hi")):
        with pytest.raises(http.Fault):
            suffix(other)


# -- obsolete entries -------------------------------------------------------------------------

OBSOLETE = b""" LIST OF OBSOLETE COORDINATE ENTRIES AND SUCCESSORS
OBSLTE    31-JUL-94 116L     216L
OBSLTE    18-JUL-84 1HHB     2HHB 3HHB 4HHB
OBSLTE    18-JUL-99 2HHB     5HHB
OBSLTE    21-NOV-03 1HG6
OBSLTE    21-NOV-06 1OLD     2NEW
OBSLTE    21-NOV-04 1CIR     2CIR
OBSLTE    21-NOV-05 2CIR     1CIR
OBSLTE    21-NOV-25 pdb_10001ext     pdb_10002ext
"""


def test_obsolete_entries_are_replaced_and_recorded(run, server):
    successors = {"116l": "216l", "1hhb": "5hhb", "1old": "2new", "pdb_10001ext": "pdb_10002ext"}
    files = put(server, *successors.values())
    server.files["/obsolete.dat"] = OBSOLETE
    rows = run(*successors)
    for entry, other in successors.items():
        assert_there(run, rows[entry], files[f"/{other}.cif.gz"])
        assert rows[entry]["replaced_by"] == other
        assert f"obsolete, replaced by {other}" in rows[entry]["detail"]
        assert rows[entry]["url"].endswith(f"/{other}.cif.gz")
        assert rows[entry]["attempts"] == 2
    assert server.asked("/obsolete.dat") == 1
    before, asked = run.log.read_bytes(), len(server.requests)
    run(*successors)
    assert (run.log.read_bytes(), len(server.requests)) == (before, asked)


def test_replacement_that_is_already_there_is_not_fetched_twice(run, server):
    put(server, "216l")
    server.files["/obsolete.dat"] = OBSOLETE
    run("216l")
    row = run("116l", "216l")["116l"]
    assert (row["replaced_by"], row["attempts"]) == ("216l", 1)
    assert server.asked("/216l.cif.gz") == 1
    assert "116l and 216l are one and the same file" in check_missing([run.log], 0.0)


def test_obsolete_without_replacement_unknown_and_circular(run, server):
    server.files["/obsolete.dat"] = OBSOLETE
    rows = run("1hg6", "9zzz", "1cir")
    assert rows["1hg6"]["reason"] == Reason.OBSOLETE_WITHOUT_REPLACEMENT
    assert rows["9zzz"]["reason"] == Reason.NOT_FOUND
    assert rows["9zzz"]["detail"] == "HTTP 404 Not Found"
    assert "circle" in rows["1cir"]["detail"]


@pytest.mark.parametrize("body", [None, b"<html>not a list</html>"])
def test_without_the_list_an_unknown_id_is_just_missing(run, server, body):
    if body:
        server.files["/obsolete.dat"] = body
    row = run("116l")["116l"]
    assert row["reason"] == Reason.NOT_FOUND
    assert "list of obsolete entries was not available" in row["detail"]


# -- the disk ---------------------------------------------------------------------------------

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
    _, said = process.communicate(timeout=30)
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
    with pytest.raises(QfitLatentError, match="cannot be written after 0 of 1 entries"):
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
        with pytest.raises(QfitLatentError, match=r"cannot be written after 0 of 1.*Permission"):
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
    deadline = time.monotonic() + 30
    while not any(name.endswith(".tmp") for name in run.files()) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
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
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    final = run.cache / "rcsb/ab/1abc.cif.gz"
    assert final.exists() == (step > 3)
    assert not run.log.exists()
    if final.exists():
        assert final.read_bytes() == data
    assert_there(run, run("1abc")["1abc"], data)
    assert server.asked("/1abc.cif.gz") == (1 if step > 3 else 2)


# -- the whole --------------------------------------------------------------------------------


def test_a_thousand_entries_with_every_fifth_answer_a_fault(run, server):
    rng = random.Random(4)
    ids = [f"{i % 10}{chr(97 + i // 10 % 26)}{i:02x}"[:4] for i in range(1000)]
    ids = sorted({f"{entry:0<4}" for entry in ids} | {f"9{i:03d}" for i in range(1000)})[:1000]
    files = put(server, *ids, num_atoms=30)
    faults = [
        server_of.status(503),
        server_of.status(429, Retry_After="0"),
        server_of.status(500),
        server_of.cut,
        server_of.cut_silently,
        server_of.corrupt,
        server_of.html,
        server_of.reset,
        server_of.chunked(0.3),
        server_of.whole(b""),
    ]
    for path in files:
        script = []
        while rng.random() < 0.2:
            script.append(rng.choice(faults))
        server.script[path] = script
    expected = {path: len(script) + 1 for path, script in server.script.items()}
    rows = run(*ids, connections=8, attempts=8)
    assert len(rows) == len(ids) == 1000
    for entry in ids:
        assert_there(run, rows[entry], files[f"/{entry}.cif.gz"])
        assert rows[entry]["attempts"] == expected[f"/{entry}.cif.gz"]
    assert server.most_at_once <= 8
    assert len(server.requests) == sum(expected.values())


def test_a_server_that_is_down_is_not_asked_for_everything(run, server, monkeypatch):
    monkeypatch.setattr(client, "MAX_FAILURES_IN_A_ROW", 5)
    put(server, "1abc")
    for i in range(60):
        server.script[f"/{i:02d}ab.cif.gz"] = [server_of.status(503)] * 3
    with pytest.raises(QfitLatentError, match="5 entries in a row could not be asked for"):
        run("1abc", *(f"{i:02d}ab" for i in range(60)), connections=2, attempts=2)
    assert len(server.requests) < 40
    assert not run.log.exists()
    assert "rcsb/ab/1abc.cif.gz" in run.files()


def test_no_server_at_all(run, server, tmp_path):
    with ArchiveServer() as gone:
        url = gone.template
    row = run("1abc", rcsb_url=url)["1abc"]
    assert_missing(run, row, Reason.CONNECTION_ERROR, "Connection refused")
    assert row["status"] is None


def test_unknown_errors_are_not_swallowed(run, server, monkeypatch):
    put(server, "1abc")

    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr("qfitlatent.archive.client.structure_suffix", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run("1abc")
    assert not run.log.exists()


# -- judging the logs -------------------------------------------------------------------------


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
    assert log.read_logs(logs).column("entry").to_pylist() == ["1abc", "2abc", "3abc", "4abc"]


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
    ]
    log = tmp_path / "log.parquet"
    rows = {r["entry"]: r for r in log_local_files(refs, "local", log, io.StringIO()).to_pylist()}
    assert list(rows) == ["a", "b", "c", "d"]
    assert rows["a"]["sha256"] == hashlib.sha256(mmcif("a")).hexdigest()
    assert rows["a"]["num_bytes"] == len(mmcif("a"))
    assert rows["b"]["reason"] == rows["c"]["reason"] == rows["d"]["reason"] == "not_found"
    assert rows["b"]["detail"].endswith("b.cif: No such file or directory")
    assert pq.read_schema(log).equals(log.LOG_SCHEMA)
    first = log.read_bytes()
    log_local_files(refs, "local", log, io.StringIO())
    assert log.read_bytes() == first
