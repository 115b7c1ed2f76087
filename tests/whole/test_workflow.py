"""The workflow: what reruns after which change, equal bytes in two clones, and clear refusals."""

import hashlib
import os
import re
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from helpers.archive_server import ArchiveServer, gzipped, mmcif, status
from helpers.workflow_run import ROOT, TINY, Checkout
from qfitlatent.base import config as configuration

DATA = "results/data/tiny"
RUN = "results/runs/tiny"


def digests(folder, *patterns):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in patterns
        for path in sorted(folder.glob(pattern))
    }


def test_second_run_has_nothing_to_do(finished):
    assert "Nothing to be done" in finished.run()
    assert finished.plan("download", "preprocess", "audit", "train", "evaluate") == {}


def test_all_artifacts_are_there(finished):
    data, run = finished.folder / DATA, finished.folder / RUN
    for name in ("entries", "residues", "frames", "conformers", "rejected"):
        assert (data / "tables" / f"{name}.parquet").is_file()
    for path in ("split.parquet", "download.parquet", "audit/index.html", "README.md"):
        assert (data / path).is_file(), path
    for path in (
        *("model.safetensors", "config.yaml", "manifest.json", "metrics.csv"),
        *("learning_curve.png", "learning_curve.svg", "README.md"),
        *("evaluation/metrics.json", "evaluation/report.html"),
    ):
        assert (run / path).is_file(), path
    resolved = yaml.safe_load((run / "config.yaml").read_text())
    assert resolved == configuration.load([ROOT / "config.yaml", TINY])


def test_folders_explain_what_is_in_them(finished):
    """Deeper ones, such as shards and figures, are explained by the README above them."""
    for folder in (DATA, f"{DATA}/tables", f"{DATA}/audit", RUN, f"{RUN}/evaluation"):
        text = (finished.folder / folder / "README.md").read_text()
        for path in (finished.folder / folder).iterdir():
            assert f"`{path.name}" in text or path.name == "README.md", path
    for folder in ("results", "results/logs", "results/benchmarks"):
        assert (finished.folder / folder / "README.md").is_file()


def test_every_job_left_a_log_without_control_characters(finished):
    logs = list((finished.folder / "results/logs").rglob("*.log"))
    assert len(logs) >= 10
    for path in logs:
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", path.read_text()), path


