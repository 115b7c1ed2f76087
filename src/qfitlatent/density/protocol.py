"""What a density has to be able to do, and what one that goes chi by chi asks of its network.

Whether a density comes from a network, a library, a table of mixtures or of samples, it is scored,
sampled and drawn by these methods alone.

Shapes: N residues, M observed rows (residue x altloc), K components, D chi, S samples or points.
"""

from typing import Any, Protocol, Self

import torch
from torch import Tensor

from qfitlatent.density.mixture import Modes, VonMisesMixture
from qfitlatent.density.quantiles import Points


class Density(Protocol):
    """A density over the chi of each of N residues, joint over a residue's chi.

    Angles in radians, log densities in nats. A chi that a residue type does not have is 0 in
    samples and modes, and what stands there in an argument is not read.
    """

    @property
    def chi_mask(self) -> Tensor:
        """(N,D) bool: the residue type defines the chi."""
        ...

    @property
    def symmetric(self) -> Tensor:
        """(N,D) bool: the chi is pi-symmetric."""
        ...

    def __len__(self) -> int: ...

    def select(self, rows: Tensor) -> Self:
        """The densities of these residues: rows (n,) long, or (N,) bool."""
        ...

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """On another device, or in another floating-point type, as ``Tensor.to``."""
        ...

    def log_prob(
        self, chi: Tensor, defined: Tensor, rows: Tensor | None = None, folded: bool = False
    ) -> Tensor:
        """(M,) log density of chi (M,D); a chi not in defined (M,D) leaves the product (SPEC 7).

        rows (M,) long: the residue of each row; without it one row a residue. folded is the
        training form at pi-symmetric chi, otherwise the density integrates to 1 (SPEC 8).
        """
        ...

    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """(S,N,D) independent draws."""
        ...

    def points(self, num: int) -> Points:
        """S points that stand for equal shares of each residue's mass, the same at every call."""
        ...

    def sample_log_prob(self, samples: Tensor, defined: Tensor | None = None) -> Tensor:
        """(S,N) log density of samples (S,N,D), over the chi in defined (N,D) if given."""
        ...

    def entropy(self) -> Tensor:
        """(N,) differential entropy, nats; 0 for a residue without chi."""
        ...

    def as_mixture(self) -> VonMisesMixture:
        """The density as a mixture, near enough to be written to a table."""
        ...

    def modes(self, min_weight: float, merge_within: float) -> Modes:
        """Components merged where every chi is within merge_within (radians), heaviest first."""
        ...


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

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As ``nn.Module.to``."""
        ...
