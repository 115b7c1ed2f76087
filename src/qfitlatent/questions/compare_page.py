"""The page of two structures side by side: one file, which asks the network for nothing."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qfitlatent.pages.render import Cell, render
from qfitlatent.questions.differences import (
    EXPLAINED,
    NO_DIFFERENCE,
    NOT_EXPLAINED,
    NOT_OBSERVED,
    OTHER_TYPE,
    UNSEEN,
)
from qfitlatent.tables.columns import author_label

SHOWN = (EXPLAINED, NOT_EXPLAINED, NOT_OBSERVED, OTHER_TYPE)
"""Decisions that have a table of their own."""

_SORTED_BY = {NOT_OBSERVED: "predicted_distance", EXPLAINED: "share"}
"""What a table begins with the largest of; the others by the observed distance."""


def page(name: str, differences: pa.Table, about: dict[str, Any]) -> str:
    """The page as text. differences: ``differences.DIFFERENCES``; about: as in the record."""
    decisions = differences["decision"].to_pylist()
    tables = {
        decision: [
            _row(row)
            for row in differences.filter(pc.equal(differences["decision"], decision))
            .sort_by([(_SORTED_BY.get(decision, "observed_distance"), "descending")])
            .to_pylist()
        ]
        for decision in SHOWN
    }
    return render(
        "pages/structures.html.j2",
        name=name,
        a=_set(about["a"], about["structures_a"]),
        b=_set(about["b"], about["structures_b"]),
        model="{model} {model_version}, trained on {trained_on}".format(**about),
        limits={key: value for key, value in about.items() if isinstance(value, float)},
        counts=[
            (decision, decisions.count(decision))
            for decision in (*SHOWN[:3], NO_DIFFERENCE, UNSEEN, OTHER_TYPE)
        ],
        tables=tables,
        bars=_bars(differences),
    )


def _set(name: str, members: list[str]) -> str:
    return name if len(members) == 1 else f"{name} ({len(members)} structures)"


def _row(row: dict[str, Any]) -> list[str | Cell]:
    return [
        author_label(row, "_a"),
        author_label(row, "_b"),
        row["rotamer"],
        Cell(*_change(row, "observed")),
        Cell(*_change(row, "predicted")),
        _number(row["share"]),
        row["observed_rotamers_a"],
        row["observed_rotamers_b"],
    ]


def _change(row: dict[str, Any], kind: str) -> tuple[str, str]:
    """``0.10 to 0.85``, and the change with its interval."""
    before, after = row[f"{kind}_a"], row[f"{kind}_b"]
    if before is None or after is None:
        return "–", ""
    low, high = (row[f"{kind}_change_{end}"] for end in ("low", "high"))
    change = _signed(row[f"{kind}_change"])
    return (
        f"{before:.2f} to {after:.2f}",
        change if low is None else f"{change} ({_signed(low)} to {_signed(high)})",
    )


def _signed(value: float) -> str:
    """With its sign, but 0 without one."""
    return f"{value:+.2f}" if round(value, 2) else "0.00"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _bars(differences: pa.Table) -> list[tuple[int, float, float, str, str]]:
    """Of each pair its place, observed and predicted distance, its label, and its decision."""
    columns = ("observed_distance", "predicted_distance", "decision")
    rows = differences.to_pylist()
    return [
        (i, *(row[name] or 0.0 for name in columns[:2]), author_label(row, "_a"), row["decision"])
        for i, row in enumerate(rows)
    ]
