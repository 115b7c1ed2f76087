"""Tables in Parquet files: written in pieces, merged, read, always with the columns of a schema."""

import heapq
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path
from qfitlatent.tables.keys import begins_run

ROWS_PER_GROUP = 1 << 17
"""Rows of a row group: large enough to compress, small enough to stream."""

_BATCH_ROWS = 1 << 13
"""Rows read from each shard at once while merging: bounds memory with hundreds of shards."""


class TableWriter:
    """What :func:`table_writer` gives; pieces must come in the order of the rows."""

    def __init__(self, path: str | Path, schema: pa.Schema, file: pq.ParquetWriter) -> None:
        self._path, self._schema, self._file = path, schema, file
        self._pending: list[pa.Table] = []
        self._num_pending = 0

    def write(self, table: pa.Table) -> None:
        """Append these rows.

        Raises:
            QfitLatentError: a column is absent, has another type, or has nulls where none may be.
        """
        self._pending.append(conform(table, self._schema, self._path))
        self._num_pending += len(table)
        if self._num_pending >= ROWS_PER_GROUP:
            self.flush(everything=False)

    def flush(self, everything: bool) -> None:
        """Whole row groups only, so that the bytes do not depend on the size of the pieces."""
        if not self._pending:
            return
        rows = pa.concat_tables(self._pending)
        num = len(rows) if everything else len(rows) // ROWS_PER_GROUP * ROWS_PER_GROUP
        for start in range(0, num, ROWS_PER_GROUP):
            group = rows.slice(start, min(ROWS_PER_GROUP, num - start)).combine_chunks()
            self._file.write_table(group, row_group_size=ROWS_PER_GROUP)
        # A slice keeps its whole table alive: what is left is copied.
        rest = rows.slice(num).combine_chunks()
        self._pending = [rest] if len(rest) else []
        self._num_pending = len(rest)


@contextmanager
def table_writer(
    path: str | Path, schema: pa.Schema, facts: Mapping[str, str] | None = None
) -> Iterator[TableWriter]:
    """Writes one table piece by piece: the file appears when the block ends well.

    ``facts`` about the whole table, such as the model that made it, go into the file's metadata.
    """
    known = {f"qfitlatent_{name}": value for name, value in (facts or {}).items()}
    whole = schema.with_metadata({**(schema.metadata or {}), **known})
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, whole, **_encodings(schema)) as file,
    ):
        writer = TableWriter(path, schema, file)
        yield writer
        writer.flush(everything=True)


def _encodings(schema: pa.Schema) -> dict[str, object]:
    """How Parquet stores each column.

    Measured numbers hardly repeat: a dictionary of them takes twice the time and half as much
    space again as their bytes, first bytes together, last bytes together.
    """
    measured = {
        field.name + (".list.element" if pa.types.is_fixed_size_list(field.type) else "")
        for field in schema
        if pa.types.is_floating(field.type) or pa.types.is_fixed_size_list(field.type)
    }
    return {
        "compression": "zstd",
        "use_dictionary": [name for name in schema.names if name not in measured],
        "column_encoding": dict.fromkeys(sorted(measured), "BYTE_STREAM_SPLIT"),
    }


def conform(table: pa.Table, schema: pa.Schema, where: str | Path) -> pa.Table:
    """The table with exactly the schema's columns, types and metadata.

    Raises:
        QfitLatentError: as of :meth:`TableWriter.write`.
    """
    if not table.schema.equals(schema, check_metadata=True):
        absent = [name for name in schema.names if name not in table.column_names]
        if absent:
            raise QfitLatentError(
                f"The table for {where} lacks the column {absent[0]}: its columns are "
                f"{', '.join(schema.names)}."
            )
        try:
            # Nullability is checked below, with the name of the column.
            nullable = pa.schema([field.with_nullable(True) for field in schema])
            columns = table.select(schema.names).cast(nullable).columns
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise QfitLatentError(
                f"The table for {where} does not fit its schema: {error}."
            ) from error
        table = pa.table(columns, schema=schema)
    for field, column in zip(schema, table.columns, strict=True):
        if not field.nullable and column.null_count:
            raise QfitLatentError(
                f"The column {field.name} of {where} has {column.null_count} missing values, "
                "and must have none."
            )
    return table


