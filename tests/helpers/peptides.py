"""Peptides written atom by atom, and their tables: what tests of the altloc policy need."""

import math
from collections.abc import Sequence

import gemmi
import numpy as np

from qfitlatent.chemistry.residues import CHI_PATH, TOKEN
from qfitlatent.structure.preprocess import read_entry

CHI = [f"chi{d}_rad" for d in range(1, 5)]


# A small writer: residues as {"name", "number", "icode", "atoms": [(name, altloc, occ, xyz)]}


def place(number: int) -> dict[str, np.ndarray]:
    """Backbone atoms of residue ``number`` on an extended chain with bonded neighbours."""
    shift = np.array([3.3 * number, 0.0, 0.0])
    flip = -1 if number % 2 else 1
    return {
        "N": np.array([0.0, 0.0, 0.0]) + shift,
        "CA": np.array([1.2, 0.8 * flip, 0.0]) + shift,
        "C": np.array([2.3, -0.1 * flip, 0.2]) + shift,
        "O": np.array([2.3, -1.3 * flip, 0.3]) + shift,
    }


def side_chain(name: str, number: int, chi: list[float]) -> dict[str, np.ndarray]:
    """CB and the chi path beyond it, with these chi angles, bonds of 1.5 and angles of 110."""
    points = place(number)
    cb = points["CA"] + np.array([0.0, 0.6 if number % 2 == 0 else -0.6, 1.4])
    chain = [points["N"], points["CA"], cb]
    for angle in chi:
        a, b, c = chain[-3:]
        bc = (c - b) / np.linalg.norm(c - b)
        normal = np.cross(b - a, bc)
        normal /= np.linalg.norm(normal)
        bend = math.radians(110)
        step = np.array([-math.cos(bend), math.cos(angle) * math.sin(bend), 0.0])
        step[2] = math.sin(angle) * math.sin(bend)
        frame = np.stack([bc, np.cross(normal, bc), normal], axis=1)
        chain.append(c + 1.5 * frame @ step)
    return dict(zip(CHI_PATH[name][2:], chain[2:], strict=False))


def residue(name: str, number: int, icode: str = " ", atoms: list | None = None) -> dict:
    if atoms is None:
        atoms = [(n, "", 1.0, p) for n, p in place(number).items()]
        if CHI_PATH.get(name):
            chi = [1.0] * (len(CHI_PATH[name]) - 3)
            atoms += [(n, "", 1.0, p) for n, p in side_chain(name, number, chi).items()]
    return {"name": name, "number": number, "icode": icode, "atoms": atoms}


def backbone_residue(name: str, number: int, positions: Sequence[np.ndarray]) -> dict:
    """N, CA, C, and O where it is given."""
    names = ("N", "CA", "C", "O")[: len(positions)]
    atoms = [(atom, "", 1.0, p) for atom, p in zip(names, positions, strict=True)]
    return residue(name, number, atoms=atoms)


def structure(chains: dict[str, list[dict]]) -> gemmi.Structure:
    made = gemmi.Structure()
    model = gemmi.Model(1)
    for chain_name, residues in chains.items():
        chain = gemmi.Chain(chain_name)
        for spec in residues:
            new = gemmi.Residue()
            new.name, new.seqid = spec["name"], gemmi.SeqId(spec["number"], spec["icode"])
            new.het_flag = "A" if spec["name"] in (*TOKEN, "UNK") else "H"
            for name, altloc, occupancy, xyz in spec["atoms"]:
                atom = gemmi.Atom()
                atom.name, atom.occ, atom.b_iso = name, occupancy, 10.0
                atom.altloc = altloc or "\0"
                atom.element = gemmi.Element("Se" if name == "SE" else name[0])
                atom.pos = gemmi.Position(*map(float, xyz))
                new.add_atom(atom)
            chain.add_residue(new)
        model.add_chain(chain)
    made.add_model(model)
    made.setup_entities()
    return made


def read(tmp_path, chains, kind="cif", **options):
    path = tmp_path / f"x.{kind}"
    made = structure(chains)
    if kind == "cif":
        made.make_mmcif_document().write_file(str(path))
    else:
        made.write_pdb(str(path))
    return read_entry(path, "x", **options)


def peptide(middle: dict | list[dict], length: int = 5) -> dict[str, list[dict]]:
    """A chain of alanines with ``middle`` at residue 3."""
    middle = middle if isinstance(middle, list) else [middle]
    before = [residue("ALA", i) for i in (1, 2)]
    return {"A": before + middle + [residue("ALA", i) for i in range(4, length + 1)]}


def with_altlocs(name: str, chis: dict[str, tuple[float, list[float]]], number: int = 3) -> dict:
    """A residue with blank backbone and CB, and its chi path beyond CB in these altlocs."""
    atoms = [(n, "", 1.0, p) for n, p in place(number).items()]
    for altloc, (occupancy, chi) in chis.items():
        path = side_chain(name, number, chi)
        atoms += [(n, altloc, occupancy, p) for n, p in path.items() if n != "CB"]
        cb = path["CB"]
    return residue(name, number, atoms=[*atoms, ("CB", "", 1.0, cb)])


def conformers(records) -> list[dict]:
    return records.conformers.to_pylist()


def reasons(records, scope: str | None = None) -> list[str]:
    rows = records.rejected.to_pylist()
    return [row["reason"] for row in rows if scope in (None, row["scope"])]


def row(records, number: int) -> dict:
    return next(r for r in records.residues.to_pylist() if r["author_number"] == number)
