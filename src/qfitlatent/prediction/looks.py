"""Which deposited side chains are worth a look, and why in words; no torch here.

A side chain is worth a look when another rotamer is better, the neighbours as in the best joint
state (``joint.context``), by as much energy as ``look_above`` says beyond what is usual for its
residue; or when no rotamer relieves it of as much strain.

Shapes: M side chains, D=4 chi.
"""

from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pyarrow as pa

from qfitlatent.base.files import write_text
from qfitlatent.chemistry.names import residue_label, rotamer_name
from qfitlatent.chemistry.residues import CHI_DEFINED
from qfitlatent.joint.context import InContext, in_context
from qfitlatent.prediction.columns import LOOKS, SCORES
from qfitlatent.prediction.deposited import Found, deposited_of
from qfitlatent.prediction.ensemble import placement_of
from qfitlatent.prediction.handover import Place
from qfitlatent.prediction.records import Input, Scored
from qfitlatent.prediction.scene import Scene, scene_of
from qfitlatent.prediction.seen import seen_in
from qfitlatent.prediction.surroundings import CRYSTAL
from qfitlatent.structure.coordinates import NAMELESS, open_structure
from qfitlatent.tables.columns import author_label, chi_columns
from qfitlatent.tables.parquet import conform, write_csv

CLASH_NATS = 3.0
"""Of a contact that is called a clash: heavy atoms that overlap by a third of an angstrom."""


def with_context(
    given: Input, scored: Scored, look_above: float, words: frozenset[str]
) -> tuple[pa.Table, pa.Table]:
    """The table of all M side chains with all columns of ``columns.SCORES``, and ``columns.SEEN``.

    words: what counts beside the protein (``surroundings.words_of``).

    Those of which atoms are missing, or were placed without density, have no joint energy.
    """
    structure, _ = open_structure(given.path)
    placement = placement_of(given.tables, scored.row)
    scene = scene_of(structure, placement)
    whole = np.flatnonzero(scored.is_whole)
    label = scored.table["altloc"].take(pa.array(whole)).to_pylist()
    crystal = structure if CRYSTAL in words else None
    found = deposited_of(
        scene, placement, scored.residue[whole], label, scored.chi[whole], words, crystal
    )
    known = in_context(found.deposited, scored.densities, look_above)
    row, num = whole[found.row], len(scored.table)
    token = scored.densities.token[scored.residue]
    look = known.look
    chi = np.full((num, known.chi.shape[1]), np.nan)
    chi[row] = known.chi
    better = np.isfinite(chi[:, 0])
    rotamer = [
        rotamer_name(kind, angles) if is_better else ""
        for kind, angles, is_better in zip(
            token.tolist(), chi.tolist(), better.tolist(), strict=True
        )
    ]
    met = _contacts(found, known, structure, scene)
    surprising = scored.table["is_surprising"].to_numpy()[row].tolist()
    reasons = [""] * len(row)
    for i in np.flatnonzero(look >= look_above).tolist():
        reasons[i] = _reason(rotamer[row[i]], met[i], known, i, surprising[i])
    table = {name: scored.table[name] for name in scored.table.column_names}
    table |= {
        "own_energy": _spread(known.cost, row, num),
        "strain": _spread(known.strain, row, num),
        "contact": _texts(met, row, num),
        "contact_angstrom": _spread(known.contact_angstrom, row, num),
        "gain": _spread(known.gain, row, num),
        "rotamer": pa.array(rotamer, pa.string()),
        **chi_columns("rotamer_chi", chi, "_rad", CHI_DEFINED[token] & better[:, None]),
        "look": _spread(look, row, num),
        "is_worth_a_look": np.isin(np.arange(num), row[look >= look_above]),
        "reason": _texts(reasons, row, num),
    }
    seen = seen_in(given.entry, structure, scene, found.other, found.is_image, words)
    return conform(pa.table(table), SCORES, given.path), seen


