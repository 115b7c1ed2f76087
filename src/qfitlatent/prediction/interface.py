"""The predicted side chains of one structure as objects in memory; files are a second call.

    import qfitlatent
    prediction = qfitlatent.predict("1abc.pdb", residues="A:45-60")
    prediction.ensemble            # gemmi.Structure with altlocs
    prediction.residues            # a row a residue
    prediction.density.sample(10)  # draws of all chi
    prediction.write("predicted")

Shapes: N residues of the structure, n of them predicted, m built, L labels, D=4 chi.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pyarrow as pa

from qfitlatent.base import config
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import printable
from qfitlatent.density.protocol import Density
from qfitlatent.model.checkpoint import LoadedModel, load_model
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.prediction.ensemble import Ensemble, build_ensemble
from qfitlatent.prediction.outputs import PREDICTION, summary_table, write_built
from qfitlatent.prediction.predict import IDENTITY, predicted_density
from qfitlatent.prediction.records import Input, Predicted, read_input, structure_id
from qfitlatent.prediction.results import Results, output_folder
from qfitlatent.prediction.runner import Runner
from qfitlatent.prediction.selection import choose
from qfitlatent.prediction.settings import PredictionSettings

Source = str | Path | gemmi.Structure


@dataclass(frozen=True)
class Prediction:
    """What is predicted for one structure; nothing of it has been written."""

    entry: str
    """Its name: of the file without ending, or of the gemmi.Structure."""
    ensemble: gemmi.Structure
    """The multiconformer model with all its atoms, as ``write`` writes it; angstrom."""
    residues: pa.Table
    """A row for each of N residues, in the order of the structure: ``columns.RESIDUES``."""
    density: Density
    """p(chi) of the n residues that have a backbone, chi (n,D) in radians; on the CPU."""
    row: np.ndarray
    """(n,) row of ``residues`` of each residue of the density."""
    built: np.ndarray
    """(m,) row of ``residues`` of each residue whose side chain was built."""
    chi: np.ndarray
    """(m,L,D) radians: chi of each altloc, A or the only one first."""
    weight: np.ndarray
    """(m,L) their occupancies; 0 where a residue has no side chain of this label."""
    _parts: tuple[dict[str, Any], Input, Predicted, Ensemble] = field(repr=False)

    def write(self, out: str | Path, *, overwrite: bool = False) -> list[Path]:
        """The files that ``qfitlatent predict`` writes for a structure, in the folder ``out``.

        Returns their paths. Raises QfitLatentError for files that are there, unless ``overwrite``,
        and a folder that cannot be made.
        """
        identity, given, predicted, ensemble = self._parts
        results = Results("predict", Path(out), PREDICTION, identity)
        with output_folder(results.folder):
            if not overwrite:
                results.refuse_existing([self.entry], only_finished=False)
            write_built(results, given, predicted, ensemble)
        return [path for path in results.paths(self.entry) if path.exists()]


def predict(
    structure: Source, model: str | Path | LoadedModel | None = None, **settings: Any
) -> Prediction:
    """Predict the side chains of one structure.

    Args:
        structure: a PDB or mmCIF file, its path or its text (a str of several lines), or a
            gemmi.Structure, which stays as it is. Only its first model is read.
        model: a run folder, a model file, or what ``load_model`` gave, which saves loading it
            again; None for the model inside the package, which is loaded once.
        settings: keys of the section ``predict`` of the configuration: ``residues="A:45-60"``,
            ``mutate="A:45:LEU"``, ``min_weight=0.2``.

    Raises:
        QfitLatentError: the structure, the model or a setting cannot be used.
    """
    chosen = config.settings(PredictionSettings, "predict", settings)
    runner = Runner(shipped() if model is None else model, chosen)
    with as_input(structure) as given:
        return _predict(runner, given)


@contextmanager
def as_input(structure: Source) -> Iterator[Input]:
    """What is read of a structure, however it is given; its file is there until the block ends.

    Raises QfitLatentError for a structure that cannot be used.
    """
    if isinstance(structure, gemmi.Structure) or (
        isinstance(structure, str) and "\n" in structure.strip()
    ):
        with tempfile.TemporaryDirectory(prefix="qfitlatent-") as folder:
            yield read_input(_as_file(structure, Path(folder)))
        return
    path = Path(structure)
    if not path.exists():
        raise QfitLatentError(f"There is no file {path}: correct the path.")
    yield read_input(path)


@cache
def shipped() -> LoadedModel:
    """The model inside the package, loaded once."""
    return load_model()


def _as_file(structure: str | gemmi.Structure, folder: Path) -> Path:
    """A file that is read like any other. Text is read as what it is, whatever its ending."""
    if isinstance(structure, str):
        path = folder / "structure.cif"
        path.write_text(structure, "utf-8")
        return path
    if not len(structure):
        raise QfitLatentError("The gemmi.Structure has no model, and so no atoms: read a file.")
    name = printable(structure.name).replace("/", "_") or "structure"
    path = folder / f"{structure_id(name)}.cif"
    copy = structure.clone()
    copy.setup_entities()
    groups = gemmi.MmcifOutputGroups(True, auth_all=True)
    path.write_text(copy.make_mmcif_document(groups).as_string(), "utf-8")
    return path


def _predict(runner: Runner, read: Input) -> Prediction:
    given = choose(runner.choice, read)
    protein = protein_from_tables(given.tables)
    (s,) = runner.encode([protein])
    density, predicted = predicted_density(runner, given, protein, s)
    identity = runner.identity(*IDENTITY)
    ensemble = build_ensemble(identity, given, predicted)
    return Prediction(
        entry=given.entry,
        ensemble=ensemble.model,
        residues=summary_table(given, predicted, ensemble, runner.settings.min_weight),
        density=density,
        row=predicted.row,
        built=ensemble.row,
        chi=ensemble.joint.states.chi,
        weight=ensemble.joint.states.occupancy / 100.0,
        _parts=(identity, given, predicted, ensemble),
    )
