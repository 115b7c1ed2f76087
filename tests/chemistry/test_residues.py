"""The table of residues: what its columns say of each other, and of residues beside the twenty."""

import gemmi
import numpy as np

from qfitlatent.chemistry.building import ideal_geometry
from qfitlatent.chemistry.residues import (
    CHI_PATH,
    MODIFIED,
    NUM_CHI,
    ONE_LETTER,
    OTHER_ATOM_NAMES,
    RESIDUE_TYPES,
    SIDE_CHAIN_ATOMS,
    TOKEN,
    parent_name,
)


def test_names_letters_and_atoms_agree():
    assert list(RESIDUE_TYPES) == sorted(RESIDUE_TYPES)
    assert list(ONE_LETTER[:20]) == [
        gemmi.find_tabulated_residue(name).one_letter_code for name in RESIDUE_TYPES
    ]
    for name, path in CHI_PATH.items():
        assert len(path) == (NUM_CHI[TOKEN[name]] + 3 if path else 0)
        assert {*path} <= {"N", "CA", *SIDE_CHAIN_ATOMS[name]}


def test_other_names_stand_for_atoms_of_the_type_that_a_residue_is_read_as():
    others = {name: residue.atoms for name, residue in MODIFIED.items()} | OTHER_ATOM_NAMES
    for name, atoms in others.items():
        assert set(atoms.values()) <= set(SIDE_CHAIN_ATOMS[parent_name(name)])


def test_what_is_built_has_ideal_geometry():
    placed = np.isfinite(ideal_geometry().length).sum(axis=1)
    standard = [len(SIDE_CHAIN_ATOMS[name]) for name in RESIDUE_TYPES]
    modified = [len(SIDE_CHAIN_ATOMS[m.parent]) for m in MODIFIED.values() if m.atoms]
    # CB hangs on the frame; the unknown type has no side chain.
    np.testing.assert_array_equal(placed, np.maximum([*standard, 1, *modified], 1) - np.ones(22))
