"""Metrics of SPEC 8: what a density over chi says of the altlocs that were observed.

``score_density`` takes any density and gives one value a residue or one a row; ``intervals`` turns
those into figures with intervals over entries. Nothing here loops over residues.

Shapes: N residues, M observed rows (residue x altloc), D=4 chi, S points, J modes.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from qfitlatent.density.mixture import Modes
from qfitlatent.density.protocol import Density
from qfitlatent.density.quantiles import Points
from qfitlatent.density.regions import differ_beyond, hdr_level
from qfitlatent.density.rows import Observed
from qfitlatent.density.von_mises import circular_distance
from qfitlatent.evaluation.settings import (
    DISTINCT_DEGREES,
    MATCH_DEGREES,
    MODE_MERGE_DEGREES,
    MODE_WEIGHT,
)
from qfitlatent.evaluation.transport import wasserstein

TOLERANCES_DEGREES = (20, 40)
"""Rotamer accuracy: a chi is right when it is this close."""

MODES_KEPT = 16
"""Modes of a residue that are kept for the recall and precision curves, heaviest first."""

SMALLEST_MODE = 0.01
"""Modes below this mass are left out of the curves over the weight threshold."""


class Described(NamedTuple):
    """A density, and what it says whatever was observed."""

    density: Density
    points: Points
    differ: Tensor  # (N,) probability that two draws are distinct rotamers
    weight: Tensor  # (N,J) of the modes, descending, 0 where there is none
    chi: Tensor  # (N,J,4) of the modes


def describe(density: Density, num_samples: int) -> Described:
    """num_samples are the points that stand for a residue's density."""
    points = density.points(num_samples)
    differ = differ_beyond(points, density, math.radians(DISTINCT_DEGREES))
    modes = density.modes(SMALLEST_MODE, math.radians(MODE_MERGE_DEGREES))
    return Described(density, points, differ, *_heaviest(modes))


def score_density(described: Described, observed: Observed, index: Tensor) -> dict[str, np.ndarray]:
    """All of ``columns.RESIDUE_METRICS`` as (N,) and of ``columns.ROW_METRICS`` as (M,).

    index (N,) long: the residue of the density that each residue is; several may share one, as a
    library has one for each residue type. Also mode_weight (N,J), mode_chi (N,J,4) and mode_match
    (N,J), heaviest first, for the curves. Values that a residue does not have (chi1+2 of SER) are
    nan.
    """
    density, points = described.density, described.points
    rows = index[observed.row_residue]
    log_prob = density.log_prob(observed.chi, observed.defined, rows)
    out = {"nll": -observed.sum_rows(observed.occupancy * log_prob)}
    # Without a pi-symmetric chi the two forms are one.
    at = torch.nonzero(density.symmetric.any(1)[rows])[:, 0]
    folded = density.log_prob(observed.chi[at], observed.defined[at], rows[at], folded=True)
    both = log_prob.index_copy(0, at, folded)
    out["nll_folded"] = -observed.sum_rows(observed.occupancy * both)

    out["entropy"] = points.entropy[index]
    out["hdr"] = hdr_level(density, points, observed.chi, observed.defined, rows, log_prob)
    out["heterogeneity"] = described.differ[index]

    distance, near = _distances(points.chi, observed, rows)
    out["predicted_occupancy"] = _occupancy(distance, near, observed)
    out["wasserstein_rad"] = wasserstein(distance, observed)

    out |= _mode_metrics(described.weight[index], described.chi[index], observed)
    return {name: value.numpy() for name, value in out.items()}


def _distances(points: Tensor, observed: Observed, rows: Tensor) -> tuple[Tensor, Tensor]:
    """(M,S) root mean square distance over the row's chi, and whether every chi is near."""
    square = points.new_zeros(len(rows), len(points))
    largest = torch.zeros_like(square)
    symmetric, defined = observed.symmetric[observed.row_residue], observed.defined
    for d in defined.any(0).nonzero()[:, 0].tolist():
        # Both angles lie in (-pi, pi], so that no remainder has to be taken.
        distance = points[:, :, d].T.index_select(0, rows).sub_(observed.chi[:, d, None]).abs_()
        half = torch.where(symmetric[:, d], 0.5 * math.pi, math.pi)[:, None]
        for middle in (math.pi, half) if symmetric[:, d].any() else (math.pi,):
            # The shorter way round: x, or 2 middle - x where that is less; in place.
            distance.sub_(middle).abs_().neg_().add_(middle)
        if not defined[:, d].all():
            distance *= defined[:, d, None]
        square.addcmul_(distance, distance)
        torch.maximum(largest, distance, out=largest)
    count = defined.sum(-1, keepdim=True).clamp(min=1)
    return square.div_(count).sqrt_(), largest <= math.radians(DISTINCT_DEGREES)


