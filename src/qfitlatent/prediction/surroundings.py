"""A structure as the joint step takes it: side chains to build, and what stays around them.

What of the surroundings counts is the setting ``surroundings``: by default all that is no water,
in the asymmetric unit alone; waters that a side chain leaves no room for then go. Residues of a
protein that keep their side chains always count. Of alternate conformers of what stays the one with
the highest occupancy counts. ``seen.py`` says what was there. No torch here.

Shapes: N residues of a placement, A atoms of a scene, M atoms that stay.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import gemmi
import numpy as np

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.neighbours import pairs_within
from qfitlatent.chemistry.residues import NUM_CHI, TOKEN, UNKNOWN_TOKEN
from qfitlatent.joint.atoms import KIND, Backbones, Surroundings, kind_of, moved_names
from qfitlatent.joint.bonds import SULPHUR_LONGER, Metals
from qfitlatent.joint.model import Protein
from qfitlatent.prediction.scene import Kind, Placement, Scene
from qfitlatent.structure.crystal import neighbour_search

KIND_OF_WORD = {
    "ligands": Kind.LIGAND,
    "metals": Kind.METAL,
    "nucleic": Kind.NUCLEIC,
    "waters": Kind.WATER,
}
CRYSTAL = "crystal"
WORDS = (*KIND_OF_WORD, CRYSTAL)
"""What the setting ``surroundings`` may name, beside all and none."""

USUAL = frozenset(("ligands", "metals", "nucleic"))
"""What counts where nothing is said."""

PEPTIDE_ANGSTROM = 2.0
"""C and N of neighbours are bonded below this (SPEC 2)."""

CRYSTAL_ANGSTROM = 11.0
"""From CA: the reach of an arginine, and a contact."""

SAME_ANGSTROM = 0.1
"""An atom nearer to where it stands is no image."""

_METAL_OXYGEN = {
    "LI": 2.0,
    "NA": 2.4,
    "K": 2.8,
    "RB": 2.9,
    "CS": 3.1,
    "MG": 2.1,
    "CA": 2.4,
    "SR": 2.6,
    "BA": 2.8,
    "MN": 2.2,
    "FE": 2.1,
    "CO": 2.1,
    "NI": 2.1,
    "CU": 2.0,
    "ZN": 2.05,
    "AG": 2.2,
    "CD": 2.3,
    "HG": 2.3,
    "PB": 2.5,
}
"""Angstrom to N and O (Harding, Acta Cryst. D62 (2006) 678)."""

_LANTHANIDES = "LA CE PR ND SM EU GD TB DY HO ER TM YB LU Y".split()  # noqa: SIM905
_METAL_OXYGEN |= dict.fromkeys(_LANTHANIDES, 2.45)
_OTHER_METAL = 2.2
_ATTRACTS = frozenset(
    "MG CA SR BA MN FE CO NI CU ZN AG CD HG PB".split() + _LANTHANIDES  # noqa: SIM905
)
"""Metals that bind a residue within reach; those of salts need a record of it."""


def metal_distance(element: gemmi.Element, to_sulphur: bool = False) -> float:
    """Angstrom, to N and O or to S."""
    return _METAL_OXYGEN.get(element.name.upper(), _OTHER_METAL) + SULPHUR_LONGER * to_sulphur


def attracts(element: gemmi.Element) -> bool:
    """Whether it is a metal that binds a residue without a record of it."""
    return element.name.upper() in _ATTRACTS


@dataclass(frozen=True)
class Standing:
    """What stays around side chains.

    row (M,): of the scene, -1 for a CB that is placed by its backbone; is_image (M,) bool: it is an
    image in the crystal.
    """

    surroundings: Surroundings
    row: np.ndarray
    is_image: np.ndarray


def words_of(text: str) -> frozenset[str]:
    """What the setting ``surroundings`` names. Raises QfitLatentError for what it cannot name."""
    words = {word.strip().lower() for word in text.split(",")}
    if words == {"none"}:
        return frozenset()
    if words == {"all"}:
        return frozenset(WORDS)
    for word in sorted(words - set(WORDS)):
        raise QfitLatentError(
            f"--surroundings names {word!r}, which is none of {', '.join(WORDS)}: give some of "
            "them separated by commas, or all, or none."
        )
    return frozenset(words)


def no_crystal(structure: gemmi.Structure) -> str:
    """Why the neighbours of a structure in its crystal are not known; empty where they are."""
    if not structure.cell.is_crystal():
        return "the file has no unit cell, or one that cannot be"
    if structure.find_spacegroup() is None:
        name = " ".join(structure.spacegroup_hm.split())
        return f"the space group {name!r} is not known" if name else "the file has no space group"
    return ""


def protein_of(
    scene: Scene,
    placement: Placement,
    structure: gemmi.Structure | None = None,
    words: frozenset[str] = USUAL,
) -> tuple[Protein, Standing]:
    """What ``joint_model`` is given, and what stays; what is not built is of the unknown type.

    ``structure``, that of the scene before anything is built, is asked for neighbours in the
    crystal where the words name it: what stays of them is among the surroundings, too.
    """
    backbones = backbones_of(scene, placement)
    wanted = structure if CRYSTAL in words else None
    residues = np.flatnonzero(NUM_CHI[backbones.token] > 0)
    standing = standing_of(scene, backbones, words, wanted, residues)
    protein = Protein(backbones, standing.surroundings, *bonds_of(scene, backbones, words))
    return protein, standing


def backbones_of(scene: Scene, placement: Placement) -> Backbones:
    """Those of the N residues; one whose nitrogen is not there is of the unknown type."""
    num = len(placement.token)
    is_backbone = scene.kind == Kind.BACKBONE
    nitrogen = np.full((num, 3), np.nan)
    rows = np.flatnonzero(is_backbone & (scene.name == "N"))
    nitrogen[scene.residue[rows]] = scene.position[rows]
    stands = np.isfinite(nitrogen).all(axis=1) & (placement.token != UNKNOWN_TOKEN)
    token = np.where(stands, placement.token, UNKNOWN_TOKEN)
    # One that does not stand is built nowhere, and needs numbers all the same.
    return Backbones(
        np.where(stands[:, None, None], placement.rotation, np.eye(3)),
        np.where(stands[:, None], placement.translation, 0.0),
        np.where(stands[:, None], nitrogen, (-0.5, 1.4, 0.0)),
        token,
    )


def standing_of(
    scene: Scene,
    backbones: Backbones,
    words: frozenset[str],
    crystal: gemmi.Structure | None,
    residues: np.ndarray,
) -> Standing:
    """What stays around the side chains on these backbones, and of what the words name.

    crystal: the structure, where its images count; those near the residues are looked for.
    """
    stays = first_conformers(scene) & (scene.kind != Kind.GOES) & ~left_out(scene, words)
    rows = np.flatnonzero(stays)
    owner = np.where(scene.kind == Kind.BACKBONE, scene.residue, -1)
    excluded = np.stack((owner, peptide_neighbours(scene, owner, stays)), axis=1)

    has_cb = np.zeros(len(backbones), dtype=bool)
    has_cb[scene.residue[rows[(scene.name[rows] == "CB") & (owner[rows] >= 0)]]] = True
    built = np.flatnonzero(
        (NUM_CHI[backbones.token] > 0) | ((backbones.token == TOKEN["ALA"]) & ~has_cb)
    )
    image, where = (_NONE, np.zeros((0, 3)))
    if crystal is not None:
        image, where = images(crystal, scene, backbones.translation[residues])
        image, where = image[stays[image]], where[stays[image]]
    nobody = np.full(len(image) + len(built), -1)
    surroundings = Surroundings(
        np.concatenate((scene.position[rows], where, backbones.cb()[built])),
        np.r_[kinds_of(scene, np.r_[rows, image]), np.full(len(built), KIND["C"])],
        np.concatenate(
            (excluded[rows], np.stack((np.r_[np.full(len(image), -1), built], nobody), axis=1))
        ),
    )
    row = np.r_[rows, image, np.full(len(built), -1)]
    is_image = np.zeros(len(row), dtype=bool)
    is_image[len(rows) : len(rows) + len(image)] = True
    return Standing(surroundings, row, is_image)


def left_out(scene: Scene, words: Iterable[str]) -> np.ndarray:
    """(A,) bool: of a kind that the setting ``surroundings`` can name and does not."""
    return np.isin(scene.kind, [kind for word, kind in KIND_OF_WORD.items() if word not in words])


def peptide_neighbours(
    scene: Scene, owner: np.ndarray, stays: np.ndarray | None = None
) -> np.ndarray:
    """(A,) of C the owner of the N that it is bonded to, of N that of the C; -1 for none.

    owner (A,) of each atom; of the atoms that stay (A,) bool, by default all.
    """
    beside = np.full(len(scene.name), -1)
    stays = np.ones(len(beside), dtype=bool) if stays is None else stays
    carbon, nitrogen = (np.flatnonzero(stays & (scene.name == name)) for name in ("C", "N"))
    i, j = pairs_within(scene.position[carbon], scene.position[nitrogen], PEPTIDE_ANGSTROM)
    i, j = carbon[i], nitrogen[j]
    beside[i], beside[j] = owner[j], owner[i]
    return beside


def kinds_of(scene: Scene, rows: np.ndarray) -> np.ndarray:
    """(R,) kind of these atoms (R,) of the scene."""
    elements, at = np.unique(scene.element[rows], return_inverse=True)
    kinds = [_kind(gemmi.Element(number)) for number in elements.tolist()]
    return np.array(kinds, dtype=np.int64)[at]


_NONE = np.zeros(0, dtype=np.int64)


def images(
    structure: gemmi.Structure, scene: Scene, centres: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (K,) of the scene and positions (K,3) of its images that are near the centres (C,3).

    None where the crystal is not known (``no_crystal``).
    """
    if no_crystal(structure):
        return _NONE, np.zeros((0, 3))
    structure.setup_cell_images()
    row_of: dict[tuple[int, int, int], int] = {}
    for c, chain in enumerate(structure[0]):
        for r, residue in enumerate(chain):
            for a, atom in enumerate(residue):
                if not atom.is_hydrogen():
                    row_of[c, r, a] = len(row_of)
    search = neighbour_search(structure, CRYSTAL_ANGSTROM)
    search.populate(include_h=False)
    find = partial(search.find_atoms, radius=CRYSTAL_ANGSTROM)
    found: dict[tuple[int, ...], tuple[float, ...]] = {}
    cell = structure.cell
    for centre in (gemmi.Position(*each) for each in centres.tolist()):
        for mark in find(centre):
            row = row_of[mark.chain_idx, mark.residue_idx, mark.atom_idx]
            # A mark stands in the first cell, wherever the centre is.
            near = cell.find_nearest_pbc_position(centre, mark.pos, 0)
            if np.linalg.norm(scene.position[row] - near.tolist()) > SAME_ANGSTROM:
                shift = (cell.fractionalize(near) - cell.fractionalize(mark.pos)).tolist()
                found[row, mark.image_idx, *map(round, shift)] = tuple(near.tolist())
    rows = np.array([row for row, *_ in found], dtype=np.int64)
    return rows, np.array(list(found.values()), dtype=np.float64).reshape(-1, 3)


