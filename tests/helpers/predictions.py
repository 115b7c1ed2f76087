"""Untrained models, and what a prediction with them takes and leaves."""

import os
from pathlib import Path

import torch

from qfitlatent.base import config
from qfitlatent.model.checkpoint import save_model
from qfitlatent.model.network import QFitLatent
from qfitlatent.model.settings import ModelConfig
from qfitlatent.prediction.outputs import PREDICTION
from qfitlatent.prediction.records import Written
from qfitlatent.prediction.scene import Placement
from qfitlatent.prediction.settings import PredictionSettings
from qfitlatent.structure.origin import Origin
from qfitlatent.structure.written import finished, mmcif_text, pdb_text
from qfitlatent.tables.keys import fixed_list


def make_model(folder, head="mixture", **model):
    """A model file; these keys of the section ``model`` differ from the defaults."""
    settings = config.load([{"model": {"num_blocks": 2} | model}])
    if head == "autoregressive":
        settings["model"] |= {"head": head, "mean": "atan2"}
    torch.manual_seed(1)
    network = QFitLatent(ModelConfig.from_dict(settings["model"]))
    if head == "mixture" and settings["model"]["num_components"] == 5:
        with torch.no_grad():  # components of unequal weight, as a trained model has
            network.head.weight.bias.copy_(torch.tensor([2.0, 1.0, 0.0, -2.0, -4.0]))
            network.head.weight.weight.mul_(3)
    path = folder / f"{head}.safetensors"
    save_model(network, settings, path)
    return path


TINY = {"d_s": 16, "d_z": 4, "num_blocks": 1, "num_heads": 2, "num_components": 2}
"""Keys of the section ``model`` of the smallest network that predicts."""


def settings_of(**given):
    return config.settings(PredictionSettings, "predict", given)


def output_paths(out, entry):
    return [out / f"{entry}{suffix}" for suffix in PREDICTION]


def origin(name="made", confidence=None):
    """What a model says of itself where a test does not ask."""
    facts = {"model_sha256": "0" * 64, "input_sha256": "1" * 64, "trained_on": "nothing"}
    return Origin(name, "Side chains predicted", "made.pdb", "0.0", facts, confidence or {})


def both_texts(structure, document, about=None):
    """mmCIF and PDB text of a structure as ``predict`` writes it."""
    about = about or origin()
    model = finished(structure, about)
    return mmcif_text(model, about, document), pdb_text(model)


PLACE = ("chain", "author_number", "insertion_code", "name", "label_seq")


def placement_of(records, modes):
    """What ``modes``, a function of token (N,), gives on every residue that has a frame.

    It returns weight (N,J) and chi (N,J,4).
    """
    has_frame = records.frames["rotation"].is_valid()
    residues, frames = records.residues.filter(has_frame), records.frames.filter(has_frame)
    token = residues["token"].to_numpy()
    weight, chi = modes(token)
    return Placement(
        key=list(zip(*(residues[name].to_pylist() for name in PLACE), strict=True)),
        frame_altloc=frames["altloc"].to_pylist(),
        rotation=fixed_list(frames["rotation"], (3, 3)),
        translation=fixed_list(frames["translation_angstrom"], (3,)),
        token=token,
        weight=weight,
        chi=chi,
    )


def dies(item: tuple[Path]) -> str | Written:
    """A step of a worker process that a file named ``bad`` kills."""
    if item[0].name == "bad":
        os._exit(1)
    return item[0].name
