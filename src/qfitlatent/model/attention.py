"""Invariant point attention as one augmented scaled dot product.

Jumper et al. 2021 (AlphaFold 2), Supplementary Algorithm 22, weighs residue j for residue i and
head h by the softmax over j of

    w_L ( q_i . k_j / sqrt(c)  +  b_ij  -  gamma_h w_C / 2  sum_p |T_i q_ip - T_j k_jp|^2 ).

Expanding the square, the term in |q|^2 is the same for every j and leaves the softmax; what remains
is a dot product of longer vectors,

    Q_i = [ w_L q_i / sqrt(c),  g T_i q_ip,  1 ]
    K_j = [ k_j,  T_j k_jp,  -g/2 sum_p |T_j k_jp|^2 ]

with g = w_L w_C gamma_h, so that no tensor of shape (N, N, H, P, 3) exists. Points are in units of
10 angstrom and centred by the caller: that keeps Q.K exact in fp32.

The pair bias b_ij = W z_ij of the static pair representation (model.py) is folded the same way: its
product part is a dot product of d_z more dimensions, its relative-position part a table looked up
by bin, its distance part one coefficient per head. No (N, N, d_z) tensor exists either.

Shapes: B proteins, H heads, N residues, J keys of a query (all N, or its neighbours), C head width,
P query/key points, V value points, X width of Q and K, Y width of the values, Z = d_z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfitlatent.model.neighbours import NeighbourAttention, NeighbourList

W_L = math.sqrt(1.0 / 3.0)
"""Weight of the logits: their three terms are of variance 1."""

MASKED = -1e9
"""Logit of a key that is padding."""

SAVE_PROBABILITIES_BELOW = 1 << 24
"""Attention weights of one protein and layer (H N N) kept for the backward pass up to this number,
64 MiB, which is 2048 residues with four heads; above it they are recomputed from the logsumexp,
which takes half as long again, so that memory grows with N and not with N^2."""

BLOCK_ELEMENTS = 1 << 18
"""Logits handled at a time, over all heads: 1 MiB of fp32 stays in the second-level cache."""


class StaticBiasAttention(torch.autograd.Function):
    """softmax(Q K^T + table[bins] + coefficient * distance) V, in blocks of queries.

    The gradient is written out because autograd would keep four (H, N, N) tensors, and because the
    gradient of the table is a histogram (``BinSums``), not a scatter.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        table: Tensor,
        coefficient: Tensor,
        pair: StaticPair,
        keep: bool,
    ) -> Tensor:
        """q, k (B,H,N,X); v (B,H,N,Y); table (H,bins); coefficient (H,); pair a StaticPair."""
        bins, distance = pair.bins, pair.distance
        num_proteins, num_heads, num_residues, _ = q.shape
        out = v.new_empty(v.shape)
        saved = []
        for b in range(num_proteins):
            for rows in _query_blocks(num_heads, num_residues):
                logits = _logits(q[b], k[b], table, coefficient, bins[b], distance[b], rows)
                if keep:
                    weights = torch.softmax(logits, dim=-1)
                    saved.append(weights)
                else:
                    logsumexp = torch.logsumexp(logits, dim=-1, keepdim=True)
                    weights = logits.sub_(logsumexp).exp_()
                    saved.append(logsumexp)
                out[b, :, rows] = torch.bmm(weights, v[b])
        ctx.keep, ctx.pair = keep, pair
        ctx.save_for_backward(q, k, v, table, coefficient, out, *saved)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, table, coefficient, out, *saved = ctx.saved_tensors
        bins, distance, bin_sums = ctx.pair.bins, ctx.pair.distance, ctx.pair.bin_sums
        num_proteins, num_heads, num_residues, _ = q.shape
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        grad_table, grad_coefficient = torch.zeros_like(table), torch.zeros_like(coefficient)
        grad_out = grad_out.contiguous()
        out_dot_grad = (out * grad_out).sum(-1, keepdim=True)  # (B,H,N,1) = sum_j P dP
        blocks = iter(saved)
        for b in range(num_proteins):
            for rows in _query_blocks(num_heads, num_residues):
                weights = next(blocks)
                if not ctx.keep:
                    logits = _logits(q[b], k[b], table, coefficient, bins[b], distance[b], rows)
                    weights = logits.sub_(weights).exp_()
                grad_rows = grad_out[b, :, rows]
                grad_v[b].baddbmm_(weights.transpose(1, 2), grad_rows)
                grad_logits = torch.bmm(grad_rows, v[b].transpose(1, 2))
                grad_logits.sub_(out_dot_grad[b, :, rows]).mul_(weights)
                grad_q[b, :, rows] = torch.bmm(grad_logits, k[b])
                grad_k[b].baddbmm_(grad_logits.transpose(1, 2), q[b, :, rows])
                grad_table += bin_sums[b](grad_logits, rows, table.shape[1])
                grad_coefficient += torch.mv(
                    grad_logits.reshape(num_heads, -1), distance[b, rows].reshape(-1)
                )
        return grad_q, grad_k, grad_v, grad_table, grad_coefficient, None, None


