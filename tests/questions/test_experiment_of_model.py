"""A model beside measurements: what is left out and counted, and tables that do not fit."""

from dataclasses import replace
from shutil import copy

import pandas as pd
import pytest

from helpers.predictions import TINY, make_model, settings_of
from helpers.simulated import simulator
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json
from qfitlatent.model.checkpoint import load_model
from qfitlatent.model.learnt import Learnt
from qfitlatent.prediction.predict import predict_structures
from qfitlatent.questions.experiment import compare_experiment
from qfitlatent.questions.experiment_of_model import compare_model
from qfitlatent.questions.named import REQUIRED, named_files
from qfitlatent.simulate.entry import write_entries

FILES = ("experiment.csv", "experiment.pairs.csv")
NAMES = ("s1", "s2", "s3")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Structures, a model, its predictions, and a table of measurements near to them."""
    folder = tmp_path_factory.mktemp("of_model")
    paths = write_entries(
        ["sim00001", "sim00002", "sim00003"],
        folder / "made",
        simulator(min_residues=20, max_residues=25),
        1,
    )
    (folder / "in").mkdir()
    for path, name in zip(paths, NAMES, strict=True):
        copy(path, folder / "in" / f"{name}.cif.gz")
    model = make_model(folder, **TINY)
    settings = settings_of(workers=0)
    predict_structures(folder / "in", folder / "predicted", model, settings)
    tables = [
        pd.read_csv(folder / f"predicted/{name}.observables.csv", keep_default_na=False)
        for name in NAMES
    ]
    table = pd.concat(tables)
    table = table[table["quantity"] == "population"]
    table["value"] = (table["value"] + 0.1 * (table["author_number"] % 3)).round(3)
    table[[*REQUIRED, "insertion_code"]].to_csv(folder / "m.csv", index=False)
    return folder, load_model(model), settings


def compared(given, out, model=None, table=None):
    folder, loaded, settings = given
    return compare_model(
        table or folder / "m.csv",
        out,
        model or loaded,
        settings,
        100,
        1,
        structures=folder / "in",
    )


def test_it_is_what_the_command_says_of_the_predictions(given, tmp_path):
    folder = given[0]
    found = compared(given, tmp_path / "a")
    compare_experiment(folder / "m.csv", [folder / "predicted"], tmp_path / "b", 100, 1)
    for name in FILES:
        one, two = (pd.read_csv(tmp_path / x / name) for x in "ab")
        pd.testing.assert_frame_equal(one, two, atol=1e-5)
    record = read_json(tmp_path / "a/experiment.json")
    assert record["figures"] == found.figures.to_pylist()
    assert record["num_learnt_from"] is None  # its file does not say
    text = (tmp_path / "a/README.md").read_text()
    assert all(f"`{path.name}`" in text for path in (tmp_path / "a").glob("exp*"))


def test_chains_that_were_learnt_from_are_counted_and_in_no_figure(given, tmp_path):
    pairs = compared(given, tmp_path / "all").pairs.to_pandas()
    chains = {("s2", "A"), ("s2", "B"), ("s2", "C")}
    model = replace(given[1], learnt=Learnt(frozenset(chains), frozenset()))
    found = compared(given, tmp_path / "some", model)
    num = int((pairs["entry"] == "s2").sum())
    assert found.num_learnt_from == num > 0
    assert len(found.pairs) == len(pairs)
    assert not {"s2"} & {*found.figures["protein"].to_pylist()}
    mean = found.figures.to_pandas().query("protein == 'mean of proteins'")
    assert set(mean["num_proteins"]) == {2}
    assert read_json(tmp_path / "some/experiment.json")["num_learnt_from"] == num


def test_what_cannot_be_predicted_has_a_reason(given, tmp_path):
    folder, loaded, settings = given
    (tmp_path / "in").mkdir()
    copy(folder / "in/s1.cif.gz", tmp_path / "in")
    (tmp_path / "in/s2.cif").write_text("data_nothing\n")
    copy(folder / "in/s3.cif.gz", tmp_path / "in")
    where = (folder / "m.csv", tmp_path / "out", loaded, settings, 100, 1)
    found = compare_model(*where, structures=tmp_path / "in")
    missing = found.pairs.to_pandas().query("entry == 's2'")
    assert missing["predicted"].isna().all()
    assert found.num_unpaired == len(missing)
    assert list(read_json(tmp_path / "out/experiment.json")["not_predicted"]) == ["s2"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [("site", "atom", "lacks the column site"), ("s3", "s9", "is s3 meant"), ("", "", "two files")],
)
def test_tables_that_do_not_fit_are_refused_at_once(given, tmp_path, old, new, said):
    folder = given[0]
    (tmp_path / "m.csv").write_text((folder / "m.csv").read_text().replace(old, new))
    (tmp_path / "in").mkdir()
    for path in (folder / "in").iterdir():
        copy(path, tmp_path / "in")
    if not old:
        (tmp_path / "in/s1.pdb").write_text("END\n")
    with pytest.raises(QfitLatentError, match=said) as caught:
        named_files(tmp_path / "m.csv", tmp_path / "in")
    assert "\n" not in str(caught.value)


def test_a_table_or_folder_that_is_not_there_is_named(given, tmp_path):
    folder = given[0]
    for table, inside in ((tmp_path / "no.csv", folder / "in"), (folder / "m.csv", tmp_path / "n")):
        with pytest.raises(QfitLatentError, match="cannot be read"):
            named_files(table, inside)