def _kind(element: gemmi.Element) -> int:
    return kind_of(element.name.upper(), element.is_metal)


def first_conformers(scene: Scene) -> np.ndarray:
    """(A,) bool: the atom is blank, or of the altloc of its residue with the highest occupancy."""
    chosen = scene.altloc == ""
    labelled = np.flatnonzero(~chosen)
    weight: dict[int, dict[str, float]] = {}
    for row in labelled.tolist():
        labels = weight.setdefault(int(scene.group[row]), {})
        label = str(scene.altloc[row])
        labels[label] = labels.get(label, 0.0) + float(scene.occupancy[row])
    best = {group: max(sorted(labels), key=labels.__getitem__) for group, labels in weight.items()}
    chosen[labelled] = [best[int(scene.group[row])] == scene.altloc[row] for row in labelled]
    return chosen


def bonds_of(
    scene: Scene, backbones: Backbones, words: frozenset[str] = USUAL
) -> tuple[Metals, frozenset[tuple[int, int]]]:
    """Metals with the side chains that a record binds to them, and the recorded disulfides."""
    rows = np.flatnonzero((scene.kind == Kind.METAL) & ~left_out(scene, words))
    elements = [gemmi.Element(int(number)) for number in scene.element[rows]]
    number_of = {row: m for m, row in enumerate(rows.tolist())}
    links, disulfides = set(), set()
    for pair in scene.bond.tolist():
        residues = [int(scene.residue[row]) for row in pair]
        atoms = [str(scene.name[row]) for row in pair]
        if atoms == ["SG", "SG"] and min(residues) >= 0 and residues[0] != residues[1]:
            disulfides.add((min(residues), max(residues)))
        for other, n, atom in zip(pair[::-1], residues, atoms, strict=True):
            # Not a carbonyl O: no chi moves that.
            if other in number_of and n >= 0 and atom in moved_names(int(backbones.token[n])):
                links.add((n, atom, number_of[other]))
    metals = Metals(
        scene.position[rows],
        np.array([metal_distance(element) for element in elements]),
        np.array([attracts(element) for element in elements], dtype=bool),
        tuple(sorted(links)),
    )
    return metals, frozenset(disulfides)
