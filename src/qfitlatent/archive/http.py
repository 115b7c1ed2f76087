"""One request: sessions, waits, redirects, and every answer that is no file as a fault."""

import random
import re
import threading
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, InvalidHeader, ReadTimeoutError
from urllib3.util import Retry

from qfitlatent.base.progress import format_seconds
from qfitlatent.tables.reasons import Reason

# Wait before the second attempt is up to BACKOFF_S, then BACKOFF_S * 2, * 4, ... plus jitter.
BACKOFF_S = 1.0


BACKOFF_MAX_S = 60.0


# A server that asks for more patience than this is left alone: the entry counts as missing.
MAX_RETRY_AFTER_S = 300.0


# Slower than this over a whole read timeout is a stall, though every single read succeeds.
MIN_BYTES_PER_S = 1000


MAX_REDIRECTS = 5


RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


PIECE_BYTES = 262144


USER_AGENT = f"qFitLatent/{version('qfitlatent')} python-requests/{requests.__version__}"


class Fault(Exception):
    """One attempt that did not bring the file."""

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        status: int | None = None,
        again: bool = True,
        wait_s: float | None = None,
    ) -> None:
        super().__init__()
        self.reason, self.detail, self.status = reason, detail, status
        self.again, self.wait_s = again, wait_s

    def __str__(self) -> str:
        return self.detail


def read_pieces(
    response: requests.Response, window_s: float, stop: threading.Event
) -> Iterator[bytes]:
    """The body as it comes, not decoded: sha256 and length are those of what was sent.

    Raises:
        Fault: cut short, nothing for ``window_s`` seconds, or next to nothing.
    """
    start, arrived = time.monotonic(), 0
    while True:
        if stop.is_set():
            raise Fault(Reason.CONNECTION_ERROR, "stopped before it arrived", again=False)
        try:
            piece = response.raw.read1(PIECE_BYTES, decode_content=False)
        except ReadTimeoutError as error:
            raise Fault(Reason.TIMEOUT, f"nothing arrived for {window_s:g} s") from error
        except HTTPError as error:
            raise Fault(Reason.TRUNCATED, f"the body was cut short: {plain(error)}") from error
        if not piece:
            return
        yield piece
        arrived += len(piece)
        now = time.monotonic()
        if now - start >= window_s:
            if arrived < MIN_BYTES_PER_S * (now - start):
                raise Fault(Reason.TIMEOUT, f"only {arrived} bytes arrived in {now - start:.3g} s")
            start, arrived = now, 0


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
    timeout = (settings["connect_timeout_s"], settings["read_timeout_s"])
    retry = new_retry(settings)
    with new_session(url) as session:
        while True:
            try:
                with open_url(session, url, timeout, **request) as response:
                    if response.status_code not in (200, 204):
                        fault = status_fault(response)
                        if response.status_code == 400:  # the body says what is wrong
                            fault.detail += f": {plain(response.text)}"
                        raise fault
                    return response.status_code, b"".join(read_pieces(response, timeout[1], stop))
            except Fault as fault:
                if not fault.again or retry.total == 0:
                    raise
                retry = retry.increment("GET", url, error=HTTPError(fault.detail))
                stop.wait(retry_wait(retry) if fault.wait_s is None else fault.wait_s)


def new_retry(settings: Mapping[str, Any]) -> Retry:
    """The policy for one document: how many attempts, and how long to wait between them."""
    return Retry(
        total=settings["attempts"] - 1,
        backoff_factor=BACKOFF_S,
        backoff_max=BACKOFF_MAX_S,
        backoff_jitter=BACKOFF_S,
    )


def retry_wait(retry: Retry) -> float:
    """Seconds before the next attempt; urllib3 alone would make the second one at once."""
    return max(retry.get_backoff_time(), random.uniform(0, BACKOFF_S))


def new_session(url: str) -> requests.Session:
    """A session that names us and leaves attempts to its caller, who also judges the content.

    Proxies, certificates and .netrc of the environment hold, as for any program that uses
    requests; they are read once, for ``url``, and not again with each of 10,000 requests.
    """
    session = requests.Session()
    environment = session.merge_environment_settings(url, {}, None, None, None)
    session.proxies, session.verify = environment["proxies"], environment["verify"]
    session.cert, session.auth = environment["cert"], requests.utils.get_netrc_auth(url)
    session.trust_env = False
    session.headers["User-Agent"] = USER_AGENT
    # Files are stored as they are: an encoding on top of .gz would only obscure the length.
    session.headers["Accept-Encoding"] = "identity"
    session.max_redirects = MAX_REDIRECTS
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_connections=2, pool_maxsize=1, max_retries=0))
    return session


def open_url(
    session: requests.Session, url: str, timeout: tuple[float, float], **request: Any
) -> requests.Response:
    """The answer of a server, body unread; ``request`` may hold ``method`` and ``json``.

    Raises:
        Fault: no answer.
    """
    try:
        return session.request(
            request.pop("method", "GET"), url, stream=True, timeout=timeout, **request
        )
    except requests.Timeout as error:
        raise Fault(Reason.TIMEOUT, f"no answer from {_host(url)}: {plain(error)}") from error
    except requests.ConnectionError as error:
        raise Fault(
            Reason.CONNECTION_ERROR, f"no connection to {_host(url)}: {plain(error)}"
        ) from error
    except requests.RequestException as error:
        raise Fault(Reason.BAD_RESPONSE, f"{url}: {plain(error)}", again=False) from error


def status_fault(response: requests.Response) -> Fault:
    """What a status other than 200 means, and whether to ask again."""
    status = response.status_code
    said = f"HTTP {status} {response.reason}".strip()
    if status in (404, 410):
        return Fault(Reason.NOT_FOUND, said, status=status, again=False)
    if status not in RETRY_STATUSES:
        reason = Reason.REFUSED if 400 <= status < 500 else Reason.BAD_RESPONSE
        if status >= 500:
            reason = Reason.SERVER_ERROR
        return Fault(reason, said, status=status, again=False)
    try:
        wait = Retry(0).get_retry_after(response.raw)
    except InvalidHeader:
        wait = None
    if wait is not None and wait > MAX_RETRY_AFTER_S:
        said += f", and asks to wait {format_seconds(wait)}"
        return Fault(Reason.SERVER_ERROR, said, status=status, again=False)
    return Fault(Reason.SERVER_ERROR, said, status=status, wait_s=wait)


def _host(url: str) -> str:
    return url.split("/")[2]


def plain(error: BaseException | str) -> str:
    """An error in one line, without the Python objects that texts of urllib3 name."""
    text = re.sub(r"<[^<>]*object at 0x[0-9a-f]+>:?\s*", "", str(error))
    text = re.sub(
        r"^\w+\(.*\): Max retries exceeded with url: \S+ \(Caused by (.*)\)$", r"\1", text
    )
    return re.sub(r"\s+", " ", text).strip()[:200]
