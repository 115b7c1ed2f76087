"""Benchmarks are run by hand; here each runs once, as small as it can be, so that none decays."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.evaluated import evaluated_tiny
from qfitlatent.tables.parquet import read_table

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
EXAMPLE = Path(__file__).parents[2] / "src/qfitlatent/data/example.cif.gz"
STEP = ("--lengths", "16", "--repeats", "1", "--names", "ours", "textbook", "--no-memory")


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("attention.py", STEP, "| 16 | textbook |"),
        ("train_step.py", STEP, "| 16 | textbook |"),
        ("train_step.py", ("--against", "HEAD", "--crop", "24", "--repeats", "1"), "residues a se"),
        (
            "convergence.py",
            ("--entries", "12", "--residues", "40", "50", "--epochs", "1", "--target", "99"),
            "times faster",
        ),
        ("download.py", ("--files", "8", "--atoms", "50", "--rounds", "1"), "eight connections"),
        ("joint.py", (str(EXAMPLE), "--rows"), "| example |"),
        ("order_parameters.py", (str(EXAMPLE), "--draws", "64"), "| example | 44 |"),
        ("ensemble.py", ("--models", "2"), "| 2 |"),
        ("wrong_side_chains.py", (str(EXAMPLE), "--share", "0.5"), "| turned, another rotamer |"),
        (
            "scan.py",
            (str(EXAMPLE), "--natives", "1", "--regions", "8"),
            "| residues of the region |",
        ),
        ("score.py", ("--copies", "1", "--rounds", "1"), "| 44 |"),
        ("predict.py", ("--number", "2", "--rounds", "1", "--workers", "0"), "from start to end"),
    ],
)
def test_benchmark_runs(script, arguments, said):
    done = run(script, *arguments)
    assert said in done.stdout, done.stdout + done.stderr


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / script, *arguments], capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    return done


def test_robustness_is_measured_on_displaced_backbones_and_other_crystals(tmp_path):
    tiny = evaluated_tiny()
    entries = sorted(set(read_table(tiny.out / "scores.parquet", ["entry"])["entry"].to_pylist()))
    chains = read_table(tiny.tables / "residues.parquet", ["entry", "author_chain"]).to_pylist()
    chain = {row["entry"]: row["author_chain"] for row in reversed(chains)}
    pair = [value for entry in entries[:1] * 2 for value in (entry, chain[entry])]
    lines = ["id1,chain1,id2,chain2", ",".join(pair)]  # a crystal beside itself
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    done = run(
        "robustness.py",
        *(str(tiny.tables.parent), "--split", "test"),
        *("--pairs", str(tmp_path / "pairs.csv")),
    )
    rows = [line.split(" | ") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows[2:]] == [
        "| deposited", "| displaced by 0.2 angstrom", "| displaced by 0.5 angstrom",
        "| displaced by 1 angstrom", "| deposited, chains with another crystal",
        "| of the other crystal",
    ]  # fmt: skip
    assert rows[-1][1:] == rows[-2][1:]  # and so nothing is lost
    assert rows[5][1:] != rows[2][1:]


def test_changes_between_crystals_are_ranked(tmp_path):
    (tmp_path / "files").mkdir()
    for name in ("one", "two"):
        shutil.copy(EXAMPLE, tmp_path / f"files/{name}.cif.gz")
    (tmp_path / "pairs.csv").write_text("id1,chain1,id2,chain2\none,A,two,A\n")
    (tmp_path / "split.csv").write_text("entry,split\none,validation\n")
    given = (str(tmp_path / "files"), "--pairs", str(tmp_path / "pairs.csv"))
    done = run("structures.py", *given, "--split", str(tmp_path / "split.csv"))
    assert "1 pairs" in done.stdout, done.stderr
    assert "| predicted distance |" in done.stdout


def test_ignorance_is_held_against_the_loss():
    tiny = evaluated_tiny()
    arguments = (str(tiny.tables.parent), "--split", "test", "--number", "2", "--passes", "2")
    assert "| all | " in run("ignorance.py", *arguments).stdout
