"""Structures through the network: worker processes read and write, batches of like length run here.

Shapes: N residues of a structure.
"""

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from qfitlatent import __version__
from qfitlatent.base import config
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import sha256_file
from qfitlatent.base.progress import Progress
from qfitlatent.chemistry.residues import CHI_DEFINED, PI_SYMMETRIC
from qfitlatent.density.mixture import Modes, VonMisesMixture
from qfitlatent.density.protocol import Density
from qfitlatent.joint.candidates import MAX_MODES, MIN_MASS, Densities
from qfitlatent.model.batch import Protein, collate
from qfitlatent.model.checkpoint import LoadedModel, load_model
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.model.device import choose_device
from qfitlatent.model.passes import Passes
from qfitlatent.model.reference import read_reference
from qfitlatent.prediction.forecast import Forecast
from qfitlatent.prediction.records import (
    Input,
    Written,
    attempt,
    find_structures,
    is_batch,
    unusable_names,
)
from qfitlatent.prediction.results import Results, conclude, output_folder
from qfitlatent.prediction.selection import choice_of, choose
from qfitlatent.prediction.settings import PredictionSettings, failures_table
from qfitlatent.prediction.surroundings import words_of
from qfitlatent.prediction.workers import (
    Computed,
    Workers,
    Write,
    ahead,
    num_workers,
    windows,
    write_computed,
)
from qfitlatent.tables.keys import begins_run, chain_keys

BATCH_RESIDUES = {"cpu": 1024, "cuda": 16384, "mps": 4096}
"""Residues of a batch, padding included: enough to fill the device, few enough for its memory."""

PADDING = 0.25
"""A batch's shortest structure is at most so much shorter than its longest."""

Compute = Callable[[Input, Protein, Tensor], Any]
"""A structure and its single representation (N,d_s) to what a worker process writes."""


@dataclass
class Timing:
    """Seconds in the encoder, and in the head that turns it into densities.

    The head's beam search and the entropy are counted with it.
    """

    encoder: float = 0.0
    head: float = 0.0