def test_each_stage_can_be_forced_alone(finished):
    jobs = finished.plan("train", "--forcerun", "train_model")
    assert jobs == {"train_model": 1}


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A second clone, for tests that run something."""
    checkout = Checkout(tmp_path_factory.mktemp("workflow") / "two", TINY)
    checkout.run("train")
    return checkout


def test_two_clones_give_the_same_bytes(finished, other):
    patterns = [f"{DATA}/tables/*.parquet", f"{DATA}/split.parquet", f"{DATA}/download.parquet"]
    patterns += [f"{DATA}/simulated/**/*.cif.gz", f"{RUN}/model.safetensors", f"{RUN}/config.yaml"]
    first, second = (digests(checkout.folder, *patterns) for checkout in (finished, other))
    assert len(first) > 20
    assert first == second


def test_training_killed_at_any_moment_resumes_to_the_same_bytes(other):
    """SIGKILL to Snakemake and all its jobs; then unlock, and the same command again."""
    models = {}
    for run in ("whole", "killed"):
        other.write_config(TINY | {"run": run, "train": TINY["train"] | {"epochs": 40}})
        folder = other.folder / "results" / "runs" / run
        if run == "killed":
            process = other.start("train")
            wait_for((folder / "state" / "last.pt").is_file)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert not (folder / "model.safetensors").exists()
            other.run("--unlock")
        other.run("train")
        assert not (folder / "state").exists()
        assert len((folder / "metrics.csv").read_text().splitlines()) == 41
        models[run] = (folder / "model.safetensors").read_bytes()
    # The header holds the configuration, and with it the name of the run.
    whole, killed = (model[-1000:] for model in models.values())
    assert whole == killed
    assert len(models["whole"]) > 2000
    other.write_config(TINY)


def wait_for(condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_a_changed_learning_rate_trains_anew_in_the_same_run(other):
    before = (other.folder / RUN / "model.safetensors").read_bytes()
    other.change_config("train", learning_rate=0.01)
    other.run("train")
    assert (other.folder / RUN / "model.safetensors").read_bytes() != before


def test_an_empty_test_set_is_a_sentence(other):
    other.change_config("split", fractions={"train": 0.8, "validation": 0.2, "test": 0.0})
    printed = other.refused("preprocess")
    assert printed.count("split_entries: The test split is empty") == 1
    assert printed.count("The test split is empty") == 1, "once, not in the log's text again"
    assert "Traceback" not in printed
    other.write_config(TINY)


def test_fetching_more_patiently_fetches_nothing_again(tmp_path):
    """Addresses decide what arrives; timeouts, attempts and connections only reach the client."""
    files = {
        "/1abc.cif.gz": gzipped(mmcif("1abc")),
        "/2abc.cif.gz": status(503, **{"Retry-After": "0"}),
        "/obsolete.dat": b" LIST OF OBSOLETE COORDINATE ENTRIES AND SUCCESSORS\n",
    }
    with ArchiveServer(files) as server:
        config = {
            "dataset": "patient",
            "entries": {"source": "rcsb", "ids": ["1abc", "2abc"], "max_missing_fraction": 0.5},
            "download": {
                "rcsb_url": f"{server.url}/{{id}}.cif.gz",
                "status_url": f"{server.url}/obsolete.dat",
                "attempts": 2,
            },
        }
        checkout = Checkout(tmp_path / "patient", config)
        checkout.run("download")
        log = pq.read_table(checkout.folder / "results/data/patient/download.parquet").to_pylist()
        assert {row["entry"]: row["attempts"] for row in log} == {"1abc": 1, "2abc": 2}
        times = {"connect_timeout_s": 5, "read_timeout_s": 50}
        checkout.change_config("download", attempts=3, connections=2, **times)
        assert checkout.plan("download") == {}
        checkout.change_config("download", rcsb_url=f"{server.url}/other/{{id}}.cif.gz")
        assert "download_entries" in checkout.plan("download")


def test_planning_ten_thousand_ids(tmp_path):
    """Under 300 jobs, whatever the archive."""
    entries = {"source": "rcsb", "list": "ids.txt", "shards": 100}
    checkout = Checkout(tmp_path / "many", {"dataset": "many", "entries": entries})
    letters = "abcdefghijklmnopqrstuvwxyz"
    ids = [f"{d}{a}{b}{c}" for d in "1234" for a in letters for b in letters for c in "abcd"]
    (checkout.folder / "ids.txt").write_text("\n".join(ids[:10_000]))
    jobs = checkout.plan()
    assert jobs["download_entries"] == jobs["preprocess_entries"] == 100
    assert sum(jobs.values()) < 300


REFUSED = [
    ({"train": {"learnin_rate": 0.1}}, "did you mean train.learning_rate?"),
    ({"train": {"epochs": "ten"}}, "train.epochs is 'ten', but must be an integer."),
    ({"split": {"fractions": {"train": 0.9}}}, "but must sum to 1"),
    ({"entries": {"source": "rcsb", "ids": ["1abc", "1ABC"]}}, "was named before"),
    ({"entries": {"source": "rcsb", "ids": ["1abcd"]}}, "is not a PDB id"),
    ({"entries": {"source": "local", "folder": "absent"}}, "absent cannot be read"),
    ({"entries": {"source": "local", "folder": "workflow"}}, "holds no structure file"),
]


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return Checkout(tmp_path_factory.mktemp("refused") / "bare", {})


@pytest.mark.parametrize(("given", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_mistakes_are_refused_before_anything_runs(bare, given, words):
    bare.write_config(given)
    printed = bare.refused("-n")
    assert printed.count(words) == 1
    assert "common.smk" not in printed, "no line of ours is named"
    assert "Traceback" not in printed


def test_a_key_given_twice_is_refused_by_the_workflow_too(bare):
    (bare.folder / "own.yaml").write_text("train: {epochs: 2}\nseed: 1\nseed: 2\n")
    assert "the key seed is given twice" in bare.refused("-n")


def test_the_snakefile_is_a_table_of_contents():
    text = (ROOT / "Snakefile").read_text()
    assert not re.search(r"^\s*(shell|script|run|params|def)\b", text, re.MULTILINE)


def test_every_rule_has_log_benchmark_threads_and_resources():
    for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        rules = re.split(r"^ *(?:rule|checkpoint) (\w+):$", path.read_text(), flags=re.MULTILINE)
        for name, body in zip(rules[1::2], rules[2::2], strict=True):
            assert "_" in name, f"{name} is not verb_object"
            assert Path(ROOT / "workflow" / "scripts" / f"{name}.py").is_file(), name
            for word in ("log:", "benchmark:", "threads:", "mem_mb=", "runtime=", "code="):
                assert word in body, f"{name} lacks {word}"
