"""Published models: the name that a file carries, what ships, and the tool that publishes."""

import json
import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from helpers.predictions import make_model
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json, sha256_file, write_json
from qfitlatent.base.models import MODEL_FILE, PUBLISHED, shipped_model_path
from qfitlatent.base.provenance import verify_run
from qfitlatent.model.checkpoint import load_model, save_model
from qfitlatent.model.reference import REFERENCE_FILE, Reference

ROOT = Path(__file__).parents[2]
SHIPPED = shipped_model_path().parent


@pytest.fixture(scope="module")
def tool():
    spec = spec_from_file_location("ship_model", ROOT / "tools" / "ship_model.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path):
    """A run folder as training and evaluation leave it; the figures are those of what ships."""
    folder = tmp_path / "run"
    (folder / "evaluation").mkdir(parents=True)
    make_model(tmp_path).rename(folder / MODEL_FILE)
    for name in ("config.yaml", "metrics.csv", "learning_curve.svg"):
        shutil.copyfile(SHIPPED / name, folder / name)
    shutil.copyfile(SHIPPED / "scores.json", folder / "evaluation" / "metrics.json")
    (folder / "evaluation" / "MODEL_CARD.md").write_text("# Model card: my_run\n\nGood.\n")
    (folder / "evaluation" / "DATASET_CARD.md").write_text("# Dataset card\n")
    remember(folder)
    listed = {
        name: {"sha256": sha256_file(folder / name), "path": str(folder / name)}
        for name in ("config.yaml", MODEL_FILE)
    }
    manifest = {"inputs": {}, "outputs": listed, "command": ["train", str(folder)]}
    write_json(folder / "manifest.json", manifest)
    return folder


def remember(folder):
    """An empty memory of the training set beside the model of a run."""
    flat = (np.eye(2), np.zeros((20, 2)), np.zeros((20, 2, 2)), np.zeros(3))
    version = load_model(folder).about.version
    Reference(version, *flat, (), ()).save(folder / REFERENCE_FILE)


def front_matter(path):
    _, text, body = path.read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(text), body


def test_what_ships_is_listed_by_its_name_and_weights(tool):
    header, _ = tool.read_model(shipped_model_path())
    assert PUBLISHED.fullmatch(header["name"])
    row = f"| `{header['name']}` | "
    (line,) = (x for x in (ROOT / "docs/models.md").read_text().splitlines() if x.startswith(row))
    assert line.endswith(f"| `{header['sha256'][:16]}` |")
    assert header["name"] in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_nothing_that_is_published_names_the_machine_of_the_training(tool, run, tmp_path):
    (tmp_path / "target").mkdir()
    tool.publish(run, "qfitlatent-chi-9.0", tmp_path / "target")
    for path in (tmp_path / "target").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    for path in SHIPPED.iterdir():
        assert b"/tmp/" not in path.read_bytes(), path.name


def test_the_card_that_ships_has_the_metadata_of_a_hub():
    card, body = front_matter(SHIPPED / "MODEL_CARD.md")
    name = load_model().name
    assert body.startswith(f"# Model card: {name}\n")
    assert card["license"] == "mit"
    assert card["model_name"] == name
    scores = read_json(SHIPPED / "scores.json")
    (index,) = card["model-index"]
    assert index["name"] == name
    assert len(index["results"]) == len(scores["populations"])
    for result, (population, found) in zip(
        index["results"], scores["populations"].items(), strict=True
    ):
        # What huggingface_hub asks of a result: each part has a type and a name, figures a value.
        for part in (result["task"], result["dataset"], *result["metrics"]):
            assert part["type"]
            assert part["name"]
        assert population in result["dataset"]["name"]
        for metric in result["metrics"]:
            exact = found["methods"]["model"][metric["type"]]["value"]
            assert metric["value"] == pytest.approx(exact, abs=1e-4)
    assert str(scores["trained_on"]["num_entries"]) in card["training_data"]
    assert "CC0" in card["training_data"]


def test_a_published_model_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = load_model().name
    assert load_model(name).path == shipped_model_path()
    with pytest.raises(QfitLatentError, match=f"ships {name} and not qfitlatent-chi-99.7"):
        load_model("qfitlatent-chi-99.7")
    make_model(tmp_path).rename(tmp_path / "qfitlatent-chi-99.7")
    assert load_model("qfitlatent-chi-99.7").name == "simulated", "a file of that name is meant"


def test_publishing_names_the_weights_and_changes_no_bit_of_them(tool, run, tmp_path):
    target = tmp_path / "published"
    tool.publish(run, "qfitlatent-chi-7.0", target)
    before, after = load_model(run), load_model(target)
    assert (before.name, after.name) == ("simulated", "qfitlatent-chi-7.0")
    assert after.config == before.config
    for (name, old), new in zip(
        before.model.state_dict().items(), after.model.state_dict().values(), strict=True
    ):
        assert torch.equal(old, new), name
    assert verify_run(target) == []
    card, body = front_matter(target / "MODEL_CARD.md")
    assert card["model_name"] == "qfitlatent-chi-7.0"
    assert body == "# Model card: qfitlatent-chi-7.0\n\nGood.\n"


def test_a_name_is_given_once(tool, run, tmp_path):
    target = tmp_path / "published"
    tool.publish(run, "qfitlatent-chi-7.0", target)
    loaded = load_model(run)
    with torch.no_grad():
        next(loaded.model.parameters()).add_(1.0)
    save_model(loaded.model, loaded.config, run / MODEL_FILE)
    with pytest.raises(SystemExit, match="a name is given once"):
        tool.publish(run, "qfitlatent-chi-7.0", target)
    with pytest.raises(SystemExit, match=r"belongs to other weights: run tools/training_set"):
        tool.publish(run, "qfitlatent-chi-7.1", target)
    remember(run)
    tool.publish(run, "qfitlatent-chi-7.1", target)
    assert load_model(target).name == "qfitlatent-chi-7.1"
    with pytest.raises(SystemExit, match="is no name of a published model"):
        tool.publish(run, "chi-7", target)


def test_every_output_of_a_prediction_names_the_model_and_its_training(tmp_path, capsys):
    from qfitlatent import cli
    from qfitlatent.prediction.commands import EXAMPLE

    model, out = make_model(tmp_path), tmp_path / "out"
    assert cli.main(["predict", str(EXAMPLE), "-o", str(out), "--model", str(model)]) == 0
    scores = out / "scores.parquet"
    assert cli.main(["score", str(EXAMPLE), "-o", str(scores), "--model", str(model)]) == 0
    about = load_model(model).about
    assert f"model {about}\n" in capsys.readouterr().out
    for table in (out / "example.mixture.parquet", scores):
        cli.main(["describe", str(table)])
        assert f"made by the model {about}\n" in capsys.readouterr().out
    record = json.loads((tmp_path / "out/example.prediction.json").read_text())
    assert record["model"] == "simulated"
    assert record["model_version"] == about.version
    assert record["trained_on"] == "simulated proteins (data set simulated)"
    assert f"Model {about}." in " ".join((out / "example.html").read_text().split())
    assert "_qfitlatent.trained_on" in (out / "example_ensemble.cif").read_text()
    assert (
        "REMARK   1 TRAINED ON: simulated proteins"
        in (tmp_path / "out/example_ensemble.pdb").read_text()
    )
    assert "_qfitlatent.model" in (tmp_path / "out/example_ensemble.cif").read_text()
    assert "REMARK   1 MODEL: simulated" in (tmp_path / "out/example_ensemble.pdb").read_text()
