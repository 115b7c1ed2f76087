"""Side chains that make a bond: disulfides and ligands of metals, as further candidates.

A grid over chi is searched for the geometry of the bond, beside what the density asks; the best few
minima become candidates. What a bond gains stands against the costs of the density: two cysteines
in reach of each other are nearly always bonded, and a bond that the file records is there.

Shapes: N residues, M metals, B bonded states, G points of a grid, D=4 chi. Angstrom, radians.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from qfitlatent.chemistry.geometry import dihedral, unit
from qfitlatent.chemistry.neighbours import pairs_within
from qfitlatent.chemistry.residues import (
    NUM_CHI,
    NUM_CHI_MAX,
    NUM_TOKENS,
    RESIDUE_TYPES,
    SIDE_CHAIN_ATOMS,
    TOKEN,
)
from qfitlatent.joint.atoms import Backbones
from qfitlatent.joint.candidates import Candidates, Densities

SG_SG = 2.05
CB_SG_SG = np.deg2rad(104.0)
CHI3 = np.deg2rad(90.0)
"""A disulfide (Engh & Huber, International Tables F (2001) 18.3), chi3 of either sign."""

CB_CB_MAX = 4.7
"""Between cysteines that can be bonded."""

LONGEST_SG_SG = 2.35
"""A pair whose backbones allow no shorter bond is not bonded."""

GAIN_NEAR = {"disulfide": 12.0, "metal": 4.0}
GAIN_RECORDED = 20.0
"""Nats that a bond gains: where the backbone suggests it, and where the file records it."""

MAX_STATES = 4
"""Minima of a bond that become candidates."""

SULPHUR_LONGER = 0.2
"""Bonds of metals to S than those to N and O."""

_APART = np.deg2rad(40.0)
"""Further minima are farther apart than this."""

_WORST = 8.0
"""Nats of strain above which there is no bond; a recorded one comes as near as it can."""

_WORST_OF_SEVERAL = 12.0
"""The same for bonds that a side chain makes at once."""

LIGANDS: dict[tuple[str, str], tuple[tuple[str, ...], float, float]] = {
    ("CYS", "SG"): (("CB",), 107.0, 8.0),
    ("HIS", "ND1"): (("CG", "CE1"), 126.0, 10.0),
    ("HIS", "NE2"): (("CD2", "CE1"), 126.0, 10.0),
    ("ASP", "OD1"): (("CG",), 120.0, 15.0),
    ("ASP", "OD2"): (("CG",), 120.0, 15.0),
    ("GLU", "OE1"): (("CD",), 120.0, 15.0),
    ("GLU", "OE2"): (("CD",), 120.0, 15.0),
    ("ASN", "OD1"): (("CG",), 130.0, 15.0),
    ("GLN", "OE1"): (("CD",), 130.0, 15.0),
    ("SER", "OG"): (("CB",), 120.0, 15.0),
    ("THR", "OG1"): (("CB",), 125.0, 15.0),
    ("TYR", "OH"): (("CZ",), 128.0, 12.0),
    ("MET", "SD"): (("CG", "CE"), 108.0, 10.0),
    ("LYS", "NZ"): (("CE",), 110.0, 10.0),
}
"""Ligand atoms: the atoms bonded to them, the degrees that those make with the metal, spread."""

_UNASKED = {"CYS": 4.5, "HIS": 6.3, "ASP": 5.2, "GLU": 6.5}
"""Residues that bind a metal without a record of it, within so many angstrom of CB."""

_REACH_OF = 2.2
"""Angstrom from such a metal to N and O; others reach farther by what their bonds are longer."""

CHELATED = 2.3
"""Metals with bonds of such a length are held by both oxygens of a carboxylate, record or not."""

CHELATE_DEGREES, CHELATE_LONGER = 92.0, 0.15
"""Of a carboxylate that holds a metal by both oxygens: C-O-metal, and how much longer each is."""

_GRID_STEPS = (0.0, 5.0, 10.0, 20.0, 30.0)
"""Degrees between points of a grid over so many chi."""

_DISULFIDE_STEP = np.deg2rad(5.0)
_CHI1 = np.arange(-np.pi, np.pi, _DISULFIDE_STEP)
_DISULFIDE_GRID = np.stack(np.meshgrid(_CHI1, _CHI1), axis=-1).reshape(-1, 2)


_FINEST = np.deg2rad(0.3)

_UNFAIR = 1e6
"""Nats of what is too strained for a cost to make up for it: among such ones the strain decides."""

_NO_GRID = np.zeros((0, 0))

StrainAndCost = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Points (G,d) to the strain of their bond and the cost of their density, (G,) nats each."""


