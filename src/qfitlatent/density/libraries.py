"""Baselines: what is known about side chains without a model (SPEC 8).

Every baseline is fitted on the training split only and gives a density, so the same code scores it
and the model.

- ``uniform``: flat on the torus of the residue's chi.
- ``nearest_rotamer``: each observation goes to the nearest cell of the classical rotamer grid; the
  cells' populations, circular means and spreads, no overlap between cells in the fit.
- ``type_library``: a mixture of von Mises per residue type by expectation-maximisation, started
  from the populated cells of that grid, number of components chosen by held-out likelihood.
- ``backbone_library``: the same components with weights, means and concentrations that depend on
  phi and psi. On a grid over phi/psi, the expected counts and resultants of every component are
  smoothed by von Mises kernels from broad to narrow, each shrunk to the one before and the broadest
  to the type library; the shrinkage and the narrowest kernel are chosen by held-out likelihood. A
  residue without phi or psi gets the type library.

Occupancies weight the observations, and residues with several altlocs weigh more. Of the training
entries one in four is held out for the choices; the final fit uses all. Of a
type with many observations some are drawn (``MAX_ROWS``).

Shapes: N residues, M observed rows (residue x altloc), K components, D chi of one residue type
(4 where padded), G nodes of the phi/psi grid along one angle.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import (
    CHI_DEFINED,
    NUM_CHI,
    NUM_CHI_MAX,
    NUM_TOKENS,
    PI_SYMMETRIC,
)
from qfitlatent.density.backbone import KERNELS, SHRINKAGES, BackboneComponents, BackboneFit
from qfitlatent.density.components import (
    Components,
    TypeRows,
    cell_resultants,
    eta_of,
    length_of,
    nearest_rotamer,
    rotamer_cells,
    rows_of_type,
)
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.density.rows import Observed

BASELINES = ("uniform", "nearest_rotamer", "type_library", "backbone_library")
COMPONENT_CHOICES = (4, 8, 16, 32, 64)
"""Numbers of components tried for a residue type, beside the flat background."""

MIN_ROWS_PER_COMPONENT = 12
"""A choice of K is tried only where a component would have this many observations on average."""

EM_STEPS, TRIAL_STEPS = 120, 30
"""Steps of expectation-maximisation, at most: of the final fit, and of each that is compared."""

EM_TOLERANCE = 1e-5
"""Stop when the mean log-likelihood (nats) gains less than this in a step."""

HELD_OUT_ONE_IN = 4

MAX_ROWS, CHOICE_ROWS = 12_000, 6_000
"""Observations of a residue type that are fitted to, and on which choices are made; of more, so
many drawn at random. Sixty-four components are known well by then, and the cost of a fit no longer
grows with the training set."""


def rotamer_start(rows: TypeRows, token: int, num: int, seed: int) -> Components:
    """K = num components spread over the rotamer cells by population, and the flat background.

    Cells receive components one at a time, always the one with the most observations per component
    (d'Hondt); the second and later components of a cell start at observations drawn from it.
    """
    generator = torch.Generator().manual_seed(seed)
    cell = rotamer_cells(rows, token)
    values, weight, total = cell_resultants(rows, cell)
    shares = np.zeros(len(values), dtype=np.int64)
    population = weight.numpy()
    for _ in range(num):
        shares[np.argmax(population / (shares + 1))] += 1
    eta, mass = [], []
    base = eta_of(total, weight[:, None].expand(-1, total.shape[1]))
    for c in np.flatnonzero(shares):
        members = (cell == values[c]).nonzero()[:, 0]
        eta.append(base[c])
        for _ in range(shares[c] - 1):
            pick = members[torch.randint(len(members), (1,), generator=generator)]
            eta.append(rows.point[pick[0]] * 20.0)
        mass += [population[c] / shares[c]] * shares[c]
    weights = torch.tensor([0.02 * sum(mass), *mass], dtype=torch.float32)
    return Components(weights / weights.sum(), torch.stack([torch.zeros_like(base[0]), *eta]))


def fit_components(rows: TypeRows, fitted: Components, steps: int = EM_STEPS) -> Components:
    """Expectation-maximisation from a start; component 0 stays flat (the background).

    A pi-symmetric chi counts each component twice, at its mean and turned by pi, with half the
    density each (SPEC 8), so the fit maximises the properly normalised likelihood.
    """
    last = -math.inf
    flat_rows = rows.point.flatten(1)
    for _ in range(steps):
        posterior, density = rows.responsibilities(fitted.weight.log(), fitted.eta)
        value = rows.mean(density)
        straight, turned = rows.turned(posterior)
        total = (straight.T @ flat_rows).view(-1, *rows.point.shape[1:])
        mass = straight
        if turned is not None:
            total = total + (turned.T @ flat_rows).view_as(total) * rows.sign[:, None]
            mass = straight + turned
        eta = eta_of(total, mass.T @ rows.defined)
        eta[0] = 0.0
        weight = mass.sum(0) + 0.1
        fitted = Components(weight / weight.sum(), eta)
        if value - last < EM_TOLERANCE:
            break
        last = value
    return fitted


def fit_type(
    training: TypeRows, held_out: TypeRows, token: int, seed: int
) -> tuple[Components, list[tuple[int, float]]]:
    """The fit whose number of components has the best held-out likelihood, and that curve."""
    tried: list[tuple[float, int, Components]] = []
    for num in COMPONENT_CHOICES:
        if tried and len(training.weight) < MIN_ROWS_PER_COMPONENT * num:
            break
        start = rotamer_start(training, token, num, seed)
        fitted = fit_components(training, start, TRIAL_STEPS)
        tried.append((held_out.mean_log_density(fitted.weight, fitted.eta), num, fitted))
    _, _, best = max(tried, key=lambda trial: trial[0])
    return best, [(num, value) for value, num, _ in tried]


@dataclass
class Library:
    """One baseline; ``density`` gives the mixtures of any residues.

    components: the type's mixture, by token; backbone: the phi/psi dependence, by token (absent
    where the type has too few observations). choices records what held-out likelihood chose.
    """

    name: str
    components: dict[int, Components]
    backbone: dict[int, BackboneComponents] = field(default_factory=dict)
    choices: dict[str, object] = field(default_factory=dict)

    def density(self, token: Tensor, phi_psi: Tensor) -> VonMisesMixture:
        """The mixtures of N residues: token (N,), phi_psi (N,2) radians, nan where unknown."""
        kinds = set(token.tolist()) & self.components.keys()
        present = {kind: self.components[kind] for kind in sorted(kinds)}
        num = max((len(components.weight) for components in present.values()), default=1)
        weight = torch.zeros(len(token), num)
        weight[:, 0] = 1.0
        eta = torch.zeros(len(token), num, NUM_CHI_MAX, 2)
        for kind, components in present.items():
            rows = torch.nonzero(token == kind)[:, 0]
            size, num_chi = components.eta.shape[:2]
            weight[rows, :size] = components.weight
            eta[rows, :size, :num_chi] = components.eta
            if kind in self.backbone:
                rows = rows[phi_psi[rows].isfinite().all(1)]
                weight[rows, :size], eta[rows, :size, :num_chi] = self.backbone[kind].at(
                    phi_psi[rows]
                )
        return VonMisesMixture(
            log_weight=weight.clamp(min=1e-12).log(),
            mean=torch.atan2(eta[..., 1], eta[..., 0]),
            kappa=length_of(eta),
            chi_mask=torch.from_numpy(CHI_DEFINED)[token],
            symmetric=torch.from_numpy(PI_SYMMETRIC)[token],
        )


_TYPES = [token for token in range(NUM_TOKENS) if NUM_CHI[token]]


def uniform_library() -> Library:
    """Flat on the torus: needs no fit."""
    flat = {t: Components(torch.ones(1), torch.zeros(1, int(NUM_CHI[t]), 2)) for t in _TYPES}
    return Library("uniform", flat)


@dataclass
class TypeFit:
    """What the baselines know of one residue type; ``choices`` as in ``Library``."""

    nearest: Components
    components: Components | None = None
    backbone: BackboneComponents | None = None
    choices: dict[str, object] = field(default_factory=dict)
    smoothing: dict[str, object] = field(default_factory=dict)


Apply = Callable[[Callable[[int], TypeFit | None], Sequence[int]], Iterable[TypeFit | None]]


def fit_baselines(
    observed: Observed, names: Sequence[str], seed: int = 0, apply: Apply = map
) -> dict[str, Library]:
    """Fit the named baselines on the training split's residues.

    A residue type without observations keeps the uniform density. apply fits the types, as ``map``
    does, or side by side. Raises QfitLatentError for an unknown name.
    """
    if unknown := sorted(set(names) - set(BASELINES)):
        raise QfitLatentError(
            f"No baseline is called {unknown[0]!r}: choose from {', '.join(BASELINES)}."
        )
    libraries = {name: Library(name, dict(uniform_library().components)) for name in names}
    held_out = held_out_residues(observed.entry, seed)
    one = partial(_fit, observed, held_out, names, seed)
    # Types with many chi take longest: they come first, so that no process ends long after others.
    order = sorted(_TYPES, key=lambda token: -NUM_CHI[token])
    for token, fit in sorted(zip(order, apply(one, order), strict=True), key=lambda x: x[0]):
        if fit is None:
            continue
        if "nearest_rotamer" in libraries:
            libraries["nearest_rotamer"].components[token] = fit.nearest
        for name in {"type_library", "backbone_library"} & libraries.keys():
            if fit.components is not None:
                libraries[name].components[token] = fit.components
                libraries[name].choices |= fit.choices
        if fit.backbone is not None:
            libraries["backbone_library"].backbone[token] = fit.backbone
            libraries["backbone_library"].choices |= fit.smoothing
    return libraries


def _fit(
    observed: Observed, held_out: Tensor, names: Sequence[str], seed: int, token: int
) -> TypeFit | None:
    """The named baselines of one residue type; held_out (N,) bool. None without observations."""
    rows = few_of(rows_of_type(observed, token), MAX_ROWS, seed)
    if not len(rows.weight):
        return None
    fit = TypeFit(nearest_rotamer(rows, token))
    if not {"type_library", "backbone_library"} & set(names):
        return fit
    few = few_of(rows, CHOICE_ROWS, seed)
    is_held = held_out[few.residue]
    fitting, choosing = few.part(~is_held), few.part(is_held)
    enough = len(choosing.weight) > 0 and len(fitting.weight) > 0
    if enough:
        partial_fit, curve = fit_type(fitting, choosing, token, seed)
    else:
        partial_fit, curve = rotamer_start(rows, token, COMPONENT_CHOICES[0], seed), []
    fit.components = fit_components(rows, partial_fit)
    fit.choices[f"{token}.components"] = len(fit.components.weight) - 1
    fit.choices[f"{token}.curve"] = curve
    if "backbone_library" in names and enough:
        smoothing = _choose_smoothing(fit, token, few, observed.phi_psi, is_held, partial_fit)
        if smoothing is not None:
            whole, phi_psi = _with_backbone(rows, observed.phi_psi)
            fit.backbone = BackboneFit(whole, phi_psi, fit.components).fit(*smoothing)
    return fit


def few_of(rows: TypeRows, num: int, seed: int) -> TypeRows:
    """All rows, or ``num`` of them drawn without replacement."""
    if len(rows.weight) <= num:
        return rows
    drawn = np.random.default_rng(seed).choice(len(rows.weight), num, replace=False)
    keep = torch.zeros(len(rows.weight), dtype=torch.bool)
    keep[torch.from_numpy(drawn)] = True
    return rows.part(keep)


def held_out_residues(entry: Tensor, seed: int) -> Tensor:
    """(N,) bool: residues of the entries held out for the choices; entry (N,) long."""
    entries, number = entry.unique(return_inverse=True)
    rank = np.random.default_rng(seed).permutation(len(entries))
    return torch.from_numpy(rank % HELD_OUT_ONE_IN == 0)[number]


def _with_backbone(rows: TypeRows, phi_psi: Tensor) -> tuple[TypeRows, Tensor]:
    """The rows of residues that have phi and psi, and these (M,2); phi_psi (N,2)."""
    known = phi_psi[rows.residue].isfinite().all(1)
    rows = rows.part(known)
    return rows, phi_psi[rows.residue]


def _choose_smoothing(
    fit: TypeFit,
    token: int,
    rows: TypeRows,
    phi_psi: Tensor,
    is_held: Tensor,
    partial: Components,
) -> tuple[tuple[float, ...], float] | None:
    """Kernels and shrinkage for the phi/psi dependence of one type, best on the held-out entries.

    phi_psi (N,2) of the residues; is_held (M,) of the rows; partial is the type's mixture from the
    rows that are not held out. None where nothing is, or nothing else.
    """
    is_held = is_held[phi_psi[rows.residue].isfinite().all(1)]
    rows, phi_psi = _with_backbone(rows, phi_psi)
    if is_held.all() or not is_held.any():
        return None
    choosing = rows.part(is_held)
    # Every choice starts from one middling fit and makes one round of its own.
    trial = BackboneFit(rows.part(~is_held), phi_psi[~is_held], partial)
    middling = trial.maximise(trial.expect(None, KERNELS), SHRINKAGES[-2])
    sums = trial.expect(middling, KERNELS)
    tried: list[tuple[float, int, float]] = []

    def attempt(depth: int, shrinkage: float) -> None:
        fitted = trial.maximise(sums[:depth], shrinkage)
        fitted = trial.maximise(trial.expect(fitted, KERNELS[:depth]), shrinkage)
        value = choosing.mean_log_density(*fitted.at(phi_psi[is_held]))
        tried.append((value, depth, shrinkage))

    for shrinkage in SHRINKAGES:
        attempt(len(KERNELS), shrinkage)
    shrinkage = max(tried)[2]
    for depth in range(1, len(KERNELS)):
        attempt(depth, shrinkage)
    _, depth, shrinkage = max(tried)
    fit.smoothing[f"{token}.kernels"] = list(KERNELS[:depth])
    fit.smoothing[f"{token}.shrinkage"] = shrinkage
    fit.smoothing[f"{token}.smoothing_curve"] = [
        [KERNELS[depth - 1], shrinkage, value] for value, depth, shrinkage in tried
    ]
    return KERNELS[:depth], shrinkage
