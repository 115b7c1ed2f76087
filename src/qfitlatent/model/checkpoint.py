"""A trained model as one file that explains itself: weights, settings, format and checksum.

The file is safetensors. Its header holds, as JSON, ``format_version``, the resolved configuration
and the sha256 of the weights, so that a model copied away can be used, and a damaged or foreign
file is refused with a sentence.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path
from qfitlatent.model.average import build_model
from qfitlatent.model.network import QFitLatent

FORMAT_VERSION = "1"


MODEL_FILE = "model.safetensors"


HEADER_KEY = "qfitlatent"


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to predict, the configuration it was trained with, and where it came from."""

    model: QFitLatent
    config: dict[str, Any]
    path: Path


def shipped_model_path() -> Path:
    """The pretrained model inside the package."""
    return Path(str(files("qfitlatent").joinpath("data/pretrained", MODEL_FILE)))


def save_model(
    model: QFitLatent,
    config: Mapping[str, Any],
    path: str | Path,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes the weights, in ``dtype``, and ``config``, the whole configuration, atomically."""
    weights = {
        name: value.detach().to("cpu", dtype).contiguous() for name, value in _state(model).items()
    }
    header = {
        "format_version": FORMAT_VERSION,
        "config": dict(config),
        "sha256": _digest(weights),
    }
    # One metadata key: safetensors writes several in an order that changes from run to run.
    content = save(weights, {HEADER_KEY: json.dumps(header, sort_keys=True)})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def load_model(source: str | Path | None = None, device: str = "cpu") -> LoadedModel:
    """The model of a run folder or model file; of the shipped one by default.

    Raises QfitLatentError: no such file, not one of ours, of another format version, damaged, or
    of another architecture than its own settings say.
    """
    path = shipped_model_path() if source is None else Path(source)
    if path.is_dir():
        path = path / MODEL_FILE
    if not path.is_file():
        raise QfitLatentError(
            f"There is no model at {path}: give a run folder that training has finished, "
            "or a model.safetensors file."
        )
    try:
        with safe_open(path, "pt", device="cpu") as file:
            metadata = json.loads((file.metadata() or {}).get(HEADER_KEY, "{}"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise QfitLatentError(
            f"{path} is not a readable model ({error}): it may be truncated; copy it again."
        ) from error
    if "format_version" not in metadata:
        raise QfitLatentError(f"{path} was not written by qfitlatent: it has no format version.")
    if metadata["format_version"] != FORMAT_VERSION:
        raise QfitLatentError(
            f"{path} has model format {metadata['format_version']} and this version of qfitlatent "
            f"reads {FORMAT_VERSION}: use the version that wrote it."
        )
    if _digest(weights) != metadata["sha256"]:
        raise QfitLatentError(f"The weights in {path} do not match their checksum: copy it again.")
    config = metadata["config"]
    model = build_model(config)
    load_weights(model, weights, path)
    return LoadedModel(model.to(device).eval().requires_grad_(False), config, path)


def load_weights(model: QFitLatent, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Weights into a model of the same architecture; QfitLatentError names the first difference."""
    own = _state(model)
    for name in sorted(own.keys() | weights.keys()):
        ours, theirs = own.get(name), weights.get(name)
        if ours is None or theirs is None or ours.shape != theirs.shape:
            shapes = ["absent" if w is None else tuple(w.shape) for w in (theirs, ours)]
            raise QfitLatentError(
                f"{path} is a checkpoint of another architecture: {name} is {shapes[0]} there and "
                f"{shapes[1]} in the model of this configuration. Use its own settings under "
                "`model`, or another `run` name."
            )
    model.load_state_dict(dict(weights), strict=False)  # the names were compared above


def _state(model: QFitLatent) -> dict[str, Tensor]:
    """Without what an average of models shares with its members."""
    return {n: v for n, v in model.state_dict().items() if not n.startswith("head.heads.")}


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name]
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
