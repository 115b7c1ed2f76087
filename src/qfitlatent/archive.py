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

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import re
import string
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TextIO

import pyarrow as pa
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError, ReadTimeoutError
from urllib3.util import Retry

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path, sha256_file
from qfitlatent.base.progress import Progress, format_bytes, format_seconds
from qfitlatent.entries import EntryRef, middle, normalise_id
from qfitlatent.tables.columns import VERSION, Column
from qfitlatent.tables.parquet import conform, read_table, write_table
from qfitlatent.tables.reasons import Reason

# Wait before the second attempt is up to BACKOFF_S, then BACKOFF_S * 2, * 4, ... plus jitter.
BACKOFF_S = 1.0


BACKOFF_MAX_S = 60.0


# A server that asks for more patience than this is left alone: the entry counts as missing.
MAX_RETRY_AFTER_S = 300.0


# Slower than this over a whole read timeout is a stall, though every single read succeeds.
MIN_BYTES_PER_S = 1000


# So many entries in a row without a sensible answer mean that the server or the network is down.
MAX_FAILURES_IN_A_ROW = 25


MAX_REDIRECTS = 5


RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


# The archive publishes its list of obsolete entries once a week.
STATUS_LIST_AGE_S = 86400.0


# Temporary files that nobody has written to for so long belong to a process that was killed.
STALE_AGE_S = 3600.0


# A structure file is known by its first line that is not a comment; of gzip this much is enough.
HEAD_BYTES = 65536


SNIFF_BYTES = 8192


PIECE_BYTES = 262144


USER_AGENT = f"qFitLatent/{version('qfitlatent')} python-requests/{requests.__version__}"


_PDB_RECORDS = frozenset(
    b"ANISOU ATOM AUTHOR CAVEAT CISPEP COMPND CRYST1 DBREF EXPDTA HEADER HELIX HET HETATM HETNAM "
    b"JRNL KEYWDS LINK MASTER MDLTYP MODEL MODRES MTRIX1 NUMMDL OBSLTE ORIGX1 REMARK REVDAT SCALE1 "
    b"SEQADV SEQRES SHEET SITE SOURCE SPLIT SPRSDE SSBOND TER TITLE".split()
)


_OUT_OF_ORDER = (Reason.CONNECTION_ERROR, Reason.TIMEOUT, Reason.SERVER_ERROR)


# Asking again does not help.
_FINAL = (Reason.NOT_FOUND, Reason.OBSOLETE_WITHOUT_REPLACEMENT, Reason.REFUSED)


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


_COLUMNS = (
    Column("entry", pa.string(), False, "", "id of the entry as selected"),
    Column("source", pa.string(), False, "", "where entries come from (entries.source)"),
    Column("url", pa.string(), True, "", "address asked last; null for files of the user"),
    Column("path", pa.string(), True, "", "the file; null when the entry is missing"),
    Column("status", pa.int16(), True, "", "last HTTP status; null without an answer"),
    Column("attempts", pa.int16(), False, "", "requests made when the file was fetched"),
    Column("num_bytes", pa.int64(), True, "byte", "size of the file"),
    Column("sha256", pa.string(), True, "", "sha256 of the file's bytes"),
    Column("last_modified", pa.string(), True, "", "as the server says, ISO 8601, UTC"),
    Column("seconds", pa.float64(), True, "s", "time that fetching took, waits included"),
    Column("reason", pa.string(), True, "", "why the entry is missing; null when it is not"),
    Column("detail", pa.string(), True, "", "what a reader should know, in words"),
    Column("replaced_by", pa.string(), True, "", "id that replaces an obsolete entry"),
)


LOG_SCHEMA = pa.schema(
    [
        pa.field(
            column.name,
            column.type,
            column.nullable,
            {b"unit": column.unit.encode(), b"description": column.description.encode()},
        )
        for column in _COLUMNS
    ],
    metadata={b"qfitlatent_schema": VERSION.encode()},
)


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


def log_local_files(
    refs: Sequence[EntryRef],
    source: str,
    log_path: str | Path,
    stream: TextIO | None = None,
) -> pa.Table:
    """The same log for files that are already there (sources local and simulated): no copy.

    A file that is missing or cannot be read is a row with a reason.
    """
    rows = []
    with Progress(len(refs), "entries", stream) as progress:
        for ref in refs:
            row = _empty_row(ref.id, source)
            try:
                if ref.path is None:
                    raise FileNotFoundError(errno.ENOENT, "there is no file with this id")
                size = os.stat(ref.path).st_size
                row |= {"path": ref.path, "num_bytes": size, "sha256": sha256_file(ref.path)}
            except OSError as error:
                where = f"{ref.path}: " if ref.path else ""
                row |= {"reason": Reason.NOT_FOUND, "detail": f"{where}{error.strerror}"}
            rows.append(row)
            progress.update(num_bytes=row["num_bytes"] or 0, failures=int(bool(row["reason"])))
    return write_log(rows, log_path)