@dataclass(frozen=True)
class Metals:
    """M metal atoms: position (M,3), distance (M,) to N and O; S is ``SULPHUR_LONGER`` away.

    attracts (M,) bool: it binds residues that no record names. links: (residue 0..N-1, name of its
    side-chain atom, metal 0..M-1) of the bonds that the file records.
    """

    position: np.ndarray
    distance: np.ndarray
    attracts: np.ndarray
    links: tuple[tuple[int, str, int], ...] = ()


@dataclass(frozen=True)
class Bonds:
    """Bonded states: candidates of their residues, and nats (B,) of the disulfides among them."""

    candidates: Candidates
    energy: np.ndarray

    def add_pair(self, energy: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
        """Two residues in the same disulfide state do not clash but are bonded.

        energy (C,C') in place; first (C,) and second (C',) are the bonds of their candidates.
        """
        i, j = np.nonzero((first[:, None] == second) & (first >= 0)[:, None])
        energy[i, j] = self.energy[first[i]]


def find_bonds(
    backbones: Backbones,
    densities: Densities,
    metals: Metals,
    recorded: frozenset[tuple[int, int]] = frozenset(),
) -> Bonds:
    """Disulfides and metal bonds of N residues; ``recorded`` disulfides are pairs i < j."""
    found: list[tuple[int, np.ndarray, float, int]] = []  # residue, chi, cost, bond
    energy: list[float] = []
    for i, j, chi_i, chi_j, strain in _disulfides(backbones, densities):
        gain = GAIN_RECORDED if (i, j) in recorded else GAIN_NEAR["disulfide"]
        for n, chi in ((i, chi_i), (j, chi_j)):
            found.append((n, chi, 0.0, len(energy)))
        energy.append(strain - gain)
    for n, chi, strain, gain in _metal_bonds(backbones, densities, metals):
        found.append((n, chi, strain - gain, len(energy)))
        energy.append(0.0)
    found.sort(key=lambda state: (state[0], state[3]))
    residue = np.array([state[0] for state in found], dtype=np.int64)
    chi = np.array([state[1] for state in found]).reshape(-1, 4)
    mode = densities.nearest_mode(residue, chi)
    cost = densities.cost(residue, chi, mode) + [state[2] for state in found]
    bond = np.array([state[3] for state in found], dtype=np.int64)
    return Bonds(Candidates(residue, chi, cost, mode, bond, np.zeros(len(bond))), np.array(energy))


def _disulfides(
    backbones: Backbones, densities: Densities
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, float]]:
    """(i, j, chi of i, chi of j, strain in nats) of pairs of cysteines that may be bonded."""
    cysteine = np.flatnonzero(backbones.token == TOKEN["CYS"])
    cb = backbones.cb()
    first, second = pairs_within(cb[cysteine], cb[cysteine], CB_CB_MAX)
    for i, j in cysteine[np.stack((first, second), axis=1)[first < second]].tolist():
        yield from _disulfide(backbones, densities, cb, i, j)


