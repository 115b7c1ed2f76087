"""The command line: help at once, one sentence for a mistake, and what each small command does."""

import os
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import qfitlatent
from helpers.predictions import make_model
from qfitlatent import cli
from qfitlatent.base import config
from qfitlatent.prediction.commands import EXAMPLE
from qfitlatent.tables.schemas import SCHEMAS


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for command in cli.COMMANDS:
        assert command.name in shown
        with pytest.raises(SystemExit):
            cli.main([command.name, "--help"])


SLOW = (
    "torch",
    "numpy",
    "pyarrow",
    "pandas",
    "gemmi",
    "yaml",
    "jsonschema",
    "matplotlib",
    "jinja2",
)


def imported_by(code: str) -> set[str]:
    """All modules that are there after the code has run in a fresh interpreter."""
    tell = f"{code}\nimport sys\nprint('MODULES', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", tell], capture_output=True, text=True, check=True)
    return set(done.stdout.split("MODULES")[1].split())


def test_help_and_the_package_import_nothing_slow():
    """What a user waits for is counted in modules, which do not depend on the machine."""
    assert not imported_by("import qfitlatent") & {*SLOW, "qfitlatent.cli", "dataclasses"}
    shown = imported_by(
        "import qfitlatent.cli as c\ntry:\n    c.main(['--help'])\nexcept SystemExit: pass"
    )
    assert not shown & set(SLOW)
    assert len({name for name in shown if name.startswith("qfitlatent")}) < 12


def test_a_prediction_imports_neither_a_compiler_nor_pandas(tmp_path):
    """torch's compiler and sympy take longer than all else between a command and its result."""
    words = ["predict", str(EXAMPLE), "-o", str(tmp_path), "--model", str(make_model(tmp_path))]
    shown = imported_by(
        f"import sys, qfitlatent.cli as c\nsys.argv[1:] = {[*words, '--threads', '1']!r}\nc.main()"
    )
    assert not shown & {
        "torch._dynamo",
        "torch._inductor",
        "sympy",
        "scipy",
        "matplotlib",
        "pandas",
    }
    assert not {name for name in shown if name.startswith("qfitlatent.training")}


