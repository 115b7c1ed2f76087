"""Building: torsions in, the same torsions out; literature geometry; real residues rebuilt."""

from pathlib import Path

import gemmi
import numpy as np
import pytest

from qfitlatent.chemistry.building import (
    MAX_SIDE_CHAIN_ATOMS,
    PRO_MAX_AMPLITUDE,
    PRO_PHASE_STEP,
    build_side_chains,
    place_backbone,
)
from qfitlatent.chemistry.residues import (
    CHI_ATOMS,
    NUM_CHI,
    RESIDUE_TYPES,
    SIDE_CHAIN_ATOMS,
    TOKEN,
    UNKNOWN_TOKEN,
)

WITH_SIDE_CHAIN = [name for name in RESIDUE_TYPES if name != "GLY"]


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def dihedral(a, b, c, d) -> np.ndarray:
    """gemmi's, one at a time: another implementation than the package's."""
    quads = np.broadcast_arrays(a, b, c, d)
    return np.array(
        [
            gemmi.calculate_dihedral(*(gemmi.Position(*p) for p in quad))
            for quad in zip(*quads, strict=True)
        ]
    )


def bond_angle(a, b, c) -> np.ndarray:
    return np.degrees(np.arccos((unit(a - b) * unit(c - b)).sum(-1)))


def difference(a, b) -> np.ndarray:
    return np.abs(np.angle(np.exp(1j * (np.asarray(a) - np.asarray(b)))))


def frames(n, ca, c) -> tuple[np.ndarray, np.ndarray]:
    """SPEC 4."""
    x = unit(c - ca)
    z = unit(np.cross(x, n - ca))
    return np.stack((x, np.cross(z, x), z), axis=-1), ca


def chi_of(name: str, n, ca, side) -> np.ndarray:
    """(n, chi) of residues of one type, by gemmi."""
    at = {"N": n, "CA": ca} | {a: side[:, i] for i, a in enumerate(SIDE_CHAIN_ATOMS[name])}
    return np.stack([dihedral(*(at[a] for a in quad)) for quad in CHI_ATOMS[name]], axis=1)


@pytest.fixture(scope="module")
def backbone() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """N, CA, C of 40 residues in general positions, the angle N-CA-C scattered by 4 degrees."""
    rng = np.random.default_rng(7)
    atoms = place_backbone(*rng.uniform(-3, 3, (2, 40)), np.full(40, np.pi))
    n, ca, c = atoms[:, 0], atoms[:, 1], atoms[:, 2]
    tilt = np.deg2rad(4 * rng.normal(size=(40, 1)))
    return ca + np.cos(tilt) * (n - ca) + np.sin(tilt) * 1.458 * unit(c - ca), ca, c


# --- Backbone ---------------------------------------------------------------------------------


def test_backbone_has_the_torsions_given():
    rng = np.random.default_rng(0)
    phi, psi, omega = rng.uniform(-np.pi, np.pi, (3, 37))
    n, ca, c, o = place_backbone(phi, psi, omega).swapaxes(0, 1)
    assert difference(dihedral(c[:-1], n[1:], ca[1:], c[1:]), phi[1:]).max() < 1e-9
    assert difference(dihedral(n[:-1], ca[:-1], c[:-1], n[1:]), psi[:-1]).max() < 1e-9
    assert difference(dihedral(ca[:-1], c[:-1], n[1:], ca[1:]), omega[:-1]).max() < 1e-9
    assert difference(dihedral(n, ca, c, o), psi + np.pi).max() < 1e-9  # O opposite the next N


def test_backbone_bonds_and_angles_are_engh_and_huber():
    rng = np.random.default_rng(1)
    n, ca, c, o = place_backbone(*rng.uniform(-3, 3, (3, 50))).swapaxes(0, 1)
    for a, b, length in ((n, ca, 1.458), (ca, c, 1.525), (c, o, 1.231), (c[:-1], n[1:], 1.329)):
        np.testing.assert_allclose(np.linalg.norm(a - b, axis=1), length, atol=1e-9)
    np.testing.assert_allclose(bond_angle(n, ca, c), 111.0, atol=1e-6)
    np.testing.assert_allclose(bond_angle(ca[:-1], c[:-1], n[1:]), 116.6, atol=1e-6)
    np.testing.assert_allclose(bond_angle(c[:-1], n[1:], ca[1:]), 121.7, atol=1e-6)


