"""Baselines: what is known about side chains without a model (SPEC 8).

Every baseline is fitted on the training split only and returns the density protocol of
``mixture.py``, so the same code scores it and the model.

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
entries one in four is held out for the choices; the final fit uses all.

Shapes: N residues, M observed rows (residue x altloc), K components, D chi of one residue type
(4 where padded), G nodes of the phi/psi grid along one angle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

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
    TOKEN,
)
from qfitlatent.mixture import VonMisesMixture, kappa_of_resultant

COMPONENT_CHOICES = (4, 8, 16, 32, 64)
"""Numbers of components tried for a residue type, beside the flat background."""


MIN_ROWS_PER_COMPONENT = 12
"""A choice of K is tried only where a component would have this many observations on average."""


EM_STEPS = 120


TRIAL_STEPS = 30
"""Steps of expectation-maximisation, at most: of the final fit, and of each that is compared."""


EM_TOLERANCE = 1e-5
"""Stop when the mean log-likelihood (nats) gains less than this in a step."""


PRIOR_ROWS = 3.0
"""Pseudo-observations behind each concentration: a component of one point stays finite."""


PRIOR_RESULTANT = 0.95
"""Mean resultant length of those pseudo-observations (kappa of about 10, or 18 degrees)."""


GRID_NODES = 36
"""G: 10 degrees between the nodes of phi and psi, interpolated bilinearly."""


KERNELS = (4.0, 12.0, 40.0, 120.0)
"""Concentrations of the phi/psi kernels, broad (29 degrees) to narrow (5 degrees)."""


SHRINKAGES = (6.0, 18.0, 54.0, 162.0)
"""Pseudo-observations, tried, by which a kernel's estimate is held to the broader one's."""


BACKBONE_STEPS = 4
"""Rounds of expectation and smoothing of the backbone-dependent library."""


HELD_OUT_ONE_IN = 4


MULTICONFORMER_WEIGHT = 4.0
"""Weight of a residue with several altlocs against one with a single conformer. They are few, and
what they show is broader. On held-out entries of 1145 crystal structures 4 instead of 1 lowers the
libraries' NLL on them by 0.03 nats and leaves the single conformers' as it is; 15 harms both."""


@dataclass(frozen=True)
class Observations:
    """Residues and their observed altlocs, as flat arrays; a row belongs to ``row_residue``.

    token (N,) int64; phi_psi (N,2) radians, nan where unknown; entry (N,) int64 number of the
    entry; row_residue (M,) int64 ascending; chi (M,4) radians, 0 where undefined; defined (M,4)
    bool; occupancy (M,) summing to 1 over a residue's rows.
    """

    token: np.ndarray
    phi_psi: np.ndarray
    entry: np.ndarray
    row_residue: np.ndarray
    chi: np.ndarray
    defined: np.ndarray
    occupancy: np.ndarray

    @property
    def num_conformers(self) -> np.ndarray:
        """(N,) observed altlocs of each residue."""
        return np.bincount(self.row_residue, minlength=len(self.token))

    def select(self, keep: np.ndarray) -> Observations:
        """The residues where keep (N,) bool is true, with their rows."""
        rows = keep[self.row_residue]
        number = np.cumsum(keep) - 1
        return Observations(
            self.token[keep],
            self.phi_psi[keep],
            self.entry[keep],
            number[self.row_residue[rows]],
            self.chi[rows],
            self.defined[rows],
            self.occupancy[rows],
        )


@dataclass
class Components:
    """Mixture of one residue type: weight (K,), eta (K,D,2) = kappa (cos mean, sin mean)."""

    weight: Tensor
    eta: Tensor

    @property
    def kappa(self) -> Tensor:
        """(K,D) concentration."""
        return self.eta.norm(dim=-1)


def log_i0(kappa: Tensor) -> Tensor:
    """log I0(kappa), finite for every kappa >= 0."""
    return torch.special.i0e(kappa).log() + kappa


@dataclass
class TypeRows:
    """Observed rows of one residue type: point (M,D,2) = (cos, sin), zero where undefined."""

    point: Tensor
    defined: Tensor
    weight: Tensor
    sign: Tensor
    """(D,) -1 for a pi-symmetric chi, else 1: chi + pi turns the point of a symmetric chi round."""
    residue: np.ndarray

    @property
    def symmetric(self) -> bool:
        return bool((self.sign < 0).any())

    def log_joint(self, log_weight: Tensor, eta: Tensor) -> Tensor:
        """(M,K) or, with a symmetric chi, (M,2K): log w_k vM(chi; k), then the same turned by pi.

        log_weight is (K,) or (M,K); eta (K,D,2) or (M,K,D,2).
        """
        norm = math.log(2 * math.pi) + log_i0(eta.norm(dim=-1))
        copies = [eta, eta * self.sign[:, None]] if self.symmetric else [eta]
        if eta.dim() == 3:
            base = log_weight - self.defined @ norm.T
            dots = [self.point.flatten(1) @ e.flatten(1).T for e in copies]
        else:
            base = log_weight - torch.einsum("md,mkd->mk", self.defined, norm)
            dots = [torch.einsum("mdc,mkdc->mk", self.point, e) for e in copies]
        if self.symmetric:
            base = base - math.log(2.0)
        return torch.cat([dot + base for dot in dots], dim=1)

    def responsibilities(self, log_weight: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
        """((M,K) or (M,2K) posterior times row weight, (M,) log-density)."""
        joint = self.log_joint(log_weight, eta)
        top = joint.amax(1, keepdim=True)
        joint = joint.sub_(top).exp_()  # one exp an element: logsumexp would take a second
        total = joint.sum(1, keepdim=True)
        return joint.mul_(self.weight[:, None] / total), (total.log() + top)[:, 0]

    def turned(self, posterior: Tensor) -> tuple[Tensor, Tensor | None]:
        """Posterior of the component as it is, and of its copy turned by pi (None if no such)."""
        return posterior.tensor_split(2, dim=1) if self.symmetric else (posterior, None)


def _part(rows: TypeRows, keep: np.ndarray) -> TypeRows:
    mask = torch.from_numpy(keep)
    return TypeRows(
        rows.point[mask], rows.defined[mask], rows.weight[mask], rows.sign, rows.residue[keep]
    )


def rows_of_type(observations: Observations, token: int) -> TypeRows:
    """The rows of one residue type that have any chi, weighted as the module says."""
    num_chi = int(NUM_CHI[token])
    rows = np.flatnonzero(
        (observations.token[observations.row_residue] == token)
        & observations.defined[:, :num_chi].any(axis=1)
    )
    chi = torch.from_numpy(observations.chi[rows, :num_chi].astype(np.float32))
    defined = torch.from_numpy(observations.defined[rows, :num_chi].astype(np.float32))
    emphasis = np.where(observations.num_conformers > 1, MULTICONFORMER_WEIGHT, 1.0)
    emphasis = emphasis[observations.row_residue]
    sign = np.where(PI_SYMMETRIC[token, :num_chi], -1.0, 1.0).astype(np.float32)
    return TypeRows(
        torch.stack([chi.cos(), chi.sin()], dim=-1) * defined[..., None],
        defined,
        torch.from_numpy((observations.occupancy * emphasis)[rows].astype(np.float32)),
        torch.from_numpy(sign),
        observations.row_residue[rows],
    )


def rotamer_cells(rows: TypeRows, token: int) -> Tensor:
    """(M,) number of the rotamer-grid cell of each row, -1 where a chi is undefined.

    Tetrahedral chi have three cells (60, 180, -60 degrees); the last chi of the planar groups
    twelve cells of 30 degrees, six where it is pi-symmetric; the ring of PRO two signs.
    """
    angle = torch.atan2(rows.point[..., 1], rows.point[..., 0])
    cell = torch.zeros(len(angle), dtype=torch.long)
    for d in range(angle.shape[1]):
        num, offset = _CELLS.get((token, d), (3, 0.0))
        period = math.pi if rows.sign[d] < 0 else 2 * math.pi
        turn = torch.remainder(angle[:, d] + offset, period) / period
        cell = cell * num + (turn * num).long().clamp(max=num - 1)
    return torch.where(rows.defined.bool().all(1), cell, -1)


_HALF_CELL = math.radians(15.0)


_CELLS: dict[tuple[int, int], tuple[int, float]] = {
    (TOKEN[name], chi - 1): (num, offset)
    for name, chi, num, offset in (
        ("ASN", 2, 12, _HALF_CELL),
        ("ASP", 2, 6, _HALF_CELL),
        ("GLN", 3, 12, _HALF_CELL),
        ("GLU", 3, 6, _HALF_CELL),
        ("HIS", 2, 12, _HALF_CELL),
        ("PHE", 2, 6, _HALF_CELL),
        ("TRP", 2, 12, _HALF_CELL),
        ("TYR", 2, 6, _HALF_CELL),
        ("PRO", 1, 2, 0.0),
        ("PRO", 2, 2, 0.0),
    )
}


def _cell_resultants(rows: TypeRows, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Occupied cells, heaviest first: (C,) cell, (C,) weight, (C,D,2) summed resultant.

    A symmetric chi is brought to the half circle that the cell counts before summing.
    """
    point = rows.point
    if rows.symmetric:
        angle = torch.atan2(point[..., 1], point[..., 0])
        flip = (torch.remainder(angle + _HALF_CELL, 2 * math.pi) >= math.pi) & (rows.sign < 0)
        point = torch.where(flip[..., None], -point, point)
    kept = cell >= 0
    values, index = cell[kept].unique(return_inverse=True)
    weight = torch.zeros(len(values)).index_add_(0, index, rows.weight[kept])
    total = torch.zeros(len(values), *point.shape[1:]).index_add_(
        0, index, point[kept] * rows.weight[kept, None, None]
    )
    order = weight.argsort(descending=True, stable=True)
    return values[order], weight[order], total[order]


