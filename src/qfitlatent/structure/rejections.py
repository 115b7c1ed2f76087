"""What is left out, row by row, with its reason."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.tables.reasons import Reason


class Loss(NamedTuple):
    """What stands in the raw records of a file and was not read: a row of the rejected table.

    scope: residue, or atom for one whose residue is read; has_backbone: whether a residue has N, CA
    and C in the raw records, and so counts in the census (SPEC 2).
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


class Rejections:
    """Rows of the rejected table, collected in pieces of numpy columns."""

    def __init__(self) -> None:
        self.pieces: list[dict[str, np.ndarray]] = []

    def add(
        self,
        stage: str,
        scope: str,
        reason: Reason,
        entry: np.ndarray,
        detail: Sequence[str] | str,
        position: np.ndarray | None = None,
        name: np.ndarray | None = None,
        altloc: np.ndarray | None = None,
    ) -> None:
        """entry: index of the entry; position: index of the place, -1 for none;
        name: name code, 0 for none; altloc: code, -1 for none."""
        n = len(entry)
        if n == 0:
            return
        self.pieces.append(
            {
                "entry": entry,
                "position": np.full(n, -1) if position is None else position,
                "name": np.zeros(n, dtype=np.int64) if name is None else name,
                "altloc": np.full(n, -1) if altloc is None else altloc.astype(np.int64),
                "stage": np.full(n, stage, dtype=object),
                "scope": np.full(n, scope, dtype=object),
                "reason": np.full(n, reason.value, dtype=object),
                "detail": np.array([detail] * n if isinstance(detail, str) else detail, object),
            }
        )


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
