"""Small proteins for tests of the model: real backbone geometry, random residues."""

import math
from dataclasses import replace

import numpy as np
import torch

from qfitlatent.chemistry.building import place_backbone
from qfitlatent.chemistry.geometry import frames
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_TOKENS
from qfitlatent.model.batch import Protein


def make_protein(num: int, seed: int = 0, num_chains: int = 1, entry: str = "test") -> Protein:
    """``num`` residues with one or two altlocs each, in chains of helices and strands."""
    rng = np.random.default_rng(seed)
    helical = np.repeat(rng.random(num // 8 + 1) < 0.5, 8)[:num]
    phi = np.where(helical, -1.05, -2.1) + 0.2 * rng.standard_normal(num)
    psi = np.where(helical, -0.78, 2.3) + 0.2 * rng.standard_normal(num)
    atoms = place_backbone(phi, psi, np.full(num, np.pi))
    rotation, translation, ok = frames(atoms[:, 0], atoms[:, 1], atoms[:, 2])
    assert ok.all()
    chain = np.arange(num) * num_chains // num
    translation = translation + 15.0 * chain[:, None]
    token = rng.integers(0, NUM_TOKENS, num)
    has_chi = np.flatnonzero(CHI_DEFINED[token].any(1))
    rows = np.sort(np.concatenate([has_chi, has_chi[::2]]))
    counts = np.bincount(rows, minlength=num)[rows]
    occupancy = 1.0 / counts
    defined = CHI_DEFINED[token[rows]]
    chi = np.where(defined, rng.uniform(-np.pi, np.pi, defined.shape), 0.0)
    first = np.searchsorted(chain, chain)
    return Protein(
        entry=entry,
        token=torch.from_numpy(token),
        rotation=torch.from_numpy(rotation).float(),
        translation=torch.from_numpy(translation).float(),
        position=torch.from_numpy(np.arange(num) - first),
        chain=torch.from_numpy(chain),
        torsion=torch.from_numpy(np.stack([phi, psi, np.full(num, np.pi)], 1)).float(),
        num_distinct=torch.from_numpy(np.bincount(rows, minlength=num)),
        heterogeneous=torch.full((num,), torch.nan),
        b_rank=torch.from_numpy(rng.permutation(num) / (num - 1)).float(),
        weight=torch.ones(num),
        residue_row=torch.arange(num),
        row_residue=torch.from_numpy(rows),
        conformer_row=torch.arange(len(rows)),
        chi=torch.from_numpy(chi).float(),
        defined=torch.from_numpy(defined),
        occupancy=torch.from_numpy(occupancy).float(),
    )


def globule(num: int, seed: int = 0) -> Protein:
    """``num`` residues at random places, as dense as in a protein: 135 cubic angstrom each."""
    protein = make_protein(num, seed)
    places = np.random.default_rng(seed).random((num, 3)) * (135.0 * num) ** (1 / 3)
    return replace(protein, translation=torch.from_numpy(places).float())


def copied_out(one: Protein, num_copies: int) -> Protein:
    """Copies side by side on a lattice, as dense: a large structure whose chains are compact."""
    every = one.select(torch.arange(len(one)).repeat(num_copies))
    side = math.ceil(num_copies ** (1 / 3))
    place = torch.stack(torch.unravel_index(torch.arange(num_copies), (side, side, side)), dim=1)
    shift = (135.0 * len(one)) ** (1 / 3) * place
    return replace(
        every,
        translation=every.translation + shift.repeat_interleave(len(one), 0),
        chain=torch.arange(num_copies).repeat_interleave(len(one)),
    )
