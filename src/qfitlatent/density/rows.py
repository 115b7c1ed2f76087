"""Residues and their observed altlocs: what densities are fitted to and scored on.

Shapes: N residues, M observed rows (residue x altloc), D=4 chi, A altlocs of one residue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from qfitlatent.chemistry.residues import CHI_DEFINED, PI_SYMMETRIC
from qfitlatent.density.von_mises import circular_distance

DISTINCT_DEGREES = 40
"""Two altlocs are distinct rotamers when a chi differs by more than this (SPEC 8 and 11)."""


@dataclass(frozen=True)
class Observed:
    """N residues and their altlocs as flat rows; a row belongs to residue ``row_residue``."""

    token: Tensor  # (N,) long
    phi_psi: Tensor  # (N,2) radians, nan where unknown
    entry: Tensor  # (N,) long, number of the entry
    num_distinct: Tensor  # (N,) long, conformers that differ in some chi
    row_residue: Tensor  # (M,) long, ascending
    chi: Tensor  # (M,D) radians, 0 where not defined
    defined: Tensor  # (M,D) bool: the altloc shows the chi
    occupancy: Tensor  # (M,) summing to 1 over a residue's rows

    def __len__(self) -> int:
        return len(self.token)

    @cached_property
    def chi_mask(self) -> Tensor:
        """(N,D) bool: the residue type defines the chi."""
        return torch.from_numpy(CHI_DEFINED)[self.token]

    @cached_property
    def symmetric(self) -> Tensor:
        """(N,D) bool: the chi is pi-symmetric."""
        return torch.from_numpy(PI_SYMMETRIC)[self.token]

    @cached_property
    def num_conformers(self) -> Tensor:
        """(N,) altlocs of each residue."""
        return torch.bincount(self.row_residue, minlength=len(self))

    @cached_property
    def first_row(self) -> Tensor:
        """(N,) the row at which each residue's altlocs begin."""
        return self.num_conformers.cumsum(0) - self.num_conformers

    @cached_property
    def altloc_number(self) -> Tensor:
        """(M,) 0, 1, ... within the residue."""
        return torch.arange(len(self.row_residue)) - self.first_row[self.row_residue]

    def select(self, keep: Tensor) -> Observed:
        """The residues where keep (N,) bool is true, with their rows."""
        rows = keep[self.row_residue]
        number = keep.cumsum(0) - 1
        return Observed(
            self.token[keep],
            self.phi_psi[keep],
            self.entry[keep],
            self.num_distinct[keep],
            number[self.row_residue[rows]],
            self.chi[rows],
            self.defined[rows],
            self.occupancy[rows],
        )

    def rows_by_number(self) -> Iterator[Tensor]:
        """(A,n) the rows of all n residues that have A altlocs, for each A from 1 on."""
        for width in self.num_conformers[self.num_conformers > 0].unique().tolist():
            yield self.first_row[self.num_conformers == width] + torch.arange(width)[:, None]

    def sum_rows(self, values: Tensor) -> Tensor:
        """(N,) sum of values (M,) over the rows of each residue."""
        return values.new_zeros(len(self)).index_add_(0, self.row_residue, values)

    def by_altloc(self, values: Tensor, fill: float) -> Tensor:
        """values (...,M) spread to (...,N,A), ``fill`` where a residue has no such altloc."""
        shape = (*values.shape[:-1], len(self), int(self.num_conformers.max()))
        out = values.new_full(shape, fill)
        out[..., self.row_residue, self.altloc_number] = values
        return out


def altloc_spread(observed: Observed) -> Tensor:
    """(N,) radians: the largest distance of any chi between two altlocs; 0 for a single altloc."""
    several = observed.num_conformers > 1
    spread = observed.chi.new_zeros(len(observed))
    if not several.any():
        return spread
    observed = observed.select(several)
    chi = observed.by_altloc(observed.chi.T, 0.0)  # (D,N,A)
    defined = observed.by_altloc(observed.defined.T, False)
    symmetric = observed.symmetric.T[..., None, None]
    distance = circular_distance(chi[..., :, None], chi[..., None, :], symmetric)
    both = defined[..., :, None] & defined[..., None, :]
    spread[several] = torch.where(both, distance, 0.0).amax((0, 2, 3))
    return spread
