"""Which entries a data set has: ids, lists, folders and shards.

An entry of an archive (sources rcsb and pdb_redo) has a PDB id: 4 characters, or the extended
form ``pdb_`` and 8, in any case. ``pdb_00001abc`` and ``1ABC`` name one entry and are both
written ``1abc``. Entries of the other sources have an id of their user's choice, which also
becomes part of file names: letters, digits, ``_``, ``.`` and ``-``.

Nothing here reads a structure or asks the network, so a list of 10,000 ids costs little when
Snakemake plans its jobs.
"""

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import find_in_folder, printable, where_structures_are

ARCHIVE_SOURCES = ("rcsb", "pdb_redo")
_PDB_ID = re.compile(r"[0-9][a-z0-9]{3}|pdb_[a-z0-9]{8}")
_FREE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class EntryRef(NamedTuple):
    """One selected entry; ``path`` only where the user's own file is named."""

    id: str
    path: str | None = None


def pdb_id(text: str) -> str | None:
    """The PDB id that ``text`` is, as it is written everywhere else; None where it is none."""
    entry = text.strip().lower()
    if not _PDB_ID.fullmatch(entry):
        return None
    return entry[-4:] if entry.startswith("pdb_0000") and entry[8].isdigit() else entry


def normalise_id(text: str, source: str) -> str:
    """The id as it is written everywhere else.

    Raises:
        QfitLatentError: not an id of this source.
    """
    text = text.strip()
    if source in ARCHIVE_SOURCES:
        if entry := pdb_id(text):
            return entry
        raise QfitLatentError(
            f"{text!r} is not a PDB id: give 4 characters such as 1abc, or pdb_ and 8 characters."
        )
    if _FREE_ID.fullmatch(text):
        return text
    raise QfitLatentError(
        f"{text!r} is not an entry id: use letters, digits, '_', '.' and '-', "
        "beginning with a letter, a digit or '_'."
    )


def middle(entry: str) -> str:
    """The two characters before the last, by which archives lay out their folders.

    ``1abc`` gives ``ab``, as does its extended form. Characters that could mean something to a
    file system become ``_``, and a free id of one character gives ``_``.
    """
    return re.sub("[^a-z0-9]", "_", entry[-3:-1].lower()) or "_"


