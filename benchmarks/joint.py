"""Heaviest modes, the joint model and the deposited side chains of the same structures.

    python benchmarks/joint.py STRUCTURE ... [--model MODEL] [--number 30] [--fit-confidence]

Clashes are pairs of heavy atoms of different residues below 2.5 angstrom, one of them beyond CB of
a side chain that is built, per 100 residues; waters, metals and disulfides are left out. Accuracy
is against the deposited conformer with the highest occupancy, of chi that were observed. Bonds and
angles are root mean square deviations from ideal geometry, of side-chain atoms. Time is that of the
joint step alone, one thread, and the exponent that of a power of the number of residues.
--fit-confidence prints constants for ``joint/model.py`` instead of using them.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from qfitlatent.base import config
from qfitlatent.chemistry.building import ideal_geometry
from qfitlatent.chemistry.geometry import circular_distance
from qfitlatent.chemistry.neighbours import pairs_within
from qfitlatent.chemistry.residues import (
    CHI_DEFINED,
    NUM_CHI,
    PI_SYMMETRIC,
    RESIDUE_TYPES,
    SIDE_CHAIN_ATOMS,
    TOKEN,
    UNKNOWN_TOKEN,
)
from qfitlatent.joint.atoms import KIND, NUM_MOVED
from qfitlatent.joint.model import JointModel, Protein, joint_model
from qfitlatent.model.checkpoint import load_model
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.prediction.ensemble import densities_of, placement_of
from qfitlatent.prediction.predict import predicted_arrays
from qfitlatent.prediction.records import find_structures, read_input
from qfitlatent.prediction.runner import Runner
from qfitlatent.prediction.scene import Kind, Scene, names_of_its_own, scene_of
from qfitlatent.prediction.settings import PredictionSettings
from qfitlatent.prediction.surroundings import first_conformers, protein_of
from qfitlatent.structure.coordinates import open_structure

CLASH_ANGSTROM = 2.5
WITHIN = np.deg2rad((20.0, 40.0))


class Solved(NamedTuple):
    """One structure: N residues, J modes, A side-chain atoms."""

    protein: Protein
    joint: JointModel
    heaviest: np.ndarray
    """(N,4) chi of the heaviest modes."""
    observed: np.ndarray
    """(N,4) deposited chi, nan where not observed."""
    deposited: np.ndarray
    """(N,A,3) deposited side chains, nan where there is no atom."""
    is_distinct: np.ndarray
    """(N,) bool: deposited with two or more distinct rotamers."""
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structures", nargs="+", type=Path, help="files or folders")
    parser.add_argument("--model", help="run folder, model file or name")
    parser.add_argument("--number", type=int, default=30, help="structures at most")
    parser.add_argument("--fit-confidence", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = list(find_structures(options.structures))[: options.number]
    settings = config.settings(PredictionSettings, "predict", {"device": "cpu"})
    solved = list(solve(paths, Runner(load_model(options.model), settings)))
    if options.fit_confidence:
        print("CONFIDENCE = ({:.2f}, {:.2f}, {:.2f})".format(*fit(solved)))
        return
    num = sum(len(s.observed) for s in solved)
    print(f"{len(solved)} structures, {num} residues")
    print(f"{'':12}{'clashes':>9}{'chi1 20':>9}{'all 20':>9}{'all 40':>9}{'bonds':>9}{'angles':>9}")
    for name, chi_of in (
        ("heaviest", lambda s: s.heaviest),
        ("joint", lambda s: s.joint.states.chi[:, 0]),
        ("deposited", None),
    ):
        coords = [
            s.deposited if chi_of is None else s.protein.backbones.build(_all(s), chi_of(s))
            for s in solved
        ]
        clash = 100 * sum(map(clashes, solved, coords)) / num
        shares = ["", "", ""]
        if chi_of is not None:
            right = np.concatenate([hits(s, chi_of(s)) for s in solved])
            shares = [f"{100 * share:.1f}" for share in right.mean(axis=0)]
        bond, angle = np.concatenate(list(map(deviations, solved, coords)), axis=1)
        print(
            f"{name:12}{clash:9.2f}{shares[0]:>9}{shares[1]:>9}{shares[2]:>9}"
            f"{_rms(bond):9.4f}{np.degrees(_rms(angle)):9.2f}"
        )
    print_bonds(solved)
    print_altlocs(solved)
    print_confidence(solved)
    print_time(solved)


def solve(paths: list[Path], runner: Runner) -> Iterator[Solved]:
    for path in paths:
        given = read_input(path)
        protein = protein_from_tables(given.tables)
        predicted = predicted_arrays(runner, given, protein, runner.encode([protein])[0])
        structure, _ = open_structure(path)
        placement = placement_of(given.tables, predicted.row)
        scene = scene_of(structure, placement)
        around = protein_of(scene, placement)
        densities = densities_of(predicted, around)
        start = time.process_time()
        joint = joint_model(
            around,
            densities,
            predicted.heterogeneous,
            runner.settings.min_weight,
        )
        seconds = time.process_time() - start
        residues = given.tables["residues"].to_pandas()
        conformers = given.tables["conformers"].to_pandas()
        best = conformers.sort_values("occupancy", ascending=False, kind="stable")
        best = best.drop_duplicates(["chain", "index"])
        chi = [f"chi{d}" for d in range(1, 5)]
        wide = residues[["chain", "index"]].merge(best, how="left", on=["chain", "index"])
        observed = wide[[f"{name}_rad" for name in chi]].to_numpy(dtype=float)
        seen = wide[[f"{name}_observed" for name in chi]].fillna(False).to_numpy(dtype=bool)
        names = [key[3] for key in placement.key]
        yield Solved(
            around,
            joint,
            densities.mode_chi[:, 0],
            np.where(seen, observed, np.nan)[predicted.row],
            deposited(scene, around.backbones.token, names),
            residues["num_distinct_conformers"].to_numpy()[predicted.row] > 1,
            seconds,
        )


def deposited(scene: Scene, token: np.ndarray, names: list[str]) -> np.ndarray:
    coords = np.full((len(token), 10, 3), np.nan)
    rows = np.flatnonzero((scene.kind == Kind.GOES) & first_conformers(scene))
    for row in rows.tolist():
        n = int(scene.residue[row])
        if token[n] == UNKNOWN_TOKEN:
            continue
        atoms = SIDE_CHAIN_ATOMS[RESIDUE_TYPES[token[n]]]
        parents = {own: parent for parent, own in names_of_its_own(names[n]).items()}
        name = parents.get(str(scene.name[row]), str(scene.name[row]))
        if name in atoms:
            coords[n, atoms.index(name)] = scene.position[row]
    return coords


def _all(s: Solved) -> np.ndarray:
    return np.arange(len(s.observed))


def _moved(s: Solved, coords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P,3) atoms beyond CB that are there, and whose they are."""
    column = np.arange(coords.shape[1])
    moved = (column > 0) & (column <= NUM_MOVED[s.protein.backbones.token][:, None])
    owner, atom = np.nonzero(moved & np.isfinite(coords[..., 0]))
    return coords[owner, atom], owner


