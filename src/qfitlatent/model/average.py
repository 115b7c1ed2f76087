"""Several trained models as one: the mean of their densities."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import NUM_CHI_MAX
from qfitlatent.density.autoregressive import AutoregressiveDensity
from qfitlatent.density.width import Width
from qfitlatent.model.batch import Batch
from qfitlatent.model.geometry import Geometry
from qfitlatent.model.heads import AutoregressiveHead
from qfitlatent.model.network import Block, DensityNetwork, QFitLatent
from qfitlatent.model.outputs import Outputs, average_outputs
from qfitlatent.model.settings import ModelConfig


class AverageHead(nn.Module):
    """The heads of M models as one with M K components a chi, each model having weight 1/M.

    ``residue`` takes the models' single representations side by side, (N, M d_s).
    """

    width: Width | None = None

    def __init__(self, heads: Sequence[AutoregressiveHead]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.kappa_min = min(head.kappa_min for head in heads)

    def forward(self, s: Tensor, chi_mask: Tensor, symmetric: Tensor) -> AutoregressiveDensity:
        return AutoregressiveDensity(self, s, chi_mask, symmetric)

    def _parts(self, x: Tensor) -> Iterator[tuple[AutoregressiveHead, Tensor]]:
        """Each model's head with its part of x (N, M width)."""
        heads = cast("Sequence[AutoregressiveHead]", self.heads)
        return zip(heads, x.chunk(len(heads), dim=-1), strict=True)

    def residue(self, s: Tensor) -> Tensor:
        """(N, D M hidden): for each chi the slices of all models."""
        slices = [h.residue(part).unflatten(-1, (NUM_CHI_MAX, -1)) for h, part in self._parts(s)]
        return torch.cat(slices, dim=-1).flatten(-2)

    def step(
        self, d: int, residue: Tensor, chi: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As ``AutoregressiveHead.step``, of all models."""
        steps = [head.step(d, part, chi, known) for head, part in self._parts(residue)]
        log_weight, mean, kappa = (torch.cat(x, dim=-1) for x in zip(*steps, strict=True))
        components = (log_weight - math.log(len(self.heads)), mean, kappa)
        return components if self.width is None else self.width(*components)


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
        members = [QFitLatent(config) for _ in range(num_members)]
        self.members = nn.ModuleList(members)
        self.dropout_passes = dropout_passes
        heads = [cast("AutoregressiveHead", member.head) for member in members]
        self.head = AverageHead([h for h in heads for _ in range(max(1, dropout_passes))])

    def encode(self, batch: Batch) -> Tensor:
        """(n, M P d_s): the single representations of all terms side by side."""
        if not self.dropout_passes:
            return self.embed(batch)
        masks = self.config.num_blocks * Block.NUM_DROPOUTS  # of one pass
        members = cast("Sequence[QFitLatent]", self.members)
        terms = [m for m in members for _ in range(self.dropout_passes)]
        geometry = Geometry(self.config, batch)
        parts = [m.encode(batch, i * masks, geometry) for i, m in enumerate(terms)]
        return torch.cat(parts, dim=-1)

    def embed(self, batch: Batch) -> Tensor:
        """(n, M d_s): of each whole network, not of what masks leave of it."""
        members = cast("Sequence[QFitLatent]", self.members)
        geometry = Geometry(self.config, batch)
        return torch.cat([m.encode(batch, geometry=geometry) for m in members], dim=-1)

    def raw_outputs(self, s: Tensor, token: Tensor) -> Outputs | None:
        """The mean of what all terms say."""
        if not self.config.outputs:
            return None
        members = cast("Sequence[QFitLatent]", self.members)
        terms = [m for m in members for _ in range(max(1, self.dropout_passes))]
        parts = s.chunk(len(terms), dim=-1)
        said = (m.outputs(part, token) for m, part in zip(terms, parts, strict=True))
        return average_outputs([cast("Outputs", one) for one in said])


def build_model(config: Mapping[str, Any]) -> DensityNetwork:
    """The untrained network of a whole configuration: one model, or the average of several."""
    settings = ModelConfig.from_dict(config["model"])
    average = config["average"]
    if not average["members"]:
        return QFitLatent(settings)
    return AverageModel(settings, len(average["members"]), average["dropout_passes"])
