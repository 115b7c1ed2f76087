"""The network of SPEC 6: from backbone frames and sequence to densities over chi.

Read from the bottom: ``QFitLatent.forward`` is the whole model. Symbols are SPEC's. What is not
SPEC 6 is an option of ``ModelConfig`` and is off by default.

Shapes: B proteins, N residues, J keys of a residue (all N, or its neighbours), K components,
D=4 chi, F features.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfitlatent.attention import (
    ANGSTROM_PER_UNIT,
    SAVE_PROBABILITIES_BELOW,
    ExplicitPair,
    InvariantPointAttention,
    StaticPair,
)
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI_MAX, NUM_TOKENS, PI_SYMMETRIC
from qfitlatent.dataset import Batch, Protein, collate
from qfitlatent.density.autoregressive import (
    AutoregressiveDensity,
    AutoregressiveHead,
    AverageHead,
    spread_bias,
)
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.features import (
    PAIR_SETS,
    RESIDUE_SETS,
    global_atoms,
    nearest,
    pair_features,
    residue_features,
)

FEED_FORWARD_FACTOR = 4


@dataclass(frozen=True)
class ModelConfig:
    """Section ``model`` of the configuration; meanings and defaults are in its schema."""

    d_s: int
    d_z: int
    num_blocks: int
    num_heads: int
    head_width: int
    num_query_points: int
    num_value_points: int
    num_components: int
    kappa_min: float
    dropout: float
    head: str
    head_hidden: int
    mean: str
    features: tuple[str, ...]
    pair_values: bool
    pair_update: str
    neighbours: int
    max_relative_position: int
    attention: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        known = [*RESIDUE_SETS, *PAIR_SETS]
        for name in self.features:
            if name not in known:
                raise QfitLatentError(
                    f"model.features has {name!r}, which is none of {', '.join(known)}."
                )
        if self.pair_update == "triangle" and self.neighbours:
            raise QfitLatentError(
                "model.pair_update: triangle needs every pair: set model.neighbours to 0."
            )
        if self.head == "autoregressive" and self.mean != "atan2":
            raise QfitLatentError(
                "model.head: autoregressive has atan2 means only: set model.mean to atan2."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Raises QfitLatentError when keys are missing or unknown: another version wrote them."""
        known = {f.name for f in fields(cls)}
        if set(values) != known:
            odd = ", ".join(sorted(known ^ set(values)))
            raise QfitLatentError(
                f"The model settings differ from this version's in {odd}: "
                "use the version of qfitlatent that wrote the model, or train again."
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "features": list(self.features)}

    @property
    def explicit_pair(self) -> bool:
        """Whether z_ij exists as a tensor; SPEC 6 alone folds it into the attention."""
        return bool(
            self.pair_values
            or self.pair_update != "none"
            or self.neighbours
            or any(name in PAIR_SETS for name in self.features)
        )


def training_bytes(config: ModelConfig, num_residues: int) -> int:
    """Memory of a training step on one protein of ``num_residues``, bytes, beyond weights.

    Counts the activations that the backward pass reads; measured peaks of 600 residues are within
    a quarter of it. A static pair representation grows with N (attention weights above a size are
    not kept), an explicit one with N J, J being N without a neighbour list.
    """
    n = num_residues
    num_keys = min(config.neighbours or n, n)
    heads, points = config.num_heads, config.num_query_points + config.num_value_points
    projected = heads * (3 * config.head_width + 3 * (points + config.num_query_points))
    residue = config.d_s * (6 + 3 * FEED_FORWARD_FACTOR) + 4 * projected
    floats = config.num_blocks * n * residue
    if config.explicit_pair:
        gathered = heads * (2 * config.head_width + 3 * points + config.d_z)
        update = {"none": 0, "edge": 5, "triangle": 14}[config.pair_update] * config.d_z
        values = gathered if config.neighbours else config.d_z // 2
        features = sum(2 * PAIR_SETS[name] for name in config.features if name in PAIR_SETS)
        per_pair = config.num_blocks * (3 * heads + update + values) + features + 3 * config.d_z
        floats += n * num_keys * per_pair
    else:
        kept = min(heads * n * n, SAVE_PROBABILITIES_BELOW)
        # Four bytes the distances, eight the bins, and sixteen what sums over them.
        floats += config.num_blocks * kept + 7 * n * n
    return 4 * floats


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


