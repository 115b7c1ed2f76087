"""Training that starts from a trained model: which network, what of it stays, how far it moves.

Shapes: N residues with chi of a protein, S points of a density, D=4 chi.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.model.average import AverageModel
from qfitlatent.model.batch import Protein, collate
from qfitlatent.model.checkpoint import LoadedModel, load_model
from qfitlatent.model.network import DensityNetwork, QFitLatent

NUM_POINTS = 8
"""Of the initial density of each residue: enough for a mean over thousands of residues."""

MAX_PROTEINS = 24
"""Validation proteins on which the distance is measured."""


def initial_model(settings: Mapping[str, Any]) -> LoadedModel | None:
    """The model of ``train.initial_model`` as one network: of an average its member.

    settings: section ``train``. Raises QfitLatentError as ``load_model``, and for a member that
    there is not.
    """
    if settings["initial_model"] is None:
        return None
    loaded = load_model(settings["initial_model"])
    members: list[Any] = [loaded.model]
    if isinstance(loaded.model, AverageModel):
        members = list(loaded.model.members)
    number = settings["initial_member"]
    if number > len(members):
        raise QfitLatentError(
            f"train.initial_member is {number}, but {settings['initial_model']} has "
            f"{len(members)}: give 1 to {len(members)}."
        )
    network = cast("QFitLatent", members[number - 1]).float()
    return LoadedModel(network, loaded.config, loaded.path, loaded.about, loaded.learnt)


def with_initial_network(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration, its section ``model`` that of the model that training starts from."""
    start = initial_model(config["train"])
    return dict(config) if start is None else {**config, "model": dict(start.config["model"])}


def freeze(model: QFitLatent, num_blocks: int) -> list[nn.Parameter]:
    """What is trained when the embeddings and the first blocks keep their weights; 0 frees all.

    Raises QfitLatentError where there are not so many blocks.
    """
    if num_blocks > len(model.blocks):
        raise QfitLatentError(
            f"train.frozen_blocks is {num_blocks}, but the network has {len(model.blocks)} blocks."
        )
    if num_blocks:
        kept: list[nn.Module] = [model.embedding, model.pair, *model.blocks[:num_blocks]]
        if model.residue_features is not None:
            kept.append(model.residue_features)
        if model.pair_updates is not None:
            kept += model.pair_updates[:num_blocks]
        for module in kept:
            module.requires_grad_(False)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


class Distance:
    """How far a network has moved from the one it started from, nats per residue.

    The Kullback-Leibler divergence E[log p0 - log p] under the initial density p0, a mean over
    points of it that are chosen once. What the network forgets of its first training moves it,
    whether or not the new data show it.
    """

    def __init__(self, initial: DensityNetwork, proteins: Iterable[Protein]) -> None:
        network = copy.deepcopy(initial).eval()
        self.points: list[tuple[Protein, Tensor, Tensor]] = []  # (S,N,D) chi and (S,N) log p0
        with torch.no_grad():
            for protein, _ in zip(proteins, range(MAX_PROTEINS), strict=False):
                density = network.predict(protein)
                density = density.select(density.chi_mask.any(1))
                points = density.points(NUM_POINTS)
                self.points.append((protein, points.chi, points.log_prob))

    @torch.no_grad()
    def __call__(self, model: DensityNetwork, device: torch.device) -> float:
        """Of the network as it is now, on the device where it is."""
        total, num = 0.0, 0
        for protein, chi, log_initial in self.points:
            density = model(collate([protein]).to(device)).to("cpu")
            density = density.select(density.chi_mask.any(1))
            total += float((log_initial - density.sample_log_prob(chi)).sum())
            num += log_initial.numel()
        return total / max(num, 1)
