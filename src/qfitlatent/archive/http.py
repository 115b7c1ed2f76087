"""One request: bounded in time and memory; every answer that is no file is a fault.

The libraries below (requests, urllib3, http.client) bound the wait for each read, not the whole: a
header that arrives byte by byte keeps them for ever. So each read of a socket, whatever it is for,
passes :class:`_Watch`, which knows the time that is left and the least that must arrive. Redirects
are followed here, since requests reads their bodies to the end.
"""

import contextlib
import io
import math
import random
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from importlib.metadata import version
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from qfitlatent.base.progress import format_bytes, format_seconds
from qfitlatent.tables.reasons import Reason

# The wait before the second attempt is up to BACKOFF_S, then BACKOFF_S * 2, * 4, ... plus jitter.
BACKOFF_S = 1.0
BACKOFF_MAX_S = 60.0

# A server that asks for more patience than this is left alone: the entry counts as missing.
MAX_RETRY_AFTER_S = 300.0

# Slower than this over a whole read timeout is a stall, though every single read succeeds.
MIN_BYTES_PER_S = 1000
MAX_REDIRECTS = 5
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
PIECE_BYTES = 262144

# All headers of an answer: http.client would take 6 MB, and requests make 100 MB of them.
MAX_HEADER_BYTES = 65_536

# Lists and answers of services, which are kept in memory: the largest known has a megabyte.
MAX_DOCUMENT_BYTES = 64_000_000
USER_AGENT = f"qFitLatent/{version('qfitlatent')} python-requests/{requests.__version__}"


@dataclass(eq=False)
class Fault(Exception):
    """One attempt that did not bring the file."""

    reason: Reason
    detail: str
    _: KW_ONLY
    status: int | None = None
    again: bool = True
    wait_s: float | None = None

    def __str__(self) -> str:
        return self.detail


class _Watch:
    """What one attempt may take: so long in all, and no window of time without its bytes."""

    def __init__(self, window_s: float, total_s: float, stop: threading.Event) -> None:
        self.window_s, self.total_s, self.stop = window_s, total_s, stop
        self.end = time.monotonic() + total_s
        self.header_left = math.inf
        self.restart()
        self.go_on()

    def go_on(self) -> None:
        """
        Raises:
            Fault: the run is to stop.
        """
        if self.stop.is_set():
            raise Fault(Reason.CONNECTION_ERROR, "stopped before it arrived", again=False)

    def restart(self) -> None:
        """A window begins, with nothing in it."""
        self.start, self.arrived = time.monotonic(), 0

    def read(self, sock: socket.socket, raw: io.RawIOBase, buffer: Any) -> int | None:
        """Reads once.

        Raises:
            Fault: out of time, next to nothing arrived for a window, too many headers, or the run
                is to stop.
        """
        self.go_on()
        left = self.end - time.monotonic()
        try:
            sock.settimeout(max(min(self.window_s, left), 0.001))
            num = raw.readinto(buffer)
        except TimeoutError as error:
            said = f"nothing arrived for {self.window_s:g} s"
            if left <= self.window_s:
                said = f"not complete after {self.total_s:g} s"
            raise Fault(Reason.TIMEOUT, said) from error
        if left <= 0:
            raise Fault(Reason.TIMEOUT, f"not complete after {self.total_s:g} s")
        self.arrived += num or 0
        self.header_left -= num or 0
        if self.header_left < 0:
            raise Fault(Reason.BAD_RESPONSE, f"more than {MAX_HEADER_BYTES} bytes of headers")
        passed = time.monotonic() - self.start
        if num and passed >= self.window_s:
            if self.arrived < MIN_BYTES_PER_S * passed:
                raise Fault(Reason.TIMEOUT, f"only {self.arrived} bytes arrived in {passed:.3g} s")
            self.restart()
        return num


_WATCH: ContextVar[_Watch] = ContextVar("_WATCH")


