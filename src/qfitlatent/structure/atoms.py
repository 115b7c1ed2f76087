"""One file becomes flat arrays of its protein atoms, with their slots in the chi path.

Shapes: A atoms, R residues in file order, T templates (residue types with a skeleton of their own).
"""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from qfitlatent.base.files import printable
from qfitlatent.chemistry.residues import (
    CHI_PATH,
    MODIFIED,
    OTHER_ATOM_NAMES,
    RESIDUE_TYPES,
    TOKEN,
    UNKNOWN_TOKEN,
    standard_name,
)
from qfitlatent.structure.containers import (
    FileError,
    ReadingLimits,
    default_limits,
    plain_text,
    read_bytes,
)
from qfitlatent.structure.mmcif import is_mmcif, read_mmcif
from qfitlatent.structure.pdb import read_pdb
from qfitlatent.structure.polymer import Polymer
from qfitlatent.structure.rejections import Loss
from qfitlatent.structure.sites import Sites, name_codes
from qfitlatent.tables.reasons import Reason

C_SLOT = 7
"""Slots 0 to 6 are the atoms of the chi path in order (0 is N, 1 is CA), slot 7 is C."""


@dataclass
class Atoms:
    """The protein of one entry: arrays over its atoms, and over its residues in file order.

    Of blank atoms only those that define a frame or a chi are here. What has a name, of whatever
    length, is an index into ``names``, the first of which is empty.
    """

    names: list[str]
    residue: np.ndarray  # (A,) index into the residues below
    name: np.ndarray  # (A,) index into ATOM_NAMES, -1 for any other
    altloc: np.ndarray  # (A,) index into names, 0 for blank
    occupancy: np.ndarray  # (A,) float64
    b_factor: np.ndarray  # (A,) float32
    position: np.ndarray  # (A,3) float64, angstrom
    place: np.ndarray  # (R,) residue types at one place share its number, which rises in a chain
    residue_name: np.ndarray  # (R,) index into names, as deposited
    chain: np.ndarray  # (R,) index into names
    author_chain: np.ndarray  # (R,) index into names
    author_number: np.ndarray  # (R,) int32
    insertion_code: np.ndarray  # (R,) index into names, 0 for none
    label_seq: np.ndarray  # (R,) int32, 0 for none
    is_het: np.ndarray  # (R,) bool


@dataclass
class Parsed:
    """One entry on its way to the tables: either ``atoms`` or a ``rejection``."""

    entry: str
    source: str
    url: str | None
    header: dict[str, object] = field(default_factory=dict)
    atoms: Atoms | None = None
    rejection: tuple[str, Reason, str] | None = None
    num_backbones: int | None = None
    """Residues with N, CA and C in the raw records of model 1, counted from the text alone; a
    residue type more at one place counts as one more. None where nobody counted."""
    losses: list[Loss] = field(default_factory=list)
    """What is in the raw records and not in ``atoms``."""


def parse_file(
    path: str | Path,
    entry: str,
    *,
    source: str = "local",
    url: str | None = None,
    limits: ReadingLimits | None = None,
) -> Parsed:
    """Read one file; what is wrong with it is in ``rejection``."""
    parsed = Parsed(entry, source, url)
    limits = limits or default_limits()
    try:
        data = read_bytes(path, limits)
        parsed.header = {
            "path": _shown_path(path),
            "sha256": hashlib.sha256(data).hexdigest(),
            "num_bytes": len(data),
        }
        sites = read_sites(plain_text(data, limits), limits, with_waters=False)
    except FileError as error:
        parsed.rejection = ("preprocess", error.reason, error.detail)
        return parsed
    parsed.header |= sites.header
    polymer = Polymer(sites)
    if len(polymer.first) == 0:
        parsed.rejection = ("preprocess", Reason.NO_PROTEIN, "no polymer of amino acids in model 1")
        return parsed
    parsed.atoms = _protein_atoms(sites, polymer)
    parsed.num_backbones, parsed.losses = polymer.num_backbones, polymer.losses
    return parsed


