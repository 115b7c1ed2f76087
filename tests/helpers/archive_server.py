"""A local HTTP server that stands in for the archive, and misbehaves by script.

    with ArchiveServer({"/1abc.cif.gz": data}) as server:
        server.script["/1abc.cif.gz"] = [status(503), status(503)]   # then it answers properly
        server.template == "http://127.0.0.1:port/{id}.cif.gz"

An answer is a function of the handler and of the file's bytes. Each request takes the next answer
of its path's script; after the last of them the file is sent as it is.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LAST_MODIFIED = "Wed, 21 Oct 2015 07:28:00 GMT"
Answer = Callable[["Handler", bytes], None]


class ArchiveServer:
    """Serves ``files`` (path to bytes) until closed; counts what it is asked.

    Attributes:
        requests: (path, seconds since start, headers) of every request, in order of arrival.
        most_at_once: the largest number of requests that were being answered at one time.
        latency_s: wait before each answer.
    """

    def __init__(self, files: dict[str, bytes] | None = None, latency_s: float = 0.0) -> None:
        self.files = dict(files or {})
        self.script: dict[str, list[Answer]] = {}
        self.latency_s = latency_s
        self.requests: list[tuple[str, float, dict[str, str]]] = []
        self.bodies: list[bytes] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.start = time.monotonic()
        handler = type("BoundHandler", (Handler,), {"archive": self})
        self.http = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.template = self.url + "/{id}.cif.gz"
        self._thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> ArchiveServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()

    def asked(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(1 for asked, _, _ in self.requests if asked == path)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the play."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    archive: ArchiveServer

    def do_GET(self) -> None:
        archive = self.archive
        path = self.path.split("?")[0]
        with archive.lock:
            moment = time.monotonic() - archive.start
            archive.requests.append((path, moment, dict(self.headers.items())))
            archive.at_once += 1
            archive.most_at_once = max(archive.most_at_once, archive.at_once)
            script = archive.script.get(path, [])
            answer = script.pop(0) if script else None
        try:
            if archive.latency_s:
                time.sleep(archive.latency_s)
            data = archive.files.get(path)
            if answer is not None:
                answer(self, data or b"")
            elif data is None:
                self.reply(404, b"no such entry\n")
            else:
                self.reply(200, data)
        finally:
            with archive.lock:
                archive.at_once -= 1

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        with self.archive.lock:
            self.archive.bodies.append(self.rfile.read(length))
        self.do_GET()

    def reply(self, code: int, data: bytes, length: int | None = -1, **headers: str) -> None:
        """A whole answer; ``length`` None announces none and closes the connection after it."""
        self.send_response(code)
        if length is None:
            self.close_connection = True
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(data) if length < 0 else length))
        if code == 200:
            self.send_header("Last-Modified", LAST_MODIFIED)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """The requests are in ``archive.requests``."""


def status(code: int, **headers: str) -> Answer:
    """An error without a file; ``Retry_After="1"`` becomes a header."""
    return lambda handler, data: handler.reply(code, b"not now\n", **headers)


def whole(data: bytes, **headers: str) -> Answer:
    """Other bytes than the file's, with status 200."""
    return lambda handler, _: handler.reply(200, data, **headers)


def html(handler: Handler, data: bytes) -> None:
    page = b"<!DOCTYPE html>\n<html><body>Scheduled maintenance</body></html>\n"
    handler.reply(200, page, Content_Type="text/html")


def cut(handler: Handler, data: bytes) -> None:
    """Half of the body, with the Content-Length of all of it."""
    handler.close_connection = True
    handler.reply(200, data[: len(data) // 2], length=len(data))


def cut_silently(handler: Handler, data: bytes) -> None:
    """Half of the body and no Content-Length: the connection just ends."""
    handler.reply(200, data[: len(data) // 2], length=None)


def no_length(handler: Handler, data: bytes) -> None:
    """The whole body, but no Content-Length."""
    handler.reply(200, data, length=None)


def chunked(part: float = 1.0) -> Answer:
    """Chunked transfer; below 1 the last chunks never come."""

    def answer(handler: Handler, data: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        data = data[: int(len(data) * part)]
        for start in range(0, len(data), 1000):
            piece = data[start : start + 1000]
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        if part == 1.0:
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.close_connection = True
        handler.wfile.flush()

    return answer


def corrupt(handler: Handler, data: bytes) -> None:
    """The right length, one byte wrong in the middle of the gzip stream."""
    wrong = bytearray(data)
    wrong[len(wrong) // 2] ^= 0xFF
    handler.reply(200, bytes(wrong))


def reset(handler: Handler, data: bytes) -> None:
    """A connection reset in the middle of the headers."""
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.close_connection = True
    handler.connection.close()


def redirect(to: str, code: int = 302) -> Answer:
    return lambda handler, data: handler.reply(code, b"", Location=to)


def stall(seconds: float, after: float = 0.0) -> Answer:
    """Silence for a while: before the answer, or after that part of the body."""

    def answer(handler: Handler, data: bytes) -> None:
        if after:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data[: int(len(data) * after)])
            handler.wfile.flush()
            data = data[int(len(data) * after) :]
        handler.archive.closing.wait(seconds)
        if after:
            handler.wfile.write(data)
        else:
            handler.reply(200, data)

    return answer


def trickle(num_bytes: int, every_s: float) -> Answer:
    """The body in small pieces, each of them in time."""

    def answer(handler: Handler, data: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        for start in range(0, len(data), num_bytes):
            handler.wfile.write(data[start : start + num_bytes])
            handler.wfile.flush()
            if handler.archive.closing.wait(every_s):
                return

    return answer


def mmcif(entry: str, num_atoms: int = 20) -> bytes:
    """A small valid mmCIF file, different for each entry."""
    rows = "".join(
        f"ATOM {i} C CA . ALA A 1 {i} ? {i}.000 {len(entry)}.500 {sum(entry.encode()) % 97}.250 "
        f"1.00 20.00 {i} A 1\n"
        for i in range(1, num_atoms + 1)
    )
    names = """
        group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id
        label_entity_id label_seq_id pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy
        B_iso_or_equiv auth_seq_id auth_asym_id pdbx_PDB_model_num
    """
    heading = "".join(f"_atom_site.{name}\n" for name in names.split())
    return f"data_{entry.upper()}\n#\nloop_\n{heading}{rows}#\n".encode()


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def search_answer(pages: dict[int, list[str]], total: int) -> Answer:
    """What the search service says; ``pages`` maps a page's first row to its identifiers."""

    def answer(handler: Handler, data: bytes) -> None:
        request = json.loads(handler.archive.bodies[-1])
        found = pages.get(request["request_options"]["paginate"]["start"], [])
        if not found:
            handler.reply(204, b"")
            return
        body = {
            "query_id": "0",
            "result_type": request["return_type"],
            "total_count": total,
            "result_set": [{"identifier": name, "score": 1.0} for name in found],
        }
        handler.reply(200, json.dumps(body).encode(), Content_Type="application/json")

    return answer