def _eta(total: Tensor, count: Tensor) -> Tensor:
    """Natural parameters (...,K,D,2) from summed resultants and their counts (...,K,D)."""
    length = total.norm(dim=-1)
    mean_length = (length + PRIOR_ROWS * PRIOR_RESULTANT) / (count + PRIOR_ROWS)
    kappa = kappa_of_resultant(mean_length)
    return total / length.clamp(min=1e-12)[..., None] * kappa[..., None]


def flat_component(num_chi: int) -> Components:
    """The uniform density as a mixture of one component."""
    return Components(torch.ones(1), torch.zeros(1, num_chi, 2))


def nearest_rotamer(rows: TypeRows, token: int) -> Components:
    """Populations, means and spreads of the rotamer cells, and a background of one observation."""
    _, weight, total = _cell_resultants(rows, rotamer_cells(rows, token))
    num_chi = rows.point.shape[1]
    eta = _eta(total, weight[:, None].expand(-1, num_chi))
    return Components(
        torch.cat([torch.ones(1), weight]) / (1.0 + weight.sum()),
        torch.cat([torch.zeros(1, num_chi, 2), eta]),
    )


def rotamer_start(rows: TypeRows, token: int, num: int, seed: int) -> Components:
    """K = num components spread over the rotamer cells by population, and the flat background.

    Cells receive components one at a time, always the one with the most observations per component
    (d'Hondt); the second and later components of a cell start at observations drawn from it.
    """
    generator = torch.Generator().manual_seed(seed)
    cell = rotamer_cells(rows, token)
    values, weight, total = _cell_resultants(rows, cell)
    shares = np.zeros(len(values), dtype=np.int64)
    population = weight.numpy()
    for _ in range(num):
        shares[np.argmax(population / (shares + 1))] += 1
    eta, mass = [], []
    base = _eta(total, weight[:, None].expand(-1, total.shape[1]))
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
    total_weight = rows.weight.sum()
    last = -math.inf
    flat_rows = rows.point.flatten(1)
    for _ in range(steps):
        posterior, density = rows.responsibilities(fitted.weight.log(), fitted.eta)
        value = float((density * rows.weight).sum() / total_weight)
        straight, turned = rows.turned(posterior)
        total = (straight.T @ flat_rows).view(-1, *rows.point.shape[1:])
        mass = straight
        if turned is not None:
            total = total + (turned.T @ flat_rows).view_as(total) * rows.sign[:, None]
            mass = straight + turned
        eta = _eta(total, mass.T @ rows.defined)
        eta[0] = 0.0
        weight = mass.sum(0) + 0.1
        fitted = Components(weight / weight.sum(), eta)
        if value - last < EM_TOLERANCE:
            break
        last = value
    return fitted


