"""What is measured of a side chain and follows from its chi: order parameters, couplings, rotamers.

The kinds, in one list that gives each its number; ``density/observables.py`` has their values.

- ``S2``: order parameter of a methyl group's symmetry axis, seen from the backbone.
- ``3J``: vicinal coupling, J = A cos^2(theta) + B cos(theta) + C with theta = chi1 + shift, by the
  parameters of ``data/couplings.csv``: Perez et al., J. Am. Chem. Soc. 123 (2001) 7081, and Chou,
  Case & Bax, J. Am. Chem. Soc. 125 (2003) 8959, as OpenFF's proteinbenchmark tabulates them. The
  error is the rms by which the measured couplings differ from the curve.
- ``population``: share of chi1 in a third of the circle: g+ (0 to 120 degrees), t (to 240), g-.

Shapes: Q kinds, W the most that a residue type has.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import chain

import numpy as np

from qfitlatent.chemistry.building import ideal_geometry
from qfitlatent.chemistry.residues import (
    NUM_CHI,
    NUM_TOKENS,
    RESIDUE_TYPES,
    SIDE_CHAIN_ATOMS,
    TOKEN,
)

METHYLS = {
    "ILE": ("CG2", "CD1"),
    "LEU": ("CD1", "CD2"),
    "MET": ("CE",),
    "THR": ("CG2",),
    "VAL": ("CG1", "CG2"),
}
"""Carbons whose methyl axis a chi turns. That of ALA is rigid on its backbone: S2 of 1, not said.

The axis is the bond to the carbon; around it the three hydrogens spin."""

MAX_DEPTH = 3
"""Most chi between a methyl axis and the backbone."""

ROTAMERS = ("g+", "t", "g-")
"""Thirds of the circle of a chi, from 0 degrees on."""

NUM_ROTAMERIC = NUM_CHI - np.isin(
    np.arange(NUM_TOKENS),
    [TOKEN[name] for name in ("ASN", "ASP", "GLN", "GLU", "HIS", "PHE", "PRO", "TRP", "TYR")],
)
"""(21,) chi with rotamers: not one that ends in a plane (Shapovalov & Dunbrack, Structure 19 (2011)
844); of the ring of proline chi1 alone, whose sign is its pucker."""


@dataclass(frozen=True)
class Axis:
    """A bond at the end of a chain of torsions.

    Of each of its ``len(angle)`` chi, from the backbone on: angle, between the bond that it turns
    about and the next, radians; offset of the dihedral to the chi, radians.
    """

    angle: tuple[float, ...]
    offset: tuple[float, ...]


@dataclass(frozen=True)
class Karplus:
    """J = a cos^2(theta) + b cos(theta) + c in Hz, theta = chi1 + shift (radians)."""

    shift: float
    a: float
    b: float
    c: float


@dataclass(frozen=True)
class Kind:
    """One thing that can be measured of a residue type.

    site: the methyl carbon, the two atoms that couple, or the rotamer of chi1. error: of the
    relation itself, in the unit; None where it is a definition. form: what the value follows from,
    None of a population.
    """

    token: int
    quantity: str
    site: str
    unit: str
    error: float | None = None
    form: Axis | Karplus | None = None


@cache
def kinds() -> tuple[Kind, ...]:
    """All Q kinds, the order parameters first, then couplings, then populations."""
    order = [
        Kind(TOKEN[name], "S2", atom, "1", form=_axis(name, atom))
        for name, atoms in METHYLS.items()
        for atom in atoms
    ]
    populations = [
        Kind(TOKEN[name], "population", rotamer, "1")
        for name in RESIDUE_TYPES
        if NUM_CHI[TOKEN[name]] and name != "PRO"
        for rotamer in ROTAMERS
    ]
    return (*order, *_couplings(), *populations)


@cache
def kinds_of() -> np.ndarray:
    """(21,W) numbers of the kinds of each residue type in their order, then -1."""
    own = [[n for n, kind in enumerate(kinds()) if kind.token == t] for t in range(NUM_TOKENS)]
    table = np.full((NUM_TOKENS, max(map(len, own))), -1)
    for row, numbers in zip(table, own, strict=True):
        row[: len(numbers)] = numbers
    return table


def _axis(name: str, atom: str) -> Axis:
    """The torsions of ideal geometry from CA-CB to the bond that ends in this atom."""
    geometry, row = ideal_geometry(), TOKEN[name]
    column = SIDE_CHAIN_ATOMS[name].index(atom)
    steps = []
    while column > 0:  # column 0 is CB
        steps.append((geometry.angle[row, column], geometry.dihedral[row, column]))
        column = int(geometry.parents[row, column, 2]) - 2
    angle, offset = zip(*reversed(steps), strict=True)
    return Axis(tuple(map(float, angle)), tuple(map(float, offset)))


def _couplings() -> chain[Kind]:
    with files("qfitlatent").joinpath("data", "couplings.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return chain.from_iterable(_of_row(row) for row in rows)


def _of_row(row: dict[str, str]) -> list[Kind]:
    """The coupling of a row of ``data/couplings.csv``, of each residue type that it names."""
    curve = [float(row[name]) for name in ("A_hz", "B_hz", "C_hz")]
    form = Karplus(float(np.deg2rad(float(row["shift_degrees"]))), *curve)
    error = float(row["error_hz"])
    names = row["residues"].split()
    return [Kind(TOKEN[name], "3J", row["site"], "Hz", error, form) for name in names]
