"""How good side chains are, predicted or deposited: contacts, geometry, bonds, and angles.

Shapes: N residues, A = 10 side-chain atoms, D=4 chi, P pairs, K models. Angstrom, radians.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from qfitlatent.chemistry.building import ideal_geometry
from qfitlatent.chemistry.geometry import circular_distance
from qfitlatent.chemistry.neighbours import pairs_within
from qfitlatent.chemistry.residues import CHI_DEFINED, PI_SYMMETRIC, TOKEN
from qfitlatent.joint.atoms import KIND, NUM_MOVED, SIDE_CHAIN_KIND
from qfitlatent.joint.bonds import SULPHUR_LONGER
from qfitlatent.joint.energy import CLASH
from qfitlatent.joint.model import Protein

DISULFIDE_ANGSTROM = 2.5
"""Sulphurs of two deposited cysteines that are nearer are bonded, whatever the records say."""

LIGAND_SLACK_ANGSTROM = 0.4
"""An N, O or S that is so much farther from a metal than its bond is long binds it still."""


def clashes(protein: Protein, coords: np.ndarray) -> np.ndarray:
    """(P,2) residues of each pair of atoms that clash, the second -1 for an atom that stays.

    coords (N,A,3), nan where there is no atom. One atom is beyond CB of a side chain that is built.
    Metals, sulphurs of two cysteines and, as they are not among what stays, waters do not count.
    """
    points, owner = _moved(protein, coords)
    i, j = pairs_within(points, points, CLASH)
    is_cysteine = protein.backbones.token[owner] == TOKEN["CYS"]
    between = (owner[i] < owner[j]) & ~(is_cysteine[i] & is_cysteine[j])
    around = protein.around
    k, m = pairs_within(points, around.position, CLASH)
    met = (around.excluded[m] != owner[k][:, None]).all(axis=1) & (around.kind[m] != KIND["metal"])
    with_side_chains = np.stack((owner[i[between]], owner[j[between]]), axis=1)
    with_rest = np.stack((owner[k[met]], np.full(np.count_nonzero(met), -1)), axis=1)
    return np.concatenate((with_side_chains, with_rest))


def per_residue(pairs: np.ndarray, num: int) -> np.ndarray:
    """(N,) of pairs as of ``clashes``: half of those with another side chain, and all others."""
    both = np.where(pairs[:, 1] < 0, 1.0, 0.5)
    share = np.bincount(pairs[:, 0], both, num)
    other = pairs[:, 1] >= 0
    return share + np.bincount(pairs[other, 1], both[other], num)


def _moved(protein: Protein, coords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,3) atoms beyond CB that are there, and (n,) whose they are."""
    column = np.arange(coords.shape[1])
    moved = (column > 0) & (column <= NUM_MOVED[protein.backbones.token][:, None])
    owner, atom = np.nonzero(moved & np.isfinite(coords[..., 0]))
    return coords[owner, atom], owner


def chi_apart(token: np.ndarray, chi: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N,D) distance of each chi; 0 where the type has none, nan where one is not known."""
    apart = circular_distance(chi, other, PI_SYMMETRIC[token])
    return np.where(CHI_DEFINED[token], apart, 0.0)


def deviations(protein: Protein, coords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) root mean squares from ideal bond lengths and angles beyond CB of side chains (N,A,3).

    nan where a side chain has none.
    """
    backbones, geometry = protein.backbones, ideal_geometry()
    slots = np.concatenate(
        (backbones.nitrogen[:, None], backbones.translation[:, None], coords), axis=1
    )
    n, column = np.nonzero(~np.isnan(geometry.length[backbones.token]))
    row = backbones.token[n]
    a, b = (slots[n, geometry.parents[row, column, k]] for k in (1, 2))
    atom = coords[n, column]
    length, other = np.linalg.norm(atom - b, axis=1), np.linalg.norm(a - b, axis=1)
    cosine = ((a - b) * (atom - b)).sum(axis=1) / (other * length)
    known = np.isfinite(cosine)
    n, row, column = n[known], row[known], column[known]
    bond = length[known] - geometry.length[row, column]
    angle = np.arccos(np.clip(cosine[known], -1.0, 1.0)) - geometry.angle[row, column]
    num = np.bincount(n, minlength=len(coords))
    with np.errstate(invalid="ignore"):
        bonds, angles = (
            np.sqrt(np.bincount(n, off**2, len(coords)) / num) for off in (bond, angle)
        )
    return bonds, angles


class Bonded(NamedTuple):
    """P bonds that some of K models have.

    residue (P,) and atom (P,) among those of its type; partner (P,): the other cysteine, or the
    metal; length (P,K) in each model and is_bond (P,K); cb_cb (P,) of cysteines.
    """

    residue: np.ndarray
    atom: np.ndarray
    partner: np.ndarray
    length: np.ndarray
    is_bond: np.ndarray
    cb_cb: np.ndarray


def disulfides(protein: Protein, models: Sequence[np.ndarray]) -> Bonded:
    """Of models (N,A,3), each once."""
    cysteine = np.flatnonzero(protein.backbones.token == TOKEN["CYS"])
    cb = protein.backbones.cb()
    i, j = pairs_within(cb[cysteine], cb[cysteine], _CB_CB_FARTHEST)
    i, j = cysteine[i[i < j]], cysteine[j[i < j]]
    length = np.stack([_norm(coords[i, 1] - coords[j, 1]) for coords in models], axis=1)
    is_bond = length <= DISULFIDE_ANGSTROM
    some = is_bond.any(axis=1)
    i, j = i[some], j[some]
    return Bonded(i, np.ones_like(i), j, length[some], is_bond[some], _norm(cb[i] - cb[j]))


def metal_bonds(protein: Protein, models: Sequence[np.ndarray]) -> Bonded:
    """Side-chain atoms N, O and S on metals, of models (N,A,3)."""
    metals = protein.metals
    kind = SIDE_CHAIN_KIND[protein.backbones.token]
    n, atom = np.nonzero(np.isin(kind, [KIND[name] for name in "NOS"]))
    reach = np.where(kind[n, atom] == KIND["S"], SULPHUR_LONGER, 0.0) + LIGAND_SLACK_ANGSTROM
    cb = protein.backbones.cb()[n]
    i, m = pairs_within(cb, metals.position, _CB_METAL_FARTHEST)
    n, atom, reach = n[i], atom[i], reach[i] + metals.distance[m]
    length = np.stack([_norm(c[n, atom] - metals.position[m]) for c in models], axis=1)
    is_bond = length <= reach[:, None]
    some = is_bond.any(axis=1)
    nan = np.full(np.count_nonzero(some), np.nan)
    return Bonded(n[some], atom[some], m[some], length[some], is_bond[some], nan)


_CB_CB_FARTHEST = DISULFIDE_ANGSTROM + 2 * 2.2
"""No CB-SG is longer than 2.2 angstrom, even deposited."""

_CB_METAL_FARTHEST = 12.0
"""From CB: the reach of an arginine, and a bond."""


def _norm(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=-1)
