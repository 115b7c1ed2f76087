"""A multiconformer model from predicted modes: side chains on the backbone of a structure.

What is done to each residue, in words:

- A residue with predicted modes loses its side chain, hydrogens of the side chain included, and
  gets one side chain a mode, built with ideal geometry. One mode has a blank altloc; several are
  A, B, ... with occupancies in hundredths that sum to exactly 1.00. CB is where the backbone puts
  it, the same for all modes, and stays blank. ALA keeps its CB, and gets one where it is missing.
- Its backbone is that which gave the frame. Of alternative backbones the others go, and the one
  that stays is blank with occupancy 1.00: the prediction is made on that backbone and no other.
- B factors of built atoms are the mean over N, CA and C of the residue.
- Everything else stays as it was: residues without a prediction, modified residues whose side chain
  is not that of their parent, positions with several residue types, ligands, waters, nucleic acids,
  cell, symmetry and header. Only the first model is kept.
- Names of force fields and lower case stand for their residues; the residue keeps its name, and its
  atoms have those of the dictionary, SE of MSE included.

Shapes: N residues, J modes.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass

import gemmi
import numpy as np

from qfitlatent.chemistry.building import build_side_chains
from qfitlatent.chemistry.residues import (
    BACKBONE_ATOMS,
    BUILDABLE,
    MODIFIED,
    NUM_CHI,
    RESIDUE_TYPES,
    SIDE_CHAIN_ATOMS,
    UNKNOWN_TOKEN,
    is_water,
    standard_name,
)

ALTLOCS = string.ascii_uppercase + string.ascii_lowercase + string.digits
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
    )
)
"""Atoms that stay where they are; side-chain hydrogens do not."""


@dataclass(frozen=True)
class Placement:
    """What to build on N residues of a structure.

    key (N,) of (label chain, author number, insertion code, residue name, number in the polymer or
    None); frame_altloc (N,) "" for blank; rotation (N,3,3), translation (N,3) frames; token (N,);
    weight (N,J) heaviest first, 0 for a mode that is not built; chi (N,J,4) radians.
    """

    key: Sequence[tuple[str, int, str, str, int | None]]
    frame_altloc: Sequence[str]
    rotation: np.ndarray
    translation: np.ndarray
    token: np.ndarray
    weight: np.ndarray
    chi: np.ndarray


def hundredths(weight: np.ndarray) -> np.ndarray:
    """(N,J) int: weights (N,J) in hundredths that sum to exactly 100, by largest remainder.

    A weight above 0 gets at least 1, so that no built conformer has occupancy 0.00; the residue's
    largest share pays for it. Rows of zeros stay zeros.
    """
    weight = np.asarray(weight, dtype=np.float64)
    total = weight.sum(axis=1, keepdims=True)
    share = 100.0 * weight / np.where(total > 0, total, 1.0)
    whole = np.floor(share).astype(np.int64)
    missing = np.where(total[:, 0] > 0, 100 - whole.sum(axis=1), 0)
    rank = np.argsort(np.argsort(-(share - whole), axis=1, kind="stable"), axis=1)
    whole += rank < missing[:, None]
    lacking = (weight > 0) & (whole == 0)
    whole += lacking
    largest = np.argmax(whole, axis=1)
    whole[np.arange(len(whole)), largest] -= lacking.sum(axis=1)
    return whole


def place_side_chains(structure: gemmi.Structure, placement: Placement) -> list[int]:
    """Edit the structure in place; returns which of the N residues have new side-chain atoms.

    Residues that are not found, have another side chain than their parent, or share their position
    with another residue type, stay as they are.
    """
    del structure[1:]
    found = _find(structure[0], placement.key)
    backbone = {}
    for n, residue in enumerate(found):
        if residue is None or placement.token[n] == UNKNOWN_TOKEN:
            continue
        for atom in residue:
            atom.name = atom.name.upper()
        atoms = _backbone(residue, placement.frame_altloc[n])
        if atoms is not None:
            backbone[n] = residue, atoms
    standing = list(backbone)
    if not standing:
        return []
    occupancy = hundredths(placement.weight[standing])
    nitrogen = np.array([backbone[n][1][0].pos.tolist() for n in standing])
    coords, exists = _build(placement, standing, occupancy, nitrogen)
    built = []
    for i, n in enumerate(standing):
        residue, atoms = backbone[n]
        b_iso = float(np.mean([atom.b_iso for atom in atoms]))
        kind, altloc = int(placement.token[n]), placement.frame_altloc[n]
        if _rebuild(residue, kind, altloc, occupancy[i], coords[i], exists[i], b_iso):
            built.append(n)
    return built


def _find(model: gemmi.Model, keys: Sequence[tuple]) -> list[gemmi.Residue | None]:
    """The residue of each key; None where a position holds several residue types."""
    at: dict[tuple, list[gemmi.Residue]] = {}
    for chain in model:
        for residue in chain:
            if not is_water(residue.name):
                number = residue.seqid
                for label_seq in {residue.label_seq, None}:
                    place = (residue.subchain, number.num, number.icode.strip(), label_seq)
                    at.setdefault(place, []).append(residue)
    found = []
    for *author, name, label_seq in keys:
        residues = at.get((*author, label_seq)) or at.get((*author, None), [])
        only = residues[0] if len(residues) == 1 else None
        is_it = only is not None and only.name == name and standard_name(name) in BUILDABLE
        found.append(only if is_it else None)
    return found


def _backbone(residue: gemmi.Residue, altloc: str) -> list[gemmi.Atom] | None:
    """N, CA, C of one conformer: its own atoms, blank ones where it has none."""
    atoms = [
        residue.find_atom(name, altloc or BLANK) or residue.find_atom(name, BLANK)
        for name in ("N", "CA", "C")
    ]
    return atoms if all(atoms) else None


def _build(
    placement: Placement, standing: list[int], occupancy: np.ndarray, nitrogen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """coords (n,J,A,3) and exists (n,J,A) of all modes of all residues, in one call."""
    n = np.asarray(standing)
    num_modes = occupancy.shape[1]
    at = np.repeat(n, num_modes)
    selenium = np.array(["SD" in _own_names(placement.key[i][3]) for i in standing])
    coords, exists = build_side_chains(
        placement.rotation[at],
        placement.translation[at],
        placement.token[at],
        placement.chi[n].reshape(-1, placement.chi.shape[-1]),
        nitrogen=np.repeat(nitrogen, num_modes, axis=0),
        selenium=np.repeat(selenium, num_modes),
    )
    shape = (len(n), num_modes, coords.shape[1])
    return coords.reshape(*shape, 3), exists.reshape(shape)


def _own_names(name: str) -> dict[str, str]:
    """Atoms of the parent that this residue calls otherwise, and how."""
    modified = MODIFIED.get(standard_name(name))
    return {parent: own for own, parent in modified.atoms.items()} if modified else {}


def _rebuild(
    residue: gemmi.Residue,
    token: int,
    frame_altloc: str,
    occupancy: np.ndarray,
    coords: np.ndarray,
    exists: np.ndarray,
    b_iso: float,
) -> bool:
    """Whether atoms were built. occupancy (J,) hundredths, coords (J,A,3), exists (J,A)."""
    names = SIDE_CHAIN_ATOMS[RESIDUE_TYPES[token]]
    has_chi = NUM_CHI[token] > 0
    own = {atom.name for atom in residue if frame_altloc and atom.altloc == frame_altloc}
    keeps = BACKBONE_NAMES if has_chi else BACKBONE_NAMES | set(names)
    has_cb = False
    for i in reversed(range(len(residue))):
        atom = residue[i]
        # Hydrogens of ALA and GLY stand where they did: nothing there was rebuilt.
        stays = atom.name in keeps or (not has_chi and atom.is_hydrogen())
        if stays and atom.has_altloc():
            stays = atom.altloc == frame_altloc
        elif stays:
            stays = atom.name not in own
        if not stays:
            del residue[i]
            continue
        if atom.has_altloc():
            atom.altloc, atom.occ = BLANK, 1.0
        has_cb |= atom.name == "CB"
    # Without chi there is CB or nothing to build, and it is built only where it is missing.
    modes = np.flatnonzero(occupancy) if has_chi else range(0 if has_cb else min(1, len(names)))
    if not len(modes):
        return False
    atom = gemmi.Atom()
    atom.b_iso = b_iso
    own_names = _own_names(residue.name)
    for a, name in enumerate(names):
        shared = len(modes) == 1 or name == "CB"
        atom.name = own_names.get(name, name)
        atom.element = gemmi.Element(own_names.get(name, name[0]))
        for altloc, mode in zip(ALTLOCS, modes[:1] if shared else modes, strict=False):
            if not exists[mode, a]:
                continue
            atom.altloc = BLANK if shared else altloc
            atom.occ = 1.0 if shared else occupancy[mode] / 100.0
            atom.pos = gemmi.Position(*coords[mode, a])
            residue.add_atom(atom)
    return True
