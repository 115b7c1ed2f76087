"""Predictions beside measurements: figures against scipy, the dummy by hand, what is refused."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from helpers.simulated import simulator
from qfitlatent import cli
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.observables import kinds, kinds_of
from qfitlatent.chemistry.residues import CHI_DEFINED, PI_SYMMETRIC, RESIDUE_TYPES
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.density.observables import observables
from qfitlatent.questions.agreement import agreement, mean_of_others
from qfitlatent.questions.columns import MEASURED as COLUMNS
from qfitlatent.questions.experiment import OPTIONAL, compare_experiment, read_measured
from qfitlatent.questions.named import REQUIRED
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.truth import read_truth

ENTRIES = ("1abc", "2abc", "3abc")
PREDICTED = (
    "entry,chain,index,author_chain,author_number,insertion_code,label_seq,name,quantity,site,"
    "value,unit,error"
)
MEASURED = "entry,author_chain,author_number,name,quantity,site,value"


def rows_of(seed=0):
    """(entry, number, name, site, predicted, measured) of methyls of three proteins."""
    rng = np.random.default_rng(seed)
    for entry, number in itertools.product(ENTRIES, range(1, 13)):
        name, site = (("LEU", "CD1"), ("VAL", "CG1"), ("ILE", "CD1"))[number % 3]
        value = rng.uniform()
        yield entry, number, name, site, value, value + rng.normal(0.0, 0.1)


def write_predictions(folder, rows):
    folder.mkdir(exist_ok=True)
    for entry in ENTRIES:
        lines = [
            f"{e},A,{n},A,{n},,{n},{name},S2,{site},{value},1,"
            for e, n, name, site, value, _ in rows
            if e == entry
        ]
        text = "\n".join([PREDICTED, *lines]) + "\n"
        (folder / f"{entry}.observables.csv").write_text(text)
    return folder


def write_measured(path, rows):
    lines = [f"{e},A,{n},{name},S2,{site},{value}" for e, n, name, site, _, value in rows]
    path.write_text("\n".join([MEASURED, *lines]) + "\n")
    return path


@pytest.fixture
def given_files(tmp_path):
    rows = list(rows_of())
    return write_measured(tmp_path / "s2.csv", rows), write_predictions(tmp_path / "p", rows)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(3, 30), st.booleans())
def test_figures_are_those_of_scipy_whatever_the_order(seed, num, has_ties):
    rng = np.random.default_rng(seed)
    measured, predicted = rng.normal(size=(2, num))
    if has_ties:
        measured, predicted = measured.round(), predicted.round()
    found = agreement(predicted, measured, 50, 1)
    expected = [np.nan, np.nan, np.sqrt(((predicted - measured) ** 2).mean())]
    if np.ptp(predicted) > 0 and np.ptp(measured) > 0:
        expected[0] = stats.pearsonr(predicted, measured).statistic
        expected[1] = stats.spearmanr(predicted, measured).statistic
    np.testing.assert_allclose(found.figures[:, 0], expected, atol=1e-9)
    low, high = found.figures[2, 1:]
    assert low <= high
    order = rng.permutation(num)
    again = agreement(predicted[order], measured[order], 50, 1)
    np.testing.assert_allclose(again.figures[:, 0], expected, atol=1e-9)


def test_the_dummy_knows_the_type_from_other_proteins_alone():
    values = np.array([1.0, 3.0, 5.0, 7.0, 9.0])
    group = np.array([0, 0, 0, 1, 1])
    protein = np.array([0, 0, 1, 1, 1])
    dummy = mean_of_others(values, group, protein)
    np.testing.assert_allclose(dummy, [5.0, 5.0, 2.0, np.nan, np.nan])


def test_order_of_rows_and_names_of_proteins_do_not_matter(given_files, tmp_path):
    measured, predicted = given_files
    compared = compare_experiment(measured, [predicted], tmp_path / "a", 100, 1)
    assert compared.num_unpaired == 0
    assert compared.pairs["dummy"].null_count == 0
    lines = measured.read_text().splitlines()
    measured.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    files = sorted(predicted.glob("*.csv"), reverse=True)
    compare_experiment(measured, files, tmp_path / "b", 100, 1)
    for name in ("experiment.csv", "experiment.pairs.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    for path in (measured, *files):
        path.write_text(path.read_text().replace("abc", "xyz"))
    compare_experiment(measured, files, tmp_path / "c", 100, 1)
    renamed = (tmp_path / "c" / "experiment.csv").read_text().replace("xyz", "abc")
    assert renamed == (tmp_path / "a" / "experiment.csv").read_text()

    figures = compared.figures.to_pylist()
    assert [row["protein"] for row in figures] == 2 * [*ENTRIES, "mean of proteins"]
    mean = figures[3]
    assert mean["rmse"] == pytest.approx(np.mean([row["rmse"] for row in figures[:3]]))
    assert mean["num"] == 36
    assert mean["rmse"] < figures[7]["rmse"]  # the dummy does not know the residue


def test_measurements_without_a_prediction_are_kept_and_counted(given_files, tmp_path):
    measured, predicted = given_files
    with measured.open("a") as file:
        file.write("1abc,B,5,LEU,S2,CD1,0.5\n")
    compared = compare_experiment(measured, [predicted], tmp_path / "out", 10, 1)
    assert (len(compared.pairs), compared.num_unpaired) == (37, 1)
    assert compared.figures["num"].to_pylist()[3] == 36


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("site", "atom"), "lacks the column site"),
        (lambda text: text.replace("S2", "s2", 1), "is S2 meant"),
        (lambda text: text + text.splitlines()[1] + "\n", "twice"),
        (lambda text: text.replace("VAL", "LEU", 1), "number the measurements as"),
        (lambda text: text.replace(",A,", ",Z,"), "No measurement"),
        (lambda text: text.replace("LEU,S2,CD1,0", "LEU,S2,CD1,x0", 1), "no table of numbers"),
        (lambda text: text.splitlines()[0] + "\n", "no measurement"),
        (lambda text: text.splitlines()[0] + "\n1abc,A,2,LEU,S2,CD1,nan\n", "not a finite number"),
        (lambda text: "", "lacks the column entry"),
    ],
)
def test_bad_tables_are_refused_in_a_sentence(given_files, tmp_path, change, said):
    measured, predicted = given_files
    measured.write_text(change(measured.read_text()))
    with pytest.raises(QfitLatentError, match=said) as caught:
        compare_experiment(measured, [predicted], tmp_path / "out", 10, 1)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_the_plan_asks_for_is_what_a_table_cannot_lack():
    assert set(REQUIRED) == {*COLUMNS.names} - {*OPTIONAL}


def test_the_command_says_the_figures_and_refuses_a_folder_without_predictions(
    given_files, tmp_path, capsys
):
    measured, predicted = given_files
    out = ["-o", str(tmp_path / "out"), "--bootstrap-samples", "100"]
    assert cli.main(["compare-experiment", str(measured), str(predicted), *out]) == 0
    assert "| S2 | dummy | 3 | 36 |" in capsys.readouterr().out
    assert cli.main(["compare-experiment", str(measured), str(tmp_path), *out]) == 2
    assert "run `qfitlatent predict" in capsys.readouterr().err


def test_a_simulated_truth_agrees_with_itself(tmp_path):
    """Truth of the simulator stands in for measurements: its own density is right about it."""
    names = [f"sim{n:05d}" for n in range(3)]
    write_entries(names, tmp_path / "sim", simulator(min_residues=40, max_residues=60), 1)
    truth = read_truth(tmp_path / "sim", names).to_pandas()
    measured, predicted = [MEASURED], {name: [PREDICTED] for name in names}
    for (entry, chain, index), own in truth.groupby(["entry", "chain", "index"]):
        token = own["token"].iloc[0]
        mean, kappa = (
            torch.tensor(own[[f"{x}{d}{u}" for d in range(1, 5)]].to_numpy()).nan_to_num()[None]
            for x, u in (("mean", "_rad"), ("kappa", ""))
        )
        masks = (torch.tensor(table[token])[None] for table in (CHI_DEFINED, PI_SYMMETRIC))
        mixture = VonMisesMixture(
            torch.tensor(own["weight"].to_numpy()).log()[None], mean, kappa, *masks
        )
        values = observables(mixture, np.array([token])).values[0]
        for number, value in zip(kinds_of()[token].tolist(), values.tolist(), strict=True):
            if number >= 0:
                what = f"{kinds()[number].quantity},{kinds()[number].site},{value}"
                measured.append(f"{entry},{chain},{index},{RESIDUE_TYPES[token]},{what}")
                place = f"{entry},{chain},{index},{chain},{index},,,{RESIDUE_TYPES[token]}"
                predicted[entry].append(f"{place},{what},1,")
    (tmp_path / "truth.csv").write_text("\n".join(measured) + "\n")
    for name, lines in predicted.items():
        (tmp_path / f"{name}.observables.csv").write_text("\n".join(lines) + "\n")
    assert len(read_measured(tmp_path / "truth.csv")) == len(measured) - 1
    compared = compare_experiment(tmp_path / "truth.csv", [tmp_path], tmp_path, 20, 1)
    for row in compared.figures.to_pylist():
        if row["method"] == "predicted":
            assert row["pearson"] == pytest.approx(1.0, abs=1e-4)
        elif row["protein"] == "mean of proteins":
            assert row["pearson"] < 0.9
