"""The model: invariance, batches without leaks, every option, and densities that integrate."""

import math
from dataclasses import replace

import pytest
import torch

from helpers.proteins import make_protein
from qfitlatent.base import config as configuration
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.density import paths
from qfitlatent.density.autoregressive import AutoregressiveDensity
from qfitlatent.density.loss import nll_sum
from qfitlatent.density.reduction import NUM_CELLS
from qfitlatent.model.average import AverageHead
from qfitlatent.model.batch import collate
from qfitlatent.model.network import QFitLatent
from qfitlatent.model.settings import ModelConfig

SPEC = configuration.load()["model"]
RICH = {
    **SPEC,
    "num_blocks": 2,
    "d_s": 32,
    "head": "autoregressive",
    "head_hidden": 16,
    "mean": "atan2",
    "features": ["torsions", "exposure", "distances", "directions"],
    "pair_values": True,
    "pair_update": "edge",
    "neighbours": 12,
}
VARIANTS = {
    "spec": SPEC,
    "atan2": {**SPEC, "num_blocks": 2, "mean": "atan2", "head_hidden": 16},
    "pair values": {**SPEC, "num_blocks": 2, "pair_values": True},
    "triangle": {**SPEC, "num_blocks": 2, "pair_update": "triangle"},
    "rich": RICH,
}


def make_model(settings, dtype=torch.float32) -> QFitLatent:
    torch.manual_seed(0)
    model = QFitLatent(ModelConfig.from_dict(settings))
    with torch.no_grad():  # layers that start at zero would hide a mistake
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model.to(dtype).eval()


def to_dtype(batch, dtype):
    return replace(
        batch,
        **{
            name: getattr(batch, name).to(dtype)
            for name in ("rotation", "translation", "torsion", "chi", "occupancy")
        },
    )


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 5e-4), (torch.float64, 1e-10)])
def test_rotation_and_shift_change_nothing(name, dtype, limit):
    model = make_model(VARIANTS[name], dtype)
    batch = to_dtype(collate([make_protein(60, num_chains=2)]), dtype)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turn = (turn * torch.linalg.det(turn)).to(dtype)
    moved = replace(
        batch,
        rotation=turn @ batch.rotation,
        translation=batch.translation @ turn.T
        + torch.tensor([1000.0, -1000.0, 1000.0], dtype=dtype) / math.sqrt(3),
    )
    with torch.no_grad():
        change = (model.encode(batch) - model.encode(moved)).abs().max()
    assert change < limit


@pytest.mark.parametrize("name", VARIANTS)
def test_proteins_of_a_batch_do_not_see_each_other(name):
    model = make_model(VARIANTS[name], torch.float64)
    proteins = [make_protein(n, seed=n) for n in (30, 17)]
    together = model.encode(to_dtype(collate(proteins), torch.float64))
    alone = [model.encode(to_dtype(collate([p]), torch.float64)) for p in proteins]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_learns(name):
    model = make_model(VARIANTS[name]).train()
    batch = collate([make_protein(40)])
    loss, _ = nll_sum(model(batch), batch.chi, batch.defined, batch.occupancy, batch.row_residue)
    loss.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # The last pair update has no attention after it.
    last = f"pair_updates.{model.config.num_blocks - 1}."
    assert [n for n in without if not n.startswith(last)] == []


def test_relative_positions_count_missing_residues_and_chains():
    model = make_model(SPEC, torch.float64)
    protein = make_protein(20)
    gap = replace(protein, position=protein.position + 5 * (torch.arange(20) >= 10))
    other_chain = replace(protein, chain=(torch.arange(20) >= 10).long())
    with torch.no_grad():
        base, with_gap, two = (
            model.encode(to_dtype(collate([p]), torch.float64)) for p in (protein, gap, other_chain)
        )
    assert (base - with_gap).abs().max() > 1e-6
    assert (base - two).abs().max() > 1e-6


def test_means_start_spread_over_the_circle():
    torch.manual_seed(0)
    for settings in (SPEC, VARIANTS["atan2"]):
        density = QFitLatent(ModelConfig.from_dict(settings)).predict(make_protein(10))
        gaps = density.mean[:, :, 0].sort(dim=1).values.diff(dim=1)
        assert gaps.min() > 0.4


def test_the_mixture_of_a_one_chi_residue_is_near_its_density():
    density = make_model(RICH).predict(make_protein(40))
    one = torch.nonzero(density.chi_mask.sum(1) == 1)[:, 0]
    num = 180
    axis = (torch.arange(num) + 0.5) * 2 * math.pi / num - math.pi
    chi = axis.repeat_interleave(len(one))[:, None].expand(-1, 4).contiguous()
    every, rows = torch.ones_like(chi, dtype=torch.bool), one.repeat(num)
    exact = density.log_prob(chi, every, rows).view(num, -1)
    near = density.as_mixture().log_prob(chi, every, rows).view(num, -1)
    divergence = (exact.exp() * (exact - near)).sum(0) * 2 * math.pi / num
    assert divergence.max() < 0.02


def test_the_mixture_keeps_all_weight_however_few_components_it_may_have(monkeypatch):
    density = make_model(RICH).predict(make_protein(40))
    long = density.select(torch.nonzero(density.chi_mask.sum(1) == 4)[:, 0])
    wide = long.as_mixture()
    monkeypatch.setattr(paths, "SIZES", (2, 4, 6, 8))
    narrow = long.as_mixture()
    for mixture in (wide, narrow):
        torch.testing.assert_close(mixture.log_weight.exp().sum(1), torch.ones(len(long)))
        flat = (mixture.kappa == 0).all(-1) & mixture.log_weight.isfinite()
        assert flat.sum(1).tolist() == [1] * len(long)
        mass = mixture.modes(0.0, math.radians(30)).weight.sum(1)
        torch.testing.assert_close(mass, torch.full_like(mass, 1.0 - paths.FLAT), atol=1e-5, rtol=0)
    assert wide.num_components > narrow.num_components
    # Eight, one for each rotamer of four chi, and the flat one.
    assert narrow.num_components <= 8 + NUM_CELLS**4 + 1


def test_a_model_averaged_with_itself_has_its_own_mixture():
    model = make_model(RICH)
    protein = make_protein(40)
    own = model.predict(protein)
    twice = AutoregressiveDensity(
        AverageHead([model.head, model.head]),
        own.s.repeat(1, 2),
        own.chi_mask,
        own.symmetric,
    )
    chi = torch.rand(40, 4) * 2 * math.pi - math.pi
    every = torch.ones_like(chi, dtype=torch.bool)
    off = twice.as_mixture().log_prob(chi, every) - own.as_mixture().log_prob(chi, every)
    # A path between two others may join either by the last digit of its place.
    assert float(off.abs().mean()) < 0.01
    assert float(off.abs().max()) < 0.2


def test_settings_that_contradict_each_other_are_refused():
    for changes, word in (
        ({"features": ["direction"]}, "direction"),
        ({"pair_update": "triangle", "neighbours": 8}, "triangle"),
        ({"head": "autoregressive"}, "atan2"),
    ):
        with pytest.raises(QfitLatentError, match=word):
            ModelConfig.from_dict({**SPEC, **changes})
    with pytest.raises(QfitLatentError, match="d_q"):
        ModelConfig.from_dict({**SPEC, "d_q": 1})
