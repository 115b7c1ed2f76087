"""Which side chains are built anew, and which types are changed: --residues, --fix, --mutate.

Residues are named as people see them, by author chain, author number and insertion code:
``A:45-60,B:12,C`` are residues 45 to 60 of chain A, 12 of B and all of C. ``52`` is not ``52A``;
a range holds the insertion codes between its ends, and those of its last number where it names no
code. No torch here.

Shapes: N residues of a structure.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import gemmi
import numpy as np
import pyarrow as pa

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.building import build_side_chains
from qfitlatent.chemistry.residues import NUM_CHI, RESIDUE_TYPES, TOKEN
from qfitlatent.prediction.records import Chosen, Input, Unusable
from qfitlatent.prediction.scene import BACKBONE_NAMES, place_of
from qfitlatent.prediction.settings import PredictionSettings
from qfitlatent.tables.keys import fixed_list

NEIGHBOUR_ANGSTROM = 8.0
"""Side chains whose CB are so near to that of a changed residue are built anew with it."""

ALL = "all"
_NUMBER = r"(-?\d+)([A-Za-z]?)"
_RANGE = re.compile(rf"{_NUMBER}(?:-{_NUMBER})?")
_LAST_CODE = "\uffff"

Place = tuple[int, str]
"""Author number and insertion code."""


@dataclass(frozen=True)
class Part:
    """Residues of one author chain, from ``first`` to ``last``; of None all."""

    text: str
    chain: str
    first: Place | None = None
    last: Place | None = None

    def holds(self, place: Place) -> bool:
        return self.first is None or self.last is None or self.first <= place <= self.last


@dataclass(frozen=True)
class Mutation:
    """A residue and its new type."""

    part: Part
    name: str


@dataclass(frozen=True)
class Choice:
    """What is built anew; ``fix_complete``: not what has all atoms of its side chain."""

    residues: tuple[Part, ...] = ()
    fix: tuple[Part, ...] = ()
    fix_complete: bool = False
    mutate: tuple[Mutation, ...] = ()


def choice_of(settings: PredictionSettings) -> Choice:
    """What the settings ``residues``, ``fix`` and ``mutate`` say.

    Raises QfitLatentError for a text that is none, and an unknown residue type.
    """
    fix_all = settings.fix is not None and settings.fix.strip().lower() == ALL
    return Choice(
        residues=_parts(settings.residues, "residues"),
        fix=() if fix_all else _parts(settings.fix, "fix"),
        fix_complete=fix_all,
        mutate=tuple(map(_mutation, _items(settings.mutate, "mutate"))),
    )


def _items(text: str | None, option: str) -> list[str]:
    if text is None:
        return []
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise QfitLatentError(
            f"--{option} is {text!r}: write residues as A:45-60,B:12, separated by commas."
        )
    return items


def _parts(text: str | None, option: str) -> tuple[Part, ...]:
    return tuple(_part(item, option) for item in _items(text, option))


def _part(text: str, option: str) -> Part:
    chain, colon, numbers = text.rpartition(":")
    if not colon:
        return Part(text, text)
    found = _RANGE.fullmatch(numbers)
    if found is None:
        raise QfitLatentError(
            f"--{option} names {text!r}, which is no residue: write chain, number and insertion "
            "code as A:45 or A:52A, a range as A:45-60, a whole chain as A."
        )
    number, code, end, end_code = found.groups()
    first = int(number), code
    last = first if end is None else (int(end), end_code or _LAST_CODE)
    if last < first:
        raise QfitLatentError(f"--{option} names {text!r}, which ends before it begins.")
    return Part(text, chain, first, last)


def _mutation(text: str) -> Mutation:
    place, _, name = text.rpartition(":")
    name = name.upper()
    if name not in TOKEN:
        raise QfitLatentError(
            f"--mutate {text!r} ends in no residue type: write it as A:45:LEU, with one of "
            f"{', '.join(RESIDUE_TYPES)}."
        )
    part = _part(place, "mutate")
    if part.first is None or part.first != part.last:
        raise QfitLatentError(f"--mutate {text!r} names no single residue: write it as A:45:LEU.")
    return Mutation(part, name)


def choose(choice: Choice, given: Input) -> Input:
    """The structure with its types changed, and in ``chosen`` what of it is built anew.

    Changed residues are built with those around them, or with those that ``residues`` names.

    Raises Unusable where the choice names a residue that is not there or cannot be changed.
    """
    residues = given.tables["residues"]
    num = len(residues)
    at = _Places(given)
    changed: dict[int, str] = {}
    for mutation in choice.mutate:
        for row in np.flatnonzero(at.rows(mutation.part, "mutate")).tolist():
            changed[row] = mutation.name
    rebuilt = np.full(num, not (choice.residues or changed))
    for part in choice.residues:
        rebuilt |= at.rows(part, "residues")
    rows = list(changed)
    if changed and not choice.residues:
        rebuilt |= _near(given.tables["frames"], rows)
    rebuilt[rows] = True
    for part in choice.fix:
        rebuilt &= ~at.rows(part, "fix")
    was: dict[int, str] = {}
    for row, name in changed.items():
        _check_change(given, row, fixed=not rebuilt[row])
        was[row] = residues["name"][row].as_py()
        if was[row] == name:
            del was[row]
    given = _with_types(given, changed) if changed else given
    return replace(given, chosen=Chosen(rebuilt, choice.fix_complete, was))


class _Places:
    """The residues of one structure by the names that people give them."""

    def __init__(self, given: Input) -> None:
        residues = given.tables["residues"]
        self._path = given.path
        self._chain = residues["author_chain"].to_pylist()
        numbers, codes = residues["author_number"].to_pylist(), residues["insertion_code"]
        self._place: list[Place] = list(zip(numbers, codes.to_pylist(), strict=True))

    def rows(self, part: Part, option: str) -> np.ndarray:
        """(N,) bool. Raises Unusable where the part names nothing."""
        in_chain = [chain == part.chain for chain in self._chain]
        found = np.array(
            [yes and part.holds(at) for yes, at in zip(in_chain, self._place, strict=True)], bool
        )
        if not found.any():
            if not any(in_chain):
                chains = ", ".join(dict.fromkeys(self._chain))
                there = f"its protein chains are {chains}"
            else:
                own = [at for at, yes in zip(self._place, in_chain, strict=True) if yes]
                (low, _), (high, _) = min(own), max(own)
                there = f"chain {part.chain} has residues {low} to {high}"
            raise Unusable(
                "not_there", f"{self._path} has no residue {part.text} of --{option}: {there}."
            )
        return found


def _near(frames: pa.Table, rows: Sequence[int]) -> np.ndarray:
    """(N,) bool: CB within NEIGHBOUR_ANGSTROM of that of one of the rows; without frame False."""
    has_frame = frames["rotation"].is_valid().to_numpy(zero_copy_only=False)
    known = np.flatnonzero(has_frame)
    taken = frames.take(pa.array(known))
    token = np.full(len(known), TOKEN["ALA"])
    coords, _ = build_side_chains(
        fixed_list(taken["rotation"], (3, 3)),
        fixed_list(taken["translation_angstrom"], (3,)),
        token,
        np.zeros((len(known), 4)),
    )
    cb = np.full((len(frames), 3), np.nan)
    cb[known] = coords[:, 0]
    distance = np.linalg.norm(cb[:, None] - cb[None, list(rows)], axis=-1)
    return (distance <= NEIGHBOUR_ANGSTROM).any(axis=1)


def _check_change(given: Input, row: int, fixed: bool) -> None:
    residue = given.tables["residues"].slice(row, 1).to_pylist()[0]
    called = f"{residue['author_chain']}:{residue['author_number']}{residue['insertion_code']}"
    why = "--fix keeps it" if fixed else why_not_changed(given, row)
    if why:
        raise Unusable(
            "not_mutable",
            f"{given.path}: {called} ({residue['name']}) cannot be changed by --mutate: {why}.",
        )


def why_not_changed(given: Input, row: int) -> str:
    """Why the type of a residue cannot be changed, row of the residues table; else empty."""
    residue = given.tables["residues"].slice(row, 1).to_pylist()[0]
    if residue["is_d_residue"]:
        return "it is a D residue"
    if residue["is_microheterogeneous"]:
        return "the position holds several residue types"
    return "" if given.tables["frames"]["rotation"][row].is_valid else "it lacks N, CA or C"


def _with_types(given: Input, changed: dict[int, str]) -> Input:
    """The tables with these rows of these types, whose own side chains nobody has seen."""
    residues, conformers = given.tables["residues"], given.tables["conformers"]
    name = residues["name"].to_pylist()
    values = {n: residues[n].to_pylist() for n in ("token", "num_chi", "is_modified", "is_het")}
    for row, new in changed.items():
        token = TOKEN[new]
        name[row], values["token"][row] = new, token
        values["num_chi"][row] = int(NUM_CHI[token])
        values["is_modified"][row] = values["is_het"][row] = False
    for column, new_values in (values | {"name": name}).items():
        at = residues.schema.get_field_index(column)
        array = pa.array(new_values, residues.schema.field(at).type)
        residues = residues.set_column(at, residues.schema.field(at), array)
    keys = residues.select(["chain", "index"]).to_pylist()
    gone = {tuple(keys[row].values()) for row in changed}
    seen = conformers.select(["chain", "index"]).to_pylist()
    kept = pa.array([tuple(row.values()) not in gone for row in seen], pa.bool_())
    tables = given.tables | {"residues": residues, "conformers": conformers.filter(kept)}
    return replace(given, tables=tables)


def change_types(structure: gemmi.Structure, residues: pa.Table, was: Mapping[int, str]) -> None:
    """Gives residues of a structure the types of the table, in place: they keep their backbone."""
    columns = ("chain", "author_number", "insertion_code", "label_seq", "name")
    wanted = {}
    for row, old in was.items():
        *place, new = (residues[column][row].as_py() for column in columns)
        for label_seq in (place[3], None):
            wanted[(*place[:3], label_seq, old)] = new
    for residue in (r for chain in structure[0] for r in chain):
        new = wanted.get((*place_of(residue), residue.name))
        if new is None:
            continue
        for i in reversed(range(len(residue))):
            if residue[i].name.upper() not in BACKBONE_NAMES or residue[i].is_hydrogen():
                del residue[i]
        residue.name, residue.het_flag = new, "A"
