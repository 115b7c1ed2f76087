"""What the scene says before anything is built is what placing then does."""

import csv
from importlib.resources import files

import gemmi
import numpy as np
import pytest

import qfitlatent
from helpers.predictions import TINY, make_model, placement_of
from helpers.simulated import simulator
from qfitlatent.chemistry.building import place_backbone
from qfitlatent.chemistry.residues import MODIFIED, SIDE_CHAIN_ATOMS, TOKEN, parent_name
from qfitlatent.prediction.placing import place_side_chains
from qfitlatent.prediction.scene import Kind, atoms_that_stay, scene_of
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import entry_ids
from qfitlatent.structure.coordinates import open_structure
from qfitlatent.structure.preprocess import read_entry

RAW = ("1aac.pdb.gz", "1us0.pdb.gz", "2hax.pdb.gz", "1a4w.cif.gz")


def one_mode(token):
    return np.ones((len(token), 1)), np.ones((len(token), 1, 4))


def heavy_atoms(structure):
    """Of each heavy atom its residue, its name and where it is; altlocs differ after placing."""
    return {
        (a.chain.name, str(a.residue.seqid), a.residue.name, a.atom.name.upper(), *a.atom.pos)
        for a in structure[0].all()
        if not a.atom.is_hydrogen()
    }


def check(path):
    records = read_entry(path, "x")
    placement = placement_of(records, one_mode)
    structure, _ = open_structure(path)
    scene = scene_of(structure, placement)
    before = heavy_atoms(structure)
    place_side_chains(structure, placement)
    after = heavy_atoms(structure)
    goes = scene.kind == Kind.GOES
    positions = {tuple(x) for x in scene.position[~goes]}
    assert positions == {at[4:] for at in before & after}
    assert (scene.residue[goes] >= 0).all()
    assert ((scene.residue >= 0) == (scene.kind <= Kind.BACKBONE)).all()
    return scene


def test_what_stays_stays_and_what_goes_goes(tmp_path):
    settings = simulator(num_entries=1, mse_fraction=1.0, insertion_code_fraction=1.0)
    (path,) = write_entries(entry_ids(settings), tmp_path, settings, 5)
    scene = check(path)
    assert {Kind.GOES, Kind.BACKBONE, Kind.WATER} <= set(scene.kind.tolist())


@pytest.mark.parametrize("name", RAW)
def test_metals_ligands_and_bonds_of_real_entries(shared_data, name):
    scene = check(shared_data / "raw" / name)
    expected = {"1aac.pdb.gz": Kind.METAL, "1us0.pdb.gz": Kind.LIGAND, "2hax.pdb.gz": Kind.NUCLEIC}
    assert expected.get(name, Kind.LIGAND) in scene.kind
    metal = np.flatnonzero(scene.kind == Kind.METAL)
    assert all(gemmi.Element(int(scene.element[i])).is_metal for i in metal)
    if name == "1aac.pdb.gz":
        # LINK: copper with ND1 of two histidines, SG of cysteine and SD of methionine.
        bound = scene.bond[np.isin(scene.bond, metal).any(axis=1)]
        names = {scene.name[i] for pair in bound for i in pair} - {"CU"}
        assert names >= {"ND1", "SG"}
        length = np.linalg.norm(np.subtract(*scene.position[bound.T]), axis=1)
        assert (length < 3.0).all()


def test_the_formyl_group_of_fme_stays_and_its_side_chain_goes():
    residue = gemmi.Residue()
    residue.name = "FME"
    names = ("N", "CN", "O1", "CA", "CB", "CG", "SD", "CE", "C", "O", "HCN", "HA", "HB2")
    for name in names:
        atom = gemmi.Atom()
        atom.name, atom.element = name, gemmi.Element(name[0])
        residue.add_atom(atom)
    stays = atoms_that_stay(residue, TOKEN["MET"], "")
    goes = {name for name, kept in zip(names, stays, strict=True) if not kept}
    assert goes == {"CB", "CG", "SD", "CE", "HB2"}


def test_whatever_is_read_as_its_parent_is_built_and_the_rest_says_why_not(tmp_path):
    """Protonation states, ends of chains, selenomethionine; a phosphate, a ring and a D residue."""
    with (files("qfitlatent") / "data/residues.csv").open(encoding="utf-8") as file:
        states = [name for row in csv.DictReader(file) for name in row["states"].split()]
    parents = [*MODIFIED, *states, "NLEU", "CVAL", "lys"]
    others = ["SEP", "PCA", "DVA"]
    names = ["GLY", *parents, *others, "GLY"]
    bent = np.deg2rad(np.stack((np.full(len(names), -62.0), np.full(len(names), -42.0))))
    backbone = place_backbone(*bent, np.full(len(names), np.pi))
    structure = gemmi.Structure()
    structure.name = "names"
    structure.add_model(gemmi.Model(1))
    chain = gemmi.Chain("A")
    for number, (name, atoms) in enumerate(zip(names, backbone, strict=True), start=1):
        residue = gemmi.Residue()
        residue.name, residue.seqid = name, gemmi.SeqId(number, " ")
        for called, position in zip(("N", "CA", "C", "O"), atoms, strict=True):
            atom = gemmi.Atom()
            atom.name, atom.element = called, gemmi.Element(called[0])
            atom.pos = gemmi.Position(*position)
            residue.add_atom(atom)
        chain.add_residue(residue)
    structure[0].add_chain(chain)
    predicted = qfitlatent.predict(structure, make_model(tmp_path, **TINY))
    rows = predicted.residues.to_pylist()
    assert [row["name"] for row in rows] == names
    built = {row["name"] for row in rows if row["is_built"]}
    assert built == set(parents)
    for row, residue in zip(rows, predicted.ensemble[0]["A"], strict=True):
        assert residue.name == row["name"]
        if row["is_built"]:
            parent = parent_name(row["name"])
            own = {"SD": "SE"} if row["name"] == "MSE" else {}
            wanted = {own.get(atom, atom) for atom in SIDE_CHAIN_ATOMS[parent]}
            assert {atom.name for atom in residue} == {"N", "CA", "C", "O", *wanted}
            assert not row["note"]
        elif row["name"] != "GLY":
            assert row["note"]
