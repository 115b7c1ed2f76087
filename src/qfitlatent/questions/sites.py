"""What stands around each residue when it is given another type; no torch here.

Side chains near the changed residue are chosen anew with it (``repack.py``). Those farther away
stand as in the best joint state of the unchanged protein, those that are fixed as in the file.

Shapes: N residues of the network, n of a site, the changed one first, A atoms around, D=4 chi.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qfitlatent.chemistry.neighbours import pairs_within
from qfitlatent.chemistry.residues import NUM_CHI, NUM_CHI_MAX, TOKEN, UNKNOWN_TOKEN
from qfitlatent.joint.atoms import NUM_MOVED, SIDE_CHAIN_KIND, Backbones, Surroundings
from qfitlatent.joint.bonds import Metals
from qfitlatent.joint.candidates import Densities
from qfitlatent.joint.model import joint_model
from qfitlatent.joint.quality import DISULFIDE_ANGSTROM
from qfitlatent.prediction.ensemble import open_given, placement_of
from qfitlatent.prediction.records import Input
from qfitlatent.prediction.scene import BACKBONE_NAMES, Kind, Scene, scene_of
from qfitlatent.prediction.seen import seen_in
from qfitlatent.prediction.selection import NEIGHBOUR_ANGSTROM
from qfitlatent.prediction.surroundings import (
    CRYSTAL,
    backbones_of,
    bonds_of,
    first_conformers,
    images,
    kinds_of,
    protein_of,
    standing_of,
    words_of,
)

REACH_ANGSTROM = NEIGHBOUR_ANGSTROM + 11.0
"""From CB of the changed residue: a neighbour's CB, the reach of an arginine, and a contact."""

CB_ANGSTROM = 0.8
"""From where the backbone puts CB: no other atom of a backbone is so near."""


@dataclass(frozen=True)
class Site:
    """rows (n,) of the network, the changed one first; around: atoms that stay, without its CB.

    around.excluded are numbers of the site; metals.links and recorded, too. cb (3,).
    """

    rows: np.ndarray
    backbones: Backbones
    around: Surroundings
    metals: Metals
    recorded: frozenset[tuple[int, int]]
    cb: np.ndarray


@dataclass(frozen=True)
class _Atoms:
    """Atoms that stay: excluded (A,2) as of ``Surroundings``; owner (A,) of a side chain, or -1."""

    position: np.ndarray
    kind: np.ndarray
    excluded: np.ndarray
    owner: np.ndarray

    def joined(self, other: "_Atoms") -> "_Atoms":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Atoms(*(np.concatenate(pair) for pair in pairs))


