"""Simulated multiconformer entries whose true chi distribution is known (SPEC 9).

What an entry is made of:

1. A sequence family: an ancestor (sequence, secondary structure, phi/psi) that the members
   mutate. Families share nothing, so splits by sequence cluster mean something. All chains of
   an entry are copies of one sequence, so that no entry ties two families together.
2. A backbone of helices, strands and loops with ideal geometry, the most compact of a few.
3. For each residue a true mixture p(chi): at most four von Mises components over all its chi,
   with weights (and, slightly, means) that depend on the residue type, smoothly on phi and psi,
   and on the types of the bonded neighbours in sequence. Nothing else: see ``true_mixture``.
4. Altlocs: their number is drawn first, then each altloc's chi is an independent draw from
   p(chi), and occupancies are drawn without looking at the chi. The occupancy-weighted negative
   log likelihood of SPEC 7 therefore has the expectation of the unweighted one, and no density
   can beat in expectation the truth itself, whose value is the entropy of p: ``truth_entropy``.
5. The disorder of real files: blank atoms shared by all altlocs, whole-residue altlocs,
   occupancies that do not sum to 1, missing atoms and residues, insertion codes, MSE, several
   chains, waters, headers. All of it is drawn independently of the chi.

Pi-symmetric angles are deposited in (-pi/2, pi/2], as IUPAC names them: chi and chi + pi are one
conformation. The true density on the full circle is therefore half of the mixture at chi and
half at chi + pi, the form ``nll`` of SPEC 8, and the entropy given here is of that density.

Shape legend: N residues, K = 4 components (unused ones have weight 0), D = 4 chi.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path

import gemmi
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path
from qfitlatent.chemistry.building import MAX_SIDE_CHAIN_ATOMS, build_side_chains, place_backbone
from qfitlatent.chemistry.residues import (
    BACKBONE_ATOMS,
    CHI_DEFINED,
    NUM_CHI,
    NUM_CHI_MAX,
    ONE_LETTER,
    PI_SYMMETRIC,
    RESIDUE_TYPES,
    SIDE_CHAIN_ATOMS,
    TOKEN,
)

NUM_COMPONENTS = 4


@dataclass(frozen=True)
class SimulatorSettings:
    """What to simulate; lengths are counts of residues, fractions are of 1."""

    num_entries: int = 300
    """Entries in the set; their ids are sim00000, sim00001, ..."""
    num_families: int = 75
    """Sequence families that the entries are dealt to in turn."""
    min_residues: int = 50
    """Shortest ancestral chain, residues."""
    max_residues: int = 110
    """Longest ancestral chain, residues."""
    max_chains: int = 2
    """Most chains (copies of one sequence) in an entry."""
    extra_chain_fraction: float = 0.15
    """Probability of each further chain up to max_chains."""
    multiconformer_fraction: float = 0.35
    """Probability that a residue with chi angles has two or more altlocs."""
    max_altlocs: int = 4
    """Most altlocs of a residue; each one beyond the second is half as likely as the last."""
    min_family_identity: float = 0.65
    """Lowest fraction of positions that a member keeps from its ancestor."""
    max_family_identity: float = 0.85
    """Highest fraction of positions that a member keeps from its ancestor."""
    context_strength: float = 1.3
    """Scale of how phi/psi and neighbours move the rotamer weights; 0 makes the truth a library."""
    missing_atom_fraction: float = 0.01
    """Probability that a residue lacks the end of its side chain."""
    missing_residue_fraction: float = 0.004
    """Probability that a residue inside a chain is not modelled."""
    whole_residue_fraction: float = 0.15
    """Probability that altlocs of a multiconformer residue include its backbone atoms."""
    uneven_occupancy_fraction: float = 0.04
    """Probability that the occupancies of a multiconformer residue do not sum to 1."""
    mse_fraction: float = 0.1
    """Probability that an entry has MSE in place of MET."""
    insertion_code_fraction: float = 0.1
    """Probability that a chain has a run of insertion codes."""
    num_waters: int = 6
    """Waters in each entry."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith(("_fraction", "_identity")) and not 0.0 <= value <= 1.0:
                raise QfitLatentError(
                    f"simulate.{field.name} is {value}, but it is a fraction: give 0 to 1."
                )
            if field.name.startswith(("num_", "max_r", "max_c", "min_r")) and value < 0:
                raise QfitLatentError(f"simulate.{field.name} is {value}: give a positive number.")
        if not 1 <= self.num_entries <= 100_000:
            raise QfitLatentError(
                f"simulate.num_entries is {self.num_entries}: ids have five digits, "
                "give 1 to 100000."
            )
        if self.num_families < 1 or self.max_chains < 1:
            raise QfitLatentError("simulate.num_families and max_chains must be at least 1.")
        for low, high in (
            ("min_residues", "max_residues"),
            ("min_family_identity", "max_family_identity"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise QfitLatentError(f"simulate.{low} is above simulate.{high}: exchange them.")
        if self.min_residues < 10:
            raise QfitLatentError("simulate.min_residues must be at least 10.")
        if not 2 <= self.max_altlocs <= 6:
            raise QfitLatentError(f"simulate.max_altlocs is {self.max_altlocs}: give 2 to 6.")


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


_HELIX, _STRAND = np.deg2rad((-63.0, -42.0)), np.deg2rad((-120.0, 130.0))


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
        for centre in (_HELIX, _STRAND)
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

    @cached_property
    def _log_normaliser(self) -> np.ndarray:
        return np.log(2 * np.pi * _i0e(self.kappa)) + self.kappa

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """(N, D) one draw a residue in (-pi, pi]; symmetric chi folded; 0 where undefined."""
        cumulative = np.cumsum(self.weight, axis=1)
        component = (rng.random((len(self), 1)) * cumulative[:, -1:] >= cumulative).sum(axis=1)
        rows = np.arange(len(self))
        mean, kappa = self.mean[rows, component], self.kappa[rows, component]
        chi = np.where(self.defined, rng.vonmises(mean, np.where(self.defined, kappa, 1.0)), 0.0)
        return _fold(chi, self.symmetric)

    def log_prob(self, chi: np.ndarray, observed: np.ndarray | None = None) -> np.ndarray:
        """(N,) log density in nats on the full circle, symmetric chi as halves at chi and chi + pi.

        ``observed`` (N, D) marks the chi that are there: the others are marginalised.
        """
        used = self.defined if observed is None else self.defined & observed
        delta = np.where(used, chi, 0.0)[:, None, :] - self.mean
        exponent = self.kappa * np.cos(delta)
        both = np.logaddexp(exponent, -exponent) - np.log(2.0)
        per_chi = np.where(self.symmetric[:, None, :], both, exponent) - self._log_normaliser
        with np.errstate(divide="ignore"):
            log_joint = np.log(self.weight) + np.where(used[:, None, :], per_chi, 0.0).sum(axis=2)
        top = log_joint.max(axis=1)
        return top + np.log(np.exp(log_joint - top[:, None]).sum(axis=1))

    def entropy(self, num_draws: int = 256, seed: int = 0) -> np.ndarray:
        """(N,) entropy in nats, as the mean of -log p over draws (standard error about 1/16 each).

        Errors of residues are independent: a mean over 1000 residues is good to 0.002 nats.
        """
        rng = np.random.default_rng(seed)
        total = np.zeros(len(self))
        for _ in range(num_draws):
            total -= self.log_prob(self.sample(rng))
        return total / num_draws


def true_mixture(
    token: np.ndarray,
    phi: np.ndarray,
    psi: np.ndarray,
    bonded: np.ndarray,
    strength: float = SimulatorSettings.context_strength,
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
    mean = np.arctan2(np.sin(mean), np.cos(mean))
    return TruthMixture(
        weight, mean, _TABLES["kappa"][token], CHI_DEFINED[token], PI_SYMMETRIC[token]
    )


def _fold(chi: np.ndarray, symmetric: np.ndarray) -> np.ndarray:
    """Symmetric angles to (-pi/2, pi/2]: chi and chi + pi are one conformation."""
    folded = chi - np.pi * np.ceil(chi / np.pi - 0.5)
    return np.where(symmetric, folded, chi)


def _i0e(x: np.ndarray) -> np.ndarray:
    """exp(-x) I0(x), without scipy, by numpy's Chebyshev i0 below 500 and its asymptote above."""
    small = np.minimum(x, 500.0)
    large = np.maximum(x, 500.0)
    tail = (1 + 1 / (8 * large) + 9 / (128 * large**2)) / np.sqrt(2 * np.pi * large)
    return np.where(x < 500.0, np.i0(small) * np.exp(-small), tail)


_PROPENSITY = {
    "H": dict(zip("ARNDCQEGHILKMFPSTWYV", (
        12, 7, 3, 4, 1.5, 6, 9, 2, 2, 7, 12, 8, 4, 4, 0.5, 4, 3, 2, 4, 5), strict=True)),
    "E": dict(zip("ARNDCQEGHILKMFPSTWYV", (
        5, 5, 2, 2, 3, 4, 4, 3, 3, 10, 9, 4, 3, 7, 0.7, 5, 9, 3, 7, 12), strict=True)),
    "L": dict(zip("ARNDCQEGHILKMFPSTWYV", (
        5, 5, 8, 9, 2, 4, 5, 12, 4, 3, 5, 6, 2, 3, 9, 9, 7, 1.5, 4, 4), strict=True)),
}  # fmt: skip
"""Relative frequency of residue types in helices, strands and loops, rounded, after
Chou & Fasman, Annu Rev Biochem 47 (1978) 251."""


_PROPENSITY_TABLE = {
    state: np.array([values[letter] for letter in ONE_LETTER[:20]]) / sum(values.values())
    for state, values in _PROPENSITY.items()
}


_SEGMENT_LENGTH = {"H": (7, 16), "E": (4, 9), "L": (3, 7)}


_LOOP_BASINS = np.deg2rad(((-70, 145), (-95, 5), (-65, -35), (-125, 125), (58, 40)))


_LOOP_BASIN_WEIGHT = np.array((0.36, 0.2, 0.18, 0.2, 0.06))


_NUM_BACKBONE_TRIALS = 8


@dataclass(frozen=True)
class _Family:
    token: np.ndarray
    state: np.ndarray
    phi: np.ndarray
    psi: np.ndarray


def _rng(seed: int, *words: object) -> np.random.Generator:
    """A generator of its own for every purpose: nothing depends on the order of simulation."""
    digest = hashlib.sha256(repr((seed, *words)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


@lru_cache(maxsize=4096)
def _family(seed: int, number: int, settings: SimulatorSettings) -> _Family:
    rng = _rng(seed, "family", number)
    length = int(rng.integers(settings.min_residues, settings.max_residues + 1))
    states: list[str] = ["L"] * int(rng.integers(2, 5))
    while len(states) < length:
        kind = "H" if rng.random() < 0.5 else "E"
        for part in (kind, "L"):
            low, high = _SEGMENT_LENGTH[part]
            states += [part] * int(rng.integers(low, high + 1))
    state = np.array(states[:length])
    token = _draw_types(state, rng)
    phi, psi = _draw_torsions(state, token, _NUM_BACKBONE_TRIALS, rng)
    best = _most_compact(place_backbone(phi, psi, np.full_like(phi, np.pi)))
    return _Family(token, state, phi[best], psi[best])


def _draw_types(state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    table = np.stack([_PROPENSITY_TABLE[s] for s in state])
    return (rng.random((len(state), 1)) >= np.cumsum(table, axis=1)).sum(axis=1).clip(max=19)


def _draw_torsions(
    state: np.ndarray, token: np.ndarray, num: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(num, N) phi and psi: basins of the state with a spread, left-handed for GLY, ASN, ASP."""
    size = (num, len(state))
    basin = rng.choice(len(_LOOP_BASINS), size=size, p=_LOOP_BASIN_WEIGHT)
    left_handed = np.isin(token, [TOKEN[name] for name in ("GLY", "ASN", "ASP")])
    basin = np.where((basin == 4) & ~left_handed, 0, basin)
    centre = _LOOP_BASINS[basin]
    centre[:, state == "H"] = _HELIX
    centre[:, state == "E"] = _STRAND
    spread = np.deg2rad(np.where(state == "H", 6.0, np.where(state == "E", 14.0, 15.0)))
    phi = centre[..., 0] + spread * rng.normal(size=size)
    psi = centre[..., 1] + spread * rng.normal(size=size)
    phi = np.where(
        token == TOKEN["PRO"], np.deg2rad(-65.0) + 0.5 * spread * rng.normal(size=size), phi
    )
    return _wrap(phi), _wrap(psi)


def _most_compact(backbone: np.ndarray) -> int:
    """The trial with the smallest radius of gyration; a pair of CA below 4 angstrom costs 0.2."""
    ca = backbone[:, :, 1]
    centred = ca - ca.mean(axis=1, keepdims=True)
    squared = (centred**2).sum(axis=2)
    gyration = np.sqrt(squared.mean(axis=1))
    distance2 = squared[:, :, None] + squared[:, None, :] - 2 * centred @ centred.swapaxes(1, 2)
    close = np.triu(distance2 < 16.0, k=2).sum(axis=(1, 2))
    return int(np.argmin(gyration + 0.2 * close))


def _wrap(angle: np.ndarray) -> np.ndarray:
    return np.arctan2(np.sin(angle), np.cos(angle))


@dataclass(frozen=True)
class _Chain:
    """One simulated chain; modelled residues only, `number` counts from 0 along the sequence."""

    token: np.ndarray
    number: np.ndarray
    phi: np.ndarray
    psi: np.ndarray
    bonded: np.ndarray
    backbone: np.ndarray


def _member(
    entry: str, seed: int, settings: SimulatorSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sequence, phi and psi of one member of the entry's family: mutated, trimmed, relaxed."""
    family = _family(seed, int(entry[3:]) % settings.num_families, settings)
    identity = rng.uniform(settings.min_family_identity, settings.max_family_identity)
    mutate = rng.random(len(family.token)) > identity
    mutate &= family.token != TOKEN["PRO"]  # a proline's own phi stays where it fits
    drawn = _draw_types(family.state, rng)
    drawn = np.where(drawn == TOKEN["PRO"], family.token, drawn)
    token = np.where(mutate, drawn, family.token)
    jitter = np.deg2rad(4.0) * rng.normal(size=(2, len(token)))
    first, last = rng.integers(0, 4, size=2)
    keep = slice(int(first), len(token) - int(last))
    return token[keep], _wrap(family.phi + jitter[0])[keep], _wrap(family.psi + jitter[1])[keep]


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


@dataclass(frozen=True)
class SimulatedEntry:
    entry: str
    mmcif: str
    truth: pa.Table

    def structure(self) -> gemmi.Structure:
        """The entry as gemmi reads it."""
        block = gemmi.cif.read_string(self.mmcif).sole_block()
        return gemmi.make_structure_from_block(block)


def entry_ids(settings: SimulatorSettings) -> list[str]:
    """sim00000, sim00001, ...: one id an entry."""
    return [f"sim{number:05d}" for number in range(settings.num_entries)]


def simulate_entry(entry: str, seed: int, settings: SimulatorSettings) -> SimulatedEntry:
    """One entry, the same for the same (entry, seed, settings) whatever else is simulated."""
    if not (entry.startswith("sim") and entry[3:].isdigit() and len(entry) == 8):
        raise QfitLatentError(
            f"'{entry}' is not the id of a simulated entry: use sim and five digits, as sim00042."
        )
    rng = _rng(seed, "entry", entry)
    token, phi, psi = _member(entry, seed, settings, rng)
    num_chains = 1 + int(
        (rng.random(settings.max_chains - 1) < settings.extra_chain_fraction).sum()
    )
    selenium = bool(rng.random() < settings.mse_fraction)
    atoms, truths = [], []
    for number in range(num_chains):
        name = chr(ord("A") + number)
        chain = _fold_chain(token, phi, psi, number, settings, rng)
        truth = true_mixture(
            chain.token, chain.phi, chain.psi, chain.bonded, settings.context_strength
        )
        atoms.append(_chain_atoms(name, chain, truth, selenium, settings, rng))
        truths.append(_truth_columns(entry, name, chain.token, truth))
    atoms.append(_waters(chr(ord("A") + num_chains), settings.num_waters, rng))
    text = _mmcif(entry, token, num_chains, selenium, atoms, rng)
    truth_table = pa.concat_tables([pa.table(t, schema=TRUTH_SCHEMA) for t in truths])
    return SimulatedEntry(entry, text, truth_table)


def write_entries(
    ids: Iterable[str], folder: Path, settings: SimulatorSettings, seed: int
) -> list[Path]:
    """Write ``<id>.cif.gz`` and ``truth/<id>.parquet`` under folder; returns the cif paths.

    The bytes of an entry depend on its id, the seed and the settings alone.
    """
    folder = Path(folder)
    (folder / "truth").mkdir(parents=True, exist_ok=True)
    paths = []
    for entry in ids:
        simulated = simulate_entry(entry, seed, settings)
        path = folder / f"{entry}.cif.gz"
        with atomic_path(path) as temporary:
            temporary.write_bytes(gzip.compress(simulated.mmcif.encode(), compresslevel=4, mtime=0))
        with atomic_path(folder / "truth" / f"{entry}.parquet") as temporary:
            pq.write_table(simulated.truth, temporary, compression="zstd")
        paths.append(path)
    return paths


def _fold_chain(
    token: np.ndarray,
    phi: np.ndarray,
    psi: np.ndarray,
    number: int,
    settings: SimulatorSettings,
    rng: np.random.Generator,
) -> _Chain:
    """Place one chain, its residues that are not modelled taken out."""
    length = len(token)
    omega = np.pi + np.deg2rad(3.0) * rng.normal(size=length)
    backbone = place_backbone(phi, psi, omega) + np.array((60.0 * number, 0.0, 0.0))
    modelled = rng.random(length) >= settings.missing_residue_fraction
    modelled[[0, -1]] = True
    index = np.flatnonzero(modelled)
    bonded = np.append(np.diff(index) == 1, False)
    return _Chain(token[index], index, phi[index], psi[index], bonded, backbone[index])


_ATOM_NAMES = np.full((len(RESIDUE_TYPES), 4 + MAX_SIDE_CHAIN_ATOMS), "", dtype="<U3")
for _t, _name in enumerate(RESIDUE_TYPES):
    _all = (*BACKBONE_ATOMS, *SIDE_CHAIN_ATOMS[_name])
    _ATOM_NAMES[_t, : len(_all)] = _all


_OWN_FROM = np.where(NUM_CHI > 0, 5, 4)
"""Column of the first atom that chi moves: after N, CA, C, O, CB."""


def _chain_atoms(
    name: str,
    chain: _Chain,
    truth: TruthMixture,
    selenium: bool,
    settings: SimulatorSettings,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Atom rows of one chain as columns, in file order: residue, atom, altloc."""
    token, num = chain.token, len(chain.token)
    has_chi = NUM_CHI[token] > 0
    multiple = has_chi & (rng.random(num) < settings.multiconformer_fraction)
    extra = 2.0 ** -np.arange(settings.max_altlocs - 1)
    drawn = 2 + rng.choice(len(extra), size=num, p=extra / extra.sum())
    num_altlocs = np.where(multiple, drawn, 1)
    whole = multiple & (rng.random(num) < settings.whole_residue_fraction)

    # One row a residue and altloc; chi are independent draws of the truth.
    row = np.repeat(np.arange(num), num_altlocs)
    altloc = np.arange(len(row)) - np.repeat(np.cumsum(num_altlocs) - num_altlocs, num_altlocs)
    chi = truth.select(row).sample(rng)
    occupancy = _occupancies(row, num_altlocs, multiple, settings, rng)

    shift = np.where((whole[row] & (altloc > 0))[:, None], 0.05 * rng.normal(size=(len(row), 3)), 0)
    backbone = chain.backbone[row] + shift[:, None, :]
    n, ca, c = backbone[:, 0], backbone[:, 1], backbone[:, 2]
    x = (c - ca) / np.linalg.norm(c - ca, axis=1, keepdims=True)
    z = np.cross(x, n - ca)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    rotation = np.stack((x, np.cross(z, x), z), axis=-1)
    is_se = np.full(len(row), selenium)
    side, exists = build_side_chains(rotation, ca, token[row], chi, nitrogen=n, selenium=is_se)

    xyz = np.concatenate((backbone, side), axis=1)  # (rows, 4 + A, 3)
    there = np.concatenate((np.ones((len(row), 4), dtype=bool), exists), axis=1)
    column = np.arange(xyz.shape[1])
    cut = has_chi & (rng.random(num) < settings.missing_atom_fraction)
    first_cut = 5 + (rng.random(num) * NUM_CHI[token]).astype(int)
    there &= ~(cut[row][:, None] & (column >= first_cut[row][:, None]))

    cb_own = rng.random(num) < 0.5
    own_from = np.where(whole, 0, _OWN_FROM[token] - cb_own * (NUM_CHI[token] > 0))
    owned = multiple[row][:, None] & (column >= own_from[row][:, None])
    there &= owned | (altloc == 0)[:, None]  # shared atoms are written once, blank

    at_row, at_column = np.nonzero(there)
    order = np.lexsort((altloc[at_row], at_column, row[at_row]))
    at_row, at_column = at_row[order], at_column[order]
    residue = row[at_row]
    own = owned[at_row, at_column]
    b_residue = rng.gamma(6.0, 3.0, size=num) + 6.0
    b_row = b_residue[row] + 3.0 * rng.random(len(row))
    atom_names = _ATOM_NAMES[token[residue], at_column]
    names = np.array(RESIDUE_TYPES)[token]
    element = np.array([atom[0] for atom in atom_names.tolist()], dtype="<U2")
    group = np.full(len(residue), "ATOM", dtype="<U6")
    if selenium:
        names = np.where(names == "MET", "MSE", names)
        is_mse = names[residue] == "MSE"
        is_sd = is_mse & (atom_names == "SD")
        atom_names = np.where(is_sd, "SE", atom_names)
        element = np.where(is_sd, "SE", element)
        group = np.where(is_mse, "HETATM", group)
    author_number, insertion = _author_numbers(chain.number, settings, rng)
    return {
        "group": group,
        "element": element,
        "atom": atom_names,
        "altloc": np.where(own, np.array(list("ABCDEF"))[altloc[at_row]], "."),
        "residue": names[residue],
        "label_asym": np.full(len(residue), name),
        "entity": np.full(len(residue), "1"),
        "label_seq": (chain.number[residue] + 1).astype(str),
        "insertion": insertion[residue],
        "xyz": xyz[at_row, at_column],
        "occupancy": np.where(own, occupancy[at_row], 1.0),
        "b": b_row[at_row],
        "author_number": author_number[residue],
        "author_chain": np.full(len(residue), name),
    }


def _occupancies(
    row: np.ndarray,
    num_altlocs: np.ndarray,
    multiple: np.ndarray,
    settings: SimulatorSettings,
    rng: np.random.Generator,
) -> np.ndarray:
    """(rows,) occupancies in hundredths: at least 0.05, summing to 1 a residue but for a few."""
    num = len(num_altlocs)
    raw = rng.gamma(2.0, size=len(row))
    share = raw / np.bincount(row, weights=raw, minlength=num)[row]
    spare = 100 - 5 * num_altlocs[row]
    hundredths = 5 + np.floor(share * spare).astype(int)
    missing = 100 - np.bincount(row, weights=hundredths, minlength=num).astype(int)
    first = np.cumsum(num_altlocs) - num_altlocs
    hundredths[first] += missing
    uneven = multiple & (rng.random(num) < settings.uneven_occupancy_fraction)
    factor = np.where(uneven, rng.uniform(0.7, 0.97, size=num), 1.0)
    return np.round(hundredths * factor[row]) / 100


def _author_numbers(
    number: np.ndarray, settings: SimulatorSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Author numbers with an offset of the chain's own, and for some a run such as 52, 52A, 52B."""
    author = number + int(rng.integers(-3, 40))
    insertion = np.full(len(number), "?")
    inserted = rng.random() < settings.insertion_code_fraction
    start = int(rng.integers(3, len(number) - 5))
    run = int(rng.integers(1, 4))
    if inserted:
        insertion[start : start + run] = np.array(list("ABC"))[:run]
        author[start : start + run] = author[start - 1]
        author[start + run :] -= run
    return author, insertion


def _waters(name: str, num: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    ones = np.ones(num)
    return {
        "group": np.full(num, "HETATM"),
        "element": np.full(num, "O"),
        "atom": np.full(num, "O"),
        "altloc": np.full(num, "."),
        "residue": np.full(num, "HOH"),
        "label_asym": np.full(num, name),
        "entity": np.full(num, "2"),
        "label_seq": np.full(num, "."),
        "insertion": np.full(num, "?"),
        "xyz": rng.normal(scale=20.0, size=(num, 3)),
        "occupancy": ones,
        "b": 30.0 * ones,
        "author_number": 1001 + np.arange(num),
        "author_chain": np.full(num, "A"),
    }


def _truth_columns(entry: str, name: str, token: np.ndarray, truth: TruthMixture) -> dict:
    index, component = np.nonzero((truth.weight > 0) & (NUM_CHI[token] > 0)[:, None])
    mean, kappa = truth.mean[index, component], truth.kappa[index, component]
    undefined = ~truth.defined[index]
    columns = {
        "entry": [entry] * len(index),
        "chain": [name] * len(index),
        "index": index,
        "component": component,
        "token": token[index],
        "weight": truth.weight[index, component],
    }
    for d in range(NUM_CHI_MAX):
        columns[f"mean{d + 1}_rad"] = pa.array(mean[:, d], mask=undefined[:, d])
        columns[f"kappa{d + 1}"] = pa.array(kappa[:, d], mask=undefined[:, d])
    return columns


_ATOM_SITE = """loop_
_atom_site.group_PDB
_atom_site.id
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_entity_id
_atom_site.label_seq_id
_atom_site.pdbx_PDB_ins_code
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.occupancy
_atom_site.B_iso_or_equiv
_atom_site.auth_seq_id
_atom_site.auth_asym_id
_atom_site.pdbx_PDB_model_num
"""


_ATOM_ROW = "%s %d %s %s %s %s %s %s %s %s %.3f %.3f %.3f %.2f %.2f %d %s 1"


def _mmcif(
    entry: str,
    token: np.ndarray,
    num_chains: int,
    selenium: bool,
    atoms: list[dict[str, np.ndarray]],
    rng: np.random.Generator,
) -> str:
    """The file: written as text, since the loop over atoms is most of the time of an entry."""
    resolution = rng.uniform(0.9, 1.9)
    r_free = 0.1 + 0.05 * resolution + 0.02 * rng.random()
    chains = [chr(ord("A") + i) for i in range(num_chains + 1)]
    names = ["MSE" if selenium and t == TOKEN["MET"] else RESIDUE_TYPES[t] for t in token]
    letters = "".join(ONE_LETTER[t] for t in token)
    header = [
        f"data_{entry}",
        f"_entry.id {entry}",
        f"_struct.entry_id {entry}",
        "_struct.title 'Simulated multiconformer entry: not an experiment'",
        f"_exptl.entry_id {entry}",
        "_exptl.method 'X-RAY DIFFRACTION'",
        f"_refine.entry_id {entry}",
        "_refine.pdbx_refine_id 'X-RAY DIFFRACTION'",
        f"_refine.ls_d_res_high {resolution:.2f}",
        f"_refine.ls_R_factor_R_free {r_free:.3f}",
        f"_cell.entry_id {entry}",
        *(f"_cell.length_{axis} 200.000" for axis in "abc"),
        *(f"_cell.angle_{angle} 90.00" for angle in ("alpha", "beta", "gamma")),
        f"_symmetry.entry_id {entry}",
        "_symmetry.space_group_name_H-M 'P 1'",
        "loop_\n_entity.id\n_entity.type\n1 polymer\n2 water",
        "_entity_poly.entity_id 1",
        "_entity_poly.type 'polypeptide(L)'",
        f"_entity_poly.pdbx_strand_id {','.join(chains[:-1])}",
        f"_entity_poly.pdbx_seq_one_letter_code_can\n;{letters}\n;",
        "loop_\n_entity_poly_seq.entity_id\n_entity_poly_seq.num\n_entity_poly_seq.mon_id",
        *(f"1 {i} {name}" for i, name in enumerate(names, start=1)),
        "loop_\n_struct_asym.id\n_struct_asym.entity_id",
        *(f"{name} {2 if name == chains[-1] else 1}" for name in chains),
    ]
    # The keys of an atom dictionary stand in the order of _ATOM_SITE, xyz for its three columns.
    columns = {key: np.concatenate([part[key] for part in atoms]) for key in atoms[0]}
    lists = []
    for key, values in columns.items():
        lists += values.T.tolist() if key == "xyz" else [values.tolist()]
    lists.insert(1, range(1, len(columns["xyz"]) + 1))
    body = "\n".join([_ATOM_ROW % row for row in zip(*lists, strict=True)])
    return "\n".join(header) + "\n" + _ATOM_SITE + body + "\n#\n"


def read_truth(folder: Path, entries: Iterable[str]) -> pa.Table:
    """The truth of these entries as one table; folder is the one given to ``write_entries``."""
    paths = [Path(folder) / "truth" / f"{entry}.parquet" for entry in entries]
    for path in paths:
        if not path.exists():
            raise QfitLatentError(
                f"No truth at {path}: was this entry simulated? Run the download stage again."
            )
    return pa.concat_tables([pq.read_table(path) for path in paths])


def truth_mixture(truth: pa.Table) -> tuple[pa.Table, TruthMixture]:
    """Keys (entry, chain, index, token) of each residue with chi, and the mixtures in order."""
    component = truth["component"].to_numpy()
    first = component == 0
    residue = np.cumsum(first) - 1
    num = int(first.sum())
    token = truth["token"].to_numpy()[first]
    weight = np.zeros((num, NUM_COMPONENTS))
    mean, kappa = np.zeros((2, num, NUM_COMPONENTS, NUM_CHI_MAX))
    weight[residue, component] = truth["weight"].to_numpy()
    for d in range(NUM_CHI_MAX):
        for array, name in ((mean, f"mean{d + 1}_rad"), (kappa, f"kappa{d + 1}")):
            array[residue, component, d] = np.nan_to_num(truth[name].to_numpy())
    keys = truth.select(["entry", "chain", "index", "token"]).filter(pa.array(first))
    return keys, TruthMixture(weight, mean, kappa, CHI_DEFINED[token], PI_SYMMETRIC[token])


def truth_entropy(truth: pa.Table, num_draws: int = 256) -> tuple[pa.Table, np.ndarray]:
    """Keys as in ``truth_mixture`` and (residues,) entropy in nats: the best possible ``nll``."""
    keys, mixture = truth_mixture(truth)
    return keys, mixture.entropy(num_draws)