def write_log(rows: Iterable[Mapping[str, Any]], log_path: str | Path) -> pa.Table:
    """Rows of :data:`LOG_SCHEMA`, sorted by entry, as Parquet, atomically."""
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: row["entry"]), schema=LOG_SCHEMA)
    write_table(table, log_path, LOG_SCHEMA)
    return table


def read_logs(log_paths: Iterable[str | Path]) -> pa.Table:
    """The logs of several shards as one, sorted by entry."""
    tables = [conform(read_table(path), LOG_SCHEMA, path) for path in log_paths]
    if not tables:
        return LOG_SCHEMA.empty_table()
    return pa.concat_tables(tables).sort_by("entry")


def check_missing(log_paths: Iterable[str | Path], max_missing_fraction: float) -> str:
    """Judges the logs of all shards together, after the last of them.

    Where too many are missing, the logs of shards with entries that another attempt may bring are
    removed: Snakemake takes a log that exists for a finished shard and would not ask again.

    Returns:
        A summary in words: how many are there, how many are missing and why.
    Raises:
        QfitLatentError: more than ``max_missing_fraction`` of the entries are missing, or all.
    """
    logs = {Path(path): read_logs([path]).to_pylist() for path in log_paths}
    rows = sorted((row for log in logs.values() for row in log), key=lambda row: row["entry"])
    missing = [row for row in rows if row["reason"] is not None]
    if not missing or (len(missing) <= max_missing_fraction * len(rows) < len(rows)):
        return "\n".join([summary(rows), *_twice(rows)])
    hopeful = [row for row in missing if row["reason"] not in _FINAL and row["source"] != "local"]
    for path, log in logs.items():
        if any(row in hopeful for row in log):
            path.unlink()
    shown = "; ".join(f"{row['entry']}: {row['reason']}, {row['detail']}" for row in missing[:10])
    more = f"; and {len(missing) - 10} more, named in the logs of their shards"
    shown += more if len(missing) > 10 else ""
    advice = "remove them from the list, or raise the limit."
    if hopeful:
        advice = f"run again to ask for {len(hopeful)} of them once more, " + advice
    raise QfitLatentError(
        f"{len(missing)} of {len(rows)} entries are missing, more than "
        f"entries.max_missing_fraction = {max_missing_fraction:g} allows ({_reasons(missing)}): "
        f"{shown}. {advice[0].upper()}{advice[1:]}"
    )


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
        row = _empty_row(entry, self.source) | {"url": self.url(entry)}
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
            raise Fault(Reason.TRUNCATED, f"the body was cut short: {_plain(error)}") from error
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
                            fault.detail += f": {_plain(response.text)}"
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
        raise Fault(Reason.TIMEOUT, f"no answer from {_host(url)}: {_plain(error)}") from error
    except requests.ConnectionError as error:
        raise Fault(
            Reason.CONNECTION_ERROR, f"no connection to {_host(url)}: {_plain(error)}"
        ) from error
    except requests.RequestException as error:
        raise Fault(Reason.BAD_RESPONSE, f"{url}: {_plain(error)}", again=False) from error


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


def structure_suffix(head: bytes, encoding: str | None = None) -> str:
    """``.cif`` or ``.pdb``, with ``.gz`` where the bytes are gzip, by content alone.

    The header Content-Encoding is not believed: servers label a .cif.gz so, and some label plain
    text so. It is only named in the message when the content is neither.

    Args:
        head: the first bytes of the file, at most ``HEAD_BYTES``.
    Raises:
        Fault: an empty body, a web page, or anything else.
    """
    text, suffix = head, ""
    if head.startswith(b"\x1f\x8b"):
        suffix = ".gz"
        try:
            text = zlib.decompressobj(31).decompress(head[:SNIFF_BYTES], HEAD_BYTES)
        except zlib.error as error:
            raise Fault(Reason.CORRUPT, f"the gzip stream is damaged: {error}") from error
    for line in io.BytesIO(text.removeprefix(b"\xef\xbb\xbf")):
        if not line.strip() or line.startswith(b"#"):
            continue
        if line[:5].lower() == b"data_":
            return ".cif" + suffix
        if line[:6].strip() in _PDB_RECORDS:
            return ".pdb" + suffix
        break
    if not text.strip():
        what = "an empty body" if not head or suffix else "blanks"
        reason = Reason.TRUNCATED if suffix else Reason.BAD_RESPONSE
        raise Fault(reason, f"{what} instead of a structure")
    start = text[:200].decode("latin-1").strip()
    page = start.startswith("<")
    shown = re.sub(r"[^\x20-\x7e]+", " ", start)[:60]
    label = f", sent with Content-Encoding {encoding}" if encoding else ""
    what = "a web page" if page else "something that is neither mmCIF nor PDB"
    raise Fault(Reason.BAD_RESPONSE, f"{what}{label}, beginning {shown!r}")


