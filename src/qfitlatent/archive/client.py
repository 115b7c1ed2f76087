"""The archive client: entries arrive completely, checked and logged, or are missing with a reason.

Layout of the cache, shared by all data sets::

    <cache>/<collection>/<middle of the id>/<id>.cif.gz         the bytes as they arrived
    <cache>/<collection>/<middle of the id>/<id>.record.json    its row of the log

A file is written under a temporary name, checked, flushed to the disk and renamed; its record is
there before it is. So whatever kills the process, a file with its final name is complete, and a
file whose record is missing or whose bytes have another sha256 is fetched again. The log of a
shard repeats the records of its entries, including those that are missing; a second run over a
complete cache asks the network nothing and writes the same log to the byte.

How the server is treated: ``download.connections`` at once and no more, a User-Agent that names
the project, bounded attempts with growing, jittered waits (urllib3's ``Retry``), and a
``Retry-After`` that holds for all connections, not only for the one that was told. When many
entries in a row find the server out of order, the run stops instead of asking for all the rest.
"""

import errno
import hashlib
import json
import os
import string
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TextIO

import pyarrow as pa
import requests
from urllib3.exceptions import HTTPError, MaxRetryError

from qfitlatent.archive.content import HEAD_BYTES, GzipCheck, check_text, structure_suffix
from qfitlatent.archive.entries import EntryRef, middle, normalise_id
from qfitlatent.archive.http import (
    Fault,
    ask,
    new_retry,
    new_session,
    open_url,
    read_pieces,
    retry_wait,
    status_fault,
)
from qfitlatent.archive.log import LOG_SCHEMA, empty_row, summary, write_log
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path, sha256_file
from qfitlatent.base.progress import Progress
from qfitlatent.tables.reasons import Reason

# So many entries in a row without a sensible answer mean that the server or the network is down.
MAX_FAILURES_IN_A_ROW = 25


# The archive publishes its list of obsolete entries once a week.
STATUS_LIST_AGE_S = 86400.0


# Temporary files that nobody has written to for so long belong to a process that was killed.
STALE_AGE_S = 3600.0


_OUT_OF_ORDER = (Reason.CONNECTION_ERROR, Reason.TIMEOUT, Reason.SERVER_ERROR)


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def url_template(source: str, settings: Mapping[str, Any]) -> str:
    """The address of an entry with ``{id}`` (and ``{mid}``, the two characters before the last).

    Raises:
        QfitLatentError: no template for this source, or one with other names in braces.
    """
    key = {"rcsb": "rcsb_url", "pdb_redo": "pdb_redo_url", "url": "url"}[source]
    if source == "rcsb" and settings["format"] == "pdb":
        key = "rcsb_pdb_url"
    template = settings[key]
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(template or "") if name}
    except ValueError:
        names = set()
    if "id" not in names or names - {"id", "mid"}:
        raise QfitLatentError(
            f"download.{key} is {template!r}: write an address with {{id}}, and {{mid}} "
            "where its folders need the middle of the id."
        )
    return template


def download_entries(
    refs: Sequence[EntryRef],
    source: str,
    settings: Mapping[str, Any],
    cache_dir: str | Path,
    log_path: str | Path,
    *,
    connections: int | None = None,
    stream: TextIO | None = None,
) -> pa.Table:
    """Brings every entry into the cache and writes the log of the shard.

    Args:
        refs: the entries of one shard.
        source: rcsb, pdb_redo or url.
        settings: the section ``download`` of the configuration.
        cache_dir: folder of raw files; see the module's description.
        log_path: Parquet file with :data:`LOG_SCHEMA`, one row an entry, sorted by entry.
        connections: connections at once; ``settings["connections"]`` if None. Shards that run
            side by side share that number, so the workflow gives each its part.
        stream: where progress is written; standard error if None.
    Returns:
        The log. A missing entry is a row with a reason, not an exception.
    Raises:
        QfitLatentError: the disk is full or read-only, or the server cannot be used at all.
            What has arrived stays.
    """
    stream = sys.stderr if stream is None else stream
    connections = connections or settings["connections"]
    archive = Archive(source, settings, cache_dir)
    finished: SimpleQueue[Future] = SimpleQueue()
    rows: list[dict[str, Any]] = []
    told: list[str] = []
    down = 0
    pool = ThreadPoolExecutor(min(connections, max(1, len(refs))))
    try:
        with Progress(len(refs), "entries", stream) as progress:
            for ref in refs:
                pool.submit(archive.obtain, ref.id).add_done_callback(finished.put)
            while len(rows) < len(refs):
                try:
                    row, fetched = finished.get(timeout=1.0).result()
                except Empty:
                    progress.update(0)
                    continue
                rows.append(row)
                if row["detail"] and (fetched or row["reason"]):
                    told.append(f"{row['entry']}: {row['detail']}\n")
                progress.update(num_bytes=fetched, failures=int(row["reason"] is not None))
                down = down + 1 if row["reason"] in _OUT_OF_ORDER else 0
                if down >= MAX_FAILURES_IN_A_ROW:
                    raise QfitLatentError(
                        f"{down} entries in a row could not be asked for, the last one being "
                        f"{row['entry']} ({row['detail']}): check the network and download.* in "
                        "the configuration, or run again later; what has arrived stays."
                    )
        stream.write("".join(sorted(told)) + summary(rows) + "\n")
        return write_log(rows, log_path)
    except OSError as error:
        raise _disk_error(error, len(rows), len(refs), cache_dir) from error
    finally:
        archive.stop.set()
        pool.shutdown(cancel_futures=True)


