"""What of a structure's surroundings was there, what of it counted, and why the rest did not.

Nothing that is missing is passed over in silence: what was not asked for, or could not be used, has
its line. No torch here.

Shapes: A atoms of a scene, M atoms that count, images among them.
"""

from typing import Any

import gemmi
import numpy as np
import pyarrow as pa

from qfitlatent.prediction.columns import SEEN
from qfitlatent.prediction.scene import Kind, Scene
from qfitlatent.prediction.surroundings import (
    CRYSTAL,
    KIND_OF_WORD,
    first_conformers,
    no_crystal,
)

WHAT = {
    Kind.KEPT: "kept residue",
    Kind.LIGAND: "ligand",
    Kind.METAL: "metal",
    Kind.NUCLEIC: "nucleic acid",
    Kind.WATER: "water",
}
_NAMED = (Kind.LIGAND, Kind.METAL)
"""Kinds of which every component has a line; all others have one together."""

_WORD = {kind: word for word, kind in KIND_OF_WORD.items()}


def seen_in(
    entry: str,
    structure: gemmi.Structure,
    scene: Scene,
    row: np.ndarray,
    is_image: np.ndarray,
    words: frozenset[str],
) -> pa.Table:
    """The rows of ``columns.SEEN``; structure: that of the scene, before anything is built.

    row (M,) of the scene, -1 for none, and is_image (M,) bool: as of ``Standing``.
    """
    component = np.array([residue.name for chain in structure[0] for residue in chain])
    name = component[scene.group] if len(component) else np.zeros(0, dtype=np.str_)
    used = np.zeros(len(scene.kind), dtype=bool)
    used[row[(row >= 0) & ~is_image]] = True
    other = ~first_conformers(scene)
    rows = []
    for kind, what in WHAT.items():
        of_kind = scene.kind == kind
        names = np.unique(name[of_kind]).tolist() if kind in _NAMED else [""] * bool(of_kind.any())
        for own in names:
            at = of_kind & ((name == own) | (own == ""))
            unused = at & ~used
            why = ""
            if unused.any():
                asked = kind == Kind.KEPT or _WORD[kind] in words
                why = f"not asked for: --surroundings {_WORD[kind]}" if not asked else ""
                if asked and other[unused].all():
                    why = "another conformer has a higher occupancy"
            odd = bool((scene.element[at & used] == 0).any())
            rows.append(_row(what, own, scene.group[at], at.sum(), used[at].sum(), why, odd))
    rows.append(_of_crystal(structure, scene, row[is_image], words))
    return pa.Table.from_pylist([{"entry": entry} | each for each in rows], schema=SEEN)


def _of_crystal(
    structure: gemmi.Structure, scene: Scene, row: np.ndarray, words: frozenset[str]
) -> dict[str, Any]:
    why = no_crystal(structure)
    if not why and CRYSTAL not in words:
        why = f"not asked for: --surroundings {CRYSTAL}"
    elif not why and not len(row):
        why = "no atom that stays is in reach"
    elif not why and (scene.kind == Kind.GOES).any() and (scene.kind[row] != Kind.GOES).all():
        why = "side chains that are built anew are not seen in their images"
    return _row("crystal neighbour", "", scene.group[row], len(row), len(row), why, False)


def _row(
    what: str, name: str, group: np.ndarray, num: int, used: int, why: str, odd: bool
) -> dict[str, Any]:
    note = "an atom of unknown element counts as carbon" if odd else ""
    return {
        "what": what,
        "name": name,
        "num_residues": len(np.unique(group)),
        "num_atoms": int(num),
        "num_used": int(used),
        "note": "; ".join(filter(None, (why, note))),
    }


def in_words(seen: pa.Table) -> str:
    """What counted and what did not, in one line for people."""
    counted, not_counted = [], []
    for row in seen.to_pylist():
        called = " ".join(filter(None, (row["what"], row["name"])))
        if row["num_used"]:
            counted.append(f"{called} ({row['num_used']} atom{'s' * (row['num_used'] != 1)})")
        if row["num_used"] < row["num_atoms"] or (row["note"] and not row["num_used"]):
            not_counted.append(f"{called}: {row['note']}")
    left = f"; not used: {', '.join(not_counted)}" if not_counted else ""
    return f"{', '.join(counted) or 'nothing'}{left}"
