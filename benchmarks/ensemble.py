"""Time and memory of an ensemble's prediction, by its number of models, beside that of ``predict``.

    python benchmarks/ensemble.py --models 8 32

Models are the shipped example with its atoms displaced at random by 0.2 angstrom, in one file;
beside it ``predict`` takes them as files of a folder, without worker processes. Each is measured in
a process of its own, from start to end; the peak is that of the resident memory.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gemmi
import numpy as np

from qfitlatent.prediction.commands import EXAMPLE

MEASURED = """
import resource, sys
from qfitlatent.cli import main
sys.argv[0] = "qfitlatent"
status = main(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(status)
"""


def displaced(num: int) -> gemmi.Structure:
    structure = gemmi.read_structure(str(EXAMPLE))
    structure.setup_entities()
    rng = np.random.default_rng(0)
    for number in range(2, num + 1):
        model = structure[0].clone()
        model.num = number
        for site in model.all():
            moved = np.array(site.atom.pos.tolist()) + rng.normal(scale=0.2, size=3)
            site.atom.pos = gemmi.Position(*moved)
        structure.add_model(model)
    return structure


def measured(*arguments: str) -> tuple[float, float]:
    """Seconds, and MiB."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments, "--threads", "1"],
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    return seconds, int(done.stdout.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, nargs="+", default=[8, 32])
    given = parser.parse_args()
    print("| models | ensemble, s | peak, MiB | predict, s | peak, MiB |")
    print("|---:|---:|---:|---:|---:|")
    for num in given.models:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            structure = displaced(num)
            structure.make_mmcif_document().write_file(str(folder / "models.cif"))
            (folder / "each").mkdir()
            for i in range(num):
                one = structure.clone()
                del one[:]
                one.add_model(structure[i].clone())
                one[0].num = 1
                one.make_mmcif_document().write_file(str(folder / f"each/m{i}.cif"))
            ensemble = measured("ensemble", str(folder / "models.cif"), "-o", str(folder / "one"))
            predict = measured(
                "predict", str(folder / "each"), "-o", str(folder / "two"), "--workers", "0"
            )
        numbers = " | ".join(f"{seconds:.1f} | {peak:.0f}" for seconds, peak in (ensemble, predict))
        print(f"| {num} | {numbers} |")


if __name__ == "__main__":
    main()
