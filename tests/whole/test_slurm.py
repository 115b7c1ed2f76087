"""The workflow on a real Slurm cluster of one node: retries, and the same bytes as a local run."""

import importlib.util
import itertools
import os
import subprocess

import pytest
import yaml

from helpers.slurm import run as slurm_run
from helpers.workflow_run import ROOT, TINY, Checkout

PROFILE = ROOT / "profiles" / "slurm" / "config.yaml"
# The profile asks for a GPU unless the device is the CPU; the test cluster pretends to have one.
CONFIG = TINY | {"train": {"epochs": 2, "device": "auto"}}


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one node, where there may be one.

    Installing packages is for machines that say so; on others Slurm has to be there.
    """
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("snakemake-executor-plugin-slurm is not installed: pip install .[slurm]")
    if os.geteuid() != 0:
        pytest.skip("only root can start a Slurm cluster")
    if not os.environ.get("QFITLATENT_TEST_SLURM"):
        pytest.skip("QFITLATENT_TEST_SLURM=1 allows to install Slurm and to start it here")
    try:
        slurm_run.start_cluster()
    except subprocess.CalledProcessError as error:
        if error.returncode == 3:
            pytest.skip("there can be no Slurm here: see what cluster.sh printed")
        raise
    yield
    slurm_run.stop_cluster()


@pytest.mark.slow
def test_slurm_gives_the_same_bytes_also_after_failures(cluster, tmp_path):
    checkout = Checkout(tmp_path / "slurm", CONFIG)
    printed = slurm_run.run_on_slurm(checkout, "train")
    assert 'gpu=Resource("gpu", 8)' in printed  # the limits are those of this profile alone

    assert (checkout.folder / "failed_once").is_dir()
    assert sorted(slurm_run.attempts(printed, "simulate_entries")) == [1000, 1000, 2000]
    first, second = slurm_run.FIRST_MEMORY_MB, 2 * slurm_run.FIRST_MEMORY_MB
    memory_mb = slurm_run.attempts(printed, "preprocess_entries")
    assert sorted(memory_mb) == [first, first, second, second]
    assert len(slurm_run.killed_for_memory(checkout.folder)) == 2

    local = Checkout(tmp_path / "local", CONFIG)
    slurm_run.run_locally(local, "train")
    expected = slurm_run.digests(local.folder)
    assert len(expected) > 20
    assert slurm_run.digests(checkout.folder) == expected


def test_the_profile_names_rules_that_exist():
    profile = yaml.safe_load(PROFILE.read_text())
    rules = {path.stem for path in (ROOT / "workflow" / "scripts").glob("*.py")}
    assert set(profile["set-resources"]) <= rules


def test_every_line_of_the_profile_is_explained():
    lines = PROFILE.read_text().splitlines()
    for above, line in itertools.pairwise(lines):
        if line.strip() and not line.strip().startswith("#"):
            assert above.strip(), line


def test_the_profile_is_understood(tmp_path):
    pytest.importorskip("snakemake_executor_plugin_slurm")
    checkout = Checkout(tmp_path / "plan", TINY)
    printed = checkout.run("-n", "--workflow-profile=profiles/slurm", "--", "train", cores=None)
    assert "Using workflow specific profile profiles/slurm" in " ".join(printed.split())
    assert "simulate_entries" in printed
