"""Servers that misbehave at random, in any order: a checked file, or a row with a reason."""

import gzip
import hashlib
import io
import os
import tempfile
import zlib
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from helpers.archive_server import gzipped, mmcif
from helpers.raw_server import RawServer, Step, drip, endless
from qfitlatent.archive import http
from qfitlatent.archive.client import download_entries
from qfitlatent.archive.entries import EntryRef
from qfitlatent.base import config
from qfitlatent.tables.reasons import Reason

IDS = ("1abc", "2abc", "3abc", "4abc")
NUM_EXAMPLES = int(os.environ.get("QFITLATENT_HOSTILE_EXAMPLES", "25"))
DIGITS = b"9" * 5000
BOMB = zlib.compressobj(9, wbits=31)
BOMB = BOMB.compress(b"data_1ABC\n" + b"# filler\n" * 200_000) + BOMB.flush()

statuses = st.sampled_from(
    [b"HTTP/1.1 %d X" % code for code in (200, 204, 206, 300, 304, 401, 404, 410, 429, 500, 503)]
    + [b"HTTP/1.0 200", b"HTTP/1.1 200 \xff\xfe\x00", b"HTTP/9.9 2000 X", b"200 OK", b"", b"\x00"]
    + [b"HTTP/1.1 100 X", b"HTTP/1.1 -200 X", b"HTTP/1.1 200 " + b"y" * 70_000]
)
odd_headers = st.sampled_from(
    [b"Content-Length: " + value for value in (b"\xb2", DIGITS, b"-1", b"1, 2", b"", b"0")]
    + [b"Retry-After: " + value for value in (DIGITS, b"-7", b"tomorrow", b"0", b"\xff", b"\xb2")]
    + [b"Retry-After: Fri, 31 Dec %s 23:59:59 GMT" % year for year in (b"9999", b"99999", b"1")]
    + [b"Last-Modified: Fri, 31 Dec 9999 23:59:59 -0100", b"Last-Modified: \x80", b"Last-Modified:"]
    + [b"Transfer-Encoding: " + value for value in (b"gzip, chunked", b"chunked", b"\xff", b"x")]
    + [b"Content-Encoding: " + value for value in (b"gzip", b"br", b"\xff", b"gzip, gzip")]
    + [b"Set-Cookie: a=b; expires=" + DIGITS, b"Content-Type: \xff;=;=", b"no colon", b" folded"]
    + [b"\x00\x01: \x02", b": ", b"X: " + b"y" * 70_000, b"\r\n".join([b"X: y"] * 150)]
)
locations = st.sampled_from(
    [b"http://[", b"//[", b"http://.a/x", b"http://\xff\xfe/x", b"http://a:b@[/", b"", b"/%zz/%"]
    + [b"http://127.0.0.1:99999/", b"http://127.0.0.1:abc/", b"file:///etc/hostname", b"?" * 70_000]
    + [b"http://127.0.0.1\x00/", b"http://127.0.0.1:0/", b"//", b":", b"javascript:alert(1)"]
    + [b"/%s.cif.gz" % entry.encode() for entry in IDS]
) | st.binary(max_size=30).map(lambda text: text.replace(b"\r", b"").replace(b"\n", b""))


def good(entry: str) -> bytes:
    return gzipped(mmcif(entry))


@st.composite
def bodies(draw, entry: str) -> bytes:
    data = good(draw(st.sampled_from(IDS))) if draw(st.booleans()) else good(entry)
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return data[: draw(st.integers(0, len(data) - 1))]
    if kind == 1:
        at = draw(st.integers(0, len(data) - 1))
        return data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
    if kind == 2:
        return draw(
            st.sampled_from([b"", BOMB, gzipped(data), b"<html>", gzipped(b"") * 500, b"\x1f"])
        )
    if kind == 3:
        return draw(st.binary(max_size=200))
    return data


def chunked(body: bytes, size: bytes) -> bytes:
    return size + b"\r\n" + body + b"\r\n0\r\n\r\n"


