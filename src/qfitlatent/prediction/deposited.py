"""A structure as ``joint.context`` takes it: its side chains as they stand, and all around them.

A side chain is that of a residue and altloc: its own atoms, and blank ones where it has none. Atoms
of occupancy 0 were placed without density and are nobody's neighbours; nor are waters, which make
way, and neighbours in the crystal, unless the setting ``surroundings`` names them. No torch here.

Shapes: N residues of a placement, M side chains, A = 9 atoms beyond CB, S atoms of a scene.
"""

from collections.abc import Sequence
from typing import NamedTuple

import gemmi
import numpy as np

from qfitlatent.chemistry.neighbours import pairs_within
from qfitlatent.chemistry.residues import NUM_CHI, TOKEN
from qfitlatent.joint.atoms import NUM_MOVED, SIDE_CHAIN_KIND, moved_names
from qfitlatent.joint.context import Deposited, Others, SideChains
from qfitlatent.joint.quality import DISULFIDE_ANGSTROM
from qfitlatent.prediction.scene import Kind, Placement, Scene, names_of_its_own
from qfitlatent.prediction.surroundings import (
    USUAL,
    backbones_of,
    first_conformers,
    images,
    kinds_of,
    left_out,
    peptide_neighbours,
)

HELD_ANGSTROM = 2.8
"""From N, O or S of a side chain to a metal: a bond holds it."""

_LIGANDS = (7, 8, 16, 34)

COVALENT_ANGSTROM = {"ND2": 1.65, "NZ": 1.65, "OG": 1.65, "OG1": 1.65, "SG": 2.2}
"""From these atoms to carbon: a sugar, a haem, an ester, whatever the records say."""


class Found(NamedTuple):
    """The side chains of which all atoms are there; row (M,) of those that were asked for.

    atom (M,A) and other (Q,): their atoms in the scene, -1 for none; is_image (Q,) bool: it is an
    image of that atom in the crystal.
    """

    deposited: Deposited
    row: np.ndarray
    atom: np.ndarray
    other: np.ndarray
    is_image: np.ndarray


def deposited_of(
    scene: Scene,
    placement: Placement,
    residue: np.ndarray,
    label: Sequence[str],
    chi: np.ndarray,
    words: frozenset[str] = USUAL,
    crystal: gemmi.Structure | None = None,
) -> Found:
    """The side chains of these residues (M',) of the placement with these labels and chi (M',D).

    words: what counts beside the protein; crystal: the structure, where its images count, too.
    """
    backbones = backbones_of(scene, placement)
    stands = scene.occupancy > 0
    main = first_conformers(scene)
    atom = _atoms(scene, placement, backbones.token, residue, label, stands)
    has = np.arange(atom.shape[1]) < NUM_MOVED[backbones.token[residue]][:, None]
    row = np.flatnonzero(((atom >= 0) == has).all(axis=1) & (NUM_CHI[backbones.token[residue]] > 0))
    atom = atom[row]
    group, place = np.full(len(placement.token), -1), np.full((*atom.shape, 3), np.nan)
    group[scene.residue[scene.residue >= 0]] = scene.group[scene.residue >= 0]
    place[atom >= 0] = scene.position[atom[atom >= 0]]
    labels = np.array(label, dtype=np.str_)[row]
    is_main = np.all(main[atom] | (atom < 0), axis=1)

    taken = np.zeros(len(main), dtype=bool)
    taken[atom[atom >= 0]] = True
    counts = stands & ~left_out(scene, words)
    own = np.flatnonzero(~taken & counts)
    image, where = _images_of(scene, counts, crystal, placement.translation[residue])
    other = np.r_[own, image]
    is_image = np.arange(len(other)) >= len(own)
    others = Others(
        np.concatenate((scene.position[own], where)),
        kinds_of(scene, other),
        # An image is no part of the residue that it is an image of.
        np.where(is_image, 1 + int(scene.group.max(initial=-1)), 0) + scene.group[other],
        scene.altloc[other],
        main[other],
        np.where(is_image, -1, _beside(scene, backbones.token)[other]),
    )
    linked, held = _bonds(scene, stands)
    side_chains = SideChains(
        residue[row],
        group[residue[row]],
        labels,
        is_main,
        np.any(np.isin(atom, held), axis=1),
        chi[row],
        place,
    )
    return Found(Deposited(backbones, side_chains, others, linked), row, atom, other, is_image)