class MixtureHead(nn.Module):
    """pi = softmax(W_pi s), mu = pi tanh(W_mu s) or atan2, kappa = softplus(W_kappa s) + kappa_min.

    Means start spread over the circle, a different offset for each chi, and moderately narrow.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        num = config.num_components
        self.two_vector = config.mean == "atan2"
        d_in, hidden = config.d_s, config.head_hidden
        self.hidden = nn.Sequential(nn.Linear(d_in, hidden), nn.SiLU()) if hidden else None
        d_in = hidden or d_in
        self.weight = nn.Linear(d_in, num)
        self.mean = nn.Linear(d_in, num * NUM_CHI_MAX * (2 if self.two_vector else 1))
        self.kappa = nn.Linear(d_in, num * NUM_CHI_MAX)
        bias = spread_bias(num, NUM_CHI_MAX)
        east, north, kappa = bias[num:].chunk(3)
        angle = torch.atan2(north, east)
        with torch.no_grad():
            for layer in (self.weight, self.mean, self.kappa):
                layer.weight.normal_(std=0.01)
            self.kappa.bias.copy_(kappa)
            if self.two_vector:
                self.mean.bias.copy_(torch.stack([east, north], dim=-1).flatten())
            else:
                self.mean.bias.copy_(torch.atanh(angle / math.pi))

    def forward(self, s: Tensor, chi_mask: Tensor, symmetric: Tensor) -> VonMisesMixture:
        """s (N,d_s), chi_mask and symmetric (N,D)."""
        if self.hidden is not None:
            s = self.hidden(s)
        shape = (self.config.num_components, NUM_CHI_MAX)
        if self.two_vector:
            vector = self.mean(s).unflatten(-1, (*shape, 2))
            mean = torch.atan2(vector[..., 1], vector[..., 0])
        else:
            mean = math.pi * torch.tanh(self.mean(s)).unflatten(-1, shape)
        kappa = F.softplus(self.kappa(s)).unflatten(-1, shape) + self.config.kappa_min
        return VonMisesMixture(self.weight(s).log_softmax(-1), mean, kappa, chi_mask, symmetric)


def density_of(
    head: nn.Module, s: Tensor, chi_mask: Tensor, symmetric: Tensor
) -> VonMisesMixture | AutoregressiveDensity:
    """The density that ``head`` gives to residues s (N,d_s); chi_mask and symmetric (N,D)."""
    if isinstance(head, MixtureHead):
        return head(s, chi_mask, symmetric)
    return AutoregressiveDensity(head, s, chi_mask, symmetric)


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


class AverageModel(QFitLatent):
    """Several trained models of one architecture as one: the mean of their densities, chi by chi.

        p(chi_d | chi_<d) = 1/M sum_m p_m(chi_d | chi_<d)

    With ``dropout_passes`` P each member stands P times in the sum, each time with other dropout
    masks (Gal and Ghahramani 2016), which makes the average wider where members are too sure.
    ``encode`` gives the single representations of all terms side by side, (n, M P d_s).
    """

    def __init__(self, config: ModelConfig, num_members: int, dropout_passes: int = 0) -> None:
        nn.Module.__init__(self)
        if config.head != "autoregressive":
            raise QfitLatentError(
                "Only models with model.head: autoregressive can be averaged: "
                f"these have {config.head}."
            )
        self.config = config
        self.members = nn.ModuleList(QFitLatent(config) for _ in range(num_members))
        self.dropout_passes = dropout_passes
        terms = max(1, dropout_passes)
        self.head = AverageHead([member.head for member in self.members for _ in range(terms)])
        self.register_buffer("chi_mask", torch.from_numpy(CHI_DEFINED), persistent=False)
        self.register_buffer("symmetric", torch.from_numpy(PI_SYMMETRIC), persistent=False)

    @property
    def embedding(self) -> nn.Embedding:
        return self.members[0].embedding

    def encode(self, batch: Batch) -> Tensor:
        seeds = itertools.count()
        parts = []
        for member in self.members:
            layers = [module for module in member.modules() if isinstance(module, Dropout)]
            for _ in range(max(1, self.dropout_passes)):
                for layer in layers:
                    layer.seed = next(seeds) if self.dropout_passes else None
                parts.append(member.encode(batch))
        return torch.cat(parts, dim=-1)


def build_model(config: Mapping[str, Any]) -> QFitLatent:
    """The untrained network of a whole configuration: one model, or the average of several."""
    settings = ModelConfig.from_dict(config["model"])
    train = config["train"]
    num_members = len(train.get("members", ()))
    if not num_members:
        return QFitLatent(settings)
    return AverageModel(settings, num_members, train.get("dropout_passes", 0))
