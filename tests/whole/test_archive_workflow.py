"""Entries from an archive to an evaluated model; the archive is a server beside the test."""

import gzip
import json

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from helpers.archive_server import ArchiveServer
from helpers.simulated import simulator
from helpers.workflow_run import TINY, Checkout
from qfitlatent.base.provenance import verify_run
from qfitlatent.simulate.entry import simulate_entry
from qfitlatent.simulate.settings import entry_ids

ENTRIES = ["1k6p", "1olt", "3mst", "3n6z", "3sgg", "3vor", "3zci", "4af8", "4f54", "4i39"]
UNKNOWN = "9xyz"


@pytest.fixture(scope="module")
def archived():
    """What the archive has, by address: simulated entries under the ids of real ones."""
    settings = simulator(num_entries=len(ENTRIES), num_families=len(ENTRIES), max_residues=70)
    return {
        f"/download/{entry}.cif.gz": gzip.compress(
            simulate_entry(own, 1, settings).mmcif.replace(own, entry).encode()
        )
        for entry, own in zip(ENTRIES, entry_ids(settings), strict=True)
    }


@pytest.fixture(scope="module")
def served(archived, tmp_path_factory):
    """A finished run on ten entries and an id that the archive does not have."""
    files = archived | {}
    files["/status/obsolete.dat"] = b" LIST OF OBSOLETE COORDINATE ENTRIES AND SUCCESSORS\n"
    with ArchiveServer(files) as server:
        config = {name: value for name, value in TINY.items() if name != "simulate"} | {
            "dataset": "real",
            "run": "real",
            "entries": {
                "source": "rcsb",
                "ids": [*ENTRIES, UNKNOWN],
                "shards": 2,
                "max_missing_fraction": 0.2,
            },
            "download": {
                "rcsb_url": f"{server.url}/download/{{id}}.cif.gz",
                "status_url": f"{server.url}/status/obsolete.dat",
            },
        }
        checkout = Checkout(tmp_path_factory.mktemp("http") / "clone", config)
        checkout.run()
        yield checkout, server


def table(checkout, name):
    return pq.read_table(checkout.folder / "results" / "data" / "real" / name)


def test_each_entry_was_fetched_once_and_kept(served):
    checkout, server = served
    assert [server.asked(f"/download/{entry}.cif.gz") for entry in ENTRIES] == [1] * len(ENTRIES)
    log = table(checkout, "download.parquet")
    assert log["entry"].to_pylist() == sorted([*ENTRIES, UNKNOWN])
    missing = log.filter(pc.is_valid(log["reason"]))
    assert missing["entry"].to_pylist() == [UNKNOWN]
    assert missing["reason"].to_pylist() == ["not_found"]


def test_tables_hold_every_entry_or_say_why_not(served):
    checkout, _ = served
    entries = table(checkout, "tables/entries.parquet")
    rejected = table(checkout, "tables/rejected.parquet")
    whole = rejected.filter(pc.equal(rejected["scope"], "entry"))
    assert entries["entry"].to_pylist() == ENTRIES
    assert whole["entry"].to_pylist() == [UNKNOWN]
    assert set(entries["source"].to_pylist()) == {"rcsb"}
    assert all(url.startswith("http://127.0.0.1") for url in entries["url"].to_pylist())
    residues = table(checkout, "tables/residues.parquet")
    assert pc.sum(entries["num_residues"]).as_py() == len(residues)
    # The simulator gives altlocs to a third of some 600 residues and more.
    several = pc.sum(pc.greater_equal(residues["num_conformers"], 2)).as_py()
    assert 100 < several < 500
    chi = table(checkout, "tables/conformers.parquet")["chi1_rad"].drop_null()
    assert -3.1416 < pc.min(chi).as_py() < pc.max(chi).as_py() < 3.1416


def test_run_is_complete_and_verifies(served, monkeypatch):
    checkout, _ = served
    monkeypatch.chdir(checkout.folder)
    run = checkout.folder / "results" / "runs" / "real"
    assert verify_run(run) == []
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["seeds"]
    assert any(name.endswith("conformers.parquet") for name in manifest["inputs"])
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert metrics
    rows = (run / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + TINY["train"]["epochs"]


def test_a_second_run_asks_the_archive_nothing(served):
    checkout, server = served
    before = len(server.requests)
    assert "Nothing to be done" in checkout.run()
    assert len(server.requests) == before
    checkout.run("--forcerun", "download_entries", "--", "download")
    asked = {path for path, _, _ in server.requests[before:]}
    assert asked <= {f"/download/{UNKNOWN}.cif.gz", "/status/obsolete.dat"}, "only what is missing"


def test_too_many_missing_entries_are_a_sentence(served):
    checkout, _ = served
    checkout.change_config("entries", max_missing_fraction=0.05)
    printed = checkout.refused("download")
    assert "merge_downloads: 1 of 11 entries are missing" in printed
    assert UNKNOWN in printed
