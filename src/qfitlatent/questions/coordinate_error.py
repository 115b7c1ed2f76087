"""Backbones as uncertain as coordinates are: each atom displaced at random, in its residue's frame.

Displacements in the frame of the residue turn with the structure, and depend neither on names nor
on what stands in other residues. Shapes: N residues.
"""

from dataclasses import replace

import numpy as np
import torch

from qfitlatent.chemistry.geometry import dihedral, frames, wrap
from qfitlatent.model.batch import Protein
from qfitlatent.model.features import LOCAL_ATOMS


def displaced(protein: Protein, angstrom: float, rng: np.random.Generator) -> Protein:
    """N, CA and C each moved, by a normal displacement of this deviation along each axis."""
    rotation, ca = (x.double().numpy() for x in (protein.rotation, protein.translation))
    local = LOCAL_ATOMS[:3].double().numpy()
    moved = local + rng.normal(scale=angstrom, size=(len(protein), 3, 3))
    before, after = (
        np.einsum("nij,naj->nai", rotation, atoms) + ca[:, None]
        for atoms in (np.broadcast_to(local, moved.shape), moved)
    )
    return on_atoms(protein, before, after)


def on_atoms(protein: Protein, before: np.ndarray, after: np.ndarray) -> Protein:
    """The protein on other places (N,3,3) of N, CA, C; its torsions turn as those of the atoms."""
    rotation, ca, _ = frames(after[:, 0], after[:, 1], after[:, 2])
    turned = _torsions(after) - _torsions(before)
    torsion = wrap(protein.torsion.double().numpy() + turned)
    return replace(
        protein,
        rotation=torch.from_numpy(rotation).float(),
        translation=torch.from_numpy(ca).float(),
        torsion=torch.from_numpy(torsion).float(),
    )


def _torsions(atoms: np.ndarray) -> np.ndarray:
    """(N,3) phi, psi and omega of atoms (N,3,3), 0 where there is no neighbour in the list."""
    n, ca, c = atoms[:, 0], atoms[:, 1], atoms[:, 2]
    torsion = np.zeros((len(atoms), 3))
    torsion[1:, 0] = dihedral(c[:-1], n[1:], ca[1:], c[1:])
    torsion[:-1, 1] = dihedral(n[:-1], ca[:-1], c[:-1], n[1:])
    torsion[1:, 2] = dihedral(ca[:-1], c[:-1], n[1:], ca[1:])
    return torsion
