"""Proteins as tensors, and batches of them.

Shapes: N residues of a protein (entry), M observed rows (residue x altloc), D=4 chi, B proteins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

NETWORK_FIELDS = ("token", "rotation", "translation", "position", "chain", "torsion")
"""What the network reads of each residue."""

LABEL_FIELDS = ("num_distinct", "heterogeneous", "b_rank", "weight")
"""What the loss reads of each residue."""

RESIDUE_FIELDS = (*NETWORK_FIELDS, *LABEL_FIELDS, "residue_row")
OBSERVED_FIELDS = ("chi", "defined", "occupancy")
"""What the loss reads of each observed row."""

ROW_FIELDS = (*OBSERVED_FIELDS, "conformer_row")


@dataclass(frozen=True)
class Protein:
    """One entry as the model sees it, all its chains together."""

    entry: str
    token: Tensor  # (N,) long
    rotation: Tensor  # (N,3,3) local to global
    translation: Tensor  # (N,3) CA, angstrom
    position: Tensor  # (N,) long, polymer numbering within the chain
    chain: Tensor  # (N,) long
    torsion: Tensor  # (N,3) phi, psi, omega in radians; nan where undefined
    num_distinct: Tensor  # (N,) long, conformers that differ in some chi
    heterogeneous: Tensor  # (N,) 1 with two or more distinct rotamers, 0, nan where not known
    b_rank: Tensor  # (N,) rank of the side chain's B in its entry, 0 to 1; nan where unknown
    weight: Tensor  # (N,) in the density loss, 1 in the mean over a data set
    residue_row: Tensor  # (N,) long, row of the residues table
    row_residue: Tensor  # (M,) long, residue of each observed row
    conformer_row: Tensor  # (M,) long, row of the conformers table
    chi: Tensor  # (M,D) radians, 0 where undefined
    defined: Tensor  # (M,D) bool
    occupancy: Tensor  # (M,) normalised over the rows of a residue

    def __len__(self) -> int:
        return len(self.token)

    def select(self, residues: Tensor) -> Protein:
        """These residues alone, in this order: residues (n,) long."""
        new_index = torch.full((len(self),), -1)
        new_index[residues] = torch.arange(len(residues))
        kept = torch.nonzero(new_index[self.row_residue] >= 0).squeeze(1)
        return replace(
            self,
            row_residue=new_index[self.row_residue[kept]],
            **{name: getattr(self, name)[residues] for name in RESIDUE_FIELDS},
            **{name: getattr(self, name)[kept] for name in ROW_FIELDS},
        )

    def crop(self, max_residues: int, generator: torch.Generator | None = None) -> Protein:
        """The ``max_residues`` residues nearest to a random one, in chain order."""
        if len(self) <= max_residues:
            return self
        centre = torch.randint(len(self), (), generator=generator)
        distance = (self.translation - self.translation[centre]).norm(dim=-1)
        nearest = distance.topk(max_residues, largest=False).indices
        return self.select(nearest.sort().values)


@dataclass(frozen=True)
class Batch:
    """Proteins side by side, padded to the longest; rows point into the residues that are real."""

    token: Tensor  # (B,N) long
    rotation: Tensor  # (B,N,3,3)
    translation: Tensor  # (B,N,3)
    position: Tensor  # (B,N) long
    chain: Tensor  # (B,N) long
    torsion: Tensor  # (B,N,3)
    num_distinct: Tensor  # (B,N) long
    heterogeneous: Tensor  # (B,N)
    b_rank: Tensor  # (B,N)
    weight: Tensor  # (B,N)
    mask: Tensor  # (B,N) bool, False for padding
    row_residue: Tensor  # (M,) long into the residues where mask is True, in order
    chi: Tensor  # (M,D)
    defined: Tensor  # (M,D) bool
    occupancy: Tensor  # (M,)

    def to(self, device: torch.device | str) -> Batch:
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self)}
        return Batch(**moved)


def collate(proteins: Sequence[Protein]) -> Batch:
    """A batch of proteins; padding repeats nothing and is never attended to."""
    length = max(len(protein) for protein in proteins)

    def pad(name: str) -> Tensor:
        first = getattr(proteins[0], name)
        out = first.new_zeros((len(proteins), length, *first.shape[1:]))
        for b, protein in enumerate(proteins):
            out[b, : len(protein)] = getattr(protein, name)
        return out

    sizes = torch.tensor([len(protein) for protein in proteins])
    offsets = sizes.cumsum(0) - sizes
    return Batch(
        **{name: pad(name) for name in (*NETWORK_FIELDS, *LABEL_FIELDS)},
        mask=torch.arange(length)[None, :] < sizes[:, None],
        row_residue=torch.cat(
            [p.row_residue + offset for p, offset in zip(proteins, offsets, strict=True)]
        ),
        **{name: torch.cat([getattr(p, name) for p in proteins]) for name in OBSERVED_FIELDS},
    )
