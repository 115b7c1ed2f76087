"""The whole evaluation on a small simulated data set whose truth is known."""

import io
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from helpers.evaluated import evaluate_tiny, evaluated_tiny, make_run, settings
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import NUM_CHI
from qfitlatent.evaluation.evaluate import evaluate_run, score_method
from qfitlatent.evaluation.methods import model_method, table_method
from qfitlatent.evaluation.residues import read_evaluation_set
from qfitlatent.model.checkpoint import load_model, save_model
from qfitlatent.model.learnt import COLUMNS, Learnt
from qfitlatent.simulate.truth import read_truth
from qfitlatent.tables.parquet import read_table

KEYS = ["entry", "chain", "index"]


@pytest.fixture(scope="module")
def tiny():
    return evaluated_tiny()


@pytest.fixture(scope="module")
def metrics(tiny):
    return json.loads((tiny.out / "metrics.json").read_text())


@pytest.fixture(scope="module")
def scores(tiny):
    return pd.read_parquet(tiny.out / "scores.parquet")


@pytest.fixture(scope="module")
def truth(tiny, scores):
    """The mixtures that the evaluated entries were made with, as an external table."""
    return read_truth(tiny.truth, sorted(set(scores["entry"])))


def beside_uniform(table: pa.Table, folder, name: str, **options):
    """Settings of an evaluation with this external table and the uniform density."""
    pq.write_table(table, folder / "external.parquet")
    external = [{"name": name, "path": str(folder / "external.parquet"), **options}]
    return settings(external=external, baselines=["uniform"])


def test_nll_of_the_generator_is_its_entropy(scores):
    part = scores[scores["method"] == "generator"]
    gap = part["gap_to_entropy"]
    assert abs(gap.mean()) < 4 * gap.std() / math.sqrt(len(gap))


def test_nothing_beats_the_generator_on_average(metrics):
    for figures in metrics["populations"].values():
        best = figures["methods"]["generator"]["nll"]["value"]
        for name, method in figures["methods"].items():
            assert name == "generator" or method["nll"]["value"] > best


def test_generator_is_calibrated(tiny):
    table = pd.read_parquet(tiny.out / "calibration.parquet")
    part = table[(table["method"] == "generator") & (table["population"] == "all")]
    assert (part["coverage"] - part["nominal"]).abs().max() < 0.06


def test_populations_do_not_mix(scores, metrics):
    several = scores["population"] == "multiconformer"
    assert (scores.loc[several, "num_conformers"] >= 2).all()
    assert (scores.loc[~several, "num_conformers"] == 1).all()
    size = metrics["evaluated"]
    assert size["num_multiconformer"] + size["num_single"] == size["num_residues"]
    counts = {
        name: figures["methods"]["model"]["nll"]["num_residues"]
        for name, figures in metrics["populations"].items()
    }
    assert counts["multiconformer"] + counts["single"] == counts["all"]


def test_every_method_is_scored_on_the_same_residues(scores):
    keys = {
        name: list(map(tuple, part[KEYS].to_numpy())) for name, part in scores.groupby("method")
    }
    assert set(keys) == {"model", "uniform", "type_library", "generator"}
    assert all(rows == keys["model"] for rows in keys.values())
    assert scores["nll"].notna().all()


def test_only_residues_of_the_split_are_scored(tiny, scores):
    split = pd.read_parquet(tiny.split)
    test = set(map(tuple, split.loc[split["split"] == "test", ["entry", "chain"]].to_numpy()))
    assert set(map(tuple, scores[["entry", "chain"]].to_numpy())) == test


def test_figures_can_be_recomputed_from_the_scores(tiny, scores):
    groups = pd.read_parquet(tiny.out / "by_group.parquet")
    for metric in ("nll", "recall", "all_within_20", "wasserstein_rad"):
        index = [*KEYS, "name", "population"]
        wide = scores.pivot_table(index=index, columns="method", values=metric).reset_index()
        wide = wide[(wide["population"] == "multiconformer") & (wide["name"] == "LEU")]
        row = groups.query(
            "population == 'multiconformer' and group == 'type' and level == 'LEU' "
            f"and metric == '{metric}' and method == 'model'"
        )
        own = row[row["reference"].isna()].iloc[0]
        paired = row[row["reference"] == "type_library"].iloc[0]
        assert own["value"] == pytest.approx(wide["model"].mean(), abs=1e-5)
        difference = (wide["model"] - wide["type_library"]).mean()
        assert paired["value"] == pytest.approx(difference, abs=1e-5)
        assert own["low"] <= own["value"] <= own["high"]


