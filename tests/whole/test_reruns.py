"""What reruns is what changed: settings, code and words, in this clone, in another, and moved."""

import os
import shutil

import pyarrow.parquet as pq
import pytest

from helpers.workflow_run import TINY, Checkout

DATA = "results/data/tiny"
EVALUATION = {"evaluate_model": 1}
TRAINING = {"train_model": 1, **EVALUATION}
FROM_SPLIT = {"split_entries": 1, "audit_tables": 1, **TRAINING}
FROM_TABLES = {"preprocess_entries": 2, "merge_tables": 1, **FROM_SPLIT}
EVERYTHING = {"simulate_entries": 2, "merge_downloads": 1, **FROM_TABLES}
PACKAGE = "src/qfitlatent"

CHANGES = {
    "the help text of a rejected reason": (
        f"{PACKAGE}/data/reasons.yaml", "no such entry", "nothing like it", {"audit_tables": 1},
    ),
    "the description of a column": (
        f"{PACKAGE}/tables/schemas.py", "sha256 of the file's bytes", "checksum", {},
    ),
    "the template of every page": (
        f"{PACKAGE}/data/pages/page.html.j2", "</head>", "<meta></head>",
        {"audit_tables": 1, **EVALUATION},
    ),
    "the template of the report": (
        f"{PACKAGE}/data/pages/report.html.j2", "{% extends", "{# words #}{% extends", EVALUATION,
    ),
    "a figure of the evaluation": (
        f"{PACKAGE}/evaluation/figures.py", "THRESHOLDS = (0.01,", "THRESHOLDS = (0.015,",
        EVALUATION,
    ),
    "the altloc policy": (
        f"{PACKAGE}/structure/conformers.py", "OCCUPANCY_DISAGREEMENT = 0.01",
        "OCCUPANCY_DISAGREEMENT = 0.02", FROM_TABLES,
    ),
    "how chains are clustered": (
        f"{PACKAGE}/dataset/clusters.py", "MIN_LINKING_LENGTH = 15", "MIN_LINKING_LENGTH = 16",
        FROM_SPLIT,
    ),
}  # fmt: skip
"""File, what stands there, what takes its place, and all rules that run again, with their jobs."""


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_reruns_the_stages_that_it_is_part_of(finished, edit, change):
    path, old, new, expected = CHANGES[change]
    edit(path, old, new)
    assert finished.plan() == expected


SETTINGS = {
    "the learning rate": ({"train": {"learning_rate": 0.002}}, TRAINING),
    "the width of the model": ({"model": {"d_s": 24}}, TRAINING),
    "the number of altlocs kept": ({"preprocess": {"max_conformers": 1}}, FROM_TABLES),
    "the split": ({"split": {"sequence_identity": 0.4}}, FROM_SPLIT),
    "the resamples of the evaluation": ({"evaluate": {"bootstrap_samples": 120}}, EVALUATION),
    "the seed": ({"seed": 7}, EVERYTHING),
    "nothing": ({}, {}),
}
"""What a user changes, and all rules that run again, with their jobs."""


def with_changes(changes: dict) -> dict:
    config = dict(TINY)
    for name, value in changes.items():
        config[name] = {**config.get(name, {}), **value} if isinstance(value, dict) else value
    return config


@pytest.fixture(scope="module")
def copied(finished, tmp_path_factory):
    """A fresh clone into which the results were copied, without the memory of Snakemake."""
    other = Checkout(tmp_path_factory.mktemp("copied") / "two", TINY)
    shutil.copytree(finished.folder / "results", other.folder / "results")
    return other


@pytest.fixture(scope="module")
def elsewhere(finished, tmp_path_factory):
    """Another clone that uses the results where they are."""
    return Checkout(tmp_path_factory.mktemp("elsewhere") / "three", TINY)


@pytest.mark.parametrize("where", ["here", "in another clone", "from another folder"])
@pytest.mark.parametrize("change", SETTINGS)
def test_changed_settings_rerun_their_stages(request, finished, change, where):
    """Planning alone leaves everything as it was: the next of these plans finds it so."""
    changes, expected = SETTINGS[change]
    checkout = finished
    if where == "in another clone":
        checkout = request.getfixturevalue("copied")
    if where == "from another folder":
        checkout = request.getfixturevalue("elsewhere")
        changes = {**changes, "results_dir": str(finished.folder / "results")}
    checkout.write_config(with_changes(changes))
    try:
        assert checkout.plan() == expected
    finally:
        checkout.write_config(TINY)


def test_what_differs_is_said(copied):
    copied.write_config(with_changes({"split": {"sequence_identity": 0.45}}))
    printed = copied.run("-n", "preprocess")
    assert "split_entries is made again: split.sequence_identity was 0.3 and is 0.45." in printed
    copied.write_config(TINY)


