"""The true chi distribution of a simulated residue (SPEC 9)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.geometry import fold, wrap
from qfitlatent.chemistry.residues import (
    CHI_DEFINED,
    NUM_CHI_MAX,
    ONE_LETTER,
    PI_SYMMETRIC,
    RESIDUE_TYPES,
    TOKEN,
)

NUM_COMPONENTS = 4
_ROTAMERS: dict[str, tuple[tuple[float, tuple[float, ...]], ...]] = {
    "ARG": ((4, (-67, 180, 180, 180)), (3, (180, 180, 65, 175)),
            (2, (-65, -70, 180, -85)), (2, (62, 180, 180, 85))),
    "ASN": ((4, (-70, -30)), (3, (180, 30)), (2, (62, 20)), (1, (-70, 110))),
    "ASP": ((4, (-70, -15)), (3, (180, 5)), (2, (62, -5))),
    "CYS": ((4, (-65,)), (3, (180,)), (2, (62,))),
    "GLN": ((4, (-67, 180, -25)), (3, (180, 65, 20)), (2, (-65, -65, -40)), (2, (62, 180, 20))),
    "GLU": ((4, (-67, 180, -10)), (3, (180, 180, 0)), (2, (-65, -65, -40)), (2, (62, 180, -20))),
    "HIS": ((4, (-65, -70)), (3, (180, 60)), (2, (62, -75)), (1, (-65, 165))),
    "ILE": ((5, (-65, 170)), (2, (62, 170)), (2, (180, 165)), (2, (-57, -60))),
    "LEU": ((5, (-65, 175)), (4, (180, 65)), (1, (62, 80)), (1, (-85, 65))),
    "LYS": ((4, (-67, 180, 180, 180)), (3, (180, 180, 180, 65)),
            (2, (-62, -68, 180, 180)), (2, (62, 180, 180, 180))),
    "MET": ((4, (-65, -65, -70)), (3, (180, 65, 75)), (3, (-67, 180, 75)), (2, (62, 180, -75))),
    "PHE": ((4, (-65, -85)), (4, (180, 80)), (2, (62, 90)), (1, (-65, -30))),
    "PRO": ((1, (24, -32)), (1, (-22, 31))),
    "SER": ((4, (62,)), (3, (-65,)), (3, (180,))),
    "THR": ((4, (62,)), (4, (-65,)), (1, (-175,))),
    "TRP": ((4, (-65, 95)), (3, (180, -105)), (2, (62, -90)), (2, (-65, -10))),
    "TYR": ((4, (-65, -85)), (4, (180, 80)), (2, (62, 90)), (1, (-65, -30))),
    "VAL": ((4, (175,)), (3, (-60,)), (2, (63,))),
}  # fmt: skip
"""Relative weight and chi (degrees) of each true component: common rotamers, rounded, after
Lovell et al., Proteins 40 (2000) 389. The simulator's world holds these and no others."""

_SIGMA = np.deg2rad((12.0, 14.0, 16.0, 18.0))
"""Spread of chi1..chi4 within a rotamer."""

_SIGMA_PLANAR = np.deg2rad(22.0)
"""Spread of the last chi of a planar group (amides, acids), which is hardly rotameric."""

_SIGMA_PROLINE = np.deg2rad(4.0)
"""A pyrrolidine ring puckers within narrow limits: one draw in a thousand is beyond what closes,
and is built at the nearest amplitude (``building.PRO_MAX_AMPLITUDE``)."""

_HYDROPATHY = dict(zip("ARNDCQEGHILKMFPSTWYV", (
    1.8, -4.5, -3.5, -3.5, 2.5, -3.5, -3.5, -0.4, -3.2, 4.5, 3.8, -3.9, 1.9, 2.8, -1.6, -0.8, -0.7,
    -0.9, -1.3, 4.2), strict=True))  # fmt: skip
"""Kyte & Doolittle, J Mol Biol 157 (1982) 105."""

