"""The true chi distribution of a simulated residue (SPEC 9)."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.geometry import fold, wrap
from qfitlatent.chemistry.residues import (
    CHI_DEFINED,
    NUM_CHI,
    NUM_CHI_MAX,
    NUM_TOKENS,
    PI_SYMMETRIC,
    TOKEN,
)

NUM_COMPONENTS = 4


def _rows(name: str) -> list[dict[str, str]]:
    with files("qfitlatent").joinpath("data", name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


_RESIDUES = _rows("simulator_residues.csv")
SCALES = {
    scale: np.array([float(row[scale]) for row in _RESIDUES])
    for scale in ("helix", "strand", "loop", "hydropathy", "volume")
}
"""(20,) of each residue type: its relative frequency in helices, strands and loops, rounded, after
Chou & Fasman, Annu Rev Biochem 47 (1978) 251; hydropathy, Kyte & Doolittle, J Mol Biol 157 (1982)
105; volume in cubic angstrom, Zamyatnin, Prog Biophys Mol Biol 24 (1972) 107."""

_SIGMA = np.deg2rad((12.0, 14.0, 16.0, 18.0))
"""Spread of chi1..chi4 within a rotamer."""

_SIGMA_PLANAR = np.deg2rad(22.0)
"""Spread of the last chi of a planar group (amides, acids), which is hardly rotameric."""

_SIGMA_PROLINE = np.deg2rad(4.0)
"""A pyrrolidine ring puckers within narrow limits: one draw in a thousand is beyond what closes,
and is built at the nearest amplitude (``building.PRO_MAX_AMPLITUDE``)."""

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
    """Of each token and component, from ``data/simulator_rotamers.csv``: relative weight and chi in
    degrees of common rotamers, rounded, after Lovell et al., Proteins 40 (2000) 389. The
    simulator's world holds these and no others."""
    log_base = np.full((NUM_TOKENS, NUM_COMPONENTS), -np.inf)
    mean, kappa = np.zeros((2, NUM_TOKENS, NUM_COMPONENTS, NUM_CHI_MAX))
    effect = np.zeros((NUM_TOKENS, NUM_COMPONENTS, _WELL_EFFECT.shape[1]))
    log_base[:, 0] = 0.0  # a type without chi has one empty component
    for name, rotamers in groupby(_rows("simulator_rotamers.csv"), lambda row: row["name"]):
        t, d = TOKEN[name], NUM_CHI[TOKEN[name]]
        sigma = _SIGMA[:d].copy()
        if name in ("ASN", "ASP", "GLN", "GLU"):
            sigma[-1] = _SIGMA_PLANAR
        if name == "PRO":
            sigma[:] = _SIGMA_PROLINE
        for k, row in enumerate(rotamers):
            chi = [float(row[f"chi{i + 1}"]) for i in range(d)]
            angles = np.deg2rad(chi)
            log_base[t, k] = np.log(float(row["weight"]))
            mean[t, k, :d] = angles
            kappa[t, k, :d] = sigma**-2
            well = int(np.argmax(np.cos(angles[0] - np.deg2rad((60.0, 180.0, -60.0)))))
            second = 0.0 if d == 1 else (1.0 if abs(chi[1]) < 120 else -1.0)
            effect[t, k] = _WELL_EFFECT[well] + 0.5 * second * _SECOND_EFFECT
    return {"log_base": log_base, "mean": mean, "kappa": kappa, "effect": effect}


_TABLES = _rotamer_tables()


def _standardised(scale: np.ndarray) -> np.ndarray:
    return np.append((scale - scale.mean()) / scale.std(), 0.0)  # the unknown token is neutral


_NEIGHBOUR = np.column_stack([_standardised(SCALES[scale]) for scale in ("hydropathy", "volume")])


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

    def sample(self, residue: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(R, D) an independent draw for each of these R residues, which may repeat.

        In (-pi, pi]; symmetric chi folded; 0 where undefined.
        """
        cumulative = np.cumsum(self.weight[residue], axis=1)
        component = (rng.random((len(residue), 1)) * cumulative[:, -1:] >= cumulative).sum(axis=1)
        mean, kappa = self.mean[residue, component], self.kappa[residue, component]
        defined = self.defined[residue]
        chi = np.where(defined, rng.vonmises(mean, np.where(defined, kappa, 1.0)), 0.0)
        return np.where(self.symmetric[residue], fold(chi), chi)


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


def truth_table(entry: str, chain: str, token: np.ndarray, truth: TruthMixture) -> pa.Table:
    """The truth of one chain, whose residues have these tokens (N,)."""
    index, component = np.nonzero((truth.weight > 0) & (NUM_CHI[token] > 0)[:, None])
    num, undefined = len(index), ~truth.defined[index].T
    weight, mean, kappa = (x[index, component] for x in (truth.weight, truth.mean, truth.kappa))
    columns = [[entry] * num, [chain] * num, index, component, token[index], weight]
    columns += [pa.array(x, mask=no) for x, no in zip(mean.T, undefined, strict=True)]
    columns += [pa.array(x, mask=no) for x, no in zip(kappa.T, undefined, strict=True)]
    return pa.table(dict(zip(TRUTH_SCHEMA.names, columns, strict=True)), schema=TRUTH_SCHEMA)


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