def test_a_batch_of_chains_is_each_chain_alone():
    rng = np.random.default_rng(2)
    torsions = rng.uniform(-3, 3, (3, 4, 21))
    batch = place_backbone(*torsions)
    for i in range(4):
        np.testing.assert_allclose(batch[i], place_backbone(*torsions[:, i]), atol=1e-10)


def test_helix_rises_as_an_alpha_helix():
    num = 31
    atoms = place_backbone(
        np.full(num, np.deg2rad(-57.8)), np.full(num, np.deg2rad(-47.0)), np.full(num, np.pi)
    )
    ca = atoms[:, 1]
    rise = np.linalg.norm(ca[18:].mean(0) - ca[:13].mean(0)) / 18
    assert 1.4 < rise < 1.6  # angstrom a residue; 1.5 in Pauling, Corey & Branson (1951)


def test_one_residue_is_a_chain():
    assert place_backbone(np.zeros(1), np.zeros(1), np.zeros(1)).shape == (1, 4, 3)


# --- Side chains ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in WITH_SIDE_CHAIN if name not in ("ALA", "PRO")])
def test_chi_come_out_as_they_went_in(name, backbone):
    n, ca, c = backbone
    chi = np.random.default_rng(3).uniform(-np.pi, np.pi, (len(n), 4))
    token = np.full(len(n), TOKEN[name])
    side, exists = build_side_chains(*frames(n, ca, c), token, chi, nitrogen=n)
    built = chi_of(name, n, ca, side)
    assert difference(built, chi[:, : built.shape[1]]).max() < 1e-6
    assert exists.sum(axis=1).tolist() == [len(SIDE_CHAIN_ATOMS[name])] * len(n)
    assert np.isnan(side[~exists]).all()


ENGH_HUBER = [
    # Acta Cryst. A47 (1991) 392 and International Tables F (2001) 18.3: angstrom, degrees
    ("ALA", ("CA", "CB"), 1.521), ("ARG", ("NE", "CZ"), 1.329), ("ARG", ("CZ", "NH1"), 1.326),
    ("ASN", ("CG", "OD1"), 1.231), ("ASN", ("CG", "ND2"), 1.328), ("ASP", ("CG", "OD2"), 1.249),
    ("CYS", ("CB", "SG"), 1.808), ("GLN", ("CD", "OE1"), 1.235), ("GLU", ("CD", "OE1"), 1.249),
    ("HIS", ("CG", "ND1"), 1.378), ("HIS", ("CD2", "NE2"), 1.374), ("ILE", ("CB", "CG2"), 1.521),
    ("LEU", ("CB", "CG"), 1.530), ("LYS", ("CE", "NZ"), 1.489), ("MET", ("CG", "SD"), 1.803),
    ("MET", ("SD", "CE"), 1.791), ("PHE", ("CB", "CG"), 1.502), ("PHE", ("CE2", "CZ"), 1.382),
    ("PRO", ("CB", "CG"), 1.492), ("PRO", ("CG", "CD"), 1.503), ("SER", ("CB", "OG"), 1.417),
    ("THR", ("CB", "OG1"), 1.433), ("TRP", ("NE1", "CE2"), 1.370), ("TRP", ("CZ3", "CH2"), 1.396),
    ("TYR", ("CZ", "OH"), 1.376), ("TYR", ("CE2", "CZ"), 1.378), ("VAL", ("CB", "CG1"), 1.521),
    ("ARG", ("CD", "NE", "CZ"), 124.2), ("ASP", ("CA", "CB", "CG"), 112.6),
    ("ASN", ("CB", "CG", "OD1"), 120.8), ("GLU", ("CB", "CG", "CD"), 112.6),
    ("HIS", ("CA", "CB", "CG"), 113.8), ("ILE", ("CB", "CG1", "CD1"), 113.8),
    ("LEU", ("CA", "CB", "CG"), 116.3), ("LYS", ("CA", "CB", "CG"), 114.1),
    ("MET", ("CG", "SD", "CE"), 100.9), ("PHE", ("CA", "CB", "CG"), 113.8),
    ("SER", ("CA", "CB", "OG"), 111.1), ("THR", ("CA", "CB", "OG1"), 109.6),
    ("TRP", ("CA", "CB", "CG"), 113.6), ("TYR", ("CE2", "CZ", "OH"), 119.9),
    ("VAL", ("CA", "CB", "CG1"), 110.5), ("ALA", ("N", "CA", "CB"), 110.4),
]  # fmt: skip


