"""The download log: a row an entry, with its file or the reason why there is none."""

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from qfitlatent.archive.entries import EntryRef
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import sha256_file
from qfitlatent.base.progress import Progress, format_bytes
from qfitlatent.tables.columns import F64, I16, I64, TEXT, Column, make_schema
from qfitlatent.tables.parquet import conform, read_table, write_table
from qfitlatent.tables.reasons import Reason

# Asking again does not help.
_FINAL = (Reason.NOT_FOUND, Reason.OBSOLETE_WITHOUT_REPLACEMENT, Reason.REFUSED)
LOG_SCHEMA = make_schema(
    (
        Column("entry", TEXT, False, "", "id of the entry as selected"),
        Column("source", TEXT, False, "", "where entries come from (entries.source)"),
        Column("url", TEXT, True, "", "address asked last; null for files of the user"),
        Column("path", TEXT, True, "", "the file; null when the entry is missing"),
        Column("status", I16, True, "", "last HTTP status; null without an answer"),
        Column("attempts", I16, False, "", "requests made when the file was fetched"),
        Column("num_bytes", I64, True, "byte", "size of the file"),
        Column("sha256", TEXT, True, "", "sha256 of the file's bytes"),
        Column("last_modified", TEXT, True, "", "as the server says, ISO 8601, UTC"),
        Column("seconds", F64, True, "s", "time that fetching took, waits included"),
        Column("reason", TEXT, True, "", "why the entry is missing; null when it is not"),
        Column("detail", TEXT, True, "", "what a reader should know, in words"),
        Column("replaced_by", TEXT, True, "", "id that replaces an obsolete entry"),
    )
)


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
            row = empty_row(ref.id, source)
            try:
                if ref.path is None:
                    said = "there is no file with this id, or its name is no UTF-8: rename it"
                    raise FileNotFoundError(errno.ENOENT, said)
                status = os.stat(ref.path)
                if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
                    raise OSError(errno.EINVAL, "it is no regular file")
                digest = sha256_file(ref.path)
                row |= {"path": ref.path, "num_bytes": status.st_size, "sha256": digest}
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


def empty_row(entry: str, source: str) -> dict[str, Any]:
    row = dict.fromkeys(LOG_SCHEMA.names)
    return row | {"entry": entry, "source": source, "attempts": 0}


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
