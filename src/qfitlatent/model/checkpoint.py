"""A trained model as one file that explains itself: weights, settings, format and checksum.

The file is safetensors. Its header holds, as JSON, ``format_version``, the resolved configuration,
the chains that were learnt from and the sha256 of the weights, so that a model copied away can be
used, and a damaged or foreign file is refused with a sentence. A published model also has its
``name`` there (docs/models.md); any other is called as its run.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.overrides import TorchFunctionMode

from qfitlatent.base import config as configuration
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path
from qfitlatent.base.models import About, about_model, is_published, model_path
from qfitlatent.model.average import build_model
from qfitlatent.model.calibration import Calibration
from qfitlatent.model.learnt import Learnt
from qfitlatent.model.network import DensityNetwork

FORMAT_VERSION = "1"
HEADER_KEY = "qfitlatent"
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to predict, the configuration it was trained with, and where it came from.

    ``name`` is that of a published model, or of the run. ``learnt`` is None for a model whose file
    does not say what it learnt from.
    """

    model: DensityNetwork
    config: dict[str, Any]
    path: Path
    about: About
    learnt: Learnt | None = None

    @property
    def name(self) -> str:
        return self.about.name


def save_model(
    model: DensityNetwork,
    config: Mapping[str, Any],
    path: str | Path,
    dtype: torch.dtype = torch.float32,
    learnt: Learnt | None = None,
) -> None:
    """Writes the weights, in ``dtype``, and ``config``, the whole configuration, atomically."""
    weights = {
        name: value.detach().to("cpu", dtype).contiguous() for name, value in _state(model).items()
    }
    header = {
        "format_version": FORMAT_VERSION,
        "config": dict(config),
        "learnt": None if learnt is None else learnt.to_dict(),
        "sha256": _digest(weights),
    }
    if model.calibration is not None:
        header["calibration"] = model.calibration.to_dict()
    # One metadata key: safetensors writes several in an order that changes from run to run.
    content = save(weights, {HEADER_KEY: json.dumps(header, sort_keys=True)})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_calibration(path: str | Path, calibration: Calibration) -> None:
    """Sets the calibration in the header of a model file; the weights stay, to the bit."""
    with safe_open(path, "pt", device="cpu") as file:
        header = json.loads(file.metadata()[HEADER_KEY])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header["calibration"] = calibration.to_dict()
    content = save(weights, {HEADER_KEY: json.dumps(header, sort_keys=True)})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


class _Undrawn(TorchFunctionMode):
    """Initial values are left out where weights take their place.

    What is not written takes no memory, so that a header that promises a network beyond all bounds
    does no harm. (The meta device would do, but imports torch's compiler, which takes longer than
    all else between a command and its first result.)
    """

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple = (), named: dict | None = None
    ) -> Any:
        if getattr(function, "__name__", "") in ("normal_", "uniform_", "zero_", "fill_"):
            return arguments[0] if arguments else (named or {})["tensor"]
        return function(*arguments, **(named or {}))


def load_model(source: str | Path | None = None, device: str = "cpu") -> LoadedModel:
    """The model of a run folder or model file, or the published one of this name.

    Without a source it is the one that ships. The header is compared with the weights before either
    takes memory.

    Raises QfitLatentError: no such file or published model, not one of ours, of another format
    version, damaged, or of another architecture than its own settings say.
    """
    is_name = is_published(source)
    path = model_path(source)
    if not path.is_file():
        raise QfitLatentError(
            f"There is no model at {path}: give a run folder that training has finished, "
            "a model.safetensors file, the name of the model that ships, or the word shipped."
        )
    try:
        with safe_open(path, "pt", device="cpu") as file:
            header = _header((file.metadata() or {}).get(HEADER_KEY, ""), path)
            if is_name and header["name"] != str(source):
                raise QfitLatentError(
                    f"This version of qfitlatent ships {header['name']} and not {source}: install "
                    "the version that ships it (docs/models.md), or give the file."
                )
            shapes = {n: tuple(file.get_slice(n).get_shape()) for n in file.keys()}  # noqa: SIM118
            config, model = _matching_model(header["config"], shapes, path)
            about = about_model(header["name"], config, header["sha256"])
            weights = {name: file.get_tensor(name) for name in shapes}
    except (SafetensorError, OSError) as error:
        raise QfitLatentError(
            f"{path} is not a readable model ({error}): it may be truncated; copy it again."
        ) from error
    if _digest(weights) != header["sha256"]:
        raise QfitLatentError(f"The weights in {path} do not match their checksum: copy it again.")
    load_weights(model, weights, path)
    model.calibrate(header["calibration"])
    ready = model.to(device).eval().requires_grad_(False)
    return LoadedModel(ready, config, path, about, header["learnt"])


