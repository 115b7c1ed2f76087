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
  is not that of their parent, positions with several residue types, ligands, nucleic acids, and
  waters, of which those go that a new side chain, or its copy in the crystal, leaves no room for.
  What is written of the rest of the file is in ``structure/written.py``.
- Names of force fields and lower case stand for their residues; the residue keeps its name, and its
  atoms have those of the dictionary, SE of MSE included.

Shapes: N residues, J modes.
"""

import string
from collections.abc import Sequence

import gemmi
import numpy as np

from qfitlatent.chemistry.building import build_side_chains, chi_depth
from qfitlatent.chemistry.residues import NUM_CHI, RESIDUE_TYPES, SIDE_CHAIN_ATOMS, is_water
from qfitlatent.joint.states import hundredths
from qfitlatent.prediction.scene import (
    BACKBONE_NAMES,
    BLANK,
    Placement,
    atoms_that_stay,
    names_of_its_own,
    place_of,
    residues_to_rebuild,
)
from qfitlatent.structure.crystal import neighbour_search

ALTLOCS = string.ascii_uppercase + string.ascii_lowercase + string.digits


def place_side_chains(structure: gemmi.Structure, placement: Placement) -> list[int]:
    """Edit the structure in place; returns which of the N residues have new side-chain atoms.

    Residues that are not found, have another side chain than their parent, or share their position
    with another residue type, stay as they are.
    """
    backbone = residues_to_rebuild(structure, placement)
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


def confidence_as_b(
    structure: gemmi.Structure, keys: Sequence[tuple], confidence: Sequence[float]
) -> None:
    """Puts 100 times the confidence of these residues in the B column, and 100 everywhere else."""
    value = {tuple(key[:3]): 100.0 * x for key, x in zip(keys, confidence, strict=True)}
    for chain in structure[0]:
        for residue in chain:
            b_iso = value.get(tuple(place_of(residue)[:3]), 100.0)
            for atom in residue:
                atom.b_iso, atom.aniso = b_iso, gemmi.SMat33f(0, 0, 0, 0, 0, 0)


WATER_ROOM_ANGSTROM = {7: 2.3, 8: 2.3}
"""An atom of this atomic number that is so near to a water leaves it no room; hydrogen bonds do."""

OTHER_ROOM_ANGSTROM = 2.8
"""The same for carbon, sulphur and selenium."""


def remove_crowded_waters(structure: gemmi.Structure, built: Sequence[tuple]) -> list[str]:
    """Removes waters that stand in new side chains; returns how they are called.

    built: keys, as of a placement, of the residues that have one. Any of its conformers counts, and
    so do its copies in the crystal; of a water with altlocs only those go that have no room.
    """
    search = neighbour_search(structure, OTHER_ROOM_ANGSTROM)
    places = {tuple(key[:3]) for key in built}
    for c, chain in enumerate(structure[0]):
        for r, residue in enumerate(chain):
            if tuple(place_of(residue)[:3]) not in places:
                continue
            for a, atom in enumerate(residue):
                if atom.name not in BACKBONE_NAMES and not atom.is_hydrogen():
                    search.add_atom(atom, c, r, a)
    removed = []
    for chain in structure[0]:
        for r in reversed(range(len(chain))):
            residue = chain[r]
            if not is_water(residue.name):
                continue
            crowded = {
                atom.altloc
                for atom in residue
                if not atom.is_hydrogen() and _is_crowded(search, atom.pos)
            }
            for a in reversed(range(len(residue))):
                if residue[a].altloc in crowded:
                    del residue[a]
            if crowded:
                removed.append(f"{chain.name}/{residue.name} {residue.seqid}")
            if not len(residue):
                del chain[r]
    return removed[::-1]


def _is_crowded(search: gemmi.NeighborSearch, position: gemmi.Position) -> bool:
    for mark in search.find_atoms(position, BLANK, radius=OTHER_ROOM_ANGSTROM):
        room = WATER_ROOM_ANGSTROM.get(mark.element.atomic_number, OTHER_ROOM_ANGSTROM)
        if search.dist(position, mark.pos) < room:
            return True
    return False


def _build(
    placement: Placement, standing: list[int], occupancy: np.ndarray, nitrogen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """coords (n,J,A,3) and exists (n,J,A) of all modes of all residues, in one call."""
    n = np.asarray(standing)
    num_modes = occupancy.shape[1]
    at = np.repeat(n, num_modes)
    selenium = np.array(["SD" in names_of_its_own(placement.key[i][3]) for i in standing])
    coords, exists = build_side_chains(
        placement.rotation[at],
        placement.translation[at],
        placement.token[at],
        placement.chi[n].reshape(-1, placement.chi.shape[-1]),
        nitrogen=np.repeat(nitrogen, num_modes, axis=0),
        selenium=np.repeat(selenium, num_modes),
    )
    if placement.num_chi is not None:
        exists &= chi_depth()[placement.token[at]] <= placement.num_chi[at][:, None]
    shape = (len(n), num_modes, coords.shape[1])
    return coords.reshape(*shape, 3), exists.reshape(shape)


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
    has_cb = False
    stays = atoms_that_stay(residue, token, frame_altloc)
    for i in reversed(range(len(residue))):
        atom = residue[i]
        if not stays[i]:
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
    own_names = names_of_its_own(residue.name)
    for a, name in enumerate(names):
        shared = len(modes) == 1 or name == "CB"
        atom.name = own_names.get(name, name)
        atom.element = gemmi.Element(own_names.get(name, name[0]))
        for mode in modes[:1] if shared else modes:
            if not exists[mode, a]:
                continue
            atom.altloc = BLANK if shared else ALTLOCS[mode]
            atom.occ = 1.0 if shared else occupancy[mode] / 100.0
            atom.pos = gemmi.Position(*coords[mode, a])
            residue.add_atom(atom)
    return True
