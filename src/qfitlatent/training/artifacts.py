"""What a training leaves in its run folder."""

import csv
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from qfitlatent.base import config as configuration
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path, write_json, write_text
from qfitlatent.base.models import MODEL_FILE
from qfitlatent.base.provenance import manifest
from qfitlatent.model.checkpoint import save_model
from qfitlatent.model.learnt import Learnt
from qfitlatent.model.network import DensityNetwork
from qfitlatent.pages.figures import draw_learning_curve
from qfitlatent.training.state import RESULT_SECTIONS, first_difference

METRICS = (
    "epoch",
    "step",
    "train_loss",
    "validation_loss",
    "validation_nll_multiconformer",
    "validation_nll_single",
    "distance_to_initial",
    "validation_nll_heterogeneous",
    "validation_nll_b_rank",
    "learning_rate",
    "gradient_norm",
    "residues_per_second",
    "seconds",
)


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
            if name in row:
                writer.add_scalar(name, row[name], row["epoch"])


def data_files(tables_dir: str | Path, split_path: str | Path) -> dict[str, Path]:
    """The files of a data set by the names that a manifest gives them."""
    tables = {f"tables/{path.name}": path for path in sorted(Path(tables_dir).glob("*.parquet"))}
    return tables | {"split.parquet": Path(split_path)}


def write_artifacts(
    run_dir: Path,
    model: DensityNetwork,
    config: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    *,
    code: str,
    inputs: Mapping[str, Path],
    wall_time_s: float,
    learnt: Learnt | None,
    dtype: torch.dtype = torch.float32,
    **facts: Any,
) -> None:
    """Weights in ``dtype``, configuration, figures of every epoch, learning curve and manifest.

    ``code`` is the module that made them, ``facts`` are further entries of the manifest, which is
    written last.
    """
    save_model(model, config, run_dir / MODEL_FILE, dtype, learnt)
    write_text(run_dir / "config.yaml", configuration.dump(config))
    write_metrics(history, run_dir / "metrics.csv")
    draw_learning_curve(history, run_dir / "learning_curve")
    seed = config["train"]["seed"]
    record = manifest(
        code=[code],
        inputs=inputs,
        outputs={name: run_dir / name for name in (MODEL_FILE, "config.yaml", "metrics.csv")},
        seeds={"seed": config["seed"] if seed is None else seed},
        wall_time_s=wall_time_s,
        num_parameters=sum(p.numel() for p in model.parameters()),
        **facts,
    )
    write_json(run_dir / "manifest.json", record)
