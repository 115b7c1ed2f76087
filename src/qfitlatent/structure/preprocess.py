"""Entries become tables, one file or many (SPEC 2 to 5)."""

import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.compute as pc

from qfitlatent.base.config import settings
from qfitlatent.base.contained import Limits, Stopped, Watch, contained
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import find_beside
from qfitlatent.base.progress import Progress
from qfitlatent.structure.atoms import Parsed, parse_file
from qfitlatent.structure.backbone import backbone_of
from qfitlatent.structure.conformers import conformers_of
from qfitlatent.structure.containers import ReadingLimits
from qfitlatent.structure.records import all_tables, rejected_table
from qfitlatent.structure.rejections import Loss, unexpected_errors
from qfitlatent.structure.residues import Residues
from qfitlatent.tables import schemas
from qfitlatent.tables.parquet import read_table, table_writer
from qfitlatent.tables.reasons import Reason

_BATCH_ATOMS = 150_000
"""Atoms whose tables are made together: bounds memory."""

_BATCH_ENTRIES = 64


@dataclass(frozen=True)
class EntryRecords:
    """The tables of one entry (schemas.SCHEMAS).

    ``entries`` has one row, or none where the entry as a whole is in ``rejected``; ``traceback`` is
    that of an error that nobody foresaw.
    """

    entries: pa.Table
    residues: pa.Table
    frames: pa.Table
    conformers: pa.Table
    rejected: pa.Table
    traceback: str = ""

    def tables(self) -> dict[str, pa.Table]:
        return {name: getattr(self, name) for name in schemas.SCHEMAS}


@dataclass(frozen=True)
class PreprocessSettings(ReadingLimits):
    """The section ``preprocess`` of the configuration."""

    max_conformers: int
    max_seconds: float
    max_memory_gb: float


@cache
def _defaults() -> PreprocessSettings:
    return settings(PreprocessSettings, "preprocess")


def read_entry(
    path: str | Path,
    entry: str,
    *,
    source: str = "local",
    url: str | None = None,
    max_conformers: int | None = None,
) -> EntryRecords:
    """The tables of one coordinate file: mmCIF or PDB format, plain or gzipped.

    A file that is missing, unreadable or without protein gives an entry-level rejection; so does
    one whose reading raises an error that nobody foresaw.

    Args:
        source, url: written into the entries table.
        max_conformers: conformers of a residue that are used at most, highest occupancy first;
            None is the default of the configuration.
    """
    most = _defaults().max_conformers if max_conformers is None else max_conformers
    if most < 1:
        raise QfitLatentError(
            f"preprocess.max_conformers is {most}: at least 1 conformer must be allowed."
        )
    parsed, trace = _parse(path, Parsed(entry, source, url), _defaults())
    tables, more = _make_contained([parsed], most)
    return EntryRecords(**tables, traceback=trace + more)


def read_entry_in_limits(path: str | Path, entry: str) -> EntryRecords:
    """``read_entry`` for whoever waits: in a process of its own, within the default limits."""
    row = {"entry": entry, "source": "local", "url": None, "path": str(path)}
    ((_, tables),) = _in_batches([row], _defaults())
    return EntryRecords(**tables)


def preprocess_entries(
    download_log: str | Path,
    out_dir: str | Path,
    given: Mapping[str, Any] | None = None,
    *,
    stream: TextIO | None = None,
) -> None:
    """Write the five tables of all entries in a download log (archive.LOG_SCHEMA) to ``out_dir``.

    Entries that are missing according to the log become rejected rows of the stage download. One
    file that raises an unforeseen error, or goes beyond the limits of time and memory, is a
    rejected row as well; tracebacks go to standard error, and the count to ``stream``.

    Args:
        given: keys of the section ``preprocess`` that differ from the defaults.
    """
    chosen = settings(PreprocessSettings, "preprocess", given)
    columns = ["entry", "source", "url", "path", "reason", "detail"]
    rows = sorted(read_table(download_log, columns).to_pylist(), key=lambda row: row["entry"])
    if any(a["entry"] == b["entry"] for a, b in pairwise(rows)):
        raise QfitLatentError("The entries of a batch must be sorted and differ; sort them by id.")
    for row in rows:
        if row["path"] is not None:
            row["path"] = find_beside(row["path"], download_log)
    stream, out_dir = stream or sys.stderr, Path(out_dir)
    unexpected: list[str] = []
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(table_writer(out_dir / f"{name}.parquet", schema))
            for name, schema in schemas.SCHEMAS.items()
        }
        progress = stack.enter_context(Progress(len(rows), "entries", stream))
        for number, tables in _in_batches(rows, chosen):
            for name, table in tables.items():
                writers[name].write(table)
            rejected = tables["rejected"]
            whole = rejected.filter(pc.equal(rejected["scope"], "entry"))
            progress.update(number, failures=len(whole))
            unexpected += unexpected_errors(whole)
    if unexpected:
        print(
            f"{len(unexpected)} of {len(rows)} entries raised an unexpected error, see the "
            f"tracebacks in the log of this job: {', '.join(unexpected)}",
            file=stream,
        )


_Row = Mapping[str, Any]
"""An entry of the download log."""


