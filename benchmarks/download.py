"""Throughput of the download stage against a local server that answers after 20 ms.

Three ways to bring the same files, interleaved in each round, each into an empty folder:

* loop: one `requests` session, one file after the other, written as it is and never checked:
  what a script of ten lines does;
* one connection: this project's client, everything checked, flushed to disk and logged;
* eight connections: the same.

With --overlap the workflow itself downloads and preprocesses shards from that server, and the share
of preprocessing that was done before the last download is printed; 1 if there was none.

The server is a process of its own. Prints a table and writes it as JSON with --out; exits with 1
if eight connections are less than 6 times as fast as the loop.
"""

import argparse
import io
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers.archive_server import ArchiveServer, gzipped, mmcif
from qfitlatent.archive.client import download_entries
from qfitlatent.archive.entries import EntryRef
from qfitlatent.base import config

TARGET = 6.0


def serve(ids: list[str], num_atoms: int, latency_s: float, pipe) -> None:
    files = {f"/{entry}.cif.gz": gzipped(mmcif(entry, num_atoms)) for entry in ids}
    with ArchiveServer(files, latency_s) as server:
        pipe.send((server.template, sum(map(len, files.values()))))
        pipe.recv()


def loop(ids: list[str], template: str, folder: Path) -> None:
    with requests.Session() as session:
        for entry in ids:
            answer = session.get(template.format(id=entry), timeout=30)
            answer.raise_for_status()
            (folder / f"{entry}.cif.gz").write_bytes(answer.content)


def client(ids: list[str], template: str, folder: Path, connections: int) -> None:
    settings = config.load()["download"] | {
        "rcsb_url": template,
        "status_url": None,
        "connections": connections,
        "attempts": 3,
    }
    refs = [EntryRef(entry) for entry in ids]
    log = download_entries(refs, "rcsb", settings, folder, folder / "log", stream=io.StringIO())
    if log.column("reason").null_count != len(ids):
        raise SystemExit("files are missing: the measurement means nothing")


def overlap(ids: list[str], template: str, folder: Path, num_shards: int) -> float:
    """Share of shards whose tables were there before the log of the last download."""
    (folder / "ids.txt").write_text("\n".join(ids))
    settings = {
        "dataset": "overlap",
        "results_dir": str(folder / "results"),
        "entries": {"source": "rcsb", "list": str(folder / "ids.txt"), "shards": num_shards},
        "download": {"rcsb_url": template},
    }
    (folder / "config.yaml").write_text(json.dumps(settings))
    data = folder / "results" / "data" / "overlap"
    targets = [data / "shards" / f"{i:03d}" / "entries.parquet" for i in range(num_shards)]
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--quiet", "all"]
    command += ["--directory", str(folder), "--snakefile", str(ROOT / "Snakefile")]
    command += ["--workflow-profile", str(ROOT / "profiles" / "default")]
    command += ["--configfile", str(folder / "config.yaml"), "--", *map(str, targets)]
    subprocess.run(command, check=True)
    last = max(path.stat().st_mtime for path in (data / "download").iterdir())
    return sum(path.stat().st_mtime < last for path in targets) / num_shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--atoms", type=int, default=2000, help="atoms in a file")
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overlap", type=int, metavar="SHARDS", help="run the workflow instead")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    options = parser.parse_args()

    ids = [f"{i // 36**2 % 10}{i % 36**2:03x}" for i in range(options.files)]
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(
        target=serve, args=(ids, options.atoms, options.latency_ms / 1000, there), daemon=True
    )
    server.start()
    template, num_bytes = here.recv()
    if options.overlap:
        with tempfile.TemporaryDirectory() as folder:
            share = overlap(ids, template, Path(folder), options.overlap)
        here.send("done")
        server.join()
        print(f"{share:.0%} of {options.overlap} shards were preprocessed before the last download")
        sys.exit(share == 0)
    ways = {
        "loop": loop,
        "one connection": lambda *args: client(*args, connections=1),
        "eight connections": lambda *args: client(*args, connections=8),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                way(ids, template, Path(folder))
                seconds[name].append(time.perf_counter() - start)
    here.send("done")
    server.join()

    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{options.files} files, {num_bytes / 1e6:.1f} MB, {options.latency_ms:g} ms latency")
    for name, value in median.items():
        rate = options.files / value
        print(f"{name:18} {value:7.2f} s {rate:7.1f} files/s {median['loop'] / value:6.2f} x loop")
    # Rounds are compared with themselves: a busy machine slows all ways of a round alike.
    ratio = statistics.median(
        a / b for a, b in zip(seconds["loop"], seconds["eight connections"], strict=True)
    )
    print(f"eight connections against the loop: {ratio:.2f} x (target {TARGET:g} x)")
    if options.out:
        result = {"seconds": seconds, "ratio": ratio, "files": options.files, "bytes": num_bytes}
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(ratio < TARGET)


if __name__ == "__main__":
    main()