def _spread(values: np.ndarray, row: np.ndarray, num: int) -> pa.Array:
    every = np.full(num, np.nan, dtype=np.float32)
    every[row] = values
    return pa.array(every, from_pandas=True)


def _texts(values: list[str], row: np.ndarray, num: int) -> pa.Array:
    every = [""] * num
    for m, text in zip(row.tolist(), values, strict=True):
        every[m] = text
    return pa.array(every, pa.string())


def _contacts(
    found: Found, known: InContext, structure: gemmi.Structure, scene: Scene
) -> list[str]:
    """The atom that each side chain meets most closely, as A/LEU 45 CD1; empty for none."""
    residues = [
        residue_label(chain.name or NAMELESS, r.name, r.seqid.num or 0, r.seqid.icode.strip())
        for chain in structure[0]
        for r in chain
    ]
    atoms = np.concatenate((found.other, found.atom.ravel()))
    is_image = np.r_[found.is_image, np.zeros(found.atom.size, dtype=bool)]
    words = []
    for other in known.contact[:, 1].tolist():
        s = int(atoms[other])
        altloc = f" altloc {scene.altloc[s]}" if scene.altloc[s] else ""
        where = " in the crystal" if is_image[other] else ""
        called = f"{residues[scene.group[s]]} {scene.name[s]}{altloc}{where}"
        words.append(called if other >= 0 else "")
    return words


def _reason(rotamer: str, contact: str, known: InContext, i: int, surprising: bool) -> str:
    words = []
    if known.contact_nats[i] >= CLASH_NATS:
        words.append(f"clashes with {contact} ({known.contact_angstrom[i]:.1f} angstrom)")
    if surprising:
        words.append("rare here")
    if rotamer:
        words.append(f"another rotamer ({rotamer}) fits, {known.gain[i]:.1f} nat better")
    else:
        words.append("side chain without room")
    return "; ".join(words)


def looks_of(scores: pa.Table) -> pa.Table:
    """Of rows of ``columns.SCORES`` those that are worth a look, as of ``columns.LOOKS``."""
    chosen = scores.filter(scores["is_worth_a_look"])
    columns = {name: chosen[name.removesuffix("_nats")] for name in LOOKS.names}
    return conform(pa.table(columns), LOOKS, "the list of looks")


def worst_first(looks: pa.Table) -> pa.Table:
    keys = [("look_nats", "descending"), *((name, "ascending") for name in _PLACE)]
    return looks.sort_by(keys)


_PLACE = ("entry", "author_chain", "author_number", "insertion_code", "altloc")


def label_of(look: dict[str, Any]) -> str:
    """A row of ``columns.LOOKS`` as A/MET 28, with its altloc."""
    altloc = f" altloc {look['altloc']}" if look["altloc"] else ""
    return author_label(look) + altloc


def place_of_look(look: dict[str, Any]) -> tuple[Place, str]:
    """A row of ``columns.LOOKS`` for ``looks_for_coot``."""
    names = ("author_chain", "author_number", "insertion_code", "name")
    altloc = f"altloc {look['altloc']}: " if look["altloc"] else ""
    return Place(*(look[name] for name in names)), altloc + look["reason"]


def write_looks(looks: pa.Table, csv: Path, text: Path) -> None:
    """Both tables for people: the CSV with all columns, the text as wide as it needs."""
    write_csv(csv, looks)
    rows = [
        (row["entry"], label_of(row), f"{row['look_nats']:.1f}", row["reason"])
        for row in looks.to_pylist()
    ]
    titles = ("entry", "residue", "nat", "why it is worth a look")
    width = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    lines = [
        f"{entry:{width[0]}}  {label:{width[1]}}  {look:>{width[2]}}  {reason}"
        for entry, label, look, reason in (titles, *rows)
    ]
    write_text(text, "".join(f"{line}\n" for line in lines))