_VOLUME = dict(zip("ARNDCQEGHILKMFPSTWYV", (
    88.6, 173.4, 114.1, 111.1, 108.5, 143.8, 138.4, 60.1, 153.2, 166.7, 166.7, 168.6, 162.9, 189.9,
    112.7, 89.0, 116.1, 227.8, 193.6, 140.0), strict=True))  # fmt: skip
"""Residue volumes, cubic angstrom: Zamyatnin, Prog Biophys Mol Biol 24 (1972) 107."""

_WELL_EFFECT = np.array(
    # helix, strand, previous hydropathy, previous volume, next hydropathy, next volume
    (
        (-1.8, 1.6, 0.4, -1.0, -1.3, 0.6),  # chi1 gauche+ (near 60)
        (0.4, 0.4, 1.2, 0.6, 0.9, -1.3),  # trans
        (1.2, -1.4, -1.3, 0.6, 0.6, 0.9),  # gauche- (near -60)
    )
)
"""What a unit of each context feature adds to the log weight of a chi1 well."""

_SECOND_EFFECT = np.array((0.7, -0.7, -0.8, 0.7, 0.8, -0.8))
"""The same for components whose chi2 (chi1 for none) is not trans, against those whose is."""

_MEAN_SHIFT = np.deg2rad(6.0)
"""Chi1 of every component turns by up to this, with the strand and helix character."""

HELIX, STRAND = np.deg2rad((-63.0, -42.0)), np.deg2rad((-120.0, 130.0))


def _rotamer_tables() -> dict[str, np.ndarray]:
    num = len(RESIDUE_TYPES) + 1
    log_base = np.full((num, NUM_COMPONENTS), -np.inf)
    mean = np.zeros((num, NUM_COMPONENTS, NUM_CHI_MAX))
    kappa = np.zeros((num, NUM_COMPONENTS, NUM_CHI_MAX))
    effect = np.zeros((num, NUM_COMPONENTS, _WELL_EFFECT.shape[1]))
    log_base[:, 0] = 0.0  # a type without chi has one empty component
    for name, rotamers in _ROTAMERS.items():
        t, d = TOKEN[name], len(rotamers[0][1])
        sigma = _SIGMA[:d].copy()
        if name in ("ASN", "ASP", "GLN", "GLU"):
            sigma[-1] = _SIGMA_PLANAR
        if name == "PRO":
            sigma[:] = _SIGMA_PROLINE
        for k, (weight, chi) in enumerate(rotamers):
            angles = np.deg2rad(np.array(chi, dtype=float))
            log_base[t, k] = np.log(weight)
            mean[t, k, :d] = angles
            kappa[t, k, :d] = sigma**-2
            well = int(np.argmax(np.cos(angles[0] - np.deg2rad((60.0, 180.0, -60.0)))))
            second = 0.0 if d == 1 else (1.0 if abs(chi[1]) < 120 else -1.0)
            effect[t, k] = _WELL_EFFECT[well] + 0.5 * second * _SECOND_EFFECT
    return {"log_base": log_base, "mean": mean, "kappa": kappa, "effect": effect}


_TABLES = _rotamer_tables()


def _standardised(values: dict[str, float]) -> np.ndarray:
    v = np.array([values[letter] for letter in ONE_LETTER[:20]])
    return np.append((v - v.mean()) / v.std(), 0.0)  # the unknown token is neutral


_NEIGHBOUR = np.stack((_standardised(_HYDROPATHY), _standardised(_VOLUME)), axis=1)


def context_features(
    token: np.ndarray, phi: np.ndarray, psi: np.ndarray, bonded: np.ndarray
) -> np.ndarray:
    """(N, 6) all that the truth knows beside the residue's own type.

    helix and strand character (smooth bumps on the Ramachandran torus; 0 where phi or
    psi is undefined), then hydropathy and volume of the residue before and after,
    standardised over the twenty types; 0 where no neighbour is bonded.

    ``bonded`` (N,) is true where residue i is bonded to residue i + 1.
    """
    bump = [
        np.exp(2.0 * (np.cos(phi - centre[0]) + np.cos(psi - centre[1]) - 2.0))
        for centre in (HELIX, STRAND)
    ]
    before = np.concatenate(([False], bonded[:-1]))
    previous = np.where(before[:, None], _NEIGHBOUR[np.roll(token, 1)], 0.0)
    following = np.where(bonded[:, None], _NEIGHBOUR[np.roll(token, -1)], 0.0)
    inside = before & bonded
    shape = np.where(inside[:, None], np.stack(bump, axis=1), 0.0)
    return np.concatenate((shape, previous, following), axis=1)


