"""Figures of p_heterogeneous and b_rank, and of well-determined residues."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.evaluated import evaluated_tiny, make_run, settings
from qfitlatent.evaluation.evaluate import evaluate_run
from qfitlatent.evaluation.intervals import auroc, bootstrap_weights
from qfitlatent.evaluation.outputs import output_figures, output_scores
from qfitlatent.evaluation.residues import read_evaluation_set
from qfitlatent.model.outputs import Outputs


@pytest.fixture(scope="module")
def tiny():
    return evaluated_tiny()


@pytest.fixture(scope="module")
def data(tiny):
    return read_evaluation_set(tiny.tables, tiny.split, "test")


@pytest.fixture(scope="module")
def evaluated(tiny, tmp_path_factory):
    """Metrics and scores of an untrained model with outputs; half of the entries are stripped."""
    folder = tmp_path_factory.mktemp("outputs")
    run = make_run(folder, "with_outputs", outputs=True)
    scored = pd.read_parquet(tiny.out / "scores.parquet", columns=["entry"])
    entries = sorted(scored["entry"].unique())
    unknown = folder / "unknown.csv"
    unknown.write_text("entry\n" + "\n".join(entries[::2]) + "\n")
    few = settings(baselines=["uniform"], num_samples=32)
    out = folder / "evaluation"
    evaluate_run(run, tiny.tables, tiny.split, out, few, report=False, altlocs_unknown=unknown)
    metrics = json.loads((out / "metrics.json").read_text())
    return metrics, pd.read_parquet(out / "scores.parquet"), set(entries[::2])


def said(p, mean, spread=0.25) -> dict:
    p, mean = torch.as_tensor(p).float(), torch.as_tensor(mean).float()
    outputs = Outputs(p.logit(), mean, torch.full_like(mean, spread))
    return output_scores(outputs) | {"entropy": np.zeros(len(p))}


def figures(data, outputs) -> dict:
    draws = bootstrap_weights(len(data.entries), 200, 0)
    return output_figures(outputs, data, draws)


def test_stripped_entries_are_not_scored(evaluated):
    metrics, scores, unknown = evaluated
    model = scores[scores["method"] == "model"]
    known = model[~model["entry"].isin(unknown)]
    found = metrics["outputs"]["all"]["p_heterogeneous"]
    assert found["num_residues"] == len(known)
    assert found["num_heterogeneous"] == known["distinct_rotamers"].sum()
    expected = auroc(known["p_heterogeneous"].to_numpy(), known["distinct_rotamers"].to_numpy())
    assert found["auroc"]["value"] == pytest.approx(expected, abs=1e-6)
    assert scores.loc[scores["method"] == "uniform", "p_heterogeneous"].isna().all()
    # The B rank needs no altlocs.
    assert metrics["outputs"]["all"]["b_rank"]["num_residues"] == model["b_rank_mean"].notna().sum()


def test_without_outputs_there_are_no_figures_of_them(tiny):
    assert json.loads((tiny.out / "metrics.json").read_text())["outputs"] is None


def test_every_figure_is_also_that_of_well_determined_residues(tiny, data):
    table = pd.read_parquet(tiny.out / "by_group.parquet")
    part = table[(table["group"] == "well_determined") & table["reference"].isna()]
    assert {"nll", "all_within_20", "auroc_entropy"} <= set(part["metric"])
    nll = part[(part["metric"] == "nll") & (part["method"] == "model")]
    total = nll[nll["population"] == "all"].set_index("level")["num_residues"]
    well = data.well_determined
    assert total.to_dict() == {"no": (~well).sum(), "yes": well.sum()}
    b_rank = data.labels("b_rank")
    assert (b_rank[well] < 0.8).all()
    observed = data.observed
    every = (observed.defined == observed.chi_mask[observed.row_residue]).all(1)
    assert every[torch.from_numpy(well)[observed.row_residue]].all()
    assert 0.6 < well.mean() < 0.85


def test_what_is_true_is_calibrated_and_found(data):
    truth = torch.from_numpy(data.labels("heterogeneous"))
    rate = float(truth.mean())
    found = figures(data, said(torch.full((data.num,), rate), torch.full((data.num,), 0.5)))["all"]
    reliability = found["p_heterogeneous"]["reliability"]
    assert [row["num_residues"] for row in reliability] == [data.num]
    assert reliability[0]["predicted"] == pytest.approx(reliability[0]["observed"], abs=1e-6)
    assert found["p_heterogeneous"]["nll"] == pytest.approx(
        found["p_heterogeneous"]["nll_of_rate"], abs=1e-5
    )
    # A logit and back may differ in the last digit, which then ranks.
    assert found["p_heterogeneous"]["auroc"]["value"] == pytest.approx(0.5, abs=0.02)
    assert found["b_rank"]["correlation"] is None
    known = figures(data, said(0.1 + 0.8 * truth, data.labels("b_rank")))["all"]
    assert known["p_heterogeneous"]["auroc"]["value"] == 1.0
    assert known["b_rank"]["correlation"] == pytest.approx(1.0, abs=1e-5)
    assert known["b_rank"]["coverage_50"]["value"] == 1.0
    ranks = known["p_heterogeneous"]["reliability_by_rank"]
    assert sum(row["num_residues"] for row in ranks) == data.num
