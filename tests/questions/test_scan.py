"""A scan: what must hold whatever the model, files, and bad input in one sentence."""

import gemmi
import numpy as np
import pytest

import qfitlatent
from helpers.browser import check_in_browser, check_self_contained
from helpers.predictions import TINY, make_model, settings_of
from helpers.simulated import simulator
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import NUM_CHI, RESIDUE_TYPES, TOKEN
from qfitlatent.questions.repack import Packing
from qfitlatent.questions.scan import scan_structures
from qfitlatent.questions.scan_columns import SCAN
from qfitlatent.questions.scan_files import SCAN_FILES
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import entry_ids
from qfitlatent.tables.parquet import read_table

PLACES = "A:30-32"
NUMBERS = [
    name for name in SCAN.names if name not in ("entry", "chain", "author_chain", "name", "note")
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return qfitlatent.load_model(make_model(folder, **TINY, neighbours=6))


@pytest.fixture(scope="module")
def structure(tmp_path_factory):
    settings = simulator(num_entries=1, min_residues=24, max_residues=24, max_chains=1)
    path = write_entries(entry_ids(settings), tmp_path_factory.mktemp("made"), settings, 3)[0]
    return gemmi.read_structure(str(path))


@pytest.fixture(scope="module")
def scan(structure, model):
    return qfitlatent.scan(structure, model, residues=PLACES)


def assert_same(one, two, skip=()):
    for name in NUMBERS:
        if name in skip:
            continue
        a, b = one[name].to_pylist(), two[name].to_pylist()
        if isinstance(a[0], float) or name.startswith("chi"):
            a, b = (np.array([np.nan if x is None else x for x in v], float) for v in (a, b))
            np.testing.assert_allclose(a, b, atol=2e-2, err_msg=name)
        else:
            assert a == b, name


def test_every_position_has_every_type_and_one_is_native(scan):
    table = scan.table
    assert len(table) == 3 * len(RESIDUE_TYPES)
    rows = table.to_pylist()
    for first in range(0, len(rows), 20):
        place = rows[first : first + 20]
        assert [row["type"] for row in place] == list(RESIDUE_TYPES)
        (own,) = (row for row in place if row["is_native"])
        assert own["type"] == own["name"]
        changes = ("fit", "neighbour_change", "energy_change", "strain_change", "clash_change")
        assert all(own[name] == 0 for name in changes)
        assert not own["has_no_room"]
        assert max(row["rank"] for row in place) <= 20
        assert sum(row["rank"] == 1 for row in place) >= 1
    for row in rows:
        assert row["fit"] == pytest.approx(row["neighbour_change"] - row["energy_change"], abs=1e-4)
        num_chi = NUM_CHI[TOKEN[row["type"]]]
        assert sum(row[f"chi{d}_rad"] is not None for d in range(1, 5)) == num_chi
        assert (row["entropy"] is None) == (row["fitting_mass"] is None) == (num_chi == 0)
        assert row["fitting_mass"] is None or 0 <= row["fitting_mass"] <= 1
        assert row["num_deposited"] <= row["num_neighbours"]


def test_turning_and_renaming_change_nothing(structure, model, scan):
    other = structure.clone()
    turn = gemmi.Mat33([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    other[0].transform_pos_and_adp(gemmi.Transform(turn, gemmi.Vec3(3, 40, -5)))
    other.cell = gemmi.UnitCell()
    for chain in other[0]:
        chain.name = "Q"
    other.name = "renamed"
    found = qfitlatent.scan(other, model, residues=PLACES.replace("A", "Q")).table
    assert_same(scan.table, found)
    assert set(found["entry"].to_pylist()) == {"renamed"}


def test_order_of_places_and_types_changes_nothing(structure, model, scan):
    some = qfitlatent.scan(structure, model, residues="A:32,A:30", types="trp,GLY").table
    wanted = [
        row
        for row in scan.table.to_pylist()
        if row["author_number"] != 31 and (row["type"] in ("GLY", "TRP") or row["is_native"])
    ]
    assert [row["type"] for row in some.to_pylist()] == [row["type"] for row in wanted]
    for name in ("neighbour_change", "strain_change", "fitting_mass", "entropy"):
        for one, two in zip(some.to_pylist(), wanted, strict=True):
            assert one[name] == pytest.approx(two[name], abs=1e-3)


def test_a_wall_of_ligand_atoms_leaves_large_types_no_room(structure, model):
    crowded = structure.clone()
    chain = crowded[0]["A"]
    residue = next(r for r in chain if r.seqid.num == 31)
    ca = next(atom for atom in residue if atom.name == "CA").pos
    ligand = gemmi.Residue()
    ligand.name, ligand.seqid, ligand.het_flag = "UNL", gemmi.SeqId("900"), "H"
    points = np.random.default_rng(0).normal(size=(300, 3))
    for n, point in enumerate(5.5 * points / np.linalg.norm(points, axis=1)[:, None]):
        atom = gemmi.Atom()
        atom.name, atom.element = f"C{n}", gemmi.Element("C")
        atom.pos = gemmi.Position(*(np.array(ca.tolist()) + point))
        ligand.add_atom(atom)
    chain.add_residue(ligand)
    crowded.setup_entities()
    free = {}
    for words in ("none", "ligands"):
        table = qfitlatent.scan(
            crowded, model, residues="A:31", types="GLY,TRP", surroundings=words
        ).table.to_pylist()
        free[words] = {row["type"]: row for row in table}
    assert free["ligands"]["TRP"]["strain"] > free["none"]["TRP"]["strain"] + 3
    assert free["ligands"]["TRP"]["has_no_room"] or free["ligands"]["TRP"]["fitting_mass"] < 0.5
    assert free["ligands"]["GLY"]["strain"] == 0


def test_fixed_side_chains_stay_and_are_met(structure, model):
    fixed = qfitlatent.scan(structure, model, residues="A:31", types="TRP", fix="all")
    seen = {row["what"]: row for row in fixed.seen.to_pylist()}
    assert seen["kept residue"]["num_used"] > 0
    other = qfitlatent.scan(structure, model, residues="A:31", types="TRP")
    assert "kept residue" not in {row["what"] for row in other.seen.to_pylist()}


def test_files_are_what_the_object_writes_and_go_on(structure, model, scan, tmp_path):
    path = tmp_path / "in" / "made.cif"
    path.parent.mkdir()
    structure.make_mmcif_document().write_file(str(path))
    settings = settings_of(residues=PLACES, workers=0)
    out = tmp_path / "out"
    (done,) = scan_structures([path.parent], out, model, settings, {"types": "ALA,TRP"})
    assert done.num_residues == 3
    written = sorted(p.name for p in out.iterdir())
    assert written == sorted(f"made{suffix}" for suffix in SCAN_FILES)
    table = read_table(out / "made.scan.parquet")
    assert table.schema.names == SCAN.names
    check_self_contained((out / "made.scan.html").read_text())
    (again,) = scan_structures(
        [path.parent], out, model, settings, {"types": "ALA,TRP"}, resume=True
    )
    assert again.notes == ("done before",)
    with pytest.raises(QfitLatentError, match="exists already"):
        scan_structures([path], out, model, settings)
    names = [p.name.split(".", 1)[1] for p in scan.write(tmp_path / "two")]
    assert sorted(names) == sorted(suffix[1:] for suffix in SCAN_FILES)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"types": "XYZ"}, "'XYZ', which is no residue type"),
        ({"residues": "A:900"}, "no residue A:900"),
        ({"mutate": "A:31:LEU"}, "leave out --mutate"),
        ({"region": 2}, "scan.region"),
        ({"surroundings": "everything"}, "'everything', which is none of"),
    ],
)
def test_bad_input_is_one_sentence(structure, model, given, says):
    with pytest.raises(QfitLatentError, match=says):
        qfitlatent.scan(structure, model, **given)


