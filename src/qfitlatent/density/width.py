"""The width of a density, set after training by one rule for all residues.

Shapes: K components of a chi or of a residue, which come last, or last but one where D chi follow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Width:
    """Weights pi^(1/temperature), concentrations kappa times a scale, and a share that is flat."""

    temperature: float
    kappa_scale: float
    flat: float

    def __call__(
        self, log_weight: Tensor, mean: Tensor, kappa: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """log_weight (N,K), mean and kappa (N,K) or (N,K,D), with one more component: the flat.

        log_weight may lack a constant: what comes out is normalised.
        """
        log_weight = (log_weight / self.temperature).log_softmax(-1) + math.log1p(-self.flat)
        share = torch.full_like(log_weight[:, :1], math.log(self.flat))
        nothing = torch.zeros_like(mean[:, :1])
        return (
            torch.cat([log_weight, share], dim=1),
            torch.cat([mean, nothing], dim=1),
            torch.cat([kappa * self.kappa_scale, nothing], dim=1),
        )
