"""What counts as a change of code, what a manifest holds, and what the log of a job says."""

import ast
import json
import shutil
import subprocess
import sys

import pytest

from qfitlatent.base import provenance
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json, sha256_file, write_json
from qfitlatent.base.job import job
from qfitlatent.base.models import shipped_model_path


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in place of ours: a -> b -> data, c alone."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.json").write_text("{}")
    (tmp_path / "a.py").write_text("from qfitlatent import b\n\nX = b.Y\n")
    (tmp_path / "b.py").write_text(
        '"""Words."""\ndef f():\n    """More words."""\n    return "table.json"\n'
    )
    (tmp_path / "c.py").write_text("Z = 1\n")
    monkeypatch.setattr(provenance, "PACKAGE_DIR", tmp_path)

    def digest(root="qfitlatent.a"):
        provenance._digest_of_file.cache_clear()
        return provenance.code_digest([root])

    yield tmp_path, digest
    provenance._digest_of_file.cache_clear()


def test_comments_docstrings_and_layout_do_not_count(package):
    folder, digest = package
    before = digest()
    (folder / "b.py").write_text(
        '"""Other words."""\n# why\ndef f( ):\n\n    return (\n        "table.json")  # that\n'
    )
    assert digest() == before


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.py", "from qfitlatent import b\n\nX = b.Y + 1\n"),
        ("b.py", 'def f():\n    return "table.json", 1\n'),
        ("data/table.json", "[]"),
    ],
)
def test_code_imported_code_and_data_count(package, file, text):
    folder, digest = package
    before = digest()
    (folder / file).write_text(text)
    assert digest() != before


def test_the_description_of_a_column_does_not_count_and_the_rest_does(package):
    folder, digest = package

    def of(column):
        (folder / "b.py").write_text(f"Y = {column}\n")
        return digest()

    before = of("Column('chi', F32, True, 'rad', 'words')")
    assert of("Column('chi', F32, True, 'rad', f'other {words}')") == before
    assert of("Column('chi', F32, True, 'rad', description='other')") == before
    assert of("Column('chi', F32, True, 'degree', 'words')") != before
    assert of("Column('chi', F32, False, 'rad', 'words')") != before
    assert of("Row('chi', F32, True, 'rad', 'words')") != of(
        "Row('chi', F32, True, 'rad', 'other')"
    )


def test_what_a_template_includes_counts(package):
    folder, digest = package
    pages = folder / "data" / "pages"
    pages.mkdir()
    (pages / "a.html.j2").write_text("{% extends 'base.html.j2' %}")
    (pages / "base.html.j2").write_text("one")
    (folder / "b.py").write_text("Y = 'pages/a.html.j2'\n")
    before = digest()
    (pages / "base.html.j2").write_text("two")
    assert digest() != before


def test_the_doors_of_the_rooms_hold_no_code():
    """Imports are followed to the files of a room, not to its ``__init__.py``."""
    for path in sorted(provenance.PACKAGE_DIR.glob("*/**/__init__.py")):
        (statement,) = ast.parse(path.read_text()).body
        assert isinstance(statement, ast.Expr), path
        assert isinstance(statement.value.value, str), path


def test_code_that_is_not_imported_does_not_count(package):
    folder, digest = package
    before = digest()
    (folder / "c.py").write_text("Z = 2\n")
    assert digest() == before


@pytest.mark.parametrize(
    "line",
    ["import qfitlatent.c", "from qfitlatent.c import Z", "from . import c", "from .c import Z"],
)
def test_every_form_of_import_is_followed(package, line):
    folder, digest = package
    (folder / "a.py").write_text(f"def late():\n    {line}\n")
    before = digest()
    (folder / "c.py").write_text("Z = 2\n")
    assert digest() != before


def test_a_script_is_known_by_its_name_not_its_folder(package, tmp_path):
    _, digest = package
    digests = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        script = tmp_path / folder / "do.py"
        script.write_text("from qfitlatent.a import X\n")
        digests.append(digest(script))
    # Scripts below the replaced package folder would be named by path: ours lie elsewhere.
    assert len(digests[0]) == 16


def test_scripts_of_the_workflow_reach_the_package():
    from pathlib import Path

    scripts = Path(__file__).parents[2] / "workflow" / "scripts"
    digests = {path.stem: provenance.code_digest([path]) for path in scripts.glob("*.py")}
    assert len(set(digests.values())) == len(digests)


