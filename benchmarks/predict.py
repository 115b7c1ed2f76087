"""Structures per second of `qfitlatent predict`, and the share of time outside the network.

    python benchmarks/predict.py [STRUCTURE ...] [--model RUN] [--number 100] [--rounds 3]
    python benchmarks/predict.py [STRUCTURE ...] --against 760b04c
    python benchmarks/predict.py --copies 1 10 50 200

Without structures it predicts simulated ones, as many as --number, without a model the one that
ships. Rounds are interleaved over the numbers of worker processes, the best of each counts; every
round starts from nothing, start-up of the workers included. "outside" is the time in which the
network, its encoder and its head, stood still, divided by all time. The last line is one command on
one structure, the start of Python included. The second form sets processor times beside those of an
earlier version, the third measures how time and memory grow with length (versions.py).
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from versions import compare, parser_of

from qfitlatent.base import config
from qfitlatent.base.machine import num_cores
from qfitlatent.model.checkpoint import load_model
from qfitlatent.prediction.predict import predict_structures
from qfitlatent.prediction.records import find_structures
from qfitlatent.prediction.runner import Timing
from qfitlatent.prediction.settings import PredictionSettings
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import SimulatorSettings, entry_ids


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--number", type=int, default=100, help="structures at most")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1, help="threads of the network")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    if options.against or options.copies:
        compare("predict", "predictions", options)
        return
    torch.set_num_threads(options.threads)
    model = load_model(options.model)
    with tempfile.TemporaryDirectory() as scratch:
        paths = options.structures
        if not paths:
            settings = config.settings(
                SimulatorSettings, "simulate", {"num_entries": options.number}
            )
            paths = write_entries(entry_ids(settings), Path(scratch) / "in", settings, 1)
        paths = list(find_structures(paths))[: options.number]
        kind = "given" if options.structures else "simulated"
        print(
            f"{len(paths)} {kind} structures, {num_cores()} cores, "
            f"{options.threads} threads of the network, device {options.device}"
        )
        best: dict[int, tuple[float, Timing, int]] = {}
        for number in range(options.rounds + 1):
            for workers in options.workers:
                timing = Timing()
                out = Path(scratch) / f"out_{number}_{workers}"
                # The first round warms up caches and is not counted.
                chosen = paths if number else paths[:8]
                given = {"workers": workers, "device": options.device}
                settings = config.settings(PredictionSettings, "predict", given)
                start = time.perf_counter()
                results = predict_structures(chosen, out, model, settings, timing=timing)
                total = time.perf_counter() - start
                residues = sum(result.num_residues for result in results)
                if number and (workers not in best or total < best[workers][0]):
                    best[workers] = total, timing, residues
        seconds = min(one_command(paths[0], model.path, Path(scratch) / "one") for _ in range(2))
    names = ("workers", "structures/s", "residues/s", "encoder s", "head s", "outside")
    print("".join(f"{name:>14}" for name in names))
    for workers, (total, timing, residues) in best.items():
        print(
            f"{workers:>14}{len(paths) / total:>14.1f}{residues / total:>14.0f}"
            f"{timing.encoder:>14.2f}{timing.head:>14.2f}"
            f"{1.0 - (timing.encoder + timing.head) / total:>14.0%}"
        )
    print(f"qfitlatent predict {paths[0].name}: {seconds:.1f} s from start to end")


def one_command(path: Path, model: Path, out: Path) -> float:
    """Seconds of one `qfitlatent predict` in a process of its own."""
    command = [sys.executable, "-m", "qfitlatent", "predict", str(path), "--overwrite"]
    start = time.perf_counter()
    subprocess.run(
        [*command, "--model", str(model), "-o", str(out)], check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
