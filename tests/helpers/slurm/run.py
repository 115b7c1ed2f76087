"""The pipeline through profiles/slurm on a real Slurm, against a local run, byte for byte.

    python tests/helpers/slurm/run.py [--config own.yaml] [--folder FOLDER]

Starts a cluster of one node on this machine (cluster.sh: root, Debian or Ubuntu), runs the workflow
to the trained model through the profile as it stands, and again without Slurm. On the cluster one
job fails once, and others exceed the memory that they asked for (sitecustomize.py); both must pass
when they are repeated. Without ``--config`` the default experiment runs, which takes its time.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "tests")]

from helpers.workflow_run import Checkout  # noqa: E402

CLUSTER = Path(__file__).with_name("cluster.sh")
SHORT_WAITS = (
    "--slurm-init-seconds-before-status-checks=2",
    "--seconds-between-status-checks=2",
    "--latency-wait=10",
)
"""The profile's are for a cluster of many users and a slow file system."""
FIRST_MEMORY_MB, GREEDY_MB = 1000, 1200
"""What preprocess_entries asks for at its first attempt here, and what its script then takes."""
COMPARED = (
    "data/*/tables/*.parquet",
    "data/*/split.parquet",
    "data/*/download.parquet",
    "data/*/simulated/**/*.cif.gz",
    "runs/*/model.safetensors",
    "runs/*/config.yaml",
)


def start_cluster() -> None:
    """One node, idle.

    Raises subprocess.CalledProcessError: it cannot be started; the output says why.
    """
    subprocess.run([str(CLUSTER), "start"], check=True)


def stop_cluster() -> None:
    subprocess.run([str(CLUSTER), "stop"], check=True)


def run_on_slurm(checkout: Checkout, *targets: str) -> str:
    """What Snakemake printed; some jobs fail or are killed on the way."""
    trouble = Path(__file__).with_name("sitecustomize.py").read_text()
    (checkout.folder / "src" / "sitecustomize.py").write_text(trouble)
    os.environ["QFITLATENT_TEST_GREEDY_MB"] = str(GREEDY_MB)
    checkout.timeout_s = 2400  # three Python processes start for every job
    return checkout.run(
        "--workflow-profile=profiles/slurm",
        *SHORT_WAITS,
        "--max-threads=1",
        f"--set-resources=preprocess_entries:mem_mb={FIRST_MEMORY_MB}*attempt",
        "--",
        *targets,
        cores=None,
    )


def run_locally(checkout: Checkout, *targets: str) -> str:
    return checkout.run("--max-threads=1", "--", *targets)


def digests(folder: Path) -> dict[str, str]:
    """sha256 of everything that must not depend on where it was made."""
    results = folder / "results"
    files = sorted({path for pattern in COMPARED for path in results.glob(pattern)})
    return {
        path.relative_to(results).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def attempts(printed: str, rule: str) -> list[int]:
    """mem_mb of each submission of the rule, in the order of the log."""
    blocks = re.findall(rf"^rule {rule}:\n((?:    .*\n)+)", printed, re.MULTILINE)
    return [int(re.search(r"\bmem_mb=(\d+)", block)[1]) for block in blocks]


def killed_for_memory(folder: Path) -> list[Path]:
    """Slurm's logs of jobs that took more memory than they had asked for."""
    logs = (folder / ".snakemake" / "slurm_logs").rglob("*.log")
    return [path for path in logs if "memory limit" in path.read_text(errors="replace")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, help="a YAML file that changes the default one")
    parser.add_argument("--folder", type=Path, help="an empty folder to work in, which is kept")
    arguments = parser.parse_args()
    config = yaml.safe_load(arguments.config.read_text()) if arguments.config else {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        start_cluster()
        try:
            begin = time.monotonic()
            slurm = Checkout(folder / "slurm", config)
            printed = run_on_slurm(slurm, "train")
            seconds = time.monotonic() - begin
        finally:
            stop_cluster()
        local = Checkout(folder / "local", config)
        run_locally(local, "train")
        ours, theirs = digests(slurm.folder), digests(local.folder)
        print(f"On Slurm: {seconds:.0f} s; {printed.count('Trying to restart')} jobs repeated")
        print(f"Killed for memory: {len(killed_for_memory(slurm.folder))}")
        print(f"mem_mb of preprocess_entries: {attempts(printed, 'preprocess_entries')}")
        different = [name for name in ours.keys() | theirs if ours.get(name) != theirs.get(name)]
        print(f"{len(theirs)} files compared with a local run, {len(different)} differ")
        sys.exit(1 if different or not theirs else 0)


if __name__ == "__main__":
    main()