def _in_batches(
    rows: Sequence[_Row], chosen: PreprocessSettings
) -> Iterator[tuple[int, dict[str, pa.Table]]]:
    """(number of entries, their tables), from a process of its own that limits can stop.

    Where it was stopped, the entry that it was at is given up, and another process goes on.
    """
    limits = Limits(chosen.max_seconds, chosen.max_memory_gb)
    done, alone = 0, 0
    given_up: dict[int, tuple[str, Reason, str]] = {}
    while done < len(rows):
        work = partial(_batches, rows, done, alone, given_up, chosen)
        try:
            for piece in contained(work, limits):
                end, tables = _unpack(piece)
                yield end - done, tables
                done = end
        except Stopped as stop:
            if stop.first < 0 or stop.first in given_up:
                raise  # not the file, but what is left of it without its content
            if stop.first < stop.last:
                alone = stop.last + 1
                continue
            reason = Reason.BEYOND_LIMIT if stop.by_limit else Reason.UNEXPECTED_ERROR
            given_up[stop.first] = ("preprocess", reason, f"reading the file: {stop}")


def _batches(
    rows: Sequence[_Row],
    start: int,
    alone: int,
    given_up: Mapping[int, tuple[str, Reason, str]],
    chosen: PreprocessSettings,
    watch: Watch,
) -> Iterator[bytes]:
    """Packed tables of the rows from ``start`` on; one by one for those before ``alone``."""
    at = start
    while at < len(rows):
        batch: list[Parsed] = []
        first, num_atoms = at, 0
        while at < len(rows) and len(batch) < _BATCH_ENTRIES and num_atoms < _BATCH_ATOMS:
            watch(at, at)
            row = rows[at]
            parsed = Parsed(row["entry"], row["source"], row["url"], rejection=given_up.get(at))
            if row["path"] is None:
                reason = Reason(row["reason"])
                parsed.rejection = ("download", reason, row["detail"] or "")
            elif parsed.rejection is None:
                parsed, trace = _parse(row["path"], parsed, chosen)
                sys.stderr.write(trace)
            batch.append(parsed)
            num_atoms += len(parsed.atoms.occupancy) if parsed.atoms else 0
            at += 1
            if at <= alone:
                break
        watch(first, at - 1)
        tables, traces = _make_contained(batch, chosen.max_conformers)
        sys.stderr.write(traces)
        yield _pack(at, tables)


def _parse(path: str | Path, of: Parsed, limits: ReadingLimits) -> tuple[Parsed, str]:
    """The file, and the traceback of an error that nobody foresaw."""
    try:
        return parse_file(path, of.entry, source=of.source, url=of.url, limits=limits), ""
    except Exception as error:
        return _gave_up(of, error), _traceback(of.entry)


def _make_contained(
    batch: Sequence[Parsed], max_conformers: int
) -> tuple[dict[str, pa.Table], str]:
    """``make_tables``; where that raises, entry by entry, and those it raises for are rejected."""
    try:
        return make_tables(batch, max_conformers), ""
    except Exception as error:
        if len(batch) == 1:
            rejected = make_tables([_gave_up(batch[0], error)], max_conformers)
            return rejected, _traceback(batch[0].entry)
    made, traces = zip(*(_make_contained([one], max_conformers) for one in batch), strict=True)
    joined = {name: pa.concat_tables([tables[name] for tables in made]) for name in made[0]}
    return joined, "".join(traces)


def _gave_up(of: Parsed, error: Exception) -> Parsed:
    if isinstance(error, MemoryError):
        reason, detail = Reason.BEYOND_LIMIT, "reading it takes more memory than there is for it"
    else:
        detail = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        reason = Reason.UNEXPECTED_ERROR
    return Parsed(of.entry, of.source, of.url, rejection=("preprocess", reason, detail))


def _traceback(entry: str) -> str:
    return f"{entry}: an unexpected error\n{traceback.format_exc()}"


def _pack(end: int, tables: Mapping[str, pa.Table]) -> bytes:
    """Tables in the order of SCHEMAS behind ``end``, as Arrow's own bytes."""
    sink = pa.BufferOutputStream()
    sink.write(end.to_bytes(8, "little"))
    for name in schemas.SCHEMAS:
        with pa.ipc.new_stream(sink, tables[name].schema) as writer:
            writer.write_table(tables[name])
    return sink.getvalue()


def _unpack(piece: bytes) -> tuple[int, dict[str, pa.Table]]:
    source = pa.BufferReader(piece)
    end = int.from_bytes(source.read(8), "little")
    return end, {name: pa.ipc.open_stream(source).read_all() for name in schemas.SCHEMAS}


def make_tables(batch: Sequence[Parsed], max_conformers: int) -> dict[str, pa.Table]:
    """The five tables of these entries, which are sorted by id and differ."""
    names = [parsed.entry for parsed in batch]
    losses: list[tuple[int, Loss]] = []
    for e, parsed in enumerate(batch):
        if parsed.rejection is not None:
            stage, reason, detail = parsed.rejection
            losses.append((e, Loss("entry", reason, detail, stage=stage)))
        losses += [(e, loss) for loss in parsed.losses]
    read = [(e, parsed) for e, parsed in enumerate(batch) if parsed.atoms is not None]
    if not read:
        empty = {name: schema.empty_table() for name, schema in schemas.SCHEMAS.items()}
        return empty | {"rejected": rejected_table(names, losses)}
    residues = Residues(names, read)
    conformers = conformers_of(residues, max_conformers)
    return all_tables(residues, backbone_of(residues), conformers, losses)
