"""The archive client: entries arrive completely, checked and logged, or are missing with a reason.

Where files are kept, and when one of them counts as there, is said in
:mod:`qfitlatent.archive.cache`. The log of a shard repeats the records of its entries, including
those that are missing; a second run over a complete cache asks the network nothing and writes the
same log to the byte.

How the server is treated: ``download.connections`` at once and no more, a User-Agent that names
the project, bounded attempts with growing, jittered waits, and a
``Retry-After`` that holds for all connections, not only for the one that was told. When many
entries in a row find the server out of order, the run stops instead of asking for all the rest.

What a server can do: a transfer is bounded in time and size (``download`` names both), and what
arrives passes through piece by piece, so that a connection takes no more memory than a few pieces.
"""

import hashlib
import re
import string
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TextIO

import pyarrow as pa
import requests

from qfitlatent.archive.cache import Cache, collection, disk_error
from qfitlatent.archive.content import (
    HEAD_BYTES,
    Unpacker,
    check_id,
    check_text,
    structure_suffix,
)
from qfitlatent.archive.entries import EntryRef, middle
from qfitlatent.archive.http import (
    Fault,
    Session,
    plain,
    read_date,
    read_pieces,
    status_fault,
    too_large,
    waits,
)
from qfitlatent.archive.log import empty_row, summary, write_log
from qfitlatent.archive.obsolete import ObsoleteEntries
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path, sweep
from qfitlatent.base.progress import Progress
from qfitlatent.tables.reasons import Reason

# So many entries in a row without a sensible answer mean that the server or the network is down.
MAX_FAILURES_IN_A_ROW = 25
_OUT_OF_ORDER = (Reason.CONNECTION_ERROR, Reason.TIMEOUT, Reason.SERVER_ERROR)


def url_template(source: str, settings: Mapping[str, Any]) -> tuple[str, str]:
    """The key of ``download`` that holds the address of an entry, and that address.

    It has ``{id}`` in it, and may have ``{mid}``, the two characters before the last.

    Raises:
        QfitLatentError: no template for this source, or one with other names in braces.
    """
    key = {"rcsb": "rcsb_url", "pdb_redo": "pdb_redo_url", "url": "url"}[source]
    if key == "rcsb_url" and settings["format"] == "pdb":
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
    return key, template


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
        cache_dir: folder of raw files; see :mod:`qfitlatent.archive.cache`.
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
    sweep(cache_dir, deep=True)
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
        if malformed := archive.obsolete.malformed:
            told.append(
                f"the list of obsolete entries has {len(malformed)} malformed lines, the first "
                f"being {malformed[0]!r}\n"
            )
        stream.write("".join(sorted(told)) + summary(rows) + "\n")
        return write_log(rows, log_path)
    except OSError as error:
        done = f"after {len(rows)} of {len(refs)} entries"
        raise disk_error(error, cache_dir, done) from error
    finally:
        archive.stop.set()
        pool.shutdown(cancel_futures=True)


