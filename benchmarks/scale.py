"""How the cost of every stage grows with the number of entries.

    python benchmarks/scale.py [--entries 1000 3000 10000] [--out docs/scale.json]

For each number of simulated entries (the simulator's default sizes, a family for every four
entries, 100 entries a shard) the workflow runs stage by stage with one core, in a copy of this
checkout. Core time and peak memory are read from /proc, process by process, five times a second
(Linux); the time of Snakemake itself is what is left when the jobs' time is taken off. Training is
one epoch of a model of one block: it shows what the data cost, not what a good model costs.

Growth is fitted as time ~ entries^exponent. Targets: exponent at most 1.1, no process above 2 GB,
planning below 10 s, and 100 more entries rerun their shards and what merges them.
"""

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers.workflow_run import Checkout
from qfitlatent.archive.entries import shard_of

DATA, RUN = "results/data/scale", "results/runs/scale"
STAGES = {
    "simulate_entries": (f"{DATA}/simulated", f"{DATA}/download"),
    "merge_downloads": (f"{DATA}/download.parquet",),
    "preprocess_entries": (f"{DATA}/shards",),
    "merge_tables": (f"{DATA}/tables",),
    "split_entries": (f"{DATA}/split.parquet",),
    "audit_tables": (f"{DATA}/audit",),
    "train_model": (f"{RUN}/model.safetensors", f"{RUN}/manifest.json"),
    "evaluate_model": (f"{RUN}/evaluation",),
}
"""Rule: what it leaves on the disk."""
MAX_EXPONENT, MAX_MEMORY_GB, MAX_PLANNING_S = 1.1, 2.0, 10.0
NUM_ADDED = 100
_INTERVAL_S = 0.2


