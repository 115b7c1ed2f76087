"""Time of an evaluation with all methods and figures, by this version and an earlier one.

Simulated entries, half of them for training: the baselines are fitted, and the true mixtures, given
as an external table, stand for a model, whose network is thus left out; ``--model`` adds one with
its network. Of an earlier version its own benchmark is run on the entries that it makes; processor
time of the evaluation alone is compared, each in a process of its own.

    python benchmarks/evaluate.py --entries 2600 --threads 2 [--model shipped]
    python benchmarks/evaluate.py --entries 600 --against 760b04c
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import torch
from versions import ROOT, version

from qfitlatent.archive.entries import EntryRef
from qfitlatent.archive.log import log_local_files
from qfitlatent.base import config
from qfitlatent.dataset.split import split_entries
from qfitlatent.evaluation.evaluate import evaluate_run
from qfitlatent.evaluation.residues import read_evaluation_set
from qfitlatent.evaluation.settings import EvaluationSettings
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import SimulatorSettings, entry_ids
from qfitlatent.simulate.truth import read_truth
from qfitlatent.structure.preprocess import preprocess_entries

RESIDUES_AN_ENTRY = 36.9
"""That are evaluated, by simulated entry, of which half are for training."""

TIMED = """
import json, sys, time
import evaluate as benchmark
whole, read, found = benchmark.evaluate_run, benchmark.read_evaluation_set, []
def timed(*given, **named):
    start = time.process_time()
    whole(*given, **named)
    print("\\n" + json.dumps([found[0].num, time.process_time() - start]), flush=True)
    raise SystemExit
benchmark.evaluate_run = timed
benchmark.read_evaluation_set = lambda *given: found.append(read(*given)) or found[-1]
benchmark.main()
"""
"""Run beside a version's benchmark: residues of its evaluation, and processor seconds."""


def make_data_set(folder: Path, num_entries: int) -> None:
    settings = config.settings(
        SimulatorSettings,
        "simulate",
        {"num_entries": num_entries, "num_families": max(8, num_entries // 4)},
    )
    ids = entry_ids(settings)
    paths = write_entries(ids, folder / "simulated", settings, seed=0)
    refs = [EntryRef(entry, str(path)) for entry, path in zip(ids, paths, strict=True)]
    with open(os.devnull, "w") as log:
        log_local_files(refs, "simulated", folder / "log.parquet", log)
        preprocess_entries(folder / "log.parquet", folder / "tables", stream=log)
    fractions = {"train": 0.45, "validation": 0.05, "test": 0.5}
    sets = config.load({"split": {"fractions": fractions}})["split"]
    split_entries(folder / "tables", folder / "split.parquet", seed=1, **sets)


def rate(root: Path, num_entries: int) -> float:
    """Residues by processor second of the version in ``root``, by one thread."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(root / "benchmarks"), str(root / "src")]),
        "OMP_NUM_THREADS": "1",
    }
    words = ["--entries", str(num_entries), "--threads", "1"]
    command = [sys.executable, "-c", TIMED, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"The evaluation of {root} failed:\n{done.stderr}")
    residues, seconds = json.loads(done.stdout.splitlines()[-1])
    return residues / seconds


def processor_seconds() -> float:
    """Of this process and of those that it has started and that have ended."""
    return sum(os.times()[:4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--entries", type=int, default=2600, help="simulated entries")
    size.add_argument("--residues", type=int, help="about so many evaluated, in place of entries")
    parser.add_argument("--threads", type=int, default=2, help="processes that share the work")
    parser.add_argument("--model", help="run folder, model file or name to evaluate as well")
    parser.add_argument("--against", metavar="COMMIT", help="the earlier version")
    options = parser.parse_args()
    if options.residues:
        options.entries = math.ceil(options.residues / RESIDUES_AN_ENTRY)
    if options.against:
        with version(options.against) as earlier:
            then, now = rate(earlier, options.entries), rate(ROOT, options.entries)
        print(f"| residues a processor second: {options.against} | this version | ratio |")
        print(f"|---|---|---|\n| {then:.0f} | {now:.0f} | {now / then:.1f} |")
        return
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_data_set(folder, options.entries)
        tables, split = folder / "tables", folder / "split.parquet"
        data = read_evaluation_set(tables, split, "test")
        pq.write_table(read_truth(folder / "simulated", data.entries), folder / "t.parquet")
        external = {"external": [{"name": "truth", "path": str(folder / "t.parquet")}]}
        settings = config.settings(EvaluationSettings, "evaluate", external)
        start, before, out = time.perf_counter(), processor_seconds(), folder / "out"
        evaluate_run(options.model, tables, split, out, settings, processes=options.threads)
        seconds, used = time.perf_counter() - start, processor_seconds() - before
    print("| residues | entries | processes | s | processor s | processor s a process |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {data.num:,} | {len(data.entries):,} | {options.threads} | {seconds:.1f} | {used:.1f} "
        f"| {used / options.threads:.1f} |"
    )


if __name__ == "__main__":
    main()
