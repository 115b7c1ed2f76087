"""What a prediction reads, and what passes between its processes; no torch here."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import STRUCTURE_SUFFIXES, sha256_file, structure_stem
from qfitlatent.pages.reasons import explain
from qfitlatent.structure.preprocess import read_entry


@dataclass(frozen=True)
class Input:
    """A structure that was read: its tables (schemas.py), or the sentence that says why not."""

    entry: str
    path: Path
    sha256: str = ""
    tables: dict[str, pa.Table] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0


def structure_id(path: str | Path) -> str:
    """The file's name without .gz and without the ending of its format."""
    name = Path(path).name
    return structure_stem(name) or name


def find_structures(paths: Iterable[str | Path]) -> list[Path]:
    """The files given, and for a folder the structures in it, by name.

    Raises QfitLatentError for a path that does not exist, a folder without structures, and two
    files that would have the same id.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = [p for p in sorted(path.iterdir()) if p.is_file() and structure_stem(p.name)]
            if not inside:
                raise QfitLatentError(
                    f"The folder {path} holds no structure: their names end in "
                    f"{', '.join(STRUCTURE_SUFFIXES)}, with or without .gz."
                )
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise QfitLatentError(f"There is no file {path}: correct the path.")
    by_id: dict[str, Path] = {}
    for path in found:
        other = by_id.setdefault(structure_id(path), path)
        if other != path:
            raise QfitLatentError(
                f"{other} and {path} would both write {structure_id(path)}: rename one, or predict "
                "them into different folders."
            )
    return list(by_id.values())


def read_input(path: Path, max_conformers: int = 6) -> Input:
    """Tables of one structure; whatever is wrong with the file becomes a sentence, not an error."""
    start = time.perf_counter()
    entry = structure_id(path)
    records = read_entry(path, entry, max_conformers=max_conformers)
    tables = {
        name: getattr(records, name) for name in ("residues", "frames", "conformers", "rejected")
    }
    error = ""
    whole = [row for row in tables["rejected"].to_pylist() if row["scope"] == "entry"]
    if whole:
        error = f"{path} cannot be used: {explain(whole[0])}"
    elif tables["frames"]["rotation"].null_count == len(tables["frames"]):
        error = (
            f"{path} cannot be used: no protein residue has all of N, CA and C, "
            "so there is no backbone to predict on."
        )
    sha256 = "" if error else sha256_file(path)
    return Input(entry, path, sha256, tables, error, time.perf_counter() - start)


@dataclass(frozen=True)
class Predicted:
    """Densities of n residues as arrays, ready to cross to another process.

    row (n,) of the residues table; weight (n,K), mean and kappa (n,K,4); entropy (n,);
    mode_weight (n,J) heaviest first and 0 where not valid; mode_chi (n,J,4).
    """

    row: np.ndarray
    weight: np.ndarray
    mean: np.ndarray
    kappa: np.ndarray
    entropy: np.ndarray
    top_weight: np.ndarray
    mode_weight: np.ndarray
    mode_chi: np.ndarray


@dataclass(frozen=True)
class Written:
    """What became of one structure."""

    entry: str
    path: Path
    error: str = ""
    notes: tuple[str, ...] = ()
    num_residues: int = 0
    num_built: int = 0
    num_heterogeneous: int = 0
    seconds: float = 0.0
