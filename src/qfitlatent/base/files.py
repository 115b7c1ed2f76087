"""Files that are there completely or not at all."""

import errno
import fnmatch
import hashlib
import json
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

STRUCTURE_SUFFIXES = (".cif", ".mmcif", ".pdb", ".ent")
"""Endings of structure files, in any case, plain or with .gz behind."""

STALE_AGE_S = 3600.0
"""Temporary files that nobody has written to for so long belong to a process that was killed."""


def structure_stem(name: str) -> str | None:
    """The id in the name of a structure file, ``1abc.v2`` of ``1abc.v2.cif.gz``; else None."""
    stem = name[:-3] if name.lower().endswith(".gz") else name
    root, suffix = os.path.splitext(stem)
    return root if root and suffix.lower() in STRUCTURE_SUFFIXES else None


def structure_id(path: str | Path, top: str | Path | None = None, *, equal: bool = False) -> str:
    """The id that the place of a structure file gives it.

    That is its name without the ending of its format and .gz, behind those of the folders between
    it and ``top``, the folder that was searched: ``b_c`` of ``top/b/c.pdb``, and ``b_qFit``, not
    ``b_b_qFit``, of ``top/b/b_qFit.pdb``. A name that tells nothing, because qFit gives it to all
    its models or because all files have it (``equal``), gives way to that of the folder.
    """
    path = Path(path)
    stem = structure_stem(path.name) or path.name
    folders = () if top is None else path.relative_to(top).parts[:-1]
    if _QFIT_NAME.fullmatch(stem) or (equal and folders):
        return "_".join(folders) or Path(os.path.abspath(path)).parent.name or stem
    if folders and stem.startswith(folders[-1]):
        folders = folders[:-1]
    return "_".join((*folders, stem))


_QFIT_NAME = re.compile(r"multiconformer_model\d*")


def find_in_folder(folder: str | Path, pattern: str) -> dict[Path, str]:
    """Structure files below a folder that match the pattern, sorted, each with its id.

    ``*`` are files of the folder itself, ``*/*.pdb`` those of the folders in it, and ``**`` stands
    for any folders between. Hidden files and folders are left out.

    Raises:
        OSError: the folder cannot be read.
    """
    *folders, name = pattern.split("/")
    found = sorted(
        item.path
        for inside in dict.fromkeys(_folders(str(folder), folders))
        for item in _items(inside)
        if structure_stem(item.name) and fnmatch.fnmatchcase(item.name, name) and not item.is_dir()
    )
    equal = not any(letter in name for letter in "*?[")
    return {Path(path): structure_id(path, folder, equal=equal) for path in found}


def _folders(top: str, patterns: Sequence[str]) -> Iterator[str]:
    if not patterns:
        yield top
        return
    first, *rest = patterns
    if first == "**":
        yield from _folders(top, rest)
    for item in _items(top):
        if first == "**" and item.is_dir(follow_symlinks=False):
            yield from _folders(item.path, patterns)
        elif first != "**" and fnmatch.fnmatchcase(item.name, first) and item.is_dir():
            yield from _folders(item.path, rest)


def _items(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as items:
        return sorted((x for x in items if not x.name.startswith(".")), key=lambda x: x.name)


def where_structures_are(folder: str | Path) -> str:
    """What a user whose pattern finds nothing reads: the pattern of what is in folders below."""
    below = [path.relative_to(folder) for path in find_in_folder(folder, "**/*")]
    names = Counter(f"{'*/' * (len(path.parts) - 1)}{path.name}" for path in below)
    kinds = Counter(f"{'*/' * (len(path.parts) - 1)}*{path.suffix}" for path in below)
    if not below:
        return f"files end in {', '.join(STRUCTURE_SUFFIXES)}, plain or .gz"
    (name, num), (kind, num_kind) = names.most_common(1)[0], kinds.most_common(1)[0]
    pattern, num = (name, num) if num > 1 else (kind, num_kind)
    return f"the pattern {pattern!r} would find {num} of the {len(below)} that there are in all"


@contextmanager
def atomic_path(final: str | Path, *, flush: bool = True) -> Iterator[Path]:
    """A temporary path in the same folder, which becomes ``final`` when the block succeeds.

    The bytes are on disk (fsync) before the name is, unless ``flush`` is false. When the block
    raises, the temporary file goes and ``final`` is as it was.
    """
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(final)
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        if flush:
            with open(temporary, "r+b") as file:  # Windows flushes only what may be written to
                os.fsync(file.fileno())
        os.replace(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_paths(finals: Sequence[Path]) -> Iterator[list[Path]]:
    """Temporary paths that become ``finals``, all of them or none, when the block succeeds.

    The last one says that all are there: the old one goes before the others come. What the block
    does not write is not there afterwards, either. When the block raises, all is as it was.
    """
    temporaries = [_temporary(final) for final in finals]
    try:
        yield temporaries
        for final in finals:
            if final.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(final))
        finals[-1].unlink(missing_ok=True)
        for temporary, final in zip(temporaries, finals, strict=True):
            if temporary.exists():
                os.replace(temporary, final)
            else:
                final.unlink(missing_ok=True)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


def _temporary(final: Path) -> Path:
    return final.with_name(f".{final.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def sweep(folder: str | Path, *, deep: bool = False) -> None:
    """Removes what killed processes left of :func:`atomic_path`; ``deep``: in folders inside, too.

    Their age tells, not their process id: it may be that of a process on another machine.
    """
    for root, folders, names in os.walk(folder):
        for name in names:
            if name.endswith(".tmp") and _TEMPORARY.fullmatch(name):
                path = os.path.join(root, name)
                with suppress(OSError):  # removed by another process, or not ours to remove
                    if time.time() - os.lstat(path).st_mtime > STALE_AGE_S:
                        os.unlink(path)
        if not deep:
            folders.clear()


_TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]+\.tmp", re.DOTALL)


def find_beside(path: str | Path, anchor: str | Path) -> Path:
    """``path`` where it is; else below the first folder above ``anchor`` that has it.

    A file of results names others relative to the folder in which they were made. Used from
    another folder, they are found from the file that names them.
    """
    path = Path(path)
    if path.is_absolute() or path.exists():
        return path
    above = (folder / path for folder in Path(anchor).resolve().parents)
    return next((found for found in above if found.exists()), path)


def printable(text: str | Path) -> str:
    """The text as any file can hold it, bytes of a file's name that are no UTF-8 as escapes."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


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
