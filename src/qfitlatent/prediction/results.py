"""The folder that results go to: what is done, what may be written over, and what failed.

The files of one structure appear together or not at all; the last of them is a record of the input,
the model and the settings that made them, so a structure is done when its record is there. What
could not be used is a line in a table of failures, of which each command has its own; the traceback
of an unforeseen error stands in a ``.log`` beside it. No torch here.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import (
    atomic_paths,
    printable,
    read_json,
    sha256_file,
    sweep,
    write_json,
    write_text,
)
from qfitlatent.prediction.columns import FAILURES, SUMMARY
from qfitlatent.prediction.records import Input, Written
from qfitlatent.tables.parquet import conform, write_csv

ABOUT_MODEL = ("model", "model_version", "model_sha256", "trained_on")

# Fields of Written that follow the notes, in their order.
COUNTS = ("num_residues", "num_built", "num_heterogeneous")


@dataclass(frozen=True)
class Results:
    """Where the files of each structure go, how their names end, and what makes them.

    The last suffix is that of the record.
    """

    command: str
    folder: Path
    suffixes: tuple[str, ...]
    identity: dict[str, Any]

    def about_model(self) -> dict[str, str]:
        """What headers and tables say of the model that made them."""
        return {name: self.identity[name] for name in ABOUT_MODEL}

    def paths(self, entry: str) -> list[Path]:
        """Every file of this structure, the record last."""
        return [self.folder / f"{entry}{suffix}" for suffix in self.suffixes]

    @contextmanager
    def files(self, given: Input, record: dict[str, Any]) -> Iterator[list[Path]]:
        """Temporary paths for all files but the record, which is written when the block ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_paths(self.paths(given.entry)) as temporaries:
            yield temporaries[:-1]
            about = {"entry": given.entry, "input": given.path.name, "input_sha256": given.sha256}
            write_json(temporaries[-1], self.identity | about | record)

    def done(self, path: Path, entry: str) -> Written | None:
        """What was written for this file, where model, settings and input were the same."""
        record = self._record(entry)
        if any(record.get(key) != value for key, value in self.identity.items()):
            return None
        if not path.is_file() or record.get("input_sha256") != sha256_file(path):
            return None
        counts = [record.get(name, 0) for name in COUNTS]
        if not all(isinstance(count, int) for count in counts):
            return None
        return Written(entry, path, "", "", "", ("done before",), *counts)

    def refuse_existing(self, entries: Sequence[str], only_finished: bool) -> None:
        """Raises QfitLatentError for a result that is there; ``only_finished``: with a record."""
        for entry in entries:
            if only_finished and not self._record(entry):
                continue
            for file in self.paths(entry):
                if file.exists():
                    raise QfitLatentError(
                        f"{file} exists already: add --overwrite, or choose another folder with "
                        "--out."
                    )

    def _record(self, entry: str) -> dict[str, Any]:
        """Empty where there is none, or one that a power failure or a hand has broken."""
        try:
            record = read_json(self.paths(entry)[-1])
        except (OSError, ValueError, RecursionError):
            return {}
        return record if isinstance(record, dict) else {}


@contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """The folder is there and free of what killed processes left; gone again if nothing came.

    Raises QfitLatentError where it cannot be made.
    """
    absent = [part for part in (folder, *folder.parents) if not part.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        there = next(part for part in (folder, *folder.parents) if part.exists())
        why = error.strerror if there.is_dir() else f"{there} is a file"
        raise QfitLatentError(
            f"The folder {folder} cannot be made: {why}; choose another with --out."
        ) from error
    sweep(folder)
    try:
        yield
    finally:
        for part in absent:
            with suppress(OSError):  # not empty: there are results
                part.rmdir()


def conclude(results: Sequence[Written], table: Path, batch: bool) -> None:
    """Says what failed: of a batch in this table, of one structure as an error.

    Raises QfitLatentError where nothing came of any structure.
    """
    failed = [result for result in results if result.error]
    if batch or any(result.traceback for result in failed):
        _write_failures(results, table)
    if len(failed) < len(results):
        return
    first = failed[0].error
    if len(failed) == 1 and not batch:
        raise QfitLatentError(first)
    raise QfitLatentError(
        f"None of the {len(results)} structures can be used, see {table}; the first: {first}"
    )


def _write_failures(results: Sequence[Written], table: Path) -> None:
    """The table and its log; each is gone where it would be empty.

    Raises QfitLatentError where they cannot be written.
    """
    failed = [result for result in results if result.error]
    log = table.with_suffix(".log")
    traces = [f"{printable(r.path)}\n{r.traceback}" for r in failed if r.traceback]
    columns = {
        "entry": [printable(result.entry) for result in failed],
        "path": [printable(result.path) for result in failed],
        "reason": [result.reason for result in failed],
        "error": [printable(result.error) for result in failed],
    }
    try:
        for path in (table, log):
            path.unlink(missing_ok=True)
        if failed:
            write_csv(table, conform(pa.table(columns), FAILURES, table))
        if traces:
            write_text(log, printable("\n".join(traces)))
    except OSError as error:
        raise QfitLatentError(
            f"{table} cannot be written ({error.strerror}): {len(failed)} of {len(results)} "
            f"structures could not be used; the first: {failed[0].error if failed else ''}"
        ) from error


def write_summary(results: Sequence[Written], path: Path) -> None:
    """What was predicted, with counts, as CSV; what was not is in ``failures.csv``."""
    there = [result for result in results if not result.error]
    columns = {name: [getattr(result, name) for result in there] for name in SUMMARY.names}
    write_csv(path, conform(pa.table(columns), SUMMARY, path))
