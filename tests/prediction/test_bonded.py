"""Bonds that the joint step makes are bonds of the written model, named in the input or not."""

import gemmi
import numpy as np
import pytest

import qfitlatent
from helpers import peptides
from helpers.crowded import bonded_cysteines
from helpers.peptides import backbone_residue
from helpers.predictions import TINY, make_model
from qfitlatent.chemistry.building import place_atom
from qfitlatent.prediction.bonded import add_bonds


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"), **TINY)


def two_cysteines():
    """Each with a glycine behind it and no side chain, where a disulfide is possible."""
    backbones = bonded_cysteines()
    chains = {}
    for k, name in enumerate("AB"):
        n, ca = backbones.nitrogen[k], backbones.translation[k]
        c = ca + backbones.rotation[k] @ np.array([1.525, 0.0, 0.0])
        next_n = place_atom(n, ca, c, 1.33, np.deg2rad(116.6), np.array(2.4))
        next_ca = place_atom(ca, c, next_n, 1.46, np.deg2rad(121.7), np.array(np.pi))
        next_c = place_atom(c, next_n, next_ca, 1.525, np.deg2rad(111.0), np.array(-1.5))
        chains[name] = [
            backbone_residue("CYS", 10 + k, (n, ca, c)),
            backbone_residue("GLY", 20, (next_n, next_ca, next_c)),
        ]
    made = peptides.structure(chains)
    made.name = "bonded"
    return made


def add_zinc(structure, at):
    atom = gemmi.Atom()
    atom.name, atom.element, atom.pos = "ZN", gemmi.Element("Zn"), at
    residue = gemmi.Residue()
    residue.name, residue.seqid, residue.het_flag = "ZN", gemmi.SeqId(1, " "), "H"
    residue.add_atom(atom)
    chain = gemmi.Chain("Z")
    chain.add_residue(residue)
    structure[0].add_chain(chain)


def test_a_new_disulfide_is_written(model, tmp_path):
    paths = qfitlatent.predict(two_cysteines(), model).write(tmp_path)
    pdb, cif = (next(p for p in paths if p.name == f"bonded_ensemble{e}") for e in (".pdb", ".cif"))
    (line,) = [line for line in pdb.read_text().splitlines() if line.startswith("SSBOND")]
    assert line[:35].split() == ["SSBOND", "1", "CYS", "A", "10", "CYS", "B", "11"]
    assert float(line[73:78]) == pytest.approx(2.05, abs=0.1)
    block = gemmi.cif.read(str(cif)).sole_block()
    table = block.find(
        "_struct_conn.",
        ["conn_type_id", "ptnr1_label_asym_id", "ptnr1_label_seq_id", "ptnr1_label_atom_id",
         "ptnr2_label_asym_id", "ptnr2_label_seq_id", "ptnr2_auth_seq_id"],
    )  # fmt: skip
    (row,) = table
    assert row[0] == "disulf"
    assert "?" not in list(row)
    assert row[3] == "SG"
    assert row[6] == "11"


def test_a_cysteine_that_binds_a_metal_is_linked_to_it(model):
    structure = two_cysteines()
    del structure[0]["B"]
    free = qfitlatent.predict(structure, model).ensemble[0]["A"][0]
    cb, sg = (free.find_atom(name, "*").pos for name in ("CB", "SG"))
    away = np.cross((sg - cb).tolist(), [0.0, 0.0, 1.0])
    away *= np.sin(np.deg2rad(107.0)) / np.linalg.norm(away)
    along = -np.cos(np.deg2rad(107.0)) * np.array((sg - cb).tolist()) / cb.dist(sg)
    add_zinc(structure, sg + gemmi.Position(*(2.25 * (away + along))))
    (bond,) = qfitlatent.predict(structure, model).ensemble.connections
    assert bond.type == gemmi.ConnectionType.MetalC
    assert {bond.partner1.atom_name, bond.partner2.atom_name} == {"SG", "ZN"}
    assert bond.reported_distance == pytest.approx(2.25, abs=0.2)


def test_a_charge_beside_a_metal_is_no_bond():
    """A guanidinium as near as a bond, which the joint step could not avoid."""
    structure = gemmi.Structure()
    structure.add_model(gemmi.Model(1))
    chain, residue = gemmi.Chain("A"), gemmi.Residue()
    residue.name, residue.seqid, residue.subchain = "ARG", gemmi.SeqId(5, " "), "A"
    for name, x in (("NH1", 0.0), ("NH2", 9.0)):
        atom = gemmi.Atom()
        atom.name, atom.element, atom.pos = name, gemmi.Element("N"), gemmi.Position(x, 0, 0)
        residue.add_atom(atom)
    chain.add_residue(residue)
    structure[0].add_chain(chain)
    add_zinc(structure, gemmi.Position(0.0, 2.1, 0.0))
    add_bonds(structure, [("A", 5, "", "ARG", None)])
    assert len(structure.connections) == 0
    residue = structure[0]["A"][0]
    residue.name, residue[0].name = "HIS", "NE2"
    add_bonds(structure, [("A", 5, "", "HIS", None)])
    add_bonds(structure, [("A", 5, "", "HIS", None)])
    assert [bond.name for bond in structure.connections] == ["metalc1"]  # once
