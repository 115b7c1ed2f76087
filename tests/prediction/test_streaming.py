"""Results come as they are there; what is stopped keeps them, and goes on where it was."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module

import pyarrow.parquet as pq
import pytest

from helpers.predictions import make_model, settings_of
from helpers.simulated import simulator
from qfitlatent.prediction import runner, score, workers
from qfitlatent.prediction.commands import EXAMPLE
from qfitlatent.prediction.forecast import Forecast
from qfitlatent.prediction.predict import predict_structures
from qfitlatent.prediction.records import Written
from qfitlatent.prediction.score import score_structures
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import entry_ids


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six simulated structures."""
    settings = simulator(num_entries=6, min_residues=12, max_residues=20)
    folder = tmp_path_factory.mktemp("structures")
    write_entries(entry_ids(settings), folder, settings, 3)
    shutil.rmtree(folder / "truth", ignore_errors=True)
    return folder


def test_the_first_result_does_not_wait_for_other_files(folder, model, tmp_path, monkeypatch):
    """The first is written before the second is read; later ones go by the batch."""
    steps = []
    read, write = workers.read_inputs, runner.write_computed

    def noted_read(items):
        steps.extend(["read"] * len(items))
        return read(items)

    def noted_write(how, item):
        steps.append("write")
        return write(how, item)

    monkeypatch.setattr(workers, "read_inputs", noted_read)
    monkeypatch.setattr(runner, "write_computed", noted_write)
    predict_structures([folder], tmp_path, model, settings_of(workers=0))
    assert steps == ["read", "write", *["read"] * 2, *["write"] * 2, *["read"] * 3, *["write"] * 3]
    assert [len(window) for window in workers.windows(range(100))] == [1, 2, 4, 8, 16, 32, 32, 5]


def test_what_a_worker_imports_is_without_torch():
    """It would take each worker two seconds of a core."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, qfitlatent.prediction.workers, qfitlatent.prediction.outputs\n"
            "print('torch' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"


def test_a_worker_has_no_pandas():
    """pyarrow would import it in each, for a fifth of a second."""
    with workers.Workers(1) as pool, pytest.raises(ModuleNotFoundError, match="without pandas"):
        pool.map(import_module, ["pandas"])()


def test_one_core_has_no_workers(monkeypatch):
    for cores, wanted in ((1, 0), (2, 1), (4, 2), (64, 8)):
        monkeypatch.setattr(workers, "num_cores", lambda cores=cores: cores)
        assert workers.num_workers(100, None) == wanted
        assert workers.num_workers(2, None) == 0
        assert workers.num_workers(2, 3) == 3


def test_an_interrupted_score_keeps_its_rows_and_goes_on(folder, model, tmp_path, monkeypatch):
    whole = tmp_path / "whole.parquet"
    score_structures([folder], whole, model, settings_of(workers=0))
    out, own, calls = tmp_path / "scores.parquet", score._score, []

    def stops(limit):
        def scored(*given):
            calls.append(given[1].entry)
            if len(calls) > limit:
                raise KeyboardInterrupt
            return own(*given)

        return scored

    monkeypatch.setattr(score, "_score", stops(3))
    with pytest.raises(KeyboardInterrupt):
        score_structures([folder], out, model, settings_of(workers=0))
    assert not out.exists()
    kept = {path.name for path in (tmp_path / "scores.parts").glob("*.scores.parquet")}
    assert 1 <= len(kept) <= 3
    monkeypatch.setattr(score, "_score", stops(100))
    calls.clear()
    results = score_structures([folder], out, model, settings_of(workers=0))
    assert len(calls) == 6 - len(kept)
    assert sum("done before" in result.notes for result in results) == len(kept)
    assert out.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "scores.parts").exists()


def test_parts_of_another_model_are_not_taken(folder, model, tmp_path, monkeypatch):
    out, own = tmp_path / "scores.parquet", score._score
    monkeypatch.setattr(score, "_join", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        score_structures([folder], out, model, settings_of(workers=0))
    monkeypatch.undo()
    calls = []
    monkeypatch.setattr(score, "_score", lambda *given: calls.append(1) or own(*given))
    other = make_model(tmp_path, "autoregressive")
    score_structures([folder], out, other, settings_of(workers=0))
    assert len(calls) == 6


def test_ctrl_c_keeps_what_is_finished_and_says_so(folder, model, tmp_path):
    """As a terminal sends it, to the program and its worker processes alike."""
    structures = tmp_path / "in"
    structures.mkdir()
    for number in range(40):
        shutil.copy(EXAMPLE, structures / f"copy{number:02d}.cif.gz")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "qfitlatent", "predict", str(structures), "-o", str(out)]
    command += ["--model", str(model), "--workers", "1", "--threads", "1"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What runs in the background of a script has the signal ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not list(out.glob("*.prediction.json")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "interrupted; what is finished is kept" in said
    finished = list(out.glob("*.prediction.json"))
    assert 1 <= len(finished) < 40
    for record in finished:
        assert (out / record.name.replace(".prediction.json", ".mixture.parquet")).exists()
    assert not list(out.glob(".*.tmp"))


def test_progress_is_told_of_one_structure_too(folder, model, tmp_path):
    stream = io.StringIO()
    path = sorted(folder.iterdir())[0]
    (result,) = predict_structures([path], tmp_path, model, stream=stream)
    (line,) = stream.getvalue().splitlines()
    assert line.startswith(f"1/1 structures, {result.num_residues} residues, ")
    table = pq.read_table(tmp_path / f"{result.entry}.mixture.parquet")
    assert len(table) > 0


def test_the_forecast_learns_from_what_files_held(tmp_path):
    paths = [tmp_path / f"{i}.cif" for i in range(4)]
    for path in paths:
        path.write_bytes(b" " * 85_000)
    forecast = Forecast(paths)
    assert forecast.residues == pytest.approx(400, rel=0.01)
    assert "4 structures of about 400 residues" in forecast.sentence()
    forecast.finished(Written("0", paths[0], num_residues=50))
    assert forecast.residues == pytest.approx(200, rel=0.01)
    forecast.finished(Written("1", paths[1], error="bad"))
    assert forecast.residues == pytest.approx(150, rel=0.01)
