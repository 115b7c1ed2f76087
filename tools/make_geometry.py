"""Write src/qfitlatent/data/ideal_geometry.json from the Chemical Component Dictionary.

    python tools/make_geometry.py            # needs biotite, which the package itself does not

Every heavy side-chain atom of the twenty residue types (and of MSE) gets the
bond length, the bond angle and the dihedral with which it hangs on three atoms
placed before it, measured in the dictionary's ideal coordinates that biotite
bundles. A dihedral about the central bond of a chi angle is kept as an offset to
that chi, so that building needs nothing but the chi angles.
"""

from __future__ import annotations

import json
from pathlib import Path

import biotite
import numpy as np
from biotite.structure import info

from qfitlatent.chemistry import CHI_ATOMS, CHI_PATH, RESIDUE_TYPES, SIDE_CHAIN_ATOMS

CARBOXYLATES = {"ASP": ("OD1", "OD2"), "GLU": ("OE1", "OE2")}
"""The dictionary holds the acids; in a protein both oxygens are alike, so they share a mean."""

OUT = Path(__file__).parents[1] / "src" / "qfitlatent" / "data" / "ideal_geometry.json"

MISNAMED = {"ARG": {"NH1": "NH2", "NH2": "NH1"}}
"""The dictionary's ideal ARG has NH1 trans to CD; IUPAC, and deposited models, have it cis."""


def dihedral(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> float:
    """IUPAC dihedral a-b-c-d in radians."""
    axis = (c - b) / np.linalg.norm(c - b)
    v, w = (a - b) - (a - b) @ axis * axis, (d - c) - (d - c) @ axis * axis
    return float(np.arctan2(np.cross(axis, v) @ w, v @ w))


def angle(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    """Angle at b in radians."""
    u, v = a - b, c - b
    return float(np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v)))


def side_chain(component: str, parent: str) -> list[dict]:
    """Internal coordinates of one component's side chain, nearest the backbone first.

    The first atom, CB, hangs on the frame instead: `along` is its component along
    the bisector of N and C seen from CA, `across` along (N - CA) x (C - CA).
    """
    rename = {"SE": "SD"} if component == "MSE" else MISNAMED.get(component, {})
    back = {"SD": "SE"} if component == "MSE" else {}
    array = info.residue(component)
    xyz = {rename.get(n, n): c.astype(float) for n, c in zip(array.atom_name, array.coord)}
    bonded = {name: set() for name in xyz}
    names = [rename.get(n, n) for n in array.atom_name]
    for i, j, _ in array.bonds.as_array():
        bonded[names[i]].add(names[j])
        bonded[names[j]].add(names[i])

    central = {(quad[1], quad[2]): d for d, quad in enumerate(CHI_ATOMS[parent])}
    tree = {"CB": "CA", "CA": "N"}
    depth = {"N": 0, "CA": 0, "CB": 1}
    rows = []
    for atom in SIDE_CHAIN_ATOMS[parent]:
        if atom == "CB":
            n, c = xyz["N"] - xyz["CA"], xyz["C"] - xyz["CA"]
            n, c = n / np.linalg.norm(n), c / np.linalg.norm(c)
            bisector, normal = (n + c) / np.linalg.norm(n + c), np.cross(n, c)
            v = xyz["CB"] - xyz["CA"]
            rows.append({
                "atom": "CB", "element": "C", "length_angstrom": round(float(np.linalg.norm(v)), 4),
                "along": round(float(v @ bisector / np.linalg.norm(v)), 6),
                "across": round(float(v @ normal / np.linalg.norm(v) / np.linalg.norm(normal)), 6),
            })  # fmt: skip
            continue
        placed = [a for a in bonded[atom] if a in depth and a not in ("N", "CA")]
        p = min(placed, key=lambda a: (depth[a], SIDE_CHAIN_ATOMS[parent].index(a)))
        tree[atom], depth[atom] = p, depth[p] + 1
        gp = tree[p]
        ggp = tree[gp]
        turn = dihedral(xyz[ggp], xyz[gp], xyz[p], xyz[atom])
        chi = central.get((gp, p))
        if chi is not None:
            quad = CHI_ATOMS[parent][chi]
            assert quad[0] == ggp, (component, atom, quad)
            turn -= dihedral(*(xyz[name] for name in quad))
            turn = float(np.arctan2(np.sin(turn), np.cos(turn)))
        rows.append({
            "atom": back.get(atom, atom),
            "element": str(array.element[names.index(atom)]),
            "on": [back.get(a, a) for a in (ggp, gp, p)],
            "length_angstrom": round(float(np.linalg.norm(xyz[atom] - xyz[p])), 4),
            "angle_rad": round(angle(xyz[gp], xyz[p], xyz[atom]), 6),
            "dihedral_rad": round(turn, 6) + 0.0,
            "chi": None if chi is None else chi + 1,
        })  # fmt: skip
    if parent in CARBOXYLATES:
        pair = [row for row in rows if row["atom"] in CARBOXYLATES[parent]]
        for key, digits in (("length_angstrom", 4), ("angle_rad", 6)):
            mean = round(sum(row[key] for row in pair) / 2, digits)
            for row in pair:
                row[key] = mean
    if parent == "PRO":
        ring = float(np.linalg.norm(xyz["N"] - xyz["CD"]))
        rows[-1]["ring_length_angstrom"] = round(ring, 4)
    return rows


def main() -> None:
    residues = {
        name: side_chain(name, name) for name in RESIDUE_TYPES if CHI_PATH[name] or name == "ALA"
    }
    residues["MSE"] = side_chain("MSE", "MET")
    record = {
        "source": "wwPDB Chemical Component Dictionary, ideal coordinates, as bundled with "
        f"biotite {biotite.__version__}; written by tools/make_geometry.py",
        "residues": residues,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
