"""What --residues, --fix and --mutate name is built anew; everything else stands where it did."""

import csv

import gemmi
import numpy as np
import pytest
from scipy import integrate, special

from helpers.predictions import TINY, make_model, settings_of
from helpers.simulated import simulator
from qfitlatent import cli
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.building import chi_depth
from qfitlatent.chemistry.residues import NUM_CHI, RESIDUE_TYPES, SIDE_CHAIN_ATOMS, TOKEN
from qfitlatent.prediction.confidence import RIGHT_RADIANS, confidence, interval_mass
from qfitlatent.prediction.predict import predict_structures
from qfitlatent.prediction.sample import sample_structures
from qfitlatent.prediction.scene import BACKBONE_NAMES
from qfitlatent.prediction.selection import choice_of
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import entry_ids
from qfitlatent.structure.coordinates import open_structure


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"), **TINY)


@pytest.fixture(scope="module")
def structure(tmp_path_factory):
    settings = simulator(num_entries=1, min_residues=24, max_residues=24, max_chains=1)
    return write_entries(entry_ids(settings), tmp_path_factory.mktemp("made"), settings, 3)[0]


def predicted(structure, model, out, **settings):
    predict_structures([structure], out, model, settings_of(**settings), overwrite=True)
    return gemmi.read_structure(str(out / f"{structure.name.split('.')[0]}_ensemble.cif"))


def side_chains(structure):
    """Atoms beyond the backbone of each residue of the first chain, by its number."""
    return {
        str(r.seqid): sorted(
            (a.name, a.altloc, *(round(x, 2) for x in a.pos))
            for a in r
            if a.name not in BACKBONE_NAMES
        )
        for r in structure[0][0].get_polymer()
    }


def places(structure):
    """Numbers of the residues of the first chain that have chi."""
    chain = structure[0][0].get_polymer()
    return [str(r.seqid) for r in chain if r.name in TOKEN and NUM_CHI[TOKEN[r.name]]]


def test_only_what_is_named_is_built(structure, model, tmp_path):
    before, _ = open_structure(structure)
    chain, (first, second, *_) = before[0][0].name, places(before)
    after = side_chains(predicted(structure, model, tmp_path, residues=f"{chain}:{first}"))
    was = side_chains(before)
    assert [n for n in was if was[n] != after[n]] == [first]
    both = f"{chain}:{first}-{second}"
    after = side_chains(predicted(structure, model, tmp_path, residues=both))
    changed = [n for n in was if was[n] != after[n]]
    assert {first, second} <= set(changed)
    assert len(changed) < 6
    table = (tmp_path / f"{structure.name.split('.')[0]}.residues.csv").read_text()
    assert "its atoms are kept, as asked" in table


def test_fixed_side_chains_stay_and_incomplete_ones_are_built(structure, model, tmp_path):
    before, _ = open_structure(structure)
    chain, (first, second, *_) = before[0][0].name, places(before)
    was = side_chains(before)
    after = side_chains(predicted(structure, model, tmp_path, fix=f"{chain}:{first}"))
    assert after[first] == was[first]
    assert after[second] != was[second]
    trimmed = before.clone()
    for residue in trimmed[0][0]:
        if str(residue.seqid) == second:
            residue.trim_to_alanine()
    path = tmp_path / "trimmed.pdb"
    path.write_text(trimmed.make_pdb_string())
    again = predicted(path, model, tmp_path, fix="all")
    built = side_chains(again)
    assert len(built[second]) >= len(SIDE_CHAIN_ATOMS[again[0][0].get_polymer()[0].name]) - 9
    assert built[second] != side_chains(trimmed)[second]
    assert built[first] == was[first]


def test_a_changed_type_is_predicted_built_and_declared(structure, model, tmp_path):
    before, _ = open_structure(structure)
    chain, (first, *_) = before[0][0].name, places(before)
    was = side_chains(before)
    old = next(r.name for r in before[0][0] if str(r.seqid) == first)
    new = "TRP" if old != "TRP" else "LEU"
    after = predicted(structure, model, tmp_path, mutate=f"{chain}:{first}:{new}")
    residue = next(r for r in after[0][0] if str(r.seqid) == first)
    assert residue.name == new
    assert {a.name for a in residue if a.name not in BACKBONE_NAMES} == {*SIDE_CHAIN_ATOMS[new]}
    assert after.entities[0].full_sequence[residue.label_seq - 1] == new
    now = side_chains(after)
    unchanged = [n for n in was if n != first and was[n] == now[n]]
    assert unchanged, "what is far away stays"
    pdb = gemmi.read_structure(str(tmp_path / f"{structure.name.split('.')[0]}_ensemble.pdb"))
    assert new in pdb.entities[0].full_sequence
    alone = predicted(
        structure, model, tmp_path, mutate=f"{chain}:{first}:GLY", residues=f"{chain}:{first}"
    )
    residue = next(r for r in alone[0][0] if str(r.seqid) == first)
    assert all(a.name in BACKBONE_NAMES for a in residue)


