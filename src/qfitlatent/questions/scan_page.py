"""One HTML page for a scan: positions by types as a heat map, and the table behind it.

It needs no network. Every cell of the map says in words what its colour says, so that it can be
read without colours and by a screen reader; what does not fit is marked by a stroke, too.
"""

from typing import Any

import pyarrow as pa

from qfitlatent.chemistry.residues import ONE_LETTER, RESIDUE_TYPES, TOKEN
from qfitlatent.pages.render import render
from qfitlatent.tables.columns import author_label

ORDER = "GASTCPVILMFYWHNQDEKR"
"""Columns of the map: by size and nature, so that what alike is stands together."""

WORST = 8.0
"""Nats of ``fit`` at which the colour is full, on either side of the native type."""

MAX_WORST = 25
"""Changes in the list of the worst."""


def page(
    entry: str, table: pa.Table, seen: str, left_out: list[str], identity: dict[str, Any]
) -> str:
    """The page as text; table: ``scan_columns.SCAN``, seen: what stood around, in words."""
    rows = table.to_pylist()
    by_place: dict[tuple, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_place.setdefault((row["chain"], row["index"]), {})[row["type"]] = row
    types = sorted({row["type"] for row in rows}, key=lambda name: ORDER.index(_letter(name)))
    lines = [
        {
            "label": author_label(next(iter(place.values()))),
            "cells": [_cell(place[name]) if name in place else None for name in types],
        }
        for place in by_place.values()
    ]
    changes = [row for row in rows if not row["is_native"]]
    worst = sorted(changes, key=lambda row: row["fit"])[:MAX_WORST]
    return render(
        "pages/scan.html.j2",
        entry=entry,
        model="{model} {model_version}, trained on {trained_on}".format(**identity),
        types=[(name, _letter(name)) for name in types],
        lines=lines,
        num_changes=len(changes),
        num_without_room=sum(row["has_no_room"] for row in changes),
        worst=[_words_of(row) for row in worst],
        seen=seen,
        left_out=left_out,
        full=WORST,
    )


def _letter(name: str) -> str:
    return ONE_LETTER[TOKEN[name]] if name in RESIDUE_TYPES else "X"


def _cell(row: dict[str, Any]) -> dict[str, Any]:
    share = min(1.0, abs(row["fit"]) / WORST)
    said = f"{author_label(row)} as {row['type']}: fit {row['fit']:.1f} nat"
    if row["is_native"]:
        said = f"{author_label(row)}: native"
    elif row["has_no_room"]:
        said += f", no room (strain {row['strain_change']:.1f} nat)"
    return {
        "said": said,
        "is_native": row["is_native"],
        "has_no_room": row["has_no_room"] and not row["is_native"],
        "sign": "worse" if row["fit"] < 0 else "better",
        "percent": round(100 * share),
    }


def _words_of(row: dict[str, Any]) -> list[str]:
    mass = row["fitting_mass"]
    return [
        f"{author_label(row)} as {row['type']}",
        f"{row['fit']:.1f}",
        f"{row['energy_change']:.1f}",
        f"{row['strain_change']:.1f}",
        f"{row['neighbour_change']:.2f}",
        str(row["clash_change"]),
        "" if mass is None else f"{100 * mass:.0f} %",
        str(row["burial"]),
        row["note"],
    ]
