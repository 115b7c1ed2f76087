"""Disulfides and metal bonds whose geometry is known are found."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.crowded import NO_METALS, bonded_cysteines, crowded
from qfitlatent.chemistry.geometry import dihedral, unit
from qfitlatent.chemistry.residues import SIDE_CHAIN_ATOMS, TOKEN
from qfitlatent.joint.atoms import Backbones, Surroundings
from qfitlatent.joint.bonds import Metals, find_bonds
from qfitlatent.joint.candidates import Densities
from qfitlatent.joint.energy import Energy
from qfitlatent.joint.model import Protein, given_way, joint_model, likely_candidates
from qfitlatent.joint.search import best_of

NOTHING = Surroundings(
    np.zeros((0, 3)), np.zeros(0, dtype=np.int64), np.zeros((0, 2), dtype=np.int64)
)


def one_mode(token, chi1=1.0):
    """All mass in one broad mode that makes no bond."""
    chi = np.zeros((len(token), 1, 4))
    chi[..., 0] = chi1
    one = np.ones((len(token), 1))
    return Densities(token, one, chi, np.full(chi.shape, 0.5), one, chi)


@pytest.mark.parametrize("chi1", [(-1.1, 3.0), (1.1, -1.1), (-1.0, -1.2)])
@pytest.mark.parametrize("chi3", [-1.5, 1.6])
def test_two_cysteines_in_reach_make_a_disulfide(chi1, chi3):
    backbones = bonded_cysteines(chi1, chi3)
    densities = one_mode(backbones.token)
    model = joint_model(
        Protein(backbones, NOTHING, NO_METALS), densities, np.ones(2, dtype=bool), 0.1, 0
    )
    chi = model.states.chi[:, 0]
    (cb_i, sg_i), (cb_j, sg_j) = backbones.build(np.arange(2), chi)[:, :2]
    assert np.linalg.norm(sg_i - sg_j) == pytest.approx(2.05, abs=0.1)
    angle = np.degrees(
        np.arccos((cb_i - sg_i) @ (sg_j - sg_i) / np.linalg.norm(cb_i - sg_i) / 2.05)
    )
    assert angle == pytest.approx(104.0, abs=8.0)
    torsion = np.degrees(np.abs(dihedral(*(x[None] for x in (cb_i, sg_i, sg_j, cb_j)))))
    assert torsion == pytest.approx(90.0, abs=30.0)
    # A bonded residue has no altlocs: its partner would have to have them too.
    assert model.states.occupancy[:, 0].tolist() == [100, 100]


def test_a_bond_that_the_first_look_missed_is_made():
    backbones = bonded_cysteines()
    densities = one_mode(backbones.token)
    energy = Energy(backbones, NOTHING, find_bonds(backbones, densities, NO_METALS))
    candidates = likely_candidates(energy, densities)
    unbonded = candidates.select(np.flatnonzero(candidates.bond < 0))
    missed = unbonded.select(best_of(energy, unbonded, 0))
    assert (given_way(energy, candidates, missed, 0).bond >= 0).all()


def test_cysteines_out_of_reach_do_not():
    backbones = bonded_cysteines()
    away = np.array([[0.0], [10.0]])
    far = Backbones(
        backbones.rotation,
        backbones.translation + away,
        backbones.nitrogen + away,
        backbones.token,
    )
    assert len(find_bonds(far, one_mode(far.token), NO_METALS).energy) == 0


@pytest.mark.parametrize("atom", ["ND1", "NE2"])
@pytest.mark.parametrize("recorded", [False, True])
def test_a_histidine_binds_the_metal_where_its_lone_pair_can_point(atom, recorded):
    backbones = crowded(1, 3)[0].backbones
    backbones = backbones.select(np.array([1]))
    backbones = replace(backbones, token=np.array([TOKEN["HIS"]]))
    chi = np.array([[-1.2, 1.4, 0.0, 0.0]])
    coords = backbones.build(np.array([0]), chi)[0]
    at = {name: coords[k] for k, name in enumerate(SIDE_CHAIN_ATOMS["HIS"])}
    ring = [at[name] for name in ("CG", "ND1", "CD2", "CE1", "NE2")]
    outward = at[atom] - np.mean(ring, axis=0)
    metal = at[atom] + 2.05 * outward / np.linalg.norm(outward)
    links = ((0, atom, 0),) if recorded else ()
    metals = Metals(metal[None], np.array([2.05]), np.array([not recorded]), links)
    densities = one_mode(backbones.token, chi1=2.0)
    model = joint_model(
        Protein(backbones, NOTHING, metals), densities, np.zeros(1, dtype=bool), 0.1, 0
    )
    built = backbones.build(np.array([0]), model.states.chi[:, 0])[0]
    ligand = built[SIDE_CHAIN_ATOMS["HIS"].index(atom)]
    assert np.linalg.norm(ligand - metal) == pytest.approx(2.05, abs=0.15)


@pytest.mark.parametrize("one_metal", [True, False])
def test_a_carboxylate_makes_both_of_its_recorded_bonds(one_metal):
    """It holds one metal by both oxygens, or joins two."""
    backbones = crowded(1, 3)[0].backbones
    backbones = backbones.select(np.array([1]))
    backbones = replace(backbones, token=np.array([TOKEN["GLU"]]))
    column = [SIDE_CHAIN_ATOMS["GLU"].index(name) for name in ("CD", "OE1", "OE2")]
    carbon, *oxygens = backbones.build(np.array([0]), np.array([[-1.2, 3.0, 0.4, 0]]))[0, column]
    out = unit(np.mean(oxygens, axis=0) - carbon)
    if one_metal:
        half = np.linalg.norm(oxygens[0] - oxygens[1]) / 2
        positions = [np.mean(oxygens, axis=0) + np.sqrt(2.25**2 - half**2) * out]
    else:
        # 2.1 angstrom from an oxygen, 120 degrees from its bond, away from the other.
        away = [unit(a - b) for a, b in (oxygens, oxygens[::-1])]
        positions = [
            oxygen + 2.1 * unit(unit(oxygen - carbon) + side + 0.2 * out)
            for oxygen, side in zip(oxygens, away, strict=True)
        ]
    links = ((0, "OE1", 0), (0, "OE2", 0 if one_metal else 1))
    num = len(positions)
    metals = Metals(np.array(positions), np.full(num, 2.1), np.zeros(num, dtype=bool), links)
    model = joint_model(
        Protein(backbones, NOTHING, metals),
        one_mode(backbones.token, chi1=2.0),
        np.zeros(1, dtype=bool),
        0.1,
        0,
    )
    built = backbones.build(np.array([0]), model.states.chi[:, 0])[0, column[1:]]
    lengths = [
        np.linalg.norm(oxygen - positions[m])
        for oxygen, (_, _, m) in zip(built, links, strict=True)
    ]
    assert lengths == pytest.approx([2.25, 2.25] if one_metal else [2.1, 2.1], abs=0.25)