def test_a_mistake_is_one_sentence_and_status_2(capsys, tmp_path):
    assert cli.main(["verify", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"qfitlatent: {tmp_path} holds no manifest.json")
    assert shown.err.count("\n") == 1


def test_module_and_unknown_command():
    done = subprocess.run(
        [sys.executable, "-m", "qfitlatent", "guess"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "invalid choice: 'guess'" in done.stderr


def test_config_shows_defaults_and_what_a_file_changes(capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train: {epochs: 3}\n")
    assert cli.main(["config", str(path)]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == config.load(path)
    assert cli.main(["config", "--table"]) == 0
    assert capsys.readouterr().out.strip() == config.option_table()


def test_simulate_writes_entries_and_their_truth(capsys, tmp_path):
    assert cli.main(["simulate", "-n", "2", "-o", str(tmp_path)]) == 0
    assert "2 simulated entries" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.glob("*.cif.gz")) == [
        "sim00000.cif.gz",
        "sim00001.cif.gz",
    ]
    assert len(list((tmp_path / "truth").glob("*.parquet"))) == 2


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    command = f"{sys.executable} -m qfitlatent config | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] in ("0", "141")
    assert "Traceback" not in done.stderr


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"qfitlatent {qfitlatent.__version__}\n"


def test_public_names_are_there_and_the_import_is_light():
    for name in qfitlatent.__all__:
        assert getattr(qfitlatent, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        qfitlatent.absent  # noqa: B018
    code = (
        "import sys, qfitlatent; dir(qfitlatent); print(sorted("
        "{'torch', 'numpy', 'pandas', 'gemmi', 'pyarrow', 'yaml', 'argparse'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


NO_TEXT = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_a_terminal_without_unicode_and_odd_names_are_no_traceback(tmp_path):
    (tmp_path / "own.yaml").write_text('dataset: x\nresults_dir: "caf\u00e9"\n', "utf-8")
    for arguments, status in (
        (["config", str(tmp_path / "own.yaml")], 0),
        (["config", "--table"], 0),
        (["inspect", str(tmp_path / "n\u00f6.cif")], 2),
        (["describe", os.fsencode(tmp_path / "x") + b"\xff\xfe"], 2),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "qfitlatent", *arguments],
            env={**os.environ, **NO_TEXT}, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", [["config"], ["config", "--table"]])
def test_an_output_that_takes_no_more_is_a_sentence(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "qfitlatent", *arguments],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "qfitlatent: The output cannot be written: No space left on device.\n"


def test_files_that_are_not_what_they_should_be_are_sentences(capsys, tmp_path):
    """verify, describe, inspect --tables and train, each on what is none of its kind."""
    foreign, tables = tmp_path / "foreign.parquet", tmp_path / "tables"
    pq.write_table(pa.table({"entry": ["a"] * 9}), foreign)
    data = foreign.read_bytes()
    contents = [data, b"", b"text", data[: len(data) // 2], bytes(len(data))]
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("x")
    for number, content in enumerate(contents):
        tables = tmp_path / f"tables{number}"
        tables.mkdir()
        for name in SCHEMAS:
            (tables / f"{name}.parquet").write_bytes(content)
        run = tmp_path / f"run{number}"
        assert cli.main(["inspect", "a", "--tables", str(tables)]) == 2
        arguments = ["train", "--tables", str(tables), "--split", str(foreign), "--run", str(run)]
        assert cli.main(arguments) == 2
        assert not run.exists()
    for path in ("fifo", "tables0", "absent", "tables2/residues.parquet", "file/below"):
        assert cli.main(["describe", str(tmp_path / path)]) == 2
    assert cli.main(["simulate", "-n", "1", "-o", str(tmp_path / "file" / "below")]) == 2
    for path in (tmp_path / "fifo", tmp_path / "file", tmp_path):
        assert cli.main(["verify", str(path)]) == 2
    for line in capsys.readouterr().err.splitlines():
        assert line.startswith("qfitlatent: ")
        assert line.endswith(".")


MANIFESTS = [
    b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"inputs": [], "outputs": []}',
    b'{"inputs": {}, "outputs": {"a": 1}}', b'{"inputs": {}, "outputs": {"a": {}}}',
    b'{"inputs": {"b": {}}, "outputs": {}}', b'{"inputs": {"b": {"path": 1}}, "outputs": {}}',
]  # fmt: skip


@pytest.mark.parametrize("content", MANIFESTS, ids=range(len(MANIFESTS)))
def test_what_is_no_manifest_is_a_sentence(capsys, tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    assert cli.main(["verify", str(tmp_path)]) == 2
    assert "is not a manifest of this program" in capsys.readouterr().err


def test_describe_takes_csv_and_never_says_to_delete_a_file(capsys, tmp_path):
    table = tmp_path / "made.residues.csv"
    table.write_text("entry,entropy,is_built\na,1.5,true\nb,,false\n")
    assert cli.main(["describe", str(table)]) == 0
    shown = capsys.readouterr().out
    assert "2 rows, 3 columns" in shown
    assert re.search(r"^entropy +double +1 +1.5 to 1.5$", shown, re.MULTILINE)
    own = tmp_path / "mine.pdb"
    own.write_text("ATOM")
    for path in (own, tmp_path / "absent.csv", tmp_path):
        assert cli.main(["describe", str(path)]) == 2
    shown = capsys.readouterr().err
    assert f"{own} is no readable Parquet table" in shown
    assert "delete" not in shown


def test_a_device_is_refused_before_a_model_is_read(capsys, tmp_path):
    for device, words in (
        ("gpu", "must be one of auto, cpu, cuda, mps; did you mean cuda?"),
        ("mps", "There is no device mps here"),
    ):
        model = ["--model", str(tmp_path / "absent")]
        assert cli.main(["predict", "--example", "--device", device, *model]) == 2
        assert words in capsys.readouterr().err
