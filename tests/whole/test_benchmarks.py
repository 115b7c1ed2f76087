"""Benchmarks are run by hand; here each runs once, as small as it can be, so that none decays."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STEP = ("--lengths", "16", "--repeats", "1", "--names", "ours", "textbook", "--no-memory")


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("attention.py", STEP, "| 16 | textbook |"),
        ("train_step.py", STEP, "| 16 | textbook |"),
        (
            "convergence.py",
            ("--entries", "12", "--residues", "40", "50", "--epochs", "1", "--target", "99"),
            "times faster",
        ),
        ("download.py", ("--files", "8", "--atoms", "50", "--rounds", "1"), "eight connections"),
        ("predict.py", ("--number", "2", "--rounds", "1", "--workers", "0"), "from start to end"),
    ],
)
def test_benchmark_runs(script, arguments, said):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / script, *arguments], capture_output=True, text=True
    )
    assert said in done.stdout, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
