"""Write src/qfitlatent/data/ideal_geometry.json.

    python tools/make_geometry.py     # needs biotite and Biopython, which the package does not

Every heavy side-chain atom of the twenty residue types (and of MSE) gets the
bond length, the bond angle and the dihedral with which it hangs on three atoms
placed before it. A dihedral about the central bond of a chi angle is kept as an
offset to that chi, so that building needs nothing but the chi angles.

- Which atoms are bonded, what is planar and chiral: ideal coordinates of the wwPDB
  Chemical Component Dictionary, as biotite bundles them.
- Lengths, angles and the offsets of branches: means over 8,767 chains of PISCES
  (2.2 angstrom or better, 20 % identity), as Biopython's Bio.PDB.ic_data holds them;
  the dictionary's where Biopython has none (selenium, closures of rings). The
  dictionary's angles are near tetrahedral (109.5 degrees at CB, 113 to 114 in proteins),
  which alone puts the end of a LYS or PHE 0.1 angstrom off.
"""

import json
from pathlib import Path

import Bio
import biotite
import numpy as np
from Bio.PDB.ic_data import dihedra_secondary_defaults, hedra_defaults
from biotite.structure import info

from qfitlatent.chemistry.residues import (
    CHI_ATOMS,
    CHI_PATH,
    MODIFIED,
    ONE_LETTER,
    RESIDUE_TYPES,
    SIDE_CHAIN_ATOMS,
    TOKEN,
)

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


def mean_hedron(parent: str, a: str, b: str, c: str) -> tuple[float, float] | None:
    """Mean length b-c (angstrom) and angle a-b-c (radians) in proteins; None if not tabulated."""
    letter = ONE_LETTER[TOKEN[parent]]
    for atoms, last in (((a, b, c), 2), ((c, b, a), 0)):
        found = hedra_defaults.get("".join(letter + atom for atom in atoms))
        if found:
            return found[0][last], float(np.deg2rad(found[0][1]))
    return None


def mean_cb(parent: str) -> dict[str, float]:
    """CB from the mean angles N-CA-CB, C-CA-CB and N-CA-C, see ``side_chain``."""
    length, to_n = mean_hedron(parent, "N", "CA", "CB")
    _, to_c = mean_hedron(parent, "C", "CA", "CB")
    _, tau = mean_hedron(parent, "N", "CA", "C")
    cos_n, cos_c, cos_tau = np.cos((to_n, to_c, tau))
    toward_n = (cos_n - cos_tau * cos_c) / (1 - cos_tau**2)
    toward_c = (cos_c - cos_tau * cos_n) / (1 - cos_tau**2)
    in_plane = toward_n**2 + toward_c**2 + 2 * toward_n * toward_c * cos_tau
    return {
        "length_angstrom": round(length, 4),
        "toward_n": round(float(toward_n), 6),
        "toward_c": round(float(toward_c), 6),
        "across": round(float(np.sqrt(1 - in_plane)), 6),
    }


def side_chain(component: str, parent: str) -> list[dict]:
    """Internal coordinates of one component's side chain, nearest the backbone first.

    The first atom, CB, hangs on the frame instead: its direction from CA is
    `toward_n` times that of N, `toward_c` times that of C, and `across` their plane,
    on the side of L residues.
    """
    own = MODIFIED[component].atoms if component in MODIFIED else {}
    rename = own or MISNAMED.get(component, {})
    back = {parents: name for name, parents in own.items()}
    array = info.residue(component)
    xyz = {
        rename.get(n, n): c.astype(float) for n, c in zip(array.atom_name, array.coord, strict=True)
    }
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
            rows.append({"atom": "CB", "element": "C"} | mean_cb(parent))
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
            letter = ONE_LETTER[TOKEN[parent]]
            reference, degrees = dihedra_secondary_defaults.get(
                "".join(letter + name for name in (ggp, gp, p, atom)), (None, 0.0)
            )
            if reference == quad and component == parent:
                assert abs(np.angle(np.exp(1j * (np.deg2rad(degrees) - turn)))) < 0.1
                turn = float(np.deg2rad(degrees))
        hedron = float(np.linalg.norm(xyz[atom] - xyz[p])), angle(xyz[gp], xyz[p], xyz[atom])
        if component == parent or "SD" not in (p, atom):  # sulphur's means are not selenium's
            hedron = mean_hedron(parent, gp, p, atom) or hedron
        rows.append({
            "atom": back.get(atom, atom),
            "element": str(array.element[names.index(atom)]),
            "on": [back.get(a, a) for a in (ggp, gp, p)],
            "length_angstrom": round(hedron[0], 4),
            "angle_rad": round(hedron[1], 6),
            "dihedral_rad": round(turn, 6) + 0.0,
            "chi": None if chi is None else chi + 1,
        })  # fmt: skip
    if parent == "PRO":
        ring = float(np.linalg.norm(xyz["N"] - xyz["CD"]))
        rows[-1]["ring_length_angstrom"] = round(ring, 4)
    return rows


def main() -> None:
    residues = {
        name: side_chain(name, name) for name in RESIDUE_TYPES if CHI_PATH[name] or name == "ALA"
    }
    for name, modified in MODIFIED.items():
        if modified.atoms:  # others have the parent's
            residues[name] = side_chain(name, modified.parent)
    record = {
        "source": "bonds and planes: wwPDB Chemical Component Dictionary in biotite "
        f"{biotite.__version__}; mean lengths and angles: Bio.PDB.ic_data of Biopython "
        f"{Bio.__version__}; written by tools/make_geometry.py",
        "residues": residues,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