def test_every_table_explains_itself(tiny):
    paths = sorted(tiny.out.glob("*.parquet"))
    assert len(paths) == 7
    for path in paths:
        for field in pq.read_schema(path):
            assert field.metadata[b"description"], f"{path.name}: {field.name}"
            assert b"unit" in field.metadata


def test_information_gain_is_the_gain_over_the_type_library(metrics):
    methods = metrics["populations"]["all"]["methods"]
    expected = methods["type_library"]["nll"]["value"] - methods["model"]["nll"]["value"]
    assert methods["model"]["information_gain"]["value"] == pytest.approx(expected)


def test_predictions_are_modes_heaviest_first(tiny):
    table = pd.read_parquet(tiny.out / "predictions.parquet")
    assert (table.groupby(KEYS)["weight"].sum() < 1.0001).all()
    assert table.groupby(KEYS)["weight"].apply(lambda w: w.is_monotonic_decreasing).all()
    alanine = table["name"].isin(["ALA", "GLY"])
    assert not alanine.any()
    one = table["name"] == "SER"
    assert table.loc[one, "chi2_rad"].isna().all()
    assert table.loc[one, "chi1_rad"].notna().all()


def test_an_external_copy_of_the_truth_scores_as_the_truth(tiny, truth, tmp_path):
    """Without a model; the report says so."""
    log, out = io.StringIO(), tmp_path / "out"
    own = beside_uniform(truth, tmp_path, "mine")
    evaluate_run(None, tiny.tables, tiny.split, out, own, truth_dir=tiny.truth, log=log)
    assert "No model" in (out / "report.html").read_text()
    scores = pd.read_parquet(out / "scores.parquet")
    mine, truth = (
        scores[scores["method"] == name].drop(columns="method").reset_index(drop=True)
        for name in ("mine", "generator")
    )
    pd.testing.assert_frame_equal(mine, truth)
    assert f"{len(mine)}/{len(mine)} residues" in log.getvalue()
    assert "method mine, took" in log.getvalue()


def test_samples_of_a_packer_are_scored(tiny, tmp_path):
    """One narrow kernel on the top altloc is right; residues without a sample stay unscored."""
    top = pd.read_parquet(tiny.out / "altlocs.parquet")
    top = top[top["method"] == "model"].sort_values("occupancy", ascending=False, kind="stable")
    top = top.drop_duplicates(KEYS).sort_values(KEYS).head(60)
    columns = [*KEYS, *(f"chi{d}_rad" for d in range(1, 5))]
    table = pa.Table.from_pandas(top[columns], preserve_index=False)
    own = beside_uniform(table, tmp_path, "packer", kind="samples", smoothing_degrees=5)
    evaluate_run(None, tiny.tables, tiny.split, tmp_path / "out", own, report=False)
    scores = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    packer = scores[scores["method"] == "packer"]
    assert packer["nll"].notna().sum() == 60
    assert packer["all_within_20"].dropna().eq(1).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop_columns(["kappa2"]), "the column kappa2"),
        (lambda t: t.set_column(0, "entry", pa.array(["none"] * len(t))), "none of the evaluated"),
        (lambda t: t.set_column(5, "weight", pa.array([-1.0] * len(t))), "negative or all zero"),
    ],
)
def test_bad_external_tables_are_refused(tiny, truth, tmp_path, change, words):
    own = beside_uniform(change(truth), tmp_path, "bad")
    with pytest.raises(QfitLatentError, match=words):
        evaluate_run(None, tiny.tables, tiny.split, tmp_path / "out", own)


