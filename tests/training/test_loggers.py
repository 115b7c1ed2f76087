"""A function of the user's is told of every epoch, by stand-ins for wandb and MLflow."""

import csv
import sys
import types

import pytest

from helpers.trainings import make_config, run, write_tables
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.training.loggers import VARIABLE, on_epoch

LOGGER = """\
import stub_wandb

def log(row, config):
    stub_wandb.log(config["run"], dict(row))

def fails(row, config):
    raise RuntimeError("the server is away")

number = 3
"""


@pytest.fixture
def told(tmp_path, monkeypatch):
    """What the stand-in was told, and a folder to work in that holds the user's module."""
    (tmp_path / "logger_of_the_user.py").write_text(LOGGER)
    monkeypatch.chdir(tmp_path)
    calls = []
    stub = types.ModuleType("stub_wandb")
    stub.log = lambda *told: calls.append(told)
    monkeypatch.setitem(sys.modules, "stub_wandb", stub)
    yield calls
    sys.modules.pop("logger_of_the_user", None)


def test_each_epoch_is_told_as_metrics_csv_has_it(told, tmp_path, monkeypatch):
    write_tables(tmp_path / "set" / "tables")
    config = make_config(epochs=2)
    silent = run(tmp_path / "set", config, "silent")
    assert told == []
    monkeypatch.setenv(VARIABLE, "logger_of_the_user:log")
    folder = run(tmp_path / "set", config, "told")
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for _, row in told] == [1, 2]
    for (name, row), written in zip(told, rows, strict=True):
        assert name == config["run"]
        # A figure that the validation set does not have is an empty field.
        there = {key: text for key, text in written.items() if text}
        assert {key: f"{value:.6g}" for key, value in row.items()} == there
    weights = "model.safetensors"
    assert (folder / weights).read_bytes() == (silent / weights).read_bytes()


def test_an_error_of_the_logger_stops_and_the_training_goes_on_later(told, tmp_path, monkeypatch):
    write_tables(tmp_path / "set" / "tables")
    config = make_config(epochs=2)
    whole = run(tmp_path / "set", config, "whole")
    monkeypatch.setenv(VARIABLE, "logger_of_the_user:fails")
    with pytest.raises(RuntimeError, match="the server is away"):
        run(tmp_path / "set", config, "stopped")
    monkeypatch.setenv(VARIABLE, "logger_of_the_user:log")
    stopped = run(tmp_path / "set", config, "stopped")
    assert [row["epoch"] for _, row in told] == [2], "the first was safe"
    weights = "model.safetensors"
    assert (stopped / weights).read_bytes() == (whole / weights).read_bytes()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no_such_module:log", "No module named 'no_such_module'"),
        ("logger_of_the_user:nothing", "nothing"),
        ("logger_of_the_user", "give MODULE:FUNCTION"),
        (":log", "give MODULE:FUNCTION"),
        ("logger_of_the_user:number", "which is no function"),
    ],
)
def test_a_logger_that_is_none_is_one_sentence(told, monkeypatch, text, words):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(QfitLatentError, match=VARIABLE) as caught:
        on_epoch()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
