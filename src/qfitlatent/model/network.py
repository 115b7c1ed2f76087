"""The network of SPEC 6: from backbone frames and sequence to densities over chi.

Read from the bottom: ``QFitLatent.forward`` is the whole model. Symbols are SPEC's. What is not
SPEC 6 is an option of ``ModelConfig`` and is off by default.

Shapes: B proteins, N residues, J keys of a residue (all N, or its neighbours), K components,
D=4 chi, F features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_TOKENS, PI_SYMMETRIC
from qfitlatent.density.autoregressive import AutoregressiveDensity
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.model.attention import (
    ANGSTROM_PER_UNIT,
    ExplicitPair,
    InvariantPointAttention,
    StaticPair,
)
from qfitlatent.model.batch import Batch, Protein, collate
from qfitlatent.model.features import (
    PAIR_SETS,
    RESIDUE_SETS,
    global_atoms,
    nearest,
    pair_features,
    residue_features,
)
from qfitlatent.model.heads import AutoregressiveHead, MixtureHead, density_of
from qfitlatent.model.settings import FEED_FORWARD_FACTOR, ModelConfig


class PairRepresentation(nn.Module):
    """z_ij: clipped relative position, CA distance, product of projected singles (SPEC 6)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        # Relative positions -max..max, then one bin for pairs in different chains.
        self.relative = nn.Embedding(2 * config.max_relative_position + 2, config.d_z)
        self.distance = nn.Parameter(torch.randn(config.d_z) * 0.1)
        self.left = nn.Linear(config.d_s, config.d_z)
        self.right = nn.Linear(config.d_s, config.d_z)
        sets = [name for name in config.features if name in PAIR_SETS]
        width = sum(PAIR_SETS[name] for name in sets)
        self.features = nn.Linear(width, config.d_z) if sets else None

    def bins(self, position_i, position_j, chain_i, chain_j) -> Tensor:
        limit = self.config.max_relative_position
        offset = (position_j - position_i).clamp(-limit, limit) + limit
        return torch.where(chain_i == chain_j, offset, 2 * limit + 1)

    def static(self, s: Tensor, x: Tensor, batch: Batch) -> StaticPair:
        """s (B,N,d_s) the embedded tokens, x (B,N,3) centred CA in units of 10 angstrom."""
        position, chain = batch.position, batch.chain
        return StaticPair(
            relative=self.relative.weight,
            bins=self.bins(
                position[:, :, None], position[:, None], chain[:, :, None], chain[:, None]
            ),
            distance_vector=self.distance,
            distance=torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist"),
            left=self.left(s),
            right=self.right(s),
            mask=batch.mask,
        )

    def explicit(self, s: Tensor, rotation: Tensor, x: Tensor, batch: Batch) -> ExplicitPair:
        """The same sum as a tensor, and with the pair feature sets."""
        num, mask = self.config.neighbours, batch.mask
        neighbours = nearest(x, mask, num) if num else None
        pair = ExplicitPair(z=x, neighbours=neighbours, mask=mask)  # only its gather is used here

        def keys(value: Tensor) -> Tensor:  # (B,N) -> (B,N,J) or (B,1,N)
            return pair.gather(value[..., None]).squeeze(-1)

        bins = self.bins(
            batch.position[:, :, None], keys(batch.position), batch.chain[:, :, None],
            keys(batch.chain),
        )  # fmt: skip
        distance = (pair.gather(x) - x[:, :, None]).square().sum(-1).add(1e-12).sqrt()
        z = self.relative(bins) + distance[..., None] * self.distance
        z = z + self.left(s)[:, :, None] * pair.gather(self.right(s))
        if self.features is not None:
            atoms = global_atoms(rotation, x * ANGSTROM_PER_UNIT)
            z = z + self.features(pair_features(self.config.features, rotation, atoms, pair.gather))
        return ExplicitPair(z, neighbours, (mask[:, :, None] & keys(mask)).expand(z.shape[:3]))


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


