"""One residue of another type: the region around it against the whole network."""

from dataclasses import replace

import pytest
import torch

from helpers.proteins import globule
from qfitlatent.base import config as configuration
from qfitlatent.model.average import AverageModel
from qfitlatent.model.batch import collate
from qfitlatent.model.network import QFitLatent
from qfitlatent.model.settings import ModelConfig
from qfitlatent.model.variants import Variants

SETTINGS = {
    **configuration.load()["model"],
    "num_blocks": 3,
    "d_s": 32,
    "head": "autoregressive",
    "head_hidden": 16,
    "mean": "atan2",
    "features": ["torsions", "exposure", "distances", "directions"],
}
NUM, RESIDUE = 60, 17
TOKEN = torch.arange(20)


def random_weights(network):
    with torch.no_grad():  # layers that start at zero would hide a mistake
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
    return network.eval()


def make(neighbours=8, members=0):
    torch.manual_seed(0)
    config = ModelConfig.from_dict({**SETTINGS, "neighbours": neighbours})
    return random_weights(AverageModel(config, members, 0) if members else QFitLatent(config))


@pytest.fixture(scope="module")
def protein():
    return globule(NUM, seed=1)


def whole(network, protein, token):
    changed = protein.token.clone()
    changed[RESIDUE] = token
    with torch.inference_mode():
        return network.encode(collate([replace(protein, token=changed)]))


@pytest.mark.parametrize(("neighbours", "members"), [(8, 0), (8, 2), (0, 0)])
def test_a_region_of_all_residues_is_the_whole_network(protein, neighbours, members):
    network = make(neighbours, members)
    variants = Variants(network, protein, NUM)
    found, region = variants.encode(RESIDUE, TOKEN), variants.region(RESIDUE)
    for token, s in zip(TOKEN.tolist(), found, strict=True):
        torch.testing.assert_close(s, whole(network, protein, token)[region], atol=1e-4, rtol=1e-4)
    assert (found[0] - found[1]).abs().max() > 1e-2


@pytest.mark.parametrize("size", [1, 5, 30])
def test_the_native_type_changes_nothing(protein, size):
    network = make()
    variants = Variants(network, protein, size)
    (s,) = variants.encode(RESIDUE, protein.token[RESIDUE : RESIDUE + 1])
    native = whole(network, protein, protein.token[RESIDUE])
    torch.testing.assert_close(s, native[variants.region(RESIDUE)], atol=1e-4, rtol=1e-4)


def test_a_larger_region_is_nearer_to_the_whole(protein):
    network = make()
    errors = []
    for size in (1, 4, 8):
        variants = Variants(network, protein, size)
        first = variants.encode(RESIDUE, TOKEN)[:, 0]
        exact = torch.stack([whole(network, protein, t)[RESIDUE] for t in TOKEN.tolist()])
        errors.append((first - exact).abs().mean().item())
    assert errors[0] > errors[1] > errors[2]


def test_types_are_independent_of_their_order_and_of_the_frame(protein):
    network = make()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    found = Variants(network, protein, 16).encode(RESIDUE, TOKEN)
    other = Variants(network, protein, 16).encode(RESIDUE, order)
    torch.testing.assert_close(other, found[order], atol=1e-5, rtol=1e-5)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))
    turn = turn * turn.det()
    moved = replace(
        protein,
        rotation=turn @ protein.rotation,
        translation=protein.translation @ turn.T + 20.0,
    )
    turned = Variants(network, moved, 16).encode(RESIDUE, TOKEN)
    torch.testing.assert_close(turned, found, atol=1e-3, rtol=1e-3)
