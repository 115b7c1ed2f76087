"""Residue vocabulary, chi atoms and side-chain symmetry (SPEC 2 and 3).

The twenty types are the rows of ``data/residues.csv``, in the order of their tokens. Names are the
PDB chemical component dictionary's; chi follow IUPAC-IUB (1970). ``states`` are protonation states
and bridges as Amber, CHARMM, GROMACS and OPLS name them.
"""

import csv
from importlib.resources import files
from typing import NamedTuple

import numpy as np

with files("qfitlatent").joinpath("data", "residues.csv").open(encoding="utf-8") as _file:
    _ROWS = tuple(csv.DictReader(_file))

NUM_CHI_MAX = 4
"""D of SPEC 6: the largest number of chi angles of a residue type."""

RESIDUE_TYPES = tuple(row["name"] for row in _ROWS)
"""Token t is ``RESIDUE_TYPES[t]``, alphabetical by three-letter code (SPEC 2)."""

UNKNOWN_TOKEN = len(RESIDUE_TYPES)
NUM_TOKENS = UNKNOWN_TOKEN + 1
TOKEN = {name: token for token, name in enumerate(RESIDUE_TYPES)}
ONE_LETTER = "".join(row["letter"] for row in _ROWS) + "X"
"""One-letter code of each token; X for the unknown token."""

CHI_PATH = {row["name"]: tuple(row["chi_path"].split()) for row in _ROWS}
"""Chi-defining atoms in order: chi d is the dihedral of atoms d-1 .. d+2 of this path."""

CHI_ATOMS = {
    name: tuple(path[d : d + 4] for d in range(max(0, len(path) - 3)))
    for name, path in CHI_PATH.items()
}

NUM_CHI = np.array([*map(len, CHI_ATOMS.values()), 0], dtype=np.int8)
"""(21,) number of chi angles of each token."""

CHI_DEFINED = np.arange(NUM_CHI_MAX)[None, :] < NUM_CHI[:, None]
"""(21, 4) bool: the residue type has this chi."""

PI_SYMMETRIC = np.array(
    [[row["pi_symmetric_chi"] == str(d + 1) for d in range(NUM_CHI_MAX)] for row in _ROWS]
    + [[False] * NUM_CHI_MAX]
)
"""(21, 4) bool: chi and chi + pi are the same conformation (SPEC 3)."""

BACKBONE_ATOMS = ("N", "CA", "C", "O")
SIDE_CHAIN_ATOMS = {row["name"]: tuple(row["side_chain"].split()) for row in _ROWS}
"""Heavy side-chain atoms of each residue type, nearest the backbone first."""


class Modified(NamedTuple):
    """A modified residue with the side-chain skeleton of its parent."""

    parent: str
    atoms: dict[str, str]
    """Its own names of side-chain atoms, and the parent's."""
    backbone: tuple[str, ...]
    """What it has on its backbone and the parent has not."""


MODIFIED = {
    # Selenium in the place of sulphur, nothing else.
    "MSE": Modified("MET", {"SE": "SD"}, ()),
    # Formylated at the backbone nitrogen; the side chain and its atom names are methionine's.
    "FME": Modified("MET", {}, ("CN", "O1", "HCN")),
}
"""Modified residues that have their parent's token and chi.

The list is short on purpose. A phosphate (SEP, TPO, PTR), an oxidised sulphur (CSO, CSD, OCS) or a
methyl group (MLY, M3L) hangs on a chi atom or next to one and changes which rotamers exist; a ring
(PCA) has other angles altogether. All of these are unknown residues (token 20).
"""

OTHER_ATOM_NAMES: dict[str, dict[str, str]] = {"ILE": {"CD": "CD1"}}
"""Names that force fields give to chi atoms of standard residues, and the dictionary's."""

_STATE_OF = {state: row["name"] for row in _ROWS for state in row["states"].split()}


def standard_name(name: str) -> str:
    """The dictionary's name of a residue that a force field or a program calls otherwise.

    Upper case; HIE is HIS, and so on; NALA and CALA, the ends of a chain in old Amber files, are
    ALA. Any other name stays as it is: NAL is naphthylalanine, NLE norleucine.
    """
    name = name.upper()
    name = _STATE_OF.get(name, name)
    if len(name) == 4 and name[0] in "NC":
        inner = _STATE_OF.get(name[1:], name[1:])
        return inner if inner in TOKEN else name
    return name


def parent_name(name: str) -> str:
    """The standard residue whose token and chi this one has; empty where it is unknown."""
    name = standard_name(name)
    parent = MODIFIED[name].parent if name in MODIFIED else name
    return parent if parent in TOKEN else ""


_WATERS = frozenset(
    "DOD H2O HOH OH2 SOL SPC T3P T4P TIP TIP2 TIP3 TIP4 TIP5 TP3 TP4 WAT".split()  # noqa: SIM905
)


def is_water(name: str) -> bool:
    """Whether a component is water, under the name of any program."""
    return name.upper() in _WATERS
