"""How good predicted models are: entries of one part of the split, predicted and judged.

Each is what ``predict`` would write for the deposited file, all side chains built anew; it is held
against the deposited side chains by ``judged.py``, in worker processes while the network runs here.

Shapes: N residues of a structure, M observed altlocs.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from qfitlatent.base import config
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import find_beside
from qfitlatent.model.batch import Protein
from qfitlatent.model.checkpoint import LoadedModel
from qfitlatent.model.dataset import first_by_hash
from qfitlatent.model.labels import unknown_entries
from qfitlatent.pages.readmes import write_readme
from qfitlatent.prediction.judged import JUDGED, Known, left_out, part_path, write_judged
from qfitlatent.prediction.predict import predicted_arrays
from qfitlatent.prediction.records import Input, Predicted, Unusable, Written
from qfitlatent.prediction.results import output_folder
from qfitlatent.prediction.runner import Runner
from qfitlatent.prediction.settings import PredictionSettings
from qfitlatent.prediction.workers import WORKERS_FROM
from qfitlatent.tables.parquet import read_table, table_writer


def judge_models(
    download_path: str | Path,
    split_path: str | Path,
    split: str,
    num_entries: int | None,
    out: str | Path,
    model: str | Path | LoadedModel | None = None,
    settings: PredictionSettings | None = None,
    altlocs_unknown: str | Path | None = None,
    threads: int = 1,
    stream: TextIO | None = None,
) -> pa.Table:
    """Predict and judge entries that have chains in ``split``; returns the table of entries.

    Writes ``residues.parquet``, ``bonds.parquet`` and ``entries.parquet`` into ``out``. Residues of
    other chains, and of those that the model learnt from, are predicted with the others, but not
    judged. num_entries: so many at most, the first by a hash of their names; None for all.
    altlocs_unknown: list of entries that are no evidence that a residue is single. An entry that
    cannot be judged is a row with the reason. threads: one for the network, the others for worker
    processes, unless there are few entries.

    Raises QfitLatentError where no entry of the split is there, or the model cannot be used.
    """
    out = Path(out)
    chains = read_table(split_path, ["entry", "chain", "split"])
    of_split = chains.filter(pc.equal(chains["split"], split))
    entries = first_by_hash(of_split["entry"].unique().to_pylist(), num_entries)
    found, failed = files_of_entries(download_path, entries)
    if not found:
        raise QfitLatentError(
            f"No entry of the split {split!r} of {split_path} has a file in {download_path}: "
            "choose another `evaluate.split` or add entries."
        )
    workers = 0 if len(found) < WORKERS_FROM else threads - 1
    settings = settings or config.settings(PredictionSettings, "predict")
    runner = Runner(model, replace(settings, workers=workers))
    every = np.unique(chains["entry"].to_numpy())
    known = partial(
        _known,
        runner,
        frozenset(zip(*(of_split[name].to_pylist() for name in ("entry", "chain")), strict=True)),
        frozenset(every[unknown_entries(every, altlocs_unknown)].tolist()),
    )
    with output_folder(out), tempfile.TemporaryDirectory(dir=out) as parts:
        write = partial(write_judged, Path(parts), runner.settings.min_weight)
        failed += [x for x in runner.run(found, {}, known, write, stream) if x.error]
        there = sorted({*entries} - {result.entry for result in failed})
        for name, schema in JUDGED.items():
            with table_writer(out / f"{name}.parquet", schema, runner.about_model()) as writer:
                rows = [read_table(part_path(Path(parts), entry, name)) for entry in there]
                if name == "entries":
                    rows = [pa.concat_tables([*rows, left_out(failed)]).sort_by("entry")]
                for table in rows:
                    writer.write(table)
    for result in failed if stream else ():
        print(f"{result.entry}: {result.error}", file=stream)
    write_readme("readmes/predicted.md", out, split=split)
    return read_table(out / "entries.parquet")


def files_of_entries(
    download_path: str | Path, entries: Sequence[str]
) -> tuple[dict[Path, str], list]:
    """The file of each entry, and what became of those that have none of their own."""
    rows = read_table(download_path, ["entry", "path"]).to_pylist()
    path_of = {row["entry"]: row["path"] for row in rows}
    found: dict[Path, str] = {}
    failed = []
    for entry in entries:
        path = find_beside(path_of.get(entry) or "", download_path)
        if path in found or not path.is_file():
            why = f"is that of {found[path]}, too" if path in found else "is not there any more"
            sentence = f"The file of {entry} {why}: download or preprocess the entries again."
            failed.append(Written(entry, path, "no_file", sentence))
        else:
            found[path] = entry
    return found, failed


def _known(
    runner: Runner,
    chains: frozenset[tuple[str, str]],
    unknown: frozenset[str],
    given: Input,
    protein: Protein,
    s: Tensor,
) -> tuple[Predicted, Known]:
    """What the network predicts of a structure, and what of it is judged by what.

    chains: (entry, chain) of the split; unknown: entries whose altlocs were not kept; s (N,d_s).
    """
    predicted = predicted_arrays(runner, given, protein, s)
    names = given.tables["residues"]["chain"].take(pa.array(predicted.row)).to_pylist()
    wanted = np.array([(given.entry, name) in chains for name in names], dtype=bool)
    learnt = runner.learnt_from(given)
    learnt = np.zeros_like(wanted) if learnt is None else learnt[predicted.row]
    if not (wanted & ~learnt).any():
        sentence = f"The model was trained on every chain of {given.entry}, which cannot judge it."
        raise Unusable("learnt_from", sentence)
    return predicted, known_of(
        protein, wanted & ~learnt, wanted & learnt, given.entry not in unknown
    )


def known_of(protein: Protein, counts: np.ndarray, learnt: np.ndarray, altlocs_kept: bool) -> Known:
    """The deposited altlocs of a protein; counts (N,) and learnt (N,) as in ``Known``."""
    chi = torch.where(protein.defined, protein.chi, torch.nan)
    return Known(
        counts,
        learnt,
        protein.row_residue.numpy(),
        chi.numpy().astype(np.float64),
        protein.occupancy.numpy().astype(np.float64),
        altlocs_kept,
    )
