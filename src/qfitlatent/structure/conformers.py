"""The conformers of residues, their chi and occupancies (SPEC 3).

Shapes: N kept residues, G named altlocs of residues, M conformers.
"""

from dataclasses import dataclass

import numpy as np

from qfitlatent.chemistry import geometry
from qfitlatent.chemistry.residues import NUM_CHI_MAX, PI_SYMMETRIC
from qfitlatent.structure.atoms import C_SLOT
from qfitlatent.structure.residues import Residues, mean_of
from qfitlatent.tables.keys import begins_run
from qfitlatent.tables.reasons import Reason

OCCUPANCY_DISAGREEMENT = 0.01
DISTINCT_RAD = np.radians(10.0)
"""Conformers that differ less in every chi show the same side chain (SPEC 3)."""

_PATH = slice(0, C_SLOT)
_CA = 1


@dataclass(frozen=True)
class Conformers:
    """The conformers of the residues, in the order of the table, and what they say of these."""

    columns: dict[str, np.ndarray]  # (M,) or (M,4), ``row`` of the residue among them
    num_read: np.ndarray  # of each entry, with those that are rejected
    num: np.ndarray  # (N,)
    num_distinct: np.ndarray  # (N,)
    occupancy_sum: np.ndarray  # (N,)
    disagreement: np.ndarray  # (N,) bool: own atoms of a conformer differ in occupancy
    b_rank: np.ndarray  # (N,) nan where there is none


def conformers_of(residues: Residues, max_conformers: int) -> Conformers:
    """Those that are left out become rejected rows of the scope conformer."""
    num_residues, has_chi = len(residues.token), residues.num_chi > 0
    row, label, own = _candidates(residues, has_chi)
    num_read = np.bincount(residues.entry[row], minlength=len(residues.names))
    is_own = (own >= 0).any(axis=1) | (label == 0)
    residues.reject("conformer", Reason.NO_OWN_CHI_ATOMS, row[~is_own], "", label[~is_own])
    columns = _measured(residues, row[is_own], label[is_own], own[is_own])
    columns = _kept(residues, columns, max_conformers)

    row, occupancy = columns["row"], columns["occupancy"]
    occupancy_sum = np.bincount(row, occupancy, num_residues)
    columns["occupancy_normalised"] = occupancy / occupancy_sum[row]
    spread = columns["occupancy_max"] - columns["occupancy_min"]
    # 0.31 - 0.30 is no disagreement, whatever binary fractions make of it.
    disagrees = spread > OCCUPANCY_DISAGREEMENT + 1e-9
    chi = np.where(columns["observed"], columns["chi"], np.nan)
    columns["group"] = distinct_groups(row, chi, PI_SYMMETRIC[residues.token[row]])
    num_distinct = np.zeros(num_residues, dtype=np.int64)
    np.maximum.at(num_distinct, row, columns["group"] + 1)
    return Conformers(
        columns=columns,
        num_read=num_read,
        num=np.bincount(row, minlength=num_residues),
        num_distinct=num_distinct,
        occupancy_sum=occupancy_sum,
        disagreement=np.bincount(row, disagrees, num_residues) > 0,
        b_rank=_b_rank(residues, has_chi),
    )