def read_sites(text: bytes, limits: ReadingLimits, *, with_waters: bool = True) -> Sites:
    """The atoms of the first model of mmCIF or PDB text; without waters it is faster.

    Raises:
        FileError: there are none.
    """
    if not text or text.isspace():
        raise FileError(Reason.EMPTY, "the file holds nothing")
    if is_mmcif(text):
        return read_mmcif(text, limits)
    return read_pdb(text, with_waters=with_waters)


def _shown_path(path: str | Path) -> str:
    """Relative to the working directory where below it, so that tables do not name machines."""
    absolute = os.path.abspath(path)
    here = os.getcwd() + os.sep
    return printable(Path(absolute.removeprefix(here)).as_posix())


def _protein_atoms(sites: Sites, polymer: Polymer) -> Atoms:
    residue = polymer.residue[sites.group]
    name = np.minimum(np.searchsorted(_ATOM_CODES, sites.atom_code), len(_ATOM_CODES) - 1)
    name[_ATOM_CODES[name] != sites.atom_code] = -1
    # From here on only atoms that matter: the arrays become half as long.
    kept = np.flatnonzero((residue >= 0) & ((name >= 0) | (sites.altloc != 0)))
    first = polymer.first
    return Atoms(
        names=sites.names.texts,
        residue=residue[kept],
        name=name[kept],
        altloc=sites.altloc[kept],
        occupancy=sites.occupancy[kept],
        b_factor=sites.b_factor[kept],
        position=sites.position.take(kept, axis=0),
        place=polymer.place,
        residue_name=sites.component[first],
        chain=polymer.chain,
        author_chain=sites.author_chain[first],
        author_number=sites.number[first].astype(np.int32),
        insertion_code=sites.insertion_code[first],
        label_seq=sites.label_seq[first].astype(np.int32),
        is_het=sites.is_het[first],
    )


_SKELETONS = (*RESIDUE_TYPES, "", *MODIFIED)
"""Names with a skeleton of their own; template 20 is any other residue."""


def template_of(name: str) -> int:
    """Index of the template of a component, whatever a program calls it."""
    name = standard_name(name)
    return _SKELETONS.index(name) if name in _SKELETONS else UNKNOWN_TOKEN


ATOM_NAMES = sorted(
    {"C", *(atom for path in CHI_PATH.values() for atom in ("N", "CA", *path))}
    | {name for residue in MODIFIED.values() for name in residue.atoms}
    | {name for names in OTHER_ATOM_NAMES.values() for name in names},
    key=lambda name: int(name_codes(np.array([name.encode()], dtype="S4"))[0]),
)

_ATOM_CODES = name_codes(np.array([name.encode() for name in ATOM_NAMES], dtype="S4"))


def _template_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """token (T,), length of the chi path (T,), slot (T, atom names), -1 for none."""
    token = np.full(len(_SKELETONS), UNKNOWN_TOKEN, dtype=np.int8)
    path_length = np.zeros(len(_SKELETONS), dtype=np.int64)
    slot = np.full((len(_SKELETONS), len(ATOM_NAMES)), -1, dtype=np.int8)
    column = {name: i for i, name in enumerate(ATOM_NAMES)}
    for t, name in enumerate(_SKELETONS):
        parent, others = name, OTHER_ATOM_NAMES.get(name, {})
        if name in MODIFIED:
            parent, others = MODIFIED[name].parent, MODIFIED[name].atoms
        path = CHI_PATH.get(parent, ())
        token[t], path_length[t] = TOKEN.get(parent, UNKNOWN_TOKEN), len(path)
        place = {atom: position for position, atom in enumerate(path or ("N", "CA"))}
        place |= {other: place[atom] for other, atom in others.items()}
        for atom, position in place.items():
            slot[t, column[atom]] = position
        slot[t, column["C"]] = C_SLOT
    return token, path_length, slot


TEMPLATE_TOKEN, TEMPLATE_PATH_LENGTH, TEMPLATE_SLOT = _template_tables()
