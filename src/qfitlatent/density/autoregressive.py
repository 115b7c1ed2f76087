"""The autoregressive head of SPEC 10: one chi after the other.

    p(chi) = prod_d sum_k pi_dk(s, chi_<d) vM(chi_d | mu_dk(s, chi_<d), kappa_dk(s, chi_<d))

The density is exact (teacher-forced), draws are ancestral, and the joint modes come from a beam
search over the component paths, which also gives a mixture that approximates it (``paths.py``).

Shapes: N residues, M rows, K components of one chi, D chi, S samples or points, P paths to a chi,
each of which goes on at Q points.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qfitlatent.chemistry.residues import NUM_CHI_MAX
from qfitlatent.density import paths
from qfitlatent.density.mixture import Modes, VonMisesMixture
from qfitlatent.density.protocol import Head
from qfitlatent.density.quantiles import Points, even_points, mixture_quantile
from qfitlatent.density.von_mises import (
    LOG_2PI,
    LOG_NOTHING,
    categorical_entropy,
    exp_of_share,
    kernel_entropy,
    log_i0e,
    log_sum_and_entropy,
    log_sum_exp,
    log_von_mises,
    sample_von_mises,
    wrap,
)

ROWS_AT_A_TIME = 1 << 14
"""Draws that the head works on at a time, so that memory does not grow with their number."""

BRANCHES = ((4,), (1, 4), (2, 1, 2), (4, 1, 1, 1))
"""By the number of chi, Q of each of them; of chi1, to which there is one path, in quarters of S.
The head, which costs most, runs once for points that have all earlier chi in common."""

ENTROPY_BRANCHES = (*BRANCHES[:3], (2, 2, 1, 2))
"""The same for an entropy alone: of an early chi it needs half of the points."""

ENTROPY_POINTS = 256
"""S where the entropy alone is asked for: its mean error is below 0.003 nats."""

DISAGREEMENT_POINTS = 64
"""S where the terms of an average are compared, of which each point is a mean itself."""


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
            total = total.index_add(0, at, log_sum_exp(log_weight + kernel))
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

    @torch.no_grad()
    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """(S,N,D) ancestral draws; 0 where the type has no such chi."""
        return torch.cat([self.select(at)._draws(num, generator) for at in self._blocks(num)], 1)

    def _draws(self, num: int, generator: torch.Generator | None) -> Tensor:
        own = self._residue()
        mask, symmetric = self.chi_mask.repeat(num, 1), self.symmetric.repeat(num, 1)
        rows = torch.arange(len(self), device=self.s.device).repeat(num)
        chi = self.s.new_zeros((num * len(self), NUM_CHI_MAX))
        for d in range(NUM_CHI_MAX):
            at = torch.nonzero(mask[:, d]).squeeze(1)
            if not len(at):
                continue
            log_weight, mean, kappa = self._step(d, own, rows[at], chi[at], mask[at])
            k = torch.multinomial(log_weight.exp(), 1, generator=generator)
            draw = sample_von_mises(mean.gather(1, k), kappa.gather(1, k), generator)[:, 0]
            turned = torch.rand(draw.shape, generator=generator, device=draw.device) < 0.5
            chi[at, d] = torch.where(turned & symmetric[at, d], wrap(draw + math.pi), draw)
        return chi.view(num, len(self), NUM_CHI_MAX)

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

    @torch.no_grad()
    def points(self, num: int) -> Points:
        """S points of equal mass: chi after chi through the quantiles of its mixture.

        The entropy is the sum over chi of the mean entropy of p(chi_d | chi_<d), of which all but
        the doubt about the component is exact at each point (``VonMisesMixture.entropy``).
        """
        chi = self.s.new_zeros((num, len(self), NUM_CHI_MAX))
        log_prob = self.s.new_zeros((num, len(self)))
        entropy = self.s.new_zeros(len(self))
        for at, few in self._alike(num):
            for d, mixture, angle in few._conditionals(num):
                log_p, gain = _at_points(angle, *mixture, bool(few.symmetric[0, d]))
                entropy[at] += gain.view(len(at), -1).mean(1)
                for values, out in ((angle, chi[..., d]), (log_p, log_prob)):
                    by_point = values.view(len(at), -1, values.shape[1]).permute(2, 1, 0)
                    by_point = by_point.flatten(0, 1)  # (P Q,n)
                    out[:, at] += by_point.repeat(-(-num // len(by_point)), 1)[:num]
        return Points(chi, log_prob, entropy)

    @torch.no_grad()
    def entropy(self) -> Tensor:
        """(N,) differential entropy in nats; 0 for a residue without chi."""
        total = self.s.new_zeros(len(self))
        for at, few in self._alike(ENTROPY_POINTS):
            for d, mixture, angle in few._conditionals(ENTROPY_POINTS, ENTROPY_BRANCHES):
                _, gain = _at_points(angle, *mixture, bool(few.symmetric[0, d]))
                total[at] += gain.view(len(at), -1).mean(1)
        return total

    @torch.no_grad()
    def disagreement(self, num_terms: int) -> Tensor:
        """(N,) nats by which the terms of an average disagree: 0, or up to D log num_terms.

        The head's components are those of num_terms densities of equal weight, one after the
        other. For each chi it is the Jensen-Shannon divergence of the terms, given the chi before
        it, which stand at points of the average; with r = p_term / p_average it is the mean of
        r log r over terms and points, no point of which is below 0.
        """
        total = self.s.new_zeros(len(self))
        for at, few in self._alike(DISAGREEMENT_POINTS):
            for d, mixture, angle in few._conditionals(DISAGREEMENT_POINTS):
                gap = _divergence(angle, *mixture, bool(few.symmetric[0, d]), num_terms)
                total[at] += gap.view(len(at), -1).mean(1)
        return total

    def _alike(self, num: int) -> Iterator[tuple[Tensor, AutoregressiveDensity]]:
        """Residues (n,) long with the same chi, and their density; those without chi are left out.

        So many at a time that the head works on ``ROWS_AT_A_TIME`` rows with num points each.
        """
        kind = self.chi_mask.sum(1) * 2**NUM_CHI_MAX
        kind += (self.symmetric * 2 ** torch.arange(NUM_CHI_MAX, device=kind.device)).sum(1)
        for same in kind[self.chi_mask.any(1)].unique():
            rows = torch.nonzero(kind == same).squeeze(1)
            for at in rows.split(max(1, ROWS_AT_A_TIME // num)):
                yield at, self.select(at)

    def _conditionals(
        self, num: int, branches_of: Sequence[Sequence[int]] = BRANCHES
    ) -> Iterator[tuple[int, tuple[Tensor, Tensor, Tensor], Tensor]]:
        """d, the mixtures (M,K) of chi d at the paths to it, and their points' angles (M,Q).

        Residues are alike. M is N P, the paths of a residue in a row. Point q of path p goes on as
        path q P + p.
        """
        branches = branches_of[int(self.chi_mask[0].sum()) - 1]
        num_chi, own, num_paths = len(branches), self._residue(), 1
        chi = self.s.new_zeros((len(self), 1, 0))  # (N,P,d)
        for d, branch in enumerate(branches):
            if d == 0:
                share = even_points(branch * -(-num // 4), num_chi)[None, :, 0].to(self.s)
            else:
                # Round the circle, and by a part of a cell, so that no two points coincide.
                turns = torch.arange(branch, device=self.s.device) / branch
                share = even_points(num_paths, num_chi)[:, d, None].to(self.s)
                share = torch.frac(share + turns * (1.0 + 1.0 / num_paths))
            rows = torch.arange(len(self), device=self.s.device).repeat_interleave(num_paths)
            known = self.chi_mask[:1, :d].expand(len(rows), -1)
            mixture = self.head.step(d, own[d].index_select(0, rows), chi.flatten(0, 1), known)
            angle = mixture_quantile(share.repeat(len(self), 1), *mixture)
            yield d, mixture, angle
            num_points = share.shape[1]
            longer = angle.view(len(self), num_paths, num_points).transpose(1, 2).flatten(1)
            chi = torch.cat([chi.repeat(1, num_points, 1), longer[..., None]], dim=-1)
            num_paths *= num_points

    @torch.no_grad()
    def as_mixture(self) -> VonMisesMixture:
        """The heaviest component paths as a mixture (``paths.as_mixture``)."""
        return paths.as_mixture(self.head, self._residue(), self.chi_mask, self.symmetric)

    def modes(self, min_weight: float, merge_within: float) -> Modes:
        """Joint modes by beam search, components within ``merge_within`` (radians) merged."""
        return self.as_mixture().modes(min_weight, merge_within)


def _divergence(
    angle: Tensor, log_weight: Tensor, mean: Tensor, kappa: Tensor, symmetric: bool, num_terms: int
) -> Tensor:
    """(M,) Jensen-Shannon divergence at angle (M,q) of the terms whose components these are."""
    is_symmetric = torch.tensor(symmetric, device=angle.device)
    kernel = log_von_mises(angle[..., None] - mean[:, None], kappa[:, None], is_symmetric)
    joint = (log_weight[:, None] + kernel).unflatten(-1, (num_terms, -1))
    of_term = log_sum_exp(joint) + math.log(num_terms)  # (M,q,terms)
    log_ratio = of_term - (log_sum_exp(of_term) - math.log(num_terms))[..., None]
    return (exp_of_share(log_ratio) * log_ratio.clamp(min=LOG_NOTHING)).mean((1, 2))


def _at_points(
    angle: Tensor, log_weight: Tensor, mean: Tensor, kappa: Tensor, symmetric: bool
) -> tuple[Tensor, Tensor]:
    """(M,q) log density of mixtures of one chi, each (M,K), at angle (M,q); (M,) their entropy."""
    log_norm = log_i0e(kappa) + LOG_2PI
    base = (log_weight - log_norm)[:, None]
    half = 0.5 * (angle[..., None] - mean[:, None])
    sharp = -2.0 * kappa[:, None]
    lobes = base + sharp * half.sin().square()
    if symmetric:
        lobes = torch.cat([lobes, base + sharp * half.cos().square()], dim=-1) - math.log(2.0)
    log_prob, doubt = log_sum_and_entropy(lobes)
    kernel = kernel_entropy(kappa, log_norm) + symmetric * math.log(2.0)
    exact = (log_weight.exp() * kernel).sum(1) + categorical_entropy(log_weight)
    return log_prob, exact - doubt.mean(1)
