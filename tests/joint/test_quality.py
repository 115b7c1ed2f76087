"""How good side chains are: what is counted is there, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.crowded import crowded, moved, near_pairs, turn
from qfitlatent.chemistry.residues import NUM_CHI, TOKEN
from qfitlatent.joint.bonds import Metals
from qfitlatent.joint.energy import CLASH
from qfitlatent.joint.quality import (
    clashes,
    deviations,
    disulfides,
    metal_bonds,
    per_residue,
)


def built(protein, chi):
    return protein.backbones.build(np.arange(len(chi)), chi)


@pytest.fixture(scope="module")
def case():
    protein, densities = crowded(seed=1)
    return protein, densities.mode_chi[:, 0]


def test_clashes_of_side_chains_are_those_of_all_pairs_of_atoms(case):
    protein, chi = case
    pairs = clashes(protein, built(protein, chi))
    between = {(i, j) for i, j in pairs.tolist() if j >= 0}
    assert len(between) >= 3
    assert between == {tuple(sorted(pair)) for pair in near_pairs(protein, chi, CLASH)}


def test_clashes_with_what_stays_are_those_of_all_pairs_of_atoms(case):
    protein, chi = case
    coords, around = built(protein, chi), protein.around
    expected = sum(
        np.linalg.norm(around.position[m] - atom) <= CLASH
        for n in np.flatnonzero(NUM_CHI[protein.backbones.token] > 0)
        for atom in coords[n, 1:][np.isfinite(coords[n, 1:, 0])]
        for m in range(len(around.position))
        if n not in around.excluded[m]
    )
    pairs = clashes(protein, coords)
    assert np.count_nonzero(pairs[:, 1] < 0) == expected > 0
    share = per_residue(pairs, len(chi))
    assert share.sum() == pytest.approx(len(pairs))
    (alone,) = np.flatnonzero(per_residue(np.array([(4, -1)]), 6))
    assert alone == 4
    assert per_residue(np.array([(4, 2), (4, 2)]), 6).tolist() == [0, 0, 1, 0, 1, 0]


def test_where_the_protein_stands_changes_nothing(case):
    protein, chi = case
    there = moved(protein, turn(3), np.array([200.0, 5.0, -70.0]))
    here_pairs, there_pairs = (clashes(p, built(p, chi)) for p in (protein, there))
    assert sorted(here_pairs.tolist()) == sorted(there_pairs.tolist())


def test_deviations_are_from_ideal_geometry(case):
    protein, chi = case
    coords = built(protein, chi)
    bonds, angles = deviations(protein, coords)
    has_chi = NUM_CHI[protein.backbones.token] > 0
    assert np.isnan(bonds[~has_chi]).all()
    assert bonds[has_chi] == pytest.approx(0, abs=1e-9)
    # OG of a serine, its only atom, 0.05 farther from CB: no angle changes.
    (n,) = np.flatnonzero(protein.backbones.token == TOKEN["SER"])[:1]
    along = coords[n, 1] - coords[n, 0]
    coords[n, 1] += 0.05 * along / np.linalg.norm(along)
    longer, same = deviations(protein, coords)
    assert longer[n] == pytest.approx(0.05)
    assert same == pytest.approx(angles, abs=1e-6, nan_ok=True)


def test_bonds_of_any_model_are_found_with_the_length_in_each(case):
    protein, _ = case
    backbones = protein.backbones
    token = backbones.token.copy()
    i, j = 3, 7
    token[[i, j]] = TOKEN["CYS"]
    # A metal 2.3 from the sulphur of i in the first model.
    models = [np.full((len(token), 10, 3), np.nan) for _ in range(2)]
    cb = replace(backbones, token=token).cb()
    for coords, apart in zip(models, (2.05, 4.0), strict=True):
        coords[i, 1] = cb[i] + (1.8, 0, 0)
        coords[j, 1] = coords[i, 1] + (0, apart, 0)
    metals = Metals(models[0][i, 1][None] - (0, 0, 2.3), np.array([2.1]), np.array([True]))
    protein = replace(protein, backbones=replace(backbones, token=token), metals=metals)
    found = disulfides(protein, models)
    assert (found.residue.tolist(), found.partner.tolist()) == ([i], [j])
    assert found.length[0].tolist() == pytest.approx([2.05, 4.0])
    assert found.is_bond.tolist() == [[True, False]]
    assert found.cb_cb[0] == pytest.approx(np.linalg.norm(cb[i] - cb[j]))
    bound = metal_bonds(protein, models)
    assert (bound.residue.tolist(), bound.atom.tolist(), bound.partner.tolist()) == ([i], [1], [0])
    assert bound.length[0].tolist() == pytest.approx([2.3, 2.3])
    assert disulfides(protein, [models[1]]).residue.tolist() == []
