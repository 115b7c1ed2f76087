"""Invariant point attention as the paper writes it: the form that the fast one must equal.

Jumper et al. 2021, Algorithm 22, with every (N, N, ...) tensor written out. It reads the same
parameters as ``attention.InvariantPointAttention``.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from qfitlatent.model.attention import ExplicitPair, InvariantPointAttention, StaticPair


def explicit_z(pair: StaticPair) -> Tensor:
    """(B,N,N,Z) of a static pair representation."""
    z = pair.relative[pair.bins] + pair.distance[..., None] * pair.distance_vector
    return z + pair.left[:, :, None] * pair.right[:, None]


def attention(layer: InvariantPointAttention, s, rotation, translation, pair) -> Tensor:
    """The layer's output (B,N,d_s), all pairs."""
    if isinstance(pair, StaticPair):
        z, mask = explicit_z(pair), pair.mask[:, None, :]
    else:
        assert isinstance(pair, ExplicitPair)
        z, mask = pair.z, pair.mask
    heads = layer.num_heads
    widths = (*layer.widths[:3], *(3 * num for num in layer.num_points))
    q, k, v, q_points, k_points, v_points = layer.project(s).split(widths, dim=-1)
    q, k, v = (x.unflatten(-1, (heads, -1)) for x in (q, k, v))

    def to_global(x):
        local = x.unflatten(-1, (heads, -1, 3))  # (B,N,H,P,3)
        return torch.einsum("bnij,bnhpj->bnhpi", rotation, local) + translation[:, :, None, None]

    q_points, k_points, v_points = map(to_global, (q_points, k_points, v_points))
    gamma = F.softplus(layer.head_weight)
    w_c = math.sqrt(2 / (9 * layer.num_query_points))
    w_l = math.sqrt(1 / 3)
    scalar = torch.einsum("bihc,bjhc->bhij", q, k) / math.sqrt(layer.head_width)
    bias = layer.pair_bias(z).permute(0, 3, 1, 2)
    square = (q_points[:, :, None] - k_points[:, None]).square().sum(-1)  # (B,N,N,H,P)
    points = square.sum(-1).permute(0, 3, 1, 2)
    logits = w_l * (scalar + bias - 0.5 * w_c * gamma[:, None, None] * points)
    weights = torch.softmax(logits.masked_fill(~mask[:, None], -1e9), dim=-1)
    out = torch.einsum("bhij,bjhc->bihc", weights, v)
    out_points = torch.einsum("bhij,bjhpx->bihpx", weights, v_points)
    local = torch.einsum("bnji,bnhpj->bnhpi", rotation, out_points - translation[:, :, None, None])
    norm = (local.square().sum(-1) + 1e-8).sqrt()
    parts = [out.flatten(2), local.flatten(2), norm.flatten(2)]
    if layer.pair_values:
        parts.append(torch.einsum("bhij,bijz->bihz", weights, z).flatten(2))
    return layer.output(torch.cat(parts, dim=-1))
