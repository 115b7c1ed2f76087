"""Which file a model's name stands for, and what a model says of itself."""

import pytest

from qfitlatent.base import config
from qfitlatent.base.models import about_model, model_path, shipped_model_path


def test_a_name_a_run_folder_and_a_file_stand_for_a_file(tmp_path):
    shipped = shipped_model_path()
    assert model_path(None) == model_path("shipped") == model_path("qfitlatent-chi-2.1") == shipped
    assert model_path(tmp_path) == tmp_path / "model.safetensors"
    assert model_path("results/runs/later").name == "model.safetensors", "also before it is there"
    file = tmp_path / "any_name"
    file.write_bytes(b"")
    assert model_path(file) == file
    assert model_path("absent.safetensors").name == "absent.safetensors"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "simulated proteins (data set simulated)"),
        ({"dataset": "mine", "entries": {"source": "local", "folder": "x"}}, "structure files"),
        ({"entries": {"source": "rcsb", "ids": ["1abc"]}}, "entries of the PDB"),
        ({"entries": {"source": "pdb_redo", "ids": ["1abc"]}}, "entries of PDB-REDO"),
        (
            {"entries": {"source": "url", "ids": ["a"]}, "download": {"url": "http://x/{id}"}},
            "from an address",
        ),
        ({"train": {"initial_model": "shipped"}}, "starting from the model shipped"),
    ],
)
def test_a_model_says_what_it_was_trained_on(given, words):
    about = about_model("mine", config.load(given), "0123456789abcdef")
    assert str(about).startswith("mine 0123456789ab, trained on ")
    assert words in about.trained_on


def test_every_source_of_entries_has_its_words():
    sources = config.schema()["properties"]["entries"]["properties"]["source"]["enum"]
    settings = config.load()
    for source in sources:
        about_model("x", settings | {"entries": {"source": source}}, "")
