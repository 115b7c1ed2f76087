"""Helices side by side, so near that side chains of likely modes clash."""

from dataclasses import replace

import numpy as np

from qfitlatent.chemistry.building import place_atom, place_backbone
from qfitlatent.chemistry.geometry import frames
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI, TOKEN
from qfitlatent.joint.atoms import KIND, Backbones, Surroundings
from qfitlatent.joint.bonds import Metals
from qfitlatent.joint.candidates import Densities
from qfitlatent.joint.model import Protein

NO_METALS = Metals(np.zeros((0, 3)), np.zeros(0), np.zeros(0, dtype=bool))
TYPES = ("LEU", "PHE", "LYS", "GLU", "ILE", "SER", "ALA", "ARG", "GLY", "TRP", "MET", "ASN")


def crowded(num_helices=2, length=14, spacing=9.0, seed=0):
    """(Protein, Densities) of parallel helices on a line, with random types and modes."""
    rng = np.random.default_rng(seed)
    phi, psi = np.deg2rad((np.full(length, -62.0), np.full(length, -42.0)))
    one = place_backbone(phi, psi, np.full(length, np.pi))
    ca = one[:, 1] - one[:, 1].mean(axis=0)
    across = np.linalg.svd(ca)[2][1]
    shifts = spacing * np.arange(num_helices)[:, None, None, None] * across
    backbone = (one + shifts).reshape(-1, 4, 3)
    n, ca, c, o = backbone.swapaxes(0, 1)
    token = np.array([TOKEN[name] for name in rng.choice(TYPES, len(n))])
    rotation, translation, _ = frames(n, ca, c)
    backbones = Backbones(rotation, translation, n, token)
    own = np.arange(len(n))
    ends = own % length == 0
    before = np.where(ends, -1, own - 1)
    after = np.where(np.roll(ends, -1), -1, own + 1)
    nobody = np.full(len(n), -1)
    cb = backbones.cb()
    has_cb = np.isfinite(cb[:, 0])
    around = Surroundings(
        np.concatenate((n, ca, c, o, cb[has_cb])),
        np.repeat([KIND[x] for x in "NCCOC"], [len(n)] * 4 + [has_cb.sum()]),
        np.concatenate(
            [np.stack((own, other), axis=1) for other in (before, nobody, after, nobody)]
            + [np.stack((own, nobody), axis=1)[has_cb]]
        ),
    )
    return Protein(backbones, around, NO_METALS), densities_of(token, rng)


def densities_of(token, rng, num_modes=4):
    """Mixtures of as many well separated modes."""
    shape = (len(token), num_modes)
    steps = rng.permuted(np.tile(np.arange(num_modes), (len(token), 1)), axis=1)
    chi = rng.uniform(-np.pi, np.pi, (*shape, 4))
    chi[..., 0] = np.deg2rad(-170.0 + 360.0 / num_modes * steps)
    chi = np.where(CHI_DEFINED[token][:, None], chi, 0.0)
    weight = -np.sort(-rng.dirichlet(np.full(num_modes, 2.0), len(token)), axis=1)
    weight = np.where((NUM_CHI[token] > 0)[:, None], weight, np.eye(num_modes)[0])
    return Densities(token, weight, chi, np.full((*shape, 4), 40.0), weight, chi)


def moved(protein, turn, shift):
    """The protein turned and moved as a whole."""
    old = protein.backbones
    backbones = Backbones(
        turn @ old.rotation, old.translation @ turn.T + shift, old.nitrogen @ turn.T + shift,
        old.token,
    )  # fmt: skip
    around = replace(protein.around, position=protein.around.position @ turn.T + shift)
    return replace(protein, backbones=backbones, around=around)


def reordered(protein, densities, order):
    """The same protein with its residues in another order."""
    backbones = protein.backbones.select(order)
    number = np.argsort(np.r_[order, len(order)])  # the last stands for -1
    number[-1] = -1
    around = replace(protein.around, excluded=number[protein.around.excluded])
    return replace(protein, backbones=backbones, around=around), densities.select(order)


def turn(seed):
    """A random rotation."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)


def near_pairs(protein, chi, angstrom):
    """Pairs of residues whose moved atoms come so near; chi (N,4)."""
    backbones = protein.backbones
    coords = backbones.build(np.arange(len(backbones)), chi)[:, 1:]
    owner, atom = np.nonzero(np.isfinite(coords[..., 0]) & (NUM_CHI[backbones.token] > 0)[:, None])
    points = coords[owner, atom]
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    i, j = np.nonzero((apart < angstrom) & (owner[:, None] < owner))
    return set(zip(owner[i].tolist(), owner[j].tolist(), strict=True))


def bonded_cysteines(chi1=(-1.1, 3.0), chi3=-1.5):
    """Backbones of two cysteines with a perfect disulfide at these chi."""
    first = crowded(1, 4)[0].backbones
    one = Backbones(
        first.rotation[:1], first.translation[:1], first.nitrogen[:1], np.array([TOKEN["CYS"]])
    )
    cb, sg = one.build(np.array([0]), np.array([[chi1[0], 0, 0, 0]]))[0, :2]
    ca = one.translation[0]
    other_sg = place_atom(ca, cb, sg, 2.05, np.deg2rad(104.0), np.array(-1.3))
    other_cb = place_atom(cb, sg, other_sg, 1.8075, np.deg2rad(104.0), np.array(chi3))
    other_ca = place_atom(sg, other_sg, other_cb, 1.53, np.deg2rad(113.9), np.array(2.9))
    c_torsion = np.array(chi1[1] - np.deg2rad(122.9))
    n = place_atom(other_sg, other_cb, other_ca, 1.458, np.deg2rad(110.5), np.array(chi1[1]))
    c = place_atom(other_sg, other_cb, other_ca, 1.525, np.deg2rad(110.1), c_torsion)
    rotation, translation, _ = frames(n[None], other_ca[None], c[None])
    second = Backbones(rotation, translation, n[None], np.array([TOKEN["CYS"]]))
    assert np.linalg.norm(second.cb()[0] - other_cb) < 0.2  # it is an L residue
    pairs = zip(vars(one).values(), vars(second).values(), strict=True)
    return Backbones(*(np.concatenate(pair) for pair in pairs))
