"""Side chains of an ensemble of backbones: every model predicted, the populations averaged.

    import qfitlatent
    qfitlatent.predict_ensemble("nmr.pdb", "predicted")
    qfitlatent.predict_ensemble("topology.pdb", "predicted", trajectory="run.xtc", frames="::10")

Backbones are read, predicted and forgotten one by one. Shapes: N residues, n of them predicted, W
wells.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import sha256_file
from qfitlatent.chemistry.residues import NUM_CHI
from qfitlatent.model.checkpoint import LoadedModel
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.prediction.ensemble import build_ensemble
from qfitlatent.prediction.outputs import write_mixture
from qfitlatent.prediction.predict import IDENTITY, predicted_density
from qfitlatent.prediction.records import Input, Predicted, read_input
from qfitlatent.prediction.results import Results, output_folder
from qfitlatent.prediction.runner import Runner
from qfitlatent.prediction.seen import in_words
from qfitlatent.prediction.selection import choose
from qfitlatent.prediction.settings import PredictionSettings
from qfitlatent.questions.average import Mean, MixtureMean
from qfitlatent.questions.backbones import Backbones, Slice, progress_over
from qfitlatent.questions.models import ModelFiles
from qfitlatent.questions.populations import NUM_POINTS
from qfitlatent.questions.wells import (
    NUM_WELLS,
    WELL_NAMES,
    points_of,
    predicted_wells,
    shannon,
)
from qfitlatent.tables.columns import F32, I32, IDS, TEXT, Column, id_columns, make_schema
from qfitlatent.tables.keys import fixed_list
from qfitlatent.tables.parquet import conform, write_csv

ENSEMBLE = (
    ".mixture.parquet",  # a row a residue and component of the mean density
    ".mixture.csv",
    ".populations.csv",  # a row a residue and rotamer well
    ".averages.csv",  # a row a residue
    "_models.cif",  # models with their predicted side chains (models.py)
    "_models.pdb",
    ".ensemble.json",  # model, settings, and the backbones with their weights
)
"""How the names of the files of an ensemble end, the record last."""

CUT_ANGSTROM = 15.0
"""Two CA that follow each other come so much nearer or farther only where a box was cut."""

POPULATIONS = make_schema(
    (
        *IDS,
        Column("rotamer", TEXT, False, "", "rotamer well of chi1 and chi2"),
        Column("population", F32, False, "1", "mean over the models; sums to 1 over the residue"),
        Column("spread", F32, False, "1", "standard deviation between the models"),
        Column("standard_error", F32, True, "1", "of the mean; null of a single model"),
    )
)

AVERAGES = make_schema(
    (
        *IDS,
        Column("rotamer", TEXT, False, "", "most populated well; empty without chi"),
        Column("population", F32, True, "1", "its population"),
        Column("entropy", F32, True, "nat", "differential entropy of a model's density, mean"),
        Column("well_entropy", F32, True, "nat", "of the mean populations"),
        Column("well_entropy_within", F32, True, "nat", "of a model's populations, mean"),
        Column("well_entropy_between", F32, True, "nat", "the rest: what differs between models"),
        Column("p_heterogeneous", F32, True, "1", "of two or more rotamers, mean over the models"),
        Column("num_models", I32, False, "", "models that are averaged"),
    )
)


@dataclass(frozen=True)
class EnsemblePrediction:
    """What was written for a set of backbones."""

    name: str
    num_models: int
    num_residues: int
    paths: tuple[Path, ...]
    notes: tuple[str, ...]


class _Averages:
    """Sums over the models of one ensemble."""

    def __init__(self, given: Input, predicted: Predicted, token: np.ndarray) -> None:
        self.given, self.row, self.token = given, predicted.row, token
        self.wells = Mean(len(token), NUM_WELLS)
        self.numbers = Mean(len(token), 3)  # entropy, well entropy, p_heterogeneous
        self.mixture = MixtureMean(token)
        self.seen: list[dict[str, Any]] = []
        """What stood around the first model."""
        self.notes: tuple[str, ...] = ()

    def add(self, share: float, predicted: Predicted, wells: np.ndarray) -> None:
        self.wells.add(share, wells)
        numbers = np.stack([predicted.entropy, shannon(wells), predicted.p_heterogeneous], axis=1)
        self.numbers.add(share, numbers)
        self.mixture.add(share, predicted)

    def refuse_others(self, name: str, given: Input, predicted: Predicted) -> None:
        """Raises QfitLatentError for a model with other residues than the first."""
        keys = [column.name for column in IDS if column.name not in ("entry", "label_seq")]
        same = (
            given.tables["residues"].select(keys).equals(self.given.tables["residues"].select(keys))
        )
        if not same or not np.array_equal(predicted.row, self.row):
            raise QfitLatentError(
                f"Model {name} has other residues with a backbone than the first: average models "
                "of one molecule, or use compare-structures, which aligns them."
            )
        if (_steps(given, self.row) > _steps(self.given, self.row) + CUT_ANGSTROM).any():
            raise QfitLatentError(
                f"Model {name} has a chain torn apart that is whole in the first: make molecules "
                "whole that the box of a simulation cuts."
            )


def _steps(given: Input, row: np.ndarray) -> np.ndarray:
    """(n-1,) distance of each CA from the next, angstrom."""
    frames = given.tables["frames"].take(pa.array(row))
    ca = fixed_list(frames["translation_angstrom"], (3,))
    return np.linalg.norm(np.diff(ca, axis=0), axis=1)


def predict_ensemble(
    structures: str | Path | Sequence[str | Path],
    out: str | Path,
    model: str | Path | LoadedModel | None = None,
    settings: PredictionSettings | None = None,
    *,
    trajectory: str | Path | None = None,
    frames: Slice = None,
    weights: str | Path | Mapping[str, float] | None = None,
    num_written: int = 20,
    overwrite: bool = False,
    stream: TextIO | None = None,
) -> EnsemblePrediction:
    """Predict every model of a set of backbones, and write the files of ``ENSEMBLE`` into ``out``.

    Args:
        structures: structure files or folders, of which all models count; or a topology.
        model: a run folder, a model file, or None for the one inside the package.
        settings: section ``predict`` of the configuration; None for its defaults.
        trajectory: a file whose frames are the models.
        frames: which models or frames, ``start:stop:step`` counted from 0; None for all.
        weights: of the models, by name or as a CSV file with the columns model and weight; all
            alike if None.
        num_written: of the models with side chains that are written, at most, evenly chosen.
        overwrite: write over what is there.
        stream: where the progress goes; None for no progress.

    Raises:
        QfitLatentError: models, weights, settings or the folder cannot be used.
    """
    if num_written < 1:
        raise QfitLatentError(f"--written is {num_written}, but must be at least 1.")
    runner = Runner(model, settings)
    backbones = Backbones(
        structures,
        trajectory=trajectory,
        frames=frames,
        weights=weights,
        pattern=runner.settings.pattern,
    )
    num = len(backbones)
    evenly = np.unique(np.linspace(0, num - 1, min(num, num_written)).round().astype(int))
    results = Results("ensemble", Path(out), ENSEMBLE, runner.identity(*IDENTITY))
    with output_folder(results.folder), tempfile.TemporaryDirectory() as folder:
        if not overwrite:
            results.refuse_existing([backbones.name], only_finished=False)
        files = ModelFiles(Path(folder) / "models.cif", Path(folder) / "models.pdb")
        averages, members = _averages(runner, backbones, set(evenly.tolist()), files, stream)
        source = replace(
            averages.given,
            entry=backbones.name,
            path=backbones.path,
            sha256="" if backbones.path.is_dir() else sha256_file(backbones.path),
        )
        notes = averages.notes
        if not files.has_pdb:
            notes += ("no PDB file: that format has no room for these models",)
        about = {"surroundings_seen": averages.seen, "notes": list(notes)}
        record = {"num_models": num, "models": members} | about
        with results.files(source, record) as paths:
            _write_tables(averages, paths[:4], results, backbones.name)
            for made, path in zip(sorted(Path(folder).iterdir()), paths[4:6], strict=False):
                shutil.copyfile(made, path)
    written = tuple(path for path in results.paths(backbones.name) if path.exists())
    return EnsemblePrediction(backbones.name, num, len(averages.token), written, notes)


def _averages(
    runner: Runner,
    backbones: Backbones,
    written: set[int],
    files: ModelFiles,
    stream: TextIO | None,
) -> tuple[_Averages, list[dict[str, Any]]]:
    """The sums over all models, and what the record says of each; of some the model is written."""
    found: _Averages | None = None
    members = []
    identity = runner.identity(*IDENTITY)
    with progress_over(len(backbones), stream) as progress:
        for number, member in enumerate(backbones):
            with member.named():
                given = choose(runner.choice, read_input(member.path))
            protein = protein_from_tables(given.tables)
            (s,) = runner.encode([protein])
            density, predicted = predicted_density(runner, given, protein, s)
            token = protein.token.numpy()
            found = found or _Averages(given, predicted, token)
            found.refuse_others(member.name, given, predicted)
            wells = predicted_wells(token, points_of(density, NUM_POINTS))
            found.add(member.weight, predicted, wells)
            if number in written:
                built = build_ensemble(identity, given, predicted)
                files.add(built)
                found.seen = found.seen or built.seen.to_pylist()
                found.notes = found.notes or (in_words(built.seen),)
            members.append(
                {"model": member.name, "weight": member.weight, "is_written": number in written}
            )
            progress.update(1, amount=len(protein))
    files.close()
    assert found is not None  # a set has a member
    return found, members


def _write_tables(averages: _Averages, paths: Sequence[Path], results: Results, name: str) -> None:
    residues = averages.given.tables["residues"]
    residues = residues.set_column(
        residues.schema.get_field_index("entry"), "entry", pa.array([name] * len(residues))
    )
    token, row = averages.token, averages.row
    mixture = averages.mixture.predicted()
    write_mixture((paths[0], paths[1]), residues, mixture, token, results.about_model())
    write_csv(paths[2], _populations(averages, residues, row))
    write_csv(paths[3], _residues(averages, residues, row))


def _populations(averages: _Averages, residues: pa.Table, row: np.ndarray) -> pa.Table:
    num_wells = np.array([len(WELL_NAMES[token]) for token in averages.token])
    at, well = np.nonzero(np.arange(NUM_WELLS) < num_wells[:, None])
    wells = averages.wells
    error = np.sqrt(np.maximum(np.diagonal(wells.covariance, axis1=1, axis2=2), 0.0))
    columns: dict[str, Any] = id_columns(residues, row[at])
    names = zip(averages.token[at].tolist(), well.tolist(), strict=True)
    columns["rotamer"] = [WELL_NAMES[token][w] for token, w in names]
    columns["population"] = wells.value[at, well].astype(np.float32)
    columns["spread"] = wells.spread[at, well].astype(np.float32)
    is_single = np.full(len(at), wells.count.max() == 1)
    columns["standard_error"] = pa.array(error[at, well].astype(np.float32), mask=is_single)
    return conform(pa.table(columns), POPULATIONS, "the populations")


def _residues(averages: _Averages, residues: pa.Table, row: np.ndarray) -> pa.Table:
    token, population = averages.token, averages.wells.value
    has_chi = NUM_CHI[token] > 0
    top = population.argmax(axis=1)
    entropy, within, p_heterogeneous = averages.numbers.value.T
    whole = shannon(population)

    def column(values: np.ndarray) -> pa.Array:
        return pa.array(values.astype(np.float32), mask=~has_chi | np.isnan(values))

    columns: dict[str, Any] = id_columns(residues, row)
    names = zip(token.tolist(), top.tolist(), has_chi.tolist(), strict=True)
    columns["rotamer"] = [WELL_NAMES[kind][well] if has else "" for kind, well, has in names]
    columns["population"] = column(population.max(axis=1))
    columns["entropy"] = column(entropy)
    columns["well_entropy"] = column(whole)
    columns["well_entropy_within"] = column(within)
    columns["well_entropy_between"] = column(np.maximum(whole - within, 0.0))
    columns["p_heterogeneous"] = column(p_heterogeneous)
    columns["num_models"] = averages.wells.count.astype(np.int32)
    return conform(pa.table(columns), AVERAGES, "the averages")
