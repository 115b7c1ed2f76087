"""Folders with one bad file, disks without room, broken records: the others are done."""

import errno
import gzip
import json
import os
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from helpers.predictions import TINY, dies, make_model, output_paths, settings_of
from helpers.simulated import simulator
from qfitlatent import cli
from qfitlatent.base import config, contained
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.prediction import records
from qfitlatent.prediction.predict import predict_structures
from qfitlatent.prediction.sample import embed_structures, sample_structures
from qfitlatent.prediction.score import score_structures
from qfitlatent.prediction.workers import Workers
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import entry_ids


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"), **TINY)


@pytest.fixture(scope="module")
def structure(tmp_path_factory):
    settings = simulator(num_entries=1, min_residues=20, max_residues=20, max_chains=1)
    return write_entries(entry_ids(settings), tmp_path_factory.mktemp("made"), settings, 3)[0]


@pytest.fixture
def folder(structure, tmp_path):
    """One good structure; tests put others beside it."""
    where = tmp_path / "in"
    where.mkdir()
    shutil.copy(structure, where / "good.cif.gz")
    return where


FAILURES = {
    "predict_structures": "failures",
    "score_folder": "scores.failures",
    "sample_folder": "samples.failures",
    "embed_structures": "embedding.failures",
}
"""Of each command, the name of the table and of the log of what could not be used."""


def score_folder(paths, out, model, **how):
    return score_structures(paths, out / "scores.parquet", model, **how)


def sample_folder(paths, out, model, **how):
    return sample_structures(paths, out, model, num=2, **how)


COMMANDS = [predict_structures, score_folder, sample_folder, embed_structures]


