"""One command of this version and of an earlier one, in turns, each in a process of its own.

Processor seconds are compared, start of Python included, so that a busy machine does not decide;
both have one thread, no worker processes, and the model that they ship, unless one is named.
"""

import argparse
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import gemmi

from qfitlatent.prediction.forecast import Forecast

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "src/qfitlatent/data/example.cif.gz"
APART_ANGSTROM = 150.0
"""Between the copies of which a large structure is made."""


class Cost(NamedTuple):
    """Of one process."""

    seconds: float
    megabytes: float


@contextmanager
def version(commit: str) -> Iterator[Path]:
    """A folder with package, benchmarks and experiments as the commit has them."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "version.tar"
        parts = ("src", "benchmarks", "experiments")
        command = ["git", "-C", ROOT, "archive", "-o", archive, commit, *parts]
        if subprocess.run(command, capture_output=True).returncode:
            sys.exit(f"This checkout has no commit {commit}: fetch it (git fetch --unshallow).")
        shutil.unpack_archive(archive, folder)
        yield Path(folder)


def cost(source: Path, *words: str | Path) -> Cost:
    """Of ``qfitlatent`` with these words, by the package in ``source``."""
    environment = os.environ | {"PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": "1"}
    # A package that is used has been compiled before.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "qfitlatent", *map(str, words)]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{said.read().decode(errors='replace')}")
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def copies(num: int, path: Path) -> int:
    """Writes a structure of so many copies of the example, far apart; returns its residues."""
    structure = gemmi.read_structure(str(EXAMPLE))
    structure.setup_entities()
    model = structure[0]
    side = math.ceil(num ** (1 / 3))
    for number in range(1, num):
        place = (number % side, number // side % side, number // side**2)
        shift = gemmi.Transform(gemmi.Mat33(), gemmi.Vec3(*(APART_ANGSTROM * x for x in place)))
        for chain in list(model)[: len(model) // number]:
            new = chain.clone()
            new.name = f"{chain.name}{number}"
            for residue in new:
                residue.subchain = f"{residue.subchain}{number}"
                for atom in residue:
                    atom.pos = gemmi.Position(shift.apply(atom.pos))
            model.add_chain(new)
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(path))
    return sum(len(chain.get_polymer()) for chain in model)


def parser_of(documentation: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=documentation.splitlines()[0])
    parser.add_argument("structures", nargs="*", type=Path, help="files (default: the example)")
    parser.add_argument("--against", metavar="COMMIT", help="the earlier version")
    parser.add_argument("--model", type=Path, help="of this version (default: what it ships)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--copies",
        type=int,
        nargs="*",
        default=[],
        help="sizes of a structure of so many copies of the example, for the growth with length",
    )
    return parser


def compare(command: str, output: str, options: argparse.Namespace) -> None:
    """Prints the cost of the command on each structure, by both versions, and how it grows."""
    structures = options.structures or [EXAMPLE]
    words = ["--threads", "1", "--workers", "0", "--overwrite"]
    model = [] if options.model is None else ["--model", options.model.resolve()]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / output
        if options.against:
            print(f"| structure | {options.against}: s | MB | this version: s | MB | ratio |")
            print("|---|---|---|---|---|---|")
            with version(options.against) as earlier:
                for path in structures:
                    given = [command, path.resolve(), "-o", out, *words]
                    pairs = [
                        (cost(earlier, *given), cost(ROOT, *given, *model))
                        for _ in range(options.rounds)
                    ]
                    ratio = statistics.median(then.seconds / now.seconds for then, now in pairs)
                    then, now = (min(costs) for costs in zip(*pairs, strict=True))
                    print(
                        f"| {path.name} | {then.seconds:.1f} | {then.megabytes:.0f} "
                        f"| {now.seconds:.1f} | {now.megabytes:.0f} | {ratio:.1f} |"
                    )
        if options.copies:
            growth(command, out, [*words, *model], options)


def growth(command: str, out: Path, words: list, options: argparse.Namespace) -> None:
    """Prints the cost by length, and the exponent beyond what the shortest structure takes.

    Beside it, what the command says before it starts (``forecast.py``), which is of a prediction.
    """
    print("| residues | s | MB | forecast: s | MB |\n|---|---|---|---|---|")
    measured = []
    for num in options.copies:
        path = out.with_name(f"copies{num}.cif")
        residues = copies(num, path)
        costs = [cost(ROOT, command, path, "-o", out, *words) for _ in range(options.rounds)]
        best = min(costs)
        measured.append((residues, best.seconds))
        said = Forecast([path])
        print(
            f"| {residues} | {best.seconds:.1f} | {best.megabytes:.0f} "
            f"| {said.seconds:.1f} | {said.memory_bytes / 1e6:.0f} |",
            flush=True,
        )
    (first, base), *others = measured
    # What is hardly longer than the shortest can take as little.
    points = [(math.log(n - first), math.log(s - base)) for n, s in others if s > base]
    if len(points) > 1:
        slope, _ = statistics.linear_regression(*zip(*points, strict=True))
        print(f"exponent {slope:.2f}, beyond the time of {first} residues")
