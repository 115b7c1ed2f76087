"""What the model says beside its density (SPEC 11)."""

import math

import pytest
import torch

from helpers.proteins import make_protein
from qfitlatent.base import config as configuration
from qfitlatent.chemistry.residues import CHI_DEFINED
from qfitlatent.model.average import AverageModel
from qfitlatent.model.batch import collate
from qfitlatent.model.checkpoint import load_model, save_model
from qfitlatent.model.network import QFitLatent
from qfitlatent.model.outputs import Outputs, average_outputs
from qfitlatent.model.settings import ModelConfig

SMALL = {"d_s": 16, "d_z": 4, "num_blocks": 1, "head": "autoregressive", "mean": "atan2"}


def settings(**changes) -> dict:
    return configuration.load({"model": SMALL | changes})


def network(seed: int = 0, **changes) -> QFitLatent:
    torch.manual_seed(seed)
    return QFitLatent(ModelConfig.from_dict(settings(**changes)["model"])).eval()


def said(model, protein) -> Outputs | None:
    batch = collate([protein])
    with torch.no_grad():
        return model.outputs(model.encode(batch), batch.token[batch.mask])


def test_without_the_option_nothing_is_said_and_the_weights_are_the_same():
    plain, with_outputs = network(), network(outputs=True)
    assert said(plain, make_protein(20)) is None
    others = with_outputs.state_dict()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, others.pop(name))
    assert {name.split(".")[0] for name in others} == {"output_head"}


def test_residues_without_chi_are_never_heterogeneous():
    protein = make_protein(60)
    outputs = said(network(outputs=True), protein)
    has_chi = torch.from_numpy(CHI_DEFINED.any(1))[protein.token]
    assert 0 < has_chi.sum() < 60
    assert (outputs.p_heterogeneous[~has_chi] == 0).all()
    assert torch.equal(outputs.b_rank_mean.isnan(), ~has_chi)
    assert torch.equal(outputs.b_rank_spread.isnan(), ~has_chi)
    p = outputs.p_heterogeneous[has_chi]
    assert ((p > 0.03) & (p < 0.07)).all()  # one in twenty, before anything is learnt


def test_outputs_are_written_and_read_with_the_model(tmp_path):
    model, protein = network(outputs=True), make_protein(20)
    save_model(model, settings(outputs=True), tmp_path / "model.safetensors")
    expected, again = said(model, protein), said(load_model(tmp_path).model, protein)
    assert torch.equal(expected.heterogeneous_logit, again.heterogeneous_logit)


def test_a_model_older_than_a_key_has_its_default(tmp_path):
    config = settings()
    model = network()
    del config["model"]["outputs"]
    save_model(model, config, tmp_path / "model.safetensors")
    assert load_model(tmp_path).config["model"]["outputs"] is False


@pytest.mark.parametrize("passes", [0, 2])
def test_an_average_says_the_mean_of_its_members(passes):
    config = ModelConfig.from_dict(settings(outputs=True)["model"])
    average, protein = AverageModel(config, 2, passes).eval(), make_protein(20)
    members = [network(seed, outputs=True) for seed in (1, 2)]
    for own, member in zip(average.members, members, strict=True):
        own.load_state_dict(member.state_dict())
    if not passes:
        expected = sum(said(m, protein).p_heterogeneous for m in members) / 2
        torch.testing.assert_close(said(average, protein).p_heterogeneous, expected)
    assert said(average, protein).b_rank_mean.shape == (20,)
    without = AverageModel(ModelConfig.from_dict(settings()["model"]), 2, passes)
    assert said(without.eval(), protein) is None


def test_the_average_of_b_ranks_is_that_of_their_densities():
    def one(mean, spread):
        return Outputs(torch.zeros(1), torch.tensor([mean]), torch.tensor([spread]))

    mixed = average_outputs([one(0.2, 0.1), one(0.6, 0.2)])
    assert float(mixed.b_rank_mean) == pytest.approx(0.4)
    second = (0.2**2 + 0.1**2 + 0.6**2 + 0.2**2) / 2
    assert float(mixed.b_rank_spread) == pytest.approx(math.sqrt(second - 0.4**2))


def test_losses_are_known_by_hand_and_leave_out_what_is_not_known():
    nan, logit = torch.nan, math.log(0.2 / 0.8)
    outputs = Outputs(
        torch.tensor([logit, logit, logit, -torch.inf]),
        torch.tensor([0.5, 0.5, 0.5, nan]),
        torch.tensor([0.1, 0.1, 0.1, nan]),
    )
    loss, num = outputs.heterogeneous_nll(torch.tensor([1.0, 0.0, nan, 0.0]))
    assert int(num) == 2
    assert float(loss) == pytest.approx(-math.log(0.2) - math.log(0.8), abs=1e-6)
    loss, num = outputs.b_rank_nll(torch.tensor([0.5, 0.6, nan, 0.1]))
    assert int(num) == 2
    expected = 2 * math.log(0.1 * math.sqrt(2 * math.pi)) + 0.5
    assert float(loss) == pytest.approx(expected, abs=1e-5)