@pytest.mark.parametrize(("name", "atoms", "expected"), ENGH_HUBER)
def test_lengths_and_angles_are_those_of_the_literature(name, atoms, expected):
    """0.03 angstrom and 2 degrees; ring closures, which nothing forces shut, 0.06 angstrom."""
    n, ca, c = place_backbone(np.zeros(1), np.zeros(1), np.zeros(1))[0, :3]
    frame = frames(n[None], ca[None], c[None])
    token = np.array([TOKEN[name]])
    side, _ = build_side_chains(*frame, token, np.array([[0.5, -0.6, 2.0, 2.5]]))
    at = {"N": n, "CA": ca, "C": c} | dict(zip(SIDE_CHAIN_ATOMS[name], side[0], strict=False))
    points = [at[a] for a in atoms]
    if len(atoms) == 2:
        closure = atoms in {("CD2", "NE2"), ("CE2", "CZ"), ("NE1", "CE2"), ("CZ3", "CH2")}
        assert np.linalg.norm(points[0] - points[1]) == pytest.approx(
            expected, abs=0.06 if closure else 0.03
        )
    else:
        assert bond_angle(*points) == pytest.approx(expected, abs=2.0)


def test_aromatic_rings_and_acid_groups_are_flat(backbone):
    n, ca, c = backbone
    for name in ("PHE", "TYR", "TRP", "HIS", "ASP", "ASN", "ARG"):
        side, exists = build_side_chains(
            *frames(n, ca, c), np.full(len(n), TOKEN[name]), np.full((len(n), 4), 1.0), nitrogen=n
        )
        flat = side[0][exists[0]][{"ARG": 3, "ASP": 0, "ASN": 0}.get(name, 0) :]
        centred = flat - flat.mean(axis=0)
        assert np.linalg.svd(centred)[1][2] < 0.1, name  # rms out of plane


@pytest.mark.parametrize("name", WITH_SIDE_CHAIN)
def test_every_residue_is_the_l_form(name, backbone):
    """CORN: looking from H to CA, CO, R, N read clockwise."""
    n, ca, c = backbone
    side, _ = build_side_chains(
        *frames(n, ca, c), np.full(len(n), TOKEN[name]), np.full((len(n), 4), 0.5), nitrogen=n
    )
    volume = np.einsum("ni,ni->n", n - ca, np.cross(c - ca, side[:, 0] - ca))
    assert (volume > 2.0).all()
    assert (volume < 3.2).all()


@pytest.mark.parametrize(
    ("name", "branches", "sign"),
    [("ILE", ("CG1", "CG2"), 1), ("THR", ("OG1", "CG2"), 1), ("VAL", ("CG1", "CG2"), -1)],
)
def test_branched_cb_has_the_right_hand(name, branches, sign, backbone):
    """(2S,3S)-isoleucine, (2S,3R)-threonine; valine's CG1 and CG2 as IUPAC names them.

    Signs are those of deposited structures, see the test on real residues below.
    """
    n, ca, c = backbone
    side, _ = build_side_chains(
        *frames(n, ca, c), np.full(len(n), TOKEN[name]), np.full((len(n), 4), 1.0), nitrogen=n
    )
    cb = side[:, 0]
    g1, g2 = (side[:, SIDE_CHAIN_ATOMS[name].index(a)] for a in branches)
    volume = np.einsum("ni,ni->n", ca - cb, np.cross(g1 - cb, g2 - cb))
    assert (sign * volume > 2.0).all()


