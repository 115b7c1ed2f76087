"""Rate of the evaluation with all metrics, against the same code one residue at a time.

Simulated entries, half of them for training: the baselines are fitted, and the true mixtures, given
as an external table, stand for a model. Both ways are measured in this run, the slow one on a
sample of the residues. Prints a table and writes it as JSON with --out; exits with 1 if all figures
for 100,000 residues would take longer than 3 minutes or the ratio is below 10.

    python benchmarks/evaluate.py --entries 2600 --threads 2
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import torch

from qfitlatent.archive.entries import EntryRef
from qfitlatent.archive.log import log_local_files
from qfitlatent.base import config
from qfitlatent.dataset.split import split_entries
from qfitlatent.evaluation.evaluate import evaluate_run, score_method
from qfitlatent.evaluation.methods import external_method
from qfitlatent.evaluation.residues import read_evaluation_set
from qfitlatent.evaluation.settings import EvaluationSettings
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import SimulatorSettings, entry_ids
from qfitlatent.simulate.truth import read_truth
from qfitlatent.structure.preprocess import preprocess_entries

ROOT = Path(__file__).resolve().parent.parent

NUM_SLOW = 200
"""Residues scored one at a time."""


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=2600, help="simulated entries")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_data_set(folder, options.entries)
        tables, split = folder / "tables", folder / "split.parquet"
        data = read_evaluation_set(tables, split, "test")
        pq.write_table(read_truth(folder / "simulated", data.entries), folder / "t.parquet")
        settings = config.settings(
            EvaluationSettings,
            "evaluate",
            {"external": [{"name": "truth", "path": str(folder / "t.parquet")}]},
        )
        (external,) = settings.external

        start = time.perf_counter()
        evaluate_run(None, tables, split, folder / "out", settings)
        whole = time.perf_counter() - start

        start = time.perf_counter()
        score_method(external_method(external, data), data, settings)
        fast = (time.perf_counter() - start) / data.num

        one_by_one = external_method(external, data, 1)
        chunks = one_by_one.chunks()
        few = type(one_by_one)("truth", lambda: (next(chunks) for _ in range(NUM_SLOW)))
        start = time.perf_counter()
        score_method(few, data, settings)
        slow = (time.perf_counter() - start) / NUM_SLOW

    figures = {
        "num_residues": data.num,
        "num_altlocs": len(data.observed.row_residue),
        "num_threads": options.threads,
        "whole_evaluation_s": round(whole, 1),
        "residues_per_second_all_methods": round(data.num / whole),
        "seconds_for_100000_residues": round(1e5 * whole / data.num, 1),
        "one_method_residues_per_second": round(1 / fast),
        "one_residue_at_a_time_per_second": round(1 / slow, 1),
        "ratio": round(slow / fast, 1),
    }
    for name, value in figures.items():
        print(f"{name:36s} {value}")
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n")
    return int(figures["seconds_for_100000_residues"] > 180 or figures["ratio"] < 10)


if __name__ == "__main__":
    raise SystemExit(main())