class Archive:
    """Fetches entries of one source; its methods may be called from several threads."""

    def __init__(self, source: str, settings: Mapping[str, Any], cache_dir: str | Path) -> None:
        self.source, self.settings = source, settings
        key, self.template = url_template(source, settings)
        self.cache = Cache(cache_dir, collection(key, self.template))
        self.stop = threading.Event()
        self.obsolete = ObsoleteEntries(settings, cache_dir, self.stop)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._resume_at = 0.0

    def obtain(self, entry: str) -> tuple[dict[str, Any], int]:
        """The log row of an entry, and how many bytes were fetched now (0: it was there)."""
        start = time.monotonic()
        row, fetched = self._obtain(entry)
        if row["reason"] not in (Reason.NOT_FOUND, Reason.WRONG_ENTRY) or self.source == "url":
            return row, fetched
        try:
            successor, told = self.obsolete.successor(entry)
        except Fault as fault:
            return row | {"reason": fault.reason, "detail": fault.detail}, 0
        if successor is None:
            return row | {"detail": "; ".join(filter(None, (row["detail"], told)))}, 0
        asked = row["attempts"]
        row, fetched = self._obtain(successor)
        row |= {
            "entry": entry,
            "attempts": asked + (row["attempts"] if fetched or row["reason"] else 0),
            "seconds": round(time.monotonic() - start, 3),
            "detail": "; ".join(filter(None, (told, row["detail"]))),
            "replaced_by": successor,
        }
        if row["reason"] is None:
            self.cache.record(row)
        return row, fetched

    def _obtain(self, entry: str) -> tuple[dict[str, Any], int]:
        """From the cache, or else from the server under this very id."""
        row, note = self.cache.find(entry)
        if row is not None:
            return row, 0
        row = self._fetch(entry, [note] if note else [])
        return row, row["num_bytes"] or 0

    def _fetch(self, entry: str, notes: list[str]) -> dict[str, Any]:
        """The row that comes of up to ``attempts`` requests for ``entry``."""
        start = time.monotonic()
        url = self.template.format(id=entry, mid=middle(entry))
        row = empty_row(entry, self.source) | {"url": url}
        further = waits(self.settings)
        while True:
            row["attempts"] += 1
            try:
                with self._open(url) as response:
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
                wait = next(further, None)
                if not fault.again or wait is None:
                    return row
                if fault.wait_s is None:
                    self.stop.wait(wait)

    def _open(self, url: str) -> requests.Response:
        """An answer with status 200 whose body is still to be read."""
        while (wait := self._resume_at - time.monotonic()) > 0 and not self.stop.is_set():
            self.stop.wait(wait)
        if not hasattr(self._local, "session"):  # requests does not promise to share one
            self._local.session = Session(self.settings, self.stop)
        response = self._local.session.open(url)
        if response.status_code != 200:
            with response:
                raise status_fault(response)
        return response

    def _receive(
        self, response: requests.Response, row: dict[str, Any], notes: list[str], start: float
    ) -> dict[str, Any]:
        """The body into the cache, under its final name only when every check has passed."""
        entry, notes, headers = row["entry"], list(notes), response.headers
        max_bytes = self.settings["max_file_mb"] * 1e6
        announced = headers.get("Content-Length", "")
        length = int(announced) if re.fullmatch(r"\d{1,15}", announced, re.ASCII) else None
        if length is not None and length > max_bytes:
            raise too_large(max_bytes, f" ({length} bytes announced)")
        unpacker = Unpacker(self.settings["max_unpacked_mb"] * 1e6)
        pieces = _unpacked(read_pieces(response, max_bytes), unpacker)
        first = bytearray()
        for piece in pieces:
            first += piece
            if len(first) >= HEAD_BYTES:
                break
        if length and not first:
            raise Fault(Reason.TRUNCATED, f"0 of {length} bytes arrived")
        head = bytes(unpacker.head)
        suffix = structure_suffix(head, unpacker.packed, headers.get("Content-Encoding"))
        check_id(head, suffix, entry)
        final = self.cache.path(entry, suffix)
        digest, num_bytes = hashlib.sha256(), 0
        with atomic_path(final) as temporary:
            with open(temporary, "wb") as file:
                for piece in chain([bytes(first)], pieces):
                    file.write(piece)
                    digest.update(piece)
                    num_bytes += len(piece)
            if length is not None and num_bytes != length:
                raise Fault(Reason.TRUNCATED, f"{num_bytes} of {length} bytes arrived")
            unpacker.close()
            chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
            if length is None and not chunked and not unpacker.packed:
                check_text(temporary, suffix)
                notes.append("the server announced no length: its end was checked by syntax only")
            if response.history:
                notes.append(f"redirected to {plain(response.url)}")
            modified = read_date(headers.get("Last-Modified", ""))
            row = row | {
                "path": str(final),
                "num_bytes": num_bytes,
                "sha256": digest.hexdigest(),
                "last_modified": modified and modified.isoformat().replace("+00:00", "Z"),
                "seconds": round(time.monotonic() - start, 3),
                "reason": None,
                "detail": "; ".join(notes) or None,
            }
            # The record comes first: a file that is found without it is never trusted.
            self.cache.record(row)
        return row


def _unpacked(pieces: Iterator[bytes], unpacker: Unpacker) -> Iterator[bytes]:
    """The same pieces, each of them once it has been unpacked and found sound."""
    for piece in pieces:
        unpacker.feed(piece)
        yield piece