def _disulfide(
    backbones: Backbones, densities: Densities, cb: np.ndarray, i: int, j: int
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, float]]:
    circles = [_sg_circle(backbones, n) for n in (i, j)]

    def strain_and_cost(grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cost = np.zeros(len(grid))
        for n, chi1 in zip((i, j), grid.T, strict=True):
            each, back = np.unique(chi1, return_inverse=True)
            cost += densities.cost(np.full(len(each), n), _wide(each[:, None]))[back]
        sg = [on(chi1) for on, chi1 in zip(circles, grid.T, strict=True)]
        return _disulfide_strain(cb[i], sg[0], cb[j], sg[1]), cost

    for chi1, strain in _minima(_DISULFIDE_GRID, strain_and_cost, _DISULFIDE_STEP):
        sg = [on(angle) for on, angle in zip(circles, chi1[:, None], strict=True)]
        if np.linalg.norm(sg[0] - sg[1]) <= LONGEST_SG_SG:
            chi = _wide(chi1[:, None])
            yield i, j, chi[0], chi[1], strain


def _sg_circle(backbones: Backbones, n: int) -> Callable[[np.ndarray], np.ndarray]:
    """The function from chi1 (G,) of cysteine n to its SG (G,3)."""
    chi = np.zeros((3, 4))
    chi[:, 0] = 0.0, np.pi / 2, np.pi
    at_0, at_90, at_180 = backbones.build(np.full(3, n), chi)[:, 1]
    middle, cosine = (at_0 + at_180) / 2, (at_0 - at_180) / 2

    def sg(chi1: np.ndarray) -> np.ndarray:
        turned = np.multiply.outer(np.cos(chi1), cosine)
        return middle + turned + np.multiply.outer(np.sin(chi1), at_90 - middle)

    return sg


def _disulfide_strain(
    cb_i: np.ndarray, sg_i: np.ndarray, cb_j: np.ndarray, sg_j: np.ndarray
) -> np.ndarray:
    """(G,) nats of a disulfide with CB (3,) and SG (G,3) of both residues."""
    bond = np.linalg.norm(sg_i - sg_j, axis=1)
    chi3 = np.abs(dihedral(cb_i[None], sg_i, sg_j, cb_j[None]))
    return 0.5 * (
        ((bond - SG_SG) / 0.03) ** 2
        + ((_angle(cb_i, sg_i, sg_j) - CB_SG_SG) / np.deg2rad(6.0)) ** 2
        + ((_angle(cb_j, sg_j, sg_i) - CB_SG_SG) / np.deg2rad(6.0)) ** 2
        + ((chi3 - CHI3) / np.deg2rad(20.0)) ** 2
    )


def _metal_bonds(
    backbones: Backbones, densities: Densities, metals: Metals
) -> Iterator[tuple[int, np.ndarray, float, float]]:
    """(residue, chi, strain in nats, gain in nats) of side chains that bind metals."""
    last, grid, coords, step = -1, _NO_GRID, _NO_GRID, 0.0
    for n, bonds, gain in _bond_sets(backbones, metals):
        if n != last:  # the bonds of a residue stand together
            last, num = n, int(NUM_CHI[backbones.token[n]])
            step = np.deg2rad(_GRID_STEPS[num])
            angles = [np.arange(-np.pi, np.pi, step)] * num
            grid = np.stack(np.meshgrid(*angles, indexing="ij"), axis=-1).reshape(-1, num)
            coords = backbones.build(np.full(len(grid), n), _wide(grid))
        ligand = _Ligand(backbones, densities, metals, n, bonds)
        start = ligand.strain_and_cost(grid, coords)
        # One bond of a record comes as near as it can; several at once are made well or not at all.
        worst = _WORST if len(bonds) == 1 else _WORST_OF_SEVERAL
        forced = len(bonds) == 1 and gain == GAIN_RECORDED
        for chi, strain in _minima(grid, ligand, step, start):
            if strain <= worst or forced:
                yield n, _wide(chi[None])[0], min(strain, worst), gain


def _bond_sets(
    backbones: Backbones, metals: Metals
) -> Iterator[tuple[int, tuple[tuple[str, int], ...], float]]:
    """(residue, (atom, metal) of the bonds that it may make at once, their gain in nats).

    Of a residue of which several bonds are recorded, each by itself and all together: a carboxylate
    that holds a metal by both oxygens, or joins two.
    """
    recorded: dict[int, list[tuple[str, int]]] = {}
    for n, atom, m in sorted(set(metals.links)):
        if (RESIDUE_TYPES[backbones.token[n]], atom) in LIGANDS:
            recorded.setdefault(n, []).append((atom, m))
    for n, bonds in recorded.items():
        for bond in bonds:
            yield n, (bond,), GAIN_RECORDED
        if len(bonds) > 1:
            yield n, tuple(bonds), GAIN_RECORDED * len(bonds)
    known = {(n, m) for n, bonds in recorded.items() for _, m in bonds}
    cb = backbones.cb()
    farthest = max(_UNASKED.values()) + metals.distance.max(initial=_REACH_OF) - _REACH_OF
    near, metal = pairs_within(cb, metals.position, farthest)
    apart = np.linalg.norm(cb[near] - metals.position[metal], axis=1)
    reach = np.zeros(NUM_TOKENS)
    reach[[TOKEN[name] for name in _UNASKED]] = list(_UNASKED.values())
    longer = metals.distance[metal] - _REACH_OF
    free = (apart <= reach[backbones.token[near]] + longer) & metals.attracts[metal]
    for n, m in zip(near[free].tolist(), metal[free].tolist(), strict=True):
        name = RESIDUE_TYPES[backbones.token[n]]
        if (n, m) in known:
            continue
        atoms = [atom for kind, atom in LIGANDS if kind == name]
        for atom in atoms:
            yield n, ((atom, m),), GAIN_NEAR["metal"]
        if name in ("ASP", "GLU") and metals.distance[m] >= CHELATED:
            yield n, tuple((atom, m) for atom in atoms), 2 * GAIN_NEAR["metal"]


@dataclass(frozen=True)
class _Ligand:
    """Atoms of residue n, each on a metal: bonds of (atom, metal)."""

    backbones: Backbones
    densities: Densities
    metals: Metals
    n: int
    bonds: tuple[tuple[str, int], ...]

    def __call__(self, chi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        residue = np.full(len(chi), self.n)
        return self.strain_and_cost(chi, self.backbones.build(residue, _wide(chi)))

    def strain_and_cost(self, chi: np.ndarray, coords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of side chains chi (G,d), built as coords (G,A,3); only fair ones have a cost."""
        name = RESIDUE_TYPES[self.backbones.token[self.n]]
        on = [m for _, m in self.bonds]
        strain = np.zeros(len(chi))
        for atom, m in self.bonds:
            strain += _metal_strain(coords, (name, atom), self.metals, m, on.count(m) > 1)
        fair = np.flatnonzero(strain <= strain.min() + 4 * _WORST)
        cost = np.full(len(chi), _UNFAIR)
        cost[fair] = self.densities.cost(np.full(len(fair), self.n), _wide(chi[fair]))
        return strain, cost


def _wide(chi: np.ndarray) -> np.ndarray:
    """(G,D) from (G,d): chi that the type does not have are 0."""
    return np.column_stack((chi, np.zeros((len(chi), NUM_CHI_MAX - chi.shape[1]))))


def _metal_strain(
    coords: np.ndarray, ligand: tuple[str, str], metals: Metals, m: int, chelates: bool
) -> np.ndarray:
    """(G,) nats of the bond of a ligand atom of side chains (G,A,3) to metal m.

    ``chelates``: another atom of the side chain is bound to the same metal.
    """
    name, atom = ligand
    column = {a: k for k, a in enumerate(SIDE_CHAIN_ATOMS[name])}
    bonded, angle, spread = LIGANDS[ligand]
    length = metals.distance[m] + SULPHUR_LONGER * (atom[0] == "S")
    if chelates:
        angle, length = CHELATE_DEGREES, length + CHELATE_LONGER
    at, metal = coords[:, column[atom]], metals.position[m]
    strain = ((np.linalg.norm(at - metal, axis=1) - length) / 0.08) ** 2
    for other in bonded:
        off = _angle(coords[:, column[other]], at, metal) - np.deg2rad(angle)
        strain += (off / np.deg2rad(spread)) ** 2
    return 0.5 * strain


def _minima(
    grid: np.ndarray,
    strain_and_cost: StrainAndCost,
    step: float,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> Iterator[tuple[np.ndarray, float]]:
    """(chi (d,), strain) of the best few minima of strain + cost, best first, refined together.

    ``start`` is what ``strain_and_cost`` gives for the grid, where that is known.
    """
    strain, cost = start or strain_and_cost(grid)
    total = strain + cost
    left = np.ones(len(grid), dtype=bool)
    best = total.min()
    points: list[np.ndarray] = []
    for _ in range(MAX_STATES):
        total[~left] = np.inf
        at = int(total.argmin())
        if not total[at] <= best + 4 * _WORST:
            break
        apart = np.abs((grid - grid[at] + np.pi) % (2 * np.pi) - np.pi).max(axis=1)
        left &= apart > _APART
        points.append(grid[at])
    yield from zip(*_refined(np.array(points), strain_and_cost, step), strict=True)


def _refined(
    points: np.ndarray, strain_and_cost: StrainAndCost, step: float
) -> tuple[np.ndarray, list[float]]:
    """Points (P,d) down to half a degree and less, by grids of three points an axis that halve."""
    num, width = points.shape
    moves = np.array(list(itertools.product((0.0, -1.0, 1.0), repeat=width)))
    every = np.arange(num)
    while True:
        step /= 2
        grid = points[:, None] + step * moves  # (P,3^d,d)
        strain, cost = (x.reshape(num, -1) for x in strain_and_cost(grid.reshape(-1, width)))
        at = (strain + cost).argmin(axis=1)
        points = grid[every, at]
        if step < _FINEST:
            return (points + np.pi) % (2 * np.pi) - np.pi, strain[every, at].tolist()


def _angle(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """(G,) angle a-b-c."""
    cosine = np.einsum("ij,ij->i", unit(a - b), unit(c - b))
    return np.arccos(np.clip(cosine, -1.0, 1.0))
