"""Every file of ../shared/cases against what its expected.json says is right.

The README there explains the keys. A test a file, so that what is left to mend can be counted.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from helpers.cases import CASES, MISSING
from qfitlatent.chemistry.residues import RESIDUE_TYPES
from qfitlatent.structure.preprocess import EntryRecords, read_entry

WRONG_VALUES: dict[tuple[str, str], tuple[str, str]] = {}
"""(folder, file): the value of expected.json that is wrong, and the authority that says so."""

ANGLE_DEGREES = 0.15
OCCUPANCY = 0.006

Row = dict[str, Any]


def _cases() -> list[Any]:
    """A parameter for each file; one that says why where there are none."""
    if not CASES.is_dir():
        return [pytest.param(None, None, marks=MISSING)]
    found = []
    for folder in sorted(CASES.iterdir()):
        path = folder / "expected.json"
        # A scenario is a story of several commands: tests of the whole workflow tell it.
        if path.exists() and "scenario" not in (case := json.loads(path.read_text("utf-8"))):
            for name, expected in case["files"].items():
                if (folder.name, name) not in WRONG_VALUES:
                    found.append(pytest.param(folder / name, expected, id=f"{folder.name}/{name}"))
    return found


@pytest.mark.parametrize(("path", "expected"), _cases())
def test_case(path: Path, expected: dict[str, Any]) -> None:
    records = read_entry(path, "case")
    problems = [*_always(records), *_problems(records, expected)]
    assert not problems, "\n".join(problems)


def _always(records: EntryRecords) -> Iterator[str]:
    """What must hold whatever the file is."""
    for name, table in records.tables().items():
        for column in table.column_names:
            values = table[column].combine_chunks()
            if pa.types.is_fixed_size_list(values.type):
                values = values.flatten()
            if pa.types.is_floating(values.type):
                numbers = values.drop_null().to_numpy(zero_copy_only=False)
                if not np.isfinite(numbers).all():
                    yield f"{name}.{column} holds a value that is no number"
    entries = records.entries.to_pylist()
    refused = any(row["scope"] == "entry" for row in records.rejected.to_pylist())
    if not entries and not refused:
        yield "the entry is neither in entries nor in rejected"
    for row in entries:
        for kind in ("residues", "conformers"):
            read, rejected = row[f"num_{kind}_read"], row[f"num_{kind}_rejected"]
            if read != row[f"num_{kind}"] + rejected:
                yield f"{read} {kind} read, but {row[f'num_{kind}']} kept and {rejected} rejected"


def _says(row: Row, words: list[str]) -> bool:
    text = f"{row['reason']} {row['detail']}"
    return any(re.search(word, text, re.IGNORECASE) for word in words)


def _problems(records: EntryRecords, expected: dict[str, Any]) -> list[str]:
    rejected = records.rejected.to_pylist()
    refusals = [row for row in rejected if row["scope"] == "entry"]
    if not len(records.entries):
        texts = [f"{row['reason']}: {row['detail']}" for row in refusals]
        if expected["outcome"] == "read":
            return [f"refused: {texts}"]
        words = expected["words"]
        return [] if any(_says(r, words) for r in refusals) else [f"{texts} says none of {words}"]
    if expected["outcome"] == "reject":
        return ["read, but it should be refused"]
    return [
        *_compare_residues(_residues(records), expected),
        *_compare_rejected(rejected, expected),
        *_compare_rest(records, expected),
    ]


def _residues(records: EntryRecords) -> list[Row]:
    """Rows of the residues table, each with its conformers and whether it has a frame."""
    residues = records.residues.to_pylist()
    by_key = {(row["chain"], row["index"]): row for row in residues}
    for row, frame in zip(residues, records.frames.to_pylist(), strict=True):
        row |= {"conformers": [], "frame": frame["rotation"] is not None}
    for conformer in records.conformers.to_pylist():
        by_key[conformer["chain"], conformer["index"]]["conformers"].append(conformer)
    return residues


def _compare_residues(residues: list[Row], expected: dict[str, Any]) -> Iterator[str]:
    left = list(residues)
    for wanted in expected.get("residues", []):
        name = f"{wanted['chain']}/{wanted['name']} {wanted['number']}{wanted['icode']}"
        places = [*wanted.get("number_any", []), [wanted["number"], wanted["icode"]]]
        alike = [
            row
            for row in left
            if row["author_chain"] in wanted["chain"]
            and row["name"] in wanted["name"]
            and [row["author_number"], row["insertion_code"]] in places
        ]
        if not alike:
            yield f"{name} is not in residues"
            continue
        differences = [list(_compare_residue(row, wanted)) for row in alike]
        best = min(range(len(alike)), key=lambda i: len(differences[i]))
        left.remove(alike[best])
        yield from (f"{name}: {text}" for text in differences[best])
    if expected.get("exact", True):
        yield from (f"{r['author_chain']}/{r['name']} {r['author_number']} too many" for r in left)


def _compare_residue(row: Row, wanted: Row) -> Iterator[str]:
    kind = "UNK" if row["token"] == len(RESIDUE_TYPES) else RESIDUE_TYPES[row["token"]]
    if kind not in wanted["type"]:
        yield f"type {kind} instead of {wanted['type']}"
    if wanted.get("frame") is not None and wanted["frame"] != row["frame"]:
        yield f"frame {row['frame']}"
    accepted = [*wanted.get("conformers_any", []), wanted.get("conformers")]
    if None not in accepted and not any(_same_conformers(row, each) for each in accepted):
        found = {
            c["altloc"]: (c["occupancy"], [_degrees(c[f"chi{d}_rad"]) for d in range(1, 5)])
            for c in row["conformers"]
        }
        yield f"conformers {found} instead of {accepted}"


def _same_conformers(row: Row, wanted: list[Row]) -> bool:
    found = {conformer["altloc"]: conformer for conformer in row["conformers"]}
    if set(found) != {conformer["altloc"] for conformer in wanted}:
        return False
    for conformer in wanted:
        there = found[conformer["altloc"]]
        if abs(there["occupancy"] - conformer["occupancy"]) > OCCUPANCY:
            return False
        for d, angle in enumerate(conformer["chi"], start=1):
            chi = _degrees(there[f"chi{d}_rad"])
            if (angle is None) != (chi is None):
                return False
            if angle is not None and abs((chi - angle + 180) % 360 - 180) > ANGLE_DEGREES:
                return False
    return True


def _degrees(angle: float | None) -> float | None:
    return None if angle is None else math.degrees(angle)


def _compare_rejected(rejected: list[Row], expected: dict[str, Any]) -> Iterator[str]:
    left = list(rejected)
    for wanted in expected.get("rejected") or []:
        fitting = [
            row
            for row in left
            if _says(row, wanted["words"])
            and wanted.get("number") in (None, row["author_number"])
            and wanted.get("altloc") in (None, row["altloc"])
        ]
        if fitting:
            left.remove(fitting[0])
        else:
            yield f"no row in rejected for {wanted}"


def _compare_rest(records: EntryRecords, expected: dict[str, Any]) -> Iterator[str]:
    residues, rejected = _residues(records), records.rejected.to_pylist()
    if expected.get("num_chains"):
        num_chains = len({row["chain"] for row in residues})
        if num_chains not in expected["num_chains"]:
            yield f"{num_chains} chains instead of {expected['num_chains']}"
    there = {
        (r["author_chain"], r["author_number"], r["insertion_code"], r["name"])
        for r in [*residues, *rejected]
    }
    for each in expected.get("accounted") or []:
        key = (each["chain"], each["number"], each["icode"], each["name"])
        if key not in there and not any(_says(r, each.get("words", [])) for r in rejected):
            yield f"{key} is neither in residues nor in rejected"
    for row in residues:
        if row["name"] in expected.get("not_names", []):
            yield f"{row['name']} is no residue"
    for each in expected.get("unobserved") or []:
        for conformer in _conformers_of(residues, each):
            for d in each["chi"]:
                if conformer[f"chi{d}_rad"] is not None and _observed(conformer, d):
                    yield f"chi{d} of {each} stands as if observed"
    for each in expected.get("mean_b") or []:
        for conformer in _conformers_of(residues, each):
            mean = conformer["mean_b_angstrom2"]
            if not any(_close(mean, accepted) for accepted in each["accepted"]):
                yield f"mean B of {each} is {mean}"
    if expected.get("max_abs"):
        origins = records.frames["translation_angstrom"].combine_chunks().flatten().to_numpy()
        if len(origins) and np.abs(origins).max() > expected["max_abs"]:
            yield f"a frame at {np.abs(origins).max()}"


def _conformers_of(residues: list[Row], of: Row) -> Iterator[Row]:
    for row in residues:
        if row["author_number"] == of["number"]:
            for conformer in row["conformers"]:
                if of.get("altloc") in (None, conformer["altloc"]):
                    yield conformer


def _observed(conformer: Row, chi: int) -> bool:
    """Whether the table gives this angle as one that was seen."""
    observed = conformer.get("chi_observed")
    return observed[chi - 1] if observed is not None else conformer.get(f"chi{chi}_observed", True)


def _close(value: float | None, accepted: float | None) -> bool:
    if value is None or accepted is None:
        return value is accepted
    return abs(value - accepted) < 0.01