def _header(text: str, path: Path) -> dict[str, Any]:
    """What ``save_model`` wrote about the weights."""
    try:
        header = json.loads(text, parse_constant=lambda name: None)  # no NaN, no infinity
        version = header["format_version"]
        if version == FORMAT_VERSION:
            config = dict(header["config"])
            name = header.get("name", config["run"])
            if not PLAIN_NAME.fullmatch(name):
                raise ValueError(f"{name} is no name")
            known, calibration = header.get("learnt"), header.get("calibration")
            return {
                "calibration": calibration and Calibration.from_dict(calibration),
                "config": config,
                "learnt": None if known is None else Learnt.from_dict(known),
                "sha256": header["sha256"],
                "name": name,
            }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise QfitLatentError(
            f"{path} was not written by qfitlatent, or its header was changed: it lacks format "
            "version, configuration or checksum; copy it again."
        ) from error
    raise QfitLatentError(
        f"{path} has model format {version!s:.20} and this version of qfitlatent "
        f"reads {FORMAT_VERSION}: use the version that wrote it."
    )


def _matching_model(
    config: dict[str, Any], shapes: Mapping[str, tuple[int, ...]], path: Path
) -> tuple[dict[str, Any], DensityNetwork]:
    """The header's configuration, and its network, which has weights of these names and shapes.

    A key that is younger than the model has its default, which is what was done before it.
    """
    try:
        about_model("", config, "")
        sections = ("model", "average")
        checked = configuration.load({name: config[name] for name in sections})
        config = config | {name: checked[name] for name in sections}
        num_blocks = config["model"]["num_blocks"] * max(1, len(config["average"]["members"]))
        if num_blocks > len(shapes):
            raise QfitLatentError(f"{num_blocks} blocks have more than {len(shapes)} weights.")
        with _Undrawn():
            model = build_model(config)
    except QfitLatentError as error:
        raise QfitLatentError(f"{path} has settings that make no model: {error}") from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise QfitLatentError(
            f"{path} has settings that make no model ({type(error).__name__} while it was built): "
            "copy it again, or use the version that wrote it."
        ) from error
    _compare_shapes(model, shapes, path)
    return config, model


def load_weights(model: DensityNetwork, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Weights into a model of the same architecture; QfitLatentError names the first difference."""
    _compare_shapes(model, {name: tuple(value.shape) for name, value in weights.items()}, path)
    model.load_state_dict(dict(weights), strict=False)  # the names were compared above


def _compare_shapes(
    model: DensityNetwork, shapes: Mapping[str, tuple[int, ...]], path: str | Path
) -> None:
    own = {name: tuple(value.shape) for name, value in _state(model).items()}
    for name in sorted(own.keys() | shapes.keys()):
        if own.get(name) != shapes.get(name):
            raise QfitLatentError(
                f"{path} is a checkpoint of another architecture: {name} is "
                f"{shapes.get(name, 'absent')} there and {own.get(name, 'absent')} in the model of "
                "this configuration. Use its own settings under `model`, or another `run` name."
            )


def _state(model: DensityNetwork) -> dict[str, Tensor]:
    """Without what an average of models shares with its members."""
    return {n: v for n, v in model.state_dict().items() if not n.startswith("head.heads.")}


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name]
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
