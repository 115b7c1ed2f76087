"""A model beside a table of measurements: the structures that it names are predicted for this.

What is compared, and how, is that of ``experiment.py``. Measurements on chains that the model
learnt from are pairs that no figure counts.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TextIO

import pyarrow as pa
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import sha256_file, write_json
from qfitlatent.model.batch import Protein
from qfitlatent.model.checkpoint import LoadedModel
from qfitlatent.pages.readmes import write_readme
from qfitlatent.prediction.judge import files_of_entries
from qfitlatent.prediction.outputs import observables_table
from qfitlatent.prediction.predict import predicted_arrays
from qfitlatent.prediction.records import Input, Written
from qfitlatent.prediction.results import output_folder
from qfitlatent.prediction.runner import Runner
from qfitlatent.prediction.settings import PredictionSettings
from qfitlatent.questions.experiment import Compared, as_text, read_measured, write_compared
from qfitlatent.questions.named import check_entries, named_entries, named_files
from qfitlatent.tables.parquet import read_table


def compare_model(
    measured_path: str | Path,
    out: str | Path,
    model: str | Path | LoadedModel | None,
    settings: PredictionSettings,
    num_samples: int,
    seed: int,
    *,
    structures: str | Path | None = None,
    download_path: str | Path | None = None,
    stream: TextIO | None = None,
) -> Compared:
    """Predict what the table names, and write it beside the measurements into ``out``.

    There are ``experiment.csv`` and ``experiment.pairs.csv``, as the command writes them, the same
    figures and what was left out in ``experiment.json``, and a README. The structures are files of
    a folder, or entries of a data set by its log of downloads. One that cannot be predicted leaves
    its measurements without a prediction, and its reason in the JSON file.

    Raises QfitLatentError for a table that does not fit, and where nothing can be predicted.
    """
    measured = read_measured(measured_path)
    found, failed = _files(measured_path, structures, download_path)
    runner = Runner(model, replace(settings, workers=0))
    known: dict[str, pa.Table] = {}
    compute = partial(_observed, runner, known)
    failed += [x for x in runner.run(found, {}, compute, _counted, stream) if x.error]
    for result in failed if stream else ():
        print(f"{result.entry}: {result.error}", file=stream)
    if not known:
        raise QfitLatentError(f"{measured_path} has nothing to be predicted: {failed[0].error}")
    with output_folder(Path(out)):
        every = pa.concat_tables(known.values())
        compared = write_compared(measured, every, measured_path, out, num_samples, seed)
        record = {
            "model": runner.about_model(),
            "measured": {"name": Path(measured_path).name, "sha256": sha256_file(measured_path)},
            "num_measurements": len(measured),
            "num_unpaired": compared.num_unpaired,
            "num_learnt_from": None if runner.learnt is None else compared.num_learnt_from,
            "not_predicted": {x.entry: x.reason for x in failed},
            "bootstrap_samples": num_samples,
            "seed": seed,
            "figures": compared.figures.to_pylist(),
        }
        write_json(Path(out) / "experiment.json", record)
        write_readme("readmes/experiment.md", out)
    if stream:
        print(as_text(compared), file=stream)
    return compared


def _files(
    path: str | Path, structures: str | Path | None, download_path: str | Path | None
) -> tuple[Mapping[Path, str], list[Written]]:
    """The file of each entry, and what became of those without one."""
    if structures is not None:
        return named_files(path, structures), []
    if download_path is None:
        raise QfitLatentError(f"{path} names structures: say in which folder or data set they are.")
    known = read_table(download_path, ["entry"])["entry"].to_pylist()
    check_entries(path, known, f"an entry of {download_path}")
    return files_of_entries(download_path, named_entries(path))


def _observed(
    runner: Runner, known: dict[str, pa.Table], given: Input, protein: Protein, s: Tensor
) -> int:
    """Adds rows of ``OBSERVABLES``, and ``learnt_from``; residues predicted. s (N,d_s)."""
    predicted = predicted_arrays(runner, given, protein, s)
    residues = given.tables["residues"]
    token = residues["token"].to_numpy()[predicted.row]
    table = observables_table(residues, predicted, token)
    learnt = runner.learnt_from(given)
    of_row = pa.nulls(len(residues), pa.bool_()) if learnt is None else pa.array(learnt)
    at = dict(zip(_keys(residues), of_row.to_pylist(), strict=True))
    flags = pa.array([at[key] for key in _keys(table)], pa.bool_())
    known[given.entry] = table.append_column("learnt_from", flags)
    return len(predicted.row)


def _keys(table: pa.Table) -> list[tuple[str, int]]:
    return list(zip(*(table[name].to_pylist() for name in ("chain", "index")), strict=True))


def _counted(given: Input, num_residues: int) -> Written:
    return Written(given.entry, given.path, num_residues=num_residues)
