"""Baselines are densities, find what they were made from, and choose their smoothing themselves."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI, TOKEN
from qfitlatent.density.backbone import KERNELS
from qfitlatent.density.libraries import BASELINES, fit_baselines, held_out_residues
from qfitlatent.density.rows import Observed
from qfitlatent.density.von_mises import kappa_of_resultant

VAL, PHE, SER = TOKEN["VAL"], TOKEN["PHE"], TOKEN["SER"]


def observe(token: int, num: int, seed: int, by_phi: bool = True) -> Observed:
    """Rotamers at -60 and 180; the share of the first goes from 0.05 to 0.95 with cos phi."""
    rng = np.random.default_rng(seed)
    phi_psi = rng.uniform(-math.pi, math.pi, (num, 2))
    share = 0.5 + (0.45 * np.cos(phi_psi[:, 0]) if by_phi else 0.0)
    first = rng.random(num) < share
    chi = np.zeros((num, 4))
    chi[:, 0] = np.where(first, math.radians(-60), math.pi) + rng.vonmises(0, 60, num)
    chi[:, 1] = math.radians(80) + rng.vonmises(0, 40, num) + math.pi * (rng.random(num) < 0.5)
    chi = (chi + math.pi) % (2 * math.pi) - math.pi
    defined = np.tile(CHI_DEFINED[token], (num, 1))
    return Observed(
        token=torch.full((num,), token),
        phi_psi=torch.from_numpy(phi_psi).float(),
        entry=torch.arange(num) // 20,
        num_distinct=torch.ones(num, dtype=torch.long),
        row_residue=torch.arange(num),
        chi=torch.from_numpy(np.where(defined, chi, 0.0)).float(),
        defined=torch.from_numpy(defined),
        occupancy=torch.ones(num),
    )


def density_of(library, token: int, phi: float = math.nan, psi: float = math.nan):
    return library.density(torch.tensor([token]), torch.tensor([[phi, psi]]))


def nll(library, observed: Observed) -> float:
    density = library.density(observed.token, observed.phi_psi)
    return float(-density.log_prob(observed.chi, observed.defined, observed.row_residue).mean())


@pytest.fixture(scope="module")
def fitted():
    """Libraries fitted on VAL and PHE whose weights depend on phi."""
    first, second = observe(VAL, 1500, 0), observe(PHE, 1500, 1)
    both = {f.name: torch.cat([getattr(p, f.name) for p in (first, second)]) for f in fields(first)}
    return fit_baselines(Observed(**both | {"row_residue": torch.arange(3000)}), BASELINES)


def test_every_density_integrates_to_one(fitted):
    """On a grid of 1 (or 2 by 2) degrees, for residues with one chi, two, and one pi-symmetric."""
    tokens = torch.tensor([VAL, SER, PHE])
    phi_psi = torch.tensor([[-1.0, 2.3], [0.4, math.nan], [2.9, -2.8]])
    for library in fitted.values():
        density = library.density(tokens, phi_psi)
        one = torch.arange(-180, 180, dtype=torch.float64).deg2rad()
        two = torch.cartesian_prod(one[::2], one[::2])
        for row, grid, cell in ((0, one[:, None], 1.0), (1, one[:, None], 1.0), (2, two, 4.0)):
            chi = torch.zeros(len(grid), 4)
            chi[:, : grid.shape[1]] = grid
            rows = torch.full((len(grid),), row)
            log_p = density.log_prob(chi, density.chi_mask[rows], rows)
            area = cell * math.radians(1.0) ** grid.shape[1]
            assert float(log_p.double().exp().sum()) * area == pytest.approx(1, abs=2e-3)


def test_a_type_library_finds_the_mixture_that_made_its_data():
    """Its held-out NLL is the entropy: log 2 for the rotamers and that of a kernel of kappa 60."""
    library = fit_baselines(observe(VAL, 6000, 0, by_phi=False), ("type_library",))["type_library"]
    kernel = math.log(2 * math.pi * np.i0(60)) - 60 * (1 - 1 / 120 - 1 / (8 * 60**2))
    expected = math.log(2) + kernel
    assert nll(library, observe(VAL, 6000, 1, by_phi=False)) == pytest.approx(expected, abs=0.03)


def test_the_backbone_library_gains_what_phi_tells(fitted):
    test = observe(VAL, 4000, 7)
    gain = nll(fitted["type_library"], test) - nll(fitted["backbone_library"], test)
    p = 0.5 + 0.45 * np.cos(test.phi_psi[:, 0].numpy())
    possible = math.log(2) + np.mean(p * np.log(p) + (1 - p) * np.log(1 - p))
    assert 0.8 * possible < gain < 1.1 * possible


def test_without_phi_or_psi_the_backbone_library_is_the_type_library(fitted):
    test = observe(PHE, 50, 8)
    unknown = replace(test, phi_psi=torch.full((50, 2), math.nan))
    assert nll(fitted["backbone_library"], unknown) == nll(fitted["type_library"], unknown)


def test_phi_and_psi_are_periodic(fitted):
    test = observe(VAL, 100, 9)
    turned = replace(test, phi_psi=test.phi_psi + 2 * math.pi)
    library = fitted["backbone_library"]
    assert nll(library, turned) == pytest.approx(nll(library, test), abs=1e-4)


def test_the_smoothing_has_a_peak_of_the_held_out_likelihood(fitted):
    """Neither the broadest nor the chosen-last: too little and too much smoothing both lose."""
    library = fitted["backbone_library"]
    curve = library.choices[f"{VAL}.smoothing_curve"]
    value = {(kernel, shrinkage): v for kernel, shrinkage, v in curve}
    chosen = (library.choices[f"{VAL}.kernels"][-1], library.choices[f"{VAL}.shrinkage"])
    assert value[chosen] == max(value.values())
    assert value[chosen] > min(value.values()) + 1e-3
    assert {kernel for kernel, _ in value} == set(KERNELS)


def test_a_symmetric_chi_has_the_same_density_turned_by_pi(fitted):
    test = observe(PHE, 60, 3)
    turned = replace(test, chi=test.chi + torch.tensor([0.0, math.pi, 0.0, 0.0]))
    for library in fitted.values():
        assert nll(library, turned) == pytest.approx(nll(library, test), abs=1e-5)


def test_nearest_rotamer_has_the_populations(fitted):
    weight = fitted["nearest_rotamer"].components[VAL].weight
    assert weight.sum() == pytest.approx(1, abs=1e-5)
    assert sorted(weight.tolist())[-2:] == pytest.approx([0.5, 0.5], abs=0.05)


def test_missing_chi_are_used_for_what_they_tell():
    """A row with chi2 missing still moves the weights of chi1."""
    test = observe(PHE, 1200, 4, by_phi=False)
    first = test.chi[:, 0].abs() < 2
    defined = test.defined.clone()
    lost = first & (torch.arange(len(first)) % 10 < 7)  # most -60 rotamers have lost their chi2
    defined[lost, 1] = False
    partial = replace(test, defined=defined)
    library = fit_baselines(partial, ("type_library",))["type_library"]
    density = density_of(library, PHE)
    chi = torch.zeros(720, 4)
    chi[:, 0] = torch.linspace(-math.pi, math.pi, 721)[:-1]
    only_first = (torch.arange(4) < 1).expand(720, 4)
    mass = density.log_prob(chi, only_first, torch.zeros(720).long()).exp() * math.radians(0.5)
    assert float(mass[chi[:, 0].abs() < 2].sum()) == pytest.approx(
        float(first.float().mean()), abs=0.03
    )


def test_a_type_without_observations_stays_uniform(fitted):
    density = density_of(fitted["backbone_library"], SER, 0.0, 0.0)
    chi = torch.tensor([[1.0, 0, 0, 0]])
    value = density.log_prob(chi, density.chi_mask)
    assert float(value) == pytest.approx(-math.log(2 * math.pi), abs=1e-6)


def test_uniform_is_the_volume_of_the_torus(fitted):
    for token in range(20):
        density = density_of(fitted["uniform"], token, 0.0, 0.0)
        value = density.log_prob(torch.zeros(1, 4), density.chi_mask)
        assert float(value) == pytest.approx(-NUM_CHI[token] * math.log(2 * math.pi), abs=1e-5)


def test_choices_are_made_on_other_entries():
    held_out = held_out_residues(torch.arange(40).repeat_interleave(7), 0).view(40, 7)
    assert (held_out == held_out[:, :1]).all()
    assert float(held_out.float().mean()) == pytest.approx(0.25)


def test_concentration_solves_its_equation():
    kappa = torch.logspace(-2, 3, 40, dtype=torch.float64)
    resultant = torch.special.i1e(kappa) / torch.special.i0e(kappa)
    torch.testing.assert_close(kappa_of_resultant(resultant), kappa, rtol=1e-5, atol=1e-6)


def test_unknown_names_are_refused():
    with pytest.raises(QfitLatentError, match="No baseline is called 'rosetta'"):
        fit_baselines(observe(VAL, 10, 0), ("rosetta",))
