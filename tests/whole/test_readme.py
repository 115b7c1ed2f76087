"""The README is one page and true: blocks, figures, targets; and the queries of docs/tables.md."""

import ast
import json
import re
import subprocess
from importlib.resources import files
from pathlib import Path

import duckdb
import numpy as np
import pytest

from helpers.evaluated import make_data_set
from qfitlatent.base import config
from qfitlatent.dataset.audit import make_audit

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
METHODS = ("type_library", "backbone_library", "model")
SHOWN = (
    ("multiconformer", "nll"),
    ("single", "nll"),
    ("single", "chi1_within_20"),
    ("single", "all_within_20"),
    ("multiconformer", "recall"),
)
"""Rows of the table of figures: population and figure in the shipped scores."""


def section(title):
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.M | re.S)
    assert found, f"no section {title}"
    return found.group(1)


def test_quick_start_holds_exactly_two_bash_blocks():
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", section("Quick start"), re.M | re.S)
    assert [language for language, _ in blocks] == ["bash", "bash"]
    for _, block in blocks:
        assert "python3 -m venv" in block, "each block works alone"
        assert "-c constraints.txt" in block
    assert "snakemake --cores" in blocks[0][1]
    assert "pytest" in blocks[1][1]


def test_ci_runs_the_second_block():
    script = (ROOT / ".ci" / "run").read_text()
    program = re.search(r"awk '(.*?)' README\.md", script, re.S).group(1)
    found = subprocess.run(
        ["awk", program, ROOT / "README.md"], capture_output=True, text=True, check=True
    ).stdout
    assert found == re.findall(r"^```bash\n(.*?)^```$", section("Quick start"), re.M | re.S)[1]


def test_it_is_one_page():
    assert len(README.encode()) <= 8000


def test_figures_are_those_of_the_shipped_model():
    scores = json.loads((files("qfitlatent") / "data/pretrained/scores.json").read_text("utf-8"))
    table = section("How good it is").split("\n|---")[1]
    cell = re.compile(r"([\d.]+)( %)? \(([\d.]+) to ([\d.]+)\)")
    rows = [found for row in table.splitlines() if (found := cell.findall(row))]
    assert len(rows) == len(SHOWN)
    for (population, figure), cells in zip(SHOWN, rows, strict=True):
        methods = scores["populations"][population]["methods"]
        for method, (value, percent, low, high) in zip(METHODS, cells, strict=True):
            found = methods[method][figure]
            numbers = [found[name] for name in ("value", "low", "high")]
            shown = [f"{100 * x:.1f}" if percent else f"{x:.3f}" for x in numbers]
            assert [value, low, high] == shown, (figure, method)


def queries():
    """Language, the place in audit.json that the first comment names, and the text."""
    page = (ROOT / "docs" / "tables.md").read_text("utf-8")
    blocks = re.findall(r"^```(sql|python)\n(.*?)^```$", page, re.M | re.S)
    keys = [re.match(r"(?:--|#) ([\w, ]+)", text).group(1) for _, text in blocks]
    return [
        pytest.param(language, key.split(", "), text, id=key)
        for key, (language, text) in zip(keys, blocks, strict=True)
    ]


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A small simulated data set and the numbers of its audit."""
    folder = tmp_path_factory.mktemp("audited")
    tables, split, _ = make_data_set(folder, num_entries=16)
    make_audit(tables, split, folder / "audit")
    return folder, json.loads((folder / "audit" / "audit.json").read_text())


def test_there_are_five_queries():
    assert len(queries()) == 5


@pytest.mark.parametrize(("language", "key", "text"), queries())
def test_queries_give_the_numbers_of_the_audit(audited, monkeypatch, language, key, text):
    folder, audit = audited
    monkeypatch.chdir(folder)
    expected = audit[key[0]]
    if language == "python":
        found = {}
        exec(text, found)
        assert np.sum(expected[key[1]]) > 10
        np.testing.assert_allclose(found["density"], expected[key[1]], atol=1e-3)
        return
    rows = duckdb.sql(text).fetchall()
    assert rows
    if key[0] == "rejected":
        expected = [(r["stage"], r["scope"], r["reason"], r["rows"]) for r in expected]
    elif key[0] == "split":
        expected = [(name, numbers[key[1]]) for name, numbers in sorted(expected.items())]
    elif "edges" in expected:
        bins = zip(expected["edges"][:-1], expected["counts"], strict=True)
        expected = [(edge, count) for edge, count in bins if count]
    else:
        expected = [(int(value), count) for value, count in expected.items()]
    assert rows == expected


def test_targets_exist():
    targets = set(re.findall(r"^rule (\w+):", (ROOT / "Snakefile").read_text(), re.M))
    named = set(re.findall(r"^\| .*?`(\w+)`", section("What each target makes"), re.M))
    assert named == targets


def test_rule_graph_shows_every_rule():
    picture = (ROOT / "docs" / "rulegraph.svg").read_text()
    for name in ("simulate_entries", "preprocess_entries", "train_model", "evaluate_model"):
        assert f">{name}</text>" in picture


def test_constraints_pin_every_dependency():
    pinned = {
        line.split("==")[0].lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    project = (ROOT / "pyproject.toml").read_text()
    lists = re.search(r"^dependencies = \[(.*?)^\]", project, re.S | re.M).group(1)
    extras = "test|dev|docs|slurm|tensorboard|trajectories"
    lists += "".join(re.findall(rf"^(?:{extras}) = \[(.*?)\]", project, re.S | re.M))
    names = {name.lower() for name in re.findall(r'"([A-Za-z0-9_-]+)>=', lists)}
    assert names - pinned == set()
    assert "torch" in names


def test_the_advice_for_machines_without_a_gpu_has_the_pinned_version():
    (pin,) = re.findall(r"^torch==.*", (ROOT / "constraints.txt").read_text(), re.M)
    for page in ("README.md", "docs/systems.md"):
        assert f"pip install {pin} --index-url" in (ROOT / page).read_text("utf-8")


def test_a_profile_asks_only_for_what_an_index_has():
    """This package is on none; its own checkout is installed."""
    for path in ROOT.glob("profiles/*/config.yaml"):
        assert not re.findall(r"pip install '?qfitlatent", path.read_text("utf-8")), path


def test_an_example_that_changes_the_learning_rate_changes_it():
    default = config.load()["train"]["learning_rate"]
    for path in ROOT.glob("docs/*.md"):
        shown = re.findall(r"`train: \{learning_rate: ([\d.e-]+)\}`", path.read_text("utf-8"))
        assert all(float(rate) != default for rate in shown), path


TOOLS = [path for path in sorted(ROOT.glob("tools/*.py")) if "sys.argv" in path.read_text("utf-8")]


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.name)
def test_a_tool_without_arguments_says_how_to_call_it(path):
    assert ast.get_docstring(ast.parse(path.read_text("utf-8"))).count(f"python tools/{path.name}")
    assert re.search(
        r"if len\(sys.argv\) (!=|<) \d:\n +sys.exit\(__doc__\)", path.read_text("utf-8")
    )
