"""A server that sends bytes, whatever they are: what no library for servers would let it send."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable

Step = bytes | float | None
"""Bytes to send, seconds to wait, or None: reset the connection. After the last step it stays open
for the next request, unless the answer said that it would close."""


class RawServer:
    """Sends to each request the steps that ``answer(path)`` gives."""

    def __init__(
        self, answer: Callable[[str], Iterable[Step]], tls: ssl.SSLContext | None = None
    ) -> None:
        self.answer, self.closing, self._tls = answer, threading.Event(), tls
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> RawServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._socket.close()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        with contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            try:
                if self._tls:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                    stack.enter_context(connection)
                while path := self._request(connection):
                    sent = b""
                    for step in self.answer(path):
                        if step is None:
                            linger = struct.pack("ii", 1, 0)
                            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                            return
                        if isinstance(step, bytes):
                            connection.sendall(step)
                            sent = (sent + step)[:1000]
                        elif self.closing.wait(step):
                            return
                    if b"connection: close" in sent.lower():
                        return
            except OSError:
                pass  # clients that hang up are part of the play

    def _request(self, connection: socket.socket) -> str:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return ""
            data += piece
        return data.split(b" ")[1].decode("latin-1")


def drip(data: bytes, num_bytes: int, every_s: float) -> Iterable[Step]:
    for start in range(0, len(data), num_bytes):
        yield data[start : start + num_bytes]
        yield every_s


def endless(piece: bytes) -> Iterable[Step]:
    """For ever, or for as long as a client that does not hang up would need to notice."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        yield piece