@pytest.mark.parametrize("degrees", [0, 15, 30, 38, 45, 51])
def test_proline_rings_close_with_the_chi_given(degrees, backbone):
    n, ca, c = backbone
    phase = np.linspace(0, 2 * np.pi, len(n))
    chi = np.zeros((len(n), 4))
    chi[:, 0] = np.deg2rad(degrees) * np.cos(phase)
    chi[:, 1] = np.deg2rad(degrees) * np.cos(phase + PRO_PHASE_STEP)
    side, _ = build_side_chains(*frames(n, ca, c), np.full(len(n), TOKEN["PRO"]), chi, nitrogen=n)
    cb, cg, cd = side[:, 0], side[:, 1], side[:, 2]
    assert np.abs(np.linalg.norm(cd - n, axis=1) - 1.473).max() < 0.03
    assert difference(chi_of("PRO", n, ca, side), chi[:, :2]).max() < 1e-6
    for angle in (bond_angle(ca, cb, cg), bond_angle(cb, cg, cd), bond_angle(cg, cd, n)):
        assert angle.min() > 90
        assert angle.max() < 118


def test_proline_chi_that_no_ring_has_are_drawn_to_the_nearest_amplitude(backbone):
    n, ca, c = backbone
    chi = np.random.default_rng(5).uniform(-np.pi, np.pi, (len(n), 4))
    side, _ = build_side_chains(*frames(n, ca, c), np.full(len(n), TOKEN["PRO"]), chi, nitrogen=n)
    assert np.abs(np.linalg.norm(side[:, 2] - n, axis=1) - 1.473).max() < 0.03
    built = chi_of("PRO", n, ca, side)
    assert (np.abs(built) <= PRO_MAX_AMPLITUDE + 1e-6).all()
    ratio = built / chi[:, :2]
    np.testing.assert_allclose(ratio[:, 0], ratio[:, 1], rtol=1e-6)
    assert (ratio > 0).all()


def test_missing_chi_leaves_out_what_hangs_on_it(backbone):
    n, ca, c = (x[:1] for x in backbone)
    chi = np.array([[1.0, np.nan, 1.0, 1.0]])
    _, exists = build_side_chains(*frames(n, ca, c), np.array([TOKEN["LYS"]]), chi, nitrogen=n)
    assert exists[0, :5].tolist() == [True, True, False, False, False]  # CB CG, not CD CE NZ


def test_unknown_glycine_and_nothing_at_all(backbone):
    n, ca, c = (x[:2] for x in backbone)
    token = np.array([UNKNOWN_TOKEN, TOKEN["GLY"]])
    side, exists = build_side_chains(*frames(n, ca, c), token, np.zeros((2, 4)))
    assert side.shape == (2, MAX_SIDE_CHAIN_ATOMS, 3)
    assert not exists.any()
    empty = build_side_chains(
        np.zeros((0, 3, 3)), np.zeros((0, 3)), np.zeros(0, dtype=int), np.zeros((0, 4))
    )
    assert [x.shape for x in empty] == [(0, MAX_SIDE_CHAIN_ATOMS, 3), (0, MAX_SIDE_CHAIN_ATOMS)]


def test_selenomethionine_has_selenium_bonds(backbone):
    n, ca, c = backbone
    token = np.full(len(n), TOKEN["MET"])
    selenium = np.arange(len(n)) % 2 == 0
    side, _ = build_side_chains(*frames(n, ca, c), token, np.ones((len(n), 4)), n, selenium)
    length = np.linalg.norm(side[:, 2] - side[:, 1], axis=1)
    np.testing.assert_allclose(length[selenium], 1.96, atol=0.03)
    np.testing.assert_allclose(length[~selenium], 1.81, atol=0.03)
    assert difference(chi_of("MET", n, ca, side), 1.0).max() < 1e-6


def test_rotating_the_backbone_rotates_the_side_chains_and_order_does_not_matter(backbone):
    n, ca, c = backbone
    rng = np.random.default_rng(11)
    token = rng.integers(0, 21, len(n))
    chi = rng.uniform(-np.pi, np.pi, (len(n), 4))
    side, exists = build_side_chains(*frames(n, ca, c), token, chi, nitrogen=n)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    moved = [x @ turn.T + (10.0, -3.0, 5.0) for x in (n, ca, c)]
    order = rng.permutation(len(n))
    side2, exists2 = build_side_chains(
        *(x[order] for x in frames(*moved)), token[order], chi[order], nitrogen=moved[0][order]
    )
    np.testing.assert_array_equal(exists[order], exists2)
    np.testing.assert_allclose((side @ turn.T + (10.0, -3.0, 5.0))[order], side2, atol=1e-9)