def test_unknown_code_is_an_error():
    with pytest.raises(QfitLatentError, match=r"no code qfitlatent\.absent"):
        provenance.code_digest(["qfitlatent.absent"])


def write_run(folder):
    (folder / "run").mkdir()
    table, model = folder / "table", folder / "run" / "model.safetensors"
    table.write_bytes(b"rows")
    model.write_bytes(b"weights")
    record = provenance.manifest(
        code=["qfitlatent.base.files"],
        inputs={"table": table},
        outputs={"model.safetensors": model},
        seeds={"train": 1},
        wall_time_s=1.23456,
        threads=2,
    )
    write_json(folder / "run" / "manifest.json", record)
    return record


def test_manifest_holds_what_explains_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = write_run(tmp_path)
    assert record["inputs"]["table"]["path"] == "table"
    assert record["inputs"]["table"]["num_bytes"] == 4
    assert len(record["outputs"]["model.safetensors"]["sha256"]) == 64
    assert record["wall_time_s"] == 1.235
    assert record["threads"] == 2
    assert record["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["hardware"]["num_cores"] >= 1
    assert set(record["git"]) == {"commit", "dirty"}
    assert json.loads(json.dumps(record)) == record


def test_git_state_is_that_of_the_packages_own_checkout(tmp_path, monkeypatch):
    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True)

    copy = tmp_path / "provenance.py"
    shutil.copy(provenance.__file__, copy)
    monkeypatch.setattr(provenance, "PACKAGE_DIR", tmp_path)
    monkeypatch.setattr(provenance, "__file__", str(copy))
    git("init")
    git("commit", "--allow-empty", "-m", "one")
    assert provenance.git_state() == {"commit": None, "dirty": None}  # not part of that repository
    git("add", ".")
    git("commit", "-m", "two")
    state = provenance.git_state()
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    copy.write_text("changed")
    assert provenance.git_state()["dirty"] is True


def test_verify_names_what_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path)
    assert provenance.verify_run("run") == []
    (tmp_path / "run" / "model.safetensors").write_bytes(b"other")
    (tmp_path / "table").write_bytes(b"more rows")
    problems = provenance.verify_run("run")
    assert [problem.split(" has")[0] for problem in problems] == ["table", "run/model.safetensors"]
    (tmp_path / "run" / "model.safetensors").unlink()
    assert "run/model.safetensors is missing." in provenance.verify_run("run")
    (tmp_path / "table").unlink()  # inputs may be gone where a run was copied away
    assert len(provenance.verify_run("run")) == 1
    (tmp_path / "run" / "manifest.json").write_text("[]")
    with pytest.raises(QfitLatentError, match="not a manifest"):
        provenance.verify_run("run")
    with pytest.raises(QfitLatentError, match=r"holds no manifest\.json"):
        provenance.verify_run(tmp_path)


def test_a_job_logs_everything_and_shows_progress_and_sentences(tmp_path, capfd):
    log_path = tmp_path / "logs" / "job.log"
    with job("work", log_path) as log:
        print("from python")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
        print("half way", file=log)
    text = log_path.read_text()
    assert [line in text for line in ("from python", "from a child", "half way")] == [True] * 3
    shown = capfd.readouterr()
    assert shown.err == "work: half way\n"
    assert shown.out == ""

    with pytest.raises(SystemExit) as caught, job("work", log_path):
        raise QfitLatentError("The table is empty: fill it.")
    assert caught.value.code == 1
    assert "work: The table is empty: fill it." in capfd.readouterr().err
    assert "Traceback" not in log_path.read_text()

    with pytest.raises(ZeroDivisionError), job("work", log_path):
        1 / 0  # noqa: B018
    assert "Traceback" in log_path.read_text()
    print("after")
    assert capfd.readouterr().out == "after\n"


def test_the_shipped_model_is_what_its_manifest_says():
    folder = shipped_model_path().parent
    written = read_json(folder / "manifest.json")["outputs"]
    for name in ("model.safetensors", "config.yaml", "metrics.csv"):
        assert sha256_file(folder / name) == written[name]["sha256"], name
    for name in ("MODEL_CARD.md", "DATASET_CARD.md", "learning_curve.svg"):
        assert (folder / name).stat().st_size > 500, name
    scores = read_json(folder / "scores.json")["populations"]
    model = scores["all"]["methods"]["model"]["nll"]["value"]
    assert model < scores["all"]["methods"]["backbone_library"]["nll"]["value"]
    assert (folder / "model.safetensors").stat().st_size < 20_000_000
