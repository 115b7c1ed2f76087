"""The network of SPEC 6: from backbone frames and sequence to densities over chi.

Read from the bottom: ``QFitLatent.encode`` is the whole model,

    s_i <- token embedding of a_i                                   d_s numbers a residue
    z_ij = relative position, CA distance, s_i times s_j            pair.py
    L times:  s <- s + dropout(IPA(norm(s), R, t, z))               attention.py
              s <- s + dropout(W_2 relu(W_1 norm(s)))
    density = head(norm(s))                                         heads.py

and everything that is not SPEC 6 is an option of ``ModelConfig`` that is off by default.

Shapes: B proteins, N residues of the longest (padded), n real residues of all, D=4 chi.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_TOKENS, PI_SYMMETRIC
from qfitlatent.density.protocol import Density
from qfitlatent.model.attention import (
    ExplicitPair,
    InvariantPointAttention,
    StaticPair,
)
from qfitlatent.model.batch import Batch, Protein, collate
from qfitlatent.model.calibration import Calibration
from qfitlatent.model.features import RESIDUE_SETS
from qfitlatent.model.geometry import Geometry
from qfitlatent.model.heads import make_head
from qfitlatent.model.outputs import OutputHead, Outputs
from qfitlatent.model.pair import PAIR_UPDATES, PairRepresentation
from qfitlatent.model.settings import FEED_FORWARD_FACTOR, ModelConfig


class Dropout(nn.Dropout):
    """Dropout in training, and with a seed also outside it: for averages over its masks.

    The mask is uniform numbers above p: ``bernoulli_`` of the CPU takes four times as long.
    """

    def forward(self, x: Tensor, seed: int | None = None) -> Tensor:
        """x (B,N,d_s). A mask from a seed is that of the places 0..N-1 of every protein alike."""
        if not self.p or (seed is None and not self.training):
            return x
        if self.training:
            kept = torch.rand(x.shape, device=x.device) >= self.p
        else:
            assert seed is not None
            generator = torch.Generator().manual_seed(seed)
            kept = torch.rand(x.shape[1:], generator=generator).to(x.device) >= self.p
        return x * kept * (1.0 / (1.0 - self.p))


class Block(nn.Module):
    """Invariant point attention, then a feed-forward layer; both pre-norm and residual."""

    NUM_DROPOUTS = 2

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d_s = config.d_s
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(d_s), nn.LayerNorm(d_s)
        self.attention = InvariantPointAttention(
            d_s,
            config.d_z,
            config.num_heads,
            config.head_width,
            config.num_query_points,
            config.num_value_points,
            config.pair_values,
        )
        self.feed_forward = nn.Sequential(
            nn.Linear(d_s, FEED_FORWARD_FACTOR * d_s),
            nn.ReLU(),
            nn.Linear(FEED_FORWARD_FACTOR * d_s, d_s),
        )
        self.dropout_attention = Dropout(config.dropout)
        self.dropout_feed_forward = Dropout(config.dropout)

    def forward(
        self,
        s: Tensor,
        rotation: Tensor,
        x: Tensor,
        pair: StaticPair | ExplicitPair,
        seed: int | None = None,
    ) -> Tensor:
        """s (B,N,d_s), rotation (B,N,3,3), x (B,N,3) in units of 10 angstrom."""
        update = self.attention(self.norm_attention(s), rotation, x, pair)
        s = s + self.dropout_attention(update, seed)
        update = self.feed_forward(self.norm_feed_forward(s))
        return s + self.dropout_feed_forward(update, None if seed is None else seed + 1)


class DensityNetwork(nn.Module, ABC):
    """What one model and an average of several have in common: residues in, densities out.

    A subclass has ``config`` and ``head``, and says how residues are encoded.
    """

    config: ModelConfig
    head: nn.Module
    chi_mask: Tensor
    symmetric: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.calibration: Calibration | None = None
        self.register_buffer("chi_mask", torch.from_numpy(CHI_DEFINED), persistent=False)
        self.register_buffer("symmetric", torch.from_numpy(PI_SYMMETRIC), persistent=False)

    @abstractmethod
    def encode(self, batch: Batch) -> Tensor:
        """(n, width) what the head is given of each real residue, in order."""

    def embed(self, batch: Batch) -> Tensor:
        """(n, width) the final single representation of each real residue, without dropout."""
        return self.encode(batch)

    @abstractmethod
    def raw_outputs(self, s: Tensor, token: Tensor) -> Outputs | None:
        """As ``outputs``, before calibration."""

    def outputs(self, s: Tensor, token: Tensor) -> Outputs | None:
        """What is said beside the density, s and token as there; None without ``model.outputs``."""
        said = self.raw_outputs(s, token)
        if said is None or self.calibration is None:
            return said
        return self.calibration.outputs(said)

    def calibrate(self, calibration: Calibration | None) -> None:
        """Sets what is corrected in the density and beside it; None corrects nothing."""
        self.calibration = calibration
        cast("Any", self.head).width = None if calibration is None else calibration.width

    def density(self, s: Tensor, token: Tensor) -> Density:
        """s (n,width) as ``encode`` gives it, token (n,)."""
        return self.head(s, self.chi_mask[token], self.symmetric[token])

    def forward(self, batch: Batch) -> Density:
        """The density of every real residue, in the order of ``batch.token[batch.mask]``."""
        return self.density(self.encode(batch), batch.token[batch.mask])

    @torch.no_grad()
    def predict(self, protein: Protein) -> Density:
        """The density of each residue of one protein, without dropout, on the CPU."""
        was_training = self.training
        self.eval()
        batch = collate([protein]).to(self.chi_mask.device)
        with torch.inference_mode():
            s = self.encode(batch)
        self.train(was_training)
        # A copy, because autograd refuses what was made in inference mode.
        return self.density(s.clone(), batch.token[batch.mask]).to("cpu")


class QFitLatent(DensityNetwork):
    """Densities over chi from frames and tokens; invariant to rotation and translation."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(NUM_TOKENS, config.d_s)
        width = sum(RESIDUE_SETS.get(name, 0) for name in config.features)
        self.residue_features = nn.Linear(width, config.d_s) if width else None
        self.pair = PairRepresentation(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        update = PAIR_UPDATES.get(config.pair_update)
        self.pair_updates = (
            nn.ModuleList(
                update(config.d_s, config.d_z, config.dropout) for _ in range(config.num_blocks)
            )
            if update
            else None
        )
        self.norm = nn.LayerNorm(config.d_s)
        self.head = make_head(config)
        # Last, so that a model without it starts from the same weights.
        self.output_head = OutputHead(config.d_s) if config.outputs else None

    def encode(
        self, batch: Batch, seed: int | None = None, geometry: Geometry | None = None
    ) -> Tensor:
        """(n, d_s) final single representation of the real residues, padding left out.

        seed: of dropout masks outside training, of which each layer has its own; None drops none.
        geometry: that of the batch, where another model of the same settings has made it.
        """
        geometry = geometry or Geometry(self.config, batch)
        s = self.embedding(batch.token)
        features = geometry.residue_features
        if self.residue_features is not None and features is not None:
            s = s + self.residue_features(features)
        s = self.through_blocks(s, self.pairs(s, geometry), batch.rotation, geometry.x, seed)
        return self.norm(s)[batch.mask]

    def pairs(self, s: Tensor, geometry: Geometry) -> Sequence[StaticPair | ExplicitPair]:
        """What each block is given of the pairs; s (B,N,d_s) the embedded residues."""
        config = self.config
        if not config.explicit_pair:
            return [self.pair.static(s, geometry)] * config.num_blocks
        if config.neighbours and self.pair_updates is None and not config.pair_values:
            blocks = cast("Sequence[Block]", self.blocks)
            return self.pair.listed(s, geometry, [block.attention for block in blocks])
        return [self.pair.explicit(s, geometry)] * config.num_blocks

    def through_blocks(
        self,
        s: Tensor,
        pairs: Sequence[StaticPair | ExplicitPair],
        rotation: Tensor,
        x: Tensor,
        seed: int | None = None,
    ) -> Tensor:
        """(B,N,d_s): the loop of the network, in which nothing waits for a device."""
        updated: ExplicitPair | None = None
        for i, (block, pair) in enumerate(zip(self.blocks, pairs, strict=True)):
            now = updated or pair
            s = block(s, rotation, x, now, None if seed is None else seed + i * Block.NUM_DROPOUTS)
            if self.pair_updates is not None and isinstance(now, ExplicitPair):
                updated = replace(now, z=self.pair_updates[i](s, now))
        return s

    def raw_outputs(self, s: Tensor, token: Tensor) -> Outputs | None:
        return None if self.output_head is None else self.output_head(s, token)