def _images_of(
    scene: Scene, counts: np.ndarray, crystal: gemmi.Structure | None, centres: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (K,) of the scene that count (A,) bool, and positions (K,3) of their images.

    A sulphur that is bonded across the crystal is no neighbour.
    """
    if crystal is None:
        return np.zeros(0, dtype=np.int64), np.zeros((0, 3))
    row, where = images(crystal, scene, centres)
    sulphur = scene.position[scene.name == "SG"]
    is_sulphur = np.flatnonzero(scene.name[row] == "SG")
    bonded, _ = pairs_within(where[is_sulphur], sulphur, DISULFIDE_ANGSTROM)
    counted = counts[row]
    counted[is_sulphur[bonded]] = False
    return row[counted], where[counted]


def _atoms(
    scene: Scene,
    placement: Placement,
    token: np.ndarray,
    residue: np.ndarray,
    label: Sequence[str],
    stands: np.ndarray,
) -> np.ndarray:
    """(M,A) atoms beyond CB of each side chain in the scene, -1 for none."""
    at = {
        (n, name, altloc): s
        for s, (n, name, altloc) in enumerate(
            zip(scene.residue.tolist(), scene.name.tolist(), scene.altloc.tolist(), strict=True)
        )
        if n >= 0 and stands[s]
    }
    names = [moved_names(t) for t in token.tolist()]
    for n, key in enumerate(placement.key):
        if own := names_of_its_own(key[3]):
            names[n] = tuple(own.get(name, name) for name in names[n])
    found = np.full((len(residue), SIDE_CHAIN_KIND.shape[1] - 1), -1)
    for m, (n, altloc) in enumerate(zip(residue.tolist(), label, strict=True)):
        for column, name in enumerate(names[n]):
            found[m, column] = at.get((n, name, altloc), at.get((n, name, ""), -1))
    return found


def _beside(scene: Scene, token: np.ndarray) -> np.ndarray:
    """(S,) the group whose side chain does not meet the atom, as of ``Others``.

    That of the residue at the other end of the peptide bond; CD of a proline is at a fixed distance
    from CA before it, too.
    """
    beside = peptide_neighbours(scene, scene.group)
    proline = np.unique(scene.group[(scene.residue >= 0) & (token[scene.residue] == TOKEN["PRO"])])
    behind = np.full(int(scene.group.max(initial=-1)) + 1, -1)
    carbon = np.flatnonzero((scene.name == "C") & np.isin(beside, proline))
    behind[scene.group[carbon]] = beside[carbon]
    return np.where(scene.name == "CA", behind[scene.group], beside)


def _bonds(scene: Scene, stands: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(L,2) groups that are bonded, and the atoms of side chains that a bond holds."""
    is_named = stands & (scene.residue >= 0)
    sulphur = np.flatnonzero(stands & (scene.name == "SG"))
    ligand = np.flatnonzero(is_named & np.isin(scene.element, _LIGANDS))
    metal = np.flatnonzero(stands & (scene.kind == Kind.METAL))
    end = np.flatnonzero(is_named & np.isin(scene.name, list(COVALENT_ANGSTROM)))
    carbon = np.flatnonzero(stands & (scene.element == 6))
    pairs = [scene.bond]
    for ours, others, reach in (
        (sulphur, sulphur, DISULFIDE_ANGSTROM),
        (ligand, metal, HELD_ANGSTROM),
        (end, carbon, max(COVALENT_ANGSTROM.values())),
    ):
        i, j = pairs_within(scene.position[ours], scene.position[others], reach)
        pairs.append(np.stack((ours[i], others[j]), axis=1))
    first, second = pairs[-1].T
    longest = np.array([COVALENT_ANGSTROM[name] for name in scene.name[first].tolist()])
    apart = np.linalg.norm(scene.position[first] - scene.position[second], axis=1)
    pairs[-1] = pairs[-1][apart <= longest]
    bonds = np.concatenate(pairs)
    bonds = bonds[scene.group[bonds[:, 0]] != scene.group[bonds[:, 1]]]
    return scene.group[bonds], bonds.ravel()
