"""Simulated sequence families and backbones."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from qfitlatent.chemistry.building import place_backbone
from qfitlatent.chemistry.geometry import wrap
from qfitlatent.chemistry.residues import TOKEN
from qfitlatent.simulate.settings import SimulatorSettings
from qfitlatent.simulate.truth import HELIX, SCALES, STRAND

_STATES = {"H": "helix", "E": "strand", "L": "loop"}
_FREQUENCY = {state: SCALES[name] / sum(SCALES[name]) for state, name in _STATES.items()}
"""Frequency of residue types in helices, strands and loops."""

_SEGMENT_LENGTH = {"H": (7, 16), "E": (4, 9), "L": (3, 7)}
_LOOP_BASINS = np.deg2rad(((-70, 145), (-95, 5), (-65, -35), (-125, 125), (58, 40)))
_LOOP_BASIN_WEIGHT = np.array((0.36, 0.2, 0.18, 0.2, 0.06))
_NUM_BACKBONE_TRIALS = 8
FAMILY_IDENTITY = (0.65, 0.85)
"""Lowest and highest fraction of positions that a member keeps from its ancestor."""

MISSING_RESIDUE_FRACTION = 0.004
"""Probability that a residue inside a chain is not modelled."""


@dataclass(frozen=True)
class _Family:
    token: np.ndarray
    state: np.ndarray
    phi: np.ndarray
    psi: np.ndarray


def new_rng(seed: int, *words: object) -> np.random.Generator:
    """A generator of its own for every purpose: nothing depends on the order of simulation."""
    digest = hashlib.sha256(repr((seed, *words)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


@lru_cache(maxsize=4096)
def _family(seed: int, number: int, settings: SimulatorSettings) -> _Family:
    rng = new_rng(seed, "family", number)
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
    table = np.stack([_FREQUENCY[s] for s in state])
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
    centre[:, state == "H"] = HELIX
    centre[:, state == "E"] = STRAND
    spread = np.deg2rad(np.where(state == "H", 6.0, np.where(state == "E", 14.0, 15.0)))
    phi = centre[..., 0] + spread * rng.normal(size=size)
    psi = centre[..., 1] + spread * rng.normal(size=size)
    phi = np.where(
        token == TOKEN["PRO"], np.deg2rad(-65.0) + 0.5 * spread * rng.normal(size=size), phi
    )
    return wrap(phi), wrap(psi)


def _most_compact(backbone: np.ndarray) -> int:
    """The trial with the smallest radius of gyration; a pair of CA below 4 angstrom costs 0.2."""
    ca = backbone[:, :, 1]
    centred = ca - ca.mean(axis=1, keepdims=True)
    squared = (centred**2).sum(axis=2)
    gyration = np.sqrt(squared.mean(axis=1))
    distance2 = squared[:, :, None] + squared[:, None, :] - 2 * centred @ centred.swapaxes(1, 2)
    close = np.triu(distance2 < 16.0, k=2).sum(axis=(1, 2))
    return int(np.argmin(gyration + 0.2 * close))


@dataclass(frozen=True)
class Chain:
    """One simulated chain; modelled residues only, `number` counts from 0 along the sequence."""

    token: np.ndarray
    number: np.ndarray
    phi: np.ndarray
    psi: np.ndarray
    bonded: np.ndarray
    backbone: np.ndarray


def member(
    entry: str, seed: int, settings: SimulatorSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sequence, phi and psi of one member of the entry's family: mutated, trimmed, relaxed."""
    family = _family(seed, int(entry[3:]) % settings.num_families, settings)
    identity = rng.uniform(*FAMILY_IDENTITY)
    mutate = rng.random(len(family.token)) > identity
    mutate &= family.token != TOKEN["PRO"]  # a proline's own phi stays where it fits
    drawn = _draw_types(family.state, rng)
    drawn = np.where(drawn == TOKEN["PRO"], family.token, drawn)
    token = np.where(mutate, drawn, family.token)
    jitter = np.deg2rad(4.0) * rng.normal(size=(2, len(token)))
    first, last = rng.integers(0, 4, size=2)
    keep = slice(int(first), len(token) - int(last))
    return token[keep], wrap(family.phi + jitter[0])[keep], wrap(family.psi + jitter[1])[keep]


def fold_chain(
    token: np.ndarray,
    phi: np.ndarray,
    psi: np.ndarray,
    number: int,
    rng: np.random.Generator,
) -> Chain:
    """Place one chain, its residues that are not modelled taken out."""
    length = len(token)
    omega = np.pi + np.deg2rad(3.0) * rng.normal(size=length)
    backbone = place_backbone(phi, psi, omega) + np.array((60.0 * number, 0.0, 0.0))
    modelled = rng.random(length) >= MISSING_RESIDUE_FRACTION
    modelled[[0, -1]] = True
    index = np.flatnonzero(modelled)
    bonded = np.append(np.diff(index) == 1, False)
    return Chain(token[index], index, phi[index], psi[index], bonded, backbone[index])