def held_out_log_likelihood(rows: TypeRows, fitted: Components) -> float:
    """Mean log-density over the rows, in nats."""
    joint = rows.log_joint(fitted.weight.log(), fitted.eta)
    return float((joint.logsumexp(1) * rows.weight).sum() / rows.weight.sum())


def fit_type(
    training: TypeRows, held_out: TypeRows, token: int, seed: int
) -> tuple[Components, list[tuple[int, float]]]:
    """The fit whose number of components has the best held-out likelihood, and that curve."""
    curve, best = [], None
    for num in COMPONENT_CHOICES:
        if curve and len(training.weight) < MIN_ROWS_PER_COMPONENT * num:
            break
        start = rotamer_start(training, token, num, seed)
        fitted = fit_components(training, start, TRIAL_STEPS)
        value = held_out_log_likelihood(held_out, fitted)
        if not curve or value > max(v for _, v in curve):
            best = fitted
        curve.append((num, value))
    return best, curve


@dataclass
class BackboneComponents:
    """weight (G,G,K), eta (G,G,K,D,2) at the nodes of phi and psi; node g at -pi + 2 pi g / G."""

    weight: Tensor
    eta: Tensor

    def at(self, phi_psi: Tensor) -> tuple[Tensor, Tensor]:
        """weight (N,K) and eta (N,K,D,2) at phi_psi (N,2) radians, bilinear and periodic."""
        node, fraction = _grid_position(phi_psi)
        weight, eta = 0.0, 0.0
        for i in (0, 1):
            for j in (0, 1):
                share = (fraction[:, 0] if i else 1 - fraction[:, 0]) * (
                    fraction[:, 1] if j else 1 - fraction[:, 1]
                )
                at = (node[:, 0] + i) % GRID_NODES, (node[:, 1] + j) % GRID_NODES
                weight = weight + share[:, None] * self.weight[at]
                eta = eta + share[:, None, None, None] * self.eta[at]
        return weight, eta


