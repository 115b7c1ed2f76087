"""The truth of simulated entries as the density that the package evaluates."""

import numpy as np
import pyarrow as pa
import torch

from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI_MAX, PI_SYMMETRIC
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.simulate.truth import NUM_COMPONENTS


def truth_mixture(truth: pa.Table) -> tuple[pa.Table, VonMisesMixture]:
    """Keys (entry, chain, index, token) of each residue with chi, and the mixtures in order."""
    component = truth["component"].to_numpy()
    first = component == 0
    residue = np.cumsum(first) - 1
    token = truth["token"].to_numpy()[first]
    weight = np.zeros((len(token), NUM_COMPONENTS))
    mean, kappa = np.zeros((2, *weight.shape, NUM_CHI_MAX))
    weight[residue, component] = truth["weight"].to_numpy()
    for d in range(NUM_CHI_MAX):
        for array, name in ((mean, f"mean{d + 1}_rad"), (kappa, f"kappa{d + 1}")):
            array[residue, component, d] = np.nan_to_num(truth[name].to_numpy())
    mixture = VonMisesMixture(
        torch.from_numpy(weight).clamp(min=1e-300).log(),
        torch.from_numpy(mean),
        torch.from_numpy(kappa),
        torch.from_numpy(CHI_DEFINED[token]),
        torch.from_numpy(PI_SYMMETRIC[token]),
    )
    keys = truth.select(["entry", "chain", "index", "token"]).filter(pa.array(first))
    return keys, mixture
