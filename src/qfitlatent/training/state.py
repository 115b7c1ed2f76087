"""What an interrupted training resumes from: ``<run>/state/``.

``last.pt`` is the state after the last finished epoch, ``best.pt`` the weights of the best one. It
is no output of the workflow, because Snakemake deletes outputs of a failed job. A file carries the
sha256 of its content, so that one that was damaged is noticed, whatever was damaged: training then
starts afresh and says so.
"""

import hashlib
import io
import pickle
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path

STATE_FILE = "state/last.pt"
BEST_FILE = "state/best.pt"
RESULT_SECTIONS = ("model", "train", "seed", "dataset")
"""Parts of the configuration that decide the weights: a resume needs them unchanged."""

CONSTANTS = {
    "model": {"max_relative_position": 32, "attention": "auto"},
    "train": {"members": [], "dropout_passes": 0, "deterministic": True},
}
"""Keys that are none any more, with the value that they now have everywhere: a training that was
interrupted when they were still keys goes on."""

_MAGIC = b"qfitlatent-state sha256 "


def save_tensors(value: Any, path: Path) -> None:
    """``value``, tensors in dictionaries and lists, with the sha256 of its bytes before it."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    content = buffer.getvalue()
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(_MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n")
        file.write(content)


def load_tensors(path: Path) -> Any:
    """What ``save_tensors`` wrote, or plain ``torch.save``.

    Raises:
        ValueError: the file is damaged or none of ours.
    """
    content = path.read_bytes()
    if content.startswith(_MAGIC):
        head, _, content = content.partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != head.removeprefix(_MAGIC):
            raise ValueError("its content does not match its checksum")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # What torch raises for bytes that are no archive of its own; it has no error of its own.
    except (pickle.UnpicklingError, RuntimeError, LookupError, EOFError, TypeError) as error:
        raise ValueError("it is no archive of tensors") from error


def identity_of(config: Mapping[str, Any], world: int, data: Mapping[str, str]) -> dict[str, Any]:
    """What must be the same for a resume; ``data`` is the sha256 of each file of the data set."""
    return {name: config[name] for name in RESULT_SECTIONS} | {"world": world, "data": dict(data)}


def read_state(run_dir: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The state to resume from; None starts afresh, which is said where there was a state.

    Raises:
        QfitLatentError: the state is that of another configuration.
    """
    path = run_dir / STATE_FILE
    if not path.is_file():
        return None
    try:
        state = load_tensors(path)
        held = _without_constants(state["identity"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _say_afresh(f"{path} cannot be resumed from ({error})")
        return None
    settings, own = ({n: x for n, x in part.items() if n != "data"} for part in (held, identity))
    difference = first_difference(settings, own)
    if difference is not None:
        raise QfitLatentError(
            f"The run folder {run_dir} holds a training with another configuration "
            f"({difference}): choose another `run` name, or delete {run_dir / 'state'} to "
            "start again."
        )
    if held["data"] != identity["data"]:
        names = held["data"].keys() | identity["data"].keys()
        other = [n for n in sorted(names) if held["data"].get(n) != identity["data"].get(n)]
        _say_afresh(f"{path} was trained with another {', '.join(other)}")
        return None
    try:
        load_tensors(run_dir / BEST_FILE)
    except (OSError, ValueError) as error:
        _say_afresh(f"{run_dir / BEST_FILE} cannot be resumed from ({error})")
        return None
    return state


def clear(run_dir: Path) -> None:
    """Removes the state, first the file that a resume looks for: a kill leaves no half of it."""
    (run_dir / STATE_FILE).unlink(missing_ok=True)
    shutil.rmtree(run_dir / "state", ignore_errors=True)


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> str | None:
    """The first key, in the order of names, with another value, in words."""
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found = first_difference(a, b, f"{path}{key}.")
            if found:
                return found
        elif a != b:
            return f"{path}{key} is {a} there and {b} here"
    return None


def _without_constants(identity: Mapping[str, Any]) -> dict[str, Any]:
    held = dict(identity)
    for section, constants in CONSTANTS.items():
        held[section] = {
            key: value
            for key, value in identity[section].items()
            if key not in constants or constants[key] != value
        }
    return held


def _say_afresh(reason: str) -> None:
    print(f"{reason}: training starts afresh.", file=sys.stderr)
