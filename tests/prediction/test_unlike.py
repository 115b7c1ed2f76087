"""What a prediction says of the training set, whatever the names and places."""

import json

import gemmi
import numpy as np
import pandas as pd

from helpers.predictions import make_model, settings_of
from qfitlatent.prediction.commands import EXAMPLE
from qfitlatent.prediction.predict import predict_structures


def predicted(structure, out, name, model=None):
    """The column, the record and the page."""
    path = out / f"{name}.cif"
    structure.make_mmcif_document().write_file(str(path))
    predict_structures([path], out, model, settings_of())
    residues = pd.read_csv(out / f"{name}.residues.csv")
    record = json.loads((out / f"{name}.prediction.json").read_text())
    page = (out / f"{name}.html").read_text()
    return residues["unlike_training"].to_numpy(), record, page


def test_names_and_places_change_nothing_and_a_distorted_backbone_is_more_unlike(tmp_path):
    structure = gemmi.read_structure(str(EXAMPLE))
    before, record, page = predicted(structure, tmp_path, "one")
    turned = structure.clone()
    turn = gemmi.Transform(gemmi.Mat33([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), gemmi.Vec3(3, 4, 5))
    turned[0].transform_pos_and_adp(turn)
    for chain in turned[0]:
        chain.name = f"Z{chain.name}"
    after, other, _ = predicted(turned, tmp_path, "two")
    assert np.nanmax(np.abs(after - before)) < 0.02
    assert (np.isnan(after) == np.isnan(before)).all()
    nearest, renamed = (
        [{**row, "chain": ""} for row in each["nearest_training_chains"]]
        for each in (record, other)
    )
    assert nearest == renamed != []
    assert "Nearest training chain by sequence:" in page
    rng = np.random.default_rng(0)
    for mark in structure[0].all():
        mark.atom.pos += gemmi.Position(*rng.normal(0.0, 0.3, 3))
    moved, _, _ = predicted(structure, tmp_path, "three")
    assert np.nanmean(moved) > np.nanmean(before) + 0.05


def test_a_model_without_it_has_an_empty_column_and_says_so(tmp_path):
    structure = gemmi.read_structure(str(EXAMPLE))
    model = make_model(tmp_path)
    column, record, page = predicted(structure, tmp_path, "one", model)
    assert np.isnan(column).all()
    assert record["nearest_training_chains"] == []
    why = "there is no training_set.safetensors beside the model"
    assert f"no unlike_training: {why}" in record["notes"]
    assert f"not known: {why}" in page