class GzipCheck:
    """Reads a gzip stream as it arrives, to its end, where its checksum and length are compared."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(31)

    def feed(self, piece: bytes) -> None:
        """
        Raises:
            Fault: damaged.
        """
        try:
            while piece:
                if self._member.eof:  # a file may have several members, one after the other
                    self._member = zlib.decompressobj(31)
                self._member.decompress(piece)
                piece = self._member.unused_data
        except zlib.error as error:
            raise Fault(Reason.CORRUPT, f"the gzip stream is damaged: {error}") from error

    def close(self) -> None:
        """
        Raises:
            Fault: truncated.
        """
        if not self._member.eof:
            raise Fault(Reason.TRUNCATED, "the gzip stream ends too early")


def check_text(path: Path, suffix: str) -> None:
    """Whether plain text of unknown length has a proper end; the best that can be done for it.

    Raises:
        Fault: the last line is not finished, or an mmCIF file does not parse.
    """
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 100))
        end = file.read()
    if not end.endswith(b"\n") and end.splitlines()[-1].strip() != b"END":
        raise Fault(Reason.TRUNCATED, "the last line is not finished")
    if suffix == ".cif":
        import gemmi  # only here: planning and most downloads do not need it

        try:
            gemmi.cif.read(str(path))
        except (ValueError, RuntimeError) as error:
            raise Fault(Reason.TRUNCATED, f"mmCIF that does not parse: {_plain(error)}") from error


def _collection(source: str, template: str, settings: Mapping[str, Any]) -> str:
    """The folder of the cache: files of one name in one folder come from one place."""
    if source == "url":
        return f"url-{hashlib.blake2b(template.encode(), digest_size=4).hexdigest()}"
    return f"{source}_pdb" if source == "rcsb" and settings["format"] == "pdb" else source


def _empty_row(entry: str, source: str) -> dict[str, Any]:
    row = dict.fromkeys(LOG_SCHEMA.names)
    return row | {"entry": entry, "source": source, "attempts": 0}


def _chain(head: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from pieces


def _last_modified(response: requests.Response) -> str | None:
    try:
        moment = parsedate_to_datetime(response.headers["Last-Modified"])
    except (KeyError, ValueError, TypeError):
        return None
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _host(url: str) -> str:
    return url.split("/")[2]


def _plain(error: BaseException | str) -> str:
    """An error in one line, without the Python objects that texts of urllib3 name."""
    text = re.sub(r"<[^<>]*object at 0x[0-9a-f]+>:?\s*", "", str(error))
    text = re.sub(
        r"^\w+\(.*\): Max retries exceeded with url: \S+ \(Caused by (.*)\)$", r"\1", text
    )
    return re.sub(r"\s+", " ", text).strip()[:200]


def _reasons(missing: Iterable[Mapping[str, Any]]) -> str:
    counts = Counter(row["reason"] for row in missing)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many entries of a log are there, how many are missing, and why."""
    missing = [row for row in rows if row["reason"] is not None]
    size = format_bytes(sum(row["num_bytes"] or 0 for row in rows))
    text = f"{len(rows) - len(missing)} of {len(rows)} entries are there ({size})"
    return text + (f"; {len(missing)} are missing: {_reasons(missing)}" if missing else "")


def _twice(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Entries whose files are the same to the byte: they weigh double in what is learned."""
    same: dict[str, list[str]] = {}
    for row in rows:
        if row["sha256"] is not None:
            same.setdefault(row["sha256"], []).append(row["entry"])
    return [
        f"{' and '.join(entries)} are one and the same file: remove all but one from the list"
        for entries in same.values()
        if len(entries) > 1
    ]


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
