"""Backbones and side chains from their torsion angles, with ideal geometry.

Side chains hang on ``data/ideal_geometry.json``, which ``tools/make_geometry.py`` writes
from the Chemical Component Dictionary and the mean lengths and angles of proteins; those of
the backbone from Engh & Huber, Acta Cryst. A47 (1991) 392. Everything is
numpy float64 and vectorised over residues; angles in radians, lengths in
angstrom. Shape legend: N residues, A = 10 side-chain atoms of the largest type.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from qfitlatent.chemistry.geometry import axes, cross, unit
from qfitlatent.chemistry.residues import NUM_CHI_MAX, NUM_TOKENS, SIDE_CHAIN_ATOMS, TOKEN

MAX_SIDE_CHAIN_ATOMS = max(len(atoms) for atoms in SIDE_CHAIN_ATOMS.values())
N_CA, CA_C, C_N, C_O = 1.458, 1.525, 1.329, 1.231
"""Backbone bond lengths, angstrom (Engh & Huber 1991)."""

N_CA_C, CA_C_N, C_N_CA, CA_C_O = np.deg2rad((111.0, 116.6, 121.7, 120.8))
"""Backbone bond angles (Engh & Huber 1991)."""

_LOCAL_C = np.array((CA_C, 0.0, 0.0))
_LOCAL_N = N_CA * np.array((np.cos(N_CA_C), np.sin(N_CA_C), 0.0))
"""C and N of an ideal residue in its own frame (SPEC 4)."""

PRO_MAX_AMPLITUDE = np.deg2rad(52.0)
"""Largest pseudorotation amplitude at which a pyrrolidine ring of ideal bonds still closes."""

PRO_PHASE_STEP = np.deg2rad(144.0)
"""Successive torsions of a five-membered ring are 144 degrees apart in phase."""

_ROW = TOKEN | {"MSE": NUM_TOKENS}
"""Row of each residue in the geometry tables: its token; selenomethionine after the 21 tokens."""


@dataclass(frozen=True)
class Geometry:
    """Internal coordinates per row (21 tokens, then MSE) and side-chain atom (22, A)."""

    length: np.ndarray
    """(22, A) bond to the nearest parent, angstrom; nan where the type has no such atom."""
    angle: np.ndarray
    """(22, A) bond angle, radians."""
    dihedral: np.ndarray
    """(22, A) dihedral, or its offset to the chi named in ``chi``."""
    chi: np.ndarray
    """(22, A) index 0..3 of the chi that turns this atom, 4 for none."""
    parents: np.ndarray
    """(22, A, 3) the three atoms it hangs on, farthest first: 0 N, 1 CA, 2 CB, 3 the next ..."""
    cb: np.ndarray
    """(22, 4) CB: parts of its direction toward N, toward C and across their plane; bond length."""
    ring_length: float
    """N-CD of proline, angstrom."""


@cache
def ideal_geometry() -> Geometry:
    """The tables of ``data/ideal_geometry.json``, which ``tools/make_geometry.py`` writes."""
    text = (files("qfitlatent") / "data" / "ideal_geometry.json").read_text()
    residues = json.loads(text)["residues"]
    shape = (NUM_TOKENS + 1, MAX_SIDE_CHAIN_ATOMS)
    length, angle, dihedral = np.full((3, *shape), np.nan)
    chi = np.full(shape, NUM_CHI_MAX)
    parents = np.zeros((*shape, 3), dtype=np.int64)
    cb = np.full((shape[0], 4), np.nan)
    for name, atoms in residues.items():
        row = _ROW[name]
        slot = {"N": 0, "CA": 1} | {atom["atom"]: 2 + i for i, atom in enumerate(atoms)}
        cb[row] = [atoms[0][key] for key in ("toward_n", "toward_c", "across", "length_angstrom")]
        for column, atom in enumerate(atoms[1:], start=1):
            length[row, column] = atom["length_angstrom"]
            angle[row, column] = atom["angle_rad"]
            dihedral[row, column] = atom["dihedral_rad"]
            parents[row, column] = [slot[parent] for parent in atom["on"]]
            if atom["chi"] is not None:
                chi[row, column] = atom["chi"] - 1
    ring_length = residues["PRO"][-1]["ring_length_angstrom"]
    return Geometry(length, angle, dihedral, chi, parents, cb, ring_length)


@cache
def chi_depth() -> np.ndarray:
    """(21, A) the last chi, 1 to 4, that an atom hangs on; 0 for CB and where there is no atom."""
    geometry = ideal_geometry()
    own = np.where(geometry.chi < NUM_CHI_MAX, geometry.chi + 1, 0)
    depth = np.zeros((len(own), 2 + MAX_SIDE_CHAIN_ATOMS), dtype=np.int64)  # N and CA first
    rows = np.arange(len(own))[:, None]
    for column in range(1, MAX_SIDE_CHAIN_ATOMS):
        behind = depth[rows, geometry.parents[:, column]].max(axis=1)
        depth[:, 2 + column] = np.maximum(own[:, column], behind)
    return np.where(np.isnan(geometry.length), 0, depth[:, 2:])[:NUM_TOKENS]


def place_atom(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    length: float | np.ndarray,
    angle: float | np.ndarray,
    dihedral: float | np.ndarray,
) -> np.ndarray:
    """(..., 3) position of d with |c-d| = length, angle b-c-d and dihedral a-b-c-d.

    The natural extension reference frame of Parsons et al., J Comput Chem 26 (2005) 1063.
    """
    axis = unit(c - b)
    normal = unit(cross(b - a, axis))
    across = length * np.sin(angle)
    return (
        c
        - (length * np.cos(angle))[..., None] * axis
        + (across * np.cos(dihedral))[..., None] * cross(normal, axis)
        + (across * np.sin(dihedral))[..., None] * normal
    )


def place_backbone(phi: np.ndarray, psi: np.ndarray, omega: np.ndarray) -> np.ndarray:
    """(..., N, 4, 3) atoms N, CA, C, O of chains with these torsions, each (..., N).

    IUPAC: ``omega[i]`` turns about the bond C(i)-N(i+1). ``phi[0]`` and the last
    omega turn nothing; the last psi places the last O. The first residue stands in
    its own frame (CA at the origin). Residues are rigid frames, so the chain is a
    running product of transforms, found in log2(N) vectorised steps.
    """
    phi, psi, omega = (np.asarray(x, dtype=np.float64) for x in (phi, psi, omega))
    shape = psi.shape
    ca = np.zeros((*shape, 3))
    c = np.broadcast_to(_LOCAL_C, ca.shape)
    n = np.broadcast_to(_LOCAL_N, ca.shape)
    o = place_atom(n, ca, c, C_O, CA_C_O, psi + np.pi)
    local = np.stack((n, ca, c, o), axis=-2)  # (..., N, 4, 3) each residue in its own frame

    next_n = place_atom(n, ca, c, C_N, CA_C_N, psi)
    next_ca = place_atom(ca, c, next_n, N_CA, C_N_CA, omega)
    next_c = place_atom(c, next_n, next_ca, CA_C, N_CA_C, np.roll(phi, -1, axis=-1))
    step = np.broadcast_to(np.eye(4), (*shape, 4, 4)).copy()  # frame i+1 seen from frame i
    step[..., 1:, :3, :3] = axes(next_n, next_ca, next_c)[..., :-1, :, :]
    step[..., 1:, :3, 3] = next_ca[..., :-1, :]

    stride = 1
    while stride < shape[-1]:
        step[..., stride:, :, :] = step[..., :-stride, :, :] @ step[..., stride:, :, :]
        stride *= 2
    turned = np.einsum("...ij,...aj->...ai", step[..., :3, :3], local)
    return turned + step[..., None, :3, 3]


def build_side_chains(
    rotation: np.ndarray,
    translation: np.ndarray,
    token: np.ndarray,
    chi: np.ndarray,
    nitrogen: np.ndarray | None = None,
    selenium: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Heavy side-chain atoms on given backbone frames.

    Args:
        rotation, translation: (N, 3, 3) and (N, 3) frames of SPEC 4.
        token: (N,) residue types; the unknown token builds nothing.
        chi: (N, 4) radians; entries beyond the type's number of chi are not read. An
            undefined (nan) chi leaves its atoms, and those that hang on them, out.
        nitrogen: (N, 3) the residue's own N. The frame does not hold the angle N-CA-C,
            on which chi1 rests: without it N stands at its ideal place and chi1,
            measured against the real N, is off by as much as that angle tilts it.
        selenium: (N,) bool, build this MET as MSE (its SE stands in the place of SD).

    Returns:
        coords (N, A, 3) float64, atoms in the order of ``chemistry.SIDE_CHAIN_ATOMS``, and
        exists (N, A) bool. Where exists is false coords is nan.

    A proline's ring is closed by changing the two bond angles at CB and CG as little
    as the bond N-CD asks for; its chi are reproduced exactly as long as their
    pseudorotation amplitude is at most PRO_MAX_AMPLITUDE. No five-membered ring goes
    beyond that: there both chi are drawn to that amplitude at the same phase.
    """
    rotation, translation, chi = (
        np.asarray(x, dtype=np.float64) for x in (rotation, translation, chi)
    )
    token = np.asarray(token)
    num = len(token)
    if nitrogen is None:
        nitrogen = translation + rotation @ _LOCAL_N
    else:
        nitrogen = np.asarray(nitrogen, dtype=np.float64)
    geometry = ideal_geometry()
    row = token.astype(np.int64)
    if selenium is not None:
        row = np.where(np.asarray(selenium) & (token == TOKEN["MET"]), _ROW["MSE"], row)
    toward_n, toward_c, across, cb_length = geometry.cb[row].T[..., None]
    in_plane = unit(toward_n * unit(nitrogen - translation) + toward_c * rotation[:, :, 0])
    in_plane *= np.sqrt(1 - across**2)  # an opened N-CA-C does not change how steep CB stands
    # The frame's z is the unit of (C - CA) x (N - CA), so CB of an L residue lies on -z.
    cb = translation + cb_length * (in_plane - across * rotation[:, :, 2])

    chi = np.column_stack((chi, np.zeros(num)))  # column 4: atoms that no chi turns
    angle = geometry.angle[row]
    proline = np.flatnonzero(row == TOKEN["PRO"])
    if len(proline):
        chi[proline, :2] = closable_proline_chi(chi[proline])
        angle[proline, 1:3] = _close_rings(
            nitrogen[proline], translation[proline], cb[proline], chi[proline]
        )

    slots = np.full((num, 2 + MAX_SIDE_CHAIN_ATOMS, 3), np.nan)
    slots[:, 0], slots[:, 1], slots[:, 2] = nitrogen, translation, cb
    every = np.arange(num)
    for column in range(1, MAX_SIDE_CHAIN_ATOMS):
        n = every[~np.isnan(geometry.length[row, column])]
        r = row[n]
        a, b, c = (slots[n, parent] for parent in geometry.parents[r, column].T)
        slots[n, 2 + column] = place_atom(
            a,
            b,
            c,
            geometry.length[r, column],
            angle[n, column],
            geometry.dihedral[r, column] + chi[n, geometry.chi[r, column]],
        )
    coords = slots[:, 2:]
    return coords, ~np.isnan(coords[..., 0])


