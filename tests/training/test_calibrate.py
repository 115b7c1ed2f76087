"""Calibration: regions cover what they say, probabilities are frequencies, weights stay."""

from dataclasses import replace

import pytest
import torch

from helpers.proteins import make_protein
from helpers.trainings import make_config, run, write_tables
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json
from qfitlatent.base.provenance import verify_run
from qfitlatent.density.width import Width
from qfitlatent.model.calibration import Calibration
from qfitlatent.model.checkpoint import load_model
from qfitlatent.model.network import QFitLatent
from qfitlatent.model.outputs import HETEROGENEOUS_LOGIT
from qfitlatent.model.settings import ModelConfig
from qfitlatent.training.calibrate import calibrate_run, fit_calibration

TRUE = Calibration(Width(1.5, 0.4, 0.04), 0.5, 0.7, 1.5)
KINDS = {
    "mixture": {},
    "chi by chi": {"head": "autoregressive", "mean": "atan2", "head_hidden": 16},
}


def model_of(kind: str, outputs: bool = True) -> QFitLatent:
    """Untrained, with components that differ between residues and log odds that spread."""
    torch.manual_seed(0)
    config = make_config(outputs=outputs, **KINDS[kind])
    model = QFitLatent(ModelConfig.from_dict(config["model"])).eval().requires_grad_(False)
    for parameter in model.head.parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape))
    if outputs:
        model.output_head.last.weight.mul_(100)
    return model


def proteins_of(model: QFitLatent, num: int = 4) -> list:
    """What the model, calibrated, expects to be observed: one altloc for each residue."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for seed in range(num):
        protein = make_protein(150, seed=seed)
        batch_density = model.predict(protein)
        rows = protein.row_residue.unique()
        chi = batch_density.select(rows).sample(1, generator)[0]
        p, mean, spread = said(model, protein)
        draw = torch.rand(len(protein), generator=generator)
        found.append(
            replace(
                protein,
                row_residue=rows,
                conformer_row=torch.arange(len(rows)),
                chi=chi,
                defined=batch_density.chi_mask[rows],
                occupancy=torch.ones(len(rows)),
                heterogeneous=(draw < p).float(),
                b_rank=torch.normal(mean.nan_to_num(), spread.nan_to_num(), generator=generator),
            )
        )
    return found


def said(model: QFitLatent, protein) -> tuple[torch.Tensor, ...]:
    from qfitlatent.model.batch import collate

    outputs = model.outputs(model.encode(collate([protein])), protein.token)
    return outputs.p_heterogeneous, outputs.b_rank_mean, outputs.b_rank_spread


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_is_too_sure_is_set_right(kind):
    """What was observed is drawn from the model under a calibration, which is found again."""
    model = model_of(kind)
    model.calibrate(TRUE)
    proteins = proteins_of(model)
    found, report = fit_calibration(model, proteins)
    before, after = (report["density"][when] for when in ("before", "after"))
    for level in (50, 80, 95):
        assert after[f"coverage_{level}"] == pytest.approx(level / 100, abs=0.03)
    assert before["coverage_50"] < 0.45
    assert after["nll"] < before["nll"] - 0.02
    assert found.heterogeneous_slope == pytest.approx(TRUE.heterogeneous_slope, rel=0.5)
    # Slope and offset make up for each other, except where the log odds are.
    usual, wanted = (
        c.heterogeneous_slope * HETEROGENEOUS_LOGIT + c.heterogeneous_offset for c in (found, TRUE)
    )
    assert usual == pytest.approx(wanted, abs=0.4)
    assert found.b_rank_spread_scale == pytest.approx(TRUE.b_rank_spread_scale, rel=0.1)
    assert report["outputs"]["after"]["b_rank_nll"] < report["outputs"]["before"]["b_rank_nll"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_calibrated_density_integrates_to_one(kind):
    model = model_of(kind, outputs=False)
    model.calibrate(TRUE)
    density = model.predict(make_protein(30))
    chi1 = torch.linspace(-torch.pi, torch.pi, 721)[:-1]
    at = torch.zeros(720, 4)
    at[:, 0] = chi1
    first = (torch.arange(4) < 1).expand(720, 4)
    for residue in torch.nonzero(density.chi_mask[:, 0])[:5, 0]:
        log_prob = density.log_prob(at, first, residue.expand(720))
        assert float(log_prob.exp().mean() * 2 * torch.pi) == pytest.approx(1.0, abs=1e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrated")
    write_tables(folder / "tables")
    return folder, run(folder, make_config(outputs=True, epochs=2))


def test_the_calibration_is_in_the_header_and_the_weights_stay(trained):
    folder, path = trained
    before = load_model(path).model
    report = calibrate_run(path, folder / "tables", folder / "split.parquet")
    after = load_model(path).model
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name])
    assert before.calibration is None
    assert after.calibration.to_dict() == report["calibration"]
    assert read_json(path / "calibration.json") == report
    assert verify_run(path) == []
    protein = make_protein(30)
    plain, wide = before.predict(protein), after.predict(protein)
    assert wide.num_components == plain.num_components + 1
    # Again, it starts from the model as it was trained.
    assert calibrate_run(path, folder / "tables", folder / "split.parquet") == report


@pytest.mark.parametrize(
    "record",
    [
        {"width": {"temperature": 0.0, "kappa_scale": 1.0, "flat": 0.1}},
        {"width": {"temperature": 1.0, "kappa_scale": 1.0, "flat": 1.0}},
        {"width": {"temperature": 1.0}},
        {"width": {"temperature": "1", "kappa_scale": 1.0, "flat": 0.1}},
        {"colour": "blue"},
    ],
)
def test_a_calibration_that_is_none_is_one_sentence(trained, tmp_path, record):
    from qfitlatent.model import checkpoint

    path = tmp_path / "model.safetensors"
    path.write_bytes((trained[1] / "model.safetensors").read_bytes())

    class Edited:
        def to_dict(self):
            return record

    checkpoint.write_calibration(path, Edited())
    with pytest.raises(QfitLatentError, match="header was changed"):
        load_model(path)
