"""The command line: help at once, one sentence for a mistake, and what each small command does."""

import subprocess
import sys

import pytest
import yaml

from qfitlatent import cli
from qfitlatent.base import config


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for command in cli.COMMANDS:
        assert command.name in shown
        with pytest.raises(SystemExit):
            cli.main([command.name, "--help"])


def test_help_imports_nothing_heavy():
    code = (
        "import sys, qfitlatent.cli as c; c.build_parser(); "
        "print({'torch', 'pandas', 'gemmi', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


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
