"""Order parameters, couplings and populations: against draws, quadrature and known limits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from qfitlatent.chemistry.building import build_side_chains
from qfitlatent.chemistry.observables import METHYLS, NUM_ROTAMERIC, ROTAMERS, kinds, kinds_of
from qfitlatent.chemistry.residues import CHI_DEFINED, PI_SYMMETRIC, SIDE_CHAIN_ATOMS, TOKEN
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.density.observables import observables, von_mises_share

BONDED = {("ILE", "CD1"): "CG1", ("LEU", "CD1"): "CG", ("LEU", "CD2"): "CG", ("MET", "CE"): "SD"}
"""The atom that a methyl carbon hangs on, where it is not CB."""

TOKENS = np.arange(20)


def mixture_of(token, seed=0, num_components=4, kappa=(0.0, 40.0)):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(token), num_components, 4)
    uniform = torch.rand((2, *shape), generator=generator)
    return VonMisesMixture(
        torch.randn(shape[:2], generator=generator).log_softmax(1),
        (2 * uniform[0] - 1) * math.pi,
        kappa[0] + uniform[1] * (kappa[1] - kappa[0]),
        torch.from_numpy(CHI_DEFINED)[token],
        torch.from_numpy(PI_SYMMETRIC)[token],
    )


def by_site(values, name):
    """{(quantity, site): value} of a residue."""
    numbers = kinds_of()[TOKEN[name]]
    known = {}
    for number, value in zip(numbers, values, strict=True):
        if number >= 0:
            known[kinds()[number].quantity, kinds()[number].site] = value
        else:
            assert np.isnan(value)
    return known


def expected_of_draws(name, chi):
    """The same from draws chi (S,4): atoms are built, angles counted."""
    num = len(chi)
    frame = np.broadcast_to(np.eye(3), (num, 3, 3))
    token = np.full(num, TOKEN[name])
    xyz, _ = build_side_chains(frame, np.zeros((num, 3)), token, chi)
    atom = dict(zip(SIDE_CHAIN_ATOMS[name], xyz.transpose(1, 0, 2), strict=False))
    known = {}
    for site in METHYLS.get(name, ()):
        axis = atom[site] - atom[BONDED.get((name, site), "CB")]
        axis /= np.linalg.norm(axis, axis=1, keepdims=True)
        known["S2", site] = 1.5 * ((axis.T @ axis / num) ** 2).sum() - 0.5
    third = (chi[:, 0] % (2 * np.pi) / (2 * np.pi / 3)).astype(int)
    for number, site in enumerate(ROTAMERS):
        known["population", site] = (third == number).mean()
    for kind in kinds():
        if kind.token == TOKEN[name] and kind.quantity == "3J":
            theta = chi[:, 0] + kind.form.shift
            curve = kind.form.a * np.cos(theta) ** 2 + kind.form.b * np.cos(theta) + kind.form.c
            known["3J", kind.site] = curve.mean()
    return known


@pytest.mark.parametrize("name", ["ILE", "LEU", "MET", "THR", "VAL", "LYS", "TYR"])
def test_closed_forms_are_means_over_draws_of_built_side_chains(name):
    mixture = mixture_of(np.array([TOKEN[name]]), seed=TOKEN[name])
    found = observables(mixture, np.array([TOKEN[name]]))
    chi = mixture.sample(40_000, torch.Generator().manual_seed(1))[:, 0].double().numpy()
    known = by_site(found.values[0], name)
    expected = expected_of_draws(name, chi)
    assert known.keys() == expected.keys()
    for key, value in expected.items():
        assert known[key] == pytest.approx(value, abs=0.1 if key[0] == "3J" else 0.01), key
    thirds = chi[:, : NUM_ROTAMERIC[TOKEN[name]]] % (2 * np.pi) // (2 * np.pi / 3)
    share = np.unique(thirds, axis=0, return_counts=True)[1] / len(chi)
    assert found.rotamer_entropy[0] == pytest.approx(stats.entropy(share), abs=0.02)


def test_a_rigid_methyl_has_order_one_and_free_rotation_that_of_a_cone():
    token = np.full(2, TOKEN["VAL"])
    mixture = mixture_of(token, num_components=1)
    kappa = torch.tensor([0.0, 1e6])[:, None, None].expand_as(mixture.kappa)
    mixture = VonMisesMixture(
        mixture.log_weight, mixture.mean, kappa, mixture.chi_mask, mixture.symmetric
    )
    free, rigid = (by_site(row, "VAL")["S2", "CG1"] for row in observables(mixture, token).values)
    cosine = math.cos(next(k for k in kinds() if k.site == "CG1").form.angle[0])
    assert free == pytest.approx((1.5 * cosine**2 - 0.5) ** 2, abs=1e-5)
    assert rigid == pytest.approx(1.0, abs=1e-5)
    entropy = observables(mixture, token).rotamer_entropy
    np.testing.assert_allclose(entropy, [math.log(3.0), 0.0], atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(-3.0, 3.0))
def test_bounds_sums_and_what_must_not_matter(seed, turn):
    mixture = mixture_of(TOKENS, seed, kappa=(0.0, 300.0))
    found = observables(mixture, TOKENS)
    quantity = np.array([kind.quantity for kind in kinds()])[kinds_of()[TOKENS]]
    has = kinds_of()[TOKENS] >= 0
    s2 = found.values[has & (quantity == "S2")]
    population = found.values[has & (quantity == "population")].reshape(-1, len(ROTAMERS))
    assert ((s2 > -1e-9) & (s2 < 1.0 + 1e-9)).all()
    assert (population > -1e-7).all()
    np.testing.assert_allclose(population.sum(1), 1.0, atol=1e-6)
    most = NUM_ROTAMERIC[TOKENS] * math.log(3.0)
    assert (found.rotamer_entropy > -1e-9).all()
    assert (found.rotamer_entropy < most + 1e-6).all()

    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(mixture.num_components, generator=generator)
    parts = (x[:, order] for x in (mixture.log_weight, mixture.mean, mixture.kappa))
    other = VonMisesMixture(*parts, mixture.chi_mask, mixture.symmetric)
    again = observables(other, TOKENS)
    np.testing.assert_allclose(again.values, found.values, atol=1e-6)
    np.testing.assert_allclose(again.rotamer_entropy, found.rotamer_entropy, atol=1e-6)

    rows = torch.randperm(len(TOKENS), generator=generator)
    again = observables(mixture.select(rows), TOKENS[rows])
    np.testing.assert_allclose(again.values, found.values[rows], atol=1e-9)

    # Turning chi1 of all components turns the side chain as a whole about CA-CB.
    turned = mixture.mean + torch.tensor([turn, 0.0, 0.0, 0.0])
    turned = VonMisesMixture(
        mixture.log_weight, turned, mixture.kappa, mixture.chi_mask, mixture.symmetric
    )
    np.testing.assert_allclose(
        observables(turned, TOKENS).values[has & (quantity == "S2")], s2, atol=1e-5
    )


@pytest.mark.parametrize("kappa", [0.0, 0.5, 10.4, 10.6, 60.0, 2e4])
def test_share_of_a_kernel(kappa):
    angle = np.linspace(-9.0, 9.0, 61)
    found = von_mises_share(
        torch.from_numpy(angle), torch.full((len(angle),), kappa, dtype=torch.float64)
    )
    grid = np.linspace(-np.pi, np.pi, 200_001)
    density = np.exp(-2 * kappa * np.sin(grid / 2) ** 2)
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    turns = np.round(angle / (2 * np.pi))
    expected = turns + np.interp(angle - 2 * np.pi * turns, grid, mass / mass[-1]) - 0.5
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-7)


def test_each_coupling_is_of_atoms_of_its_residue():
    for kind in kinds():
        atoms = {"N", "C", "HA", "HB", "HB2", "HB3", *SIDE_CHAIN_ATOMS[list(TOKEN)[kind.token]]}
        if kind.quantity == "3J":
            assert set(kind.site.split("-")) <= atoms
            assert kind.error > 0
