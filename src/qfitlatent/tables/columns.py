"""A column: its name, type, unit and meaning, declared once, and the keys that tables share."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from qfitlatent.chemistry.names import residue_label
from qfitlatent.chemistry.residues import NUM_CHI_MAX

VERSION = "1"
"""Version of all schemas together; it changes when a column changes its name or meaning."""

TEXT, FLAG = pa.string(), pa.bool_()
I8, I16, I32, I64 = pa.int8(), pa.int16(), pa.int32(), pa.int64()
F32, F64 = pa.float32(), pa.float64()


class Column(NamedTuple):
    """One column. ``unit`` is empty for names, flags and counts."""

    name: str
    type: pa.DataType
    nullable: bool
    unit: str
    description: str


def make_schema(columns: tuple[Column, ...]) -> pa.Schema:
    return pa.schema(
        [
            pa.field(
                column.name,
                column.type,
                nullable=column.nullable,
                metadata={
                    b"unit": column.unit.encode(),
                    b"description": column.description.encode(),
                },
            )
            for column in columns
        ],
        metadata={b"qfitlatent_schema": VERSION.encode()},
    )


KEYS = ("entry", "chain", "index")
CHI = range(1, NUM_CHI_MAX + 1)
CHI_COLUMNS = [f"chi{d}_rad" for d in CHI]
OBSERVED_COLUMNS = [f"chi{d}_observed" for d in CHI]
ENTRY = Column("entry", TEXT, False, "", "id of the entry")
CHAIN = Column("chain", TEXT, False, "", "label_asym_id; for PDB files gemmi's subchain")
INDEX = Column("index", I32, False, "", "residue in the chain, from 0 in the order of the file")
AUTHOR = (
    Column("author_chain", TEXT, False, "", "auth_asym_id; the chain of a PDB file"),
    Column("author_number", I32, False, "", "auth_seq_id"),
    Column("insertion_code", TEXT, False, "", "insertion code; empty if none"),
    Column("label_seq", I32, True, "", "label_seq_id, from 1; null in PDB files"),
    Column("name", TEXT, False, "", "component name as deposited"),
)
"""What the file calls a residue."""


def author_label(row: Mapping[Any, Any], suffix: str = "") -> str:
    """A row with ``AUTHOR``, of names that end in the suffix, as ``A/LYS 52A``."""
    names = ("author_chain", "name", "author_number", "insertion_code")
    return residue_label(*(row[f"{name}{suffix}"] for name in names))


IDS = (
    Column("entry", TEXT, False, "", "name of the file without its ending"),
    CHAIN,
    INDEX,
    *AUTHOR,
)
"""Columns that say which residue of a user's file a row is about."""


def id_columns(residues: pa.Table, rows: np.ndarray) -> dict[str, pa.ChunkedArray]:
    """The identifying columns of these rows of a residues table."""
    taken = residues.select([column.name for column in IDS]).take(pa.array(rows))
    return dict(zip(taken.column_names, taken.columns, strict=True))


def chi_columns(
    prefix: str, values: np.ndarray, suffix: str, mask: np.ndarray
) -> dict[str, pa.Array]:
    """values (n,4) as four columns, null where mask (n,4) is false."""
    values = values.astype(np.float32)
    return {f"{prefix}{d}{suffix}": pa.array(values[:, d - 1], mask=~mask[:, d - 1]) for d in CHI}
