"""The backbone of residues: frames (SPEC 4), what is bonded, its angles and shape, and burial.

Shapes: N kept residues.
"""

from dataclasses import dataclass

import numpy as np

from qfitlatent.chemistry import geometry
from qfitlatent.chemistry.neighbours import pairs_within
from qfitlatent.structure.residues import BACKBONE, Residues
from qfitlatent.tables.reasons import Reason

BOND_ANGSTROM = 2.0
"""C(i)-N(i+1) below this is a bond (SPEC 2)."""

NEIGHBOUR_ANGSTROM = 10.0

CELLS_ABOVE = 4096
"""Residues of an entry above which neighbours are searched by cells, so many at a time."""

# Runs of residues with these backbone angles, in degrees, at least so long, are called so. Regions
# and lengths after the usual contours of the Ramachandran plot (Lovell et al. 2003).
_HELIX = ((-115.0, -35.0), (-75.0, 0.0), 4)
_STRAND = ((-180.0, -45.0), (90.0, 190.0), 3)


@dataclass(frozen=True)
class Backbone:
    """What the backbone atoms of each residue say; nan where there is nothing to say."""

    rotation: np.ndarray  # (N,3,3)
    translation: np.ndarray  # (N,3) angstrom
    ok: np.ndarray  # (N,) bool: it has a frame
    label: np.ndarray  # (N,) altloc of the frame's atoms, 0 for blank, -1 for no frame
    is_observed: np.ndarray  # (N,) bool: none of these atoms has occupancy 0
    segment: np.ndarray  # (N,) run of bonded residues in the chain, from 0
    phi: np.ndarray  # (N,) radians, as are the next two
    psi: np.ndarray
    omega: np.ndarray
    secondary: np.ndarray  # (N,) 0 loop, 1 helix, 2 strand
    num_neighbours: np.ndarray  # (N,) other residues with CB within 10 angstrom


def backbone_of(residues: Residues) -> Backbone:
    """Residues without a frame become rejected rows of the scope frame."""
    chosen, label = _primary_atoms(residues)
    points = residues.points(chosen)
    n, ca, c = points.transpose(1, 0, 2)
    rotation, translation, ok = geometry.frames(n, ca, c)
    incomplete = np.flatnonzero(label < 0)
    missing = _missing(residues, incomplete)
    residues.reject("frame", Reason.INCOMPLETE_BACKBONE, incomplete, missing)
    degenerate = np.flatnonzero((label >= 0) & ~ok)
    residues.reject(
        "frame", Reason.DEGENERATE_BACKBONE, degenerate, "N, CA and C coincide or are on a line"
    )

    gap = n[1:] - c[:-1]
    with np.errstate(invalid="ignore"):
        near = np.einsum("ij,ij->i", gap, gap) < BOND_ANGSTROM**2
    bonded = np.r_[False, near & ~residues.first_in_chain[1:]]  # to the residue before
    run = np.cumsum(~bonded)
    starts = np.maximum.accumulate(np.where(residues.first_in_chain, np.arange(len(n)), 0))
    before = np.flatnonzero(bonded)
    after = before - 1
    phi, psi, omega = np.full((3, len(n)), np.nan)
    phi[before] = geometry.dihedral(c[after], n[before], ca[before], c[before])
    psi[after] = geometry.dihedral(n[after], ca[after], c[after], n[before])
    omega[before] = geometry.dihedral(ca[after], c[after], n[before], ca[before])
    return Backbone(
        rotation=rotation,
        translation=translation,
        ok=ok,
        label=np.where(ok, label, -1),
        is_observed=(residues.occupancy[chosen] != 0).all(axis=1),
        segment=run - run[starts],
        phi=phi,
        psi=psi,
        omega=omega,
        secondary=_secondary(phi, psi, run),
        num_neighbours=_num_neighbours(residues.entry, geometry.virtual_cb(n, ca, c), ok),
    )