class Runner:
    """A model on its device, and what becomes of many structures with it."""

    def __init__(
        self,
        model: str | Path | LoadedModel | None,
        settings: PredictionSettings | None,
        timing: Timing | None = None,
        embeds: bool = False,
    ) -> None:
        """``embeds``: ``encode`` is without dropout, not what the head of an average is given."""
        self.settings = settings or config.settings(PredictionSettings, "predict")
        self.choice = choice_of(self.settings)
        words_of(self.settings.surroundings)  # what it cannot name is refused now
        self.device = choose_device(self.settings.device)  # first: no model is read in vain
        loaded = model if isinstance(model, LoadedModel) else load_model(model)
        self.path, self.about, self.learnt = loaded.path, loaded.about, loaded.learnt
        self.sha256 = sha256_file(loaded.path)
        self.model = loaded.model.eval()
        if not all(torch.isfinite(value).all() for value in self.model.parameters()):
            raise QfitLatentError(
                f"The model {loaded.path} has weights that are not a number: it is damaged or its "
                "training diverged; use another."
            )
        # Densities are small and are evaluated on the CPU; the trunk is what needs the device.
        self.head = copy.deepcopy(self.model.head)
        self.reference, self.no_reference = read_reference(loaded.path, self.about.version)
        self.passes = Passes(self.model, self.settings.passes) if self.settings.passes else None
        self.model = self.model.to(self.device)
        self._network = self.model.embed if embeds else self.model.encode
        self.timing = timing or Timing()

    def about_model(self) -> dict[str, str]:
        """What every output says of the model."""
        return {
            "model": self.about.name,
            "model_version": self.about.version,
            "model_sha256": self.sha256,
            "trained_on": self.about.trained_on,
        }

    def identity(self, *keys: str) -> dict[str, Any]:
        """What of the model, and which settings, decide about a result: for its record."""
        about = {"format_version": "1", "software_version": __version__} | self.about_model()
        return about | {key: getattr(self.settings, key) for key in keys}

    def run_into(
        self,
        results: Results,
        paths: str | Path | Sequence[str | Path],
        compute: Compute,
        write: Callable[[Results, Input, Any], Written],
        *,
        overwrite: bool,
        resume: bool,
        stream: TextIO | None,
        failures: Path | None = None,
    ) -> list[Written]:
        """Each structure's files in the folder of the results; ``resume`` skips what is done.

        ``failures``: the table of what could not be used, where it is not in that folder. Raises
        QfitLatentError before anything is written for paths that are not there and results that
        are; as ``run``; and as ``conclude``.
        """
        found = find_structures(paths, self.settings.pattern)
        with output_folder(results.folder):
            known = unusable_names(found)
            for path, entry in found.items() if resume else ():
                if path not in known and (done := results.done(path, entry)):
                    known[path] = done
            if not overwrite:
                left = [entry for path, entry in found.items() if path not in known]
                results.refuse_existing(left, only_finished=resume)
            outcome = self.run(found, known, compute, partial(write, results), stream)
            table = failures or failures_table(results.command, results.folder)
            conclude(outcome, table, is_batch(paths))
        return outcome

    def run(
        self,
        found: Mapping[Path, str],
        known: Mapping[Path, Written],
        compute: Compute,
        write: Write,
        stream: TextIO | None,
    ) -> list[Written]:
        """What became of each structure, in the order of ``found``; of some it is known before.

        Raises QfitLatentError where the disk has no room.
        """
        outcome = dict(known)
        todo = [(path, entry) for path, entry in found.items() if path not in known]
        num = num_workers(len(todo), self.settings.workers)
        forecast = Forecast([path for path, _ in todo])
        with (
            Workers(num) as pool,
            open(os.devnull, "w") as nowhere,
            Progress(
                len(found),
                "structures",
                stream or nowhere,
                measure="residues",
                done=len(known),
            ) as progress,
        ):
            num_failed = sum(bool(result.error) for result in known.values())
            progress.update(0, failures=num_failed, expected=forecast.residues)
            if forecast.is_worth_saying:
                progress.say(forecast.sentence())
            reads = ahead(num > 0, (pool.read(window) for window in windows(todo)))
            batches = (b for window in reads for b in self._computed(window, compute, progress))
            step = partial(write_computed, write)
            for batch in ahead(num > 0, (pool.map(step, batch) for batch in batches)):
                for result in batch:
                    # What fails is named by its path alone until here.
                    outcome[result.path] = replace(result, entry=found[result.path])
                    forecast.finished(result)
                    progress.update(
                        1,
                        failures=int(bool(result.error)),
                        amount=result.num_residues,
                        expected=forecast.residues,
                    )
            progress.fields.clear()
        return [outcome[path] for path in found]

    def _computed(
        self, window: Sequence[Input | Written], compute: Compute, progress: Progress
    ) -> Iterator[list[Computed]]:
        """What is to be written, a batch at a time."""
        computed: list[Computed] = []
        proteins = []
        for given in window:
            if isinstance(given, Written):
                computed.append((given.path, given, None))
                continue
            chosen = attempt(choose, given.path, self.choice, given)
            if isinstance(chosen, Written):
                computed.append((given.path, chosen, None))
                continue
            protein = attempt(protein_from_tables, given.path, chosen.tables)
            if isinstance(protein, Written):
                computed.append((given.path, protein, None))
            else:
                proteins.append((chosen, protein))
        if computed:
            yield computed
        for batch in batches_by_length(proteins, BATCH_RESIDUES[self.device.type]):
            computed = []
            progress.update(0, now="network")
            encoded = self._encoded(batch)
            progress.update(0, now="densities")
            for (given, protein), s in zip(batch, encoded, strict=True):
                value: Any = s
                if not isinstance(s, Written):
                    value = attempt(compute, given.path, given, protein, s)
                is_over = isinstance(value, Written)
                computed.append((given.path, *((value, None) if is_over else (given, value))))
            progress.update(0, now="writing")
            yield computed

    def _encoded(self, batch: list[tuple[Input, Protein]]) -> Sequence[Tensor | Written]:
        """The representation of each structure; of each by itself where the batch fails."""
        encoded = attempt(self.encode, batch[0][0].path, [protein for _, protein in batch])
        if not isinstance(encoded, Written):
            return encoded
        if len(batch) == 1:
            return [encoded]
        return [s for item in batch for s in self._encoded([item])]

    @torch.inference_mode()
    def encode(self, proteins: Sequence[Protein]) -> list[Tensor]:
        """(N,d_s) final single representation of each protein, on the CPU."""
        start = time.perf_counter()
        sizes = [len(protein) for protein in proteins]
        s = self._network(collate(proteins).to(self.device)).float().cpu()
        self.timing.encoder += time.perf_counter() - start
        return list(s.split(sizes))

    def learnt_from(self, given: Input) -> np.ndarray | None:
        """(N,) bool of the residues table: the model was trained on the chain; None: not known."""
        return None if self.learnt is None else self.learnt.rows(given.tables["residues"])

    def unlike_training(self, s: Tensor, token: Tensor) -> np.ndarray:
        """(N,) of residues as in ``density`` (``Reference.unlike``); nan without a reference."""
        if self.reference is None:
            return np.full(len(token), np.nan, dtype=np.float32)
        return self.reference.unlike(s.numpy(), token.numpy())

    def nearest(self, given: Input) -> tuple[dict[str, Any], ...]:
        """Of each chain its name, and training_entry, training_chain and identity, or None."""
        if self.reference is None:
            return ()
        residues = given.tables["residues"]
        token = residues["token"].to_numpy()
        (key,) = chain_keys(residues)
        first = np.flatnonzero(begins_run(key))
        names = residues["chain"].take(pa.array(first)).to_pylist()
        parts = np.split(token, first[1:])
        known = {part.tobytes(): self.reference.nearest(part) for part in parts}
        return tuple(
            {"chain": name, **known[part.tobytes()]}
            for name, part in zip(names, parts, strict=True)
        )

    @torch.inference_mode()
    def p_heterogeneous(self, s: Tensor, token: Tensor) -> np.ndarray | None:
        """(N,) of residues as in ``density``; None where the model does not say it."""
        outputs = self.model.outputs(s.to(self.device), token.to(self.device))
        return None if outputs is None else outputs.p_heterogeneous.float().cpu().numpy()

    @torch.inference_mode()
    def density(self, s: Tensor, token: Tensor) -> Density:
        """The density of residues s (N,d_s) of types token (N,), on the CPU."""
        chi_mask = torch.from_numpy(CHI_DEFINED)[token]
        symmetric = torch.from_numpy(PI_SYMMETRIC)[token]
        return self.head(s, chi_mask, symmetric)


