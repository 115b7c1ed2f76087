"""What a model says of a residue beside its density (SPEC 11): is it heterogeneous, is it ordered.

Shapes: N residues, M models of an average.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfitlatent.chemistry.residues import CHI_DEFINED

HETEROGENEOUS_LOGIT = -3.0
"""Logit of heterogeneity at the start: one residue in twenty, about as many as there are."""

MIN_SPREAD = 0.02
"""Smallest spread of a predicted B rank."""


@dataclass(frozen=True)
class Outputs:
    """Of N residues; one without chi is never heterogeneous and has no B rank (nan)."""

    heterogeneous_logit: Tensor  # (N,) log odds of two or more distinct rotamers
    b_rank_mean: Tensor  # (N,) in [0,1]
    b_rank_spread: Tensor  # (N,) standard deviation

    @property
    def p_heterogeneous(self) -> Tensor:
        """(N,) probability that the residue is modelled with two or more distinct rotamers."""
        return self.heterogeneous_logit.sigmoid()

    def to(self, device: torch.device | str) -> Outputs:
        return Outputs(*(getattr(self, field.name).to(device) for field in fields(self)))

    def heterogeneous_nll(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropy in nats summed over residues, and their number; target (N,) 0, 1 or nan.

        Every residue counts alike, so that what is learnt is a probability.
        """
        known = target.isfinite() & self.heterogeneous_logit.isfinite()
        logit, truth = self.heterogeneous_logit[known], target[known]
        return F.binary_cross_entropy_with_logits(logit, truth, reduction="sum"), known.sum()

    def b_rank_nll(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Gaussian NLL in nats summed over residues, and their number; target (N,), nan unknown."""
        known = target.isfinite() & self.b_rank_mean.isfinite()
        mean, spread = self.b_rank_mean[known], self.b_rank_spread[known]
        return -torch.distributions.Normal(mean, spread).log_prob(target[known]).sum(), known.sum()


class OutputHead(nn.Module):
    """Both outputs from the single representation s (N,d_s), by one hidden layer."""

    def __init__(self, d_s: int) -> None:
        super().__init__()
        self.hidden, self.last = nn.Linear(d_s, d_s), nn.Linear(d_s, 3)
        with torch.no_grad():
            self.last.weight.normal_(std=0.01)
            # A mean of 0.5 and a spread of 0.3, as ranks have them.
            self.last.bias.copy_(torch.tensor([HETEROGENEOUS_LOGIT, 0.0, -1.1]))

    def forward(self, s: Tensor, token: Tensor) -> Outputs:
        logit, mean, spread = self.last(F.silu(self.hidden(s))).unbind(-1)
        has_chi = torch.from_numpy(CHI_DEFINED.any(1)).to(token.device)[token]
        return Outputs(
            logit.where(has_chi, -torch.inf),
            mean.sigmoid().where(has_chi, torch.nan),
            F.softplus(spread).where(has_chi, torch.nan) + MIN_SPREAD,
        )


def average_outputs(outputs: list[Outputs]) -> Outputs:
    """The mean of what M models say: of the probabilities, and of the densities of the B rank."""
    probability = torch.stack([output.p_heterogeneous for output in outputs])
    mean = torch.stack([output.b_rank_mean for output in outputs])  # (M,N)
    spread = torch.stack([output.b_rank_spread for output in outputs])
    variance = spread.square().mean(0) + mean.var(0, correction=0)
    return Outputs(probability.mean(0).logit(), mean.mean(0), variance.sqrt())