def _occupancy(distance: Tensor, near: Tensor, observed: Observed) -> Tensor:
    """(M,) mass of the points that are near the altloc, and nearest to it of its residue's."""
    counted = near.float()
    for rows in observed.rows_by_number():
        if len(rows) > 1:
            nearest = distance[rows].min(0).indices  # (n,S)
            counted[rows] *= nearest == torch.arange(len(rows))[:, None, None]
    return counted.mean(1)


def _heaviest(modes: Modes) -> tuple[Tensor, Tensor]:
    """weight (N,J) descending, 0 where there is no mode, and chi (N,J,4)."""
    weight = torch.where(modes.valid, modes.weight, 0.0)
    order = weight.argsort(dim=1, descending=True, stable=True)[:, :MODES_KEPT]
    weight = weight.gather(1, order)
    chi = modes.chi.gather(1, order[..., None].expand(-1, -1, modes.chi.shape[-1]))
    return weight, chi


def _mode_metrics(weight: Tensor, chi: Tensor, observed: Observed) -> dict[str, Tensor]:
    """Recall, precision and rotamer accuracy from modes weight (N,J), chi (N,J,4)."""
    row = observed.row_residue
    distance = circular_distance(chi[row], observed.chi[:, None], observed.symmetric[row][:, None])
    distance = distance * observed.defined[:, None]
    near = (distance <= math.radians(MATCH_DEGREES)).all(-1)  # (M,J)
    match_weight = torch.where(near, weight[row], 0.0).amax(1)
    num_near = torch.zeros(weight.shape, dtype=torch.long).index_add_(0, row, near.long())
    mode_match = (num_near > 0) & (weight > 0)
    recall, precision = recall_precision(weight, mode_match, match_weight, observed, MODE_WEIGHT)
    out = {
        "recall": recall,
        "precision": precision,
        "num_modes": (weight >= MODE_WEIGHT).sum(1).float(),
        "match_weight": match_weight,
        "mode_weight": weight,
        "mode_chi": chi,
        "mode_match": mode_match,
    }
    return out | _rotamer_accuracy(chi[:, 0], weight[:, 0] > 0, observed)


def recall_precision(
    weight: Tensor, mode_match: Tensor, match_weight: Tensor, observed: Observed, threshold: float
) -> tuple[Tensor, Tensor]:
    """(N,) share of the altlocs near a mode of this weight; (N,) share of the modes near an altloc.

    Precision weighs each mode by its mass and is nan where no mode is heavy enough.
    """
    found = (match_weight >= threshold).float()
    recall = observed.sum_rows(found) / observed.num_conformers.clamp(min=1)
    heavy = torch.where(weight >= threshold, weight, 0.0)
    precision = (heavy * mode_match).sum(1) / heavy.sum(1)
    return recall, precision


def _rotamer_accuracy(best: Tensor, exists: Tensor, observed: Observed) -> dict[str, Tensor]:
    """Best mode (N,4) against the altloc of highest occupancy; nan where it lacks a chi."""
    top = observed.first_row + observed.by_altloc(observed.occupancy, -1.0).argmax(1)
    distance = circular_distance(best, observed.chi[top], observed.symmetric)
    defined = observed.defined[top]
    mask = observed.chi_mask
    parts = {
        "chi1": torch.tensor([True, False, False, False]).expand_as(mask),
        "chi12": torch.tensor([True, True, False, False]).expand_as(mask),
        "all": mask,
    }
    out = {}
    for tolerance in TOLERANCES_DEGREES:
        near = distance <= math.radians(tolerance)
        for name, part in parts.items():
            applies = (defined | ~part).all(1) & exists & part.any(1)
            right = (near | ~part).all(1).float()
            out[f"{name}_within_{tolerance}"] = torch.where(applies, right, math.nan)
    return out
