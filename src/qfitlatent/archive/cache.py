"""The raw files that have arrived, shared by all data sets, and what is known about each.

Layout::

    <cache>/<collection>/<middle of the id>/<id>.cif.gz         the bytes as they arrived
    <cache>/<collection>/<middle of the id>/<id>.record.json    its row of the log

A file is written under a temporary name, checked, flushed to the disk and renamed; its record is
there before it is. So whatever kills the process, a file with its final name is complete, and a
file whose record is missing or whose bytes have another sha256 is fetched again.
"""

import errno
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qfitlatent.archive.entries import middle
from qfitlatent.archive.log import LOG_SCHEMA
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path, sha256_file

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Cache:
    """The files of one collection: those of one name in it come from one place."""

    def __init__(self, root: str | Path, collection: str) -> None:
        self.root = Path(root)
        self._folder = self.root / collection

    def path(self, entry: str, ending: str) -> Path:
        return self._folder / middle(entry) / f"{entry}{ending}"

    def record(self, row: Mapping[str, Any]) -> None:
        """Keeps a row beside its file, with the path relative to the cache, which may be moved."""
        row = dict(row) | {"path": Path(row["path"]).relative_to(self.root).as_posix()}
        # Not flushed to the disk: a record that a power failure spoils costs one more download.
        with atomic_path(self.path(row["entry"], ".record.json"), flush=False) as temporary:
            temporary.write_text(json.dumps(row, sort_keys=True) + "\n", "utf-8")

    def find(self, entry: str) -> tuple[dict[str, Any] | None, str]:
        """The row of an entry that is there with the recorded bytes; else None, and why."""
        try:
            row = json.loads(self.path(entry, ".record.json").read_bytes())
            path = self.root / row["path"]
            row = {name: row[name] for name in LOG_SCHEMA.names} | {"path": str(path)}
            if path.stat().st_size == row["num_bytes"] and sha256_file(path) == row["sha256"]:
                return row, ""
        except FileNotFoundError:
            return None, ""
        except (ValueError, KeyError, TypeError, RecursionError):
            return None, "its record in the cache was unreadable, so it was asked for again"
        return None, "its bytes on disk no longer had the logged sha256, so it was asked for again"


def collection(key: str, template: str) -> str:
    """The folder of the cache for what comes from the address ``download.<key>``."""
    if key == "url":
        return f"url-{hashlib.blake2b(template.encode(), digest_size=4).hexdigest()}"
    return key.removesuffix("_url")


def disk_error(error: OSError, cache_dir: str | Path, done: str) -> QfitLatentError:
    """One sentence for a disk that takes no more; ``done``: how far the run has come."""
    stays = "what has arrived stays, and the next run goes on from there"
    if error.errno in _DISK_FULL:
        return QfitLatentError(
            f"No space is left for {cache_dir} {done}: free some or set download.cache to a "
            f"folder on another disk; {stays}."
        )
    return QfitLatentError(
        f"The cache {cache_dir} cannot be read or written {done} ({error.strerror}: "
        f"{error.filename}): change its permissions or set download.cache; {stays}."
    )
