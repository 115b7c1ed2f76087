"""Averages over the backbones of a set, one backbone after the other.

Only sums are kept, so that memory does not grow with the backbones, and their order does not
matter.

Shapes: N residues, n of them that a backbone has, W wells, K components, D=4 chi.
"""

from dataclasses import replace

import numpy as np
import torch

from qfitlatent.chemistry.residues import NUM_CHI, NUM_CHI_MAX, PI_SYMMETRIC
from qfitlatent.density.paths import SIZES
from qfitlatent.density.reduction import Paths, in_order, joined, reduced
from qfitlatent.prediction.records import Predicted

MAX_HELD = 64
"""Mixtures that are held side by side before their components are put together."""


class Mean:
    """The weighted mean of populations, how far the backbones scatter, and how well it is known."""

    def __init__(self, num: int, width: int) -> None:
        self.count = np.zeros(num, dtype=np.int64)
        """(N,) backbones that have the residue."""
        self._total, self._squares = np.zeros((2, num))
        self._sum, self._sum_squared, self._sum_w2 = np.zeros((3, num, width))
        self._outer = np.zeros((num, width, width))

    def add(self, weight: float, value: np.ndarray, rows: np.ndarray | slice = slice(None)) -> None:
        """A backbone's populations value (n,W) of the residues rows (n,), none of them twice."""
        self.count[rows] += 1
        self._total[rows] += weight
        self._squares[rows] += weight**2
        self._sum[rows] += weight * value
        self._sum_squared[rows] += weight * value**2
        self._sum_w2[rows] += weight**2 * value
        self._outer[rows] += weight**2 * value[:, :, None] * value[:, None, :]

    @property
    def value(self) -> np.ndarray:
        """(N,W), 0 where no backbone has the residue."""
        return self._sum / self._divisor()[:, None]

    @property
    def spread(self) -> np.ndarray:
        """(N,W) standard deviation between the backbones, by their weights."""
        mean = self._sum_squared / self._divisor()[:, None]
        return np.sqrt(np.maximum(mean - self.value**2, 0.0))

    @property
    def covariance(self) -> np.ndarray:
        """(N,W,W) of the mean, as if the backbones were drawn independently; 0 with a single one.

        sum w^2 (p - mean)(p - mean)' / (sum w)^2, with the factor n / (n - 1) of a sample.
        """
        mean, count = self.value, self.count
        cross = self._sum_w2[:, :, None] * mean[:, None, :]
        outer = self._squares[:, None, None] * mean[:, :, None] * mean[:, None, :]
        scatter = self._outer - cross - cross.swapaxes(1, 2) + outer
        sample = np.where(count > 1, count / np.maximum(count - 1, 1), 0.0)
        return scatter * (sample / self._divisor() ** 2)[:, None, None]

    def _divisor(self) -> np.ndarray:
        return np.where(self._total > 0, self._total, 1.0)


def deviation(covariance: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """(N,) standard deviation of direction (N,W) . p, of p with covariance (N,W,W)."""
    variance = np.einsum("nv,nvw,nw->n", direction, covariance, direction)
    return np.sqrt(np.maximum(variance, 0.0))


class MixtureMean:
    """The weighted mean of the mixtures of n residues, as a mixture of about as many components."""

    def __init__(self, token: np.ndarray) -> None:
        self._token = token
        self._held: list[Paths] = []
        self._flat = torch.zeros(len(token), dtype=torch.float64)
        self._num = 0
        self._last: Predicted | None = None

    def add(self, share: float, predicted: Predicted) -> None:
        """A backbone's mixtures with its share of the mean; the shares of all sum to 1."""
        self._num, self._last = self._num + 1, predicted
        weight = torch.from_numpy(predicted.weight.astype(np.float32)) * share
        residue, component = torch.nonzero(weight > 0, as_tuple=True)
        mean, kappa = (
            torch.from_numpy(values.astype(np.float32))[residue, component]
            for values in (predicted.mean, predicted.kappa)
        )
        weight = weight[residue, component]
        # A flat component has no place, and would make wide what it is put together with.
        flat = (kappa == 0).all(1)
        self._flat.index_add_(0, residue[flat], weight[flat].double())
        kept = ~flat
        self._held.append(Paths(residue[kept], weight[kept].log(), mean[kept], kappa[kept]))
        if len(self._held) > MAX_HELD:
            self._held = [self._reduced()]

    def predicted(self) -> Predicted:
        """The last backbone's arrays with the mean's mixture in them; of one backbone its own."""
        if self._last is None:
            raise ValueError("nothing was added")
        if self._num == 1:
            return self._last
        paths, number = in_order(self._reduced())
        shape = (len(self._token), int(number.max()) + 2)
        weight = np.zeros(shape, dtype=np.float32)
        mean, kappa = np.zeros((2, *shape, NUM_CHI_MAX), dtype=np.float32)
        at = paths.residue.numpy(), number.numpy()
        weight[at], mean[at], kappa[at] = paths.weight.exp(), paths.mean, paths.kappa
        weight[:, -1] = self._flat
        return replace(self._last, weight=weight, mean=mean, kappa=kappa)

    def _reduced(self) -> Paths:
        paths = joined(self._held)
        symmetric = torch.from_numpy(PI_SYMMETRIC[self._token])
        num_chi = torch.from_numpy(NUM_CHI[self._token].astype(np.int64))[paths.residue]
        parts = [
            reduced(paths.take(torch.nonzero(num_chi == num)[:, 0]), size, symmetric)
            for num, size in enumerate(SIZES, start=1)
            if (num_chi == num).any()
        ]
        return joined(parts)