def _grid_position(phi_psi: Tensor) -> tuple[Tensor, Tensor]:
    """Lower node (N,2) long and fraction (N,2) of the way to the next."""
    position = torch.remainder(phi_psi + math.pi, 2 * math.pi) / (2 * math.pi) * GRID_NODES
    node = position.floor()
    return node.long() % GRID_NODES, (position - node).float()


def _deposit(values: Tensor, phi_psi: Tensor) -> Tensor:
    """Sum values (M,F) into the nodes, shared bilinearly: (G,G,F)."""
    node, fraction = _grid_position(phi_psi)
    grid = torch.zeros(GRID_NODES * GRID_NODES, values.shape[1])
    for i in (0, 1):
        for j in (0, 1):
            share = (fraction[:, 0] if i else 1 - fraction[:, 0]) * (
                fraction[:, 1] if j else 1 - fraction[:, 1]
            )
            flat = (node[:, 0] + i) % GRID_NODES * GRID_NODES + (node[:, 1] + j) % GRID_NODES
            grid.index_add_(0, flat, values * share[:, None])
    return grid.view(GRID_NODES, GRID_NODES, -1)


def _smoothing_matrix(concentration: float) -> Tensor:
    """(G,G) circulant von Mises kernel, 1 at distance 0, so that sums stay counts."""
    angle = torch.arange(GRID_NODES) * (2 * math.pi / GRID_NODES)
    difference = angle[:, None] - angle[None, :]
    return torch.exp(concentration * (difference.cos() - 1.0))


