"""Which structures a table of measurements names; light, as the workflow plans with it."""

import csv
import difflib
from collections.abc import Collection
from pathlib import Path

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import find_in_folder

REQUIRED = ("entry", "author_chain", "author_number", "quantity", "site", "value")
"""Columns of ``columns.MEASURED`` that a table cannot lack."""


def named_entries(path: str | Path) -> list[str]:
    """The entries of a table, each once, in its order.

    Raises QfitLatentError where there is no table, or not with these columns.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            names = rows.fieldnames or ()
            absent = [name for name in REQUIRED if name not in names]
            if absent:
                raise QfitLatentError(
                    f"The table of measurements {path} lacks the column {absent[0]}: it must have "
                    f"{', '.join(REQUIRED)}."
                )
            return list(dict.fromkeys(row["entry"] for row in rows))
    except OSError as error:
        raise QfitLatentError(
            f"The table of measurements {path} cannot be read ({error.strerror}): correct the path."
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise QfitLatentError(f"{path} is no CSV table of measurements: {error}.") from error


def check_entries(path: str | Path, known: Collection[str], where: str) -> None:
    """Raises QfitLatentError, as ``named_entries`` and where an entry is not among the known."""
    for entry in named_entries(path):
        if entry not in known:
            near = difflib.get_close_matches(entry, known, 1, 0.0)
            meant = f": is {near[0]} meant?" if near else "."
            raise QfitLatentError(f"{path} names {entry}, which is not {where}{meant}")


def named_files(path: str | Path, folder: str | Path) -> dict[Path, str]:
    """The file of each entry that the table names, in a folder of structures.

    Raises QfitLatentError as ``check_entries``, and where there are two.
    """
    try:
        found = find_in_folder(folder, "*")
    except OSError as error:
        raise QfitLatentError(
            f"The folder of structures {folder} cannot be read ({error.strerror}): correct "
            "`evaluate.experiment_structures`."
        ) from error
    check_entries(path, found.values(), f"a structure in the folder {folder}")
    named = set(named_entries(path))
    files = {file: entry for file, entry in found.items() if entry in named}
    if len(files) > len(named):
        names = list(files.values())
        twice = next(name for name in names if names.count(name) > 1)
        raise QfitLatentError(f"The folder {folder} has two files of {twice}: leave one.")
    return files
