"""Residues that are the same, whatever they are called."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qfitlatent.questions.alignment import aligned, matched

RNG = np.random.default_rng(0)
ONE, OTHER = (tuple(RNG.integers(0, 20, 40).tolist()) for _ in range(2))


def pairs_of(first, second):
    """first, second: chains, each a name and its types."""
    chain = tuple([name for name, types in of for _ in types] for of in (first, second))
    token = tuple([t for _, types in of for t in types] for of in (first, second))
    return matched(chain, token).tolist()


def test_chains_are_found_by_sequence_whatever_their_names_and_order():
    same = [[i, i] for i in range(80)]
    assert pairs_of([("A", ONE), ("B", OTHER)], [("A", ONE), ("B", OTHER)]) == same
    turned = pairs_of([("A", ONE), ("B", OTHER)], [("A", OTHER), ("X", ONE)])
    assert turned == [[i, (i + 40) % 80] for i in range(80)]


def test_copies_are_matched_in_their_order_and_each_once():
    assert pairs_of([("A", ONE), ("B", ONE)], [("C", ONE), ("D", ONE)]) == [
        [i, i] for i in range(80)
    ]
    assert pairs_of([("A", ONE), ("B", ONE)], [("C", ONE)]) == [[i, i] for i in range(40)]


def test_other_proteins_have_no_pairs():
    assert pairs_of([("A", ONE)], [("A", OTHER)]) == []


@given(st.integers(5, 30), st.integers(1, 8), st.integers(0, 19))
def test_what_is_missing_or_mutated_moves_nothing_else(start, length, kind):
    gapped = ONE[:start] + ONE[start + length :]
    there = dict(aligned(ONE, gapped))
    kept = [i for i in range(40) if not start <= i < start + length]
    right = sum(there.get(i) == (i if i < start else i - length) for i in kept)
    assert right >= len(kept) - 2  # next to a gap the same type may stand on both sides
    mutated = (*ONE[:start], kind, *ONE[start + 1 :])
    assert aligned(ONE, mutated) == tuple((i, i) for i in range(40))


@pytest.mark.parametrize("cut", [(0, 30), (7, 40), (3, 20)])
def test_the_order_of_the_two_does_not_matter(cut):
    part = (*ONE[slice(*cut)], 4, 5)
    assert sorted((j, i) for i, j in aligned(part, ONE)) == list(aligned(ONE, part))