def _smooth(grid: Tensor, prior: Tensor, kernels: tuple[float, ...], shrinkage: float) -> Tensor:
    """Statistics (G,G,F) per observation; the last column of grid counts the observations.

    From broad to narrow each kernel's sums are averaged with ``shrinkage`` pseudo-observations of
    the estimate before it; prior (F,) stands before the broadest.
    """
    estimate = prior.expand_as(grid)
    for concentration in kernels:
        kernel = _smoothing_matrix(concentration)
        total = torch.einsum("ab,bcf->acf", kernel, grid)
        total = torch.einsum("cd,adf->acf", kernel, total)
        estimate = (total + shrinkage * estimate) / (total[..., -1:] + shrinkage)
    return estimate


@dataclass
class BackboneFit:
    """Rows of one residue type with known phi and psi, and the library they are smoothed to."""

    rows: TypeRows
    phi_psi: Tensor
    library: Components

    @classmethod
    def of(cls, rows: TypeRows, phi_psi: Tensor, library: Components) -> BackboneFit:
        """phi_psi (M,2) radians of each row; rows where either is nan are left out."""
        known = phi_psi.isfinite().all(1)
        return cls(_part(rows, known.numpy()), phi_psi[known], library)

    def prior(self) -> Tensor:
        """(F,) what the library alone says of the statistics: the estimate far from any row."""
        kappa = self.library.kappa
        length = torch.special.i1e(kappa) / torch.special.i0e(kappa)
        direction = self.library.eta / kappa.clamp(min=1e-12)[..., None]
        weight = self.library.weight
        return torch.cat(
            [
                weight.repeat_interleave(kappa.shape[1]),
                (weight[:, None, None] * length[..., None] * direction).flatten(),
                weight,
                torch.ones(1),
            ]
        )

    def expect(self, current: BackboneComponents | None) -> Tensor:
        """(G,G,F) expected counts and resultants of each component, summed into the grid.

        current None stands for the library itself.
        """
        rows = self.rows
        if current is None:
            posterior, _ = rows.responsibilities(self.library.weight.log(), self.library.eta)
        else:
            weight, eta = current.at(self.phi_psi)
            posterior, _ = rows.responsibilities(weight.log(), eta)
        straight, turned = rows.turned(posterior)
        mass, lever = straight, straight[:, :, None]
        if turned is not None:
            mass = straight + turned
            lever = straight[:, :, None] + turned[:, :, None] * rows.sign
        statistics = torch.cat(
            [
                (mass[:, :, None] * rows.defined[:, None]).flatten(1),
                (lever[..., None] * rows.point[:, None]).flatten(1),
                mass,
                rows.weight[:, None],
            ],
            dim=1,
        )
        return _deposit(statistics, self.phi_psi)

    def maximise(
        self, statistics: Tensor, kernels: tuple[float, ...], shrinkage: float
    ) -> BackboneComponents:
        """Weights, means and concentrations at the nodes from the smoothed statistics."""
        num, num_chi = self.library.kappa.shape
        smooth = _smooth(statistics, self.prior(), kernels, shrinkage)
        split = [num * num_chi, 2 * num * num_chi, num, 1]
        count, resultant, weight, _ = smooth.split(split, dim=-1)
        resultant = resultant.unflatten(-1, (num, num_chi, 2))
        length = resultant.norm(dim=-1)
        mean_length = length / count.unflatten(-1, (num, num_chi)).clamp(min=1e-12)
        eta = resultant / length.clamp(min=1e-12)[..., None]
        eta = eta * kappa_of_resultant(mean_length, steps=1)[..., None]
        eta[:, :, 0] = 0.0
        weight = weight.clamp(min=1e-6)
        return BackboneComponents(weight / weight.sum(-1, keepdim=True), eta)

    def fit(self, kernels: tuple[float, ...], shrinkage: float) -> BackboneComponents:
        """Rounds of expectation and smoothing, from the library."""
        current = None
        for _ in range(BACKBONE_STEPS):
            current = self.maximise(self.expect(current), kernels, shrinkage)
        return current


