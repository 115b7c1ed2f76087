"""Heaviest modes, the joint model and the deposited side chains of the same structures.

    python benchmarks/joint.py STRUCTURE ... [--model MODEL] [--number 30] [--rows]
    python benchmarks/joint.py STRUCTURE ... --fit-confidence

What is counted, and how, is that of the evaluation in the workflow (``prediction/judged.py``);
every residue counts here. Time is that of the joint step alone, one thread, and the exponent that
of a power of the number of residues. --rows prints a row a structure, before and after; its
disulfides and bonds to metals are those whose length is right, of those deposited. --fit-confidence
prints constants for ``joint/model.py`` instead of using them.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from qfitlatent.base import config
from qfitlatent.joint.model import JointModel, joint_model
from qfitlatent.model.checkpoint import load_model
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.prediction.confidence import RIGHT_RADIANS
from qfitlatent.prediction.judge import known_of
from qfitlatent.prediction.judged import judge, subject_of
from qfitlatent.prediction.predict import predicted_arrays
from qfitlatent.prediction.records import find_structures, read_input
from qfitlatent.prediction.runner import Runner
from qfitlatent.prediction.settings import PredictionSettings


class Solved(NamedTuple):
    """One structure: rows of ``JUDGED_RESIDUES`` and of ``JUDGED_BONDS``."""

    residues: pd.DataFrame
    bonds: pd.DataFrame
    joint: JointModel
    seconds: float
    is_learnt: bool
    """The model was trained on a chain of it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structures", nargs="+", type=Path, help="files or folders")
    parser.add_argument("--model", help="run folder, model file or name")
    parser.add_argument("--number", type=int, default=30, help="structures at most")
    parser.add_argument("--rows", action="store_true", help="a row a structure")
    parser.add_argument("--fit-confidence", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = list(find_structures(options.structures))[: options.number]
    settings = config.settings(PredictionSettings, "predict", {"device": "cpu"})
    solved = list(solve(paths, Runner(load_model(options.model), settings)))
    if options.fit_confidence:
        print("CONFIDENCE = ({:.2f}, {:.2f}, {:.2f})".format(*fit(solved)))
        return
    residues = pd.concat([s.residues for s in solved])
    bonds = pd.concat([s.bonds for s in solved])
    print(f"{len(solved)} structures, {len(residues)} residues")
    print_models(residues)
    print_bonds(bonds)
    print_altlocs(residues)
    print_confidence(residues)
    print_time(solved)
    if options.rows:
        print_rows(solved)


def solve(paths: list[Path], runner: Runner) -> Iterator[Solved]:
    for path in paths:
        given = read_input(path)
        protein = protein_from_tables(given.tables)
        predicted = predicted_arrays(runner, given, protein, runner.encode([protein])[0])
        subject = subject_of(given, predicted)
        start = time.process_time()
        joint = joint_model(
            subject.protein, subject.densities, predicted.heterogeneous, runner.settings.min_weight
        )
        seconds = time.process_time() - start
        everything = np.ones(len(protein), dtype=bool)
        known = known_of(protein, everything, ~everything, altlocs_kept=True)
        tables = judge(given, predicted.row, subject, joint, known)
        learnt = runner.learnt_from(given)
        is_learnt = learnt is not None and bool(learnt.any())
        yield Solved(*(table.to_pandas() for table in tables), joint, seconds, is_learnt)


def within(error: pd.Series, degrees: float) -> float:
    """% of the residues whose every chi was observed."""
    return 100 * (error.dropna() <= np.deg2rad(degrees)).mean()


def print_models(residues: pd.DataFrame) -> None:
    print(f"{'':12}{'clashes':>9}{'chi1 20':>9}{'all 20':>9}{'all 40':>9}{'bonds':>9}{'angles':>9}")
    for name in ("heaviest", "joint", "deposited"):
        cells = [f"{100 * residues[f'{name}_clashes'].mean():.2f}"]
        if name == "deposited":
            cells += [""] * 3
        else:
            chi = residues[f"{name}_chi_error_rad"]
            shares = [
                within(residues[f"{name}_chi1_error_rad"], 20),
                *(within(chi, d) for d in (20, 40)),
            ]
            cells += [f"{share:.1f}" for share in shares]
        if name != "heaviest":
            bond, angle = (residues[f"{name}_{x}"] for x in ("bonds_angstrom", "angles_rad"))
            cells += [f"{rms(bond):.4f}", f"{np.degrees(rms(angle)):.2f}"]
        print(f"{name:12}" + "".join(f"{cell:>9}" for cell in cells))


def rms(values: pd.Series) -> float:
    return float(np.sqrt((values**2).mean()))


def right_bonds(bonds: pd.DataFrame, model: str) -> tuple[str, str]:
    """Disulfides and metal bonds whose length is right, of those deposited."""
    there = bonds[bonds["is_deposited"]]
    found = []
    for kind, ideal, off in (("disulfide", 2.05, 0.1), ("metal", None, 0.3)):
        some = there[there["kind"] == kind]
        wanted = some["deposited_angstrom"] if ideal is None else ideal
        good = ((some[f"{model}_angstrom"] - wanted).abs() <= off).sum()
        found.append(f"{good} of {len(some)}")
    return found[0], found[1]


def print_bonds(bonds: pd.DataFrame) -> None:
    disulfides, metals = right_bonds(bonds, "joint")
    print(f"deposited disulfides within 0.1 angstrom of 2.05: {disulfides}")
    print(f"deposited bonds to metals within 0.3 angstrom of their length: {metals}")


def print_altlocs(residues: pd.DataFrame) -> None:
    shown = residues[residues["is_heterogeneous"].notna()]
    written, known = shown["num_conformers"] > 1, shown["is_heterogeneous"].astype(bool)
    precision = known[written].mean() if written.any() else np.nan
    print(
        f"altlocs on {100 * written.mean():.1f} % of the residues that show a chi; distinct "
        f"deposited rotamers: {100 * precision:.1f} % of them, {100 * known.mean():.1f} % of all"
    )


def print_confidence(residues: pd.DataFrame) -> None:
    shown = residues[residues["joint_chi_error_rad"].notna()]
    sure, right = shown["confidence"], shown["joint_chi_error_rad"] <= RIGHT_RADIANS
    tenth = np.minimum((sure * 10).astype(int), 9)
    print("confidence   residues  predicted  right")
    for t in sorted(tenth.unique()):
        of = tenth == t
        of_tenth = f"{of.sum():12}{sure[of].mean():11.3f}{right[of].mean():7.3f}"
        print(f"{t / 10:.1f} to {t / 10 + 0.1:.1f}{of_tenth}")


def print_time(solved: list[Solved]) -> None:
    size = np.array([float(len(s.residues)) for s in solved])
    seconds = np.array([s.seconds for s in solved])
    exponent = np.nan
    if len(np.unique(size)) > 1:
        exponent = np.polyfit(np.log(size), np.log(seconds), 1)[0]
    print(
        f"joint step: {1e3 * seconds.sum() / size.sum():.2f} ms a residue, "
        f"{300 * seconds.sum() / size.sum():.2f} s for 300, exponent {exponent:.2f}"
    )


def print_rows(solved: list[Solved]) -> None:
    """Heaviest modes before, the joint model after, structure by structure."""
    print("\n| structure | residues | clashes, heaviest / joint / deposited | all chi within 20° "
          "| within 40° | disulfides right | metal bonds right | altlocs |")  # fmt: skip
    print("|---|---:|---|---|---|---|---|---|")
    for residues, bonds, *_, is_learnt in solved:
        clashes = (residues[f"{x}_clashes"].sum() for x in ("heaviest", "joint", "deposited"))
        name = residues["entry"].iloc[0] + " (learnt from)" * is_learnt
        cells = [name, str(len(residues))]
        cells.append(" / ".join(f"{number:.0f}" for number in clashes))
        for degrees in (20, 40):
            both = (within(residues[f"{x}_chi_error_rad"], degrees) for x in ("heaviest", "joint"))
            cells.append(" / ".join(f"{share:.1f} %" for share in both))
        of_both = (right_bonds(bonds, name) for name in ("heaviest", "joint"))
        cells += [" / ".join(pair) for pair in zip(*of_both, strict=True)]
        written = (residues["num_conformers"] > 1)[residues["confidence"].notna()]
        cells.append(f"{100 * written.mean():.1f} %")
        print(f"| {' | '.join(cells)} |")


def fit(solved: list[Solved]) -> np.ndarray:
    """Constant and two weights of ``JointModel.confidence``, by Newton's method."""
    error = [s.residues["joint_chi_error_rad"].to_numpy() for s in solved]
    known = np.isfinite(np.concatenate(error))
    shown = np.concatenate([s.joint.evidence for s in solved])[known]
    right = np.concatenate(error)[known] <= RIGHT_RADIANS
    rows = np.column_stack((np.ones(len(shown)), shown))
    weight = np.zeros(3)
    for _ in range(20):
        sure = 1.0 / (1.0 + np.exp(-rows @ weight))
        curvature = (rows * (sure * (1 - sure))[:, None]).T @ rows
        weight = weight + np.linalg.solve(curvature, rows.T @ (right - sure))
    return weight


if __name__ == "__main__":
    main()