def read_entry_list(path: str | Path, source: str) -> list[EntryRef]:
    """Entries named in a file, in its order.

    A ``.csv`` or ``.tsv`` is a table whose first column is the id and whose second, if any, is
    the path of the file, relative to the table's folder; a first row ``id`` or ``id,path`` is
    its heading. A ``.json`` is the result of a search (archive.search). Anything else
    is text: ids divided by white space or commas, ``#`` begins a comment.

    Raises:
        QfitLatentError: no such file, nothing in it, a malformed id or one that stands there
            twice, with the line.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise OSError("it is no regular file")
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise QfitLatentError(f"The list of entries {path} cannot be read: {error}.") from error
    if path.suffix == ".json":
        found = _from_search(text, path)
    elif path.suffix in (".csv", ".tsv"):
        found = _from_table(text, path, source)
    else:
        found = [
            (number, word, None)
            for number, line in enumerate(text.splitlines(), 1)
            for word in re.split(r"[\s,;]+", line.split("#", 1)[0])
            if word
        ]
    if not found:
        raise QfitLatentError(f"The list of entries {path} names no entry: write one id a line.")
    return _unique(((f"{path}, line {number}", word, file) for number, word, file in found), source)


def _from_search(text: str, path: Path) -> list[tuple[int, str, str | None]]:
    try:
        ids = json.loads(text)["ids"]
        return [(number, str(entry), None) for number, entry in enumerate(ids, 1)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise QfitLatentError(
            f"The list of entries {path} is not the result of a search: it has no list 'ids'."
        ) from error


def _from_table(text: str, path: Path, source: str) -> list[tuple[int, str, str | None]]:
    reader = csv.reader(text.splitlines(), delimiter="\t" if path.suffix == ".tsv" else ",")
    found: list[tuple[int, str, str | None]] = []
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise QfitLatentError(f"{path}, line {reader.line_num}: {error}.") from error
    for number, row in rows:
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#"):
            continue
        if not found and cells[0].lower() == "id" and cells[1:] in ([], ["path"]):
            continue
        if len(cells) > 2 or (source == "local" and (len(cells) < 2 or not cells[1])):
            raise QfitLatentError(
                f"{path}, line {number}: {','.join(cells)!r} is not a row id,path."
            )
        file = os.path.join(path.parent, cells[1]) if len(cells) == 2 and cells[1] else None
        found.append((number, cells[0], file))
    return found


def _unique(named: Iterable[tuple[str, str, str | None]], source: str) -> list[EntryRef]:
    """Entries with normalised ids; ``named`` gives (where it stands, id, path)."""
    seen: dict[str, str] = {}
    refs = []
    for where, text, file in named:
        try:
            entry = normalise_id(text, source)
        except QfitLatentError as error:
            raise QfitLatentError(f"{where}: {error}") from None
        if entry in seen:
            raise QfitLatentError(
                f"{where}: the entry {text} was named before ({seen[entry]}); remove one of them."
            )
        seen[entry] = where
        refs.append(EntryRef(entry, file))
    return refs


def scan_folder(folder: str | Path, pattern: str = "*") -> list[EntryRef]:
    """Structure files below a folder (``base.files.find_in_folder``), sorted by id.

    Read are .cif, .mmcif, .pdb and .ent, plain or gzipped; hidden files are left out. A name that
    cannot be an id gives one that resembles it. Without path: a file whose name is no UTF-8.

    Raises:
        QfitLatentError: no such folder, no structure file in it, or two files with one id.
    """
    try:
        found = find_in_folder(folder, pattern)
        if not found:
            raise QfitLatentError(
                f"The folder {folder} holds no structure file that matches entries.pattern "
                f"{pattern!r}: {where_structures_are(folder)}."
            )
    except OSError as error:
        raise QfitLatentError(
            f"The folder of structures {folder} cannot be read ({error.strerror}): "
            "set entries.folder to a folder that exists."
        ) from error
    files: dict[str, Path] = {}
    for path, entry in found.items():
        if entry in files:
            names = " and ".join(str(p.relative_to(folder)) for p in (files[entry], path))
            raise QfitLatentError(
                f"{names} in {folder} both are the entry {entry}: choose one of them with "
                "entries.pattern, or rename one."
            )
        files[entry] = path
    return sorted(
        # No table could hold a name that is no UTF-8.
        EntryRef(_free_id(entry), str(path) if str(path) == printable(path) else None)
        for entry, path in files.items()
    )


def _free_id(stem: str) -> str:
    """The id of a file of this name, which one odd character must not keep out of a data set.

    What cannot stand in an id becomes ``_``, and a digest tells apart what has become the same.
    """
    if _FREE_ID.fullmatch(stem):
        return stem
    digest = hashlib.blake2b(os.fsencode(stem), digest_size=4).hexdigest()
    return re.sub(r"[^A-Za-z0-9_.-]|^[.-]", "_", stem) + f"-{digest}"


def select_entries(
    settings: Mapping[str, Any], found: Iterable[str] | None = None
) -> list[EntryRef]:
    """All entries of a data set, sorted by id.

    Args:
        settings: the section ``entries`` of the configuration.
        found: ids that another stage has made: the simulator's, or those of a search.
    Raises:
        QfitLatentError: as for lists and folders; an id named in two places; no entry at all.
    """
    source = settings["source"]
    if source == "local" and settings["folder"] is not None:
        refs = scan_folder(settings["folder"], settings["pattern"])
        if settings["ids"]:
            wanted = _unique((("entries.ids", entry, None) for entry in settings["ids"]), source)
            by_id = {ref.id: ref for ref in refs}
            refs = [by_id.get(ref.id, ref) for ref in wanted]
    else:
        named: list[tuple[str, str, str | None]] = []
        if source != "simulated":
            named += [("entries.ids", entry, None) for entry in settings["ids"]]
            if settings["list"] is not None:
                listed = read_entry_list(settings["list"], source)
                named += [(settings["list"], ref.id, ref.path) for ref in listed]
        named += [("the search or simulator", entry, None) for entry in found or ()]
        refs = _unique(named, source)
    if not refs:
        raise QfitLatentError(
            f"The source {source} has no entries: give entries.ids, entries.list or entries.search."
        )
    return sorted(refs)


def shard_of(entry: str, num_shards: int) -> int:
    """The shard of an entry, from its id alone: adding an entry changes no other's shard."""
    digest = hashlib.blake2b(entry.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % num_shards


def shard_entries(refs: Iterable[EntryRef], num_shards: int) -> dict[str, list[EntryRef]]:
    """Entries by the name of their shard ("000", "001", ...), sorted; empty shards are left out."""
    shards: dict[str, list[EntryRef]] = {}
    for ref in sorted(refs):
        shards.setdefault(f"{shard_of(ref.id, num_shards):03d}", []).append(ref)
    return dict(sorted(shards.items()))
