"""Neighbours are those of the definition at any size, and their cost grows with the residues."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.proteins import copied_out, globule, make_protein
from qfitlatent.base import config as configuration
from qfitlatent.model import features, neighbours
from qfitlatent.model.batch import collate
from qfitlatent.model.checkpoint import load_model
from qfitlatent.model.geometry import Geometry
from qfitlatent.model.neighbours import NeighbourList, nearest
from qfitlatent.model.network import QFitLatent
from qfitlatent.model.settings import ModelConfig

SETTINGS = {
    "d_s": 16,
    "d_z": 8,
    "num_blocks": 2,
    "num_heads": 2,
    "head_width": 4,
    "num_components": 3,
    "dropout": 0.0,
    "head": "autoregressive",
    "mean": "atan2",
    "head_hidden": 16,
    "features": ["torsions", "exposure", "distances", "directions"],
    "neighbours": 8,
}


def make_model():
    torch.manual_seed(0)
    model = QFitLatent(ModelConfig.from_dict(configuration.load()["model"] | SETTINGS))
    with torch.no_grad():
        for block in model.blocks:
            block.attention.output.weight.normal_(std=0.3)
    return model.eval()


@pytest.fixture
def small_blocks(monkeypatch):
    """What holds for large proteins, with small ones."""
    for module in (neighbours, features):
        monkeypatch.setattr(module, "ONE_BLOCK_UP_TO", 16)
        monkeypatch.setattr(module, "SEARCH_QUERIES", 50)
    monkeypatch.setattr(neighbours, "BLOCK_QUERIES", 32)


@pytest.mark.parametrize("far", [0.0, 500.0])
def test_cells_find_the_nearest(small_blocks, far):
    """Also residues far from all others, padding, and fewer residues than neighbours."""
    proteins = [globule(n, n) for n in (180, 90, 5)]
    batch = collate(proteins)
    x = batch.translation.double()
    x[0, :3] += far * torch.arange(3)[:, None]
    found = nearest(x / 10, batch.mask, 12).index
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    distance = distance.masked_fill(~batch.mask[:, None], torch.inf)
    expected = distance.topk(12, largest=False).values
    own = distance.gather(2, found)
    for b, protein in enumerate(proteins):
        n = len(protein)
        torch.testing.assert_close(own[b, :n].sort().values, expected[b, :n])
        assert torch.equal(found[b, :n, 0], torch.arange(n))
        assert all(len(set(row)) == 12 for row in found[b].tolist())


def test_exposure_by_cells_counts_as_all_pairs_do(small_blocks, monkeypatch):
    batch = collate([globule(150), globule(60, 1)])
    batch = replace(batch, rotation=batch.rotation.double(), translation=batch.translation.double())
    config = make_model().config
    by_cells = Geometry(config, batch).residue_features[batch.mask]
    for size in (16, 1000):  # in blocks of rows, as where there are no cells, and at once
        monkeypatch.setattr(features, "by_cells", lambda x: False)
        monkeypatch.setattr(features, "ONE_BLOCK_UP_TO", size)
        torch.testing.assert_close(Geometry(config, batch).residue_features[batch.mask], by_cells)
    assert by_cells[:, -6:].sum() > 100


def test_large_proteins_have_the_densities_of_small_ones(monkeypatch):
    """The same protein, once as one block and once as many; pairs in one part and in many."""
    model, protein = make_model(), globule(150)
    whole = model.predict(protein).s
    for module in (neighbours, features):
        monkeypatch.setattr(module, "ONE_BLOCK_UP_TO", 16)
    monkeypatch.setattr(neighbours, "BLOCK_QUERIES", 32)
    monkeypatch.setattr("qfitlatent.model.pair.ROWS_AT_A_TIME", 40)
    torch.testing.assert_close(model.predict(protein).s, whole, atol=1e-5, rtol=1e-5)


class Counted(TorchDispatchMode):
    """Numbers written by all operations, the largest tensor of one, and how many there are."""

    def __init__(self):
        super().__init__()
        self.written = self.largest = self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            sizes = [x.numel() for x in torch.utils._pytree.tree_leaves(out) if torch.is_tensor(x)]
            self.written += sum(sizes)
            self.largest = max([self.largest, *sizes])
            self.calls += 1
        return out


def test_work_and_memory_grow_with_the_number_of_residues():
    model = make_model()
    counts = []
    for num in (1200, 2400):
        batch = collate([copied_out(globule(150), num // 150)])
        with torch.inference_mode(), Counted() as counted:
            model.encode(batch)
        counts.append(counted)
        # The radial basis of a part of the residues is the largest; no tensor has N x N numbers.
        assert counted.largest <= min(num, 2048) * 8 * 256
    assert counts[1].written < 2.1 * counts[0].written


def test_an_inference_writes_no_more_numbers_than_it_has_to():
    """The model that ships: 8.9 million numbers by 457 operations, as many for any length."""
    model = load_model().model
    counts = []
    for num in (100, 200):
        batch = collate([make_protein(num)])
        with torch.inference_mode(), Counted() as counted:
            model.encode(batch)
        counts.append(counted)
    assert counts[0].calls == counts[1].calls <= 460
    assert counts[0].written < 9.0e6


def test_a_training_step_writes_no_more_numbers_than_it_has_to():
    """The shipped recipe: 57.0 million numbers by 892 operations when the step was made fast.

    It took 93.8 million by 902 before.
    """
    recipe = SETTINGS | {"d_s": 128, "d_z": 32, "num_blocks": 6, "num_heads": 4, "head_width": 16}
    recipe |= {"num_value_points": 4, "num_components": 12, "head_hidden": 256, "neighbours": 24}
    model = QFitLatent(ModelConfig.from_dict(configuration.load()["model"] | recipe))
    batch = collate([globule(320)])
    with Counted() as counted:
        s = model.encode(batch)
        s.sum().backward()
    assert counted.written < 60e6
    assert counted.calls < 940


def test_no_layer_waits_for_the_device(monkeypatch):
    """On the meta device tensors have no values: whatever asks for one there raises."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta
    model, batch = make_model(), collate([globule(40)])
    geometry = Geometry(model.config, batch)
    with torch.no_grad():
        s = model.embedding(batch.token)
        pairs = model.pairs(s, geometry)
        moved = [
            replace(
                pair,
                neighbours=NeighbourList(pair.neighbours.index.to("meta")),
                mask=pair.mask.to("meta"),
                bias=pair.bias.to("meta"),
            )
            for pair in pairs
        ]
        inputs = (x.to("meta") for x in (batch.rotation, geometry.x))
        out = model.to("meta").through_blocks(s.to("meta"), moved, *inputs)
    assert out.device.type == "meta"
    assert out.shape == s.shape
