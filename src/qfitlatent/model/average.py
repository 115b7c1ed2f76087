"""Several trained models as one: the mean of their densities."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI_MAX, PI_SYMMETRIC
from qfitlatent.model.batch import Batch
from qfitlatent.model.heads import AutoregressiveHead
from qfitlatent.model.network import Dropout, QFitLatent
from qfitlatent.model.settings import ModelConfig


class AverageHead(nn.Module):
    """The heads of M models as one with M K components a chi, each model having weight 1/M.

    ``residue`` takes the models' single representations side by side, (N, M d_s).
    """

    def __init__(self, heads: Sequence[AutoregressiveHead]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.num_components = sum(head.num_components for head in heads)
        self.kappa_min = min(head.kappa_min for head in heads)

    def residue(self, s: Tensor) -> Tensor:
        """(N, D M hidden): for each chi the slices of all models."""
        parts = zip(self.heads, s.chunk(len(self.heads), dim=-1), strict=True)
        slices = [head.residue(part).unflatten(-1, (NUM_CHI_MAX, -1)) for head, part in parts]
        return torch.cat(slices, dim=-1).flatten(-2)

    def step(self, d: int, residue: Tensor, chi: Tensor, known: Tensor):
        """As ``AutoregressiveHead.step``, of all models."""
        parts = zip(self.heads, residue.chunk(len(self.heads), dim=-1), strict=True)
        steps = [head.step(d, part, chi, known) for head, part in parts]
        log_weight, mean, kappa = (torch.cat(x, dim=-1) for x in zip(*steps, strict=True))
        return log_weight - math.log(len(self.heads)), mean, kappa


class AverageModel(QFitLatent):
    """Several trained models of one architecture as one: the mean of their densities, chi by chi.

        p(chi_d | chi_<d) = 1/M sum_m p_m(chi_d | chi_<d)

    With ``dropout_passes`` P each member stands P times in the sum, each time with other dropout
    masks (Gal and Ghahramani 2016), which makes the average wider where members are too sure.
    ``encode`` gives the single representations of all terms side by side, (n, M P d_s).
    """

    def __init__(self, config: ModelConfig, num_members: int, dropout_passes: int = 0) -> None:
        nn.Module.__init__(self)
        if config.head != "autoregressive":
            raise QfitLatentError(
                "Only models with model.head: autoregressive can be averaged: "
                f"these have {config.head}."
            )
        self.config = config
        self.members = nn.ModuleList(QFitLatent(config) for _ in range(num_members))
        self.dropout_passes = dropout_passes
        terms = max(1, dropout_passes)
        self.head = AverageHead([member.head for member in self.members for _ in range(terms)])
        self.register_buffer("chi_mask", torch.from_numpy(CHI_DEFINED), persistent=False)
        self.register_buffer("symmetric", torch.from_numpy(PI_SYMMETRIC), persistent=False)

    @property
    def embedding(self) -> nn.Embedding:
        return self.members[0].embedding

    def encode(self, batch: Batch) -> Tensor:
        seeds = itertools.count()
        parts = []
        for member in self.members:
            layers = [module for module in member.modules() if isinstance(module, Dropout)]
            for _ in range(max(1, self.dropout_passes)):
                for layer in layers:
                    layer.seed = next(seeds) if self.dropout_passes else None
                parts.append(member.encode(batch))
        return torch.cat(parts, dim=-1)


def build_model(config: Mapping[str, Any]) -> QFitLatent:
    """The untrained network of a whole configuration: one model, or the average of several."""
    settings = ModelConfig.from_dict(config["model"])
    train = config["train"]
    num_members = len(train.get("members", ()))
    if not num_members:
        return QFitLatent(settings)
    return AverageModel(settings, num_members, train.get("dropout_passes", 0))
