"""Attention to the nearest residues only: the list of them, and the product over it.

A query has J keys of its own, so the textbook form gathers keys and values for each query: J times
the memory of both, moved in each layer and again in its backward pass. Here queries are taken in
blocks, and a block is multiplied with all keys that any of its queries has; of these products the J
of each query are picked before the softmax. Residues near in the chain have most neighbours in
common, so that the products too many cost less than the moving would: 3 times less at 320 residues.

Shapes: B proteins, N residues (padded), T = B N, J keys of a query, H heads, n queries of a block,
M keys of a block, X width of Q and K, Y width of the values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

ONE_BLOCK_UP_TO = 512
"""Proteins of up to so many residues are one block: all their residues are keys."""

BLOCK_QUERIES = 128
"""Queries of a block of a larger protein."""


@dataclass(frozen=True)
class Block:
    """Queries ``rows`` of all T, their keys, and the place of each query's J among the keys."""

    rows: slice
    keys: slice | Tensor  # of the T residues; (M,) long where they are not one after the other
    local: Tensor  # (n,J) long, each from 0 to M


@dataclass(frozen=True)
class NeighbourList:
    """The J residues that each residue attends to, of its own protein."""

    index: Tensor  # (B,N,J) long

    @cached_property
    def flat(self) -> Tensor:
        """(B,N,J) long, counted over the T residues of all proteins."""
        num_proteins, num_residues, _ = self.index.shape
        first = torch.arange(num_proteins, device=self.index.device) * num_residues
        return self.index + first[:, None, None]

    @cached_property
    def blocks(self) -> list[Block]:
        """Made once a batch, for all layers."""
        num_proteins, num, _ = self.index.shape
        if num <= ONE_BLOCK_UP_TO:
            proteins = [slice(b * num, (b + 1) * num) for b in range(num_proteins)]
            return [Block(rows, rows, self.index[b]) for b, rows in enumerate(proteins)]
        flat, blocks = self.flat.flatten(0, 1), []
        for start in range(0, len(flat), BLOCK_QUERIES):
            rows = slice(start, min(start + BLOCK_QUERIES, len(flat)))
            blocks.append(Block(rows, *torch.unique(flat[rows], return_inverse=True)))
        return blocks

    def gather(self, x: Tensor) -> Tensor:
        """(B,N,J,W) what the keys of each residue have of x (B,N,W)."""
        near = x.flatten(0, 1).index_select(0, self.flat.flatten())
        return near.view(*self.index.shape, -1)


def nearest(translation: Tensor, mask: Tensor, num: int) -> NeighbourList:
    """The ``num`` residues nearest in CA, itself first; padding only where too few.

    translation (B,N,3), mask (B,N).
    """
    distance = torch.cdist(translation, translation).masked_fill(~mask[:, None, :], math.inf)
    num = min(num, translation.shape[1])
    return NeighbourList(distance.topk(num, largest=False).indices)


class NeighbourAttention(torch.autograd.Function):
    """softmax over each query's J of (Q K^T + bias), times V; and the weights themselves."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, near: NeighbourList
    ) -> tuple[Tensor, Tensor]:
        """q, k (H,T,X); v (H,T,Y); bias (H,T,J). Returns (H,T,Y) and (H,T,J)."""
        num_heads = len(q)
        out, weights = v.new_empty(v.shape), torch.empty_like(bias)
        for block in near.blocks:
            rows, keys = block.rows, block.keys
            at = block.local.expand(num_heads, -1, -1)
            dense = torch.bmm(q[:, rows], k[:, keys].mT)  # (H,n,M)
            logits = dense.gather(2, at).add_(bias[:, rows])
            weights[:, rows] = torch.softmax(logits, dim=-1)
            dense.zero_().scatter_(2, at, weights[:, rows])
            out[:, rows] = torch.bmm(dense, v[:, keys])
        ctx.near = near
        ctx.save_for_backward(q, k, v, weights)
        return out, weights

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor, grad_weights: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights = ctx.saved_tensors
        num_heads = len(q)
        grad_q, grad_bias = torch.empty_like(q), torch.empty_like(weights)
        grad_k, grad_v = torch.zeros_like(k), torch.zeros_like(v)
        for block in ctx.near.blocks:
            rows, keys, own = block.rows, block.keys, weights[:, block.rows]
            at = block.local.expand(num_heads, -1, -1)
            grad_rows = grad_out[:, rows]
            dense = torch.bmm(grad_rows, v[:, keys].mT)  # (H,n,M)
            grad = dense.gather(2, at).add_(grad_weights[:, rows])
            grad_v[:, keys] += torch.bmm(dense.zero_().scatter_(2, at, own).mT, grad_rows)
            grad.mul_(own)
            grad.addcmul_(own, grad.sum(-1, keepdim=True), value=-1.0)
            grad_bias[:, rows] = grad
            dense.scatter_(2, at, grad)
            grad_q[:, rows] = torch.bmm(dense, k[:, keys])
            grad_k[:, keys] += torch.bmm(dense.mT, q[:, rows])
        return grad_q, grad_k, grad_v, grad_bias, None
