"""Training: AdamW, cosine schedule, one protein a step, resumable from every epoch.

Everything random is derived from (seed, epoch) at the start of an epoch, so a training that is
killed and resumed from its last finished epoch ends with the same bytes as one that was not.
``<run>/state/`` holds what a resume needs; it is no output of the workflow, because Snakemake
deletes outputs of a failed job. It goes when the artifacts are complete.

With several processes (torchrun) each takes every W-th batch of the epoch and gradients are those
of the global batch of W batches: each process scales its summed loss by W over the global weight.
"""

import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path, sha256_file
from qfitlatent.base.progress import Progress
from qfitlatent.chemistry.residues import UNKNOWN_TOKEN
from qfitlatent.density.loss import nll_sum
from qfitlatent.model.batch import Protein, collate
from qfitlatent.model.checkpoint import load_model, load_weights
from qfitlatent.model.dataset import Dataset
from qfitlatent.model.device import choose_device, device_memory_bytes
from qfitlatent.model.network import QFitLatent
from qfitlatent.model.settings import ModelConfig, training_bytes
from qfitlatent.training.artifacts import (
    RESULT_SECTIONS,
    first_difference,
    refuse_finished,
    write_artifacts,
    write_metrics,
    write_tensorboard,
)

STATE_FILE = "state/last.pt"


