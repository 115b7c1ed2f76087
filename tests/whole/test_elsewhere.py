"""The workflow away from its checkout: any folder, another workflow, a project, a report."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers.workflow_run import ROOT, TINY
from qfitlatent import cli
from qfitlatent.base import config
from qfitlatent.base.project import workflow_home


def snakemake(folder: Path, *arguments: str) -> str:
    """What is printed by a call in this folder that must succeed."""
    environment = {n: v for n, v in os.environ.items() if not n.startswith("SNAKEMAKE")}
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_it_runs_from_any_folder_with_the_defaults(tmp_path):
    printed = snakemake(tmp_path, "-s", str(ROOT / "Snakefile"), "-n", "train")
    assert "train_model" in printed
    assert str(tmp_path) in printed
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == [
        "results"
    ]


def test_it_is_a_module_of_another_workflow(tmp_path):
    """Jobs get the configuration of the module, under names of the other's choice."""
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"chi": TINY, "other": [1, 2]}))
    (tmp_path / "Snakefile").write_text(f'''
configfile: "own.yaml"

module qfitlatent:
    snakefile: "{ROOT}/Snakefile"
    config: config["chi"]

use rule * from qfitlatent as chi_*

rule own:
    default_target: True
    input: rules.chi_split_entries.output
    output: "own.txt"
    shell: "echo {{input}} > {{output}}"
''')
    snakemake(tmp_path, "--cores", "1", "own.txt")
    assert (tmp_path / "own.txt").read_text().strip() == "results/data/tiny/split.parquet"
    assert "chi_evaluate_model" in snakemake(tmp_path, "-n", "chi_all")


def test_a_project_folder_is_laid_out_and_runs(tmp_path, capsys):
    folder = tmp_path / "project"
    assert cli.main(["workflow", str(folder)]) == 0
    written = {Path(line) for line in capsys.readouterr().out.splitlines()[:-1]}
    assert written == {path for path in folder.rglob("*") if path.is_file()}
    assert config.load(folder / "config.yaml") == config.load()
    (folder / "mine.yaml").write_text(yaml.safe_dump(TINY))
    printed = snakemake(folder, "-n", "train", "--configfile", "mine.yaml")
    assert "profiles/default" in printed
    assert "results/runs/tiny/model.safetensors" in printed
    # Nothing of the user's is written over.
    (folder / "config.yaml").write_text("seed: 5\n")
    assert cli.main(["workflow", str(folder)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (folder / "config.yaml").read_text() == "seed: 5\n"


def test_the_installed_package_holds_the_workflow():
    """As data files of the wheel; tools/check_dist.py looks into the wheel itself."""
    assert workflow_home() == ROOT
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    lists = text.split("[tool.setuptools.data-files]\n")[1].split("\n\n")[0]
    listed = set()
    for line in lists.splitlines():
        target, _, patterns = line.partition(" = ")
        for pattern in json.loads(patterns):
            found = list(ROOT.glob(pattern))
            assert {f.parent for f in found} == {ROOT / target.strip('"').removeprefix("share/qfitlatent").strip("/")}  # fmt: skip # noqa: E501
            listed |= set(found)
    wanted = [p for part in ("workflow", "envs", "profiles") for p in (ROOT / part).rglob("*.*")]
    wanted = {p for p in wanted if p.is_file() and p.suffix != ".pyc"}
    assert listed == wanted | {ROOT / "Snakefile"}


def test_the_catalog_entry_says_what_is_so():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["software-stack-deployment"] == {"conda": True}
    rules = "".join(path.read_text() for path in ROOT.glob("workflow/rules/*.smk"))
    assert usage["report"] == ("report(" in rules)
    assert "conda:" in rules


@pytest.mark.slow
def test_a_finished_run_says_where_everything_is_and_makes_a_report(finished):
    printed = finished.run("--forcerun", "describe_results")
    assert "report: results/runs/tiny/evaluation/report.html" in printed
    assert "tables: results/data/tiny/tables" in printed
    assert "nats per residue with altlocs" in printed
    finished.run("--report", "report.zip")
    assert (finished.folder / "report.zip").stat().st_size > 10_000


def test_every_item_of_the_report_has_labels_and_a_caption_that_exists():
    rules = [path.read_text() for path in sorted(ROOT.glob("workflow/rules/*.smk"))]
    items = [part for text in rules for part in re.split(r"\breport\(", text)[1:]]
    assert len(items) == 4
    for item in items:
        body = item.split("category=")[0]
        caption = body.split('caption="../')[1].split('"')[0]
        assert (ROOT / "workflow" / caption).is_file()
        assert "labels=" in item.split("category=")[1][:200]
        assert "multiext" not in body, "one picture a figure"
    assert 'report: "workflow/report/workflow.rst"' in (ROOT / "Snakefile").read_text()