def test_two_evaluations_are_equal_to_the_byte_whoever_shares_the_work(tiny, tmp_path):
    shutil.copytree(tiny.run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    again = tmp_path / "run" / "evaluation"
    evaluate_tiny(tmp_path / "run", tiny.tables, tiny.split, tiny.truth, processes=2)
    for path in sorted(p for p in tiny.out.rglob("*") if p.is_file()):
        assert path.read_bytes() == (again / path.relative_to(tiny.out)).read_bytes(), path.name


def test_the_network_sees_a_protein_once_and_its_head_a_residue_a_few_hundred_times(
    tiny, tmp_path, monkeypatch
):
    run = make_run(tmp_path, "counted", head="autoregressive", mean="atan2", outputs=True)
    model = load_model(run).model
    data = read_evaluation_set(tiny.tables, tiny.split, "test")
    encoded, head_rows = [], 0
    encode, step = model.encode, model.head.step

    def counted_encode(batch):
        encoded.append(len(batch.token))
        return encode(batch)

    def counted_step(d, residue, chi, known):
        nonlocal head_rows
        head_rows += len(residue)
        return step(d, residue, chi, known)

    monkeypatch.setattr(model, "encode", counted_encode)
    monkeypatch.setattr(model.head, "step", counted_step)
    method = model_method(model, data, size=1)
    few = replace(method, parts=method.parts[:3])
    scores = score_method(few, data, settings(num_samples=256))
    assert encoded == [1, 1, 1]
    seen = np.isfinite(scores["nll"])
    assert np.isfinite(scores["p_heterogeneous"][seen]).all()
    assert head_rows < 2 * 256 * NUM_CHI[data.observed.token.numpy()[seen]].sum()


def test_little_of_what_is_computed_for_a_table_is_padding(tiny, truth, tmp_path):
    """A part has the components and the chi of its largest residue: counted, not timed."""
    data = read_evaluation_set(tiny.tables, tiny.split, "test")
    method = table_method("truth", truth, data, size=64)
    num_chi = NUM_CHI[data.observed.token.numpy()].astype(int)
    computed = needed = 0
    seen = []
    for part in method.parts:
        rows, density, index, _ = method.chunk(part)
        own = (density.log_weight.exp() > 1e-9).sum(1).numpy()[index]
        computed += len(rows) * density.num_components * int(density.chi_mask.any(0).sum())
        needed += int((own * num_chi[rows]).sum())
        assert (np.diff(rows) > 0).all()
        seen.append(rows)
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(data.num))
    whole = method.chunk(np.arange(data.num)).density
    every = whole.mean.numel()
    assert computed < 1.3 * needed < 0.7 * every


def test_the_autoregressive_head_goes_through_the_same_code(tiny, tmp_path):
    run = make_run(tmp_path, "autoregressive", head="autoregressive", mean="atan2")
    own, out = settings(num_samples=64, baselines=["uniform"]), run / "evaluation"
    metrics = evaluate_run(run, tiny.tables, tiny.split, out, own, report=False)
    model = metrics["populations"]["all"]["methods"]["model"]
    assert math.isfinite(model["nll"]["value"])
    assert 0 < model["heterogeneity"]["value"] < 1


def test_a_split_that_is_empty_is_refused(tiny, tmp_path):
    table = pq.read_table(tiny.split)
    only = table.filter(pa.compute.not_equal(table["split"], "test"))
    pq.write_table(only, tmp_path / "split.parquet")
    with pytest.raises(QfitLatentError, match="is in test"):
        evaluate_run(None, tiny.tables, tmp_path / "split.parquet", tmp_path / "out", settings())


def test_external_must_not_take_the_name_of_a_baseline(tiny, truth, tmp_path):
    own = beside_uniform(truth, tmp_path, "uniform")
    with pytest.raises(QfitLatentError, match="Two methods are called 'uniform'"):
        evaluate_run(None, tiny.tables, tiny.split, tmp_path / "out", own)


def evaluated_with(tiny, folder, learnt):
    """Scores of a copy of the run whose file says that it learnt from these chains."""
    loaded = load_model(tiny.run)
    path = folder / "model.safetensors"
    save_model(loaded.model, loaded.config, path, learnt=learnt)
    chosen = settings(baselines=["type_library"])
    return evaluate_run(path, tiny.tables, tiny.split, folder / "out", chosen, report=False)


def test_what_the_model_learnt_from_is_in_no_figure(tiny, scores, tmp_path):
    """Whatever split the model is scored with, and whatever the chain is called there."""
    entries = sorted(set(scores["entry"]))
    residues = read_table(tiny.tables / "residues.parquet", list(COLUMNS))
    first = residues.filter(pc.equal(residues["entry"], entries[0]))
    renamed = first.set_column(0, "entry", pa.array(["another"] * len(first)))
    found = evaluated_with(tiny, tmp_path, Learnt.of(renamed))
    again = pd.read_parquet(tmp_path / "out/scores.parquet")
    left_out = scores[(scores["entry"] == entries[0]) & (scores["method"] == "model")]
    assert set(again["entry"]) == set(entries[1:])
    assert found["learnt_from"]["num_residues"] == len(left_out)
    assert {name.split()[0] for name in found["learnt_from"]["chains"]} == {entries[0]}
    assert found["evaluated"]["num_entries"] == len(entries) - 1


def test_a_model_that_learnt_all_is_not_scored(tiny, tmp_path):
    every = Learnt.of(read_table(tiny.tables / "residues.parquet", list(COLUMNS)))
    with pytest.raises(QfitLatentError, match="trained on every chain of the split 'test'"):
        evaluated_with(tiny, tmp_path, every)