def test_draws_keep_what_is_fixed(structure, model, tmp_path):
    before, _ = open_structure(structure)
    chain, (first, second, *_) = before[0][0].name, places(before)
    settings = settings_of(residues=f"{chain}:{second}")
    sample_structures([structure], tmp_path, model, settings, num=2)
    name = structure.name.split(".")[0]
    drawn = gemmi.read_structure(str(tmp_path / f"{name}_samples.cif"))
    assert len(drawn) == 2
    was = side_chains(before)
    for one in drawn:
        alone = gemmi.Structure()
        alone.add_model(one)
        alone.setup_entities()
        assert side_chains(alone)[first] == was[first]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"residues": "A:x"}, "is no residue: write chain, number"),
        ({"residues": "A:9-5"}, "ends before it begins"),
        ({"residues": "A:1,,B"}, "separated by commas"),
        ({"mutate": "A:45:XYZ"}, "ends in no residue type"),
        ({"mutate": "A:45-46:LEU"}, "names no single residue"),
        ({"mutate": "A:LEU"}, "names no single residue"),
    ],
)
def test_a_text_that_names_nothing_is_one_sentence(settings, words):
    with pytest.raises(QfitLatentError, match=words):
        choice_of(settings_of(**settings))


def test_residues_that_are_not_there_are_one_sentence(structure, model, tmp_path, capsys):
    how = ["predict", str(structure), "-o", str(tmp_path / "out"), "--model", str(model)]
    chain = open_structure(structure)[0][0][0].name
    for given, words in (
        (["--residues", "nowhere:1"], "has no residue nowhere:1 of --residues: its protein chains"),
        (["--residues", f"{chain}:9000"], f"chain {chain} has residues"),
        (["--mutate", f"{chain}:9000:LEU"], "of --mutate"),
    ):
        assert cli.main([*how, *given]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


# --- Confidence -------------------------------------------------------------------------------


@pytest.mark.parametrize("kappa", [0.01, 1.0, 30.0, 49.9, 50.1, 1e3, 1e5])
@pytest.mark.parametrize("away", [0.0, 0.5, 0.75, 2.0, 3.1])
def test_the_mass_near_a_point_is_that_of_the_kernel(kappa, away):
    def density(x):
        return np.exp(-2 * kappa * np.sin(x / 2) ** 2) / (2 * np.pi * special.i0e(kappa))

    low, high = away - RIGHT_RADIANS, away + RIGHT_RADIANS
    peaks = [p for p in (0.0, 2 * np.pi) if low < p < high]
    expected, _ = integrate.quad(density, low, high, points=peaks or None, limit=500)
    assert interval_mass(np.array(away), np.array(kappa)) == pytest.approx(expected, abs=1e-5)


def test_confidence_falls_along_the_side_chain_and_knows_symmetry():
    token = np.array([TOKEN["LYS"], TOKEN["PHE"], TOKEN["PHE"], TOKEN["GLY"]])
    rng = np.random.default_rng(1)
    weight = rng.dirichlet(np.ones(3), size=4)
    mean, kappa = rng.uniform(-3, 3, (4, 3, 4)), rng.uniform(1, 50, (4, 3, 4))
    chi = mean[:, 0].copy()
    weight[2], mean[2], kappa[2] = weight[1], mean[1], kappa[1]
    chi[2] = chi[1] + [0, np.pi, 0, 0]
    sure = confidence(weight, mean, kappa, token, chi)
    assert (np.diff(sure, axis=1) <= 1e-12).all()
    assert ((sure >= 0) & (sure <= 1)).all()
    np.testing.assert_allclose(sure[1], sure[2])
    np.testing.assert_allclose(sure[3], 1.0)


def test_atoms_hang_on_the_chi_that_turn_them():
    depth = chi_depth()
    for name, expected in {
        "LYS": [0, 1, 2, 3, 4],
        "TYR": [0, 1, 2, 2, 2, 2, 2, 2],
        "VAL": [0, 1, 1],
        "ILE": [0, 1, 1, 2],
    }.items():
        assert depth[TOKEN[name], : len(expected)].tolist() == expected
    for token, name in enumerate(RESIDUE_TYPES):
        assert depth[token].max() == (NUM_CHI[token] if SIDE_CHAIN_ATOMS[name] else 0), name


def test_truncated_side_chains_end_where_confidence_does(structure, model, tmp_path):
    whole = predicted(structure, model, tmp_path, min_weight=1.0)
    short = predicted(structure, model, tmp_path, min_weight=1.0, truncate=True, min_confidence=1.0)
    for residue, full in zip(short[0][0], whole[0][0], strict=True):
        if residue.name in TOKEN and NUM_CHI[TOKEN[residue.name]]:
            assert {a.name for a in residue} - BACKBONE_NAMES == {"CB"}
            assert len(full) > len(residue)


def test_confidence_in_the_b_column_is_that_of_the_table(structure, model, tmp_path):
    after = predicted(structure, model, tmp_path, b_factors="confidence")
    table = tmp_path / f"{structure.name.split('.')[0]}.residues.csv"
    rows = csv.DictReader(x for x in table.read_text().splitlines() if not x.startswith("#"))
    known = {r["author_number"] + r["insertion_code"]: r["confidence"] for r in rows}
    for residue in after[0][0].get_polymer():
        value = known[str(residue.seqid)]
        expected = 100 * float(value) if value else 100.0
        assert all(a.b_iso == pytest.approx(expected, abs=0.01) for a in residue)
    block = gemmi.cif.read(
        str(tmp_path / f"{structure.name.split('.')[0]}_ensemble.cif")
    ).sole_block()
    local = block.find("_ma_qa_metric_local.", ["label_seq_id", "metric_value"])
    assert len(local) == sum(bool(value) for value in known.values())