def held_out_backbone(rows: TypeRows, phi_psi: Tensor, fitted: BackboneComponents) -> float:
    """Mean log-density, in nats, over the rows that have phi and psi."""
    known = phi_psi.isfinite().all(1)
    part = _part(rows, known.numpy())
    weight, eta = fitted.at(phi_psi[known])
    density = part.log_joint(weight.log(), eta).logsumexp(1)
    return float((density * part.weight).sum() / part.weight.sum())


def _as_mixture(token: np.ndarray, weight: Tensor, eta: Tensor) -> VonMisesMixture:
    """weight (N,K), eta (N,K,4,2) to the protocol."""
    return VonMisesMixture(
        log_weight=weight.clamp(min=1e-12).log(),
        mean=torch.atan2(eta[..., 1], eta[..., 0]),
        kappa=eta.norm(dim=-1),
        chi_mask=torch.from_numpy(CHI_DEFINED[token]),
        symmetric=torch.from_numpy(PI_SYMMETRIC[token]),
    )


@dataclass
class Library:
    """One baseline; ``density`` gives the protocol's mixture for any residues.

    components: the type's mixture, by token; backbone: the phi/psi dependence, by token (absent
    where the type has too few observations). choices records what held-out likelihood chose.
    """

    name: str
    components: dict[int, Components]
    backbone: dict[int, BackboneComponents] = field(default_factory=dict)
    choices: dict[str, object] = field(default_factory=dict)

    def density(self, token: np.ndarray, phi_psi: np.ndarray) -> VonMisesMixture:
        """The mixtures of N residues: token (N,), phi_psi (N,2) radians, nan where unknown."""
        token = np.asarray(token)
        num = max(c.weight.shape[0] for c in self.components.values())
        weight = torch.zeros(len(token), num)
        weight[:, 0] = 1.0
        eta = torch.zeros(len(token), num, NUM_CHI_MAX, 2)
        angles = torch.from_numpy(np.asarray(phi_psi, dtype=np.float32))
        for kind, components in self.components.items():
            rows = torch.from_numpy(np.flatnonzero(token == kind))
            size, num_chi = components.eta.shape[:2]
            weight[rows, :size] = components.weight
            eta[rows, :size, :num_chi] = components.eta
            if kind in self.backbone:
                rows = rows[angles[rows].isfinite().all(1)]
                weight[rows, :size], eta[rows, :size, :num_chi] = self.backbone[kind].at(
                    angles[rows]
                )
        return _as_mixture(token, weight, eta)


def _types() -> list[int]:
    return [token for token in range(NUM_TOKENS) if NUM_CHI[token]]


def uniform_library() -> Library:
    """Flat on the torus: needs no fit."""
    return Library("uniform", {t: flat_component(int(NUM_CHI[t])) for t in _types()})


