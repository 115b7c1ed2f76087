"""Entries become tables, one file or many (SPEC 2 to 5).

Everything is computed for all residues of several entries at once: the cost of numpy calls is then
shared, and no Python loop runs over atoms or residues.
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import find_beside
from qfitlatent.base.progress import Progress
from qfitlatent.structure.atoms import Parsed, parse_file
from qfitlatent.structure.conformers import Conformers
from qfitlatent.structure.records import all_tables, rejected_table
from qfitlatent.structure.rejections import Rejections
from qfitlatent.structure.residues import Residues
from qfitlatent.tables import schemas
from qfitlatent.tables.parquet import TableWriter, read_table
from qfitlatent.tables.reasons import Reason

_BATCH_ATOMS = 150_000
"""Atoms whose tables are made together: bounds memory."""


_BATCH_ENTRIES = 64


@dataclass(frozen=True)
class EntryRecords:
    """The tables of one entry (schemas.SCHEMAS).

    ``entries`` has one row, or none where the entry as a whole is in ``rejected``.
    """

    entries: pa.Table
    residues: pa.Table
    frames: pa.Table
    conformers: pa.Table
    rejected: pa.Table

    def tables(self) -> dict[str, pa.Table]:
        return {name: getattr(self, name) for name in schemas.SCHEMAS}


def read_entry(
    path: str | Path,
    entry: str,
    *,
    source: str = "local",
    url: str | None = None,
    max_conformers: int = 6,
) -> EntryRecords:
    """The tables of one coordinate file: mmCIF or PDB format, plain or gzipped.

    A file that is missing, unreadable or without protein gives an entry-level rejection.

    Args:
        source, url: written into the entries table.
        max_conformers: conformers of a residue that are used at most, highest occupancy first.
    """
    parsed = parse_file(path, entry, source=source, url=url)
    return EntryRecords(**make_tables([parsed], max_conformers))


def preprocess_entries(
    download_log: str | Path,
    out_dir: str | Path,
    *,
    max_conformers: int = 6,
    stream: TextIO | None = None,
) -> None:
    """Write the five tables of all entries in a download log (archive.LOG_SCHEMA) to ``out_dir``.

    Entries that are missing according to the log become rejected rows of the stage download.
    """
    columns = ["entry", "source", "url", "path", "reason", "detail"]
    rows = sorted(read_table(download_log, columns).to_pylist(), key=lambda row: row["entry"])
    out_dir = Path(out_dir)
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(TableWriter(out_dir / f"{name}.parquet", schema))
            for name, schema in schemas.SCHEMAS.items()
        }
        progress = stack.enter_context(Progress(len(rows), "entries", stream or sys.stderr))
        batch: list[Parsed] = []

        def write_batch() -> None:
            for name, table in make_tables(batch, max_conformers).items():
                writers[name].write(table)
            progress.update(len(batch), failures=sum(p.rejection is not None for p in batch))
            batch.clear()

        for row in rows:
            if row["path"] is None:
                rejection = ("download", Reason(row["reason"]), row["detail"] or "")
                batch.append(Parsed(row["entry"], row["source"], row["url"], rejection=rejection))
            else:
                path = find_beside(row["path"], download_log)
                batch.append(parse_file(path, row["entry"], source=row["source"], url=row["url"]))
            if (
                len(batch) >= _BATCH_ENTRIES
                or sum(len(p.atoms.occupancy) for p in batch if p.atoms) >= _BATCH_ATOMS
            ):
                write_batch()
        write_batch()


def make_tables(batch: Sequence[Parsed], max_conformers: int) -> dict[str, pa.Table]:
    """The five tables of these entries, rows in the order of ``batch``, which is sorted by entry.

    Raises:
        QfitLatentError: ``max_conformers`` is not positive, or the entries are not sorted.
    """
    if max_conformers < 1:
        raise QfitLatentError(
            f"preprocess.max_conformers is {max_conformers}: at least 1 conformer must be allowed."
        )
    names = [parsed.entry for parsed in batch]
    if any(a >= b for a, b in pairwise(names)):
        raise QfitLatentError("The entries of a batch must be sorted and differ; sort them by id.")
    rejections = Rejections()
    for e, parsed in enumerate(batch):
        if parsed.rejection is not None:
            stage, reason, detail = parsed.rejection
            rejections.add(stage, "entry", reason, np.array([e]), detail)
    read = [(e, parsed) for e, parsed in enumerate(batch) if parsed.atoms is not None]
    if not read:
        empty = {name: schema.empty_table() for name, schema in schemas.SCHEMAS.items()}
        return empty | {"rejected": rejected_table(names, rejections, None)}
    residues = Residues(names, read, rejections)
    return all_tables(residues, Conformers(residues, max_conformers))