def configuration(num_entries: int, added: int = 0) -> dict:
    return {
        "dataset": "scale",
        "run": "scale",
        "entries": {"shards": max(4, num_entries // 100)},
        "simulate": {"num_entries": num_entries + added, "num_families": num_entries // 4},
        "split": {"method": "builtin"},
        "model": {"d_s": 16, "d_z": 4, "num_blocks": 1, "num_heads": 2, "num_components": 2},
        "train": {"epochs": 1, "device": "cpu"},
        "evaluate": {"bootstrap_samples": 100, "num_samples": 32},
    }


class Sampler(threading.Thread):
    """Core time and peak memory of all processes below one, told apart by rule."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root, self._done = psutil.Process(pid), threading.Event()
        self._core_s: dict[tuple[str, int], float] = {}
        self.memory_gb: dict[str, float] = defaultdict(float)

    def run(self) -> None:
        while not self._done.wait(_INTERVAL_S):
            try:
                processes = [self._root, *self._root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for process in processes:
                self._look_at(process)

    def _look_at(self, process: psutil.Process) -> None:
        try:
            script = next((a for a in process.cmdline() if a.endswith(".py")), "")
            rule = script.removesuffix(".py").rpartition(".")[2] if "scripts" in script else ""
            name = rule if rule in STAGES else "snakemake"
            times = process.cpu_times()
            status = Path(f"/proc/{process.pid}/status").read_text()
        except (psutil.Error, OSError):
            return  # it ended meanwhile
        self._core_s[name, process.pid] = times.user + times.system
        peak = next((row for row in status.splitlines() if row.startswith("VmHWM:")), None)
        if peak:
            gigabytes = int(peak.split()[1]) * 1024 / 1e9
            self.memory_gb[name] = max(self.memory_gb[name], gigabytes)

    def stop(self) -> None:
        self._done.set()
        self.join()

    def core_s(self, name: str) -> float:
        return sum(seconds for (rule, _), seconds in self._core_s.items() if rule == name)


def run_stage(checkout: Checkout, rule: str) -> dict[str, float]:
    """One stage, all of whose inputs are there."""
    begin = time.monotonic()
    process = checkout.start("evaluate", "--until", rule)
    sampler = Sampler(process.pid)
    sampler.start()
    out, err = process.communicate()
    sampler.stop()
    wall_s = time.monotonic() - begin
    if process.returncode != 0:
        sys.exit(f"{rule} failed:\n{out[-2000:]}{err[-6000:]}")
    files = benchmark_files(checkout.folder, rule)
    jobs_s = sum(seconds_of(path) for path in files)
    return {
        "jobs": len(files),
        "wall_s": wall_s,
        "jobs_wall_s": jobs_s,
        "core_s": sampler.core_s(rule),
        "snakemake_wall_s": wall_s - jobs_s,
        "snakemake_core_s": sampler.core_s("snakemake"),
        "memory_gb": sampler.memory_gb[rule],
        "snakemake_memory_gb": sampler.memory_gb["snakemake"],
        "bytes": sum(size(checkout.folder / path) for path in STAGES[rule]),
    }


def benchmark_files(folder: Path, rule: str) -> list[Path]:
    found = (folder / "results/benchmarks").rglob("*.tsv")
    return [path for path in found if rule in (path.stem, path.parent.name)]


def seconds_of(path: Path) -> float:
    with open(path, newline="") as file:
        return sum(float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))


def size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def planning(checkout: Checkout) -> dict[str, float]:
    """Time of `snakemake -n`; on a busy machine the core time says more."""
    begin, before = time.monotonic(), os.times()
    checkout.plan("evaluate")
    after = os.times()
    core_s = sum(after[2:4]) - sum(before[2:4])  # of child processes
    return {"wall_s": time.monotonic() - begin, "core_s": core_s}


def measure(num_entries: int, folder: Path) -> dict:
    """All stages at one size, then what adding entries would rerun."""
    checkout = Checkout(folder / str(num_entries), configuration(num_entries))
    result: dict = {"entries": num_entries, "planning": planning(checkout), "stages": {}}
    for rule in STAGES:
        result["stages"][rule] = stage = run_stage(checkout, rule)
        print(num_entries, rule, json.dumps(rounded(stage)), file=sys.stderr, flush=True)
    result["planning_finished"] = planning(checkout)

    num_shards = configuration(num_entries)["entries"]["shards"]
    added = range(num_entries, num_entries + NUM_ADDED)
    shards = len({shard_of(f"sim{i:05d}", num_shards) for i in added})
    checkout.write_config(configuration(num_entries, NUM_ADDED))
    result["added"] = {
        "entries": NUM_ADDED,
        "shards": shards,
        "of": num_shards,
        "jobs": checkout.plan("preprocess"),
    }
    return result


def rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def exponent(sizes: list[int], values: list[float]) -> float:
    """Slope of log(value) over log(size), least squares."""
    x, y = [math.log(n) for n in sizes], [math.log(max(v, 1e-9)) for v in values]
    x0, y0 = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - x0) * (b - y0) for a, b in zip(x, y, strict=True))
    return above / sum((a - x0) ** 2 for a in x)


def fit(results: list[dict]) -> dict[str, dict[str, float]]:
    sizes = [result["entries"] for result in results]
    if len(sizes) < 2:
        return {}
    return {
        rule: {
            quantity: exponent(sizes, [result["stages"][rule][quantity] for result in results])
            for quantity in ("core_s", "jobs_wall_s", "memory_gb", "bytes")
        }
        for rule in STAGES
    }


def table(results: list[dict], exponents: dict) -> str:
    """Markdown: core time, memory and disk of each stage at each size, and the exponents."""
    sizes = [f"{result['entries']:,}" for result in results]
    head = ["stage", "jobs", *(f"core s, {n}" for n in sizes), "exponent"]
    head += [f"peak GB, {sizes[-1]}", f"disk MB, {sizes[-1]}", "exponent of disk"]
    rows = [head, ["---"] * len(head)]
    for rule in STAGES:
        stages = [result["stages"][rule] for result in results]
        growth = exponents.get(rule, {})
        rows.append(
            [
                f"`{rule}`",
                str(stages[-1]["jobs"]),
                *(f"{stage['core_s']:.1f}" for stage in stages),
                f"{growth['core_s']:.2f}" if growth else "",
                f"{stages[-1]['memory_gb']:.2f}",
                f"{stages[-1]['bytes'] / 1e6:.1f}",
                f"{growth['bytes']:.2f}" if growth else "",
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def broken(results: list[dict], exponents: dict) -> list[str]:
    """Targets that are not met, in words."""
    said = []
    for rule, growth in exponents.items():
        if growth["core_s"] > MAX_EXPONENT:
            said.append(f"{rule} grows with exponent {growth['core_s']:.2f}")
    for result in results:
        for rule, stage in result["stages"].items():
            if stage["memory_gb"] > MAX_MEMORY_GB:
                said.append(f"{rule} takes {stage['memory_gb']:.1f} GB at {result['entries']}")
        planned = result["planning"]["core_s"]
        if planned > MAX_PLANNING_S:
            said.append(f"planning takes {planned:.0f} core-seconds at {result['entries']}")
        added = result["added"]
        once = dict.fromkeys(["merge_downloads", "merge_tables", "split_entries"], 1)
        shards = dict.fromkeys(["simulate_entries", "preprocess_entries"], added["shards"])
        if added["jobs"] != once | shards:
            said.append(f"adding {NUM_ADDED} to {result['entries']} reruns {added['jobs']}")
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, nargs="+", default=[1000, 3000, 10_000])
    parser.add_argument("--out", type=Path, help="a JSON file for all numbers")
    parser.add_argument("--folder", type=Path, help="an empty folder to work in, which is kept")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"

    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        results = []
        for num_entries in sorted(arguments.entries):
            results.append(measure(num_entries, folder))
            report(results, arguments.out)


def report(results: list[dict], out: Path | None) -> None:
    """Prints what was measured so far, and writes it."""
    exponents = fit(results)
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "",
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    if out:
        measured = {"processor": processor, "commit": commit, "sizes": results}
        text = json.dumps(rounded(measured | {"exponents": exponents}), indent=1)
        out.write_text(text + "\n")
    print(table(results, exponents))
    for result in results:
        added, plan, finished = (result[n] for n in ("added", "planning", "planning_finished"))
        overhead = sum(stage["snakemake_core_s"] for stage in result["stages"].values())
        jobs = sum(stage["jobs"] for stage in result["stages"].values())
        print(
            f"\n{result['entries']:,} entries: planning takes {plan['core_s']:.1f} core-seconds "
            f"({plan['wall_s']:.1f} s), {finished['core_s']:.1f} when all is done; Snakemake took "
            f"{overhead:.0f} core-seconds for {jobs} jobs; {added['entries']} more entries fall "
            f"into {added['shards']} of {added['of']} shards: {added['jobs']}"
        )
    for sentence in broken(results, exponents):
        print(f"\nTarget missed: {sentence}.")


if __name__ == "__main__":
    main()
