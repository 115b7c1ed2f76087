"""What is left out, row by row, with its reason."""

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.tables.reasons import Reason


class Loss(NamedTuple):
    """A row of the rejected table: an entry, or what is in its raw records and was not read.

    scope: entry; residue; or atom for one whose residue is read. has_backbone: whether a residue
    has N, CA and C in the raw records, and so counts in the census (SPEC 2).
    """

    scope: str
    reason: Reason
    detail: str
    author_chain: str | None = None
    author_number: int | None = None
    insertion_code: str | None = None
    name: str | None = None
    altloc: str | None = None
    has_backbone: bool = False
    stage: str = "preprocess"


def unexpected_errors(rejected: pa.Table) -> list[str]:
    """Entries whose reading raised an error that nobody foresaw, in the order of the table."""
    is_one = pc.equal(rejected["reason"], Reason.UNEXPECTED_ERROR.value)
    return rejected.filter(is_one)["entry"].to_pylist()


def check_unexpected(rejected: pa.Table, num_entries: int, max_fraction: float) -> str:
    """Judges the rejected rows of all shards together; a sentence where all is well.

    Raises:
        QfitLatentError: more than ``max_fraction`` of the entries raised an unexpected error.
    """
    rows = rejected.filter(pc.equal(rejected["reason"], Reason.UNEXPECTED_ERROR.value)).to_pylist()
    summary = f"{len(rows)} of {num_entries} entries raised an unexpected error"
    if len(rows) <= max_fraction * num_entries:
        return summary
    listed = "; ".join(f"{row['entry']}: {row['detail']}" for row in rows[:20])
    more = f"; and {len(rows) - 20} more" if len(rows) > 20 else ""
    raise QfitLatentError(
        f"{summary}, more than entries.max_missing_fraction = {max_fraction:g} allows: {listed}"
        f"{more}. Their tracebacks are in the logs of preprocess_entries; report them, and leave "
        "the files out or raise the limit."
    )
