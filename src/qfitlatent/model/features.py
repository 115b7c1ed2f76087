"""Invariant features of residues and pairs beyond SPEC 6, as named sets.

Residue sets: ``torsions`` (sin and cos of phi, psi, omega, and which exist), ``exposure``
(neighbour counts around the virtual CB, in all directions and in the half-sphere it points to).
Pair sets: ``distances`` (radial basis of the distances between N, CA, C and virtual CB of the two
residues), ``directions`` (where the other residue's CA and virtual CB lie in the local frame, and
the rotation between the two frames).

Atoms other than CA are placed from the frame with ideal geometry, so the features are functions of
the frames alone. Shapes: B proteins, N residues, J keys of a residue.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfitlatent.chemistry.neighbours import pairs_within
from qfitlatent.model.neighbours import ONE_BLOCK_UP_TO, SEARCH_QUERIES, by_cells

RESIDUE_SETS = {"torsions": 9, "exposure": 6}
PAIR_SETS = {"distances": 256, "directions": 15}
"""Named sets and their widths."""

LOCAL_ATOMS = torch.tensor(
    [[-0.525, 1.363, 0.0], [0.0, 0.0, 0.0], [1.526, 0.0, 0.0], [-0.529, -0.774, -1.205]]
)
"""N, CA, C and virtual CB in the frame of SPEC 4, angstrom (Engh and Huber 1991)."""

RADIAL_CENTRES = torch.linspace(2.0, 20.0, 16)
RADIAL_WIDTH = 1.2
SMALLEST_DISTANCE = 1e-4
"""Angstrom: what two atoms at the same place have."""

SMALLEST_BASIS = 1e-20
"""Where the basis goes no lower: fp32 numbers below 1e-38 would make the products slow."""

EXPOSURE_RADII = (8.0, 11.0, 15.0)


def residue_features(sets: Sequence[str], torsion: Tensor, atoms: Tensor, mask: Tensor) -> Tensor:
    """(B,N,F) of torsion (B,N,3) with nan, atoms (B,N,4,3) and mask (B,N)."""
    parts = []
    if "torsions" in sets:
        known = ~torsion.isnan()
        angle = torsion.nan_to_num()
        parts += [angle.sin() * known, angle.cos() * known, known.to(angle.dtype)]
    if "exposure" in sets:
        parts.append(_exposure(atoms, mask))
    return torch.cat(parts, dim=-1)


def _exposure(atoms: Tensor, mask: Tensor) -> Tensor:
    """(B,N,6) counts within each radius, around CB and in the half-sphere along CA-CB (HSE-up).

    Hamelryck, Proteins 59 (2005) 38, on CB; divided by 10 so that they are of order one.
    """
    ca, cb = atoms[..., 1, :], atoms[..., 3, :]
    if by_cells(cb):
        counts = [_counts_by_cells(*one) for one in zip(ca, cb, mask, strict=True)]
        return torch.stack(counts).to(atoms.dtype) / 10.0
    blocks = range(0, cb.shape[1], ONE_BLOCK_UP_TO)
    rows = (slice(i, i + ONE_BLOCK_UP_TO) for i in blocks)
    return torch.cat([_counts(ca, cb, mask, at) for at in rows], dim=1).to(atoms.dtype) / 10.0


def _counts(ca: Tensor, cb: Tensor, mask: Tensor, rows: slice) -> Tensor:
    """(B,n,6) of the residues ``rows``, among all."""
    own, number = cb[:, rows], torch.arange(cb.shape[1], device=cb.device)
    distance = torch.cdist(own, cb)
    others = mask[:, None, :] & (number[rows, None] != number)
    direction = own - ca[:, rows]
    along = torch.einsum("bid,bjd->bij", direction, cb) - (direction * own).sum(-1)[..., None]
    counts = []
    for radius in EXPOSURE_RADII:
        near = (distance < radius) & others
        counts += [near.sum(-1), (near & (along > 0)).sum(-1)]
    return torch.stack(counts, dim=-1)


def _counts_by_cells(ca: Tensor, cb: Tensor, mask: Tensor) -> Tensor:
    """(N,6) of one protein, 0 for padding."""
    real = np.flatnonzero(mask.numpy())
    a, b = (x.detach().double().numpy()[real] for x in (ca, cb))
    counts = np.zeros((len(mask), 2 * len(EXPOSURE_RADII)), dtype=np.int64)
    for start in range(0, len(real), SEARCH_QUERIES):
        i, j = pairs_within(b[start : start + SEARCH_QUERIES], b, max(EXPOSURE_RADII))
        i += start
        i, j = i[i != j], j[i != j]
        delta = b[j] - b[i]
        distance, along = np.sqrt((delta**2).sum(1)), (delta * (b[i] - a[i])).sum(1)
        for n, radius in enumerate(EXPOSURE_RADII):
            near = distance < radius
            for column, counted in ((2 * n, near), (2 * n + 1, near & (along > 0))):
                counts[real, column] += np.bincount(i[counted], minlength=len(real))
    return torch.from_numpy(counts)


def global_atoms(rotation: Tensor, translation: Tensor) -> Tensor:
    """(B,N,4,3) N, CA, C and virtual CB in angstrom."""
    local = LOCAL_ATOMS.to(rotation)
    return torch.einsum("bnij,aj->bnai", rotation, local) + translation[..., None, :]


def project_pairs(
    features: nn.Linear,
    sets: Sequence[str],
    rotation: Tensor,
    atoms: Tensor,
    gather: Callable[[Tensor], Tensor],
    rows: slice,
) -> Tensor:
    """(B,n,J,Z) what ``features`` makes of the pair sets of the residues ``rows`` and their keys.

    rotation (B,N,3,3) and atoms (B,N,4,3); gather gives what those keys have of a (B,N,W). The sets
    are multiplied one by one, so that they never stand side by side in a tensor as wide as all.
    """
    near = gather(atoms.flatten(2)).unflatten(-1, (4, 3))  # (B,n,J,4,3) or (B,1,N,4,3)
    own, frame = atoms[:, rows], rotation[:, rows]
    made = {
        "distances": lambda: _distance_basis(own, near),
        "directions": lambda: _directions(frame, own, near, gather(rotation.flatten(2))),
    }
    used = [name for name in PAIR_SETS if name in sets]
    weights = features.weight.split([PAIR_SETS[name] for name in used], dim=1)
    biases = [features.bias, *[None] * (len(used) - 1)]
    parts = [
        F.linear(made[name](), *layer) for name, *layer in zip(used, weights, biases, strict=True)
    ]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _distance_basis(atoms: Tensor, near: Tensor) -> Tensor:
    """(B,N,J,4*4*16) radial basis of the distances, own atom before the other's."""
    num_residues = atoms.shape[1]
    near = near.expand(-1, num_residues, -1, -1, -1)
    distance = torch.cdist(
        near.flatten(2, 3), atoms, compute_mode="donot_use_mm_for_euclid_dist"
    )  # (B,N,4J,4)
    distance = distance.unflatten(2, (-1, 4)).mT.clamp(min=SMALLEST_DISTANCE).contiguous()
    reach = math.sqrt(-math.log(SMALLEST_BASIS))
    basis = distance[..., None] / RADIAL_WIDTH - (RADIAL_CENTRES / RADIAL_WIDTH).to(distance)
    return basis.clamp_(-reach, reach).square_().neg_().exp_().flatten(-3)


def _directions(rotation: Tensor, atoms: Tensor, near: Tensor, turned: Tensor) -> Tensor:
    """(B,N,J,15) where the other's CA and CB lie in the own frame, and its frame in the own."""
    local = torch.matmul(near[..., 1::2, :] - atoms[:, :, None, 1:2, :], rotation[:, :, None])
    local = local / (local.square().sum(-1, keepdim=True) + 1.0).sqrt()
    turn = torch.matmul(rotation.mT[:, :, None], turned.unflatten(-1, (3, 3)))
    return torch.cat([local.flatten(-2), turn.flatten(-2)], dim=-1)
