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

import torch
from torch import Tensor

RESIDUE_SETS = {"torsions": 9, "exposure": 6}
PAIR_SETS = {"distances": 256, "directions": 15}
"""Named sets and their widths."""

LOCAL_ATOMS = torch.tensor(
    [[-0.525, 1.363, 0.0], [0.0, 0.0, 0.0], [1.526, 0.0, 0.0], [-0.529, -0.774, -1.205]]
)
"""N, CA, C and virtual CB in the frame of SPEC 4, angstrom (Engh and Huber 1991)."""

RADIAL_CENTRES = torch.linspace(2.0, 20.0, 16)
RADIAL_WIDTH = 1.2
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
    distance = torch.cdist(cb, cb)
    others = mask[:, None, :] & ~torch.eye(cb.shape[1], dtype=torch.bool, device=cb.device)
    direction = cb - ca
    along = torch.einsum("bid,bjd->bij", direction, cb) - (direction * cb).sum(-1)[..., None]
    counts = []
    for radius in EXPOSURE_RADII:
        near = (distance < radius) & others
        counts += [near.sum(-1), (near & (along > 0)).sum(-1)]
    return torch.stack(counts, dim=-1).to(atoms.dtype) / 10.0


def global_atoms(rotation: Tensor, translation: Tensor) -> Tensor:
    """(B,N,4,3) N, CA, C and virtual CB in angstrom."""
    local = LOCAL_ATOMS.to(rotation)
    return torch.einsum("bnij,aj->bnai", rotation, local) + translation[..., None, :]


def pair_features(
    sets: Sequence[str], rotation: Tensor, atoms: Tensor, gather: Callable[[Tensor], Tensor]
) -> Tensor:
    """(B,N,J,F) of rotation (B,N,3,3) and atoms (B,N,4,3); gather as in ``ExplicitPair``."""
    parts = []
    near = gather(atoms.flatten(2)).unflatten(-1, (4, 3))  # (B,N,J,4,3) or (B,1,N,4,3)
    if "distances" in sets:
        delta = near[..., None, :, :] - atoms[:, :, None, :, None, :]  # (B,N,J,4,4,3)
        distance = (delta.square().sum(-1) + 1e-8).sqrt().flatten(-2)
        centres = RADIAL_CENTRES.to(distance)
        basis = torch.exp(-((distance[..., None] - centres) / RADIAL_WIDTH).square())
        parts.append(basis.flatten(-2))
    if "directions" in sets:
        local = torch.matmul(near[..., 1::2, :] - atoms[:, :, None, 1:2, :], rotation[:, :, None])
        local = local / (local.square().sum(-1, keepdim=True) + 1.0).sqrt()
        turn = torch.matmul(
            rotation.mT[:, :, None], gather(rotation.flatten(2)).unflatten(-1, (3, 3))
        )
        parts += [local.flatten(-2), turn.flatten(-2)]
    return torch.cat([part.expand(*parts[0].shape[:3], -1) for part in parts], dim=-1)


def nearest(translation: Tensor, mask: Tensor, num: int) -> Tensor:
    """(B,N,J) the ``num`` residues nearest in CA, itself first; padding only where too few."""
    distance = torch.cdist(translation, translation).masked_fill(~mask[:, None, :], math.inf)
    return distance.topk(min(num, translation.shape[1]), largest=False).indices
