"""How much work structures are, from the size of their files: said before it starts."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from qfitlatent.base.progress import format_bytes, format_seconds
from qfitlatent.prediction.records import Written

BYTES_PER_RESIDUE, PACKED_BYTES_PER_RESIDUE = 850.0, 190.0
"""Of a file with heavy atoms, plain and gzipped; the files that were read correct it."""

SECONDS, SECONDS_PER_RESIDUE = 2.5, 0.0070
"""Of the program, and of each residue, on one thread (``benchmarks/predict.py --copies``)."""

MEMORY_BYTES, MEMORY_BYTES_PER_RESIDUE = 0.43e9, 85e3
"""Of the program, and beside it of each residue of the largest structure."""

SAID_FROM_SECONDS = 5.0
"""What takes less needs no forecast."""


class Forecast:
    """Residues that there are to come, from file sizes and from what files so far held."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._expected = {path: _residues(path) for path in paths}
        self._num = len(self._expected)
        self._largest = max(self._expected.values(), default=0.0)
        self._found = self._expected_of_found = 0.0

    @property
    def residues(self) -> float:
        """Those found and those still expected."""
        ratio = self._found / self._expected_of_found if self._found else 1.0
        return self._found + ratio * sum(self._expected.values())

    @property
    def seconds(self) -> float:
        """Of the whole command, on one thread."""
        return SECONDS + self.residues * SECONDS_PER_RESIDUE

    @property
    def memory_bytes(self) -> float:
        """At most."""
        return MEMORY_BYTES + MEMORY_BYTES_PER_RESIDUE * self._largest

    @property
    def is_worth_saying(self) -> bool:
        return self.seconds >= SAID_FROM_SECONDS

    def finished(self, result: Written) -> None:
        """A structure is done: how many residues it had, where it could be used."""
        expected = self._expected.pop(result.path, 0.0)
        if result.num_residues:
            self._found += result.num_residues
            self._expected_of_found += expected

    def sentence(self) -> str:
        """Of what is still to come."""
        structures = "1 structure" if self._num == 1 else f"{self._num} structures"
        return (
            f"{structures} of about {float(f'{self.residues:.2g}'):,.0f} residues: on one thread "
            f"about {format_seconds(self.seconds)}, in "
            f"{format_bytes(float(f'{self.memory_bytes:.2g}'))} of memory."
        )


def _residues(path: Path) -> float:
    """Expected from the size of the file; 0 where it has none."""
    packed = path.name.lower().endswith(".gz")
    with suppress(OSError):
        return os.stat(path).st_size / (PACKED_BYTES_PER_RESIDUE if packed else BYTES_PER_RESIDUE)
    return 0.0
