"""What the network says when one residue has another type, at the cost of the residues around it.

A changed type changes what its neighbours gather, then what theirs do, and so on: after all layers
nearly everything, but ever less. The geometry stays, and with it every feature and list of
neighbours. So only a region, the residues whose CA are nearest to the changed one, goes through the
layers again; what lies outside has in every layer the state that the unchanged protein has there. A
region as large as the protein is exact, and so is every model without a list of neighbours, all of
which goes through the network again.

Shapes: N residues, B variants of one of them, M residues of the region, U these and all that they
attend to, J keys of a residue, H heads, L layers, Z = d_z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from qfitlatent.model.attention import MASKED, ExplicitPair
from qfitlatent.model.average import AverageModel
from qfitlatent.model.batch import Protein, collate
from qfitlatent.model.geometry import Geometry
from qfitlatent.model.network import Block, DensityNetwork, QFitLatent

WHOLE_RESIDUES = 2048
"""Residues of a batch where the whole protein goes through the network for each variant."""


class Variants:
    """The variants of one protein; made once, it has the state of the protein in every layer."""

    @torch.inference_mode()
    def __init__(self, network: DensityNetwork, protein: Protein, region: int) -> None:
        """``region``: how many residues go through the layers again, the changed one among them."""
        self.network, self.protein = network, protein
        self.num = min(region, len(protein))
        self._members = [_Member(member, protein) for member in _members(network)]

    def region(self, residue: int) -> Tensor:
        """(M,) the residues that are computed anew, the changed one first, then by distance."""
        ca = self.protein.translation
        apart = (ca - ca[residue]).square().sum(1)
        apart[residue] = -1.0
        return apart.argsort(stable=True)[: self.num]

    @torch.inference_mode()
    def encode(self, residue: int, token: Tensor) -> Tensor:
        """(B,M,width) what the head is given of the region, ``residue`` having each token (B,)."""
        region = self.region(residue)
        if not self._members:
            return self._whole(residue, token)[:, region]
        return torch.cat([member.encode(region, token) for member in self._members], dim=-1)

    def _whole(self, residue: int, token: Tensor) -> Tensor:
        """(B,N,width): every variant through all of the network."""
        device = self.network.chi_mask.device
        variants = []
        for kind in token:
            changed = self.protein.token.clone()
            changed[residue] = kind
            variants.append(replace(self.protein, token=changed))
        at_a_time = max(1, WHOLE_RESIDUES // len(self.protein))
        parts = [
            self.network.encode(collate(variants[first : first + at_a_time]).to(device))
            for first in range(0, len(variants), at_a_time)
        ]
        return torch.cat(parts).float().cpu().unflatten(0, (len(token), -1))


def _members(network: DensityNetwork) -> list[QFitLatent]:
    """The networks whose states can be kept; none where all has to be computed anew."""
    config = network.config
    if not config.neighbours or config.pair_update != "none" or config.pair_values:
        return []
    if isinstance(network, AverageModel):
        return [] if network.dropout_passes else [cast("QFitLatent", m) for m in network.members]
    return [network] if isinstance(network, QFitLatent) else []


class _Member:
    """One network, and what it makes of the protein as it is."""

    def __init__(self, network: QFitLatent, protein: Protein) -> None:
        self.network = network
        batch = collate([protein]).to(network.chi_mask.device)
        self.geometry = Geometry(network.config, batch)
        self.token, self.rotation, self.x = batch.token[0], batch.rotation[0], self.geometry.x[0]
        s = network.embedding(batch.token)
        features = self.geometry.residue_features
        if network.residue_features is not None and features is not None:
            s = s + network.residue_features(features)
        self.left, self.right = (layer(s)[0] for layer in (network.pair.left, network.pair.right))
        pairs = cast("Sequence[ExplicitPair]", network.pairs(s, self.geometry))
        assert self.geometry.near is not None
        self.near = self.geometry.near.index[0]  # (N,J)
        self.bias = torch.stack([cast("Tensor", pair.bias)[:, 0] for pair in pairs])  # (L,H,N,J)
        self.blocks = cast("Sequence[Block]", network.blocks)
        self.states = [s[0]]  # L + 1 of (N,d_s)
        for block, pair in zip(self.blocks, pairs, strict=True):
            s = block(s, batch.rotation, self.geometry.x, pair)
            self.states.append(s[0])

    def encode(self, region: Tensor, token: Tensor) -> Tensor:
        """(B,M,d_s) of the region (M,), the first of which has each token (B,)."""
        network = self.network
        region, token = region.to(self.token.device), token.to(self.token.device)
        used = torch.cat([region, self._outside(region)])
        embedded = network.embedding(token) - network.embedding(self.token[region[:1]])  # (B,d_s)
        d_left = torch.nn.functional.linear(embedded, network.pair.left.weight)  # (B,Z)
        d_right = torch.nn.functional.linear(embedded, network.pair.right.weight)
        bias = self._bias(region, used)  # (L,H,M,U)
        right = self.right[used].expand(len(token), -1, -1).clone()
        right[:, 0] += d_right
        of_row = d_left[:, None] * right  # (B,U,Z) what the pairs of the changed one gain,
        of_column = self.left[region] * d_right[:, None]  # (B,M,Z) and those with it
        s = self.states[0][region].expand(len(token), -1, -1).clone()
        s[:, 0] += embedded
        for number, block in enumerate(self.blocks):
            weight = block.attention.bias_weight()  # (H,Z)
            logits = bias[number].repeat(len(token), 1, 1, 1)
            logits[:, :, 0] += weight @ of_row.mT
            logits[..., 0] += weight @ of_column.mT
            s = s + self._gathered(block, s, self.states[number], region, used, logits)
            s = s + block.feed_forward(block.norm_feed_forward(s))
        return network.norm(s).float().cpu()

    def _outside(self, region: Tensor) -> Tensor:
        """(U-M,) what the region attends to beyond itself."""
        is_key = torch.zeros(len(self.token), dtype=torch.bool, device=region.device)
        is_key[self.near[region].flatten()] = True
        is_key[region] = False
        return torch.nonzero(is_key).squeeze(1)

    def _bias(self, region: Tensor, used: Tensor) -> Tensor:
        """(L,H,M,U) of the pairs as they are; what a residue does not attend to is masked."""
        place = torch.zeros(len(self.token), dtype=torch.long, device=region.device)
        place[used] = torch.arange(len(used), device=region.device)
        own = self.bias[:, :, region]  # (L,H,M,J)
        at = place[self.near[region]].expand(own.shape)
        return own.new_full((*own.shape[:3], len(used)), MASKED).scatter_(3, at, own)

    def _gathered(
        self,
        block: Block,
        s: Tensor,
        state: Tensor,
        region: Tensor,
        used: Tensor,
        logits: Tensor,
    ) -> Tensor:
        """(B,M,d_s) what attention adds to s (B,M,d_s); logits (B,H,M,U) have the biases."""
        layer, num = block.attention, len(region)
        outside = used[num:]
        parts = []
        for values, at in ((s, region), (state[None, outside], outside)):
            projected = layer.project(block.norm_attention(values))
            big_q, big_k, v = layer.vectors(projected, self.rotation[at], self.x[at])
            parts.append((torch.cat(big_q, -1), torch.cat(big_k, -1), v))
        (q, k, v), (_, k_out, v_out) = parts
        k, v = (
            torch.cat([inner, outer.expand(len(s), -1, -1, -1)], dim=1)
            for inner, outer in ((k, k_out), (v, v_out))
        )  # (B,U,H,...)
        logits += q.transpose(1, 2) @ k.permute(0, 2, 3, 1)
        out = torch.softmax(logits, dim=-1) @ v.transpose(1, 2)  # (B,H,M,Y)
        out = layer.in_own_frame(out.transpose(1, 2), self.rotation[region], self.x[region])
        return layer.output(out)