def write_table(
    table: pa.Table,
    path: str | Path,
    schema: pa.Schema,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write one table atomically; the same rows give the same bytes. ``facts`` as table_writer's.

    Raises:
        QfitLatentError: the table does not fit the schema.
    """
    with table_writer(path, schema, facts) as writer:
        writer.write(table)


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The table, or these columns of it.

    Raises:
        QfitLatentError: the file is absent or no Parquet, or has no such column.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise QfitLatentError(f"The table {path} is not a file: give a Parquet file.")
    try:
        # Mapped: Arrow takes no path that is no text, and a file object of Python's ends the
        # process when Arrow's threads still hold it at the end.
        with open(path, "rb") as source:
            mapped = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
        with pq.ParquetFile(pa.py_buffer(mapped)) as file:
            present = file.schema_arrow.names
            absent = [name for name in columns or [] if name not in present]
            if absent:
                raise QfitLatentError(
                    f"The table {path} has no column {absent[0]}, only {', '.join(present)}: it "
                    "comes from another version; run the preprocessing again."
                )
            # In this thread: one of Arrow's that lets go of the map when Python has ended is ended
            # itself, and with it the process ("terminate called without an active exception").
            return file.read(list(columns) if columns is not None else None, use_threads=False)
    except FileNotFoundError as error:
        raise QfitLatentError(
            f"The table {path} does not exist: run the preprocessing, or correct the path."
        ) from error
    except (OSError, ValueError) as error:
        raise QfitLatentError(
            f"{path} is no readable Parquet table ({error}): give a table of this program; where a "
            "stage of the workflow made it, run that stage again."
        ) from error


def merge_tables(shard_paths: Iterable[str | Path], out: str | Path, schema: pa.Schema) -> None:
    """The rows of all shards in one file, sorted by entry.

    Each shard is sorted by its keys and holds whole entries, so one pass that takes the smallest
    next entry suffices; only some thousand rows of each shard are in memory at a time.

    Raises:
        QfitLatentError: an entry is in two shards, or a shard is not sorted.
    """
    with ExitStack() as stack, table_writer(out, schema) as writer:
        streams = []
        for number, path in enumerate(shard_paths):
            file = stack.enter_context(pq.ParquetFile(path))
            streams.append(_by_entry(file, number, path, schema))
        last_entry, last_stream = None, None
        for entry, number, rows in heapq.merge(*streams, key=lambda piece: piece[:2]):
            if entry == last_entry and number != last_stream:
                raise QfitLatentError(
                    f"The entry {entry} is in two of the shards that make {out}: delete the folder "
                    "of shards and run the preprocessing again."
                )
            writer.write(rows)
            last_entry, last_stream = entry, number


def _by_entry(
    file: pq.ParquetFile, number: int, path: str | Path, schema: pa.Schema
) -> Iterator[tuple[str, int, pa.Table]]:
    """(entry, number of the shard, rows) for each run of rows of one entry in each batch."""
    last = ""
    for batch in file.iter_batches(batch_size=_BATCH_ROWS):
        table = conform(pa.Table.from_batches([batch]), schema, path)
        entries = table["entry"].to_numpy()
        starts = np.flatnonzero(begins_run(entries))
        for start, end in zip(starts, np.r_[starts[1:], len(table)], strict=True):
            entry = entries[start]
            if entry < last:
                raise QfitLatentError(
                    f"The table {path} is not sorted by entry ({entry} after {last}): run "
                    "the preprocessing again."
                )
            last = entry
            yield entry, number, table.slice(start, end - start)


@contextmanager
def csv_writer(path: str | Path, schema: pa.Schema) -> Iterator[pa.csv.CSVWriter]:
    """Writes a table as CSV with a line of names, piece by piece, atomically."""
    with atomic_path(path) as temporary, pa.csv.CSVWriter(temporary, schema) as file:
        yield file


def write_csv(path: str | Path, table: pa.Table) -> None:
    """The table as CSV with a line of names, atomically."""
    with csv_writer(path, table.schema) as file:
        file.write(table)
