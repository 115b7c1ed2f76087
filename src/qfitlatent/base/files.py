"""Files that are there completely or not at all."""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(final: str | Path) -> Iterator[Path]:
    """A temporary path in the same folder, which becomes ``final`` when the block succeeds.

    The bytes are on disk (fsync) before the name is. When the block raises, the temporary file
    goes and ``final`` is as it was.
    """
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sha256_file(path: str | Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: str | Path, text: str) -> None:
    """``text`` as UTF-8 with the line ends that it has, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8", newline="")


def write_json(path: str | Path, value: Any) -> None:
    """``value`` as JSON with sorted keys, atomically."""
    write_text(path, json.dumps(value, sort_keys=True, indent=2) + "\n")


def read_json(path: str | Path) -> Any:
    return json.loads(Path(path).read_text("utf-8"))