def clashes(s: Solved, coords: np.ndarray) -> int:
    points, owner = _moved(s, coords)
    i, j = pairs_within(points, points, CLASH_ANGSTROM)
    is_cysteine = s.protein.backbones.token[owner] == TOKEN["CYS"]
    between = (owner[i] < owner[j]) & ~(is_cysteine[i] & is_cysteine[j])
    around = s.protein.around
    i, k = pairs_within(points, around.position, CLASH_ANGSTROM)
    met = (around.excluded[k] != owner[i][:, None]).all(axis=1) & (around.kind[k] != KIND["metal"])
    return int(between.sum() + met.sum())


def hits(s: Solved, chi: np.ndarray) -> np.ndarray:
    """(n,3) bool of residues with all chi observed: chi1 and all within 20, all within 40."""
    token = s.protein.backbones.token
    defined = CHI_DEFINED[token]
    apart = circular_distance(chi, s.observed, PI_SYMMETRIC[token])
    apart = np.where(defined, apart, 0.0)[scored(s)]
    worst = apart.max(axis=1)
    return np.stack((apart[:, 0] <= WITHIN[0], worst <= WITHIN[0], worst <= WITHIN[1]), axis=1)


def scored(s: Solved) -> np.ndarray:
    token = s.protein.backbones.token
    return (NUM_CHI[token] > 0) & (np.isfinite(s.observed) | ~CHI_DEFINED[token]).all(axis=1)


