"""The loop over epochs: AdamW, cosine schedule, one protein a step, resumable from every epoch.

Everything random is derived from (seed, epoch) at the start of an epoch, so a training that is
killed and resumed from its last finished epoch ends with the same bytes as one that was not.

With several processes each takes every W-th batch of the epoch and gradients are those of the
global batch of W batches: each process scales its summed loss by W over the global weight.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.progress import Progress
from qfitlatent.density.loss import nll_sum
from qfitlatent.density.protocol import Density
from qfitlatent.model.batch import Batch, Protein, collate
from qfitlatent.model.checkpoint import load_weights
from qfitlatent.model.dataset import Dataset
from qfitlatent.model.device import device_memory_bytes
from qfitlatent.model.learnt import Learnt
from qfitlatent.model.network import QFitLatent
from qfitlatent.model.outputs import Outputs
from qfitlatent.model.settings import ModelConfig
from qfitlatent.training.artifacts import write_metrics, write_tensorboard
from qfitlatent.training.batches import Batches, crop_that_fits
from qfitlatent.training.initial import Distance, freeze, initial_model
from qfitlatent.training.processes import Processes
from qfitlatent.training.state import BEST_FILE, STATE_FILE, load_tensors, save_tensors


class Trainer:
    """Model, optimiser and schedule of one run, and the loop over epochs."""

    def __init__(
        self,
        config: Mapping[str, Any],
        train: Dataset,
        validation: Dataset,
        device: torch.device,
        processes: Processes | None = None,
    ) -> None:
        self.settings = config["train"]
        self.train, self.validation = train, validation
        self.device, self.processes = device, processes or Processes(device)
        self.seed = config["seed"] if self.settings["seed"] is None else self.settings["seed"]
        torch.manual_seed(self.seed)
        self.model = QFitLatent(ModelConfig.from_dict(config["model"])).to(device)
        self.learnt_before: Learnt | None = None
        self.distance: Distance | None = None
        start = initial_model(self.settings)
        if start is not None:
            load_weights(self.model, start.model.state_dict(), start.path)
            self.learnt_before = start.learnt
            self.distance = Distance(start.model, validation)
        self.trained = freeze(self.model, self.settings["frozen_blocks"])
        self.optimizer = torch.optim.AdamW(
            self.trained,
            lr=self.settings["learning_rate"],
            weight_decay=self.settings["weight_decay"],
            fused=device.type in ("cpu", "cuda"),
        )
        decay = self.settings["ema_decay"]
        weights = self.model.state_dict()
        self.ema = {n: p.clone() for n, p in weights.items()} if decay else None
        self.epoch = self.step = 0
        self.history: list[dict[str, float]] = []
        self.best = math.inf
        self.seconds = 0.0
        memory = device_memory_bytes(device)
        crop = crop_that_fits(train, self.settings, self.model.config, memory)
        self.batches = Batches(train, self.settings, crop, self.processes)
        self.num_steps = self.batches.steps_per_epoch * self.settings["epochs"]
        every = self.settings["train_on"] == "all"
        self.objective = {
            "single_weight": self.settings["single_weight"] if every else 0.0,
            "multiconformer_weight": self.settings["multiconformer_weight"] if every else 1.0,
            "folded": self.settings["density"] == "folded",
            "distinct": every,
        }
        factors = [1.0]
        if self.model.config.outputs:
            factors += [self.settings[f"{name}_loss"] for name in ("heterogeneous", "b_rank")]
        self.factors = torch.tensor(factors, device=device)

    def state(self) -> dict[str, Any]:
        """All that a resume needs beside the configuration and the data."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema,
            "epoch": self.epoch,
            "step": self.step,
            "best": self.best,
            "history": self.history,
            "seconds": self.seconds,
        }

    def resume(self, state: Mapping[str, Any], run_dir: Path) -> None:
        """Takes up what ``state`` gave after an epoch."""
        load_weights(self.model, state["model"], run_dir / STATE_FILE)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema = {n: p.to(self.device) for n, p in state["ema"].items()}
        self.epoch, self.step, self.best = state["epoch"], state["step"], state["best"]
        self.history, self.seconds = state["history"], state["seconds"]

    def load_best(self, run_dir: Path) -> None:
        """The weights of the epoch with the lowest validation loss."""
        load_weights(self.model, load_tensors(run_dir / BEST_FILE), run_dir / BEST_FILE)

    def run(
        self,
        run_dir: Path,
        identity: Mapping[str, Any],
        log: TextIO | None,
        tell: Callable[[Mapping[str, float]], object] | None = None,
    ) -> None:
        """The epochs that are left; after each, its state and its figures are on disk, and are told
        to ``tell``.
        """
        total = self.settings["epochs"] * len(self.train)
        if self.distance is not None and not self.history:
            self._begin(run_dir)
        with Progress(total, "proteins", log, done=self.epoch * len(self.train)) as progress:
            while self.epoch < self.settings["epochs"] and not self._exhausted():
                row = self.train_epoch(progress)
                self.history.append(row)
                improved = row["validation_loss"] < self.best
                self.best = min(self.best, row["validation_loss"])
                if self.processes.rank == 0:
                    if improved or len(self.history) == 1:
                        save_tensors(self.ema or self.model.state_dict(), run_dir / BEST_FILE)
                    save_tensors({"identity": identity, **self.state()}, run_dir / STATE_FILE)
                    write_metrics(self.history, run_dir / "metrics.csv")
                    write_tensorboard(row, run_dir / "tensorboard")
                    if tell is not None:
                        tell(row)
                    self._say_what_is_forgotten(row, log)

    def _begin(self, run_dir: Path) -> None:
        """Epoch 0 is the initial model itself: what no epoch improves on is kept as it was."""
        row = {"epoch": 0.0, "step": 0.0, **self.validate(), "seconds": 0.0}
        self.history.append(row)
        self.best = row["validation_loss"]
        if self.processes.rank == 0:
            save_tensors(self.model.state_dict(), run_dir / BEST_FILE)

    def _say_what_is_forgotten(self, row: Mapping[str, float], log: TextIO | None) -> None:
        """Where an epoch is farther from the initial model than ``train.max_distance_nats``."""
        distance = row.get("distance_to_initial", 0.0)
        if log is not None and distance > self.settings["max_distance_nats"]:
            log.write(
                f"epoch {self.epoch} is {distance:.3f} nats per residue away from the model "
                f"{self.settings['initial_model']}: it forgets what that had learnt; lower "
                "train.learning_rate, keep more blocks as they are (train.frozen_blocks) or train "
                "for fewer epochs.\n"
            )

    def _exhausted(self) -> bool:
        """Whether ``train.patience`` epochs have passed without a better validation loss."""
        patience = self.settings["patience"]
        losses = [row["validation_loss"] for row in self.history]
        return 0 < patience < len(losses) and len(losses) - 1 - int(np.argmin(losses)) >= patience

    def train_epoch(self, progress: Progress) -> dict[str, float]:
        """One pass over the training set; returns its row of ``metrics.csv``."""
        started = time.monotonic()
        # One seed for order, noise and crops, the same in every process; dropout differs by rank.
        seed = int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed + self.processes.rank)
        self.model.train()
        loss_sum = weight_sum = norm_sum = rate = 0.0
        residues = 0
        for proteins in self.batches.epoch(generator):
            rate = self.learning_rate(self.step)
            loss, weight, norm = self.train_step(proteins, rate)
            loss_sum, weight_sum, norm_sum = loss_sum + loss, weight_sum + weight, norm_sum + norm
            residues += sum(len(protein) for protein in proteins)
            self.step += 1
            mean = loss_sum / max(weight_sum, 1e-9)
            progress.update(
                len(proteins) * self.processes.world,
                epoch=self.epoch + 1,
                train_loss=f"{mean:.3f}",
            )
        seconds = time.monotonic() - started
        scores = self.validate()
        self.epoch += 1
        self.seconds += time.monotonic() - started
        progress.update(0, validation_loss=f"{scores['validation_loss']:.3f}")
        sums = torch.tensor([loss_sum, weight_sum, residues], dtype=torch.float64)
        sums = self.processes.sum(sums)
        return {
            "epoch": self.epoch,
            "step": self.step,
            "train_loss": float(sums[0] / sums[1].clamp(min=1e-9)),
            **scores,
            "learning_rate": rate,
            "gradient_norm": norm_sum / max(1, self.batches.steps_per_epoch),
            "residues_per_second": float(sums[2]) / max(seconds, 1e-9),
            "seconds": self.seconds,
        }

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then cosine to ``final_learning_rate_fraction`` over the run."""
        top, warmup = self.settings["learning_rate"], self.settings["warmup_steps"]
        if step < warmup:
            return top * (step + 1) / warmup
        last = self.settings["final_learning_rate_fraction"]
        done = (step - warmup) / max(1, self.num_steps - 1 - warmup)
        return top * (last + (1 - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))

    def train_step(self, proteins: Sequence[Protein], rate: float) -> tuple[float, float, float]:
        """One update of the weights.

        Returns the density loss and its weight, summed over residues, and the gradient norm.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        if proteins:
            loss, weight = self.loss(collate(proteins).to(self.device))
        else:  # the other processes have a batch more
            nothing = torch.stack([p.sum() * 0.0 for p in self.model.parameters()]).sum()
            weight = torch.zeros_like(self.factors)
            loss = nothing + weight
        total = self.processes.sum(weight.detach().clone())
        if not torch.isfinite(loss).all():
            names = ", ".join(protein.entry for protein in proteins)
            became = float(loss.detach().sum())
            raise QfitLatentError(
                f"The loss became {became} in epoch {self.epoch + 1} on {names}: "
                "inspect the entry, lower `train.learning_rate` or set `train.gradient_clip`."
            )
        norm = torch.zeros(())
        if total.any():
            # A part of which no residue of the batch is evidence has a sum of 0.
            (self.factors * loss / total.where(total > 0, 1.0)).sum().backward()
            self.processes.sum_gradients(self.trained)
            clip = self.settings["gradient_clip"] or math.inf
            norm = torch.nn.utils.clip_grad_norm_(self.trained, clip)
            self.optimizer.step()
            self._update_ema()
        return float(loss.detach()[0]), float(weight[0]), float(norm)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The parts of a batch's loss, summed over residues, and the sums of their weights.

        (1,) the density; with ``model.outputs`` (3,), p_heterogeneous and b_rank too.
        """
        low = self.settings["precision"] == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            s = self.model.encode(batch)
        s, token, mask = s.float(), batch.token[batch.mask], batch.mask
        density = self.model.density(s, token)
        parts = [_nll(density, batch, residue_weight=batch.weight[mask], **self.objective)]
        outputs = self.model.outputs(s, token)
        if outputs is not None:
            parts += _outputs_nll(outputs, batch)
        loss, weight = zip(*parts, strict=True)
        return torch.stack(loss), torch.stack([w.to(s.dtype) for w in weight])

    @torch.no_grad()
    def _update_ema(self) -> None:
        if self.ema is None:
            return
        # A short average at first, so that the initial weights are soon forgotten.
        decay = min(self.settings["ema_decay"], (1 + self.step) / (10 + self.step))
        weights = self.model.state_dict()
        torch._foreach_lerp_([self.ema[n] for n in weights], list(weights.values()), 1 - decay)

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """The running mean of the weights in the model, where one is kept."""
        if self.ema is None:
            yield
            return
        kept = {n: p.clone() for n, p in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema)
        yield
        self.model.load_state_dict(kept)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The training loss of the density, and the proper NLL of both populations.

        On the validation split, every residue of a population weighing alike; with the model's
        outputs, their NLL on the residues that are evidence too; where training started from a
        model, how far it has moved from that.
        """
        objectives = {
            "validation_loss": self.objective,
            "validation_nll_multiconformer": {"folded": False},
            "validation_nll_single": {
                "single_weight": 1.0,
                "multiconformer_weight": 0.0,
                "folded": False,
            },
        }
        names = [*objectives]
        if self.model.config.outputs:
            names += ["validation_nll_heterogeneous", "validation_nll_b_rank"]
        sums = torch.zeros(len(names), 2, dtype=torch.float64)
        self.model.eval()
        with self._averaged_weights():
            for i in range(self.processes.rank, len(self.validation), self.processes.world):
                batch = collate([self.validation[i]]).to(self.device)
                s, token = self.model.encode(batch), batch.token[batch.mask]
                density, outputs = self.model.density(s, token), self.model.outputs(s, token)
                parts = [_nll(density, batch, **objective) for objective in objectives.values()]
                if outputs is not None:
                    parts += _outputs_nll(outputs, batch)
                sums += torch.tensor([[float(x) for x in part] for part in parts]).double()
            moved = {}
            if self.distance is not None:
                moved["distance_to_initial"] = self.distance(self.model, self.device)
        sums = self.processes.sum(sums)
        return dict(zip(names, (sums[:, 0] / sums[:, 1]).tolist(), strict=True)) | moved


def _nll(
    density: Density, batch: Batch, distinct: bool = False, **objective: Any
) -> tuple[Tensor, Tensor]:
    """With ``distinct``, residues with several conformers that differ are the multiconformer ones;
    otherwise those with several altlocs, as SPEC 7 has it."""
    rows = (batch.chi, batch.defined, batch.occupancy, batch.row_residue)
    several = batch.num_distinct[batch.mask] > 1 if distinct else None
    return nll_sum(density, *rows, several=several, **objective)


def _outputs_nll(outputs: Outputs, batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """Sum and number of residues of each output's NLL."""
    mask = batch.mask
    return [
        outputs.heterogeneous_nll(batch.heterogeneous[mask]),
        outputs.b_rank_nll(batch.b_rank[mask]),
    ]