class Sites:
    """All sites of a structure.

    cb (N,3), nan where there is no backbone to build on; fixed (N,) bool; chi (N,D) of the best
    joint state of the unchanged protein, nan where a side chain is fixed; seen: ``columns.SEEN``.
    """

    def __init__(
        self,
        identity: Mapping[str, Any],
        given: Input,
        row: np.ndarray,
        densities: Densities,
        fixed: np.ndarray,
    ) -> None:
        """row (N,) of the residues table, densities of these; fixed (N,) bool: as in the file."""
        structure, _ = open_given(given)
        words = words_of(identity["surroundings"])
        placement = placement_of(given.tables, row)
        scene = scene_of(structure, placement)
        self.backbones = backbones_of(scene, placement)
        stands = self.backbones.token != UNKNOWN_TOKEN
        self.fixed = fixed | ~stands
        self.cb = replace(self.backbones, token=np.full(len(row), TOKEN["ALA"])).cb()
        self.cb[~stands] = np.nan
        self.metals, self._recorded = bonds_of(scene, self.backbones, words)

        free = ~self.fixed
        self.chi = np.full((len(row), NUM_CHI_MAX), np.nan)
        its_own = placement.select(free)
        own_scene = scene_of(structure, its_own)
        protein, standing = protein_of(own_scene, its_own, structure, words)
        self.seen = seen_in(
            given.entry, structure, own_scene, standing.row, standing.is_image, words
        )
        if free.any():
            own = replace(densities.select(free), token=protein.backbones.token)
            none = np.zeros(len(own), dtype=bool)
            self.chi[free] = joint_model(protein, own, none, 1.0).states.chi[:, 0]

        crystal = structure if CRYSTAL in words else None
        around = standing_of(scene, self.backbones, words, crystal, np.flatnonzero(stands))
        base = around.surroundings
        self._atoms = _Atoms(base.position, base.kind, base.excluded, np.full(len(base.kind), -1))
        self._atoms = self._atoms.joined(self._fixed_atoms(scene, crystal))
        self._atoms = self._atoms.joined(self._free_atoms())
        self._partner = self._disulfides()

    def _fixed_atoms(self, scene: Scene, crystal: Any) -> _Atoms:
        """Side chains that stay as in the file, and their images where the crystal counts."""
        stays = first_conformers(scene) & (scene.kind == Kind.GOES) & (scene.residue >= 0)
        stays &= self.fixed[scene.residue] & (scene.name != "CB")
        stays &= ~np.isin(scene.name, list(BACKBONE_NAMES))
        rows, where = np.flatnonzero(stays), scene.position[stays]
        if crystal is not None and len(rows):
            image, there = images(crystal, scene, self.backbones.translation)
            rows = np.r_[rows, image[stays[image]]]
            where = np.concatenate((where, there[stays[image]]))
        none = np.full((len(rows), 2), -1)
        return _Atoms(where, kinds_of(scene, rows), none, scene.residue[rows])

    def _free_atoms(self) -> _Atoms:
        """Side chains beyond CB as in the best joint state."""
        token = self.backbones.token
        rows = np.flatnonzero(~self.fixed & (NUM_CHI[token] > 0))
        atoms = self.backbones.build(rows, self.chi[rows])[:, 1:]
        n, column = np.nonzero(np.arange(atoms.shape[1]) < NUM_MOVED[token[rows]][:, None])
        kind = SIDE_CHAIN_KIND[token[rows[n]], column + 1]
        return _Atoms(atoms[n, column], kind, np.full((len(n), 2), -1), rows[n])

    def _disulfides(self) -> dict[int, int]:
        """The partner of each cysteine that has one in the best joint state."""
        cysteine = self.backbones.token[self._atoms.owner] == TOKEN["CYS"]
        at = np.flatnonzero((self._atoms.owner >= 0) & cysteine)
        place, owner = self._atoms.position[at], self._atoms.owner[at]
        i, j = pairs_within(place, place, DISULFIDE_ANGSTROM)
        return {int(owner[a]): int(owner[b]) for a, b in zip(i, j, strict=True) if a != b}

    def at(self, residue: int) -> Site:
        """The site of one residue (0..N-1) that has a backbone.

        Beside it stand the side chains that are repacked with it: those with CB within 8 angstrom
        of its own that are not fixed. A cysteine whose disulfide leads out of these stays.
        """
        token = self.backbones.token
        apart = np.linalg.norm(self.cb - self.cb[residue], axis=1)
        with np.errstate(invalid="ignore"):
            near = (apart <= NEIGHBOUR_ANGSTROM) & ~self.fixed & (NUM_CHI[token] > 0)
        near[residue] = True
        kept = [n for n in np.flatnonzero(near).tolist() if near[self._partner.get(n, n)]]
        rows = np.array([residue, *(n for n in kept if n != residue)])
        number = np.full(len(token) + 1, -1)
        number[rows] = np.arange(len(rows))

        atoms, cb = self._atoms, self.cb[residue]
        distance = np.linalg.norm(atoms.position - cb, axis=1)
        counts = (distance <= REACH_ANGSTROM) & (number[atoms.owner] < 0)
        counts &= (atoms.excluded[:, 0] != residue) | (distance > CB_ANGSTROM)
        metals = self.metals
        links = tuple((int(number[n]), a, m) for n, a, m in metals.links if number[n] >= 0)
        pairs = ((int(number[i]), int(number[j])) for i, j in self._recorded)
        return Site(
            rows,
            self.backbones.select(rows),
            Surroundings(
                atoms.position[counts], atoms.kind[counts], number[atoms.excluded[counts]]
            ),
            replace(metals, links=links),
            frozenset((min(pair), max(pair)) for pair in pairs if min(pair) >= 0),
            cb,
        )
