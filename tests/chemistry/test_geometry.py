"""Angles and frames: against gemmi, and what must hold for any input."""

import gemmi
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qfitlatent.chemistry import geometry

points = arrays(np.float64, (4, 3), elements=st.floats(-50, 50, width=32))


@given(st.floats(-1e4, 1e4))
def test_wrap_keeps_the_direction_within_the_half_open_circle(angle):
    wrapped = float(geometry.wrap(np.array(angle)))
    assert -np.pi < wrapped <= np.pi
    assert np.cos(wrapped - angle) == pytest.approx(1, abs=1e-12)


def test_wrap_at_the_seam():
    turned = geometry.wrap(np.array([np.pi, -np.pi, 3 * np.pi, np.nextafter(-np.pi, -4)]))
    np.testing.assert_allclose(turned, np.pi, rtol=1e-15)


@given(st.floats(-1e3, 1e3))
def test_fold_keeps_the_conformation_within_half_a_turn(angle):
    folded = float(geometry.fold(np.array(angle)))
    assert -np.pi / 2 < folded <= np.pi / 2 + 1e-12
    assert geometry.circular_distance(folded, angle, True) == pytest.approx(0, abs=1e-9)


def test_dihedral_agrees_with_gemmi():
    a, b, c, d = np.random.default_rng(1).normal(size=(4, 200, 3))
    ours = geometry.dihedral(a, b, c, d)
    theirs = [
        gemmi.calculate_dihedral(*(gemmi.Position(*p) for p in four))
        for four in zip(a, b, c, d, strict=True)
    ]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_dihedral_has_the_iupac_sign():
    """Clockwise is positive, looking along the central bond from b to c."""
    a, b, c = np.array([[1.0, 0, 0]]), np.zeros((1, 3)), np.array([[0, 0, 1.0]])
    for angle in (-3.0, -1.0, 0.5, 2.0, np.pi):
        d = c + np.array([[np.cos(angle), np.sin(angle), 0]])
        assert geometry.dihedral(a, b, c, d)[0] == pytest.approx(angle)


def test_dihedral_without_a_direction_is_nan():
    line = [np.array([[float(i), 0, 0]]) for i in range(4)]
    assert np.isnan(geometry.dihedral(*line))
    same = [np.zeros((1, 3))] * 4
    assert np.isnan(geometry.dihedral(*same))
    missing = [np.array([[np.nan] * 3]), *line[1:]]
    assert np.isnan(geometry.dihedral(*missing))


@given(points, st.integers(0, 2**32 - 1))
def test_frames_are_rotations_and_turn_with_the_atoms(atoms, seed):
    n, ca, c = atoms[:3, None]
    rotation, translation, ok = geometry.frames(n, ca, c)
    np.testing.assert_array_equal(translation, ca)
    if not ok[0]:
        assert np.isnan(rotation).all()
        return
    np.testing.assert_allclose(rotation[0].T @ rotation[0], np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation[0]) == pytest.approx(1)
    local_n, local_c = ((p - ca)[0] @ rotation[0] for p in (n, c))
    np.testing.assert_allclose(local_c[1:], 0, atol=1e-8 * np.linalg.norm(local_c))
    assert local_c[0] > 0
    assert local_n[1] > 0
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    turned, _, _ = geometry.frames(n @ turn.T, ca @ turn.T, c @ turn.T)
    np.testing.assert_allclose(turned[0], turn @ rotation[0], atol=1e-6)


def test_frames_that_do_not_exist():
    n, ca, c = np.array([[0.0, 0, 0], [0, 0, 0], [np.nan] * 3]), np.ones((3, 3)), np.zeros((3, 3))
    c[0], c[1] = [2, 2, 2], [1, 1, 1]  # on a line; CA and C coincide
    rotation, _, ok = geometry.frames(n, ca, c)
    assert not ok.any()
    assert np.isnan(rotation).all()


def test_virtual_cb_is_where_alanine_has_it():
    """L-alanine of the chemical component dictionary, ideal coordinates."""
    atoms = {
        "N": [-0.966, 0.493, 1.500],
        "CA": [0.257, 0.418, 0.692],
        "C": [-0.094, 0.017, -0.716],
        "CB": [1.204, -0.620, 1.296],
    }
    n, ca, c, cb = (np.array([atoms[name]]) for name in ("N", "CA", "C", "CB"))
    assert np.linalg.norm(geometry.virtual_cb(n, ca, c) - cb) < 0.12
