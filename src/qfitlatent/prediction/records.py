"""What a prediction reads, and what passes between its processes; no torch here."""

import errno
import os
import pickle
import stat
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from qfitlatent.base.config import settings
from qfitlatent.base.contained import Limits, Stopped, Watch, contained
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import (
    find_in_folder,
    printable,
    sha256_file,
    structure_id,
    where_structures_are,
)
from qfitlatent.joint.candidates import Densities
from qfitlatent.pages.reasons import explain
from qfitlatent.structure.preprocess import EntryRecords, PreprocessSettings, read_entry

MAX_NAME_BYTES = 190
"""Of an id: the endings of a result and of its temporary files fit behind it in 255 bytes."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of the disk that every other structure would meet, too."""


T = TypeVar("T")


class Unusable(QfitLatentError):
    """A structure that cannot be predicted; ``reason`` is one word for it."""

    def __init__(self, reason: str, sentence: str, trace: str = "") -> None:
        super().__init__(sentence)
        self.reason, self.trace = reason, trace


@dataclass(frozen=True)
class Chosen:
    """What of a structure is built anew.

    rebuilt (N,) bool, rows of the residues table; fix_complete: not what has all atoms of its side
    chain; was: of each row whose type was changed, the name it had.
    """

    rebuilt: np.ndarray
    fix_complete: bool = False
    was: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Input:
    """A structure that was read, its tables (``tables.schemas``), and what is built anew in it."""

    entry: str
    path: Path
    sha256: str
    tables: dict[str, pa.Table]
    chosen: Chosen


@dataclass(frozen=True)
class Predicted:
    """Densities of n residues as arrays, ready to cross to another process.

    row (n,) of the residues table; weight (n,K), mean and kappa (n,K,4); entropy (n,);
    mode_weight (n,J) heaviest first and 0 where not valid; mode_chi (n,J,4); top_weight (n,) of the
    heaviest mode; p_heterogeneous (n,), nan of a model without it; heterogeneous (n,) bool: the
    residue may have altlocs. disagreement (n,) of passes, nan without; unlike_training (n,), nan
    where it is not known; nearest: of each chain in turn (``Runner.nearest``), empty where nothing
    is known of the training set, and no_reference says why; rotamer_entropy (n,);
    observables (n,W), values of the kinds that the residue's type has
    (``chemistry/observables.py``), then nan.
    """

    row: np.ndarray
    weight: np.ndarray
    mean: np.ndarray
    kappa: np.ndarray
    entropy: np.ndarray
    top_weight: np.ndarray
    mode_weight: np.ndarray
    mode_chi: np.ndarray
    p_heterogeneous: np.ndarray
    heterogeneous: np.ndarray
    disagreement: np.ndarray
    unlike_training: np.ndarray
    nearest: tuple[dict[str, Any], ...]
    no_reference: str
    rotamer_entropy: np.ndarray
    observables: np.ndarray


@dataclass(frozen=True)
class Drawn:
    """Draws from the densities of n residues, of which joint states are made.

    row (n,) of the residues table; densities of the n residues; chi (P,n,4) radians; num joint
    states are asked for.
    """

    row: np.ndarray
    densities: Densities
    chi: np.ndarray
    num: int


@dataclass(frozen=True)
class Scored:
    """Densities of n residues, and M side chains that were observed.

    row (n,) of the residues table; table: the columns of ``columns.SCORES`` that ask for no
    neighbours, M rows; residue (M,) 0..n-1; chi (M,4) radians; is_whole (M,) bool: all chi are
    observed.
    """

    row: np.ndarray
    densities: Densities
    table: pa.Table
    residue: np.ndarray
    chi: np.ndarray
    is_whole: np.ndarray


@dataclass(frozen=True)
class Written:
    """What became of one structure; ``error`` says why there are no files, ``reason`` in a word."""

    entry: str
    path: Path
    reason: str = ""
    error: str = ""
    traceback: str = ""
    notes: tuple[str, ...] = ()
    num_residues: int = 0
    num_built: int = 0
    num_heterogeneous: int = 0
    num_looks: int = 0


def listed(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """The paths; one by itself, also as a text, is a list of one."""
    return [Path(paths)] if isinstance(paths, str | Path) else list(map(Path, paths))


def find_structures(
    paths: str | Path | Iterable[str | Path], pattern: str = "*"
) -> dict[Path, str]:
    """The files given, and for a folder those below it that match the pattern, each with its id.

    Of equal names in different folders the folder becomes part of the id.

    Raises QfitLatentError for a path that does not exist, and a folder without structures.
    """
    found: dict[Path, str] = {}
    for path in listed(paths):
        if path.is_dir():
            inside = find_in_folder(path, pattern)
            if not inside:
                raise QfitLatentError(
                    f"The folder {path} holds no structure that matches {pattern!r}: "
                    f"{where_structures_are(path)}."
                )
            found |= inside
        elif os.path.lexists(path):
            found[path] = structure_id(path)
        else:
            raise QfitLatentError(f"There is no file {path}: correct the path.")
    times = Counter(found.values())
    return {
        path: entry if times[entry] == 1 else _with_folder(path, entry)
        for path, entry in found.items()
    }


def _with_folder(path: Path, entry: str) -> str:
    """The id behind the name of the file's folder, unless it begins with it."""
    folder = Path(os.path.abspath(path)).parent.name
    return entry if entry.startswith(folder) else f"{folder}_{entry}"


def is_batch(paths: str | Path | Iterable[str | Path]) -> bool:
    """Whether several structures are meant, of which one may fail."""
    given = listed(paths)
    return len(given) > 1 or any(path.is_dir() for path in given)


def unusable_names(found: Mapping[Path, str]) -> dict[Path, Written]:
    """Structures whose results could not be named, each with its reason."""
    by_id: dict[str, list[Path]] = {}
    for path, name in found.items():
        by_id.setdefault(name, []).append(path)
    failed: dict[Path, Written] = {}
    for entry, paths in by_id.items():
        num_bytes = len(os.fsencode(entry))
        named = " and ".join(map(printable, paths))
        if len(paths) > 1:
            reason = "same_name"
            error = f"{named} would both write {printable(entry)}: rename one of them."
        elif not entry or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in entry):
            reason = "bad_name"
            error = (
                f"{named!r} is no name for results: it is empty, or has bytes that are no UTF-8 or "
                "control characters; rename it."
            )
        elif num_bytes > MAX_NAME_BYTES:
            reason = "bad_name"
            error = (
                f"The name of {named} has {num_bytes} bytes without its ending, which leaves no "
                f"room for those of the results: use at most {MAX_NAME_BYTES}."
            )
        else:
            continue
        failed |= {path: Written(entry, path, reason, error) for path in paths}
    return failed