def _query_blocks(num_heads: int, num_residues: int) -> list[slice]:
    size = max(16, BLOCK_ELEMENTS // (num_heads * num_residues))
    return [slice(i, min(i + size, num_residues)) for i in range(0, num_residues, size)]


def _logits(
    q: Tensor,
    k: Tensor,
    table: Tensor,
    coefficient: Tensor,
    bins: Tensor,
    distance: Tensor,
    rows: slice,
) -> Tensor:
    """(H, n, N) logits of the queries ``rows`` of one protein."""
    bias = table.index_select(1, bins[rows].reshape(-1))  # (H, n N)
    bias.addmm_(coefficient[:, None], distance[rows].reshape(1, -1))
    bias = bias.view(table.shape[0], -1, k.shape[1])
    return bias.baddbmm_(q[:, rows], k.transpose(1, 2))


class BinSums:
    """Sums over the pairs of each bin, for the pairs of one protein: bins (N,N) long.

    The few bins that hold most pairs (far along the chain, other chains) are dot products with
    their masks, the rest is ``bincount``: five times faster than ``bincount`` of all.
    """

    NUM_MASKS = 3

    def __init__(self, bins: Tensor, dtype: torch.dtype) -> None:
        count = torch.bincount(bins.flatten())
        self.full = count.topk(min(self.NUM_MASKS, len(count))).indices
        self.masks = (bins == self.full[:, None, None]).to(dtype)  # (3,N,N)
        rest = self.masks.sum(0) == 0
        self.rest = torch.nonzero(rest.flatten()).squeeze(1)
        self.rest_bins = bins.flatten()[self.rest]
        self.start = [0, *rest.sum(1).cumsum(0).tolist()]  # of each row's pairs in rest

    def __call__(self, values: Tensor, rows: slice, num_bins: int) -> Tensor:
        """(H,num_bins) sums of values (H,n,N), those of the n rows of the protein."""
        num_heads, _, num_residues = values.shape
        flat = values.flatten(1)
        sums = flat.new_zeros((num_heads, num_bins))
        sums[:, self.full] = torch.stack(
            [torch.mv(flat, mask.flatten()) for mask in self.masks[:, rows]], dim=1
        )
        part = slice(self.start[rows.start], self.start[rows.stop])
        rest = flat.index_select(1, self.rest[part] - rows.start * num_residues)
        for own, total in zip(rest, sums, strict=True):
            total += torch.bincount(self.rest_bins[part], own, num_bins).to(total.dtype)
        return sums


@dataclass(frozen=True)
class StaticPair:
    """z_ij = relative[bins_ij] + distance_vector d_ij + left_i * right_j, never materialised."""

    relative: Tensor  # (bins, Z)
    bins: Tensor  # (B,N,N) long
    distance_vector: Tensor  # (Z,)
    distance: Tensor  # (B,N,N) CA distance, units of 10 angstrom
    left: Tensor  # (B,N,Z)
    right: Tensor  # (B,N,Z)
    mask: Tensor  # (B,N) bool, False for padding

    @cached_property
    def bin_sums(self) -> list[BinSums]:
        """One a protein, for the backward pass; the same for every layer."""
        return [BinSums(bins, self.distance.dtype) for bins in self.bins]


@dataclass(frozen=True)
class ExplicitPair:
    """z_ij as a tensor, for all keys or only for the neighbours of each residue."""

    z: Tensor | None  # (B,N,J,Z); None where the biases of all layers are made, and values not
    neighbours: NeighbourList | None  # None: J = N, every residue in order
    mask: Tensor  # (B,N,J) bool, False for padding
    bias: Tensor | None = None  # (H,B,N,J) of the layer at hand, where all were made at once

    def gather(self, x: Tensor) -> Tensor:
        """(B,N,J,W), or (B,1,N,W) to broadcast where every residue is a key, of x (B,N,W)."""
        return x[:, None] if self.neighbours is None else self.neighbours.gather(x)


def _full(x: Tensor) -> Tensor:
    """At least fp32."""
    return x if x.dtype == torch.float64 else x.float()


class InvariantPointAttention(nn.Module):
    """Jumper et al. 2021, Algorithm 22; the output has pair values only where asked for.

    Weights of the logit terms as there: w_C = sqrt(2 / (9 P)) and W_L.
    """

    save_probabilities_below = SAVE_PROBABILITIES_BELOW

    def __init__(
        self,
        d_s: int,
        d_z: int,
        num_heads: int,
        head_width: int,
        num_query_points: int,
        num_value_points: int,
        pair_values: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads, self.head_width = num_heads, head_width
        self.num_query_points, self.num_value_points = num_query_points, num_value_points
        self.pair_values = pair_values
        scalars = num_heads * head_width
        self.num_points = (num_heads * num_query_points,) * 2 + (num_heads * num_value_points,)
        self.widths = (scalars, scalars, scalars, 3 * sum(self.num_points))
        self.project = nn.Linear(d_s, sum(self.widths), bias=False)
        self.pair_bias = nn.Linear(d_z, num_heads, bias=False)
        # softplus(0.5413) = 1: the initial value of AlphaFold's head weights.
        self.head_weight = nn.Parameter(torch.full((num_heads,), 0.541324854612918))
        width = head_width + 4 * num_value_points + (d_z if pair_values else 0)
        self.output = nn.Linear(num_heads * width, d_s)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def bias_weight(self) -> Tensor:
        """(H,Z) what z_ij is multiplied with in the logits."""
        return W_L * self.pair_bias.weight

    def forward(
        self, s: Tensor, rotation: Tensor, translation: Tensor, pair: StaticPair | ExplicitPair
    ) -> Tensor:
        """s (B,N,d_s), rotation (B,N,3,3), translation (B,N,3) in units of 10 angstrom, centred."""
        if isinstance(pair, StaticPair) and self.pair_values:
            raise ValueError("Pair values need an explicit pair representation.")
        projected = self.project(s)
        # Point logits lose their meaning in bf16, so all that follows is at least fp32.
        with torch.autocast(s.device.type, enabled=False):
            features = self._attend(_full(projected), rotation, translation, pair)
        return self.output(features.to(s.dtype))

    def _attend(
        self,
        projected: Tensor,
        rotation: Tensor,
        translation: Tensor,
        pair: StaticPair | ExplicitPair,
    ) -> Tensor:
        """(B,N,H (C + 4 P_v [+ Z])) what each residue gathers, in its own frame."""
        big_q, big_k, big_v = self.vectors(projected, rotation, translation)
        if isinstance(pair, StaticPair):
            bias_weight = self.bias_weight()
            # Padding is masked through the constant column of Q.
            big_k[2] = big_k[2].masked_fill(~pair.mask[..., None, None], MASKED)
            big_q.append(bias_weight * _full(pair.left)[:, :, None])
            big_k.append(_full(pair.right)[:, :, None].expand(-1, -1, self.num_heads, -1))
            out = self._static(torch.cat(big_q, -1), torch.cat(big_k, -1), big_v, pair, bias_weight)
            out_pair = None
        else:
            out, out_pair = self._explicit(torch.cat(big_q, -1), torch.cat(big_k, -1), big_v, pair)
        features = self.in_own_frame(out, rotation, translation)
        return features if out_pair is None else torch.cat([features, out_pair.flatten(2)], dim=-1)

    def vectors(
        self, projected: Tensor, rotation: Tensor, translation: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """The parts of Q and of K, and V, all (B,N,H,...), of what ``project`` makes of s."""
        heads = (self.num_heads, -1)
        q, k, v, points = projected.split(self.widths, dim=-1)
        q, k, v = (x.unflatten(-1, heads) for x in (q, k, v))  # (B,N,H,C)
        points = (
            points.unflatten(-1, (-1, 3)) @ rotation.mT + translation[..., None, :]
        )  # (B,N,H(2P+P_v),3), global
        q_points, k_points, v_points = (
            x.unflatten(-2, heads).flatten(-2) for x in points.split(self.num_points, dim=-2)
        )  # (B,N,H,3P)

        w_c = math.sqrt(2.0 / (9.0 * self.num_query_points))
        g = W_L * w_c * F.softplus(self.head_weight)[:, None]  # (H,1)
        k_norm = -0.5 * g * k_points.square().sum(-1, keepdim=True)  # (B,N,H,1)
        big_q = [q * (W_L / math.sqrt(self.head_width)), g * q_points, torch.ones_like(k_norm)]
        big_k = [k, k_points, k_norm]
        return big_q, big_k, torch.cat([v, v_points], dim=-1)

    def in_own_frame(self, out: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
        """(B,N,H (C + 4 P_v)) of the weighted values out (B,N,H,Y) of each residue."""
        scalar, point = out.split((self.head_width, 3 * self.num_value_points), dim=-1)
        # T_i^-1 of the points: (x - t) R, with R as columns.
        point = (point.flatten(2).unflatten(-1, (-1, 3)) - translation[..., None, :]) @ rotation
        norm = (point.square().sum(-1) + 1e-8).sqrt()
        return torch.cat([scalar.flatten(2), point.flatten(2), norm], dim=-1)

    def _static(
        self, q: Tensor, k: Tensor, v: Tensor, pair: StaticPair, bias_weight: Tensor
    ) -> Tensor:
        """(B,N,H,Y) from q, k (B,N,H,X) and v (B,N,H,Y)."""
        table = bias_weight @ pair.relative.T
        coefficient = bias_weight @ pair.distance_vector
        q, k, v = (x.transpose(1, 2).contiguous() for x in (q, k, v))
        if q.device.type == "cuda":
            bias = table[:, pair.bins].transpose(0, 1)
            bias = bias + coefficient[:, None, None] * pair.distance[:, None]
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        else:
            size = self.num_heads * q.shape[2] ** 2
            keep = size <= self.save_probabilities_below
            out = StaticBiasAttention.apply(q, k, v, table, coefficient, pair, keep)
        return out.transpose(1, 2)

    def _explicit(
        self, q: Tensor, k: Tensor, v: Tensor, pair: ExplicitPair
    ) -> tuple[Tensor, Tensor | None]:
        """(B,N,H,Y) and, with pair values, (B,N,H,Z)."""
        bias = pair_biases([self], pair)[0] if pair.bias is None else pair.bias
        if pair.neighbours is None:
            logits = bias.transpose(0, 1) + q.transpose(1, 2) @ k.permute(0, 2, 3, 1)
            weights = torch.softmax(logits, dim=-1)  # (B,H,N,J)
            out = (weights @ v.transpose(1, 2)).transpose(1, 2)
        else:
            flat = (x.flatten(0, 1).transpose(0, 1) for x in (q, k, v))  # (H,T,X)
            out, weights = NeighbourAttention.apply(*flat, bias.flatten(1, 2), pair.neighbours)
            out = out.transpose(0, 1).unflatten(0, q.shape[:2])
            weights = weights.unflatten(1, q.shape[:2]).transpose(0, 1)
        if not self.pair_values:
            return out, None
        assert pair.z is not None
        return out, torch.matmul(weights.transpose(1, 2), _full(pair.z))


def pair_biases(
    layers: Sequence[InvariantPointAttention], pair: ExplicitPair
) -> tuple[Tensor, ...]:
    """w_L b_ij of each layer, (H,B,N,J): one product for all layers that share z."""
    assert pair.z is not None
    with torch.autocast(pair.z.device.type, enabled=False):
        weight = torch.cat([layer.bias_weight() for layer in layers])  # (L H,Z)
        bias = weight @ _full(pair.z).flatten(0, 2).T
        bias = bias.masked_fill(~pair.mask.flatten(), MASKED)
    return bias.view(len(layers), -1, *pair.mask.shape).unbind(0)
