"""Backbones and side chains from their torsion angles, with ideal geometry.

Lengths and angles of side chains come from the Chemical Component Dictionary
(``data/ideal_geometry.json``, written by ``tools/make_geometry.py``); those of
the backbone from Engh & Huber, Acta Cryst. A47 (1991) 392. Everything is
numpy float64 and vectorised over residues; angles in radians, lengths in
angstrom. Shape legend: N residues, A = 10 side-chain atoms of the largest type.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import numpy as np

from qfitlatent.chemistry import (
    RESIDUE_TYPES,
    SIDE_CHAIN_ATOMS,
    TOKEN,
)

MAX_SIDE_CHAIN_ATOMS = max(len(atoms) for atoms in SIDE_CHAIN_ATOMS.values())

N_CA, CA_C, C_N, C_O = 1.458, 1.525, 1.329, 1.231
"""Backbone bond lengths, angstrom (Engh & Huber 1991)."""
N_CA_C, CA_C_N, C_N_CA, CA_C_O = np.deg2rad((111.0, 116.6, 121.7, 120.8))
"""Backbone bond angles (Engh & Huber 1991)."""

PRO_MAX_AMPLITUDE = np.deg2rad(52.0)
"""Largest pseudorotation amplitude at which a pyrrolidine ring of ideal bonds still closes."""
PRO_PHASE_STEP = np.deg2rad(144.0)
"""Successive torsions of a five-membered ring are 144 degrees apart in phase."""


@cache
def ideal_geometry() -> dict[str, list[dict]]:
    """Internal coordinates of each residue type, as ``tools/make_geometry.py`` wrote them."""
    text = (files("qfitlatent") / "data" / "ideal_geometry.json").read_text()
    return json.loads(text)["residues"]


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
    length, angle, dihedral = np.broadcast_arrays(length, angle, dihedral)
    axis = _unit(c - b)
    normal = _unit(np.cross(b - a, axis))
    local = np.stack(
        (
            -length * np.cos(angle),
            length * np.sin(angle) * np.cos(dihedral),
            length * np.sin(angle) * np.sin(dihedral),
        ),
        axis=-1,
    )
    basis = np.stack((axis, np.cross(normal, axis), normal), axis=-1)
    return c + np.einsum("...ij,...j->...i", basis, local)


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
    c = ca + (CA_C, 0.0, 0.0)
    n = ca + (N_CA * np.cos(N_CA_C), N_CA * np.sin(N_CA_C), 0.0)
    o = place_atom(n, ca, c, C_O, CA_C_O, psi + np.pi)
    local = np.stack(
        (n, ca, c, o), axis=-2
    )  # (..., N, 4, 3) each residue in its own frame

    next_n = place_atom(n, ca, c, C_N, CA_C_N, psi)
    next_ca = place_atom(ca, c, next_n, N_CA, C_N_CA, omega)
    next_c = place_atom(c, next_n, next_ca, CA_C, N_CA_C, np.roll(phi, -1, axis=-1))
    x = _unit(next_c - next_ca)
    z = _unit(np.cross(x, next_n - next_ca))
    step = np.broadcast_to(
        np.eye(4), (*shape, 4, 4)
    ).copy()  # frame i+1 seen from frame i
    step[..., 1:, :3, :3] = np.stack((x, np.cross(z, x), z), axis=-1)[..., :-1, :, :]
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
        local_n = np.array((N_CA * np.cos(N_CA_C), N_CA * np.sin(N_CA_C), 0.0))
        nitrogen = translation + rotation @ local_n
    else:
        nitrogen = np.asarray(nitrogen, dtype=np.float64)
    coords = np.full((num, MAX_SIDE_CHAIN_ATOMS, 3), np.nan)
    if num == 0:
        return coords, np.zeros((0, MAX_SIDE_CHAIN_ATOMS), dtype=bool)

    group = token.astype(np.int64)
    if selenium is not None:
        group = np.where(
            np.asarray(selenium) & (token == TOKEN["MET"]), _MSE_GROUP, group
        )
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    for rows in np.split(order, starts[1:]):
        value = int(group[rows[0]])
        name = "MSE" if value == _MSE_GROUP else (RESIDUE_TYPES + ("UNK",))[value]
        if name not in ideal_geometry():
            continue  # GLY and the unknown token have no side chain
        frame = (rotation[rows], translation[rows], nitrogen[rows])
        build = _build_proline if name == "PRO" else _build_open_chain
        atoms = build(ideal_geometry()[name], *frame, chi[rows])
        coords[rows, : atoms.shape[1]] = atoms
    return coords, ~np.isnan(coords[..., 0])


_MSE_GROUP = len(RESIDUE_TYPES) + 1


def _build_open_chain(
    geometry: list[dict],
    rotation: np.ndarray,
    translation: np.ndarray,
    nitrogen: np.ndarray,
    chi: np.ndarray,
) -> np.ndarray:
    """(n, atoms, 3) side chains of n residues of one type without a ring through the backbone."""
    at = {
        "N": nitrogen,
        "CA": translation,
        "CB": _place_cb(geometry[0], rotation, nitrogen, translation),
    }
    for row in geometry[1:]:
        turn = row["dihedral_rad"] + (
            0.0 if row["chi"] is None else chi[:, row["chi"] - 1]
        )
        parents = (at[name] for name in row["on"])
        at[row["atom"]] = place_atom(
            *parents, row["length_angstrom"], row["angle_rad"], turn
        )
    return np.stack([at[row["atom"]] for row in geometry], axis=1)


def _place_cb(
    row: dict, rotation: np.ndarray, nitrogen: np.ndarray, translation: np.ndarray
) -> np.ndarray:
    """(n, 3) CB between N and C: a distorted angle N-CA-C is shared by both sides.

    The frame's z axis is the unit of (C - CA) x (N - CA), so CB of an L residue lies on -z.
    """
    bisector = _unit(_unit(nitrogen - translation) + rotation[:, :, 0])
    direction = row["along"] * bisector - row["across"] * rotation[:, :, 2]
    return translation + row["length_angstrom"] * _unit(direction)


def _build_proline(
    geometry: list[dict],
    rotation: np.ndarray,
    translation: np.ndarray,
    nitrogen: np.ndarray,
    chi: np.ndarray,
) -> np.ndarray:
    """(n, 3, 3) CB, CG, CD with the ring closed at N: see ``build_side_chains``."""
    cb_row, cg_row, cd_row = geometry
    chi = closable_proline_chi(chi)
    cb = _place_cb(cb_row, rotation, nitrogen, translation)
    ideal = np.array((cg_row["angle_rad"], cd_row["angle_rad"]))

    def ring(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """CG, CD and the length of N-CD for the angles (..., n, 2) at CB and CG."""
        shape = angles.shape[:-1]
        n, ca, b = (
            np.broadcast_to(x, (*shape, 3)) for x in (nitrogen, translation, cb)
        )
        cg = place_atom(n, ca, b, cg_row["length_angstrom"], angles[..., 0], chi[:, 0])
        cd = place_atom(ca, b, cg, cd_row["length_angstrom"], angles[..., 1], chi[:, 1])
        return cg, cd, np.linalg.norm(cd - n, axis=-1)

    # Least-norm Newton: of all angles that close the ring, those nearest the ideal ones.
    angles = np.broadcast_to(ideal, (len(chi), 2)).copy()
    nudge = 1e-5 * np.eye(2)[:, None, :]
    for _ in range(12):
        length = ring(angles)[2]
        gradient = (ring(angles + nudge)[2] - ring(angles - nudge)[2]).T / 2e-5
        excess = length - cd_row["ring_length_angstrom"]
        update = angles - gradient * (excess / (gradient**2).sum(axis=1))[:, None]
        angles = np.clip(update, *_PRO_ANGLE_RANGE)
    cg, cd, _ = ring(angles)
    return np.stack((cb, cg, cd), axis=1)


_PRO_ANGLE_RANGE = np.deg2rad((85.0, 125.0))
"""Guard of the Newton steps only: closed rings end well inside."""


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


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)
