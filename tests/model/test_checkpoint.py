"""Model files that were damaged or edited: one sentence, before any memory is taken."""

import json
import struct

import pytest

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.models import shipped_model_path
from qfitlatent.model.checkpoint import HEADER_KEY, load_model


def split_file():
    """Header, our part of it, and the bytes of the weights of the shipped model."""
    data = shipped_model_path().read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    return header, json.loads(header["__metadata__"][HEADER_KEY]), data[8 + size :]


@pytest.mark.parametrize(
    "edit",
    [
        lambda ours: "{",
        lambda ours: "[" * 100_000,
        lambda ours: "3",
        lambda ours: json.dumps({"format_version": ours["format_version"]}),
        lambda ours: json.dumps(ours | {"format_version": ["1"] * 1000}),
        lambda ours: json.dumps(ours | {"config": None}),
        lambda ours: json.dumps(ours | {"config": {"model": ours["config"]["model"]}}),
        lambda ours: json.dumps(ours | {"sha256": "0"}),
    ],
)
def test_a_changed_header_is_one_sentence(edit, tmp_path):
    header, ours, weights = split_file()
    check(header | {"__metadata__": {HEADER_KEY: edit(ours)}}, weights, tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"d_z": "32"},
        {"num_heads": 0},
        {"dropout": float("nan")},
        {"dropout": float("inf")},
        {"kappa_min": -1},
        {"mean": ["atan2"]},
        {"features": None},
        {"features": [["burial"]]},
        {"colour": "blue"},
        {"d_s": 10**9},
        {"head_hidden": 2**62},
        {"num_components": 10**30},
        {"num_blocks": 10**8},
        {"num_query_points": 10**15},
    ],
)
def test_settings_that_fit_no_weights_are_one_sentence(values, tmp_path):
    header, ours, weights = split_file()
    ours["config"]["model"] |= values
    check(header | {"__metadata__": {HEADER_KEY: json.dumps(ours)}}, weights, tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1] + bytes([content[-1] ^ 0xFF]),
        lambda content: b"not a model",
    ],
)
def test_a_damaged_file_is_one_sentence(damage, tmp_path):
    refused(damage(shipped_model_path().read_bytes()), tmp_path)


def check(header, weights, folder):
    text = json.dumps(header).encode()
    refused(struct.pack("<Q", len(text)) + text + weights, folder)


def refused(content, folder):
    path = folder / "edited.safetensors"
    path.write_bytes(content)
    with pytest.raises(QfitLatentError, match="edited") as caught:
        load_model(path)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)
