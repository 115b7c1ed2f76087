"""Runs side by side are paired on the same residues."""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.browser import check_in_browser, check_self_contained
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.evaluation.compare import METRICS, compare_runs


def write_evaluation(folder, shift: float, first_entry: int = 0, method: str = "model"):
    """An evaluation of 6 entries with 5 residues each, nll = index + entry + shift."""
    rows = []
    for entry in range(first_entry, first_entry + 6):
        for index in range(5):
            row = dict.fromkeys(METRICS, 0.5)
            row |= {"entry": f"e{entry}", "chain": "A", "index": index, "method": method}
            row |= {"nll": index + entry + shift, "entropy": float(index)}
            row |= {"population": "multiconformer" if index < 2 else "single"}
            rows.append(row | {"distinct_rotamers": index == 1})
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "scores.parquet")
    run = {"run": {"dataset": "tiny", "num_parameters": 7, "model": {"head": "mixture"}}}
    (folder / "metrics.json").write_text(json.dumps(run))
    return folder


def compare(folders, out, names=None):
    return compare_runs(folders, out, names or [f.parent.name for f in folders], 1000, 0)


def test_differences_are_paired(tmp_path):
    one = write_evaluation(tmp_path / "one" / "evaluation", 0.0)
    two = write_evaluation(tmp_path / "two" / "evaluation", 0.25)
    table = compare([one, two], tmp_path / "out").to_pandas()
    row = table.query("population == 'single' and metric == 'nll' and reference == 'one'").iloc[0]
    assert row["run"] == "two"
    # The residues differ by far more than the runs do; paired, the interval is a point.
    assert [row["value"], row["low"], row["high"]] == pytest.approx([0.25] * 3)
    own = table.query("population == 'single' and metric == 'nll' and run == 'one'").iloc[0]
    assert own["high"] - own["low"] > 1
    auroc = table.query("population == 'multiconformer' and metric == 'auroc_entropy'")
    assert auroc["value"].tolist() == [1.0, 1.0]


def test_only_common_residues_count(tmp_path):
    one = write_evaluation(tmp_path / "one" / "evaluation", 0.0)
    two = write_evaluation(tmp_path / "two" / "evaluation", 0.0, first_entry=4)
    table = compare([one, two], tmp_path / "out", names=["a", "b"]).to_pandas()
    assert set(table.query("population == 'all'")["num_residues"]) == {10}
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "2 runs on the 10 residues" in page
    check_self_contained(page)
    check_in_browser(tmp_path / "out" / "compare.html")
    nested = json.loads((tmp_path / "out" / "compare.json").read_text())
    value = nested["all"]["differences"]["b"]["nll"]["value"]
    assert value == pytest.approx(0.0)
    written = pd.read_parquet(tmp_path / "out" / "compare.parquet")
    assert len(written) == len(table)


def test_one_run_alone_is_shown(tmp_path):
    one = write_evaluation(tmp_path / "one" / "evaluation", 0.0)
    assert len(compare([one], tmp_path / "out"))


def test_what_cannot_be_compared_is_left_out_and_the_page_says_why(tmp_path, capsys):
    """Far is alone on its residues, also where it comes first."""
    far = write_evaluation(tmp_path / "far" / "evaluation", 0.0, first_entry=50)
    folders = [write_evaluation(tmp_path / name / "evaluation", 0.0) for name in ("one", "two")]
    bare = write_evaluation(tmp_path / "bare" / "evaluation", 0.0, method="uniform")
    old = write_evaluation(tmp_path / "old" / "evaluation", 0.0)
    pq.write_table(pa.table({"entry": ["e0"]}), old / "scores.parquet")
    gone = tmp_path / "gone" / "evaluation"
    table = compare([bare, far, gone, old, *folders], tmp_path / "out").to_pandas()
    assert set(table["run"]) == {"one", "two"}
    shown = capsys.readouterr().err
    page = " ".join((tmp_path / "out" / "compare.html").read_text().split())
    for name, why in (
        ("bare", "its evaluation has no model, only baselines."),
        ("far", "it was evaluated on other residues than one, on another data set or split."),
        ("gone", "its evaluation cannot be used (The table"),
        ("old", "has no column"),
    ):
        assert f"<li>{name}: " in page
        assert why in page
        assert why in shown


def test_nothing_to_compare_is_refused(tmp_path):
    one = write_evaluation(tmp_path / "one" / "evaluation", 0.0)
    bare = write_evaluation(tmp_path / "bare" / "evaluation", 0.0, method="uniform")
    with pytest.raises(QfitLatentError, match="No evaluated run"):
        compare([], tmp_path / "out")
    with pytest.raises(QfitLatentError, match=r"No run can be compared. bare: .* has no model"):
        compare([bare], tmp_path / "out")
    with pytest.raises(QfitLatentError, match="name of its own"):
        compare([one, one], tmp_path / "out")
    with pytest.raises(QfitLatentError, match="name of its own"):
        compare([one], tmp_path / "out", names=["type_library"])
