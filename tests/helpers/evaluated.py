"""A small simulated data set, split and evaluated once for all tests that read an evaluation."""

import atexit
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from helpers.judged import write_tables
from helpers.simulated import simulator
from qfitlatent.archive.entries import EntryRef
from qfitlatent.archive.log import log_local_files
from qfitlatent.base import config as configuration
from qfitlatent.dataset.split import split_entries
from qfitlatent.evaluation.evaluate import evaluate_run
from qfitlatent.evaluation.settings import EvaluationSettings
from qfitlatent.model.checkpoint import save_model
from qfitlatent.model.network import QFitLatent
from qfitlatent.model.settings import ModelConfig
from qfitlatent.pages.figures import draw_learning_curve
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import entry_ids
from qfitlatent.structure.preprocess import preprocess_entries

FRACTIONS = {"train": 0.5, "validation": 0.1, "test": 0.4}
SETTINGS = {"baselines": ["uniform", "type_library"], "bootstrap_samples": 200, "num_samples": 128}


def settings(**changes: Any) -> EvaluationSettings:
    """Those of small evaluations, with these keys changed."""
    return configuration.settings(EvaluationSettings, "evaluate", SETTINGS | changes)


@dataclass(frozen=True)
class Evaluated:
    """Paths of the data set, of a run with an untrained model, and of its evaluation."""

    tables: Path
    split: Path
    truth: Path
    run: Path
    out: Path


def make_data_set(folder: Path, num_entries: int = 40) -> tuple[Path, Path, Path]:
    """Tables, split and truth folder of simulated entries."""
    simulated = simulator(num_entries=num_entries, num_families=num_entries // 2)
    ids = entry_ids(simulated)
    paths = write_entries(ids, folder / "simulated", simulated, seed=3)
    refs = [EntryRef(entry, str(path)) for entry, path in zip(ids, paths, strict=True)]
    with open(os.devnull, "w") as log:
        log_local_files(refs, "simulated", folder / "log.parquet", log)
        preprocess_entries(folder / "log.parquet", folder / "tables", stream=log)
    sets = configuration.load({"split": {"fractions": FRACTIONS}})["split"]
    split_entries(folder / "tables", folder / "split.parquet", seed=1, **sets)
    return folder / "tables", folder / "split.parquet", folder / "simulated"


def make_run(folder: Path, name: str, **model) -> Path:
    """A run folder with an untrained model of one block."""
    sizes = {"num_blocks": 1, "d_s": 16, "d_z": 8}
    config = configuration.load({"run": name, "dataset": "tiny", "model": {**sizes, **model}})
    run = folder / name
    run.mkdir()
    save_model(
        QFitLatent(ModelConfig.from_dict(config["model"])), config, run / "model.safetensors"
    )
    history = [{"epoch": epoch, "train_loss": 2 / epoch} for epoch in (1, 2, 3)]
    draw_learning_curve(history, run / "learning_curve")
    return run


def evaluate_tiny(run: Path, tables: Path, split: Path, truth: Path, processes: int = 1) -> None:
    """Everything that an evaluation can have, below the run."""
    where = run, tables, split, run / "evaluation"
    also = {"truth_dir": truth, "predicted": run / "predicted", "processes": processes}
    evaluate_run(*where, settings(), **also)


@cache
def evaluated_tiny() -> Evaluated:
    """Simulate, split, and evaluate an untrained model with the report; once a test process."""
    folder = Path(tempfile.mkdtemp(prefix="qfitlatent-evaluated-"))
    atexit.register(shutil.rmtree, folder)
    tables, split, truth = make_data_set(folder)
    run = make_run(folder, "untrained")
    write_tables(run / "predicted")
    evaluate_tiny(run, tables, split, truth)
    return Evaluated(tables, split, truth, run, run / "evaluation")
