"""What every script of the workflow does around its one call: the log, and errors as sentences."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.made_from import forget_others


class Log:
    """A text stream that writes to the log file and, under the job's name, to the terminal."""

    def __init__(self, file: TextIO, terminal: TextIO, name: str) -> None:
        self._file, self._terminal, self._name = file, terminal, name

    def write(self, text: str) -> int:
        self._file.write(text)
        for line in text.splitlines(keepends=True):
            self._terminal.write(f"{self._name}: {line}" if line.strip() else line)
        return len(text)

    def flush(self) -> None:
        self._file.flush()
        self._terminal.flush()

    def isatty(self) -> bool:
        """Never: other jobs write to the same terminal, so lines are not rewritten."""
        return False


@contextmanager
def job(name: str, log_path: str | Path, made_from: str | None = None) -> Iterator[Log]:
    """Sends everything that the block prints into the log; yields a stream for progress.

    What is written to the yielded stream also reaches the terminal. A ``QfitLatentError`` ends the
    job with its sentence in both; any other error leaves its traceback in the log as well.
    ``made_from`` is the record of what the job makes its results from.
    """
    if made_from is not None:
        forget_others(made_from)
    Path(log_path).parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with (
        open(log_path, "w", encoding="utf-8", buffering=1) as file,
        os.fdopen(os.dup(2), "w", encoding="utf-8", buffering=1) as terminal,
    ):
        # The file descriptors too: libraries and child processes write there.
        kept = os.dup(1), os.dup(2)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            with redirect_stdout(file), redirect_stderr(file):
                yield Log(file, terminal, name)
        except QfitLatentError as error:
            file.write(f"Error: {error}\n")
            terminal.write(f"\n{name}: {error}\n\n")
            sys.exit(1)
        except BaseException:
            file.write(traceback.format_exc())
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, number in zip(kept, (1, 2), strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
