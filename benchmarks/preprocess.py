"""Preprocessing against gemmi's reading alone, and against a plain loop over residues.

    python benchmarks/preprocess.py [FOLDER]

The files are those of ../shared/data/structures/raw. One thread, one process; the three run in
turns on the same files, round after round; the smallest processor time of each counts, so that a
busy machine disturbs the ratios least. Preprocessing goes from the files to the five Arrow tables;
writing them as Parquet is shown beside it. Targets: at most 2.3 times
gemmi.read_structure for PDB files, at most 1.4 times for mmCIF, and at least 8 times faster than
the loop (tests/reference_structure.py).
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is loaded

import io
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gemmi
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers import reference_structure
from qfitlatent.archive.log import LOG_SCHEMA
from qfitlatent.structure.atoms import parse_file
from qfitlatent.structure.preprocess import (
    make_tables,
    preprocess_entries,
)

ROUNDS = 9
MEMORY_ENTRIES = 1000
TARGETS = {"pdb": 2.3, "cif": 1.4}
LOOP_TARGET = 8.0
MEMORY_TARGET_GB = 1.5


def write_log(files: list[Path], path: Path) -> Path:
    """A download log of these files, which may repeat."""
    rows = [
        {"entry": f"e{i:05d}", "source": "local", "path": str(file), "attempts": 0}
        for i, file in enumerate(files)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=LOG_SCHEMA), path)
    return path


def make(files: list[Path]) -> dict[str, pa.Table]:
    """The tables in memory."""
    return make_tables([parse_file(f, f"e{i:05d}") for i, f in enumerate(files)], 6)


def seconds(function: Callable[[], object]) -> float:
    """Processor time of this process and of those that it started."""
    start = time.process_time(), children().ru_utime + children().ru_stime
    function()
    return time.process_time() - start[0] + children().ru_utime + children().ru_stime - start[1]


def children() -> resource.struct_rusage:
    return resource.getrusage(resource.RUSAGE_CHILDREN)


def main() -> int:
    pa.set_cpu_count(1)
    default = ROOT.parent / "shared" / "data" / "structures" / "raw"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    missed = 0
    all_ours = all_loop = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        for kind, target in TARGETS.items():
            files = sorted(folder.glob(f"*.{kind}*"))
            log = write_log(files, Path(scratch) / "log.parquet")
            runs = {
                "gemmi": lambda files=files: [gemmi.read_structure(str(f)) for f in files],
                "ours": lambda files=files: make(files),
                "written": lambda log=log: preprocess_entries(log, scratch, stream=io.StringIO()),
                "loop": lambda files=files: [reference_structure.read(str(f)) for f in files],
            }
            best = dict.fromkeys(runs, float("inf"))
            for round_number in range(ROUNDS):
                for name, run in runs.items():
                    if name != "loop" or round_number < 2:
                        best[name] = min(best[name], seconds(run))
            ratio = best["ours"] / best["gemmi"]
            all_ours, all_loop = all_ours + best["ours"], all_loop + best["loop"]
            missed += ratio > target
            print(
                f"{kind}: {len(files)} files; gemmi {1e3 * best['gemmi'] / len(files):.2f} ms a "
                f"file, preprocessing {ratio:.2f} times that (at most {target}), "
                f"{best['written'] / best['gemmi']:.2f} with the files written"
            )
        speed_up = all_loop / all_ours
        missed += speed_up < LOOP_TARGET
        print(f"loop over residues: {speed_up:.1f} times slower (at least {LOOP_TARGET})")
        files = sorted(folder.iterdir())
        log = write_log([files[i % len(files)] for i in range(MEMORY_ENTRIES)], log)
        taken = seconds(lambda: preprocess_entries(log, scratch, stream=io.StringIO()))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, children().ru_maxrss
        peak_gb = sum(peak) / 1e6
        missed += peak_gb > MEMORY_TARGET_GB
        print(
            f"{MEMORY_ENTRIES} entries in two processes: {taken:.1f} s, peak {peak_gb:.2f} GB "
            f"(at most {MEMORY_TARGET_GB})"
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
