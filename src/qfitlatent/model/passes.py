"""What a model is not sure of: where it, asked several times, does not agree with itself.

A single network is asked with other dropout masks each time (Gal and Ghahramani, ICML 2016), an
average is its members. Masks come from the number of the pass and the place of a residue in the
protein, never from a name.
"""

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import CHI_DEFINED, PI_SYMMETRIC
from qfitlatent.density.autoregressive import AutoregressiveDensity
from qfitlatent.model.average import AverageHead, AverageModel
from qfitlatent.model.batch import Protein, collate
from qfitlatent.model.geometry import Geometry
from qfitlatent.model.heads import AutoregressiveHead
from qfitlatent.model.network import Block, DensityNetwork, QFitLatent


class Passes:
    """Terms of equal weight, whose disagreement about a residue is ignorance of the model."""

    def __init__(self, model: DensityNetwork, num: int) -> None:
        """num passes of a single network; an average has the terms that it has.

        Raises QfitLatentError for a network of which all passes are the same, or have no average.
        """
        if isinstance(model, AverageModel):
            heads: Sequence[AutoregressiveHead] = [*cast("AverageHead", model.head).heads]
        else:
            if model.config.head != "autoregressive":
                raise QfitLatentError(
                    f"Passes of a model with model.head: {model.config.head} have no average: "
                    "leave predict.passes at 0, or use a model with model.head: autoregressive."
                )
            if not model.config.dropout:
                raise QfitLatentError(
                    "The model was trained without dropout, so that all its passes are the same: "
                    "leave predict.passes at 0."
                )
            if num < 2:
                raise QfitLatentError(
                    "predict.passes is 1, and one pass cannot disagree: ask for 2 or more, or 0."
                )
            heads = [cast("AutoregressiveHead", model.head)] * num
        self.model, self.num = model, len(heads)
        self.head = copy.deepcopy(AverageHead(heads)).cpu()

    @torch.inference_mode()
    def disagreement(self, protein: Protein) -> Tensor:
        """(N,) nats of the residues of a protein (``AutoregressiveDensity.disagreement``)."""
        device = self.model.chi_mask.device
        batch = collate([protein]).to(device)
        if isinstance(self.model, QFitLatent):
            geometry = Geometry(self.model.config, batch)
            step = self.model.config.num_blocks * Block.NUM_DROPOUTS  # masks of one pass
            parts = [self.model.encode(batch, i * step, geometry) for i in range(self.num)]
            s = torch.cat(parts, dim=-1)
        else:
            s = self.model.encode(batch)
        masks = (torch.from_numpy(table)[protein.token] for table in (CHI_DEFINED, PI_SYMMETRIC))
        return AutoregressiveDensity(self.head, s.float().cpu(), *masks).disagreement(self.num)