# --- Real residues ----------------------------------------------------------------------------


def complete_residues(path: Path) -> dict[str, list[np.ndarray]]:
    """Residues of model 1 with every heavy atom once: per type, (3 + side chain, 3) positions."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in WITH_SIDE_CHAIN}
    for chain in gemmi.read_structure(str(path))[0]:
        for residue in chain:
            if residue.name not in found:
                continue
            atoms = {}
            for atom in residue:
                atoms.setdefault(atom.name, []).append(atom.pos.tolist())
            wanted = ("N", "CA", "C", *SIDE_CHAIN_ATOMS[residue.name])
            if all(len(atoms.get(name, ())) == 1 for name in wanted):
                found[residue.name].append(np.array([atoms[name][0] for name in wanted]))
    return found


def test_real_residues_are_rebuilt_from_their_own_chi(shared_data):
    paths = sorted(p for p in shared_data.rglob("*") if p.suffix in (".pdb", ".cif"))[::25]
    assert len(paths) > 20
    per_type: dict[str, list[np.ndarray]] = {name: [] for name in WITH_SIDE_CHAIN}
    for path in paths:
        for name, residues in complete_residues(path).items():
            per_type[name] += residues
    everything = []
    for name, residues in per_type.items():
        xyz = np.stack(residues)
        n, ca, c, real = xyz[:, 0], xyz[:, 1], xyz[:, 2], xyz[:, 3:]
        chi = np.full((len(xyz), 4), np.nan)
        if CHI_ATOMS[name]:
            chi[:, : NUM_CHI[TOKEN[name]]] = chi_of(name, n, ca, real)
        token = np.full(len(xyz), TOKEN[name])
        side, exists = build_side_chains(*frames(n, ca, c), token, chi, nitrogen=n)
        assert (exists.sum(axis=1) == len(SIDE_CHAIN_ATOMS[name])).all()
        rebuilt = side[:, : real.shape[1]]
        rmsd = np.sqrt(((rebuilt - real) ** 2).sum(axis=2).mean(axis=1))
        assert np.median(rmsd) < 0.30, name  # the longest, ARG: 0.25
        everything.append(rmsd)
        if name == "PRO":
            assert np.abs(np.linalg.norm(side[:, 2] - n, axis=1) - 1.473).max() < 0.03
            off = difference(chi_of(name, n, ca, side), chi[:, :2]).max(axis=1)
            first, second = chi[:, 0], chi[:, 1]
            step = PRO_PHASE_STEP
            amplitude = np.hypot(first, (first * np.cos(step) - second) / np.sin(step))
            closable = amplitude <= PRO_MAX_AMPLITUDE
            assert off[closable].max() < 1e-3
            assert closable.mean() > 0.97  # the rest are rings that the file itself tears open
        elif CHI_ATOMS[name]:
            built = chi_of(name, n, ca, side)
            assert difference(built, chi[:, : built.shape[1]]).max() < 1e-3
    assert np.median(np.concatenate(everything)) < 0.13


def test_the_hand_of_branched_residues_is_that_of_real_ones(shared_data):
    path = next(p for p in sorted(shared_data.rglob("*.pdb")) if p.stat().st_size > 200_000)
    found = complete_residues(path)
    for name, sign in (("ILE", 1), ("THR", 1), ("VAL", -1)):
        xyz = np.stack(found[name])
        g1 = 3 + SIDE_CHAIN_ATOMS[name].index("OG1" if name == "THR" else "CG1")
        g2 = 3 + SIDE_CHAIN_ATOMS[name].index("CG2")
        ca, cb = xyz[:, 1], xyz[:, 3]
        volume = np.einsum("ni,ni->n", ca - cb, np.cross(xyz[:, g1] - cb, xyz[:, g2] - cb))
        assert np.median(sign * volume) > 2.0, name
