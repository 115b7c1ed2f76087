"""What everything that uses a density asks of it.

Shapes: N residues, M rows, K components, D chi.
"""

from typing import Protocol

from torch import Tensor


class Head(Protocol):
    """What a density that goes from chi to chi asks of its network."""

    kappa_min: float

    def residue(self, s: Tensor) -> Tensor:
        """(N, D hidden) from the single representation s (N,d_s): a slice for each chi."""
        ...

    def step(
        self, d: int, residue: Tensor, chi: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """log_weight, mean, kappa, each (M,K), of chi d given the earlier ones.

        residue (M,hidden) is slice d of ``residue(s)``; chi (M,d), known (M,d) bool.
        """
        ...
