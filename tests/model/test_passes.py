"""Disagreement of passes: none where terms agree, all where they do not share a place."""

import math
from dataclasses import replace

import pytest
import torch

from helpers.predictions import TINY
from helpers.proteins import make_protein
from qfitlatent.base import config
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import NUM_CHI
from qfitlatent.density.autoregressive import AutoregressiveDensity
from qfitlatent.model.average import AverageModel
from qfitlatent.model.network import QFitLatent
from qfitlatent.model.passes import Passes
from qfitlatent.model.settings import ModelConfig


def network(seed=0, **model):
    settings = config.load([{"model": TINY | {"head": "autoregressive", "mean": "atan2"} | model}])
    torch.manual_seed(seed)
    return QFitLatent(ModelConfig.from_dict(settings["model"])).eval()


class Apart:
    """A head whose terms have chi of their own: term m at 2 pi m / terms, or all at the first."""

    kappa_min = 0.01

    def __init__(self, places, kappa=1e4):
        self.places, self.kappa = places, kappa

    def residue(self, s):
        return s.new_zeros((len(s), 4))

    def step(self, d, residue, chi, known):
        mean = torch.tensor(self.places).expand(len(residue), -1)
        num = len(self.places)
        return torch.full_like(mean, -math.log(num)), mean, torch.full_like(mean, self.kappa)


@pytest.mark.parametrize("num_chi", [1, 2])
def test_disagreement_is_none_of_equal_terms_and_log_terms_of_separate_ones(num_chi):
    mask = torch.arange(4)[None] < num_chi
    for places, per_chi in (
        ([0.5] * 4, 0.0),
        ([-2.0, -0.5, 1.0, 2.5], math.log(4)),
        ([-2.0, -2.0, 1.0, 1.0], math.log(2)),
    ):
        density = AutoregressiveDensity(
            Apart(places), torch.zeros(1, 4), mask, torch.zeros(1, 4, dtype=torch.bool)
        )
        found = density.disagreement(4)
        assert found.item() == pytest.approx(num_chi * per_chi, abs=1e-3)


def test_passes_of_a_network_are_reproducible_and_turning_changes_nothing():
    protein = make_protein(40, 1)
    model = network(dropout=0.5)
    passes = Passes(model, 4)
    found = passes.disagreement(protein)
    has_chi = torch.from_numpy(NUM_CHI)[protein.token] > 0
    assert (found[has_chi] > 0).all()
    assert (found[~has_chi] == 0).all()
    assert (found <= 4 * math.log(4)).all()
    assert torch.equal(passes.disagreement(protein), found)
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    turned = replace(
        protein, rotation=turn @ protein.rotation, translation=protein.translation @ turn.T + 50.0
    )
    torch.testing.assert_close(passes.disagreement(turned), found, atol=1e-4, rtol=1e-2)
    # The network itself is as it was.
    assert model.predict(protein).head is model.head


def test_members_of_an_average_disagree_without_passes_and_copies_do_not():
    protein = make_protein(20, 2)
    for seeds, agree in (((0, 0), True), ((0, 1), False)):
        members = [network(seed) for seed in seeds]
        average = AverageModel(members[0].config, 2, 0)
        for own, member in zip(average.members, members, strict=True):
            own.load_state_dict(member.state_dict())
        found = Passes(average.eval(), 7).disagreement(protein)
        assert (found.max() < 1e-6) == agree


@pytest.mark.parametrize(
    ("model", "num", "said"),
    [
        ({"dropout": 0.0}, 8, "without dropout"),
        ({"head": "mixture", "mean": "tanh"}, 8, "model.head: mixture"),
        ({}, 1, "one pass cannot disagree"),
    ],
)
def test_what_cannot_disagree_is_refused(model, num, said):
    with pytest.raises(QfitLatentError, match=said):
        Passes(network(**model), num)
