"""The batches of an epoch: which proteins together, and how each is changed before it is shown."""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import UNKNOWN_TOKEN
from qfitlatent.model.batch import Protein
from qfitlatent.model.dataset import Dataset
from qfitlatent.model.settings import ModelConfig, training_bytes
from qfitlatent.training.processes import Processes

POOL = 32
"""Batches whose proteins are sorted by length together: little padding, still a random order."""


class Batches:
    """The batches of a training set, for one of several processes.

    Args:
        settings: the section ``train`` of the configuration.
        crop: residues that a protein may have; longer ones are cropped, 0 crops none.
    """

    def __init__(
        self, dataset: Dataset, settings: Mapping[str, Any], crop: int, processes: Processes
    ) -> None:
        self.dataset, self.settings, self.crop = dataset, settings, crop
        self.processes = processes
        num_batches = math.ceil(len(dataset) / settings["batch_size"])
        self.steps_per_epoch = math.ceil(num_batches / processes.world)

    def epoch(self, generator: torch.Generator) -> Iterator[list[Protein]]:
        """This process's batches: every entry once, similar lengths together.

        All processes have the same number of steps; the last ones of some may be empty.
        """
        size, world = self.settings["batch_size"], self.processes.world
        order = torch.randperm(len(self.dataset), generator=generator).tolist()
        if size > 1:
            pools = (order[i : i + POOL * size] for i in range(0, len(order), POOL * size))
            lengths = self.dataset.num_residues
            order = [i for p in pools for i in sorted(p, key=lambda i: (lengths[i], i))]
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        if size > 1:
            batches = [batches[i] for i in torch.randperm(len(batches), generator=generator)]
        own = batches[self.processes.rank :: world]
        for batch in own:
            yield [self.prepared(self.dataset[i], generator) for i in batch]
        for _ in range(self.steps_per_epoch - len(own)):
            yield []

    def prepared(self, protein: Protein, generator: torch.Generator) -> Protein:
        """Cropped, with noise on its CA positions, and with some of its types hidden."""
        noise, masked = self.settings["backbone_noise_angstrom"], self.settings["masked_residues"]
        if self.crop:
            protein = protein.crop(self.crop, generator)
        if noise:
            shift = torch.randn(protein.translation.shape, generator=generator) * noise
            protein = replace(protein, translation=protein.translation + shift)
        if masked:
            hidden = torch.rand(len(protein), generator=generator) < masked
            protein = replace(
                protein,
                token=protein.token.masked_fill(hidden, UNKNOWN_TOKEN),
                defined=protein.defined & ~hidden[protein.row_residue, None],
            )
        return protein


def crop_that_fits(
    dataset: Dataset, settings: Mapping[str, Any], model: ModelConfig, memory_bytes: float
) -> int:
    """``train.crop``, or less where half of the memory holds less; 0 crops none.

    Raises:
        QfitLatentError: not even the smallest protein fits.
    """
    crop = settings["crop"]
    sizes = np.sort(dataset.num_residues)
    shown = (sizes if not crop else np.minimum(sizes, crop)).tolist()
    memory = 0.5 * memory_bytes / settings["batch_size"]
    fits = [n for n in shown if training_bytes(model, n) <= memory]
    if len(fits) == len(shown):
        return crop
    if not fits:
        raise QfitLatentError(
            "Not even the smallest training protein fits into the memory of the device: "
            "set `model.neighbours`, or a smaller `train.batch_size`."
        )
    print(
        f"{len(shown) - len(fits)} training proteins of up to {shown[-1]} residues need up to "
        f"{training_bytes(model, shown[-1]) / 1e9:.1f} GB and are cropped to "
        f"{fits[-1]} residues, which is what half of the memory holds.",
        file=sys.stderr,
    )
    return fits[-1]