USED = ("mödel (1) [x].cif.gz", "-o.cif.gz", "{{x}}@DATA@<b>.cif.gz", "n" * 190 + ".cif.gz")
REFUSED = (
    os.fsdecode(b"bad\xff.cif.gz"), "new\nline.cif.gz", "n" * 191 + ".cif.gz", "good.pdb.gz",
    "fifo.cif", "dangling.cif",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", USED + REFUSED)
def test_any_name_is_done_or_a_line_and_the_others_are_done(
    command, name, folder, structure, model, tmp_path
):
    path, out = folder / name, tmp_path / "out"
    if name == "fifo.cif":
        os.mkfifo(path)
    elif name == "dangling.cif":
        path.symlink_to(tmp_path / "absent")
    else:
        shutil.copy(structure, path)
    shutil.copy(structure, folder / "other.cif.gz")
    results = {result.path.name: result for result in command([folder], out, model)}
    assert not results["other.cif.gz"].error
    failed = {found for found, result in results.items() if result.error}
    same = {name, "good.cif.gz"} if name == "good.pdb.gz" else {name}
    assert failed == (set() if name in USED else same)
    assert not any(result.traceback for result in results.values())
    assert not list(out.glob(".*.tmp"))
    listed = out / f"{FAILURES[command.__name__]}.csv"
    assert listed.exists() == bool(failed)
    if failed:
        table = pd.read_csv(listed)
        assert table.columns.tolist() == ["entry", "path", "reason", "error"]
        assert len(table) == len(failed)
        assert table["error"].str.len().gt(20).all()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unforeseen_error_is_a_line_and_its_traceback_is_kept(
    command, folder, structure, model, tmp_path, monkeypatch
):
    shutil.copy(structure, folder / "odd.cif.gz")
    out = tmp_path / "out"

    def reads(path, entry, read=records.read_entry):
        if path.name == "odd.cif.gz":
            raise ZeroDivisionError("one\nby none")
        return read(path, entry)

    monkeypatch.setattr(records, "read_entry", reads)
    good, odd = command([folder], out, model)
    assert not good.error
    assert odd.reason == "unexpected_error"
    assert "ZeroDivisionError: one by none" in odd.error
    name = FAILURES[command.__name__]
    assert "in reads" in (out / f"{name}.log").read_text()
    assert pd.read_csv(out / f"{name}.csv")["reason"].tolist() == ["unexpected_error"]
    monkeypatch.undo()
    assert not any(r.error for r in command([folder], out, model, overwrite=True))
    assert not list(out.glob("*failures*"))


def test_what_failed_in_one_command_is_not_replaced_by_another(folder, model, tmp_path):
    """All commands write into one folder, the last ones with nothing that fails."""
    bad, out = folder / "bad.pdb", tmp_path / "out"
    bad.write_text("no structure\n")
    for command in COMMANDS:
        command([folder], out, model)
    score_structures([folder], out / "other.parquet", model)
    names = [*FAILURES.values(), "other.failures"]
    tables = {name: (out / f"{name}.csv").read_bytes() for name in names}
    assert {path.stem for path in out.glob("*failures*")} == set(names)
    bad.unlink()
    for command in COMMANDS:
        assert {name: (out / f"{name}.csv").read_bytes() for name in tables} == tables
        command([folder], out, model, overwrite=True)
        tables.pop(FAILURES[command.__name__])
        assert {path.stem for path in out.glob("*failures*")} == set(tables)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_room_nothing_is_left_and_later_the_same_call_works(
    command, folder, structure, model, tmp_path, monkeypatch
):
    out = tmp_path / "out"

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")

    # The last step of every file: what came before has been written by then.
    monkeypatch.setattr("qfitlatent.base.files.os.fsync", full)
    with pytest.raises(QfitLatentError, match="No space left"):
        command([folder], out, model)
    assert not out.exists()
    monkeypatch.undo()
    (result,) = command([folder], out, model)
    assert not result.error


def test_results_appear_together_or_not_at_all(folder, model, tmp_path):
    out = tmp_path / "out"
    predict_structures([folder], out, model)
    before = {path: path.read_bytes() for path in out.iterdir()}
    page = out / "good.html"
    page.unlink()
    page.mkdir()
    other = settings_of(min_weight=0.5)
    with pytest.raises(QfitLatentError, match=r"good\.html: Is a directory"):
        predict_structures([folder / "good.cif.gz"], out, model, other, overwrite=True)
    page.rmdir()
    assert {p: p.read_bytes() for p in out.iterdir()} == {
        p: data for p, data in before.items() if p != page
    }


@pytest.mark.parametrize(
    "broken", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"text"', b"[" * 100_000, b"{}", b"1e999"]
)
def test_a_broken_record_means_again(broken, folder, model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    record = out / "good.prediction.json"
    record.write_bytes(broken)
    (result,) = predict_structures([folder], out, model, resume=True)
    assert not result.error
    assert json.loads(record.read_text())["num_residues"] == result.num_residues
    assert all(path.exists() for path in output_paths(out, "good"))


@pytest.mark.parametrize("command", [predict_structures, sample_folder, embed_structures])
def test_a_folder_goes_on_where_it_stopped(command, folder, structure, model, tmp_path):
    out = tmp_path / "out"
    command([folder], out, model)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    shutil.copy(structure, folder / "later.cif.gz")
    good, later = command([folder], out, model, resume=True)
    assert good.notes == ("done before",)
    assert good.num_residues == later.num_residues > 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(QfitLatentError, match="--overwrite"):
        command([folder], out, model)


def test_a_file_that_takes_too_much_is_a_line(folder, structure, model, tmp_path, monkeypatch):
    if not contained.CAN_FORK:
        pytest.skip("limits need a process that can be copied")
    # The second and the third are read by one process, until the second is stopped.
    for name in ("hung.cif", "hungry.cif"):
        (folder / name).write_bytes(gzip.decompress(structure.read_bytes()))

    def reads(path, entry, read=records.read_entry):
        if entry == "hung":
            time.sleep(60)
        return read(path, entry) if entry != "hungry" else bytearray(10**13)

    def tight(kind, section):
        return replace(config.settings(kind, section), max_seconds=3.0)

    monkeypatch.setattr(records, "read_entry", reads)
    monkeypatch.setattr(records, "settings", tight)
    out = tmp_path / "out"
    results = {r.entry: r for r in predict_structures([folder], out, model)}
    assert {entry: result.reason for entry, result in results.items()} == {
        "good": "", "hungry": "memory", "hung": "beyond_limit",
    }  # fmt: skip
    assert "3 seconds" in results["hung"].error


def test_leavings_of_a_killed_process_are_swept(folder, model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    left, fresh = out / ".good.html.1.0123abcd.tmp", out / ".good.html.2.0123abcd.tmp"
    for path in (left, fresh):
        path.write_text("x")
    os.utime(left, (1_600_000_000,) * 2)
    predict_structures([folder], out, model)
    assert not left.exists()
    assert fresh.exists()


@pytest.mark.parametrize(
    "more",
    [
        ["--workers", "-1"], ["--workers", "2000"], ["--device", "meta"], ["--device", "gpu0"],
        ["--threads", "0"], ["--threads", "100000"], ["--threads", "many"], ["--seed", "0.5"],
        ["--merge-within", "nan"], ["--merge-within", "-1"],
        ["--seed", "-1"], ["--seed", "9" * 40], ["--seed", "9" * 5000], ["--min-weight", "inf"],
    ],
)  # fmt: skip
def test_numbers_that_mean_nothing_are_one_sentence(more, folder, model, tmp_path, capsys):
    out = tmp_path / "out"
    command = "sample" if "--seed" in more else "predict"
    given = [command, str(folder), "-o", str(out), "--model", str(model), *more]
    assert cli.main(given) == 2
    shown = capsys.readouterr().err
    assert re.fullmatch(r"qfitlatent: [^\n]+\n", shown)
    assert more[0][2:].replace("-", "_")[:9] in shown.replace("-", "_")
    assert not out.exists()


@pytest.mark.parametrize("num", [0, -3, 10**9, 10**40, 200_000])
def test_draws_without_number_are_refused_before_memory_is_taken(num, folder, model, tmp_path):
    with pytest.raises(QfitLatentError, match="draws"):
        sample_structures([folder / "good.cif.gz"], tmp_path / "out", model, num=num)
    assert not (tmp_path / "out").exists()


def test_a_file_that_kills_its_worker_stops_no_others():
    items = [(Path(name),) for name in ("a", "bad", "c")]
    with Workers(1) as workers:
        waiting, more = workers.map(dies, items), workers.map(dies, items[:1])
        first, died, last = waiting()
        assert (first, died.reason, last) == ("a", "process_died", "c")
        assert more() == ["a"]
        assert workers.map(dies, items[2:])() == ["c"]