class _WatchedReader(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase, sock: socket.socket, watch: _Watch) -> None:
        self._raw, self._sock, self._watch = raw, sock, watch

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        return self._watch.read(self._sock, self._raw, buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(HTTPResponse):
    """What http.client makes of a socket, through the watch of the request under way."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._watch = _WATCH.get()
        self.fp = io.BufferedReader(_WatchedReader(self.fp.detach(), sock, self._watch))

    def begin(self) -> None:
        """Reads the headers."""
        self._watch.header_left = MAX_HEADER_BYTES
        super().begin()
        self._watch.header_left = math.inf


class _Connection(HTTPConnection):
    response_class = _Answer


class _TLSConnection(HTTPSConnection):
    response_class = _Answer


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _Adapter(HTTPAdapter):
    """Of requests, with watched connections; it neither retries nor keeps more than one."""

    def __init__(self) -> None:
        super().__init__(pool_connections=2, pool_maxsize=1, max_retries=0)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # those have connections of their own
            manager.pool_classes_by_scheme = self.poolmanager.pool_classes_by_scheme
        return manager


class Session:
    """Asks servers for documents over kept connections; of one thread.

    Proxies, certificates and .netrc of the environment hold, as for any program that uses
    requests. Attempts are left to the caller, who also judges the content.
    """

    def __init__(self, settings: Mapping[str, Any], stop: threading.Event) -> None:
        self._settings, self._stop = settings, stop
        self._session = requests.Session()
        self._session.headers["User-Agent"] = USER_AGENT
        # Files are stored as they are: an encoding on top of .gz would only obscure the length.
        self._session.headers["Accept-Encoding"] = "identity"
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter())

    def close(self) -> None:
        self._session.close()

    def open(self, url: str, method: str = "GET", json: Any = None) -> requests.Response:
        """The answer at the end of all redirects, which are its ``history``; body unread.

        Raises:
            Fault: no answer, none in time, or no end of redirects.
        """
        watch = _Watch(
            self._settings["read_timeout_s"], self._settings["transfer_timeout_s"], self._stop
        )
        _WATCH.set(watch)
        history: list[requests.Response] = []
        while len(history) <= MAX_REDIRECTS:
            response = self._ask(requests.Request(method, url, json=json))
            if response.status_code not in REDIRECT_STATUSES:
                response.history = history
                return response
            response.close()  # a body that may be of any size
            history.append(response)
            url = _target(response)
            watch.restart()
        raise Fault(
            Reason.BAD_RESPONSE,
            f"more than {MAX_REDIRECTS} redirects, the last to {plain(url)}",
            status=response.status_code,
            again=False,
        )

    def _ask(self, request: requests.Request) -> requests.Response:
        settings = self._settings
        try:
            prepared = self._session.prepare_request(request)
            url = prepared.url or request.url
            environment: Any = self._session.merge_environment_settings(url, {}, True, None, None)
            timeout = (settings["connect_timeout_s"], settings["read_timeout_s"])
            return self._session.get_adapter(url).send(prepared, timeout=timeout, **environment)
        except requests.Timeout as error:
            raise Fault(
                Reason.TIMEOUT, f"no answer from {_host(request.url)}: {plain(error)}"
            ) from error
        except requests.ConnectionError as error:
            raise Fault(
                Reason.CONNECTION_ERROR, f"no connection to {_host(request.url)}: {plain(error)}"
            ) from error
        except (requests.RequestException, HTTPError, HTTPException, OSError, ValueError) as error:
            # Whatever the libraries find wrong with an address or a header.
            raise Fault(
                Reason.BAD_RESPONSE, f"{plain(request.url)}: {plain(error)}", again=False
            ) from error


def _target(response: requests.Response) -> str:
    """Where a redirect leads.

    Raises:
        Fault: to no address of the web.
    """
    location = response.headers.get("Location", "")
    with contextlib.suppress(ValueError):
        # http.client reads headers as Latin-1; what is beyond ASCII in them is UTF-8.
        url = urljoin(response.url, location.encode("latin-1").decode("utf-8").strip())
        parts = urlsplit(url)
        if location and parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return url
    raise Fault(
        Reason.BAD_RESPONSE,
        f"a redirect to {plain(location)!r}, which is no address of the web",
        status=response.status_code,
        again=False,
    )


def read_pieces(response: requests.Response, max_bytes: float) -> Iterator[bytes]:
    """The body as it comes, not decoded: sha256 and length are those of what was sent.

    Raises:
        Fault: cut short, too slow (see :class:`_Watch`), or larger than ``max_bytes``.
    """
    arrived = 0
    while True:
        try:
            piece = response.raw.read1(PIECE_BYTES, decode_content=False)
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            raise Fault(Reason.TRUNCATED, f"the body was cut short: {plain(error)}") from error
        if not piece:
            return
        arrived += len(piece)
        if arrived > max_bytes:
            raise too_large(max_bytes, "")
        yield piece


def too_large(max_bytes: float, how: str) -> Fault:
    """``how``: words behind the size, such as " unpacked"."""
    return Fault(Reason.TOO_LARGE, f"more than {format_bytes(int(max_bytes))}{how}", again=False)


def ask(
    url: str, settings: Mapping[str, Any], stop: threading.Event | None = None, **request: Any
) -> tuple[int, bytes]:
    """Status (200 or 204) and body of a small document, after as many attempts as it needs.

    Args:
        url: its address.
        settings: the section ``download`` of the configuration.
        stop: ends the waiting.
        request: ``method`` and ``json``, if not a plain GET.
    Raises:
        Fault: it cannot be had.
    """
    stop = stop or threading.Event()
    further = waits(settings)
    with contextlib.closing(Session(settings, stop)) as session:
        while True:
            try:
                with session.open(url, **request) as response:
                    if response.status_code not in (200, 204):
                        fault = status_fault(response)
                        if response.status_code == 400:  # the body says what is wrong
                            said = next(read_pieces(response, PIECE_BYTES), b"")
                            fault.detail += f": {plain(said.decode('utf-8', 'replace'))}"
                        raise fault
                    return response.status_code, b"".join(read_pieces(response, MAX_DOCUMENT_BYTES))
            except Fault as fault:
                wait = next(further, None)
                if not fault.again or wait is None:
                    raise
                stop.wait(wait if fault.wait_s is None else fault.wait_s)


def waits(settings: Mapping[str, Any]) -> Iterator[float]:
    """Seconds before the second attempt for one document, the third, and so on to the last."""
    for attempt in range(settings["attempts"] - 1):
        backoff = BACKOFF_S * 2**attempt if attempt else 0.0
        yield min(backoff + random.uniform(0, BACKOFF_S), BACKOFF_MAX_S)


def status_fault(response: requests.Response) -> Fault:
    """What a status other than 200 means, and whether to ask again."""
    status = response.status_code
    said = plain(f"HTTP {status} {response.reason}")
    if status in (404, 410):
        return Fault(Reason.NOT_FOUND, said, status=status, again=False)
    if status not in RETRY_STATUSES:
        reason = Reason.REFUSED if 400 <= status < 500 else Reason.BAD_RESPONSE
        if status >= 500:
            reason = Reason.SERVER_ERROR
        return Fault(reason, said, status=status, again=False)
    wait = _retry_after(response.headers.get("Retry-After", ""))
    if wait is not None and wait > MAX_RETRY_AFTER_S:
        asked = format_seconds(wait) if wait < 1e9 else "for ever"
        said += f", and asks to wait {asked}"
        return Fault(Reason.SERVER_ERROR, said, status=status, again=False)
    return Fault(Reason.SERVER_ERROR, said, status=status, wait_s=wait)


def _retry_after(text: str) -> float | None:
    """Seconds that a server asks to wait; None where it asks for nothing that can be understood."""
    if text.strip().isdecimal():
        return float(text)  # of 5,000 digits: infinity
    moment = read_date(text)
    return None if moment is None else max(0.0, (moment - datetime.now(UTC)).total_seconds())


def read_date(text: str) -> datetime | None:
    """The date in a header, in UTC; None where there is none, or one beyond the calendar."""
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _host(url: str) -> str:
    with contextlib.suppress(ValueError):
        return urlsplit(url).netloc.rpartition("@")[2]
    return plain(url)


def plain(error: BaseException | str) -> str:
    """An error in one short line, without the Python objects that texts of urllib3 name."""
    text = re.sub(r"<[^<>]*object at 0x[0-9a-f]+>:?\s*", "", str(error)[:5000])
    text = re.sub(
        r"^\w+\(.*\): Max retries exceeded with url: \S+ \(Caused by (.*)\)$", r"\1", text
    )
    return re.sub(r"\s+", " ", text).strip()[:200]