BEST_FILE = "state/best.pt"


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
    altlocs to train on, a non-finite loss (naming the entry), an initial model of another
    architecture.
    """
    if config["average"]["members"]:
        raise QfitLatentError(
            "average.members names runs, so that nothing is to be trained: empty it, or run the "
            "workflow's target `train`, which averages them."
        )
    started = time.monotonic()
    tables_dir, run_dir = Path(tables_dir), Path(run_dir)
    settings = config["train"]
    device = choose_device(settings["device"])
    torch.set_num_threads(max(1, threads))
    torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
    world, rank = _join_processes(device)

    train = Dataset.load(tables_dir, split_path, ("train",), settings["max_entries"])
    validation = Dataset.load(tables_dir, split_path, ("validation",))
    for dataset, name in ((train, "training"), (validation, "validation")):
        _check_observed(dataset, name, settings)
    trainer = Trainer(config, train, validation, device, world, rank)
    trainer.data = {
        path.name: sha256_file(path)
        for path in (*sorted(tables_dir.glob("*.parquet")), Path(split_path))
    }
    refuse_finished(run_dir, config)
    trainer.resume_or_start(run_dir)
    trainer.run(run_dir, log)

    if rank == 0:
        trainer.load_best(run_dir)
        seconds = trainer.seconds + time.monotonic() - started - trainer.session_seconds
        write_artifacts(trainer, config, tables_dir, Path(split_path), run_dir, seconds)
        shutil.rmtree(run_dir / "state")
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


class Trainer:
    """Model, optimiser and schedule of one run, and the loop over epochs."""

    def __init__(self, config, train: Dataset, validation: Dataset, device, world=1, rank=0):
        self.config, self.settings = config, config["train"]
        self.train, self.validation = train, validation
        self.data: dict[str, str] = {}  # sha256 of each table, part of what a resume needs
        self.device, self.world, self.rank = device, world, rank
        self.seed = config["seed"] if self.settings["seed"] is None else self.settings["seed"]
        torch.manual_seed(self.seed)
        self.model = QFitLatent(ModelConfig.from_dict(config["model"])).to(device)
        if self.settings["initial_model"]:
            start = load_model(self.settings["initial_model"])
            load_weights(self.model, start.model.state_dict(), start.path)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=self.settings["learning_rate"],
            weight_decay=self.settings["weight_decay"],
            fused=device.type in ("cpu", "cuda"),
        )
        decay = self.settings["ema_decay"]
        self.ema = {n: p.clone() for n, p in self._weights().items()} if decay else None
        self.epoch = self.step = 0
        self.history: list[dict[str, float]] = []
        self.best = math.inf
        self.seconds = self.session_seconds = 0.0
        self.crop = self._longest_protein()
        batches = math.ceil(len(train) / self.settings["batch_size"])
        self.steps_per_epoch = math.ceil(batches / world)
        self.num_steps = self.steps_per_epoch * self.settings["epochs"]

    def _longest_protein(self) -> int:
        """Residues that a training protein may have; longer ones are cropped, 0 crops none.

        ``train.crop``, and no more than fits into half of the memory of the device.
        """
        crop = self.settings["crop"]
        sizes = np.sort(self.train.num_residues)
        shown = sizes if not crop else np.minimum(sizes, crop)
        memory = 0.5 * device_memory_bytes(self.device) / self.settings["batch_size"]
        config = self.model.config
        fits = [n for n in shown.tolist() if training_bytes(config, n) <= memory]
        if len(fits) == len(shown):
            return crop
        if not fits:
            raise QfitLatentError(
                f"Not even the smallest training protein fits into the memory of {self.device}: "
                "set `model.neighbours`, or a smaller `train.batch_size`."
            )
        print(
            f"{len(shown) - len(fits)} training proteins of up to {shown[-1]} residues need up to "
            f"{training_bytes(config, int(shown[-1])) / 1e9:.1f} GB and are cropped to "
            f"{fits[-1]} residues, which is what half of the memory holds.",
            file=sys.stderr,
        )
        return fits[-1]

    # --- state ---

    def _weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def _identity(self) -> dict[str, Any]:
        return {name: self.config[name] for name in RESULT_SECTIONS} | {
            "world": self.world,
            "data": self.data,
        }

    def resume_or_start(self, run_dir: Path) -> None:
        """Takes up ``state/last.pt`` where there is one; refuses one of another configuration."""
        path = run_dir / STATE_FILE
        if not path.is_file():
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        difference = first_difference(state["identity"], self._identity())
        if difference is not None:
            raise QfitLatentError(
                f"The run folder {run_dir} holds a training with another configuration "
                f"({difference}): choose another `run` name, or delete {run_dir / 'state'} to "
                "start again."
            )
        load_weights(self.model, state["model"], path)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema = {n: p.to(self.device) for n, p in state["ema"].items()}
        self.epoch, self.step, self.best = state["epoch"], state["step"], state["best"]
        self.history, self.seconds = state["history"], state["seconds"]

    def save_state(self, run_dir: Path) -> None:
        state = {
            "identity": self._identity(),
            "model": self._weights(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema,
            "epoch": self.epoch,
            "step": self.step,
            "best": self.best,
            "history": self.history,
            "seconds": self.seconds,
        }
        _save(state, run_dir / STATE_FILE)

    def load_best(self, run_dir: Path) -> None:
        load_weights(
            self.model,
            torch.load(run_dir / BEST_FILE, map_location="cpu", weights_only=True),
            run_dir / BEST_FILE,
        )

    # --- the loop ---

    def run(self, run_dir: Path, log: TextIO | None) -> None:
        patience = self.settings["patience"]
        total = self.settings["epochs"] * len(self.train)
        with Progress(total, "proteins", log) as progress:
            progress.update(self.epoch * len(self.train))
            while self.epoch < self.settings["epochs"] and not self._exhausted(patience):
                row = self._one_epoch(progress)
                self.history.append(row)
                improved = row["validation_loss"] < self.best
                self.best = min(self.best, row["validation_loss"])
                if self.rank == 0:
                    if improved:
                        _save(self.ema or self._weights(), run_dir / BEST_FILE)
                    self.save_state(run_dir)
                    write_metrics(self.history, run_dir / "metrics.csv")
                    write_tensorboard(row, run_dir / "tensorboard")

    def _exhausted(self, patience: int) -> bool:
        if not patience or len(self.history) <= patience:
            return False
        losses = [row["validation_loss"] for row in self.history]
        return len(losses) - 1 - int(np.argmin(losses)) >= patience

    def _one_epoch(self, progress: Progress) -> dict[str, float]:
        started = time.monotonic()
        # One seed for order, noise and crops, the same in every process; dropout differs by rank.
        seed = int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed + self.rank)
        self.model.train()
        loss_sum = weight_sum = norm_sum = 0.0
        residues = 0
        rate = 0.0
        for proteins in self._batches(generator):
            rate = self._learning_rate()
            loss, weight, norm = self._one_step(proteins, rate)
            loss_sum, weight_sum, norm_sum = loss_sum + loss, weight_sum + weight, norm_sum + norm
            residues += sum(len(protein) for protein in proteins)
            self.step += 1
            mean = loss_sum / max(weight_sum, 1e-9)
            progress.update(
                len(proteins) * self.world, epoch=self.epoch + 1, train_loss=f"{mean:.3f}"
            )
        seconds = time.monotonic() - started
        scores = self.validate()
        self.epoch += 1
        self.seconds += time.monotonic() - started
        self.session_seconds += time.monotonic() - started
        progress.update(0, validation_loss=f"{scores['validation_loss']:.3f}")
        sums = self._all_sum(torch.tensor([loss_sum, weight_sum, residues], dtype=torch.float64))
        return {
            "epoch": self.epoch,
            "step": self.step,
            "train_loss": float(sums[0] / sums[1].clamp(min=1e-9)),
            **scores,
            "learning_rate": rate,
            "gradient_norm": norm_sum / max(1, self.steps_per_epoch),
            "residues_per_second": float(sums[2]) / max(seconds, 1e-9),
            "seconds": self.seconds,
        }

    def _batches(self, generator: torch.Generator) -> Iterator[list[Protein]]:
        """This process's batches of an epoch: every entry once, similar lengths together."""
        order = torch.randperm(len(self.train), generator=generator).tolist()
        size = self.settings["batch_size"]
        if size > 1:
            # Sorted within pools of many batches: little padding, and still a random order.
            pool = 32 * size
            pools = (order[i : i + pool] for i in range(0, len(order), pool))
            lengths = self.train.num_residues
            order = [i for p in pools for i in sorted(p, key=lambda i: (lengths[i], i))]
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        if size > 1:
            batches = [batches[i] for i in torch.randperm(len(batches), generator=generator)]
        own = batches[self.rank :: self.world]
        for batch in own:
            yield [self._prepare(self.train[i], generator) for i in batch]
        for _ in range(self.steps_per_epoch - len(own)):
            yield []

    def _prepare(self, protein: Protein, generator: torch.Generator) -> Protein:
        noise = self.settings["backbone_noise_angstrom"]
        if self.crop:
            protein = protein.crop(self.crop, generator)
        if noise:
            shift = torch.randn(protein.translation.shape, generator=generator) * noise
            protein = replace(protein, translation=protein.translation + shift)
        masked = self.settings["masked_residues"]
        if masked:
            hidden = torch.rand(len(protein), generator=generator) < masked
            protein = replace(
                protein,
                token=protein.token.masked_fill(hidden, UNKNOWN_TOKEN),
                defined=protein.defined & ~hidden[protein.row_residue, None],
            )
        return protein

    def _one_step(self, proteins: Sequence[Protein], rate: float) -> tuple[float, float, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss, weight = self._loss(proteins) if proteins else self._no_loss()
        total = self._all_sum(weight.detach().clone())
        if not torch.isfinite(loss):
            names = ", ".join(protein.entry for protein in proteins)
            raise QfitLatentError(
                f"The loss became {float(loss.detach())} in epoch {self.epoch + 1} on {names}: "
                "inspect the entry, lower `train.learning_rate` or set `train.gradient_clip`."
            )
        if float(total) > 0:
            (loss / total).backward()
            self._sum_gradients()
            clip = self.settings["gradient_clip"] or math.inf
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
            self.optimizer.step()
            self._update_ema()
        else:
            norm = torch.zeros(())
        return float(loss.detach()), float(weight), float(norm)

    def _loss(self, proteins: Sequence[Protein]) -> tuple[Tensor, Tensor]:
        settings = self.settings
        batch = collate(proteins).to(self.device)
        low = settings["precision"] == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            s = self.model.encode(batch)
        density = self.model.density(s.float(), batch.token[batch.mask])
        every = settings["train_on"] == "all"
        return nll_sum(
            density,
            batch.chi,
            batch.defined,
            batch.occupancy,
            batch.row_residue,
            single_weight=settings["single_weight"] if every else 0.0,
            multiconformer_weight=settings["multiconformer_weight"] if every else 1.0,
            folded=settings["density"] == "folded",
        )

    def _no_loss(self) -> tuple[Tensor, Tensor]:
        zero = sum(p.sum() * 0.0 for p in self.model.parameters())
        return zero, torch.zeros((), device=self.device)

    def _learning_rate(self) -> float:
        """Linear warm-up, then cosine to ``final_learning_rate_fraction`` over the run."""
        top, warmup = self.settings["learning_rate"], self.settings["warmup_steps"]
        if self.step < warmup:
            return top * (self.step + 1) / warmup
        last = self.settings["final_learning_rate_fraction"]
        done = (self.step - warmup) / max(1, self.num_steps - 1 - warmup)
        return top * (last + (1 - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))

    @torch.no_grad()
    def _update_ema(self) -> None:
        if self.ema is None:
            return
        # A short average at first, so that the initial weights are soon forgotten.
        decay = min(self.settings["ema_decay"], (1 + self.step) / (10 + self.step))
        for name, value in self._weights().items():
            self.ema[name].lerp_(value, 1 - decay)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The training loss, and the proper NLL of both populations, on the validation split."""
        kept = {n: p.clone() for n, p in self._weights().items()}
        if self.ema is not None:
            self.model.load_state_dict(self.ema)
        self.model.eval()
        sums = torch.zeros(3, 2, dtype=torch.float64)
        for i in range(self.rank, len(self.validation), self.world):
            protein = self.validation[i]
            batch = collate([protein]).to(self.device)
            density = self.model(batch)
            rows = (density, batch.chi, batch.defined, batch.occupancy, batch.row_residue)
            every = self.settings["train_on"] == "all"
            options = (
                {
                    "single_weight": self.settings["single_weight"] if every else 0.0,
                    "multiconformer_weight": (
                        self.settings["multiconformer_weight"] if every else 1.0
                    ),
                    "folded": self.settings["density"] == "folded",
                },
                {"single_weight": 0.0, "multiconformer_weight": 1.0, "folded": False},
                {"single_weight": 1.0, "multiconformer_weight": 0.0, "folded": False},
            )
            for kind, option in enumerate(options):
                loss, weight = nll_sum(*rows, **option)
                sums[kind] += torch.stack([loss, weight]).double().cpu()
        sums = self._all_sum(sums)
        if self.ema is not None:
            self.model.load_state_dict(kept)
        means = (sums[:, 0] / sums[:, 1]).tolist()
        names = (
            "validation_loss",
            "validation_nll_multiconformer",
            "validation_nll_single",
        )
        return dict(zip(names, means, strict=True))

    # --- several processes ---

    def _all_sum(self, value: Tensor) -> Tensor:
        if self.world > 1:
            value = value.to(self.device)
            dist.all_reduce(value)
        return value

    def _sum_gradients(self) -> None:
        """Gradients of the global batch, in one message."""
        if self.world == 1:
            return
        parameters = list(self.model.parameters())
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        flat = torch.cat([p.grad.flatten() for p in parameters])
        dist.all_reduce(flat)
        start = 0
        for p in parameters:
            p.grad.copy_(flat[start : start + p.numel()].view_as(p))
            start += p.numel()


def _join_processes(device: torch.device) -> tuple[int, int]:
    """(world size, rank) under torchrun; (1, 0) alone."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        return 1, 0
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return dist.get_world_size(), dist.get_rank()


def _check_observed(dataset: Dataset, name: str, settings: Mapping[str, Any]) -> None:
    if not dataset.num_observed(multiconformer=settings["train_on"] == "multiconformer"):
        what = (
            "no residue with two or more altlocs"
            if settings["train_on"] == "multiconformer"
            else "no residue with a side-chain conformer"
        )
        raise QfitLatentError(
            f"The {name} set has {what}: add multiconformer entries, or set `train.train_on: all`."
        )


def _save(value: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        torch.save(value, temporary)
