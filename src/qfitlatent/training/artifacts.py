"""What a training leaves in its run folder."""

import csv
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qfitlatent.base import config as configuration
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path, write_json, write_text
from qfitlatent.base.provenance import manifest
from qfitlatent.model.checkpoint import MODEL_FILE, save_model
from qfitlatent.pages.figures import draw_learning_curve

METRICS = (
    "epoch",
    "step",
    "train_loss",
    "validation_loss",
    "validation_nll_multiconformer",
    "validation_nll_single",
    "learning_rate",
    "gradient_norm",
    "residues_per_second",
    "seconds",
)


RESULT_SECTIONS = ("model", "train", "seed", "dataset")
"""Parts of the configuration that decide the weights: a resume needs them unchanged."""


def refuse_finished(run_dir: Path, config: Mapping[str, Any]) -> None:
    """A finished run is not overwritten by another one. (Snakemake deletes it before it calls.)"""
    path = run_dir / "config.yaml"
    if not path.is_file():
        return
    held = configuration.load(path)
    old, new = ({name: c[name] for name in RESULT_SECTIONS} for c in (held, config))
    difference = first_difference(old, new)
    if difference is not None:
        raise QfitLatentError(
            f"The run folder {run_dir} holds a model with another configuration ({difference}): "
            "choose another `run` name, or delete the folder to train again."
        )


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> str | None:
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found = first_difference(a, b, f"{path}{key}.")
            if found:
                return found
        elif a != b:
            return f"{path}{key} is {a} there and {b} here"
    return None


def write_metrics(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """``metrics.csv``: a row an epoch."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, METRICS, lineterminator="\n")
        writer.writeheader()
        for row in history:
            writer.writerow({n: f"{row[n]:.6g}" if n in row else "" for n in METRICS})


def write_tensorboard(row: Mapping[str, float], folder: Path) -> None:
    """The same row as TensorBoard events, where the package ``tensorboard`` is installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for name in METRICS[2:]:
            writer.add_scalar(name, row[name], row["epoch"])


def write_artifacts(trainer, config, tables_dir, split_path, run_dir, seconds) -> None:
    save_model(trainer.model, config, run_dir / MODEL_FILE)
    write_text(run_dir / "config.yaml", configuration.dump(config))
    draw_learning_curve(trainer.history, run_dir / "learning_curve")
    best = min(trainer.history, key=lambda row: row["validation_loss"])
    tables = {f"tables/{p.name}": p for p in sorted(tables_dir.glob("*.parquet"))}
    outputs = (MODEL_FILE, "config.yaml", "metrics.csv")
    write_json(
        run_dir / "manifest.json",
        manifest(
            code=[__file__],
            inputs={**tables, "split.parquet": split_path},
            outputs={name: run_dir / name for name in outputs},
            seeds={"seed": trainer.seed},
            wall_time_s=seconds,
            num_parameters=sum(p.numel() for p in trainer.model.parameters()),
            num_train_entries=len(trainer.train),
            num_validation_entries=len(trainer.validation),
            num_train_residues=int(trainer.train.num_residues.sum()),
            num_train_multiconformer=trainer.train.num_observed(multiconformer=True),
            best_epoch=best["epoch"],
            best_validation_loss=best["validation_loss"],
            device=str(trainer.device),
            processes=trainer.world,
        ),
    )
