"""The average of trained runs as a run of its own (``average.members``): nothing is trained.

Runs differ in what they overfit, so that their mean density is better than each. A member may also
stand in the mean several times, each time with other units left out (``average.dropout_passes``).
"""

import csv
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch

from qfitlatent.base import config as configuration
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import sha256_file, write_json, write_text
from qfitlatent.base.provenance import manifest
from qfitlatent.model.average import build_model
from qfitlatent.model.checkpoint import MODEL_FILE, load_model, load_weights, save_model
from qfitlatent.pages.figures import draw_learning_curve
from qfitlatent.training.artifacts import METRICS, write_metrics


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
    members = [Path(member) for member in config["average"]["members"]]
    tables = {f"tables/{p.name}": p for p in sorted(Path(tables_dir).glob("*.parquet"))}
    data = {**tables, "split.parquet": Path(split_path)}
    _refuse_other_data(members, data)
    models, rows = [], []
    for member in members:
        loaded = load_model(member)
        models.append(loaded.model)
        rows += _history(loaded.path.parent / "metrics.csv", len(rows))
        if log is not None:
            log.write(f"{member}: {len(rows)} epochs so far\n")
    model = build_model(config)
    for own, trained, member in zip(model.members, models, members, strict=True):
        load_weights(own, trained.state_dict(), member)
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    save_model(model, config, run_dir / MODEL_FILE, torch.float16)
    write_text(run_dir / "config.yaml", configuration.dump(config))
    write_metrics(rows, run_dir / "metrics.csv")
    draw_learning_curve(rows, run_dir / "learning_curve")
    written = (MODEL_FILE, "config.yaml", "metrics.csv")
    inputs = {f"members/{m.name}/{MODEL_FILE}": m / MODEL_FILE for m in members}
    made = manifest(
        code=[__file__],
        inputs=data | inputs,
        outputs={name: run_dir / name for name in written},
        seeds={"seed": config["seed"]},
        wall_time_s=time.monotonic() - started,
        num_parameters=sum(p.numel() for p in model.parameters()),
    )
    write_json(run_dir / "manifest.json", made)


def _history(path: Path, epochs_before: int) -> list[dict[str, float]]:
    """Rows of a member's ``metrics.csv``, their epochs counted on from the member before."""
    with open(path, newline="") as file:
        rows = [{n: float(row[n]) for n in METRICS if row[n]} for row in csv.DictReader(file)]
    return [row | {"epoch": row["epoch"] + epochs_before} for row in rows]


def _refuse_other_data(members: Sequence[Path], data: Mapping[str, Path]) -> None:
    own = {name: sha256_file(path) for name, path in data.items()}
    for member in members:
        path = member / "manifest.json"
        if not path.is_file():
            raise QfitLatentError(f"{member} holds no trained run: train it before its average.")
        theirs = json.loads(path.read_text("utf-8"))["inputs"]
        for name, digest in own.items():
            if theirs.get(name, {}).get("sha256") != digest:
                raise QfitLatentError(
                    f"{member} was trained with another {name} than this run has: its test set "
                    "may be in their training set. Train the members again on these data."
                )
