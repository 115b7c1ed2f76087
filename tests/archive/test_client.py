"""The archive client against a hostile server: what the log says, and what arrives."""

import itertools
import random
import shutil
import ssl
import subprocess
import time
from email.utils import formatdate
from itertools import chain
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from helpers import archive_server as server_of
from helpers.archive_run import PDB, assert_missing, assert_there, put
from helpers.archive_server import ArchiveServer, gzipped, mmcif
from helpers.raw_server import RawServer, drip, endless
from qfitlatent.archive import client
from qfitlatent.archive.entries import middle
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.tables.reasons import Reason

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


def patience(request: pytest.FixtureRequest) -> dict[str, float]:
    """Little where the test is about time: a busy machine may take long for anything else."""
    slow = any(word in request.node.name for word in ("stall", "trickle"))
    return {"read_timeout_s": 0.3} if slow else {}


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
def test_a_fault_that_passes(run, server, script, request):
    data = put(server, "1abc", num_atoms=200)["/1abc.cif.gz"]
    server.script["/1abc.cif.gz"] = list(script)
    row = run("1abc", **patience(request))["1abc"]
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
    "stall": (server_of.stall(1.5), Reason.TIMEOUT, "nothing arrived for 0.3 s", 3),
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
    "another entry": (
        server_of.whole(gzipped(mmcif("2xyz"))),
        Reason.WRONG_ENTRY,
        "says that it is the entry 2xyz",
        3,
    ),
    "redirect to another entry": (
        server_of.redirect("/2xyz.cif.gz"),
        Reason.WRONG_ENTRY,
        "says that it is the entry 2xyz",
        3,
    ),
    "redirect to a file": (
        server_of.redirect("file:///etc/passwd"),
        Reason.BAD_RESPONSE,
        "a redirect to 'file:///etc/passwd'",
        1,
    ),
}


@pytest.mark.parametrize(("answer", "reason", "says", "attempts"), STAYING.values(), ids=STAYING)
def test_a_fault_that_stays(run, server, answer, reason, says, attempts, request):
    data = put(server, "1abc", "2xyz", num_atoms=200)["/1abc.cif.gz"]
    server.script["/1abc.cif.gz"] = [answer] * 20
    row = run("1abc", status_url=None, **patience(request))["1abc"]
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
    "location",
    [
        b"http://[", b"//[", b"http://a:b@[/", b"http://\xff\xfe/", b"http://127.0.0.1:99999/", b"",
        b"http://127.0.0.1:abc/", b"http://127.0.0.1\0/", b"http://.a/", b"ftp://127.0.0.1/", b"::",
    ],
)  # fmt: skip
def test_redirects_to_no_address(run, location):
    moved = b"HTTP/1.1 302 X\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
    with RawServer(lambda path: [moved]) as server:
        row = run("1abc", rcsb_url=server.url + "/{id}")["1abc"]
    assert_missing(run, row, Reason.BAD_RESPONSE, "")


