"""Obsolete entries of the PDB and what replaces them, by the archive's list."""

import hashlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qfitlatent.archive.entries import pdb_id
from qfitlatent.archive.http import Fault, ask, plain
from qfitlatent.base.files import atomic_path
from qfitlatent.tables.reasons import Reason

# The archive publishes its list once a week.
LIST_AGE_S = 86400.0


class ObsoleteEntries:
    """The list, asked for when the first entry needs it; its methods may be called from threads.

    Attributes:
        malformed: lines of the list that were skipped, or of which a word was.
    """

    def __init__(
        self, settings: Mapping[str, Any], cache_dir: str | Path, stop: threading.Event
    ) -> None:
        self._settings, self._folder, self._stop = settings, Path(cache_dir) / "status", stop
        self._lock = threading.Lock()
        self._successors: dict[str, list[str]] | Fault | None = None
        self.malformed: list[str] = []

    def successor(self, entry: str) -> tuple[str | None, str]:
        """The id that replaces an entry, or None; and what a reader should know, in words.

        Raises:
            Fault: the entry is obsolete, and nothing replaces it.
        """
        obsolete = self._list()
        if isinstance(obsolete, Fault):
            return None, f"the list of obsolete entries was not available ({obsolete})"
        current, passed = entry, []
        while current in obsolete and current not in passed:
            passed.append(current)
            if not obsolete[current]:
                raise Fault(
                    Reason.OBSOLETE_WITHOUT_REPLACEMENT,
                    " -> ".join(passed) + " is obsolete and nothing replaces it",
                )
            current = obsolete[current][0]
        if not passed:
            return None, ""
        if current in passed:
            return None, "the list of obsolete entries goes in a circle"
        others = ", ".join(obsolete[passed[-1]][1:])
        more = f" (the list also names {others})" if others else ""
        return current, f"obsolete, replaced by {current}{more}"

    def _list(self) -> dict[str, list[str]] | Fault:
        """Asked for once a run, whether it can be had or not."""
        with self._lock:
            if self._successors is None:
                try:
                    self._successors, self.malformed = parse_obsolete(self._text())
                except Fault as fault:
                    self._successors = fault
            return self._successors

    def _text(self) -> str:
        """The list, kept in the cache for a day; its letters beyond ASCII do not matter."""
        url = self._settings["status_url"]
        if url is None:
            raise Fault(Reason.NOT_FOUND, "download.status_url is null")
        name = hashlib.blake2b(url.encode(), digest_size=4).hexdigest()
        path = self._folder / f"obsolete-{name}.dat"
        if path.exists() and time.time() - path.stat().st_mtime < LIST_AGE_S:
            body = path.read_bytes()
        else:
            _, body = ask(url, self._settings, self._stop)
            if b"OBSLTE" not in body:
                raise Fault(Reason.BAD_RESPONSE, f"{url} is not a list of obsolete entries")
            with atomic_path(path) as temporary:
                temporary.write_bytes(body)
        return body.decode("utf-8", "replace")


def parse_obsolete(text: str) -> tuple[dict[str, list[str]], list[str]]:
    """Successors of each obsolete entry, and the lines that are not as they should be.

    Layout: lines ``OBSLTE    31-JUL-94 116L     216L``, with any number of successors. A word that
    is no id is skipped, and the line with it where nothing is left to say.
    """
    obsolete: dict[str, list[str]] = {}
    malformed = []
    for line in text.splitlines():
        key, *words = line.split() or [""]
        if key != "OBSLTE":
            continue
        ids = [pdb_id(word) for word in words[1:]]
        if not ids or not all(ids):
            malformed.append(plain(line))
        successors = [entry for entry in ids[1:] if entry]
        if ids and ids[0] and (successors or len(ids) == 1):
            obsolete[ids[0]] = successors
    return obsolete, malformed