@dataclass(frozen=True)
class TruthMixture:
    """The generator's density of each residue: sum_k weight_k prod_d vM(chi_d | mean, kappa)."""

    weight: np.ndarray
    """(N, K) sums to 1."""
    mean: np.ndarray
    """(N, K, D) radians."""
    kappa: np.ndarray
    """(N, K, D); 0 where the residue type has no such chi."""
    defined: np.ndarray
    """(N, D) bool: the residue type has this chi."""
    symmetric: np.ndarray
    """(N, D) bool: pi-symmetric chi."""

    def __len__(self) -> int:
        return len(self.weight)

    def select(self, rows: np.ndarray) -> TruthMixture:
        """The mixtures of these residues, in this order; rows may repeat."""
        return TruthMixture(*(getattr(self, f.name)[rows] for f in fields(self)))

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """(N, D) one draw a residue in (-pi, pi]; symmetric chi folded; 0 where undefined."""
        cumulative = np.cumsum(self.weight, axis=1)
        component = (rng.random((len(self), 1)) * cumulative[:, -1:] >= cumulative).sum(axis=1)
        rows = np.arange(len(self))
        mean, kappa = self.mean[rows, component], self.kappa[rows, component]
        chi = np.where(self.defined, rng.vonmises(mean, np.where(self.defined, kappa, 1.0)), 0.0)
        return np.where(self.symmetric, fold(chi), chi)


def true_mixture(
    token: np.ndarray,
    phi: np.ndarray,
    psi: np.ndarray,
    bonded: np.ndarray,
    strength: float,
) -> TruthMixture:
    """The generator: p(chi | type, phi, psi, neighbouring types) of each residue of a chain.

    log weight_k = log base_k(type) + strength * effect_k(type) . context, normalised;
    arguments as in ``context_features``.
    """
    context = context_features(token, phi, psi, bonded)
    logit = _TABLES["log_base"][token] + strength * np.einsum(
        "nkf,nf->nk", _TABLES["effect"][token], context
    )
    weight = np.exp(logit - logit.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    mean = _TABLES["mean"][token].copy()
    shift = strength * _MEAN_SHIFT * (context[:, 1] - context[:, 0])
    shift = np.where(CHI_DEFINED[token, 0] & (token != TOKEN["PRO"]), shift, 0.0)
    mean[:, :, 0] += np.where(weight > 0, shift[:, None], 0.0)
    return TruthMixture(
        weight, wrap(mean), _TABLES["kappa"][token], CHI_DEFINED[token], PI_SYMMETRIC[token]
    )


TRUTH_SCHEMA = pa.schema(
    [
        ("entry", pa.string()),
        ("chain", pa.string()),
        ("index", pa.int32()),
        ("component", pa.int8()),
        ("token", pa.int8()),
        ("weight", pa.float64()),
        *((f"mean{d}_rad", pa.float64()) for d in range(1, NUM_CHI_MAX + 1)),
        *((f"kappa{d}", pa.float64()) for d in range(1, NUM_CHI_MAX + 1)),
    ]
)
"""One row a residue with chi and component; mean and kappa are null beyond the type's chi."""


def read_truth(folder: str | Path, entries: Iterable[str]) -> pa.Table:
    """The truth of these entries as one table, wherever below the folder their tables lie.

    Raises:
        QfitLatentError: an entry has none.
    """
    found = {path.stem: path for path in sorted(Path(folder).rglob("*.parquet"))}
    tables = []
    for entry in entries:
        if entry not in found:
            raise QfitLatentError(
                f"No truth table of entry {entry} below {folder}: were all entries simulated?"
            )
        tables.append(pq.read_table(found[entry]))
    return pa.concat_tables(tables)
