"""What is in an entry or in a table, as text for the terminal."""

import errno
import math
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import printable, structure_id
from qfitlatent.structure.preprocess import read_entry_in_limits
from qfitlatent.tables.columns import CHI_COLUMNS, OBSERVED_COLUMNS, author_label
from qfitlatent.tables.names import TABLES
from qfitlatent.tables.parquet import read_table
from qfitlatent.tables.schemas import SCHEMAS


def inspect_entry(
    entry: str, tables_dir: str | Path | None = None, *, only_multiconformer: bool = False
) -> str:
    """One entry's residues and altlocs: an id in the tables, or the path of a structure file.

    Angles are in degrees, as crystallographers read them; in brackets where the chi hangs on an
    atom of occupancy 0.

    Args:
        entry: the id, or a path.
        tables_dir: folder of the tables, such as results/data/<dataset>/tables; without it
            ``entry`` is a file.
        only_multiconformer: leave out residues with fewer than two conformers.
    Raises:
        QfitLatentError: no such entry or file.
    """
    if tables_dir is None:
        path = Path(entry)
        if not path.is_file():
            raise QfitLatentError(
                f"There is no file {entry}: give the path of a structure, or an id and the folder "
                "of the tables that hold it."
            )
        name = printable(structure_id(path))
        found = read_entry_in_limits(path, name).tables()
    else:
        found = {n: _of_entry(Path(tables_dir) / f"{n}.parquet", entry) for n in TABLES}
        if not len(found["entries"]) and not len(found["rejected"]):
            raise QfitLatentError(
                f"There is no entry {entry} in {tables_dir}: check the id (ids are case-sensitive)."
            )
    tables = {name: table.to_pylist() for name, table in found.items()}
    lines = [_headline(row) for row in tables["entries"]]
    conformers: dict[tuple, list[dict]] = {}
    for row in tables["conformers"]:
        conformers.setdefault((row["chain"], row["index"]), []).append(row)
    lines.append(
        f"{'chain':<6}{'residue':<12}{'ss':<8}{'phi':>6}{'psi':>6}  "
        f"altloc  occ   {'chi1':>6}{'chi2':>6}{'chi3':>6}{'chi4':>6}   B"
    )
    for residue in tables["residues"]:
        of_residue = conformers.get((residue["chain"], residue["index"]), [])
        if only_multiconformer and len(of_residue) < 2:
            continue
        lines += _residue_lines(residue, of_residue)
    if tables["rejected"]:
        lines += ["", f"Left out ({len(tables['rejected'])}):"]
        lines += [_rejected_line(row) for row in tables["rejected"]]
    return "\n".join(lines) + "\n"


def _of_entry(path: Path, entry: str) -> pa.Table:
    """Rows of one entry; row groups that cannot hold it are not read."""
    columns = SCHEMAS[path.stem].names
    try:
        return pq.read_table(path, columns=columns, filters=[("entry", "=", entry)])
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
        read_table(path, columns)  # raises the error that says what to do
        raise


def _headline(row: dict) -> str:
    resolution = row["resolution_angstrom"]
    parts = [
        row["method"] or "method not stated",
        f"{resolution:.2f} Å" if resolution else "resolution not stated",
        f"{row['num_residues']} residues in {row['num_chains']} chain(s)",
        f"{row['num_conformers']} conformers",
        f"{row['num_multiconformer']} residues with two or more",
        f"{row['num_heterogeneous']} with distinct ones",
    ]
    return f"{row['entry']}: {', '.join(parts)}"


def _degrees(value: float | None, observed: bool | None = True) -> str:
    if value is None:
        return f"{'-':>6}"
    text = f"{math.degrees(value):.0f}"
    return f"{text if observed else f'({text})':>6}"


def _residue_lines(residue: dict, conformers: list[dict]) -> list[str]:
    name = f"{residue['name']} {residue['author_number']}{residue['insertion_code']}"
    head = (
        f"{residue['author_chain']:<6}{name:<12}{residue['secondary']:<8}"
        f"{_degrees(residue['phi_rad'])}{_degrees(residue['psi_rad'])}  "
    )
    if not conformers:
        return [head.rstrip()]
    lines = []
    for row in conformers:
        columns = zip(CHI_COLUMNS, OBSERVED_COLUMNS, strict=True)
        chi = [_degrees(row[angle], row[seen]) for angle, seen in columns]
        b_factor = row["mean_b_angstrom2"]
        lines.append(
            f"{head}{row['altloc'] or '.':<8}{row['occupancy']:.2f}  "
            f"{''.join(chi[: residue['num_chi']]):<26}"
            f"{'-' if b_factor is None else f'{b_factor:.1f}':>5}"
        )
        head = " " * len(head)
    return lines


def _rejected_line(row: dict) -> str:
    place = ""
    if row["author_number"] is not None:
        place = f" {author_label(row)}"
    altloc = f" altloc {row['altloc'] or '.'}" if row["altloc"] is not None else ""
    detail = f" ({row['detail']})" if row["detail"] else ""
    return f"  {row['scope']}{place}{altloc}: {row['reason']}{detail}"


def describe_table(path: str | Path) -> str:
    """A table's columns: type, unit, missing values, range, and what they mean.

    A CSV file says neither units nor meanings; the Parquet file beside it does.

    Raises:
        QfitLatentError: no such file, or neither Parquet nor CSV.
    """
    table = _read_csv(Path(path)) if Path(path).suffix == ".csv" else read_table(path)
    version = (table.schema.metadata or {}).get(b"qfitlatent_schema", b"-").decode()
    lines = [f"{path}: {len(table):,} rows, {table.num_columns} columns, schema {version}"]
    made_by = [(table.schema.metadata or {}).get(key, b"").decode() for key in _MADE_BY]
    if all(made_by):
        lines.append("made by the model {} {}, trained on {}".format(*made_by))
    rows = [("column", "type", "unit", "missing", "range", "meaning")]
    for field in table.schema:
        metadata = field.metadata or {}
        column = table[field.name]
        rows.append(
            (
                field.name,
                str(field.type).replace("fixed_size_list<element: float not null>", "float"),
                metadata.get(b"unit", b"").decode(),
                f"{column.null_count:,}",
                _range(column),
                metadata.get(b"description", b"").decode(),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def _read_csv(path: Path) -> pa.Table:
    try:
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        # Read by Python: Arrow takes no path that is no text.
        alone = pyarrow.csv.ReadOptions(use_threads=False)
        return pyarrow.csv.read_csv(pa.py_buffer(path.read_bytes()), read_options=alone)
    except (OSError, pa.ArrowInvalid) as error:
        raise QfitLatentError(
            f"{path} cannot be read as CSV ({error}): correct the path."
        ) from error


_MADE_BY = (b"qfitlatent_model", b"qfitlatent_model_version", b"qfitlatent_trained_on")


def _range(column: pa.ChunkedArray) -> str:
    """Smallest to largest; the number of distinct values of text; the share of true flags."""
    kind = column.type
    if len(column) == column.null_count:
        return "-"
    if pa.types.is_boolean(kind):
        return f"{100 * pc.mean(column).as_py():.3g} % true"
    if pa.types.is_string(kind):
        return f"{pc.count_distinct(column).as_py():,} values"
    if pa.types.is_fixed_size_list(kind):
        column = pc.list_flatten(column)
    low, high = pc.min_max(column).as_py().values()
    if pa.types.is_integer(column.type):
        return f"{low:,} to {high:,}"
    return f"{low:.5g} to {high:.5g}"
