"""The files of a scan; no torch here, so that workers start at once."""

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from qfitlatent.base.files import write_text
from qfitlatent.prediction.records import Input, Written
from qfitlatent.prediction.results import Results
from qfitlatent.prediction.seen import in_words
from qfitlatent.questions.scan_columns import SCAN
from qfitlatent.questions.scan_page import page
from qfitlatent.tables.parquet import write_csv, write_table

SCAN_FILES = (
    ".scan.parquet",  # a row a position and type
    ".scan.csv",
    ".scan.html",  # a heat map
    ".scan.surroundings.csv",  # what stood around, and what of it counted
    ".scan.json",  # input, model and settings by checksum
)
"""How the names of the files of one structure end, the record last."""


class Scanned(NamedTuple):
    """table: ``scan_columns.SCAN``; seen: ``columns.SEEN``; left_out: positions without rows."""

    table: pa.Table
    seen: pa.Table
    left_out: list[str]


def write_scan(results: Results, given: Input, scanned: Scanned) -> Written:
    """All files of one structure."""
    table, seen, left_out = scanned
    num = table["is_native"].to_pylist().count(True)
    without = pc.sum(pc.and_not(table["has_no_room"], table["is_native"])).as_py() or 0
    notes = [f"{without} of {len(table) - num} changes have no room"]
    if left_out:
        notes.append(f"{len(left_out)} positions left out; see {given.entry}.scan.json")
    notes.append(f"around: {in_words(seen)}")
    record = {
        "num_residues": num,
        "positions_left_out": left_out,
        "surroundings_seen": seen.to_pylist(),
        "notes": notes,
    }
    with results.files(given, record) as (table_path, csv_path, page_path, seen_path):
        write_table(table, table_path, SCAN, results.about_model())
        write_csv(csv_path, table)
        write_csv(seen_path, seen)
        write_text(page_path, page(given.entry, table, in_words(seen), left_out, results.identity))
    return Written(given.entry, given.path, notes=tuple(notes), num_residues=num)