def deviations(s: Solved, coords: np.ndarray) -> np.ndarray:
    """(2,P) of bonds (angstrom) and angles (radians) from the ideal ones."""
    backbones, geometry = s.protein.backbones, ideal_geometry()
    slots = np.concatenate(
        (backbones.nitrogen[:, None], backbones.translation[:, None], coords), axis=1
    )
    n, column = np.nonzero(~np.isnan(geometry.length[backbones.token]))
    row = backbones.token[n]
    a, b = (slots[n, geometry.parents[row, column, k]] for k in (1, 2))
    atom = coords[n, column]
    bond = np.linalg.norm(atom - b, axis=1) - geometry.length[row, column]
    cosine = ((a - b) * (atom - b)).sum(axis=1)
    cosine /= np.linalg.norm(a - b, axis=1) * np.linalg.norm(atom - b, axis=1)
    both = np.stack((bond, np.arccos(cosine) - geometry.angle[row, column]))
    return both[:, np.isfinite(both).all(axis=0)]


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


def print_bonds(solved: list[Solved]) -> None:
    sulphur, metal = [], []
    for s in solved:
        coords = s.protein.backbones.build(_all(s), s.joint.states.chi[:, 0])
        sulphur += [np.linalg.norm(coords[i, 1] - coords[j, 1]) for i, j in s.protein.recorded]
        metals = s.protein.metals
        for n, atom, m in metals.links:
            name = RESIDUE_TYPES[s.protein.backbones.token[n]]
            column = SIDE_CHAIN_ATOMS[name].index(atom)
            length = np.linalg.norm(coords[n, column] - metals.position[m])
            metal.append(length - np.linalg.norm(s.deposited[n, column] - metals.position[m]))
    good = np.count_nonzero(np.abs(np.array(sulphur) - 2.05) <= 0.1)
    print(f"disulfides of the records within 0.1 angstrom of 2.05: {good} of {len(sulphur)}")
    good = np.count_nonzero(np.abs(np.array(metal)) <= 0.3)
    print(f"metal ligands of the records within 0.3 angstrom: {good} of {len(metal)}")


def print_altlocs(solved: list[Solved]) -> None:
    has_chi = np.concatenate([NUM_CHI[s.protein.backbones.token] > 0 for s in solved])
    written = np.concatenate([(s.joint.states.occupancy > 0).sum(axis=1) > 1 for s in solved])
    known = np.concatenate([s.is_distinct for s in solved])[has_chi]
    written = written[has_chi]
    precision = known[written].mean() if written.any() else np.nan
    print(
        f"altlocs on {100 * written.mean():.1f} % of the residues with chi; distinct deposited "
        f"rotamers: {100 * precision:.1f} % of them, {100 * known.mean():.1f} % of all"
    )


def print_confidence(solved: list[Solved]) -> None:
    sure = np.concatenate([s.joint.confidence[scored(s)] for s in solved])
    right = np.concatenate([hits(s, s.joint.states.chi[:, 0])[:, 2] for s in solved])
    tenth = np.minimum((sure * 10).astype(int), 9)
    print("confidence   residues  predicted  right")
    for t in np.unique(tenth).tolist():
        of = tenth == t
        of_tenth = f"{of.sum():12}{sure[of].mean():11.3f}{right[of].mean():7.3f}"
        print(f"{t / 10:.1f} to {t / 10 + 0.1:.1f}{of_tenth}")


def print_time(solved: list[Solved]) -> None:
    size = np.array([float(len(s.observed)) for s in solved])
    seconds = np.array([s.seconds for s in solved])
    exponent = np.nan
    if len(np.unique(size)) > 1:
        exponent = np.polyfit(np.log(size), np.log(seconds), 1)[0]
    print(
        f"joint step: {1e3 * seconds.sum() / size.sum():.2f} ms a residue, "
        f"{300 * seconds.sum() / size.sum():.2f} s for 300, exponent {exponent:.2f}"
    )


def fit(solved: list[Solved]) -> np.ndarray:
    """Constant and two weights of ``JointModel.confidence``, by Newton's method."""
    shown = np.concatenate([s.joint.evidence[scored(s)] for s in solved])
    right = np.concatenate([hits(s, s.joint.states.chi[:, 0])[:, 2] for s in solved])
    rows = np.column_stack((np.ones(len(shown)), shown))
    weight = np.zeros(3)
    for _ in range(20):
        sure = 1.0 / (1.0 + np.exp(-rows @ weight))
        curvature = (rows * (sure * (1 - sure))[:, None]).T @ rows
        weight = weight + np.linalg.solve(curvature, rows.T @ (right - sure))
    return weight


if __name__ == "__main__":
    main()
