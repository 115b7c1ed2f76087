"""Cells find whom a comparison of all with all finds."""

import numpy as np
import pytest

from qfitlatent.chemistry import neighbours
from qfitlatent.chemistry.neighbours import pairs_within


@pytest.mark.parametrize("at_a_time", [1 << 18, 50])
@pytest.mark.parametrize("seed", range(4))
def test_equals_all_against_all(seed, at_a_time, monkeypatch):
    monkeypatch.setattr(neighbours, "PAIRS_AT_A_TIME", at_a_time)
    rng = np.random.default_rng(seed)
    a, b = rng.normal(scale=8.0, size=(60, 3)) + 1000, rng.normal(scale=8.0, size=(90, 3)) + 1000
    a[3] = np.nan
    radius = rng.uniform(1.0, 9.0)
    apart = np.linalg.norm(a[:, None] - b, axis=2)
    expected = np.nonzero(apart <= radius)
    for found, known in zip(pairs_within(a, b, radius), expected, strict=True):
        assert found.tolist() == known.tolist()


def test_nobody_is_near_nothing():
    there, nowhere = np.ones((2, 3)), np.full((1, 3), np.nan)
    for few in (there[:0], nowhere):
        assert [len(found) for found in pairs_within(few, there, 1.0)] == [0, 0]