def read_input(path: Path, entry: str | None = None) -> Input:
    """Tables of one structure, read within the limits of the section ``preprocess``.

    ``entry`` is its id, by default that of the file by itself. Raises Unusable with what is wrong
    with the file.
    """
    entry = structure_id(path) if entry is None else entry
    (records,) = _read_within_limits([(path, entry)])
    return _input_of(path, entry, records)


def read_inputs(items: Sequence[tuple[Path, str]]) -> list[Input | Written]:
    """What ``read_input`` gives of each path and id, or what became of it.

    One process reads them all, and another goes on where one has to be stopped: to begin one takes
    longer than to read a small file.
    """
    found = zip(items, _read_within_limits(items), strict=True)
    return [attempt(_input_of, path, path, entry, records) for (path, entry), records in found]


def _input_of(path: Path, entry: str, records: EntryRecords | Written | Stopped) -> Input:
    if isinstance(records, Stopped):
        sentence = f"{path} cannot be used: reading it: {records}."
        raise Unusable("beyond_limit", sentence) from records
    if isinstance(records, Written):
        raise Unusable(records.reason, records.error, records.traceback)
    try:
        sha256 = sha256_file(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    tables = {
        name: getattr(records, name) for name in ("residues", "frames", "conformers", "rejected")
    }
    for row in tables["rejected"].to_pylist():
        if row["scope"] == "entry":
            sentence = f"{path} cannot be used: {explain(row)}"
            raise Unusable(row["reason"], sentence, records.traceback)
    if tables["frames"]["rotation"].null_count == len(tables["frames"]):
        raise Unusable(
            "no_backbone",
            f"{path} cannot be used: no protein residue has all of N, CA and C, "
            "so there is no backbone to predict on.",
        )
    chosen = Chosen(np.ones(len(tables["residues"]), dtype=bool))
    return Input(entry, path, sha256, tables, chosen)


def _read_within_limits(
    items: Sequence[tuple[Path, str]],
) -> Iterator[EntryRecords | Written | Stopped]:
    """Of each path and id its records, or what became of it."""
    limits = settings(PreprocessSettings, "preprocess")
    done = 0
    while done < len(items):
        work = partial(_read, items[done:])
        try:
            for piece in contained(work, Limits(limits.max_seconds, limits.max_memory_gb)):
                done += 1
                yield pickle.loads(piece)
        except Stopped as stopped:
            done += 1
            yield stopped


def _read(items: Sequence[tuple[Path, str]], watch: Watch) -> Iterator[bytes]:
    for number, (path, entry) in enumerate(items):
        watch(number, number)
        yield pickle.dumps(attempt(_read_regular, path, path, entry))


def _read_regular(path: Path, entry: str) -> EntryRecords:
    try:
        is_regular = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not is_regular:
        raise Unusable("no_file", f"{path} is no regular file: give a PDB or mmCIF file.")
    return read_entry(path, entry)


def _unreadable(path: Path, error: OSError) -> Unusable:
    return Unusable("unreadable", f"{path} cannot be read: {error.strerror}.")


def attempt(step: Callable[..., T], path: Path, *arguments: Any) -> T | Written:
    """What the step gives, or else what became of the structure: one file stops no others.

    Raises QfitLatentError where the disk has no room, which no other structure would find, either.
    """
    trace = ""
    try:
        return step(*arguments)
    except Unusable as error:
        reason, sentence, trace = error.reason, str(error), error.trace
    except QfitLatentError as error:
        reason, sentence = "unusable", str(error)
    except MemoryError:
        reason, sentence = "memory", f"{path} needs more memory than there is for it."
    except OSError as error:
        where = error.filename or path
        if error.errno in NO_ROOM:
            raise QfitLatentError(
                f"{where} cannot be written: {error.strerror}; make room, and run the same command "
                "again."
            ) from error
        reason = "unwritable"
        sentence = f"The results of {path} cannot be written: {where}: {error.strerror}."
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        reason = "unexpected_error"
        sentence = f"{path} met an unforeseen error ({what:.300}); please report it."
        trace = traceback.format_exc()
    return Written(structure_id(path), path, reason, sentence, trace)
