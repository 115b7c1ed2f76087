"""Disulfides and metal bonds whose geometry is known are found."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.crowded import NO_METALS, crowded
from qfitlatent.chemistry.building import place_atom
from qfitlatent.chemistry.geometry import dihedral, frames
from qfitlatent.chemistry.residues import SIDE_CHAIN_ATOMS, TOKEN
from qfitlatent.joint.atoms import Backbones, Surroundings
from qfitlatent.joint.bonds import Metals, find_bonds
from qfitlatent.joint.candidates import Densities
from qfitlatent.joint.model import Protein, joint_model

NOTHING = Surroundings(
    np.zeros((0, 3)), np.zeros(0, dtype=np.int64), np.zeros((0, 2), dtype=np.int64)
)


def backbones_of(n, ca, c, names):
    rotation, translation, _ = frames(n, ca, c)
    return Backbones(rotation, translation, n, np.array([TOKEN[name] for name in names]))


def one_mode(token, chi1=1.0):
    """All mass in one broad mode that makes no bond."""
    chi = np.zeros((len(token), 1, 4))
    chi[..., 0] = chi1
    one = np.ones((len(token), 1))
    return Densities(token, one, chi, np.full(chi.shape, 0.5), one, chi)


def bonded_cysteines(chi1=(-1.1, 3.0), chi3=-1.5):
    """Backbones of two cysteines with a perfect disulfide at these chi."""
    first = crowded(1, 4)[0].backbones
    one = Backbones(
        first.rotation[:1], first.translation[:1], first.nitrogen[:1], np.array([TOKEN["CYS"]])
    )
    cb, sg = one.build(np.array([0]), np.array([[chi1[0], 0, 0, 0]]))[0, :2]
    ca = one.translation[0]
    other_sg = place_atom(ca, cb, sg, 2.05, np.deg2rad(104.0), np.array(-1.3))
    other_cb = place_atom(cb, sg, other_sg, 1.8075, np.deg2rad(104.0), np.array(chi3))
    other_ca = place_atom(sg, other_sg, other_cb, 1.53, np.deg2rad(113.9), np.array(2.9))
    c_torsion = np.array(chi1[1] - np.deg2rad(122.9))
    n = place_atom(other_sg, other_cb, other_ca, 1.458, np.deg2rad(110.5), np.array(chi1[1]))
    c = place_atom(other_sg, other_cb, other_ca, 1.525, np.deg2rad(110.1), c_torsion)
    second = backbones_of(n[None], other_ca[None], c[None], ["CYS"])
    assert np.linalg.norm(second.cb()[0] - other_cb) < 0.2  # it is an L residue
    pairs = zip(vars(one).values(), vars(second).values(), strict=True)
    return Backbones(*(np.concatenate(pair) for pair in pairs))


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
    backbones = Backbones(*(x[1:2] for x in vars(backbones).values()))
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
