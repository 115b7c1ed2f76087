"""The conformers of residues, their chi and occupancies (SPEC 3).

Shapes: N kept residues, G named altlocs of residues, M conformers.
"""

import numpy as np

from qfitlatent.chemistry import geometry
from qfitlatent.chemistry.residues import NUM_CHI_MAX
from qfitlatent.structure.atoms import C_SLOT
from qfitlatent.structure.residues import Residues
from qfitlatent.tables.reasons import Reason

OCCUPANCY_DISAGREEMENT = 0.01


_PATH = slice(0, C_SLOT)


class Conformers:
    """The conformers of the residues, in the order of the table; the others are rejected.

    columns: (M,) or (M,4) arrays, ``row`` among them; (N,) num_conformers, occupancy_sum and
    disagreement of each residue; num_conformers_read of each entry.
    """

    def __init__(self, residues: Residues, max_conformers: int) -> None:
        own = residues.own[:, _PATH]
        has_chi = residues.num_chi > 0
        of_chi = has_chi[residues.group_row]
        is_own = (own >= 0).any(axis=1)
        no_own = np.flatnonzero(of_chi & ~is_own)
        residues.reject(
            "conformer",
            Reason.NO_OWN_CHI_ATOMS,
            residues.group_row[no_own],
            "",
            residues.group_label[no_own],
        )
        named = np.flatnonzero(of_chi & is_own)
        with_named = np.zeros(len(has_chi), dtype=bool)
        with_named[residues.group_row[named]] = True
        lone = np.flatnonzero(has_chi & ~with_named)

        shared = residues.blank[:, _PATH]
        row = np.r_[residues.group_row[named], lone]
        label = np.r_[residues.group_label[named], np.zeros(len(lone), dtype=np.int64)]
        own = np.concatenate([own[named], shared[lone]])
        atoms = np.where(own >= 0, own, shared[row])
        read = np.r_[row, residues.group_row[no_own]]
        self.num_conformers_read = np.bincount(residues.entry[read], minlength=len(residues.names))

        points = residues.points(atoms)
        chi = np.full((len(row), NUM_CHI_MAX), np.nan)
        for d in range(NUM_CHI_MAX):
            of = np.flatnonzero(residues.num_chi[row] > d)
            chi[of, d] = geometry.dihedral(*points[of, d : d + 4].transpose(1, 0, 2))
        there = own >= 0
        of_atom = residues.occupancy[own]
        occupancy = residues.mean_occupancy(own)
        self.columns = {
            "row": row,
            "label": label,
            "chi": chi,
            "occupancy": occupancy,
            "occupancy_min": np.where(there, of_atom, np.inf).min(axis=1, initial=np.inf),
            "occupancy_max": np.where(there, of_atom, -np.inf).max(axis=1, initial=-np.inf),
            "num_atoms_own": there.sum(axis=1),
            "num_atoms_shared": (atoms >= 0).sum(axis=1) - there.sum(axis=1),
            "num_atoms_missing": residues.path_length[row] - (atoms >= 0).sum(axis=1),
            "mean_b": np.where(there, residues.b_factor[own], 0.0).sum(axis=1)
            / np.maximum(there.sum(axis=1), 1),
        }
        kept = self._reject(residues, Reason.NO_CHI, np.isfinite(chi).any(axis=1), None)
        kept = self._reject(residues, Reason.NEGATIVE_OCCUPANCY, occupancy >= 0, kept)
        total = np.bincount(row[kept], occupancy[kept], len(has_chi))
        kept = self._reject(residues, Reason.ZERO_OCCUPANCY, total[row] > 0, kept)

        order = np.flatnonzero(kept)
        order = order[np.lexsort((label[order], -occupancy[order], row[order]))]
        of_row = row[order]
        first = np.flatnonzero(np.r_[True, of_row[1:] != of_row[:-1]][: len(order)])
        rank = np.full(len(row), -1)
        rank[order] = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
        kept = self._reject(residues, Reason.OVER_LIMIT, rank < max_conformers, kept)
        order = order[kept[order]]
        self.columns = {n: values[order] for n, values in self.columns.items()}
        self.columns["rank"] = rank[order]

        row, occupancy = self.columns["row"], self.columns["occupancy"]
        self.num_conformers = np.bincount(row, minlength=len(has_chi))
        self.occupancy_sum = np.bincount(row, occupancy, len(has_chi))
        self.columns["occupancy_normalised"] = occupancy / self.occupancy_sum[row]
        spread = self.columns["occupancy_max"] - self.columns["occupancy_min"]
        # 0.31 - 0.30 is no disagreement, whatever binary fractions make of it.
        disagrees = spread > OCCUPANCY_DISAGREEMENT + 1e-9
        self.disagreement = np.bincount(row, disagrees, len(has_chi)) > 0

    def _reject(
        self, residues: Residues, reason: Reason, good: np.ndarray, before: np.ndarray | None
    ) -> np.ndarray:
        """The conformers that were kept before and are good; the others become rejected rows."""
        before = np.ones(len(good), dtype=bool) if before is None else before
        lost = np.flatnonzero(before & ~good)
        if len(lost):
            detail = [f"occupancy {o:.3g}" for o in self.columns["occupancy"][lost]]
            residues.reject(
                "conformer",
                reason,
                self.columns["row"][lost],
                "" if reason is Reason.NO_CHI else detail,
                self.columns["label"][lost],
            )
        return before & good
