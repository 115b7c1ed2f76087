"""Reasons in words: every one of the vocabulary has them."""

import pytest

from qfitlatent.pages.reasons import explain, reason_help, reason_table
from qfitlatent.tables.reasons import Reason


def test_the_words_are_those_of_the_vocabulary():
    assert set(reason_help()) == set(Reason)
    assert len(reason_table().splitlines()) == len(Reason) + 2


@pytest.mark.parametrize("reason", Reason)
def test_a_rejected_row_in_words(reason):
    meaning, what_to_do = reason_help()[reason]
    assert meaning.endswith(".")
    assert what_to_do.endswith(".")
    text = explain({"reason": str(reason), "detail": "in line 7"})
    assert text == f"{meaning[:-1]} (in line 7). {what_to_do}"
    assert explain({"reason": str(reason), "detail": ""}) == f"{meaning} {what_to_do}"
