"""Rotamer wells: every side chain is in one, whichever way it is turned or named."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qfitlatent.chemistry.names import rotamer_name
from qfitlatent.chemistry.residues import NUM_CHI, PI_SYMMETRIC, RESIDUE_TYPES, TOKEN
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.questions.wells import (
    NUM_BINS,
    NUM_WELLS,
    WELL_NAMES,
    circular_wasserstein,
    histograms,
    predicted_wells,
    shannon,
    wells_of,
)

TYPES = np.arange(len(RESIDUE_TYPES))
angles = st.lists(st.floats(-math.pi, math.pi), min_size=4, max_size=4)


@given(angles)
def test_every_side_chain_is_in_a_well_of_its_type(chi):
    well = wells_of(TYPES, np.tile(chi, (len(TYPES), 1)))
    for token in TYPES:
        assert 0 <= well[token] < max(1, len(WELL_NAMES[token]))
    assert max(map(len, WELL_NAMES)) == NUM_WELLS


@given(angles)
def test_half_a_turn_of_a_symmetric_chi_changes_nothing(chi):
    chi = np.round(np.tile(chi, (len(TYPES), 1)), 4)
    turned = chi + math.pi * PI_SYMMETRIC[TYPES]
    edge = np.abs(np.remainder(np.degrees(chi[:, 1]) + 45, 90)) < 0.01
    assert (wells_of(TYPES, chi) == wells_of(TYPES, turned))[~edge].all()
    assert np.array_equal(wells_of(TYPES, chi), wells_of(TYPES, chi + 2 * math.pi)) or edge.any()


@pytest.mark.parametrize("name", ["LEU", "LYS", "VAL", "SER", "MET"])
def test_names_of_tetrahedral_wells_are_those_of_rotamers(name):
    token = TOKEN[name]
    for first in (60, 180, -60):
        for second in (60, 180, -60):
            chi = np.radians([[first + 20, second - 20, 0, 0]])
            found = WELL_NAMES[token][wells_of(np.array([token]), chi)[0]]
            assert found == rotamer_name(token, chi[0])[: min(2, NUM_CHI[token])]


def test_planar_wells_have_their_values_in_the_middle():
    for name, second, expected in (
        ("PHE", -95, "m90"), ("PHE", 85, "m90"), ("ASP", 170, "m0"), ("ASN", -170, "m180"),
        ("HIS", -80, "m-90"), ("TRP", 100, "m90"),
    ):  # fmt: skip
        token = np.array([TOKEN[name]])
        chi = np.radians([[-65, second, 0, 0]])
        assert WELL_NAMES[token[0]][wells_of(token, chi)[0]] == expected


def test_shares_sum_to_one_and_are_those_of_the_density():
    token = np.array([TOKEN["LEU"], TOKEN["PHE"], TOKEN["GLY"]])
    mixture = VonMisesMixture(
        log_weight=torch.tensor([[0.75, 0.25]] * 3).log(),
        mean=torch.tensor([[[-1.1, 3.1, 0, 0], [3.0, 1.1, 0, 0]]] * 3),
        kappa=torch.full((3, 2, 4), 60.0),
        chi_mask=torch.tensor([[True, True, False, False]] * 2 + [[False] * 4]),
        symmetric=torch.from_numpy(PI_SYMMETRIC[token]),
    )
    chi = mixture.points(512).chi.numpy()
    wells = predicted_wells(token, chi)
    assert wells.sum(1) == pytest.approx(1.0)
    assert histograms(token, chi).sum(-1) == pytest.approx(1.0)
    assert wells[0, WELL_NAMES[token[0]].index("mt")] == pytest.approx(0.75, abs=0.01)
    assert shannon(wells)[0] == pytest.approx(0.562, abs=0.03)


@given(st.integers(0, NUM_BINS - 1), st.integers(0, NUM_BINS - 1))
def test_the_distance_on_the_circle_is_how_far_the_mass_moves(start, end):
    one, two = np.zeros((2, 1, 4, NUM_BINS))
    one[..., start] = two[..., end] = 1.0
    steps = min(abs(start - end), NUM_BINS - abs(start - end))
    for name, width in (("LEU", 5.0), ("PHE", 2.5)):
        token = np.array([TOKEN[name]])
        there, back = circular_wasserstein(token, one, two), circular_wasserstein(token, two, one)
        assert there[0, 1] == pytest.approx(steps * width)
        assert there == pytest.approx(back, nan_ok=True)
        assert np.isnan(there[0, 2:]).all()
