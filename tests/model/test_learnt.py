"""What a model learnt from is known under any name, and nothing else is."""

import numpy as np
import pyarrow as pa

from qfitlatent.model.learnt import MIN_RESIDUES, Learnt


def residues(*chains):
    """A residues table of (entry, chain, tokens)."""
    rows = [(entry, chain, int(t)) for entry, chain, tokens in chains for t in tokens]
    entry, chain, token = zip(*rows, strict=True)
    return pa.table({"entry": entry, "chain": chain, "token": pa.array(token, pa.int8())})


def sequence(seed, length=40):
    return np.random.default_rng(seed).integers(0, 20, length)


def test_a_chain_is_known_by_name_and_by_sequence():
    learnt = Learnt.of(residues(("1abc", "A", sequence(0)), ("1abc", "B", sequence(1))))
    asked = residues(
        ("1abc", "A", sequence(5)),  # the name: deposited again with other residues missing
        ("copy", "X", sequence(1)),  # the sequence
        ("1abc", "C", sequence(2)),
        ("copy", "Y", sequence(1)[:-1]),
    )
    assert [bool(learnt.rows(asked)[n]) for n in (0, 40, 80, 120)] == [True, True, False, False]
    assert Learnt.from_dict(learnt.to_dict()) == learnt


def test_peptides_are_known_by_name_alone():
    peptide = sequence(3, MIN_RESIDUES - 1)
    learnt = Learnt.of(residues(("1abc", "P", peptide)))
    assert not learnt.sequences
    assert learnt.rows(residues(("1abc", "P", peptide))).all()
    assert not learnt.rows(residues(("2xyz", "P", peptide))).any()


def test_what_a_fine_tuned_model_learnt_before_counts():
    first = Learnt.of(residues(("a", "A", sequence(0))))
    second = Learnt.of(residues(("b", "A", sequence(1))))
    both = second | first
    assert both.rows(residues(("a", "A", sequence(0)), ("b", "A", sequence(1)))).all()
    assert (first | None) == first


def test_an_empty_table_has_no_known_rows():
    empty = residues(("a", "A", sequence(0))).slice(0, 0)
    assert Learnt.of(empty) == Learnt(frozenset(), frozenset())
    assert len(Learnt.of(residues(("a", "A", sequence(0)))).rows(empty)) == 0
