"""Unit cells that are none, molecules far from each other: all is predicted, nothing crashes."""

import gemmi
import pytest

import qfitlatent
from helpers.ensembles import simulated, write_cif, write_pdb
from helpers.predictions import TINY, make_model, settings_of
from qfitlatent.structure.crystal import is_possible, neighbour_search

IMPOSSIBLE = {
    "flat": (60, 60, 60, 180, 180, 180),
    "round": (60, 60, 60, 360, 90, 90),
    "apart": (60, 60, 60, 30, 30, 90),
    "nearly_flat": (60, 60, 60, 120, 120, 119.999),
    "below_zero": (-1, 0, 60, 90, 90, 90),
    "small": (0.1, 60, 60, 90, 90, 90),
    "one": (1, 1, 1, 90, 90, 90),
    "zeros": (0, 0, 0, 0, 0, 0),
    "sharp": (60, 60, 60, -90, 90, 90),
    "long": (99999, 60, 60, 90, 90, 90),
}


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    """A simulated structure with waters, whose cell is to be changed."""
    return simulated(tmp_path_factory.mktemp("one"), num_residues=20)


@pytest.mark.parametrize("ending", ["pdb", "cif"])
def test_a_cell_that_is_none_costs_nobody_the_prediction(entry, ending, tmp_path):
    (tmp_path / "in").mkdir()
    changed = entry.clone()
    changed.spacegroup_hm = "P 21 21 21"
    for name, cell in IMPOSSIBLE.items():
        changed.cell = gemmi.UnitCell(60, 60, 60, 90, 90, 90)
        write = write_pdb if ending == "pdb" else write_cif
        path = write(changed, tmp_path / "in" / f"{name}.{ending}")
        text = path.read_text()
        if ending == "pdb":
            start = text.index("CRYST1")
            record = "CRYST1" + "{:9.3f}{:9.3f}{:9.3f}{:7.2f}{:7.2f}{:7.2f}".format(*cell)
            text = text[:start] + record + text[start + len(record) :]
        else:
            edges, angles = ("a", "b", "c"), ("alpha", "beta", "gamma")
            parts = [f"length_{x}" for x in edges] + [f"angle_{x}" for x in angles]
            for part, value in zip(parts, cell, strict=True):
                start = text.index(f"_cell.{part}")
                end = text.index("\n", start)
                text = f"{text[:start]}_cell.{part} {value}{text[end:]}"
        path.write_text(text)
    settings = settings_of(surroundings="all")
    model = make_model(tmp_path, head="autoregressive", **TINY)
    done = qfitlatent.predict_files(tmp_path / "in", tmp_path / "out", model, settings)
    assert {result.entry: result.error for result in done} == dict.fromkeys(IMPOSSIBLE, "")
    for name in IMPOSSIBLE:
        written = gemmi.read_structure(str(tmp_path / "out" / f"{name}_ensemble.cif"))
        assert not written.cell.is_crystal()


def test_cells_of_crystals_are_possible():
    for cell in [
        (60, 60, 60, 90, 90, 90),
        (4.9, 9.5, 16.1, 90, 104, 90),
        (1700, 1700, 1700, 60, 60, 60),
        (50, 60, 70, 70, 80, 109),
    ]:
        assert is_possible(gemmi.UnitCell(*cell))


@pytest.mark.parametrize("cell", [(9000, 9000, 9000, 90, 90, 90), None])
def test_a_search_takes_no_memory_for_empty_space(entry, cell):
    structure = entry.clone()
    structure.cell = gemmi.UnitCell(*cell) if cell else gemmi.UnitCell()
    away = structure[0][0].clone()
    away.name = "Z"
    for residue in away:
        for atom in residue:
            atom.pos += gemmi.Position(8000, 8000, 8000)
    structure[0].add_chain(away)
    search = neighbour_search(structure, 2.8)
    search.populate()  # in parts of 2.8 angstrom it would take gigabytes
    position = away[0][0].pos
    every = [atom.pos for chain in structure[0] for residue in chain for atom in residue]
    near = sum(position.dist(other) < 2.8 for other in every)
    assert len(search.find_atoms(position, "\0", radius=2.8)) == near > 1
