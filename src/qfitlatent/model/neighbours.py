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

import numpy as np
import torch
from torch import Tensor

from qfitlatent.chemistry.neighbours import pairs_within

ANGSTROM_PER_UNIT = 10.0
"""Length unit of the points: angstroms would make every residue attend to itself only."""

FIRST_RADIUS = 13.0
"""Angstrom within which most residues have 24 neighbours; twice that is tried for the others."""

SEARCH_QUERIES = 2048
"""Residues whose neighbours are searched at a time."""

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

    def gather(self, x: Tensor, rows: slice = slice(None)) -> Tensor:
        """(B,n,J,W) what the keys of the residues ``rows`` (all N) have of x (B,N,W)."""
        flat = self.flat[:, rows]
        return x.flatten(0, 1).index_select(0, flat.flatten()).view(*flat.shape, -1)


def by_cells(x: Tensor) -> bool:
    """Whether who is near whom of x (B,N,3) is searched by cells rather than among all."""
    return x.device.type == "cpu" and x.shape[1] > ONE_BLOCK_UP_TO


def nearest(translation: Tensor, mask: Tensor, num: int) -> NeighbourList:
    """The ``num`` residues nearest in CA, itself first; padding only where too few.

    translation (B,N,3), mask (B,N). No tensor is larger than a multiple of N J: above
    ``ONE_BLOCK_UP_TO`` residues the search is by cells on the CPU, in blocks of queries elsewhere.
    """
    num = min(num, translation.shape[1])
    if by_cells(translation):
        found = [_nearest_by_cells(x, real, num) for x, real in zip(translation, mask, strict=True)]
        return NeighbourList(torch.stack(found))
    blocks = translation.split(ONE_BLOCK_UP_TO, dim=1)
    distance = (torch.cdist(rows, translation) for rows in blocks)
    index = [
        d.masked_fill(~mask[:, None, :], math.inf).topk(num, largest=False).indices
        for d in distance
    ]
    return NeighbourList(torch.cat(index, dim=1))


def _nearest_by_cells(translation: Tensor, mask: Tensor, num: int) -> Tensor:
    """(N,J) of one protein; of padding, and where there are too few, whatever comes first."""
    points = translation.detach().double().numpy()
    real = np.flatnonzero(mask.numpy() & np.isfinite(points).all(axis=1))
    index = np.tile(np.arange(num), (len(points), 1))
    least = min(num, len(real))
    radius, pending = FIRST_RADIUS / ANGSTROM_PER_UNIT, real
    while len(pending):
        later = []
        for rows in np.split(pending, range(SEARCH_QUERIES, len(pending), SEARCH_QUERIES)):
            i, j = pairs_within(points[rows], points[real], radius)
            count = np.bincount(i, minlength=len(rows))
            enough = count >= least
            later.append(rows[~enough])
            if enough.any():
                index[rows[enough], :least] = real[_first(points, rows, real, i, j, count, least)]
        pending, radius = np.concatenate(later), 2 * radius
    if least < num:
        index[real, least:] = np.setdiff1d(np.arange(len(points)), real)[: num - least]
    return torch.from_numpy(index)


def _first(
    points: np.ndarray,
    rows: np.ndarray,
    real: np.ndarray,
    i: np.ndarray,
    j: np.ndarray,
    count: np.ndarray,
    num: int,
) -> np.ndarray:
    """(n,num) places in ``real`` of the nearest to each of the ``rows`` that has as many.

    i and j (P,) pairs of rows and real, sorted by i; count (n,) how many each row has.
    """
    place = np.arange(len(i)) - (np.cumsum(count) - count)[i]
    square = np.full((len(rows), count.max()), np.inf)
    square[i, place] = ((points[rows[i]] - points[real[j]]) ** 2).sum(axis=1)
    of_row = np.zeros(square.shape, dtype=np.int64)
    of_row[i, place] = j
    enough = count >= num
    order = np.argsort(square[enough], axis=1, kind="stable")[:, :num]
    return np.take_along_axis(of_row[enough], order, axis=1)


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
