"""Training in several processes: through the workflow, and resumed with another number of them."""

import io
import re

import pytest

from helpers.trainings import Killed, killed_at, make_config, write_tables
from helpers.workflow_run import TINY, Checkout
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json
from qfitlatent.model.checkpoint import load_model
from qfitlatent.training.launch import train as launch_train
from qfitlatent.training.state import STATE_FILE


@pytest.fixture
def data(tmp_path):
    write_tables(tmp_path / "tables")
    return tmp_path


def launch(folder, config, threads=2):
    log = io.StringIO()
    launch_train(
        config,
        folder / "tables",
        folder / "split.parquet",
        folder / "run",
        threads=threads,
        log=log,
    )
    return log.getvalue()


@pytest.mark.slow
def test_the_rule_launches_as_many_processes_as_devices(tmp_path):
    config = TINY | {"train": {"epochs": 2, "device": "cpu", "devices": 2}}
    checkout = Checkout(tmp_path / "two", config)
    checkout.run("train")
    run = checkout.folder / "results" / "runs" / "tiny"
    manifest = read_json(run / "manifest.json")
    assert manifest["processes"] == 2
    assert not (run / "state").exists()
    assert load_model(run).model.config.d_s == 16
    rows = (run / "metrics.csv").read_text().splitlines()
    assert len(rows) == 3
    # Two processes take two proteins a step.
    steps = int(rows[-1].split(",")[1])
    assert steps == 2 * -(-manifest["num_train_entries"] // 2)
    assert "Nothing to be done" in checkout.run("train")


@pytest.mark.slow
def test_another_number_of_processes_is_refused_and_says_so(data, monkeypatch):
    killed_at(monkeypatch, "Trainer:train_epoch", 2)
    with pytest.raises(Killed):
        launch(data, make_config(devices=1))
    assert (data / "run" / STATE_FILE).is_file()
    with pytest.raises(QfitLatentError, match=re.escape("train.devices is 1 there and 2 here")):
        launch(data, make_config(devices=2))
    assert (data / "run" / STATE_FILE).is_file()
