"""Runs the workflow in a copy of this checkout, as a user would in a clone."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "config.yaml", "workflow", "profiles", "envs", "experiments", "src")

TINY = {
    "dataset": "tiny",
    "run": "tiny",
    "entries": {"shards": 2},
    "simulate": {"num_entries": 16, "num_families": 8, "min_residues": 30, "max_residues": 40},
    "split": {"fractions": {"train": 0.6, "validation": 0.2, "test": 0.2}, "method": "builtin"},
    "model": {"d_s": 16, "d_z": 4, "num_blocks": 1, "num_heads": 2, "num_components": 2},
    "train": {"epochs": 2, "device": "cpu"},
    "evaluate": {
        "bootstrap_samples": 100,
        "num_samples": 32,
        "baselines": ["uniform", "type_library"],
        # The tutorial's blocks, which run in the tests, predict models.
        "predicted_entries": 0,
    },
}
"""A configuration that goes through every stage in seconds."""


class Checkout:
    """A copy of the workflow and the package in a folder of its own."""

    timeout_s = 3600
    """Ends what hangs; on a busy machine a run that takes seconds may take minutes."""

    def __init__(self, folder: Path, config: dict) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(source, folder / part, ignore=ignored)
            else:
                shutil.copy(source, folder / part)
        self.write_config(config)

    def write_config(self, config: dict) -> None:
        (self.folder / "own.yaml").write_text(yaml.safe_dump(config))

    def change_config(self, section: str, **values: object) -> None:
        config = yaml.safe_load((self.folder / "own.yaml").read_text())
        config.setdefault(section, {}).update(values)
        self.write_config(config)

    def start(self, *arguments: str, cores: int | None = 1) -> subprocess.Popen:
        """Snakemake as a process group of its own; cores None leaves them to the profile."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("SNAKEMAKE")
        }
        environment.pop("PYTHONPATH", None)
        # --cores last: --configfile would take a target for a second file.
        command = [sys.executable, "-m", "snakemake", "--configfile", "own.yaml"]
        limit = [] if cores is None else ["--cores", str(cores)]
        return subprocess.Popen(
            [*command, *limit, *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def snakemake(self, *arguments: str, cores: int | None = 1) -> subprocess.CompletedProcess:
        process = self.start(*arguments, cores=cores)
        try:
            out, err = process.communicate(timeout=self.timeout_s)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run(self, *arguments: str, cores: int | None = 1) -> str:
        """Runs to the end, and returns what was printed."""
        done = self.snakemake(*arguments, cores=cores)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return done.stdout + done.stderr

    def plan(self, *arguments: str) -> dict[str, int]:
        """Jobs that would run, by rule; targets and their total left out."""
        printed = self.run("-n", *arguments)
        if "Nothing to be done" in printed:
            return {}
        table = printed.split("Job stats:")[1].split("total")[0]
        rows = [line.split() for line in table.splitlines()]
        return {
            row[0]: int(row[1])
            for row in rows
            if len(row) == 2 and row[1].isdigit() and "_" in row[0]
        }

    def refused(self, *arguments: str) -> str:
        """What is printed when the run must fail."""
        done = self.snakemake(*arguments)
        assert done.returncode != 0, done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())