def _primary_atoms(residues: Residues) -> tuple[np.ndarray, np.ndarray]:
    """(N,3) atoms N, CA, C of the frame, -1 for none, and (N,) altloc that gives them, -1: none."""
    chosen = residues.blank[:, BACKBONE]
    label = np.where((chosen >= 0).all(axis=1), 0, -1)
    own, row = residues.own[:, BACKBONE], residues.group_row
    merged = np.where(own >= 0, own, chosen[row])
    fits = np.flatnonzero((own >= 0).any(axis=1) & (merged >= 0).all(axis=1) & (label[row] < 0))
    occupancy = residues.mean_occupancy(own[fits])
    occupancy[np.isnan(occupancy)] = -1.0
    worst_first = fits[np.lexsort((-residues.group_label[fits], occupancy))]
    chosen[row[worst_first]] = merged[worst_first]
    label[row[worst_first]] = residues.group_label[worst_first]
    return chosen, label


def _missing(residues: Residues, rows: np.ndarray) -> list[str]:
    """What lacks, in words: atoms in no altloc, or no altloc that has all three."""
    anywhere = residues.blank[:, BACKBONE] >= 0
    np.logical_or.at(anywhere, residues.group_row, residues.own[:, BACKBONE] >= 0)
    atoms = np.array(["N", "CA", "C"])
    return [
        f"no {', '.join(atoms[~there])}" if not there.all() else "no altloc has N, CA and C"
        for there in anywhere[rows]
    ]


def _num_neighbours(entry: np.ndarray, cb: np.ndarray, ok: np.ndarray) -> np.ndarray:
    """(N,) other residues of the entry whose CB is near, among those that have a frame."""
    number = np.zeros(len(entry), dtype=np.int64)
    ends = np.flatnonzero(np.r_[entry[1:] != entry[:-1], True]) + 1
    for start, end in zip(np.r_[0, ends[:-1]], ends, strict=True):
        rows = start + np.flatnonzero(ok[start:end])
        number[rows] = _count_within(cb[rows], NEIGHBOUR_ANGSTROM)
    return number


def _secondary(phi: np.ndarray, psi: np.ndarray, run: np.ndarray) -> np.ndarray:
    """(N,) 0 loop, 1 helix, 2 strand; run numbers the stretches of bonded residues."""
    phi, psi = np.degrees(phi), np.degrees(psi)
    found = np.zeros(len(phi), dtype=np.int64)
    for kind, ((phi_low, phi_high), (psi_low, psi_high), least) in ((1, _HELIX), (2, _STRAND)):
        with np.errstate(invalid="ignore"):
            turned = np.where(psi < psi_low, psi + 360.0, psi)
            inside = (phi >= phi_low) & (phi <= phi_high) & (turned >= psi_low)
            inside &= turned <= psi_high
        same = inside[1:] & inside[:-1] & (run[1:] == run[:-1])
        stretch = np.cumsum(np.r_[True, ~same])
        long = np.bincount(stretch)[stretch] >= least
        found[inside & long] = kind
    return found


def _count_within(points: np.ndarray, radius: float) -> np.ndarray:
    """(n,) number of other points within the radius; blocks of rows keep memory flat."""
    if len(points) > CELLS_ABOVE:
        blocks = (points[i : i + CELLS_ABOVE] for i in range(0, len(points), CELLS_ABOVE))
        pairs = ((len(rows), pairs_within(rows, points, radius)[0]) for rows in blocks)
        return np.concatenate([np.bincount(i, minlength=n) - 1 for n, i in pairs])
    if len(points) == 0:
        return np.zeros(0, dtype=np.int64)
    # Half the time of float64; about the centre it tells distances apart to 1e-4 angstrom.
    points = (points - points.mean(axis=0)).astype(np.float32)
    square = np.einsum("ij,ij->i", points, points)
    one = np.ones_like(square)
    right = np.concatenate([-2 * points.T, square[None], one[None]])
    left = np.concatenate([points, one[:, None], square[:, None]], axis=1)
    number = np.full(len(points), -1)
    for start in range(0, len(points), 255):
        # Who is near to me, I am near to: sums down a block are fast, and of 255 fit in a byte.
        near = left[start : start + 255] @ right <= radius**2
        number += near.sum(axis=0, dtype=np.uint8)
    return number
