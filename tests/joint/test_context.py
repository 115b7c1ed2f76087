"""Deposited side chains among their neighbours: what is worth a look, and what is not."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.crowded import crowded, turn
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI
from qfitlatent.joint.atoms import Backbones
from qfitlatent.joint.context import Deposited, Others, SideChains, in_context, usual_excess
from qfitlatent.joint.model import joint_model
from qfitlatent.joint.states import is_distinct

LOOK = 4.0


def as_deposited(protein, chi, label=None, linked=()):
    """The protein with the side chains chi (N,4); label (N,) of their altlocs."""
    backbones, around = protein.backbones, protein.around
    rows = np.flatnonzero(NUM_CHI[backbones.token] > 0)
    label = np.full(len(chi), "") if label is None else np.asarray(label)
    side_chains = SideChains(
        residue=rows,
        group=rows,
        label=label[rows],
        is_main=label[rows] != "B",
        is_held=np.zeros(len(rows), dtype=bool),
        chi=chi[rows],
        position=backbones.build(rows, chi[rows])[:, 1:],
    )
    num = len(around.kind)
    group, beside = around.excluded.T
    others = Others(
        around.position, around.kind, group, np.full(num, ""), np.ones(num, dtype=bool), beside
    )
    return Deposited(backbones, side_chains, others, np.array(linked, dtype=int).reshape(-1, 2))


def with_rows(deposited, rows, **changed):
    """These side chains alone, or again, with some fields changed."""
    side_chains = SideChains(*(x[rows] for x in vars(deposited.side_chains).values()))
    return replace(deposited, side_chains=replace(side_chains, **changed))


@pytest.fixture(scope="module", params=range(3))
def fitting(request):
    """A protein, its densities and its best joint state (N,4)."""
    protein, densities = crowded(seed=request.param)
    single = np.zeros(len(densities), dtype=bool)
    return protein, densities, joint_model(protein, densities, single, 0.1).states.chi[:, 0]


def worst_turn(protein, densities, chi, rng):
    """chi with one side chain turned into a place without room, and which."""
    free = as_deposited(protein, chi).side_chains.residue
    trials = []
    for n in rng.choice(free, 4, replace=False).tolist():
        for _ in range(6):
            turned = chi.copy()
            turned[n] = np.where(CHI_DEFINED[densities.token[n]], rng.uniform(-np.pi, np.pi, 4), 0)
            known = in_context(as_deposited(protein, turned), densities, 1e6)
            trials.append((known.strain[free.tolist().index(n)], n, turned))
    return max(trials, key=lambda trial: trial[0])[1:]


def test_a_turned_side_chain_is_found_and_put_back_and_its_neighbours_are_not_blamed(fitting):
    protein, densities, chi = fitting
    n, turned = worst_turn(protein, densities, chi, np.random.default_rng(0))
    deposited = as_deposited(protein, turned)
    before = in_context(as_deposited(protein, chi), densities, LOOK)
    known = in_context(deposited, densities, LOOK)
    rows = deposited.side_chains.residue
    (m,) = np.flatnonzero(rows == n)
    assert known.strain[m] > 8.0
    assert known.look[m] == known.look.max() >= LOOK
    assert known.gain[m] > known.strain[m] / 2
    least = -np.log(densities.mode_weight[rows, 0])
    assert (known.gain <= known.cost - least + known.strain + 1e-6).all()
    assert not is_distinct(densities.token[[n]], known.chi[[m]], chi[[n]])[0]
    others = rows != n
    assert (known.look >= LOOK)[others].sum() <= (before.look >= LOOK)[others].sum()
    # Its worst contact is a neighbour that it is named with.
    assert known.contact[m, 0] >= 0
    assert known.contact_angstrom[m] < 2.6


def test_what_stands_in_its_best_joint_state_gains_next_to_nothing(fitting):
    """That state was relaxed, and gave way for it."""
    protein, densities, chi = fitting
    known = in_context(as_deposited(protein, chi), densities, 0.0)
    assert (known.gain >= 0.0).all()
    assert (known.gain < LOOK).all()
    assert (known.gain == 0.0).mean() > 0.8


def test_turning_and_moving_the_structure_changes_nothing(fitting):
    protein, densities, chi = fitting
    _, turned = worst_turn(protein, densities, chi, np.random.default_rng(1))
    here = as_deposited(protein, turned)
    matrix, shift = turn(1), np.array([200.0, -30.0, 4.0])
    old = here.backbones
    backbones = Backbones(
        matrix @ old.rotation, old.translation @ matrix.T + shift, old.nitrogen @ matrix.T + shift,
        old.token,
    )  # fmt: skip
    there = Deposited(
        backbones,
        replace(here.side_chains, position=here.side_chains.position @ matrix.T + shift),
        replace(here.others, position=here.others.position @ matrix.T + shift),
        here.linked,
    )
    first, again = (in_context(x, densities, LOOK) for x in (here, there))
    assert again.look == pytest.approx(first.look, abs=1e-3)
    assert again.contact.tolist() == first.contact.tolist()


def test_altlocs_of_other_labels_do_not_meet(fitting):
    """Of a pair that clashes, both under one label, under two, and one of them blank."""
    protein, densities, chi = fitting
    n, turned = worst_turn(protein, densities, chi, np.random.default_rng(0))
    strain = {}
    for own, rest in (("A", "A"), ("A", "B"), ("A", ""), ("", "A"), ("", "B"), ("B", "")):
        label = np.full(len(chi), rest)
        label[n] = own
        deposited = as_deposited(protein, turned, label)
        only = replace(deposited.others, position=np.full_like(deposited.others.position, np.nan))
        known = in_context(replace(deposited, others=only), densities, 1e6)
        strain[own, rest] = known.strain[deposited.side_chains.residue == n][0]
    assert strain["A", "B"] == strain["", "B"] == 0.0  # B is not the main one
    assert strain["A", "A"] == strain["A", ""] == strain["", "A"] == strain["B", ""] > 0.0


def test_bonded_residues_do_not_clash_and_what_a_bond_holds_stays(fitting):
    protein, densities, chi = fitting
    n, turned = worst_turn(protein, densities, chi, np.random.default_rng(0))
    free = as_deposited(protein, turned)
    rows = free.side_chains.residue
    (m,) = np.flatnonzero(rows == n)
    every = [(n, other) for other in range(len(chi)) if other != n]
    linked = in_context(as_deposited(protein, turned, linked=every), densities, LOOK)
    assert linked.strain[m] == 0.0
    held = replace(free, side_chains=replace(free.side_chains, is_held=rows == n))
    known = in_context(held, densities, LOOK)
    assert known.gain[m] == 0.0
    assert np.isnan(known.chi[m]).all()
    assert known.look[m] == known.strain[m] > LOOK


def test_a_rotamer_that_another_altloc_has_is_no_better_one(fitting):
    protein, densities, chi = fitting
    n, turned = worst_turn(protein, densities, chi, np.random.default_rng(0))
    deposited = as_deposited(protein, turned)
    (m,) = np.flatnonzero(deposited.side_chains.residue == n)
    better = in_context(deposited, densities, LOOK).chi[m]
    rows = np.sort(np.r_[np.arange(len(deposited.side_chains.residue)), m])
    label, every = deposited.side_chains.label[rows], deposited.side_chains.chi[rows]
    label[m : m + 2], every[m + 1] = ("A", "B"), better
    known = in_context(with_rows(deposited, rows, label=label, chi=every), densities, LOOK)
    token = densities.token[[n]]
    assert np.isnan(known.chi[m, 0]) or is_distinct(token, known.chi[[m]], better[None])[0]


def test_what_is_usual_is_what_modes_cost_by_their_mass():
    _, densities = crowded(seed=0)
    has_chi = NUM_CHI[densities.token] > 0
    weight = np.where(has_chi[:, None], [0.5, 0.25, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0])
    usual = usual_excess(replace(densities, mode_weight=weight))
    assert usual == pytest.approx(np.where(has_chi, 0.5 * np.log(2) + NUM_CHI[densities.token], 0))
