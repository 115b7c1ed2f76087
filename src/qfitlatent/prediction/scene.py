"""What a prediction finds in a structure: side chains that go, and all that stays around them.

``place_side_chains`` changes a structure by these rules; whatever chooses side chains that fit each
other reads the same rules as arrays, before anything is changed. No torch here.

Shapes: N residues of a placement, A atoms, B bonds.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import gemmi
import numpy as np

from qfitlatent.chemistry.residues import (
    BACKBONE_ATOMS,
    MODIFIED,
    NUM_CHI,
    RESIDUE_TYPES,
    SIDE_CHAIN_ATOMS,
    UNKNOWN_TOKEN,
    is_water,
    parent_name,
    standard_name,
)

BLANK = "\0"
"""Altloc of atoms that all conformers share, as gemmi has it."""

_TERMINAL_NAMES = (
    "OXT", "OT1", "OT2", "O1", "O2", "OC1", "OC2", "HXT", "HN", "HT1", "HT2", "HT3"
)  # fmt: skip
"""At the ends of a chain, as programs call them."""

_HYDROGEN_PLACES = ("", "1", "2", "3", "A", "A2", "A3")
_OLD_HYDROGENS = ("1H", "2H", "3H", "1HA", "2HA", "1D", "2D", "3D", "1DA", "2DA")
BACKBONE_NAMES = frozenset(
    (
        *BACKBONE_ATOMS,
        *_TERMINAL_NAMES,
        *_OLD_HYDROGENS,
        *(x + place for x in "HD" for place in _HYDROGEN_PLACES),
        *(name for residue in MODIFIED.values() for name in residue.backbone),
    )
)
"""Atoms that stay where they are; side-chain hydrogens do not."""


@dataclass(frozen=True)
class Placement:
    """What to build on N residues of a structure; every other residue stays as it is.

    key (N,) of (label chain, author number, insertion code, residue name, number in the polymer or
    None); frame_altloc (N,) "" for blank; rotation (N,3,3), translation (N,3) frames; token (N,);
    weight (N,J), 0 for a mode that is not built; chi (N,J,4) radians. Of several modes, number j
    has the altloc ``ALTLOCS[j]``. num_chi (N,): atoms that hang on later chi are not built.
    """

    key: Sequence[tuple[str, int, str, str, int | None]]
    frame_altloc: Sequence[str]
    rotation: np.ndarray
    translation: np.ndarray
    token: np.ndarray
    weight: np.ndarray
    chi: np.ndarray
    num_chi: np.ndarray | None = None

    def select(self, wanted: np.ndarray) -> "Placement":
        """Of these residues alone: wanted (N,) bool."""
        rows = np.flatnonzero(wanted).tolist()
        arrays = ("rotation", "translation", "token", "weight", "chi")
        return Placement(
            key=[self.key[n] for n in rows],
            frame_altloc=[self.frame_altloc[n] for n in rows],
            **{name: getattr(self, name)[rows] for name in arrays},
            num_chi=None if self.num_chi is None else self.num_chi[rows],
        )


class Kind(IntEnum):
    """What an atom is to the side chains that are built."""

    GOES = 0
    """It is not in the predicted model: a side chain built anew, another backbone conformer."""
    BACKBONE = 1
    """It stays in a residue that is built anew: backbone, and CB of an ALA."""
    KEPT = 2
    """Of a residue of a protein that stays as it was."""
    METAL = 3
    LIGAND = 4
    NUCLEIC = 5
    WATER = 6


@dataclass(frozen=True)
class Scene:
    """The A heavy atoms of a structure, in its order, and the bonds that its records name.

    position (A,3) angstrom; element (A,) atomic number; name (A,) of the atom, kind (A,) of
    ``Kind``; residue (A,) index of the placement's residue, -1 for all others; group (A,) number of
    the residue among all of the structure; altloc (A,) "" for blank; occupancy (A,).

    bond (B,2) atoms that LINK, SSBOND or struct_conn names in the same asymmetric unit; of several
    altlocs the first.
    """

    position: np.ndarray
    element: np.ndarray
    name: np.ndarray
    kind: np.ndarray
    residue: np.ndarray
    group: np.ndarray
    altloc: np.ndarray
    occupancy: np.ndarray
    bond: np.ndarray


def scene_of(structure: gemmi.Structure, placement: Placement) -> Scene:
    """What goes and what stays when ``place_side_chains`` builds this placement; nothing changes.

    Names of atoms of residues that are built become upper case.
    """
    of_residue = {place_of(r): n for n, (r, _) in residues_to_rebuild(structure, placement).items()}
    bonded = {end[:3] for c in structure.connections for end in _ends(c)}
    at: dict[tuple, int] = {}
    position: list[list[float]] = []
    element: list[int] = []
    names: list[str] = []
    labels: list[str] = []
    occupancy: list[float] = []
    kinds: list[Kind] = []
    owner: list[int] = []
    number: list[int] = []
    group = 0
    for chain in structure[0]:
        for residue in chain:
            n = of_residue.get(place_of(residue), -1)
            is_heavy = [not atom.is_hydrogen() for atom in residue]
            heavy = list(itertools.compress(residue, is_heavy))
            if n >= 0:
                token, altloc = int(placement.token[n]), placement.frame_altloc[n]
                stays = itertools.compress(atoms_that_stay(residue, token, altloc), is_heavy)
                kinds += [Kind.BACKBONE if stay else Kind.GOES for stay in stays]
            else:
                kinds += [_kind(residue)] * len(heavy)
            if bonded and (end := (chain.name, str(residue.seqid), residue.name)) in bonded:
                for row, atom in enumerate(heavy, start=len(names)):
                    at.setdefault((*end, atom.name), row)
            # Attribute by attribute: of each atom in turn it takes twice as long.
            position += [atom.pos.tolist() for atom in heavy]
            element += [atom.element.atomic_number for atom in heavy]
            names += [atom.name for atom in heavy]
            labels += [atom.altloc for atom in heavy]
            occupancy += [atom.occ for atom in heavy]
            owner += [n] * len(heavy)
            number += [group] * len(heavy)
            group += 1
    kind, residues = np.array(kinds, dtype=np.int8), np.array(owner, dtype=np.int64)
    metals = [x for x in set(element) if gemmi.Element(x).is_metal]
    kind[np.isin(element, metals) & (residues < 0)] = Kind.METAL
    return Scene(
        position=np.array(position, dtype=np.float64).reshape(-1, 3),
        element=np.array(element, dtype=np.int16),
        name=np.array(names, dtype=np.str_),
        kind=kind,
        residue=residues,
        group=np.array(number, dtype=np.int64),
        altloc=np.array([label.strip(BLANK) for label in labels], dtype=np.str_),
        occupancy=np.array(occupancy, dtype=np.float64),
        bond=np.array(
            [
                [at[end] for end in _ends(c)]
                for c in structure.connections
                if c.asu != gemmi.Asu.Different and all(end in at for end in _ends(c))
            ],
            dtype=np.int64,
        ).reshape(-1, 2),
    )


def _ends(connection: gemmi.Connection) -> list[tuple[str, str, str, str]]:
    """Chain, number, residue and atom of both ends."""
    return [
        (end.chain_name, str(end.res_id.seqid), end.res_id.name, end.atom_name)
        for end in (connection.partner1, connection.partner2)
    ]


def _kind(residue: gemmi.Residue) -> Kind:
    """Of a residue that stays as it was."""
    if is_water(residue.name):
        return Kind.WATER
    if residue.entity_type == gemmi.EntityType.Polymer:
        info = gemmi.find_tabulated_residue(standard_name(residue.name))
        return Kind.NUCLEIC if info.is_nucleic_acid() else Kind.KEPT
    return Kind.LIGAND


def residues_to_rebuild(
    structure: gemmi.Structure, placement: Placement
) -> dict[int, tuple[gemmi.Residue, list[gemmi.Atom]]]:
    """Of those of the N residues that can be built: the residue, and N, CA and C of its frame.

    Residues that are not found, have another side chain than their parent, or share their position
    with another residue type, are not among them. Names of atoms become upper case.
    """
    found = {}
    for n, residue in enumerate(_find(structure[0], placement.key)):
        if residue is None or placement.token[n] == UNKNOWN_TOKEN:
            continue
        for atom in residue:
            atom.name = atom.name.upper()
        atoms = _backbone(residue, placement.frame_altloc[n])
        if atoms is not None:
            found[n] = residue, atoms
    return found


def is_complete(structure: gemmi.Structure, placement: Placement) -> np.ndarray:
    """(N,) bool: the residue is there with all heavy atoms of its side chain."""
    complete = np.zeros(len(placement.token), dtype=bool)
    for n, (residue, _) in residues_to_rebuild(structure, placement).items():
        own = names_of_its_own(residue.name)
        names = SIDE_CHAIN_ATOMS[RESIDUE_TYPES[placement.token[n]]]
        complete[n] = {own.get(name, name) for name in names} <= {atom.name for atom in residue}
    return complete


def _find(model: gemmi.Model, keys: Sequence[tuple]) -> list[gemmi.Residue | None]:
    """The residue of each key; None where a position holds several residue types."""
    at: dict[tuple, list[gemmi.Residue]] = {}
    for chain in model:
        for residue in chain:
            if not is_water(residue.name):
                *author, label_seq = place_of(residue)
                for number in {label_seq, None}:
                    at.setdefault((*author, number), []).append(residue)
    found = []
    for *author, name, label_seq in keys:
        residues = at.get((*author, label_seq)) or at.get((*author, None), [])
        only = residues[0] if len(residues) == 1 else None
        is_it = only is not None and only.name == name and parent_name(name)
        found.append(only if is_it else None)
    return found


def place_of(residue: gemmi.Residue) -> tuple:
    """Label chain, author number, insertion code and number in the polymer: a key but the name."""
    number = residue.seqid
    return residue.subchain, number.num, number.icode.strip(), residue.label_seq


def _backbone(residue: gemmi.Residue, altloc: str) -> list[gemmi.Atom] | None:
    """N, CA, C of one conformer: its own atoms, blank ones where it has none."""
    atoms = [
        residue.find_atom(name, altloc or BLANK) or residue.find_atom(name, BLANK)
        for name in ("N", "CA", "C")
    ]
    return atoms if all(atoms) else None


def atoms_that_stay(residue: gemmi.Residue, token: int, frame_altloc: str) -> list[bool]:
    """For each atom of a residue that is built anew, whether it stays where it is."""
    has_chi = NUM_CHI[token] > 0
    names = () if has_chi else SIDE_CHAIN_ATOMS[RESIDUE_TYPES[token]]
    own = {atom.name for atom in residue if frame_altloc and atom.altloc == frame_altloc}
    stays = []
    for atom in residue:
        # Hydrogens of ALA and GLY stand where they did: nothing there is built anew.
        kept = atom.name in BACKBONE_NAMES or atom.name in names
        kept |= not has_chi and atom.is_hydrogen()
        if kept:
            kept = atom.altloc == frame_altloc if atom.has_altloc() else atom.name not in own
        stays.append(kept)
    return stays


def names_of_its_own(name: str) -> dict[str, str]:
    """Atoms of the parent that this residue calls otherwise, and how."""
    modified = MODIFIED.get(standard_name(name))
    return {parent: own for own, parent in modified.atoms.items()} if modified else {}