class Archive:
    """Fetches entries of one source; its methods may be called from several threads."""

    def __init__(self, source: str, settings: Mapping[str, Any], cache_dir: str | Path) -> None:
        self.source, self.settings, self.cache = source, settings, Path(cache_dir)
        self.template = url_template(source, settings)
        self.folder = self.cache / _collection(source, self.template, settings)
        self.stop = threading.Event()
        self._local = threading.local()
        self._lock = threading.Lock()
        self._resume_at = 0.0
        self._cleaned: set[Path] = set()
        self._obsolete_lock = threading.Lock()
        self._obsolete: dict[str, list[str]] | Fault | None = None

    def url(self, entry: str) -> str:
        return self.template.format(id=entry, mid=middle(entry))

    def obtain(self, entry: str) -> tuple[dict[str, Any], int]:
        """The log row of an entry, and how many bytes were fetched now (0: it was there)."""
        start = time.monotonic()
        kept, note = self._kept(entry)
        if kept is not None:
            return kept, 0
        row = self._fetch(entry, [note] if note else [])
        fetched = row["num_bytes"] or 0
        if row["reason"] == Reason.NOT_FOUND and self.source != "url":
            successor = self._successor(entry, row)
            if successor is not None:
                asked, told = row["attempts"], row["detail"]
                kept, note = self._kept(successor)
                row = kept or self._fetch(successor, [note] if note else [])
                fetched = 0 if kept else row["num_bytes"] or 0
                row |= {
                    "entry": entry,
                    "attempts": asked + (0 if kept else row["attempts"]),
                    "seconds": round(time.monotonic() - start, 3),
                    "detail": "; ".join(part for part in (told, row["detail"]) if part),
                    "replaced_by": successor,
                }
                if row["reason"] is None:
                    self._record(row)
        return row, fetched

    # -- the cache ------------------------------------------------------------------------------

    def _record_path(self, entry: str) -> Path:
        return self.folder / middle(entry) / f"{entry}.record.json"

    def _record(self, row: Mapping[str, Any]) -> None:
        """Keeps a row beside its file, with the path relative to the cache, which may be moved."""
        row = dict(row) | {"path": Path(row["path"]).relative_to(self.cache).as_posix()}
        path = self._record_path(row["entry"])
        # Not flushed to the disk: a record that a power failure spoils costs one more download.
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(json.dumps(row, sort_keys=True) + "\n", "utf-8")
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _kept(self, entry: str) -> tuple[dict[str, Any] | None, str]:
        """The row of an entry that is in the cache with the recorded bytes; else None, and why."""
        try:
            row = json.loads(self._record_path(entry).read_text("utf-8"))
            path = self.cache / row["path"]
            row = {name: row[name] for name in LOG_SCHEMA.names}
        except FileNotFoundError:
            return None, ""
        except (ValueError, KeyError, TypeError):
            return None, "its record in the cache was unreadable, so it was asked for again"
        try:
            if path.stat().st_size == row["num_bytes"] and sha256_file(path) == row["sha256"]:
                return row | {"path": str(path)}, ""
        except FileNotFoundError:
            return None, ""
        return None, "its bytes on disk no longer had the logged sha256, so it was asked for again"

    # -- one entry ------------------------------------------------------------------------------

    def _fetch(self, entry: str, notes: list[str]) -> dict[str, Any]:
        """The row that comes of up to ``attempts`` requests for ``entry``."""
        start = time.monotonic()
        row = empty_row(entry, self.source) | {"url": self.url(entry)}
        retry = new_retry(self.settings)
        while True:
            row["attempts"] += 1
            try:
                with self._get(row["url"]) as response:
                    row["status"] = response.status_code
                    return self._receive(response, row, notes, start)
            except Fault as fault:
                row |= {
                    "status": fault.status or row["status"],
                    "seconds": round(time.monotonic() - start, 3),
                    "reason": fault.reason,
                    "detail": "; ".join([*notes, fault.detail]),
                }
                if fault.wait_s is not None:  # a Retry-After holds for every thread
                    with self._lock:
                        self._resume_at = max(self._resume_at, time.monotonic() + fault.wait_s)
                if not fault.again:
                    return row
                try:
                    retry = retry.increment("GET", row["url"], error=HTTPError(fault.detail))
                except MaxRetryError:
                    return row
                if fault.wait_s is None:
                    self._sleep(retry_wait(retry))

    def _sleep(self, seconds: float) -> None:
        if self.stop.wait(max(0.0, seconds)):
            raise Fault(Reason.CONNECTION_ERROR, "stopped before it arrived", again=False)

    def _session(self) -> requests.Session:
        """One session a thread: requests does not promise that sessions can be shared."""
        if not hasattr(self._local, "session"):
            self._local.session = new_session(self.url("1abc"))
        return self._local.session

    def _get(self, url: str) -> requests.Response:
        """An answer with status 200 whose body is still to be read."""
        while (wait := self._resume_at - time.monotonic()) > 0:
            self._sleep(wait)
        timeout = (self.settings["connect_timeout_s"], self.settings["read_timeout_s"])
        response = open_url(self._session(), url, timeout)
        if response.status_code != 200:
            with response:
                raise status_fault(response)
        return response

    def _receive(
        self, response: requests.Response, row: dict[str, Any], notes: list[str], start: float
    ) -> dict[str, Any]:
        """The body into the cache, under its final name only when every check has passed."""
        entry, notes = row["entry"], list(notes)
        announced = response.headers.get("Content-Length")
        length = int(announced) if announced and announced.isdigit() else None
        pieces = read_pieces(response, self.settings["read_timeout_s"], self.stop)
        head = bytearray()
        for piece in pieces:
            head += piece
            if len(head) >= HEAD_BYTES:
                break
        if length is not None and length > 0 and not head:
            raise Fault(Reason.TRUNCATED, f"0 of {length} bytes arrived")
        suffix = structure_suffix(bytes(head), response.headers.get("Content-Encoding"))
        folder = self.folder / middle(entry)
        self._remove_stale(folder)
        final = folder / f"{entry}{suffix}"
        digest, num_bytes = hashlib.sha256(), 0
        unpacked = GzipCheck() if suffix.endswith(".gz") else None
        with atomic_path(final) as temporary:
            with open(temporary, "wb") as file:
                for piece in _chain(bytes(head), pieces):
                    file.write(piece)
                    digest.update(piece)
                    num_bytes += len(piece)
                    if unpacked:
                        unpacked.feed(piece)
            if length is not None and num_bytes != length:
                raise Fault(Reason.TRUNCATED, f"{num_bytes} of {length} bytes arrived")
            if unpacked:
                unpacked.close()
            elif length is None and "chunked" not in response.headers.get("Transfer-Encoding", ""):
                check_text(temporary, suffix)
                notes.append("the server announced no length: its end was checked by syntax only")
            if response.history:
                notes.append(f"redirected to {response.url}")
            row = row | {
                "path": str(final),
                "num_bytes": num_bytes,
                "sha256": digest.hexdigest(),
                "last_modified": _last_modified(response),
                "seconds": round(time.monotonic() - start, 3),
                "reason": None,
                "detail": "; ".join(notes) or None,
            }
            # The record comes first: a file that is found without it is never trusted.
            self._record(row)
        return row

    def _remove_stale(self, folder: Path) -> None:
        """Removes what a killed process has left behind; looks into each folder once."""
        if folder in self._cleaned:
            return
        self._cleaned.add(folder)
        for path in folder.glob(".*.tmp"):
            try:
                if time.time() - path.stat().st_mtime > STALE_AGE_S:
                    path.unlink()
            except FileNotFoundError:
                pass  # another process has just finished or removed it

    # -- obsolete entries -----------------------------------------------------------------------

    def _successor(self, entry: str, row: dict[str, Any]) -> str | None:
        """The id that replaces a missing entry, if any; writes what was learned into ``row``."""
        obsolete = self._status_list()
        if isinstance(obsolete, Fault):
            row["detail"] += f"; the list of obsolete entries was not available ({obsolete})"
            return None
        if entry not in obsolete:
            return None
        current, passed = entry, []
        while current in obsolete and current not in passed:
            passed.append(current)
            if not obsolete[current]:
                row["reason"] = Reason.OBSOLETE_WITHOUT_REPLACEMENT
                row["detail"] = " -> ".join(passed) + " is obsolete and nothing replaces it"
                return None
            current = obsolete[current][0]
        if current in passed:
            row["detail"] += "; the list of obsolete entries goes in a circle"
            return None
        others = obsolete[passed[-1]][1:]
        row["detail"] = f"obsolete, replaced by {current}" + (
            f" (the list also names {', '.join(others)})" if others else ""
        )
        return current

    def _status_list(self) -> dict[str, list[str]] | Fault:
        """Successors of each obsolete id; kept in the cache for a day, asked for once a run."""
        with self._obsolete_lock:
            if self._obsolete is None:
                try:
                    self._obsolete = parse_obsolete(self._status_text())
                except Fault as fault:
                    self._obsolete = fault
            return self._obsolete

    def _status_text(self) -> str:
        url = self.settings["status_url"]
        if url is None:
            raise Fault(Reason.NOT_FOUND, "download.status_url is null")
        name = hashlib.blake2b(url.encode(), digest_size=4).hexdigest()
        path = self.cache / "status" / f"obsolete-{name}.dat"
        if path.exists() and time.time() - path.stat().st_mtime < STATUS_LIST_AGE_S:
            return path.read_text("utf-8")
        _, body = ask(url, self.settings, self.stop)
        if b"OBSLTE" not in body:
            raise Fault(Reason.BAD_RESPONSE, f"{url} is not a list of obsolete entries")
        with atomic_path(path) as temporary:
            temporary.write_bytes(body)
        return body.decode("utf-8", "replace")


