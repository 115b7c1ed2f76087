"""Which residue of one structure is which of another, by sequence; names and numbers do not count.

Shapes: N and M residues of two structures, P pairs.
"""

from collections.abc import Sequence
from functools import cache
from itertools import groupby

import gemmi
import numpy as np

from qfitlatent.chemistry.residues import RESIDUE_TYPES, UNKNOWN_TOKEN

MIN_IDENTITY = 0.3
"""Of the shorter chain: below it two chains are not taken for the same protein."""

_NAMES = (*RESIDUE_TYPES, "UNK")


def matched(
    chain: tuple[Sequence[str], Sequence[str]], token: tuple[Sequence[int], Sequence[int]]
) -> np.ndarray:
    """(P,2) rows of the residues of two structures that stand beside each other.

    chain: the chain of each residue of both, (N,) and (M,), those of a chain together; token: their
    types. Chains are matched by identity, the most alike first, of equal ones in their order; each
    finds one partner at most, and none where the identity is below ``MIN_IDENTITY``. Pairs may
    differ in type.
    """
    first, second = (_chains(*of) for of in zip(chain, token, strict=True))
    candidates = []
    for i, (rows, one) in enumerate(first):
        for j, (others, two) in enumerate(second):
            pairs = aligned(one, two)
            same = sum(one[a] == two[b] != UNKNOWN_TOKEN for a, b in pairs)
            if same >= MIN_IDENTITY * min(len(one), len(two)):
                identity = same / max(len(one), len(two))
                candidates.append((-identity, abs(i - j), i + j, i, rows, j, others, pairs))
    found: list[tuple[int, int]] = []
    taken: tuple[set[int], set[int]] = (set(), set())
    for *_, i, rows, j, others, pairs in sorted(candidates, key=lambda c: c[:3]):
        if i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
            found += [(rows + a, others + b) for a, b in pairs]
    return np.array(sorted(found), dtype=np.int64).reshape(-1, 2)


def _chains(chain: Sequence[str], token: Sequence[int]) -> list[tuple[int, tuple[int, ...]]]:
    """First row and types of each chain."""
    found, start = [], 0
    for _, run in groupby(chain):
        stop = start + len(list(run))
        found.append((start, tuple(token[start:stop])))
        start = stop
    return found


def aligned(one: tuple[int, ...], two: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Places of two sequences of tokens that a global alignment puts beside each other.

    The order of the two does not matter.
    """
    if one == two:
        return tuple((i, i) for i in range(len(one)))
    if two < one:
        return tuple((i, j) for j, i in _global(two, one))
    return _global(one, two)


@cache
def _global(one: tuple[int, ...], two: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    a, b = ([_NAMES[token] for token in tokens] for tokens in (one, two))
    result = gemmi.align_string_sequences(a, b, [], gemmi.AlignmentScoring("b"))
    i = j = 0
    pairs = []
    gapped = zip(result.add_gaps("x" * len(a), 1), result.add_gaps("x" * len(b), 2), strict=True)
    for left, right in gapped:
        if left == right == "x":
            pairs.append((i, j))
        i, j = i + (left == "x"), j + (right == "x")
    return tuple(pairs)