def test_records_name_no_folder_and_are_the_same_in_every_clone(finished, elsewhere):
    records = sorted(finished.folder.glob("results/**/made_from/*.json"))
    assert len(records) > sum(EVERYTHING.values())
    for path in records:
        assert str(finished.folder) not in path.read_text(), path
    elsewhere.write_config({**TINY, "results_dir": str(elsewhere.folder / "absolute")})
    elsewhere.plan("preprocess", "train")
    for path in (elsewhere.folder / "absolute").rglob("made_from/*.json"):
        assert path.name in {record.name for record in records}
    elsewhere.write_config(TINY)


def test_results_of_other_settings_are_replaced_from_another_folder(finished, tmp_path):
    """Entries are found where the results are, although their log names them relatively."""
    own = tmp_path / "results"
    shutil.copytree(finished.folder / "results", own)
    changed = with_changes({"preprocess": {"max_conformers": 1}, "results_dir": str(own)})
    checkout = Checkout(tmp_path / "away", changed)
    checkout.run("preprocess")
    residues = pq.read_table(own / "data" / "tiny" / "tables" / "residues.parquet")
    assert max(residues["num_conformers"].to_pylist()) == 1
    assert checkout.plan("preprocess") == {}


def test_files_of_the_user_that_were_replaced_are_read_again(finished, tmp_path):
    """By one with an older date, and in a clone to which the results were copied."""
    files = sorted((finished.folder / DATA / "simulated").rglob("*.cif.gz"))[:2]
    config = {"dataset": "own", "entries": {"source": "local", "folder": "own", "shards": 1}}
    one = Checkout(tmp_path / "one", config)
    (one.folder / "own").mkdir()
    place = one.folder / "own" / "1abc.cif.gz"
    shutil.copy(files[0], place)
    one.run("download")
    assert one.plan("download") == {}
    two = Checkout(tmp_path / "two", config)
    for folder in ("own", "results"):
        shutil.copytree(one.folder / folder, two.folder / folder)
    assert two.plan("download") == {}
    for checkout in (one, two):
        place = checkout.folder / "own" / "1abc.cif.gz"
        shutil.copy(files[1], place)
        os.utime(place, (1, 1))
        assert checkout.plan("download") == {"download_entries": 1, "merge_downloads": 1}


def test_a_changed_comment_reruns_nothing(finished, edit):
    edit(
        f"{PACKAGE}/dataset/split.py",
        '"""Write ``split.parquet``',
        '# Why.\n    """Writes a table',
    )
    edit("workflow/scripts/split_entries.py", '"""Divides', '"""Cuts')
    edit("workflow/scripts/train_model.py", "with job(", "# Words.\nwith job(")
    assert finished.plan() == {}


def test_an_added_entry_reruns_its_shard_and_the_merges(finished, config):
    config("simulate", num_entries=17)
    jobs = finished.plan("preprocess")
    expected = {"simulate_entries", "merge_downloads", "preprocess_entries", "merge_tables"}
    assert jobs == dict.fromkeys([*expected, "split_entries"], 1)


def test_the_rule_that_averages_takes_the_place_of_training(finished):
    run = "results/runs/tiny"
    finished.write_config(
        with_changes({"run": "mean", "average": {"members": [run]}, "model": {"dropout": 0.1}})
    )
    try:
        assert finished.plan("train") == {"average_runs": 1, "describe_results": 1}
    finally:
        finished.write_config(TINY)


def test_measurements_are_compared_where_there_is_a_table_and_again_when_it_changes(
    finished, tmp_path
):
    """Before anything runs, a table that does not fit is refused."""
    shutil.copytree(finished.folder / "results", tmp_path / "results")
    given = {"evaluate": {"experiment": "m.csv"}, "results_dir": str(tmp_path / "results")}
    checkout = Checkout(tmp_path / "measured", with_changes(given))
    assert "m.csv cannot be read" in checkout.refused("-n")
    residues = pq.read_table(tmp_path / "results/data/tiny/tables/residues.parquet").to_pandas()
    rows = residues[residues["name"] == "VAL"]
    keys = ["entry", "author_chain", "author_number", "insertion_code"]
    lines = [
        ",".join(map(str, (*place, "S2", "CG1", 0.1 + n % 9 / 10)))
        for n, place in enumerate(rows[keys].itertuples(index=False))
    ]
    text = "\n".join([",".join([*keys, "quantity,site,value"]), *lines]) + "\n"
    table = checkout.folder / "m.csv"
    table.write_text(text + "unknown,A,1,,S2,CG1,0.5\n")
    assert "names unknown, which is not an entry of the dataset" in checkout.refused("-n")
    table.write_text(text)
    checkout.run("evaluate")
    assert (tmp_path / "results/runs/tiny/evaluation/experiment/experiment.json").is_file()
    assert checkout.plan() == {}
    table.write_text(text.replace("0.5", "0.55"))
    assert checkout.plan() == {"compare_experiment": 1}
    checkout.write_config(with_changes(given | {"train": {"learning_rate": 0.002}}))
    assert checkout.plan() == {**TRAINING, "compare_experiment": 1}
