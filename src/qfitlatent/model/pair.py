"""The pair representation z_ij of SPEC 6, and its updates, which are options.

    z_ij = E[clip(p_j - p_i)] + d_ij v + (W_left s_i) * (W_right s_j)

with p the polymer number, d the CA distance and * by element. Nothing in it changes from block to
block unless ``model.pair_update`` says so; then z_ij exists as a tensor (``ExplicitPair``), as with
the other options that need one. Without them it never does (``StaticPair``, attention.py).

Shapes: B proteins, N residues, J keys of a residue (all N, or its neighbours), Z = d_z.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfitlatent.model.attention import (
    ExplicitPair,
    InvariantPointAttention,
    StaticPair,
    pair_biases,
)
from qfitlatent.model.batch import Batch
from qfitlatent.model.features import PAIR_SETS, project_pairs
from qfitlatent.model.geometry import Geometry
from qfitlatent.model.settings import ModelConfig

MAX_RELATIVE_POSITION = 32
"""Relative positions are clipped at this distance, residues."""


ROWS_AT_A_TIME = 2048
"""Residues whose pairs are made at a time where no more than biases is kept of them."""


class PairRepresentation(nn.Module):
    """z_ij from the embedded tokens and the CA positions, in one of two forms."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        # Relative positions -max..max, then one bin for pairs in different chains.
        self.relative = nn.Embedding(2 * MAX_RELATIVE_POSITION + 2, config.d_z)
        self.distance = nn.Parameter(torch.randn(config.d_z) * 0.1)
        self.left = nn.Linear(config.d_s, config.d_z)
        self.right = nn.Linear(config.d_s, config.d_z)
        sets = [name for name in config.features if name in PAIR_SETS]
        width = sum(PAIR_SETS[name] for name in sets)
        self.features = nn.Linear(width, config.d_z) if sets else None

    def bins(
        self, batch: Batch, keys: Callable[[Tensor], Tensor], rows: slice = slice(None)
    ) -> Tensor:
        """Row of the embedding for each pair; pairs in different chains have the last.

        keys: from (B,N) to what the keys of the residues ``rows`` have of it, (B,n,J) or (B,1,N).
        """
        limit = MAX_RELATIVE_POSITION
        position, chain = (x[:, rows, None] for x in (batch.position, batch.chain))
        offset = (keys(batch.position) - position).clamp(-limit, limit) + limit
        return torch.where(keys(batch.chain) == chain, offset, 2 * limit + 1)

    def static(self, s: Tensor, geometry: Geometry) -> StaticPair:
        """s (B,N,d_s) the embedded tokens."""
        x, batch = geometry.x, geometry.batch
        return StaticPair(
            relative=self.relative.weight,
            bins=self.bins(batch, lambda x: x[:, None]),
            distance_vector=self.distance,
            distance=torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist"),
            left=self.left(s),
            right=self.right(s),
            mask=batch.mask,
        )

    def explicit(self, s: Tensor, geometry: Geometry) -> ExplicitPair:
        """The same sum as a tensor, and with the pair feature sets."""
        return self._explicit(self.left(s), self.right(s), geometry, slice(None))

    def listed(
        self, s: Tensor, geometry: Geometry, layers: Sequence[InvariantPointAttention]
    ) -> list[ExplicitPair]:
        """For each of the layers its biases, where it attends to neighbours and needs no more.

        z_ij of all pairs is never there at a time, nor what it is made of.
        """
        left, right = self.left(s), self.right(s)
        biases, masks = [], []
        for start in range(0, s.shape[1], ROWS_AT_A_TIME):
            part = self._explicit(left, right, geometry, slice(start, start + ROWS_AT_A_TIME))
            biases.append(pair_biases(layers, part))
            masks.append(part.mask)
        mask = torch.cat(masks, dim=1)
        return [
            ExplicitPair(None, geometry.near, mask, torch.cat(of_layer, dim=2))
            for of_layer in zip(*biases, strict=True)
        ]

    def _explicit(
        self, left: Tensor, right: Tensor, geometry: Geometry, rows: slice
    ) -> ExplicitPair:
        """z_ij of the residues ``rows`` and their keys; left and right (B,N,Z)."""
        batch, near, x = geometry.batch, geometry.near, geometry.x

        def gather(value: Tensor) -> Tensor:  # (B,N,W) -> (B,n,J,W) or (B,1,N,W)
            return value[:, None] if near is None else near.gather(value, rows)

        def keys(value: Tensor) -> Tensor:  # (B,N) -> (B,n,J) or (B,1,N)
            return gather(value[..., None]).squeeze(-1)

        distance = (gather(x) - x[:, rows, None]).square().sum(-1).add(1e-12).sqrt()
        z = self.relative(self.bins(batch, keys, rows)) + distance[..., None] * self.distance
        z = z + left[:, rows, None] * gather(right)
        if self.features is not None:
            sets, atoms = self.config.features, geometry.atoms
            z = z + project_pairs(self.features, sets, batch.rotation, atoms, gather, rows)
        mask = batch.mask[:, rows, None] & keys(batch.mask)
        return ExplicitPair(z, near, mask.expand(z.shape[:3]))


class EdgeUpdate(nn.Module):
    """z_ij <- z_ij + MLP(z_ij, s_i, s_j), pre-norm: messages along the neighbour list."""

    def __init__(self, d_s: int, d_z: int, dropout: float) -> None:
        super().__init__()
        hidden = 2 * d_z
        self.norm_z, self.norm_s = nn.LayerNorm(d_z), nn.LayerNorm(d_s)
        self.from_z = nn.Linear(d_z, hidden)
        self.from_s = nn.Linear(d_s, 2 * hidden, bias=False)
        self.output = nn.Linear(hidden, d_z)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, s: Tensor, pair: ExplicitPair) -> Tensor:
        own, other = self.from_s(self.norm_s(s)).chunk(2, dim=-1)
        hidden = self.from_z(self.norm_z(pair.z)) + own[:, :, None] + pair.gather(other)
        return pair.z + self.dropout(self.output(F.silu(hidden)))


class TriangleUpdate(nn.Module):
    """Triangle multiplicative update, outgoing edges: Jumper et al. 2021, Algorithm 11."""

    def __init__(self, d_s: int, d_z: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.norm_out = nn.LayerNorm(d_z), nn.LayerNorm(d_z)
        self.project, self.gates = nn.Linear(d_z, 2 * d_z), nn.Linear(d_z, 2 * d_z)
        self.gate, self.output = nn.Linear(d_z, d_z), nn.Linear(d_z, d_z)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, s: Tensor, pair: ExplicitPair) -> Tensor:
        z = self.norm(pair.z)
        a, b = (self.project(z) * self.gates(z).sigmoid() * pair.mask[..., None]).chunk(2, dim=-1)
        summed = torch.einsum("bikz,bjkz->bijz", a, b)
        return pair.z + self.dropout(self.gate(z).sigmoid() * self.output(self.norm_out(summed)))


PAIR_UPDATES = {"edge": EdgeUpdate, "triangle": TriangleUpdate}
