"""Two structures of one protein, or two sets of them, side by side.

import qfitlatent
comparison = qfitlatent.compare_structures("apo.pdb", "bound.pdb")
comparison.differences       # a row a pair of aligned residues
comparison.write("compared")
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from qfitlatent.base import config
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_paths, write_json, write_text
from qfitlatent.model.checkpoint import LoadedModel
from qfitlatent.prediction.results import output_folder
from qfitlatent.prediction.runner import Runner
from qfitlatent.prediction.settings import PredictionSettings
from qfitlatent.questions.backbones import Backbones, Slice, progress_over
from qfitlatent.questions.compare_page import page
from qfitlatent.questions.differences import DIFFERENCES, Thresholds, differences
from qfitlatent.questions.populations import populations_of
from qfitlatent.tables.parquet import write_csv, write_table

Paths = str | Path | Sequence[str | Path]

SUFFIXES = (".differences.parquet", ".differences.csv", ".html", ".comparison.json")
"""How the names of the files of a comparison end."""


@dataclass(frozen=True)
class Comparison:
    """What differs between two sets; nothing of it has been written."""

    name: str
    """``a_b``, by the names of the two sets."""
    differences: pa.Table
    """A row for each pair of aligned residues: ``differences.DIFFERENCES``."""
    about: dict[str, Any]
    """Model, settings, and the structures of both sets."""

    @property
    def counts(self) -> dict[str, int]:
        """How many residues each decision has."""
        return dict(Counter(self.differences["decision"].to_pylist()).most_common())

    def write(self, out: str | Path, *, overwrite: bool = False) -> list[Path]:
        """The files that ``qfitlatent compare-structures`` writes, in the folder ``out``.

        Returns their paths. Raises QfitLatentError for files that are there, unless ``overwrite``,
        and a folder that cannot be made.
        """
        paths = [Path(out) / f"{self.name}{suffix}" for suffix in SUFFIXES]
        with output_folder(Path(out)):
            for path in paths:
                if path.exists() and not overwrite:
                    raise QfitLatentError(
                        f"{path} exists already: add --overwrite, or choose another folder with "
                        "--out."
                    )
            with atomic_paths(paths) as (table, text, html, record):
                write_table(self.differences, table, DIFFERENCES)
                write_csv(text, self.differences)
                write_text(html, page(self.name, self.differences, self.about))
                write_json(record, self.about | {"counts": self.counts})
        return paths


def compare_structures(
    a: Paths,
    b: Paths,
    model: str | Path | LoadedModel | None = None,
    *,
    trajectory_a: str | Path | None = None,
    trajectory_b: str | Path | None = None,
    frames: Slice = None,
    stream: TextIO | None = None,
    **settings: Any,
) -> Comparison:
    """What differs between two structures, or sets of them, and what their backbones explain.

    Args:
        a, b: structure files or folders; all models of a file count. Of a trajectory the topology.
        model: as of ``predict``.
        trajectory_a, trajectory_b: files of which the frames are the structures.
        frames: which models or frames of either, ``start:stop:step`` counted from 0.
        stream: where the progress goes; None for no progress.
        settings: keys of the sections ``compare_structures`` and ``predict`` of the configuration.

    Raises:
        QfitLatentError: structures, model or a setting cannot be used, or no chains are alike.
    """
    limits, chosen = _settings(settings)
    first, second = (
        Backbones(paths, trajectory=trajectory, frames=frames, pattern=chosen.pattern)
        for paths, trajectory in ((a, trajectory_a), (b, trajectory_b))
    )
    runner = Runner(model, chosen)
    with progress_over(len(first) + len(second), stream) as progress:
        error = limits.coordinate_error_angstrom
        before = populations_of(runner, first, error, progress)
        after = populations_of(runner, second, error, progress)
    about = runner.identity("seed") | vars(limits)
    about |= {"a": first.name, "b": second.name}
    about |= {"structures_a": first.names, "structures_b": second.names}
    return Comparison(f"{first.name}_{second.name}", differences(before, after, limits), about)


def _settings(given: Mapping[str, Any]) -> tuple[Thresholds, PredictionSettings]:
    own = {field.name for field in fields(Thresholds)}
    limits = {key: value for key, value in given.items() if key in own}
    others = {key: value for key, value in given.items() if key not in own}
    return (
        config.settings(Thresholds, "compare_structures", limits),
        config.settings(PredictionSettings, "predict", others),
    )