def test_positions_that_cannot_be_changed_are_left_out_with_their_reason(structure, model):
    other = structure.clone()
    residue = next(r for r in other[0]["A"] if r.seqid.num == 31)
    del residue[[atom.name for atom in residue].index("N")]
    scan = qfitlatent.scan(other, model, residues="A:31-32", types="ALA")
    assert len(scan.left_out) == 1
    assert "it lacks N, CA or C" in scan.left_out[0]
    with pytest.raises(QfitLatentError, match=r"no position to scan: A/.* lacks N, CA or C"):
        qfitlatent.scan(other, model, residues="A:31", types="ALA")


def test_what_neighbours_do_by_themselves_is_the_same_worked_out_once(
    structure, model, scan, monkeypatch
):
    monkeypatch.setattr(Packing, "_may_bond", lambda *_: True)
    found = qfitlatent.scan(structure, model, residues=PLACES).table
    for name in ("energy_change", "strain", "strain_change", "fitting_mass"):
        one, two = (np.array(table[name].to_pylist(), dtype=float) for table in (scan.table, found))
        np.testing.assert_allclose(one, two, atol=1e-2, err_msg=name)


def test_a_residue_alone_is_scanned(structure, model):
    alone = structure.clone()
    chain = alone[0]["A"]
    for n in reversed(range(len(chain))):
        if chain[n].seqid.num != 31:
            del chain[n]
    table = qfitlatent.scan(alone, model, types="ALA,TRP").table.to_pylist()
    assert {row["num_neighbours"] for row in table} == {0}
    assert all(row["strain"] == row["neighbour_change"] == 0 for row in table)


def test_the_page_opens_on_desk_phone_and_paper(scan, tmp_path):
    scan.write(tmp_path)
    check_in_browser(tmp_path / f"{scan.entry}.scan.html")