def parse_obsolete(text: str) -> dict[str, list[str]]:
    """Successors of each obsolete entry.

    Layout: lines ``OBSLTE    31-JUL-94 116L     216L``, with any number of successors.
    """
    obsolete = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and words[0] == "OBSLTE":
            entry, *successors = (normalise_id(word, "rcsb") for word in words[2:])
            obsolete[entry] = successors
    return obsolete


def _collection(source: str, template: str, settings: Mapping[str, Any]) -> str:
    """The folder of the cache: files of one name in one folder come from one place."""
    if source == "url":
        return f"url-{hashlib.blake2b(template.encode(), digest_size=4).hexdigest()}"
    return f"{source}_pdb" if source == "rcsb" and settings["format"] == "pdb" else source


def _chain(head: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from pieces


def _last_modified(response: requests.Response) -> str | None:
    try:
        moment = parsedate_to_datetime(response.headers["Last-Modified"])
    except (KeyError, ValueError, TypeError):
        return None
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _disk_error(
    error: OSError, num_done: int, num_all: int, cache_dir: str | Path
) -> QfitLatentError:
    """One sentence for a disk that takes no more."""
    done = f"after {num_done} of {num_all} entries"
    stays = "what has arrived stays, and the next run goes on from there"
    if error.errno in _DISK_FULL:
        return QfitLatentError(
            f"No space is left for {cache_dir} {done}: free some or set download.cache to a "
            f"folder on another disk; {stays}."
        )
    if error.errno in _NOT_WRITABLE:
        return QfitLatentError(
            f"The cache {cache_dir} cannot be written {done} ({error.strerror}: "
            f"{error.filename}): change its permissions or set download.cache; {stays}."
        )
    raise error
