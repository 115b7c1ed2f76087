"""What is left out, row by row, with its reason."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

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