def joint_densities(
    mixture: VonMisesMixture,
    token: Tensor,
    settings: PredictionSettings,
    modes: Modes | None = None,
) -> Densities:
    """What the joint step takes, without torch: components, and modes as its candidates.

    token (N,) of the residues of the mixture.
    ``modes``, where they are known: those of the mixture, whatever the weight from which on they
    are valid.
    """
    if modes is None:
        modes = mixture.modes(MIN_MASS, math.radians(settings.merge_within_degrees))
    valid = modes.weight >= MIN_MASS
    valid[:, :1] = modes.valid[:, :1]
    width = min(MAX_MODES, int(valid.sum(1).max()))
    return Densities(
        token=token.numpy(),
        weight=mixture.log_weight.exp().numpy(),
        mean=mixture.mean.numpy(),
        kappa=mixture.kappa.numpy(),
        mode_weight=torch.where(valid, modes.weight, 0.0)[:, :width].numpy(),
        mode_chi=modes.chi[:, :width].numpy(),
    )


def batches_by_length(
    proteins: Sequence[tuple[Input, Protein]], budget: int
) -> list[list[tuple[Input, Protein]]]:
    """Structures of similar length together; a batch has at most ``budget`` padded residues.

    One that is longer than the budget is a batch of its own.
    """
    batches: list[list[tuple[Input, Protein]]] = []
    longest = 0
    for item in sorted(proteins, key=lambda item: -len(item[1])):
        size = len(item[1])
        fits = batches and longest * (len(batches[-1]) + 1) <= budget
        if fits and size >= (1.0 - PADDING) * longest:
            batches[-1].append(item)
        else:
            batches.append([item])
            longest = size
    return batches
