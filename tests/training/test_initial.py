"""Training that starts from a model: its network, what of it stays, and how far it moves."""

import csv
import io

import pytest
import torch

from helpers.trainings import Killed, killed_at, make_config, run, write_tables
from qfitlatent.base import config as configuration
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.model import checkpoint
from qfitlatent.training.average import average_runs
from qfitlatent.training.initial import initial_model
from qfitlatent.training.run import train_run


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder with data and a model that was trained on them."""
    folder = tmp_path_factory.mktemp("initial")
    write_tables(folder / "tables")
    run(folder, make_config(epochs=2), "first")
    return folder


def tuned(folder, name, **changes):
    """What was written to the log, the rows of metrics.csv, and both sets of weights."""
    config = make_config(**{"epochs": 2, "initial_model": str(folder / "first"), **changes})
    log = io.StringIO()
    train_run(config, folder / "tables", folder / "split.parquet", folder / name, log=log)
    with open(folder / name / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    weights = (checkpoint.load_model(folder / n).model.state_dict() for n in ("first", name))
    return log.getvalue(), rows, *weights


def test_the_network_is_that_of_the_initial_model(first):
    """Whatever the section ``model`` says, and so does the run's configuration."""
    tuned(first, "network", epochs=1, d_s=24, num_blocks=3)
    assert configuration.load(first / "network" / "config.yaml")["model"] == make_config()["model"]
    learnt = [checkpoint.load_model(first / name).learnt for name in ("first", "network")]
    assert learnt[0].chains <= learnt[1].chains


def test_epoch_0_is_the_initial_model_and_is_kept_where_no_epoch_is_better(first):
    log, rows, before, after = tuned(first, "spoilt", learning_rate=3.0)
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    losses = [float(row["validation_loss"]) for row in rows]
    assert losses[0] == min(losses)
    assert float(rows[0]["distance_to_initial"]) == pytest.approx(0, abs=1e-5)
    assert float(rows[1]["distance_to_initial"]) > 0.1
    assert "epoch 1 is" in log
    assert "it forgets what that had learnt; lower train.learning_rate" in log
    for name, value in before.items():
        assert torch.equal(value, after[name]), name


def test_what_moves_little_is_not_said_to_forget(first):
    log, rows, _, _ = tuned(first, "gentle", learning_rate=1e-6)
    assert "forgets" not in log
    assert float(rows[2]["distance_to_initial"]) < 0.01


def test_frozen_parts_keep_their_weights_to_the_bit(first):
    _, _, before, after = tuned(first, "frozen", frozen_blocks=1, learning_rate=1e-3)
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert any(name.startswith("head.") for name in moved)
    assert all(name.startswith(("head.", "norm.")) for name in moved)
    with pytest.raises(QfitLatentError, match="frozen_blocks is 2, but the network has 1 blocks"):
        tuned(first, "too_many", frozen_blocks=2)


def test_a_fine_tuning_that_was_killed_resumes_to_the_same_bytes(first):
    tuned(first, "whole", epochs=3)
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, "Trainer:train_epoch", 3)
        with pytest.raises(Killed):
            tuned(first, "parts", epochs=3)
    tuned(first, "parts", epochs=3)
    whole, parts = ((first / n / "model.safetensors").read_bytes() for n in ("whole", "parts"))
    assert whole == parts


def test_a_member_of_an_average_can_be_the_initial_model(tmp_path):
    write_tables(tmp_path / "tables")
    config = make_config(epochs=1)
    config["model"] |= {"head": "autoregressive", "mean": "atan2", "head_hidden": 16}
    members = [run(tmp_path, config | {"seed": seed}, f"seed{seed}") for seed in (1, 2)]
    config["average"]["members"] = [str(member) for member in members]
    average_runs(config, tmp_path / "tables", tmp_path / "split.parquet", tmp_path / "average")
    settings = config["train"] | {"initial_model": str(tmp_path / "average")}
    second = initial_model(settings | {"initial_member": 2}).model.state_dict()
    for name, value in checkpoint.load_model(members[1]).model.state_dict().items():
        torch.testing.assert_close(second[name], value, atol=2e-3, rtol=1e-3)  # half precision
    with pytest.raises(QfitLatentError, match=r"is 3, but .* has 2: give 1 to 2"):
        initial_model(settings | {"initial_member": 3})


def test_the_shipped_model_can_be_the_initial_model():
    """As one network, in single precision."""
    settings = configuration.load({"train": {"initial_model": "shipped"}})
    start = initial_model(settings["train"])
    assert {p.dtype for p in start.model.parameters()} == {torch.float32}
    assert len(start.model.blocks) == start.config["model"]["num_blocks"]