def fit_baselines(
    observations: Observations,
    names: tuple[str, ...] = ("uniform", "nearest_rotamer", "type_library", "backbone_library"),
    seed: int = 0,
) -> dict[str, Library]:
    """Fit the named baselines on the training split's observations.

    A residue type without observations keeps the uniform density. Raises QfitLatentError for an
    unknown name.
    """
    known = {"uniform", "nearest_rotamer", "type_library", "backbone_library"}
    if unknown := sorted(set(names) - known):
        raise QfitLatentError(
            f"No baseline is called {unknown[0]!r}: choose from {', '.join(sorted(known))}."
        )
    libraries = {name: Library(name, dict(uniform_library().components)) for name in names}
    held_out = _held_out(observations.entry, seed)
    learns = {"type_library", "backbone_library"} & set(names)
    for token in _types():
        rows = rows_of_type(observations, token)
        if not len(rows.weight):
            continue
        if "nearest_rotamer" in names:
            libraries["nearest_rotamer"].components[token] = nearest_rotamer(rows, token)
        if learns:
            _fit_libraries(observations, held_out, rows, token, seed, libraries)
    return libraries


def _held_out(entry: np.ndarray, seed: int) -> np.ndarray:
    """(N,) bool: residues of the entries held out for the choices."""
    entries = np.unique(entry)
    rank = np.random.default_rng(seed).permutation(len(entries))
    return (rank % HELD_OUT_ONE_IN == 0)[np.searchsorted(entries, entry)]


def _fit_libraries(
    observations: Observations,
    held_out: np.ndarray,
    rows: TypeRows,
    token: int,
    seed: int,
    libraries: dict[str, Library],
) -> None:
    """Choose on the held-out entries, refit on all, for one residue type."""
    is_held = held_out[rows.residue]
    fitting, choosing = _part(rows, ~is_held), _part(rows, is_held)
    enough = len(choosing.weight) > 0 and len(fitting.weight) > 0
    if enough:
        partial, curve = fit_type(fitting, choosing, token, seed)
    else:
        partial, curve = rotamer_start(rows, token, COMPONENT_CHOICES[0], seed), []
    components = fit_components(rows, partial)
    for name in {"type_library", "backbone_library"} & set(libraries):
        libraries[name].components[token] = components
        libraries[name].choices[f"{token}.components"] = len(components.weight) - 1
        libraries[name].choices[f"{token}.curve"] = curve
    if "backbone_library" not in libraries or not enough:
        return
    angles = torch.from_numpy(observations.phi_psi.astype(np.float32))
    known = angles[choosing.residue].isfinite().all(1)
    if not (known.any() and angles[fitting.residue].isfinite().all(1).any()):
        return
    # Every choice starts from one middling fit and makes one round of its own.
    trial = BackboneFit.of(fitting, angles[fitting.residue], partial)
    middling = trial.maximise(trial.expect(None), KERNELS, SHRINKAGES[-2])
    statistics = trial.expect(middling)
    tried: list[tuple[float, int, float]] = []

    def attempt(depth: int, shrinkage: float) -> None:
        fitted = trial.maximise(statistics, KERNELS[:depth], shrinkage)
        fitted = trial.maximise(trial.expect(fitted), KERNELS[:depth], shrinkage)
        value = held_out_backbone(choosing, angles[choosing.residue], fitted)
        tried.append((value, depth, shrinkage))

    for shrinkage in SHRINKAGES:
        attempt(len(KERNELS), shrinkage)
    shrinkage = max(tried)[2]
    for depth in range(1, len(KERNELS)):
        attempt(depth, shrinkage)
    _, depth, shrinkage = max(tried)
    libraries["backbone_library"].backbone[token] = BackboneFit.of(
        rows, angles[rows.residue], components
    ).fit(KERNELS[:depth], shrinkage)
    libraries["backbone_library"].choices[f"{token}.kernels"] = list(KERNELS[:depth])
    libraries["backbone_library"].choices[f"{token}.shrinkage"] = shrinkage
    libraries["backbone_library"].choices[f"{token}.smoothing_curve"] = [
        [KERNELS[depth - 1], shrinkage, value] for value, depth, shrinkage in tried
    ]