def test_the_body_of_a_redirect_is_not_read(run):
    """It never ends, and the server notices that nobody listens."""
    sent = []

    def answer(path: str):
        if path == "/good":
            data = gzipped(mmcif("1abc"))
            return [b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\n" % len(data) + data]
        return flood()

    def flood():
        yield b"HTTP/1.1 302 X\r\nLocation: /good\r\n\r\n"
        for _ in range(1000):
            sent.append(1)
            yield bytes(1_000_000)

    with RawServer(answer) as server:
        row = run("1abc", rcsb_url=server.url + "/{id}")["1abc"]
    assert row["reason"] is None
    assert len(sent) < 50


SLOW = {
    "a header that drips": [b"HTTP/1.1 200 OK\r\nX-Slow: ", *drip(b"x" * 500, 1, 0.05)],
    "lines that drip": [b"HTTP/1.1 200 OK\r\n", *drip(b"X: y\r\n" * 500, 6, 0.05)],
    "endless informational answers": [*drip(b"HTTP/1.1 100 X\r\n\r\n" * 500, 18, 0.05)],
    "chunk sizes that drip": [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        *drip(b"0" * 500, 1, 0.05),
    ],
}


@pytest.mark.parametrize("steps", SLOW.values(), ids=SLOW)
def test_each_read_is_in_time_and_the_whole_never(run, steps):
    with RawServer(lambda path: steps) as server:
        row = run("1abc", rcsb_url=server.url + "/{id}", read_timeout_s=0.3, attempts=1)["1abc"]
    assert_missing(run, row, Reason.TIMEOUT, "bytes arrived in")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """Key and certificate of 127.0.0.1, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -keyout - -out -"
    options = ["-addext", "subjectAltName=IP:127.0.0.1"]
    made = subprocess.run([*command.split(), *options], check=True, capture_output=True)
    path.write_bytes(made.stdout)
    return path


@pytest.mark.parametrize("case", ["good", "drips", "unknown"])
def test_encrypted_connections_are_bounded_too(run, certificate, case, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if case != "unknown":
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    data = gzipped(mmcif("1abc", 500))
    steps = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data]
    if case == "drips":
        steps = SLOW["a header that drips"]
    with RawServer(lambda path: steps, context) as server:
        settings = {"rcsb_url": server.url + "/{id}", "attempts": 1}
        settings["read_timeout_s"] = 0.3 if case == "drips" else 20.0
        row = run("1abc", **settings)["1abc"]
    if case == "good":
        assert_there(run, row, data)
    elif case == "drips":
        assert_missing(run, row, Reason.TIMEOUT, "bytes arrived in")
    else:
        assert_missing(run, row, Reason.CONNECTION_ERROR, "certificate")


def test_a_transfer_is_bounded_as_a_whole(run):
    """However fast: this one sends enough in each window."""
    steps = [b"HTTP/1.1 200 OK\r\n\r\ndata_1ABC\n", *drip(b"# filler\n" * 500_000, 9000, 0.02)]
    with RawServer(lambda path: steps) as server:
        settings = {"read_timeout_s": 0.3, "transfer_timeout_s": 1.0, "attempts": 1}
        row = run("1abc", rcsb_url=server.url + "/{id}", **settings)["1abc"]
    assert_missing(run, row, Reason.TIMEOUT, "not complete after 1 s")


@pytest.mark.parametrize("how", ["announced", "endless", "bomb", "headers"])
def test_a_file_beyond_the_largest_size(run, how):
    def answer(path: str):
        if how == "headers":
            return [b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"y" * 9000 + b"\r\n") * 20]
        if how == "bomb":
            data = gzipped(b"data_1ABC\n" + b"# filler\n" * 200_000)
            return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data]
        if how == "announced":
            return [b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n"]
        return chain([b"HTTP/1.1 200 OK\r\n\r\ndata_1ABC\n"], endless(b"# filler\n" * 10_000))

    limits = {"max_file_mb": 1, "max_unpacked_mb": 1}
    with RawServer(answer) as server:
        row = run("1abc", rcsb_url=server.url + "/{id}", **limits)["1abc"]
    if how == "headers":
        assert_missing(run, row, Reason.BAD_RESPONSE, "bytes of headers")
    else:
        assert_missing(run, row, Reason.TOO_LARGE, "more than 1 MB")
        assert row["attempts"] == 1


HEADERS = {
    "retry year": (503, b"Retry-After: Fri, 31 Dec 99999 23:59:59 GMT"),
    "retry digits": (503, b"Retry-After: " + b"9" * 5000),
    "retry negative": (429, b"Retry-After: -7"),
    "retry word": (429, b"Retry-After: tomorrow"),
    "length square": (200, b"Content-Length: \xb2"),
    "length digits": (200, b"Content-Length: " + b"9" * 5000),
    "length negative": (200, b"Content-Length: -1"),
    "two lengths": (200, b"Content-Length: 1\r\nContent-Length: 2"),
    "modified 9999": (200, b"Last-Modified: Fri, 31 Dec 9999 23:59:59 -0100"),
    "modified word": (200, b"Last-Modified: yesterday"),
    "no colon": (200, b"no colon"),
    "encoding": (200, b"Transfer-Encoding: \xff"),
}


@pytest.mark.parametrize(("code", "line"), HEADERS.values(), ids=HEADERS)
def test_headers_beyond_all_limits(run, code, line):
    """A row, or taken for absent."""
    head = b"HTTP/1.1 %d X\r\nConnection: close\r\n%b\r\n\r\n" % (code, line)
    with RawServer(lambda path: [head + gzipped(mmcif("1abc"))]) as server:
        row = run("1abc", rcsb_url=server.url + "/{id}")["1abc"]
    if row["reason"] is None:
        assert code == 200
        assert_there(run, row, gzipped(mmcif("1abc")))
    else:
        assert_missing(run, row, row["reason"], "")


def test_what_another_answer_left_on_a_kept_connection(run):
    """A length too short: the rest of the file, and a whole answer, are there for the next one."""
    others = gzipped(mmcif("2xyz"))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(others) + others
    with RawServer(lambda path: [answer * 2]) as server:
        rows = run("1abc", "2xyz", "3def", rcsb_url=server.url + "/{id}", connections=1)
    assert {entry: row["reason"] for entry, row in rows.items()} == {
        "1abc": Reason.WRONG_ENTRY,
        "2xyz": None,
        "3def": Reason.WRONG_ENTRY,
    }


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


def test_chunked_transfer_is_complete(run, server):
    data = put(server, "1abc", num_atoms=500)["/1abc.cif.gz"]
    server.script["/1abc.cif.gz"] = [server_of.chunked()]
    assert_there(run, run("1abc")["1abc"], data)


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
