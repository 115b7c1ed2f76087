"""Two structures side by side: what turning, renaming and exchanging them must not change."""

import math

import gemmi
import numpy as np
import pytest

import qfitlatent
from helpers.browser import check_in_browser, check_self_contained
from helpers.ensembles import several, simulated, write_cif, write_pdb
from helpers.predictions import TINY, make_model
from qfitlatent.base import config
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import NUM_CHI, TOKEN
from qfitlatent.cli import main
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.prediction.records import read_input
from qfitlatent.questions import differences as module
from qfitlatent.questions.compare import SUFFIXES
from qfitlatent.questions.differences import DIFFERENCES, Thresholds, differences
from qfitlatent.questions.populations import Populations
from qfitlatent.questions.wells import NUM_WELLS, WELL_NAMES
from qfitlatent.tables.parquet import read_table


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return qfitlatent.load_model(make_model(tmp_path_factory.mktemp("model"), **TINY))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two models of one protein, each in a file, and both sets of five in one."""
    folder = tmp_path_factory.mktemp("structures")
    both = several(simulated(folder / "made"), 2, 0.4)
    for name, i in (("a", 0), ("b", 1)):
        one = both.clone()
        del one[:]
        one.add_model(both[i].clone())
        one[0].num = 1
        write_cif(one, folder / f"{name}.cif")
        write_pdb(several(one, 5, 0.2, seed=i), folder / f"{name}_set.pdb")
    write_cif(simulated(folder / "other", seed=8), folder / "other.cif")
    return folder


NUMBERS = [field.name for field in DIFFERENCES if str(field.type) == "float"]


def numbers(comparison, *names):
    table = comparison.differences
    return [table[name].to_numpy().astype(float) for name in names]


def same(one, two, atol=1e-5):
    assert one.differences["decision"].to_pylist() == two.differences["decision"].to_pylist()
    for name in NUMBERS:
        a, b = *numbers(one, name), *numbers(two, name)
        assert np.allclose(a, b, atol=atol, equal_nan=True), name


def test_identical_structures_do_not_differ(files, model):
    comparison = qfitlatent.compare_structures(files / "a.cif", files / "a.cif", model)
    assert set(comparison.counts) <= {"no difference", "no chi", "no side chain"}
    for name in ("predicted_change", "predicted_distance", "observed_distance"):
        assert np.nanmax(np.abs(numbers(comparison, name)[0])) == 0.0
    low, high = numbers(comparison, "predicted_change_low", "predicted_change_high")
    assert np.nanmax(low) <= 0
    assert np.nanmin(high) >= 0


def test_exchanging_the_two_changes_signs_alone(files, model):
    there = qfitlatent.compare_structures(files / "a.cif", files / "b.cif", model)
    back = qfitlatent.compare_structures(files / "b.cif", files / "a.cif", model)
    assert there.counts == back.counts
    for one, two, sign in (
        ("predicted_change", "predicted_change", -1),
        ("predicted_change_low", "predicted_change_high", -1),
        ("observed_change", "observed_change", -1),
        ("predicted_a", "predicted_b", 1),
        ("predicted_distance", "predicted_distance", 1),
        ("share", "share", 1),
        ("share_low", "share_low", 1),
        ("wasserstein1_degrees", "wasserstein1_degrees", 1),
    ):
        (a,), (b,) = numbers(there, one), numbers(back, two)
        assert np.allclose(a, sign * b, atol=1e-5, equal_nan=True), one


def turned(structure):
    """Turned, moved, and called otherwise."""
    made = structure.clone()
    turn = gemmi.Transform()
    turn.mat.fromlist([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
    turn.vec.fromlist([10.0, -40.0, 7.0])
    made[0].transform_pos_and_adp(turn)
    made[0][0].name = "Q"
    for residue in made[0][0]:
        residue.seqid.num += 100
        residue.subchain = "Q"
    made.entities = gemmi.EntityList()
    made.setup_entities()
    return made


def test_turning_and_renaming_change_nothing(files, model):
    there = qfitlatent.compare_structures(files / "a.cif", files / "b.cif", model)
    write_cif(turned(gemmi.read_structure(str(files / "b.cif"))), files / "turned.cif")
    again = qfitlatent.compare_structures(files / "a.cif", files / "turned.cif", model)
    # A point of a density may cross the border of a well by the rounding of coordinates.
    same(there, again, atol=0.05)
    assert set(again.differences["author_chain_b"].to_pylist()) == {"Q"}


def test_the_order_of_the_members_of_a_set_does_not_matter(files, model, tmp_path):
    comparison = qfitlatent.compare_structures(files / "a_set.pdb", files / "b_set.pdb", model)
    assert len(comparison.about["structures_a"]) == 5
    for name in "ab":
        made = gemmi.read_structure(str(files / f"{name}_set.pdb"))
        models = [made[i].clone() for i in (0, 3, 4, 1, 2)]
        del made[:]
        for number, one in enumerate(models, start=1):
            one.num = number
            made.add_model(one)
        write_pdb(made, tmp_path / f"{name}_set.pdb")
    again = qfitlatent.compare_structures(tmp_path / "a_set.pdb", tmp_path / "b_set.pdb", model)
    same(comparison, again)


LIMITS = config.settings(Thresholds, "compare_structures")


def by_hand(files, wells, observed, jitter=0.02):
    """Populations of the structure: residue by residue a predicted share of its first two wells.

    wells and observed (N,2); the predicted shares scatter so over six backbones.
    """
    given = read_input(files / "a.cif")
    protein = protein_from_tables(given.tables)
    made = Populations("made", given, protein)
    num, rng = len(made.token), np.random.default_rng(0)
    for scatter in rng.normal(scale=jitter, size=6):
        made.num += 1
        share = np.zeros((num, NUM_WELLS))
        share[:, :2] = np.clip(wells + np.array([scatter, -scatter]), 0, 1)
        shown = np.zeros((num, NUM_WELLS))
        shown[:, :2] = observed
        made.predicted.add(1 / 6, share)
        made.observed.add(1 / 6, shown)
        made._histogram += 1 / 6 / made._histogram.shape[-1]
        made._total += 1 / 6
    return made


@pytest.mark.parametrize(
    ("predicted", "observed", "decision", "share"),
    [
        (([0.9, 0.1], [0.2, 0.8]), ([1, 0], [0, 1]), "explained", 0.7),
        (([0.9, 0.1], [0.88, 0.12]), ([1, 0], [0, 1]), "not explained", 0.02),
        (([0.2, 0.8], [0.9, 0.1]), ([1, 0], [0, 1]), "not explained", -0.7),
        (([0.9, 0.1], [0.2, 0.8]), ([1, 0], [1, 0]), "not observed", math.nan),
        (([0.9, 0.1], [0.88, 0.12]), ([1, 0], [0.9, 0.1]), "no difference", math.nan),
    ],
)
def test_decisions_are_those_of_the_thresholds(files, predicted, observed, decision, share):
    a, b = (
        by_hand(files, np.array(wells), np.array(shown))
        for wells, shown in zip(predicted, observed, strict=True)
    )
    table = differences(a, b, LIMITS)
    for row in table.to_pylist():
        if row["rotamer"]:
            assert row["decision"] == decision, row
            found = math.nan if row["share"] is None else row["share"]
            assert found == pytest.approx(share, abs=0.01, nan_ok=True)
            assert row["rotamer"] in WELL_NAMES[TOKEN[row["name_a"]]][:2]
        else:
            assert row["decision"] == "no chi"


@pytest.mark.parametrize(("jitter", "decision"), [(0.02, "explained"), (0.9, "not explained")])
def test_what_scatters_explains_nothing(files, jitter, decision):
    a = by_hand(files, np.array([0.65, 0.35]), np.array([1, 0]), jitter)
    b = by_hand(files, np.array([0.3, 0.7]), np.array([0, 1]), jitter)
    assert set(differences(a, b, LIMITS)["decision"].to_pylist()) == {decision, "no chi"}


def test_other_types_are_shown_and_not_compared(files, model, tmp_path):
    structure = gemmi.read_structure(str(files / "b.cif"))
    place = next(
        i for i, x in enumerate(structure[0][0]) if NUM_CHI[TOKEN.get(x.name, 20)] > 1 and i > 3
    )
    residue = structure[0][0][place]
    name = residue.name
    residue.name = "ALA"
    for atom in [x.name for x in residue if x.name not in ("N", "CA", "C", "O", "CB")]:
        residue.remove_atom(atom, "\0")
    structure.entities = gemmi.EntityList()
    structure.setup_entities()
    write_cif(structure, tmp_path / "mutant.cif")
    table = qfitlatent.compare_structures(files / "a.cif", tmp_path / "mutant.cif", model)
    row = table.differences.to_pylist()[place]
    assert (row["name_a"], row["name_b"]) == (name, "ALA")
    assert row["decision"] == "another type"
    assert row["predicted_change"] is None
    residues = read_input(files / "a.cif").tables["residues"]
    assert table.differences["name_a"].to_pylist() == residues["name"].to_pylist()


def test_files_and_page_hold_the_table(files, model, tmp_path):
    comparison = qfitlatent.compare_structures(files / "a.cif", files / "b.cif", model)
    written = comparison.write(tmp_path / "out")
    assert [path.name for path in written] == [f"a_b{suffix}" for suffix in SUFFIXES]
    assert read_table(written[0]).equals(comparison.differences)
    assert all(field.metadata[b"description"] for field in read_table(written[0]).schema)
    text = written[2].read_text("utf-8")
    check_self_contained(text)
    check_in_browser(written[2])
    for decision, num in comparison.counts.items():
        if decision in (module.NO_DIFFERENCE, module.EXPLAINED, module.NOT_EXPLAINED):
            assert f'<td data-label="residues">{num}</td>' in text
    with pytest.raises(QfitLatentError, match="exists already"):
        comparison.write(tmp_path / "out")
    assert comparison.write(tmp_path / "out", overwrite=True) == written


def test_what_cannot_be_compared_is_one_sentence(files, model, tmp_path, capsys):
    with pytest.raises(QfitLatentError, match="give structures of one protein"):
        qfitlatent.compare_structures(files / "a.cif", files / "other.cif", model)
    both = [files / "a.cif", files / "other.cif"]
    with pytest.raises(QfitLatentError, match="give structures of one protein"):
        qfitlatent.compare_structures(both, files / "b.cif", model)
    with pytest.raises(QfitLatentError, match="There is no file"):
        qfitlatent.compare_structures(files / "a.cif", "nowhere.pdb", model)
    with pytest.raises(QfitLatentError, match="explained_from"):
        qfitlatent.compare_structures(files / "a.cif", files / "b.cif", model, explained_from=2)
    made = make_model(tmp_path, **TINY)
    command = ["compare-structures", str(files / "a.cif"), str(files / "b.cif")]
    assert main([*command, "--model", str(made), "-o", str(tmp_path / "out")]) == 0
    assert "aligned residues" in capsys.readouterr().out
    assert main([*command, "--model", str(made), "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") >= 1
