"""The heads: a density over chi, as a mixture (SPEC 6) or chi by chi (SPEC 10).

Shapes: N residues, M rows, K components of one chi, D=4 chi.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfitlatent.chemistry.residues import NUM_CHI_MAX
from qfitlatent.density.autoregressive import AutoregressiveDensity
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.model.settings import ModelConfig


class MixtureHead(nn.Module):
    """pi = softmax(W_pi s), mu = pi tanh(W_mu s) or atan2, kappa = softplus(W_kappa s) + kappa_min.

    Means start spread over the circle, a different offset for each chi, and moderately narrow.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        num = config.num_components
        self.two_vector = config.mean == "atan2"
        d_in, hidden = config.d_s, config.head_hidden
        self.hidden = nn.Sequential(nn.Linear(d_in, hidden), nn.SiLU()) if hidden else None
        d_in = hidden or d_in
        self.weight = nn.Linear(d_in, num)
        self.mean = nn.Linear(d_in, num * NUM_CHI_MAX * (2 if self.two_vector else 1))
        self.kappa = nn.Linear(d_in, num * NUM_CHI_MAX)
        bias = spread_bias(num, NUM_CHI_MAX)
        east, north, kappa = bias[num:].chunk(3)
        angle = torch.atan2(north, east)
        with torch.no_grad():
            for layer in (self.weight, self.mean, self.kappa):
                layer.weight.normal_(std=0.01)
            self.kappa.bias.copy_(kappa)
            if self.two_vector:
                self.mean.bias.copy_(torch.stack([east, north], dim=-1).flatten())
            else:
                self.mean.bias.copy_(torch.atanh(angle / math.pi))

    def forward(self, s: Tensor, chi_mask: Tensor, symmetric: Tensor) -> VonMisesMixture:
        """s (N,d_s), chi_mask and symmetric (N,D)."""
        if self.hidden is not None:
            s = self.hidden(s)
        shape = (self.config.num_components, NUM_CHI_MAX)
        if self.two_vector:
            vector = self.mean(s).unflatten(-1, (*shape, 2))
            mean = torch.atan2(vector[..., 1], vector[..., 0])
        else:
            mean = math.pi * torch.tanh(self.mean(s)).unflatten(-1, shape)
        kappa = F.softplus(self.kappa(s)).unflatten(-1, shape) + self.config.kappa_min
        return VonMisesMixture(self.weight(s).log_softmax(-1), mean, kappa, chi_mask, symmetric)


def density_of(
    head: nn.Module, s: Tensor, chi_mask: Tensor, symmetric: Tensor
) -> VonMisesMixture | AutoregressiveDensity:
    """The density that ``head`` gives to residues s (N,d_s); chi_mask and symmetric (N,D)."""
    if isinstance(head, MixtureHead):
        return head(s, chi_mask, symmetric)
    return AutoregressiveDensity(head, s, chi_mask, symmetric)


HARMONICS = (1, 2, 3)
"""Earlier angles enter as sin and cos of these multiples: three rotamers need the third."""


class AutoregressiveHead(nn.Module):
    """From the single representation and the earlier chi to a mixture over the next chi."""

    def __init__(self, d_s: int, num_components: int, kappa_min: float, hidden: int) -> None:
        super().__init__()
        self.num_components, self.kappa_min, self.hidden = num_components, kappa_min, hidden
        prefix = 2 * len(HARMONICS) + 1
        self.residue = nn.Linear(d_s, hidden * NUM_CHI_MAX)
        self.prefix = nn.ModuleList(
            nn.Linear(prefix * d, hidden, bias=False) for d in range(1, NUM_CHI_MAX)
        )
        self.middle = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(NUM_CHI_MAX))
        self.last = nn.ModuleList(nn.Linear(hidden, 4 * num_components) for _ in range(NUM_CHI_MAX))
        for layer in self.last:
            nn.init.normal_(layer.weight, std=0.02)
            with torch.no_grad():
                layer.bias.copy_(spread_bias(num_components, 1))

    def step(self, d: int, residue: Tensor, chi: Tensor, known: Tensor):
        """log_weight, mean, kappa, each (M,K), of chi d given the earlier ones.

        residue (M,hidden) is slice d of ``self.residue(s)``; chi (M,d), known (M,d) bool.
        """
        x = residue
        if d:
            angle = chi[..., None] * torch.tensor(HARMONICS, device=chi.device)
            parts = torch.cat([angle.sin(), angle.cos()], dim=-1) * known[..., None]
            parts = torch.cat([parts, known[..., None].to(parts.dtype)], dim=-1)
            x = x + self.prefix[d - 1](parts.flatten(-2))
        x = F.silu(self.middle[d](F.silu(x)))
        weight, east, north, kappa = self.last[d](x).chunk(4, dim=-1)
        mean = torch.atan2(north, east)
        return weight.log_softmax(-1), mean, F.softplus(kappa) + self.kappa_min


def spread_bias(num_components: int, num_chi: int) -> Tensor:
    """Bias of (weight, east, north, kappa): means spread over the circle, moderate width."""
    angle = (torch.arange(num_components) + 0.5) * (2 * math.pi / num_components) - math.pi
    angle = angle.repeat_interleave(num_chi)
    return torch.cat(
        [torch.zeros(num_components), angle.cos(), angle.sin(), torch.full_like(angle, 4.0)]
    )