def _close_rings(
    nitrogen: np.ndarray, alpha: np.ndarray, cb: np.ndarray, chi: np.ndarray
) -> np.ndarray:
    """(n, 2) bond angles at CB and CG with which n prolines of these chi close at the ideal N-CD.

    Newton steps, each the shortest that closes the ring to first order: the angles end
    near the ideal ones, whichever of the two the bond asks for more.
    """
    geometry = ideal_geometry()
    length, ideal = geometry.length[TOKEN["PRO"], 1:3], geometry.angle[TOKEN["PRO"], 1:3]
    step = 1e-5
    nudges = step * np.array(((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)))[:, None, :]
    angles = np.tile(ideal, (len(chi), 1))
    for _ in range(_RING_ITERATIONS):
        trial = angles + nudges  # (5, n, 2)
        cg = place_atom(nitrogen, alpha, cb, length[0], trial[..., 0], chi[:, 0])
        cd = place_atom(alpha, cb, cg, length[1], trial[..., 1], chi[:, 1])
        bond = np.linalg.norm(cd - nitrogen, axis=-1)
        gradient = np.stack((bond[1] - bond[2], bond[3] - bond[4]), axis=1) / (2 * step)
        excess = (bond[0] - geometry.ring_length) / (gradient**2).sum(axis=1)
        angles = angles - gradient * excess[:, None]
    return angles


_RING_ITERATIONS = 8
"""Newton is quadratic: a few steps from the ideal angles are exact to rounding."""


def closable_proline_chi(chi: np.ndarray) -> np.ndarray:
    """(n, 2) chi1 and chi2 (n, >=2) of prolines, drawn to PRO_MAX_AMPLITUDE where beyond it.

    chi_j = amplitude * cos(phase + j * 144 degrees) (Altona & Sundaralingam, JACS 94 (1972) 8205).
    """
    first, second = chi[:, 0], chi[:, 1]
    cos, sin = np.cos(PRO_PHASE_STEP), np.sin(PRO_PHASE_STEP)
    amplitude = np.hypot(first, (first * cos - second) / sin)
    with np.errstate(divide="ignore"):
        shrink = np.minimum(1.0, PRO_MAX_AMPLITUDE / amplitude)
    return np.stack((first, second), axis=1) * shrink[:, None]
