"""What the terminal shows of an evaluation when a run is done."""

import json
import os

from qfitlatent.base.files import write_json
from qfitlatent.base.models import shipped_model_path
from qfitlatent.evaluation.summary import FIGURES, summary


def test_three_figures_of_the_model_beside_the_library():
    path = shipped_model_path().with_name("scores.json")
    found = json.loads(path.read_text())
    methods = found["populations"]["multiconformer"]["methods"]
    lines = summary(path, "absent")
    assert len(FIGURES) == 3
    assert len(lines) == 4
    model, library = (methods[name]["nll"]["value"] for name in ("model", "type_library"))
    assert lines[0].startswith(f"model {model:.3g}, type library {library:.3g}: nats per residue")
    clashes = found["predicted_models"]["models"]["joint"]["clashes"]["value"]
    assert lines[3].startswith(f"predicted models {clashes:.2g}, ")


def test_no_figures_are_better_than_wrong_ones(tmp_path):
    metrics, model = tmp_path / "metrics.json", tmp_path / "model.safetensors"
    assert summary(metrics, model) == []
    write_json(metrics, {"populations": {"single": {"methods": {"model": {}}}}})
    assert summary(metrics, model) == []
    write_json(metrics, {"populations": {"single": {"methods": {"model": {"all_within_20": {"value": 0.5}}}}}})  # fmt: skip # noqa: E501
    model.touch()
    os.utime(model, ns=(1, 1))
    assert summary(metrics, model) == [f"model 50: {FIGURES[2][3]}"]
    os.utime(metrics, ns=(0, 0))
    assert summary(metrics, model) == [], "of the model before"


def test_clashes_of_predicted_models(tmp_path):
    models = {
        name: {"clashes": {"value": value}} for name, value in (("heaviest", 30.0), ("joint", 0.5))
    }
    models["deposited"] = {"clashes": {"value": None}}
    write_json(
        tmp_path / "metrics.json", {"populations": {}, "predicted_models": {"models": models}}
    )
    (line,) = summary(tmp_path / "metrics.json", "absent")
    assert line == "predicted models 0.5, heaviest modes 30: clashes per 100 residues"
