"""What the results of a stage were made from: settings, code and inputs, as a file beside them.

Snakemake keeps the parameters of finished jobs in the folder it runs in. Results that are copied
into another clone, or used from another folder, come without that memory. So every stage has one
more input, ``made_from/<stage>.<digest>.json``: what the stage is made from, under the digest of
it. It is written when the workflow is planned and it is not there, and is then newer than results
that were made from anything else, so that the stage runs again. A job that starts removes the
records of the stage's other digests, because its results are no longer made from those.

A digest covers the parameters of the rule, the code that it runs, the user's files that it reads
(name, size and time of change) and the digests of the stages before it. Of a path only the last
name counts, so that a folder of results can be moved.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json


def digest_of(facts: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that name what a stage is made from."""
    text = json.dumps(_without_folders(facts), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_folders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item) for item in value]
    if isinstance(value, str) and "/" in value and "://" not in value:
        return value.rstrip("/").rpartition("/")[2]
    return value


def file_facts(path: str | Path | None) -> list[Any]:
    """Name, size in bytes and time of change in ns; of a folder those of its files; or nothing."""
    if path is None or not os.path.exists(path):
        return []
    if os.path.isdir(path):
        return [file_facts(file.path) for file in sorted(os.scandir(path), key=lambda f: f.name)]
    status = os.stat(path)
    return [os.path.basename(path), status.st_size, status.st_mtime_ns]


def record(folder: str | Path, stage: str, facts: Mapping[str, Any]) -> str:
    """The path of the record of ``facts``, which is written where it is absent.

    Says on standard error what is different where the stage has results made from something else.

    Raises:
        QfitLatentError: the folder cannot be written.
    """
    path = Path(folder) / "made_from" / f"{stage}.{digest_of(facts)}.json"
    if not path.exists():
        for other in _records(path):
            difference = _difference(_read(other), _without_folders(facts))
            if difference:
                print(f"{stage} is made again: {difference}.", file=sys.stderr)
                break
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(_without_folders(facts), sort_keys=True, indent=1), "utf-8")
        except OSError as error:
            raise QfitLatentError(
                f"{path.parent} cannot be written ({error.strerror}): make {folder} writable, or "
                "choose another results_dir."
            ) from error
    return str(path)


def forget_others(path: str | Path) -> None:
    """Removes the records of the stage's other digests: its results are being replaced."""
    for other in _records(Path(path)):
        other.unlink(missing_ok=True)


def _records(path: Path) -> list[Path]:
    """Records of the same stage beside ``path``; first the oldest, that of the results, before
    those of runs that were only planned."""
    stage = path.name.rsplit(".", 2)[0]
    found = [other for other in path.parent.glob(f"{stage}.*.json") if other.name != path.name]
    own = [other for other in found if other.name.rsplit(".", 2)[0] == stage]
    return sorted(own, key=lambda other: other.stat().st_mtime_ns)


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None  # cut short when the machine went down; its name alone decides


def _difference(old: Any, new: Any, key: str = "") -> str:
    """The first value that differs, in words; empty where only a stage before has changed."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        shown = [text if len(text) < 60 else f"{text[:50]}..." for text in (repr(old), repr(new))]
        return f"{key} was {shown[0]} and is {shown[1]}" if key and old != new else ""
    for name in sorted(old.keys() | new.keys()):
        if name != "after" and old.get(name) != new.get(name):
            difference = _difference(old.get(name), new.get(name), f"{key}.{name}".lstrip("."))
            if difference:
                return difference.removeprefix("settings.")
    return ""
