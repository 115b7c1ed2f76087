"""What the network needs of a batch that depends on coordinates and the settings alone.

It is made once a batch, before the layers, and for all members of an average alike: a search for
neighbours costs as much as a layer. Shapes: B proteins, N residues, J keys of a residue.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from qfitlatent.model.batch import Batch
from qfitlatent.model.features import RESIDUE_SETS, global_atoms, residue_features
from qfitlatent.model.neighbours import ANGSTROM_PER_UNIT, NeighbourList, nearest
from qfitlatent.model.settings import ModelConfig


@dataclass(frozen=True)
class Geometry:
    """Frames about the centre of each protein, and what is read off them."""

    config: ModelConfig
    batch: Batch

    @cached_property
    def x(self) -> Tensor:
        """(B,N,3) CA in units of 10 angstrom; padding at 0.

        Centred in the model: a shift by 1000 angstrom would cost fp32 its digits.
        """
        mask, translation = self.batch.mask[..., None], self.batch.translation
        centre = (translation * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
        return (translation - centre) * mask / ANGSTROM_PER_UNIT

    @cached_property
    def atoms(self) -> Tensor:
        """(B,N,4,3) N, CA, C and virtual CB, angstrom."""
        return global_atoms(self.batch.rotation, self.x * ANGSTROM_PER_UNIT)

    @cached_property
    def residue_features(self) -> Tensor | None:
        """(B,N,F) of the residue sets; None without any."""
        if not any(name in RESIDUE_SETS for name in self.config.features):
            return None
        batch = self.batch
        return residue_features(self.config.features, batch.torsion, self.atoms, batch.mask)

    @cached_property
    def near(self) -> NeighbourList | None:
        """None where every residue is a key."""
        num = self.config.neighbours
        return nearest(self.x, self.batch.mask, num) if num else None