@st.composite
def answers(draw, entry: str) -> list[Step | Iterable[Step]]:
    """One answer: mostly right, with something wrong somewhere."""
    head = [draw(statuses) if draw(st.integers(0, 2)) == 0 else b"HTTP/1.1 200 OK"]
    body = draw(bodies(entry))
    framing = draw(st.integers(0, 5))
    if framing <= 2:
        surplus = draw(st.sampled_from([0, 0, 0, -5, 5, 10_000_000]))
        head.append(b"Content-Length: %d" % max(0, len(body) + surplus))
    elif framing == 3:
        sizes = [b"%x" % len(body), b"-5", b"f" * 5000, b"", b"zz", b"1;" + b"x" * 70_000]
        body = chunked(body, draw(st.sampled_from(sizes)))
        head.append(b"Transfer-Encoding: chunked")
    if draw(st.integers(0, 3)) == 0:
        head[0] = b"HTTP/1.1 %d Moved" % draw(st.sampled_from([301, 302, 303, 307, 308]))
        head.append(b"Location: " + draw(locations))
    head += draw(st.lists(odd_headers, max_size=2))
    if framing == 4 or draw(st.booleans()):
        head.append(b"Connection: close")
    text = b"\r\n".join(head) + b"\r\n\r\n"
    if draw(st.integers(0, 7)) == 0:  # what the next request would read as its answer
        body += b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    match draw(st.integers(0, 11)):
        case 0:
            return [text[: draw(st.integers(0, len(text)))], None]
        case 1:
            return [text, body[: len(body) // 2], None]
        case 2:
            return [text, body[: len(body) // 2], 0.5, body[len(body) // 2 :]]
        case 3:
            return [0.5, text + body]
        case 4:
            return [*drip(text[:200], 1, 0.04), text[200:] + body]
        case 5:
            return [text, *drip(body[:200], 1, 0.04), body[200:]]
        case 6:
            return [text, "endless"]
    return [text + body]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Waits scaled down; everything else as it runs in earnest."""
    monkeypatch.setattr(http, "BACKOFF_S", 0.001)
    monkeypatch.setattr(http, "BACKOFF_MAX_S", 0.01)
    monkeypatch.setattr(http, "MAX_RETRY_AFTER_S", 0.1)


def download(server: RawServer, folder: Path, source: str, **patience: float) -> list[dict]:
    settings = config.load()["download"] | {
        "rcsb_url": server.url + "/{id}.cif.gz",
        "url": server.url + "/{id}.cif.gz",
        "status_url": server.url + "/obsolete.dat",
        "connections": 2,
        "max_file_mb": 0.5,
        "max_unpacked_mb": 1.0,
        "attempts": 2,
        **patience,
    }
    refs = [EntryRef(entry) for entry in IDS]
    log = download_entries(
        refs, source, settings, folder / "raw", folder / "log", stream=io.StringIO()
    )
    return log.to_pylist()


def check(rows: list[dict], folder: Path) -> None:
    """Every entry is a checked file or a row with a reason; nothing else is on the disk."""
    assert [row["entry"] for row in rows] == list(IDS)
    expected = set()
    for row in rows:
        if row["reason"] is not None:
            assert row["reason"] in set(Reason)
            assert row["detail"]
            assert row["path"] is None
            continue
        path = Path(row["path"])
        data = path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        text = gzip.decompress(data) if path.name.endswith(".gz") else data
        assert text.startswith(b"data_" + (row["replaced_by"] or row["entry"]).upper().encode())
        expected |= {path, path.with_name(f"{row['entry']}.record.json")}
    found = {path for path in (folder / "raw").rglob("*") if path.is_file()}
    assert {path for path in found if path.parent.name != "status"} == expected


@settings(
    max_examples=NUM_EXAMPLES,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # a smaller example would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_server_in_any_order(data):
    script = {
        f"/{entry}.cif.gz": data.draw(st.lists(answers(entry), max_size=3), label=entry)
        for entry in IDS
    }
    script["/obsolete.dat"] = data.draw(st.lists(answers("1abc"), max_size=1), label="list")
    source = data.draw(st.sampled_from(["rcsb", "url"]))

    def answer(path: str) -> Iterable[Step]:
        steps = script[path].pop(0) if script.get(path) else None
        if steps is None and path not in script:
            return [b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n"]
        if steps is None:
            body = good(path[1:5]) if path[1:5] in IDS else b"OBSLTE 31-JUL-94 9ABC 8ABC\n"
            return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body]
        if steps[-1] == "endless":
            return chain(steps[:-1], endless(b"# filler\n" * 1000))
        return steps

    with tempfile.TemporaryDirectory() as name, RawServer(answer) as server:
        folder = Path(name)
        rows = download(server, folder, source, read_timeout_s=0.2, transfer_timeout_s=1.0)
        check(rows, folder)
        for left in script.values():  # now it behaves
            left.clear()
        rows = download(server, folder, source)
        check(rows, folder)
        assert [row["detail"] for row in rows if row["reason"]] == []
