"""Figures from few points against those from very many, on densities of the shipped model."""

import math
from dataclasses import replace

import pytest
import torch

from qfitlatent.chemistry.residues import NUM_CHI
from qfitlatent.density import autoregressive, mixture
from qfitlatent.density.regions import differ_beyond, hdr_level
from qfitlatent.density.von_mises import circular_distance
from qfitlatent.model.checkpoint import load_model
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.prediction.commands import EXAMPLE
from qfitlatent.prediction.records import read_input

NEAR = 0.005
"""Nats, radians or probability: the mean over residues of what few points may be off."""

EACH = 72
"""Residues of each number of chi."""


@pytest.fixture(scope="module")
def densities():
    """By name: what the model says of the example, its residue types turned so that each has a
    share, and that as a mixture. Residues have one, two, three and four chi, EACH of them."""
    protein = protein_from_tables(read_input(EXAMPLE).tables)
    model = load_model().model
    types = torch.from_numpy(NUM_CHI).nonzero()[:, 0]
    turned = [
        replace(protein, token=types[(torch.arange(len(protein)) + shift) % len(types)])
        for shift in range(len(types))
    ]
    several = [model.predict(one) for one in turned]
    parts = []
    for num in range(1, 5):
        found = [(d, i) for d in several for i in (d.chi_mask.sum(1) == num).nonzero()[:, 0]]
        parts += found[:: len(found) // EACH][:EACH]
    s = torch.stack([d.s[i] for d, i in parts])
    mask, symmetric = (
        torch.stack([getattr(d, n)[i] for d, i in parts]) for n in ("chi_mask", "symmetric")
    )
    density = replace(several[0], s=s, chi_mask=mask, symmetric=symmetric)
    return {"chi by chi": density, "as a mixture": density.as_mixture()}


@pytest.mark.parametrize("name", ["chi by chi", "as a mixture"])
def test_few_points_say_what_many_say(densities, name, monkeypatch):
    """For every number of chi: entropy, level, two draws that differ, distance to a conformer."""
    density = densities[name]
    num_chi = density.chi_mask.sum(1)
    rows, mask = torch.arange(len(density)), density.chi_mask
    chi = density.sample(1, torch.Generator().manual_seed(1))[0]

    def figures(points):
        square = circular_distance(points.chi, chi, density.symmetric).square() * mask
        return {
            "level": hdr_level(density, points, chi, mask, rows),
            "differ": differ_beyond(points, density, math.radians(40)),
            "distance": (square.sum(-1) / num_chi).sqrt().mean(0),
        }

    few = figures(density.points(512)) | {"entropy": density.entropy()}
    for module in (autoregressive, mixture):
        monkeypatch.setattr(module, "ENTROPY_POINTS", 2048)
    expected = figures(density.points(2048)) | {"entropy": density.entropy()}
    for figure, value in few.items():
        for num in range(1, 5):
            off = float((value - expected[figure])[num_chi == num].mean())
            assert abs(off) < NEAR, (figure, num, off)


class CountedHead:
    """A head, and how many rows each of its steps was asked for."""

    def __init__(self, head):
        self.head, self.rows = head, 0

    def __getattr__(self, name):
        return getattr(self.head, name)

    def step(self, d, residue, chi, known):
        self.rows += len(residue)
        return self.head.step(d, residue, chi, known)


def test_the_head_runs_no_more_often_than_it_did(densities):
    """Counted in rows, of which the head's time is made; a regression test, not a target."""
    density = densities["chi by chi"]

    def rows(ask):
        counted = CountedHead(density.head)
        ask(replace(density, head=counted))
        return counted.rows

    # One row a residue for chi1, and one for each path to each chi after it.
    steps = {1: 1, 2: 1 + 64, 3: 1 + 2 * 128, 4: 1 + 128 + 2 * 256}
    assert rows(lambda d: d.entropy()) == EACH * sum(steps.values())
    steps = {1: 1, 2: 1 + 128, 3: 1 + 2 * 256, 4: 1 + 3 * 512}
    assert rows(lambda d: d.points(512)) == EACH * sum(steps.values())
    every = torch.ones(3 * len(density), 4, dtype=torch.bool)
    chi, of = torch.zeros(every.shape), torch.arange(len(density)).repeat(3)
    assert rows(lambda d: d.log_prob(chi, every, of)) == EACH * (4 + 3 * (1 + 2 + 3))
    assert rows(lambda d: d.as_mixture()) < len(density) * 180


def test_the_written_mixture_loses_little_of_the_density_and_keeps_its_mass(densities):
    density, written = densities["chi by chi"], densities["as a mixture"]
    torch.testing.assert_close(written.log_weight.exp().sum(1), torch.ones(len(density)))
    points = density.points(256)
    divergence = (points.log_prob - written.sample_log_prob(points.chi)).mean(0)
    num_chi = density.chi_mask.sum(1)
    num_rows = (written.log_weight > -torch.inf).sum(1).float()
    for num, most, most_rows in ((1, 0.002, 15), (2, 0.02, 110), (3, 0.06, 290), (4, 0.15, 510)):
        assert float(divergence[num_chi == num].mean()) < most, num
        assert float(num_rows[num_chi == num].mean()) < most_rows, num
