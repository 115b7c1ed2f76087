"""The settings of the network, and the memory that its training takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.model.attention import SAVE_PROBABILITIES_BELOW
from qfitlatent.model.features import PAIR_SETS, RESIDUE_SETS

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
    outputs: bool

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
        update = {"none": 0, "edge": 5, "triangle": 14}[config.pair_update] * config.d_z
        values = 0 if config.neighbours else config.d_z // 2
        features = sum(PAIR_SETS[name] for name in config.features if name in PAIR_SETS)
        per_pair = config.num_blocks * (3 * heads + update + values) + features + 3 * config.d_z
        floats += n * num_keys * per_pair
    else:
        kept = min(heads * n * n, SAVE_PROBABILITIES_BELOW)
        # Four bytes the distances, eight the bins, and sixteen what sums over them.
        floats += config.num_blocks * kept + 7 * n * n
    return 4 * floats