class Dropout(nn.Dropout):
    """Dropout that goes on outside training where it has a ``seed``: for averages over its masks.

    Such a mask is drawn for the places 0..N-1 of a protein, whatever else is in the batch.
    """

    seed: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x (B,N,d_s)."""
        if self.training or self.seed is None:
            return super().forward(x)
        generator = torch.Generator().manual_seed(self.seed)
        kept = torch.rand(x.shape[1:], generator=generator) >= self.p
        return x * (kept / (1.0 - self.p)).to(x)


class Block(nn.Module):
    """Pre-norm residuals: invariant point attention, then a feed-forward layer."""

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
            config.attention,
        )
        self.feed_forward = nn.Sequential(
            nn.Linear(d_s, FEED_FORWARD_FACTOR * d_s),
            nn.ReLU(),
            nn.Linear(FEED_FORWARD_FACTOR * d_s, d_s),
        )
        self.dropout_attention = Dropout(config.dropout)
        self.dropout_feed_forward = Dropout(config.dropout)

    def forward(self, s: Tensor, rotation: Tensor, x: Tensor, pair) -> Tensor:
        update = self.attention(self.norm_attention(s), rotation, x, pair)
        s = s + self.dropout_attention(update)
        return s + self.dropout_feed_forward(self.feed_forward(self.norm_feed_forward(s)))


class QFitLatent(nn.Module):
    """Densities over chi from frames and tokens; invariant to rotation and translation."""

    dropout_passes = 0  # of an average: how often each member predicts with its dropout on

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(NUM_TOKENS, config.d_s)
        sets = [name for name in config.features if name in RESIDUE_SETS]
        width = sum(RESIDUE_SETS[name] for name in sets)
        self.residue_features = nn.Linear(width, config.d_s) if sets else None
        self.pair = PairRepresentation(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.pair_updates = (
            nn.ModuleList(
                PAIR_UPDATES[config.pair_update](config.d_s, config.d_z, config.dropout)
                for _ in range(config.num_blocks)
            )
            if config.pair_update != "none"
            else None
        )
        self.norm = nn.LayerNorm(config.d_s)
        if config.head == "autoregressive":
            self.head: nn.Module = AutoregressiveHead(
                config.d_s, config.num_components, config.kappa_min, config.head_hidden or 256
            )
        else:
            self.head = MixtureHead(config)
        self.register_buffer("chi_mask", torch.from_numpy(CHI_DEFINED), persistent=False)
        self.register_buffer("symmetric", torch.from_numpy(PI_SYMMETRIC), persistent=False)

    def encode(self, batch: Batch) -> Tensor:
        """(n, d_s) final single representation of the real residues, padding left out."""
        # Centred in the model: a shift by 1000 angstrom would cost fp32 its digits.
        mask = batch.mask[..., None]
        centre = (batch.translation * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
        x = (batch.translation - centre) * mask / ANGSTROM_PER_UNIT
        rotation = batch.rotation
        s = self.embedding(batch.token)
        if self.residue_features is not None:
            atoms = global_atoms(rotation, x * ANGSTROM_PER_UNIT)
            s = s + self.residue_features(
                residue_features(self.config.features, batch.torsion, atoms, batch.mask)
            )
        explicit = self.config.explicit_pair
        pair = (
            self.pair.explicit(s, rotation, x, batch) if explicit else self.pair.static(s, x, batch)
        )
        for i, block in enumerate(self.blocks):
            s = block(s, rotation, x, pair)
            if self.pair_updates is not None:
                z = self.pair_updates[i](s, pair)
                pair = ExplicitPair(z, pair.neighbours, pair.mask)
        return self.norm(s)[batch.mask]

    def forward(self, batch: Batch) -> VonMisesMixture | AutoregressiveDensity:
        """The density of every real residue, in the order of ``batch.token[batch.mask]``."""
        s = self.encode(batch)
        return self.density(s, batch.token[batch.mask])

    def density(self, s: Tensor, token: Tensor) -> VonMisesMixture | AutoregressiveDensity:
        """s (n,d_s) as ``encode`` gives it, token (n,)."""
        return density_of(self.head, s, self.chi_mask[token], self.symmetric[token])

    @torch.no_grad()
    def predict(self, protein: Protein) -> VonMisesMixture | AutoregressiveDensity:
        """The density of each residue of one protein, without dropout, on the CPU."""
        was_training = self.training
        self.eval()
        device = self.embedding.weight.device
        s = self.encode(collate([protein]).to(device))
        density = self.density(s, protein.token.to(device))
        self.train(was_training)
        return density.to("cpu") if isinstance(density, VonMisesMixture) else density
