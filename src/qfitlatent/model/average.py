"""Several trained models as one: the mean of their densities."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import NUM_CHI_MAX
from qfitlatent.model.batch import Batch
from qfitlatent.model.heads import ChiByChiHead
from qfitlatent.model.network import Block, DensityNetwork, QFitLatent
from qfitlatent.model.settings import ModelConfig


class AverageHead(ChiByChiHead):
    """The heads of M models as one with M K components a chi, each model having weight 1/M.

    ``residue`` takes the models' single representations side by side, (N, M d_s).
    """

    def __init__(self, heads: Sequence[ChiByChiHead]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.num_components = sum(head.num_components for head in heads)
        self.kappa_min = min(head.kappa_min for head in heads)

    def residue(self, s: Tensor) -> Tensor:
        """(N, D M hidden): for each chi the slices of all models."""
        parts = zip(self.heads, s.chunk(len(self.heads), dim=-1), strict=True)
        slices = [head.residue(part).unflatten(-1, (NUM_CHI_MAX, -1)) for head, part in parts]
        return torch.cat(slices, dim=-1).flatten(-2)

    def step(
        self, d: int, residue: Tensor, chi: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As ``AutoregressiveHead.step``, of all models."""
        parts = zip(self.heads, residue.chunk(len(self.heads), dim=-1), strict=True)
        steps = [head.step(d, part, chi, known) for head, part in parts]
        log_weight, mean, kappa = (torch.cat(x, dim=-1) for x in zip(*steps, strict=True))
        return log_weight - math.log(len(self.heads)), mean, kappa


class AverageModel(DensityNetwork):
    """Several trained models of one architecture as one: the mean of their densities, chi by chi.

        p(chi_d | chi_<d) = 1/M sum_m p_m(chi_d | chi_<d)

    With ``dropout_passes`` P each member stands P times in the sum, each time with other dropout
    masks (Gal and Ghahramani 2016), which makes the average wider where members are too sure.
    """

    def __init__(self, config: ModelConfig, num_members: int, dropout_passes: int) -> None:
        super().__init__(config)
        if config.head != "autoregressive":
            raise QfitLatentError(
                "Only models with model.head: autoregressive can be averaged: "
                f"these have {config.head}."
            )
        self.members = nn.ModuleList(QFitLatent(config) for _ in range(num_members))
        self.dropout_passes = dropout_passes
        terms = max(1, dropout_passes)
        self.head = AverageHead([member.head for member in self.members for _ in range(terms)])

    def encode(self, batch: Batch) -> Tensor:
        """(n, M P d_s): the single representations of all terms side by side."""
        if not self.dropout_passes:
            return self.embed(batch)
        masks = self.config.num_blocks * Block.NUM_DROPOUTS  # of one pass
        seeds = itertools.count(0, masks)
        terms = [m for m in self.members for _ in range(self.dropout_passes)]
        return torch.cat([m.encode(batch, next(seeds)) for m in terms], dim=-1)

    def embed(self, batch: Batch) -> Tensor:
        """(n, M d_s): of each whole network, not of what masks leave of it."""
        return torch.cat([member.encode(batch) for member in self.members], dim=-1)


def build_model(config: Mapping[str, Any]) -> DensityNetwork:
    """The untrained network of a whole configuration: one model, or the average of several."""
    settings = ModelConfig.from_dict(config["model"])
    average = config["average"]
    if not average["members"]:
        return QFitLatent(settings)
    return AverageModel(settings, len(average["members"]), average["dropout_passes"])
