"""The heads: a density over chi, as a mixture (SPEC 6) or chi by chi (SPEC 10).

Every head is called with the single representation s (N,d_s), and chi_mask and symmetric (N,D).
Its ``width`` is None, or what calibration has set.

Shapes: N residues, M rows, K components of one chi, D=4 chi.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfitlatent.chemistry.residues import NUM_CHI_MAX
from qfitlatent.density.autoregressive import AutoregressiveDensity
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.density.width import Width
from qfitlatent.model.settings import ModelConfig


class MixtureHead(nn.Module):
    """pi = softmax(W_pi s), mu = pi tanh(W_mu s) or atan2, kappa = softplus(W_kappa s) + kappa_min.

    Means start spread over the circle, a different offset for each chi, and moderately narrow.
    """

    width: Width | None = None

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
        if self.hidden is not None:
            s = self.hidden(s)
        shape = (self.config.num_components, NUM_CHI_MAX)
        if self.two_vector:
            vector = self.mean(s).unflatten(-1, (*shape, 2))
            mean = torch.atan2(vector[..., 1], vector[..., 0])
        else:
            mean = math.pi * torch.tanh(self.mean(s)).unflatten(-1, shape)
        kappa = F.softplus(self.kappa(s)).unflatten(-1, shape) + self.config.kappa_min
        components = (self.weight(s).log_softmax(-1), mean, kappa)
        if self.width is not None:
            components = self.width(*components)
        return VonMisesMixture(*components, chi_mask, symmetric)


HARMONICS = (1, 2, 3)
"""Earlier angles enter as sin and cos of these multiples: three rotamers need the third."""

HIDDEN = 256
"""Hidden units where ``model.head_hidden`` is 0."""


ROWS_IN_CACHE = 1024
"""Rows of a step at a time on a CPU, whose hidden units stay in its cache: half as long."""


class AutoregressiveHead(nn.Module):
    """From the single representation and the earlier chi to a mixture over the next chi.

    With x = W_d s + V_d (sin, cos of 1, 2, 3 times the earlier chi), log pi, mu = atan2 and
    kappa = softplus + kappa_min come from two layers above silu(x), those of chi d.
    """

    width: Width | None = None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d_s, num_components = config.d_s, config.num_components
        hidden = config.head_hidden or HIDDEN
        self.kappa_min = config.kappa_min
        prefix = 2 * len(HARMONICS) + 1
        self.residue = nn.Linear(d_s, hidden * NUM_CHI_MAX)
        self.prefix = nn.ModuleList(
            nn.Linear(prefix * d, hidden, bias=False) for d in range(1, NUM_CHI_MAX)
        )
        self.middle = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(NUM_CHI_MAX))
        last = [nn.Linear(hidden, 4 * num_components) for _ in range(NUM_CHI_MAX)]
        for layer in last:
            nn.init.normal_(layer.weight, std=0.02)
            with torch.no_grad():
                layer.bias.copy_(spread_bias(num_components, 1))
        self.last = nn.ModuleList(last)

    def forward(self, s: Tensor, chi_mask: Tensor, symmetric: Tensor) -> AutoregressiveDensity:
        return AutoregressiveDensity(self, s, chi_mask, symmetric)

    def step(
        self, d: int, residue: Tensor, chi: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        given = residue, chi, known
        if len(residue) <= ROWS_IN_CACHE or residue.device.type != "cpu" or torch.is_grad_enabled():
            return self._step(d, *given)
        blocks = zip(*(x.split(ROWS_IN_CACHE) for x in given), strict=True)
        log_weight, mean, kappa = zip(*(self._step(d, *block) for block in blocks), strict=True)
        return torch.cat(log_weight), torch.cat(mean), torch.cat(kappa)

    def _step(
        self, d: int, residue: Tensor, chi: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = residue
        if d:
            angle = chi[..., None] * torch.tensor(HARMONICS, device=chi.device)
            parts = torch.cat([angle.sin(), angle.cos()], dim=-1) * known[..., None]
            parts = torch.cat([parts, known[..., None].to(parts.dtype)], dim=-1)
            x = x + self.prefix[d - 1](parts.flatten(-2))
        x = F.silu(self.middle[d](F.silu(x)))
        # Each contiguous: atan2 and softplus of a slice take fifteen times as long.
        parts = self.last[d](x).unflatten(-1, (4, -1)).movedim(-2, 0).contiguous()
        weight, east, north, kappa = parts.unbind()
        mean = torch.atan2(north, east)
        kappa = F.softplus(kappa) + self.kappa_min
        # A width makes weights of logits, too: one softmax less.
        if self.width is not None:
            return self.width(weight, mean, kappa)
        return weight.log_softmax(-1), mean, kappa


def spread_bias(num_components: int, num_chi: int) -> Tensor:
    """Bias of (weight, east, north, kappa): means spread over the circle, moderate width."""
    angle = (torch.arange(num_components) + 0.5) * (2 * math.pi / num_components) - math.pi
    angle = angle.repeat_interleave(num_chi)
    return torch.cat(
        [torch.zeros(num_components), angle.cos(), angle.sin(), torch.full_like(angle, 4.0)]
    )


HEADS = {"mixture": MixtureHead, "autoregressive": AutoregressiveHead}


def make_head(config: ModelConfig) -> nn.Module:
    """The head that ``model.head`` names."""
    return HEADS[config.head](config)
