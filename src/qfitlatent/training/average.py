"""The average of trained runs as a run of its own (``average.members``): nothing is trained.

Runs differ in what they overfit, so that their mean density is better than each. A member may also
stand in the mean several times, each time with other units left out (``average.dropout_passes``).
"""

import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json, sha256_file
from qfitlatent.base.models import MODEL_FILE
from qfitlatent.model.average import AverageModel, build_model
from qfitlatent.model.checkpoint import load_model, load_weights
from qfitlatent.model.learnt import Learnt
from qfitlatent.model.network import QFitLatent
from qfitlatent.training.artifacts import METRICS, data_files, write_artifacts
from qfitlatent.training.initial import with_initial_network


def average_runs(
    config: Mapping[str, Any],
    tables_dir: str | Path,
    split_path: str | Path,
    run_dir: str | Path,
    log: TextIO | None = None,
) -> None:
    """Writes the artifact folder of the average of ``config["average"]["members"]``.

    Weights are kept in half precision. ``metrics.csv`` holds the epochs of all members, one member
    after the other. Raises QfitLatentError for a member that is not there, is of another
    architecture or was trained with other tables or another split.
    """
    started = time.monotonic()
    config = with_initial_network(config)  # as the members were trained
    run_dir = Path(run_dir)
    members = [Path(member) for member in config["average"]["members"]]
    data = data_files(tables_dir, split_path)
    _refuse_other_data(members, data)
    model = build_model(config)
    rows: list[dict[str, float]] = []
    learnt: Learnt | None = None
    assert isinstance(model, AverageModel)  # the configuration names members
    for own, member in zip(model.members, members, strict=True):
        loaded = load_model(member)
        assert isinstance(own, QFitLatent)
        load_weights(own, loaded.model.state_dict(), member)
        learnt = loaded.learnt if learnt is None else learnt | loaded.learnt
        rows += _history(loaded.path.parent / "metrics.csv", len(rows))
        if log is not None:
            log.write(f"{member}: {len(rows)} epochs so far\n")
    write_artifacts(
        run_dir,
        model,
        config,
        rows,
        code=__file__,
        inputs=data | {f"members/{m.name}/{MODEL_FILE}": m / MODEL_FILE for m in members},
        learnt=learnt,
        wall_time_s=time.monotonic() - started,
        dtype=torch.float16,
    )


def _history(path: Path, epochs_before: int) -> list[dict[str, float]]:
    """Rows of a member's ``metrics.csv``, their epochs counted on from the member before."""
    with open(path, newline="") as file:
        rows = [{n: float(row[n]) for n in METRICS if row.get(n)} for row in csv.DictReader(file)]
    return [row | {"epoch": row["epoch"] + epochs_before} for row in rows]


def _refuse_other_data(members: Sequence[Path], data: Mapping[str, Path]) -> None:
    own = {name: sha256_file(path) for name, path in data.items()}
    for member in members:
        path = member / "manifest.json"
        if not path.is_file():
            raise QfitLatentError(f"{member} holds no trained run: train it before its average.")
        theirs = read_json(path)["inputs"]
        for name, digest in own.items():
            if theirs.get(name, {}).get("sha256") != digest:
                raise QfitLatentError(
                    f"{member} was trained with another {name} than this run has: its test set "
                    "may be in their training set. Train the members again on these data."
                )
