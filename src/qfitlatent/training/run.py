"""One training from the tables to the artifact folder, in one process of those that take part."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import torch

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import sha256_file, sweep
from qfitlatent.model.dataset import Dataset
from qfitlatent.model.device import choose_device
from qfitlatent.model.labels import LabelWeights
from qfitlatent.model.learnt import learnt_chains
from qfitlatent.training.artifacts import data_files, refuse_finished, write_artifacts
from qfitlatent.training.initial import with_initial_network
from qfitlatent.training.loggers import on_epoch
from qfitlatent.training.processes import Processes
from qfitlatent.training.state import clear, identity_of, read_state
from qfitlatent.training.trainer import Trainer


def train_run(
    config: Mapping[str, Any],
    tables_dir: str | Path,
    split_path: str | Path,
    run_dir: str | Path,
    threads: int = 1,
    log: TextIO | None = None,
) -> None:
    """Trains, or resumes, the run of this configuration, and writes the artifact folder.

    Raises QfitLatentError: a run folder that holds another configuration, no residue with two
    altlocs to train on, a non-finite loss (naming the entry), an initial model that cannot be
    used, a logger that cannot be imported. The network is that of the initial model where there
    is one.
    """
    if config["average"]["members"]:
        raise QfitLatentError(
            "average.members names runs, so that nothing is to be trained: empty it, or run the "
            "workflow's target `train`, which averages them."
        )
    started = time.monotonic()
    logger = on_epoch()
    run_dir = Path(run_dir)
    config = with_initial_network(config)
    settings = config["train"]
    device = choose_device(settings["device"])
    torch.set_num_threads(max(1, threads))
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    unknown = settings["altlocs_unknown"]
    weights = LabelWeights.from_dict(settings)
    train = Dataset.load(
        tables_dir, split_path, ("train",), settings["max_entries"], unknown, weights
    )
    validation = Dataset.load(tables_dir, split_path, ("validation",), altlocs_unknown=unknown)
    for dataset, name in ((train, "training"), (validation, "validation")):
        _check_observed(dataset, name, settings)
    refuse_finished(run_dir, config)

    processes = Processes.join(device)
    trainer = Trainer(config, train, validation, device, processes)
    data = data_files(tables_dir, split_path)
    digests = {path.name: sha256_file(path) for path in data.values()}
    identity = identity_of(config, processes.world, digests)
    if processes.rank == 0:
        sweep(run_dir)
    state = read_state(run_dir, identity)
    if state is not None:
        trainer.resume(state, run_dir)
    seconds_before = trainer.seconds
    tell = None if logger is None else lambda row: logger(row, config)
    trainer.run(run_dir, identity, log, tell)
    if processes.rank == 0:
        trainer.load_best(run_dir)
        best = min(trainer.history, key=lambda row: row["validation_loss"])
        write_artifacts(
            run_dir,
            trainer.model,
            config,
            trainer.history,
            code=__file__,
            inputs=data,
            learnt=learnt_chains(tables_dir, train.chains) | trainer.learnt_before,
            wall_time_s=seconds_before + time.monotonic() - started,
            num_train_entries=len(train),
            num_validation_entries=len(validation),
            num_train_residues=int(train.num_residues.sum()),
            num_train_multiconformer=train.num_observed(multiconformer=True),
            best_epoch=best["epoch"],
            best_validation_loss=best["validation_loss"],
            device=str(device),
            processes=processes.world,
        )
        clear(run_dir)
    processes.leave()


def _check_observed(dataset: Dataset, name: str, settings: Mapping[str, Any]) -> None:
    multiconformer = settings["train_on"] == "multiconformer"
    if not dataset.num_observed(multiconformer):
        what = "two or more altlocs" if multiconformer else "a side-chain conformer"
        raise QfitLatentError(
            f"The {name} set has no residue with {what}: add multiconformer entries, or set "
            "`train.train_on: all`."
        )
