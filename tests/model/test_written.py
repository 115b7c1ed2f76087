"""The mixture that is written, of the model that ships: what it loses, and what it takes."""

from importlib.resources import files

import pytest
import torch

from qfitlatent.density.autoregressive import AutoregressiveDensity
from qfitlatent.model.checkpoint import load_model
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.prediction.records import read_input

POINTS = 128


@pytest.fixture(scope="module")
def density() -> AutoregressiveDensity:
    """Of the residues with chi of the example that ships."""
    protein = protein_from_tables(read_input(files("qfitlatent") / "data/example.cif.gz").tables)
    found = load_model().model.predict(protein)
    return found.select(torch.nonzero(found.chi_mask.any(1))[:, 0])


def test_the_written_mixture_loses_little_of_the_density(density):
    mixture, points = density.as_mixture(), density.points(POINTS)
    divergence = (points.log_prob - mixture.sample_log_prob(points.chi)).mean(0)
    num_chi = density.chi_mask.sum(1)
    assert float(divergence.mean()) < 0.04
    for num, most in ((1, 0.002), (2, 0.02), (3, 0.06), (4, 0.15)):
        assert float(divergence[num_chi == num].mean()) < most


def test_the_written_mixture_takes_few_steps_and_components(density, monkeypatch):
    rows, step = [], density.head.step

    def counted(d, residue, *given):
        rows.append(len(residue))
        return step(d, residue, *given)

    monkeypatch.setattr(density.head, "step", counted)
    mixture = density.as_mixture()
    assert sum(rows) / len(density) < 150
    assert float((mixture.log_weight > -torch.inf).sum(1).float().mean()) < 200
    torch.testing.assert_close(mixture.log_weight.exp().sum(1), torch.ones(len(density)))