def _candidates(
    residues: Residues, has_chi: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every altloc of a residue with chi: row (m,), label (m,), own atoms of the path (m,7)."""
    altlocs = np.flatnonzero(has_chi[residues.group_row])
    row, own = residues.group_row[altlocs], residues.own[altlocs][:, _PATH]
    owners = (own >= 0).any(axis=1)
    blank, blank_own = _blank_conformers(
        row[owners], own[owners], residues.blank[:, _PATH], has_chi
    )
    return (
        np.r_[row, blank],
        np.r_[residues.group_label[altlocs], np.zeros(len(blank), dtype=np.int64)],
        np.concatenate([own, blank_own]),
    )


def _measured(
    residues: Residues, row: np.ndarray, label: np.ndarray, own: np.ndarray
) -> dict[str, np.ndarray]:
    """Columns of these conformers: chi and whether they were observed, occupancies, atoms, B."""
    # Column by column in memory: sums over the few atoms of a row are then fast.
    own = np.asfortranarray(own)
    atoms = np.asfortranarray(np.where(own >= 0, own, residues.blank[row][:, _PATH]))
    points = residues.points(atoms)
    has_occupancy = (atoms < 0) | (residues.occupancy[atoms] != 0)
    chi = np.full((len(row), NUM_CHI_MAX), np.nan)
    observed = np.zeros(chi.shape, dtype=bool)
    for d in range(NUM_CHI_MAX):
        of = np.flatnonzero(residues.num_chi[row] > d)
        chi[of, d] = geometry.dihedral(*points[of, d : d + 4].transpose(1, 0, 2))
        observed[:, d] = has_occupancy[:, d : d + 4].all(axis=1)
    of_atom = np.where(own >= 0, residues.occupancy[own], np.nan)
    num_own, num_there = (own >= 0).sum(axis=1), (atoms >= 0).sum(axis=1)
    return {
        "row": row,
        "label": label,
        "chi": chi,
        "observed": observed,
        "occupancy": residues.mean_occupancy(own),
        "occupancy_min": np.fmin.reduce(of_atom, axis=1),
        "occupancy_max": np.fmax.reduce(of_atom, axis=1),
        "num_atoms_own": num_own,
        "num_atoms_shared": num_there - num_own,
        "num_atoms_missing": residues.path_length[row] - num_there,
        "mean_b": mean_of(residues.b_factor, own),
    }


def _kept(
    residues: Residues, columns: dict[str, np.ndarray], max_conformers: int
) -> dict[str, np.ndarray]:
    """The conformers that count, by residue and falling occupancy; the others are rejected."""
    row, label, occupancy = (columns[name] for name in ("row", "label", "occupancy"))
    kept = np.ones(len(row), dtype=bool)

    def keep(reason: Reason, good: np.ndarray) -> None:
        lost = np.flatnonzero(kept & ~good)
        of_occupancy = reason not in (Reason.NO_CHI, Reason.NO_OCCUPANCY)
        detail = [f"occupancy {o:.3g}" if of_occupancy else "" for o in occupancy[lost]]
        residues.reject("conformer", reason, row[lost], detail, label[lost])
        kept[lost] = False

    keep(Reason.NO_CHI, np.isfinite(columns["chi"]).any(axis=1))
    keep(Reason.NO_OCCUPANCY, ~np.isnan(occupancy))
    keep(Reason.NEGATIVE_OCCUPANCY, occupancy >= 0)
    total = np.bincount(row[kept], occupancy[kept], len(residues.token))
    keep(Reason.ZERO_OCCUPANCY, total[row] > 0)
    order = np.flatnonzero(kept)
    order = order[np.lexsort((label[order], -occupancy[order], row[order]))]
    first = np.flatnonzero(begins_run(row[order]))
    rank = np.full(len(row), -1)
    rank[order] = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
    keep(Reason.OVER_LIMIT, rank < max_conformers)
    order = order[kept[order]]
    return {name: values[order] for name, values in columns.items()} | {"rank": rank[order]}


def _blank_conformers(
    group_row: np.ndarray, own: np.ndarray, shared: np.ndarray, has_chi: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Residues of which blank atoms are a conformer, and its own atoms (n, 7).

    Without a named conformer these are all blank atoms of the residue; otherwise those that a
    named one has, too. group_row (G,) ascending and own (G, 7): the named conformers.
    """
    starts = np.flatnonzero(begins_run(group_row))
    with_named = group_row[starts]
    blank = shared.copy()
    if len(starts):
        doubled = np.logical_or.reduceat(own >= 0, starts, axis=0)
        blank[with_named] = np.where(doubled, shared[with_named], -1)
    is_one = has_chi.copy()
    is_one[with_named] = (blank[with_named] >= 0).any(axis=1)
    rows = np.flatnonzero(is_one)
    return rows, blank[rows]


def distinct_groups(row: np.ndarray, chi: np.ndarray, symmetric: np.ndarray) -> np.ndarray:
    """(M,) group of each conformer in its residue, from 0: those of a group agree in every chi.

    row (M,) ascending, conformers of a residue by falling occupancy; chi (M,4), nan where undefined
    or not observed; symmetric (M,4). A conformer without any observed chi agrees with all.
    """
    group = np.zeros(len(row), dtype=np.int64)
    first = np.flatnonzero(begins_run(row))
    size = np.diff(first, append=len(row))
    first, size = first[size > 1], size[size > 1]
    if len(first) == 0:
        return group
    number = np.arange(size.max())
    there = number < size[:, None]
    at = first[:, None] + np.where(there, number, 0)
    unseen = np.isnan(chi[at]).all(axis=2)
    if unseen.any():  # these come last, so that none leads that agrees with all
        at = np.take_along_axis(at, unseen.argsort(axis=1, kind="stable"), 1)
    angle, symmetric = chi[at], symmetric[first][:, None]  # (S,A,4), (S,1,4)
    leads = np.zeros(at.shape, dtype=bool)
    leads[:, 0] = True
    found = np.zeros(at.shape, dtype=np.int64)
    for a in number[1:]:
        apart = geometry.circular_distance(angle[:, a, None], angle[:, :a], symmetric)
        agrees = ~(apart > DISTINCT_RAD).any(axis=2) & leads[:, :a]
        leads[:, a] = ~agrees.any(axis=1)
        joined = np.take_along_axis(found, agrees.argmax(axis=1)[:, None], 1)[:, 0]
        found[:, a] = np.where(leads[:, a], leads[:, :a].sum(axis=1), joined)
    group[at] = found
    return group


def _b_rank(residues: Residues, has_chi: np.ndarray) -> np.ndarray:
    """(N,) rank of the mean B of the side chain's atoms in the chi path, in [0, 1] in each entry.

    Ties are averaged; nan where a residue has none, or all of the entry are equal.
    """
    num = len(has_chi)
    atoms = np.flatnonzero((residues.atom_slot > _CA) & (residues.atom_slot < C_SLOT))
    of_row, b_factor = residues.atom_row[atoms], residues.b_factor[atoms]
    there = (of_row >= 0) & ~np.isnan(b_factor)
    of_row, b_factor = of_row[there], b_factor[there]
    with np.errstate(invalid="ignore"):
        mean = np.bincount(of_row, b_factor, num) / np.bincount(of_row, None, num)
    mean = np.round(mean, 4)
    rank = np.full(num, np.nan)
    ranked = np.flatnonzero(has_chi & ~np.isnan(mean))
    ranked = ranked[np.lexsort((mean[ranked], residues.entry[ranked]))]
    entry, value = residues.entry[ranked], mean[ranked]
    new_entry = begins_run(entry)
    new_value = new_entry | begins_run(value)
    tied_from = np.flatnonzero(new_value)
    tied_to = np.r_[tied_from[1:], len(ranked)] - 1
    tie = np.cumsum(new_value) - 1
    entry_from = np.flatnonzero(new_entry)
    number = np.cumsum(new_entry) - 1
    last = np.diff(np.r_[entry_from, len(ranked)])[number] - 1
    place = ((tied_from + tied_to) / 2)[tie] - entry_from[number]
    all_equal = np.bincount(number, new_value) == 1
    with np.errstate(invalid="ignore"):
        rank[ranked] = np.where(all_equal[number], np.nan, place / last)
    return rank
