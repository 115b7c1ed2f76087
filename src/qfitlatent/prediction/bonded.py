"""Bonds of built side chains that no record of the input names; no torch here.

A disulfide or a metal's bond that the joint step makes is a bond of the model, and is written as
one (SSBOND and LINK, ``struct_conn``), whether the file knew of it or not.
"""

from collections.abc import Sequence
from itertools import count

import gemmi
import numpy as np

from qfitlatent.chemistry.neighbours import pairs_within
from qfitlatent.chemistry.residues import parent_name
from qfitlatent.joint.bonds import LIGANDS, LONGEST_SG_SG
from qfitlatent.prediction.scene import place_of
from qfitlatent.prediction.surroundings import attracts, metal_distance

LONGER_ANGSTROM = 0.3
"""Than the distance that is usual for a metal."""

Site = tuple[gemmi.Chain, gemmi.Residue, gemmi.Atom]


def add_bonds(structure: gemmi.Structure, built: Sequence[tuple]) -> None:
    """Adds them to the connections of the structure, of its first model.

    built: keys, as of a placement, of the residues whose side chains were built; one end at least
    is of these.
    """
    places = {tuple(key[:3]) for key in built}
    sulphurs, ligands, metals = [], [], []
    for chain in structure[0]:
        for residue in chain:
            is_built = tuple(place_of(residue)[:3]) in places
            for atom in residue:
                site = chain, residue, atom
                if atom.name == "SG":
                    sulphurs.append((site, is_built))
                if is_built and (parent_name(residue.name), atom.name) in LIGANDS:
                    ligands.append(site)
                if not is_built and attracts(atom.element) and atom.occ > 0:
                    metals.append(site)
    known = {_ends(c.partner1, c.partner2) for c in structure.connections}
    names = {c.name for c in structure.connections}
    sulphur = [site for site, _ in sulphurs]
    for i, j in _near(sulphur, sulphur, LONGEST_SG_SG):
        if i < j and (sulphurs[i][1] or sulphurs[j][1]):
            _add(structure, gemmi.ConnectionType.Disulf, sulphur[i], sulphur[j], known, names)
    for i, j in _near(ligands, metals, 3.5):
        ligand, metal = ligands[i][2], metals[j][2]
        longest = metal_distance(metal.element, ligand.element.name == "S") + LONGER_ANGSTROM
        if ligand.pos.dist(metal.pos) <= longest:
            _add(structure, gemmi.ConnectionType.MetalC, ligands[i], metals[j], known, names)


def _near(a: list[Site], b: list[Site], radius: float) -> list[tuple[int, int]]:
    """Pairs of other residues whose altlocs can meet."""
    first, second = (np.array([s[2].pos.tolist() for s in x]).reshape(-1, 3) for x in (a, b))
    pairs = np.stack(pairs_within(first, second, radius), axis=1).tolist()
    return [
        (i, j)
        for i, j in pairs
        if place_of(a[i][1]) != place_of(b[j][1]) and _meet(a[i][2], b[j][2])
    ]


def _meet(one: gemmi.Atom, other: gemmi.Atom) -> bool:
    return one.altloc == other.altloc or not (one.has_altloc() and other.has_altloc())


def _add(
    structure: gemmi.Structure,
    kind: gemmi.ConnectionType,
    one: Site,
    other: Site,
    known: set[frozenset],
    names: set[str],
) -> None:
    """Once, whatever the altlocs: what is written names the nearest ones."""
    bond = gemmi.Connection()
    bond.type, bond.asu = kind, gemmi.Asu.Same
    bond.partner1, bond.partner2 = (
        gemmi.AtomAddress(chain.name, residue.seqid, residue.name, atom.name)
        for chain, residue, atom in (one, other)
    )
    ends = _ends(bond.partner1, bond.partner2)
    if ends in known:
        return
    prefix = "disulf" if kind == gemmi.ConnectionType.Disulf else "metalc"
    bond.name = next(name for n in count(1) if (name := f"{prefix}{n}") not in names)
    known.add(ends)
    names.add(bond.name)
    structure.connections.append(bond)


def _ends(one: gemmi.AtomAddress, other: gemmi.AtomAddress) -> frozenset:
    return frozenset(
        (end.chain_name, str(end.res_id.seqid), end.res_id.name, end.atom_name)
        for end in (one, other)
    )
