"""Residue vocabulary, chi atoms and side-chain symmetry: pure data (SPEC 2 and 3).

Nothing here depends on a file format or on torch. Names are the PDB chemical
component dictionary's; chi quadruples follow IUPAC-IUB (1970).
"""

import numpy as np

NUM_CHI_MAX = 4
"""D of SPEC 6: the largest number of chi angles of a residue type."""

RESIDUE_TYPES: tuple[str, ...] = (
    "ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE",
    "LEU", "LYS", "MET", "PHE", "PRO", "SER", "THR", "TRP", "TYR", "VAL",
)  # fmt: skip
"""Token t is ``RESIDUE_TYPES[t]``, alphabetical by three-letter code (SPEC 2)."""

UNKNOWN_TOKEN = len(RESIDUE_TYPES)
NUM_TOKENS = UNKNOWN_TOKEN + 1
TOKEN: dict[str, int] = {name: token for token, name in enumerate(RESIDUE_TYPES)}
ONE_LETTER = "ARNDCQEGHILKMFPSTWYVX"
"""One-letter code of each token; X for the unknown token."""

_SIDE_CHAIN_PATH: dict[str, tuple[str, ...]] = {
    "ARG": ("CG", "CD", "NE", "CZ"),
    "ASN": ("CG", "OD1"),
    "ASP": ("CG", "OD1"),
    "CYS": ("SG",),
    "GLN": ("CG", "CD", "OE1"),
    "GLU": ("CG", "CD", "OE1"),
    "HIS": ("CG", "ND1"),
    "ILE": ("CG1", "CD1"),
    "LEU": ("CG", "CD1"),
    "LYS": ("CG", "CD", "CE", "NZ"),
    "MET": ("CG", "SD", "CE"),
    "PHE": ("CG", "CD1"),
    "PRO": ("CG", "CD"),
    "SER": ("OG",),
    "THR": ("OG1",),
    "TRP": ("CG", "CD1"),
    "TYR": ("CG", "CD1"),
    "VAL": ("CG1",),
}

CHI_PATH: dict[str, tuple[str, ...]] = {
    name: ("N", "CA", "CB", *_SIDE_CHAIN_PATH[name]) if name in _SIDE_CHAIN_PATH else ()
    for name in RESIDUE_TYPES
}
"""Chi-defining atoms in order: chi d is the dihedral of atoms d-1 .. d+2 of this path."""

CHI_ATOMS: dict[str, tuple[tuple[str, ...], ...]] = {
    name: tuple(tuple(path[d : d + 4]) for d in range(max(0, len(path) - 3)))
    for name, path in CHI_PATH.items()
}

NUM_CHI = np.array([len(CHI_ATOMS[name]) for name in RESIDUE_TYPES] + [0], dtype=np.int8)
"""(21,) number of chi angles of each token."""

CHI_DEFINED = np.arange(NUM_CHI_MAX)[None, :] < NUM_CHI[:, None]
"""(21, 4) bool: the residue type has this chi."""

PI_SYMMETRIC = np.zeros((NUM_TOKENS, NUM_CHI_MAX), dtype=bool)
"""(21, 4) bool: chi and chi + pi are the same conformation (SPEC 3)."""
for _name, _chi in (("ASP", 2), ("GLU", 3), ("PHE", 2), ("TYR", 2)):
    PI_SYMMETRIC[TOKEN[_name], _chi - 1] = True


BACKBONE_ATOMS = ("N", "CA", "C", "O")
SIDE_CHAIN_ATOMS: dict[str, tuple[str, ...]] = {
    "ALA": ("CB",),
    "ARG": ("CB", "CG", "CD", "NE", "CZ", "NH1", "NH2"),
    "ASN": ("CB", "CG", "OD1", "ND2"),
    "ASP": ("CB", "CG", "OD1", "OD2"),
    "CYS": ("CB", "SG"),
    "GLN": ("CB", "CG", "CD", "OE1", "NE2"),
    "GLU": ("CB", "CG", "CD", "OE1", "OE2"),
    "GLY": (),
    "HIS": ("CB", "CG", "ND1", "CD2", "CE1", "NE2"),
    "ILE": ("CB", "CG1", "CG2", "CD1"),
    "LEU": ("CB", "CG", "CD1", "CD2"),
    "LYS": ("CB", "CG", "CD", "CE", "NZ"),
    "MET": ("CB", "CG", "SD", "CE"),
    "PHE": ("CB", "CG", "CD1", "CD2", "CE1", "CE2", "CZ"),
    "PRO": ("CB", "CG", "CD"),
    "SER": ("CB", "OG"),
    "THR": ("CB", "OG1", "CG2"),
    "TRP": ("CB", "CG", "CD1", "CD2", "NE1", "CE2", "CE3", "CZ2", "CZ3", "CH2"),
    "TYR": ("CB", "CG", "CD1", "CD2", "CE1", "CE2", "CZ", "OH"),
    "VAL": ("CB", "CG1", "CG2"),
}
"""Heavy side-chain atoms of each residue type, nearest the backbone first."""

MODIFIED: dict[str, tuple[str, dict[str, str]]] = {
    # Selenium in the place of sulphur, nothing else.
    "MSE": ("MET", {"SE": "SD"}),
    # Formylated at the backbone nitrogen; the side chain and its atom names are methionine's. It is
    # predicted as MET, but not built: the builder would take the formyl group for a side chain.
    "FME": ("MET", {}),
}
"""Modified residues with their parent's side-chain skeleton: parent, and other names of its atoms.

The list is short on purpose. A phosphate (SEP, TPO, PTR), an oxidised sulphur (CSO, CSD, OCS) or a
methyl group (MLY, M3L) hangs on a chi atom or next to one and changes which rotamers exist; a ring
(PCA) has other angles altogether. All of these are unknown residues (token 20).
"""

BUILDABLE = frozenset({*RESIDUE_TYPES, "MSE"})
"""Residues whose side chain can be built anew."""

OTHER_ATOM_NAMES: dict[str, dict[str, str]] = {"ILE": {"CD": "CD1"}}
"""Names that force fields give to chi atoms of standard residues, and the dictionary's."""

_STATES: dict[str, tuple[str, ...]] = {
    "ARG": ("ARGN",),
    "ASP": ("ASH", "ASPH", "ASPP"),
    "CYS": ("CYM", "CYS1", "CYS2", "CYSH", "CYX"),
    "GLU": ("GLH", "GLUH", "GLUP"),
    "HIS": (
        "HID", "HIE", "HIP", "HIS1", "HIS2", "HISA", "HISB", "HISD", "HISE", "HISH", "HISP",
        "HSD", "HSE", "HSP",
    ),
    "LYS": ("LSN", "LYN", "LYSH", "LYSN"),
}  # fmt: skip
"""Protonation states and bridges as Amber, CHARMM, GROMACS and OPLS name them."""

_STATE_OF = {state: name for name, states in _STATES.items() for state in states}


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
    parent, _ = MODIFIED.get(name, (name, {}))
    return parent if parent in TOKEN else ""


_WATERS = frozenset(
    "DOD H2O HOH OH2 SOL SPC T3P T4P TIP TIP2 TIP3 TIP4 TIP5 TP3 TP4 WAT".split()  # noqa: SIM905
)


def is_water(name: str) -> bool:
    """Whether a component is water, under the name of any program."""
    return name.upper() in _WATERS
