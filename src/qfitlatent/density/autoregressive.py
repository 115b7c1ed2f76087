"""The autoregressive head of SPEC 10: one chi after the other.

    p(chi) = prod_d sum_k pi_dk(s, chi_<d) vM(chi_d | mu_dk(s, chi_<d), kappa_dk(s, chi_<d))

The density is exact (teacher-forced), draws are ancestral, and the joint modes come from a beam
search over the component paths, which also gives a mixture that approximates it: the path
(k1, .., kD) has weight prod_d pi_dkd and the means and concentrations that it meets on its way.

Shapes: N residues, M rows, K components of one chi, D chi, S samples, W width of the beam.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qfitlatent.chemistry.residues import NUM_CHI_MAX
from qfitlatent.density.mixture import Modes, VonMisesMixture
from qfitlatent.density.protocol import Head
from qfitlatent.density.von_mises import log_von_mises, merge_components, sample_von_mises, wrap

BEAM_WIDTH = 64
"""Component paths kept where the density is turned into a mixture."""

ROWS_AT_A_TIME = 1 << 14
"""Draws that the head works on at a time, so that memory does not grow with their number."""

STEP_COMPONENTS = 12
"""Components of one chi after merging: an average has many that are all but the same."""

NEGLIGIBLE = 1e-4
"""Share of the heaviest component path below which another is not followed."""


@dataclass(frozen=True)
class AutoregressiveDensity:
    """The density of N residues; s (N,d_s), chi_mask and symmetric (N,D) bool."""

    head: Head
    s: Tensor
    chi_mask: Tensor
    symmetric: Tensor

    def __len__(self) -> int:
        return len(self.s)

    def select(self, rows: Tensor) -> AutoregressiveDensity:
        return replace(
            self, s=self.s[rows], chi_mask=self.chi_mask[rows], symmetric=self.symmetric[rows]
        )

    def to(self, *args: Any, **kwargs: Any) -> AutoregressiveDensity:
        """To a device or dtype; where that moves anything, with a head of its own."""
        s = self.s.to(*args, **kwargs)
        if s is self.s:
            return self
        head = copy.deepcopy(self.head).to(*args, **kwargs)
        masks = (x.to(s.device) for x in (self.chi_mask, self.symmetric))
        return AutoregressiveDensity(head, s, *masks)

    def log_prob(
        self, chi: Tensor, defined: Tensor, rows: Tensor | None = None, folded: bool = False
    ) -> Tensor:
        """(M,) log density of chi (M,D); a chi that is missing leaves the product (SPEC 7)."""
        if rows is None:
            rows = torch.arange(len(self), device=chi.device)
        used = defined & self.chi_mask[rows]
        symmetric = self.symmetric[rows]
        own = self._residue()
        total = chi.new_zeros(len(rows))
        for d in range(NUM_CHI_MAX):
            at = torch.nonzero(used[:, d]).squeeze(1)
            if not len(at):
                continue
            log_weight, mean, kappa = self._step(d, own, rows[at], chi[at], used[at])
            kernel = log_von_mises(chi[at, d, None] - mean, kappa, symmetric[at, d, None], folded)
            total = total.index_add(0, at, (log_weight + kernel).logsumexp(-1))
        return total

    def _residue(self) -> tuple[Tensor, ...]:
        """D times (N,hidden)."""
        return self.head.residue(self.s).unflatten(-1, (NUM_CHI_MAX, -1)).unbind(1)

    def _step(
        self, d: int, own: Sequence[Tensor], rows: Tensor, chi: Tensor, known: Tensor
    ) -> tuple[Tensor, ...]:
        """The head's step for rows (M,) of the residues own, D times (N,hidden).

        Nothing comes before chi1: it is computed once a residue, however many rows that has.
        """
        if d == 0:
            none = chi.new_zeros((len(self), 0))
            first = self.head.step(0, own[0], none, self.chi_mask[:, :0])
            return tuple(x.index_select(0, rows) for x in first)
        return self.head.step(d, own[d].index_select(0, rows), chi[:, :d], known[:, :d])

    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """(S,N,D) ancestral draws; 0 where the type has no such chi."""
        return self.sample_with_log_prob(num, generator)[0]

    @torch.no_grad()
    def sample_with_log_prob(
        self, num: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """(S,N,D) draws and their (S,N) log density: the head runs once for both."""
        draws = [self.select(at)._draws(num, generator) for at in self._blocks(num)]
        chi, log_prob = zip(*draws, strict=True)
        return torch.cat(chi, dim=1), torch.cat(log_prob, dim=1)

    def _draws(self, num: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        own = self._residue()
        mask, symmetric = self.chi_mask.repeat(num, 1), self.symmetric.repeat(num, 1)
        rows = torch.arange(len(self), device=self.s.device).repeat(num)
        chi = self.s.new_zeros((num * len(self), NUM_CHI_MAX))
        total = self.s.new_zeros(num * len(self))
        for d in range(NUM_CHI_MAX):
            at = torch.nonzero(mask[:, d]).squeeze(1)
            if not len(at):
                continue
            log_weight, mean, kappa = self._step(d, own, rows[at], chi[at], mask[at])
            k = torch.multinomial(log_weight.exp(), 1, generator=generator)
            draw = sample_von_mises(mean.gather(1, k), kappa.gather(1, k), generator)[:, 0]
            turned = torch.rand(draw.shape, generator=generator, device=draw.device) < 0.5
            draw = torch.where(turned & symmetric[at, d], wrap(draw + math.pi), draw)
            kernel = log_von_mises(draw[:, None] - mean, kappa, symmetric[at, d, None])
            chi[at, d] = draw
            total[at] += (log_weight + kernel).logsumexp(-1)
        return chi.view(num, len(self), NUM_CHI_MAX), total.view(num, len(self))

    @torch.no_grad()
    def sample_log_prob(self, samples: Tensor, defined: Tensor | None = None) -> Tensor:
        """(S,N) log density of samples (S,N,D), over the chi in defined (N,D) if given."""
        num = len(samples)
        defined = self.chi_mask if defined is None else defined
        parts = []
        for at in self._blocks(num):
            rows = torch.arange(len(at), device=at.device).repeat(num)
            chi, known = samples[:, at].flatten(0, 1), defined[at].repeat(num, 1)
            parts.append(self.select(at).log_prob(chi, known, rows).view(num, len(at)))
        return torch.cat(parts, dim=1)

    def _blocks(self, num: int) -> tuple[Tensor, ...]:
        """Residues, so many that the head works on ``ROWS_AT_A_TIME`` rows with num draws each."""
        rows = torch.arange(len(self), device=self.s.device)
        return rows.split(max(1, ROWS_AT_A_TIME // num))

    def entropy(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """(N,) differential entropy in nats, by Monte Carlo."""
        return -self.sample_with_log_prob(num_samples, generator)[1].mean(0)

    @torch.no_grad()
    def as_mixture(self) -> VonMisesMixture:
        """The heaviest component paths as a mixture (beam search), alike components merged.

        A path of less than ``NEGLIGIBLE`` of the heaviest is given up. What all that were given up
        had together stands as one last component with kappa = 0: a flat density.
        """
        num = len(self)
        own = self._residue()
        weight = self.s.new_zeros((num, 1))  # logarithms
        mean = self.s.new_zeros((num, 1, NUM_CHI_MAX))
        kappa = torch.full_like(mean, self.head.kappa_min)
        for d in range(NUM_CHI_MAX):
            has = self.chi_mask[:, d, None]
            n, path = torch.nonzero(has & weight.isfinite(), as_tuple=True)
            if not len(n):
                continue
            step = self.head.step(d, own[d][n], mean[n, path, :d], self.chi_mask[n, :d])
            step = merge_components(
                step[0].exp(), *step[1:], self.symmetric[n, d, None], STEP_COMPONENTS, NEGLIGIBLE
            )
            shape = (*weight.shape, step[0].shape[1])
            log_weight = weight.new_full(shape, -math.inf)
            # A residue without this chi keeps its paths.
            log_weight[..., 0] = torch.where(has, -math.inf, 0.0)
            new_mean, new_kappa = (
                weight.new_zeros(shape),
                weight.new_full(shape, self.head.kappa_min),
            )
            log_weight[n, path], new_mean[n, path], new_kappa[n, path] = (step[0].log(), *step[1:])
            paths = (weight[..., None] + log_weight).flatten(1)
            least = paths.max(dim=1, keepdim=True).values + math.log(NEGLIGIBLE)
            paths = paths.masked_fill(paths < least, -math.inf)
            width = min(BEAM_WIDTH, int(paths.isfinite().sum(1).max()))
            weight, chosen = paths.topk(width, dim=1)
            parent = torch.div(chosen, shape[-1], rounding_mode="floor")
            wide = parent[..., None].expand(-1, -1, NUM_CHI_MAX)
            mean, kappa = mean.gather(1, wide), kappa.gather(1, wide)
            mean[..., d] = new_mean.flatten(1).gather(1, chosen)
            kappa[..., d] = new_kappa.flatten(1).gather(1, chosen)
        lost = 1.0 - weight.exp().sum(1, keepdim=True)
        lost = torch.where(lost > NEGLIGIBLE, lost, 0.0).log()
        flat = torch.zeros_like(mean[:, :1])
        return VonMisesMixture(
            torch.cat([weight, lost], dim=1).log_softmax(1),
            torch.cat([mean, flat], dim=1),
            torch.cat([kappa, flat], dim=1),
            self.chi_mask,
            self.symmetric,
        )

    def modes(self, min_weight: float, merge_within: float) -> Modes:
        """Joint modes by beam search, components within ``merge_within`` (radians) merged."""
        return self.as_mixture().modes(min_weight, merge_within)
