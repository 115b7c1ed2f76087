"""Mutated files: every one is read or refused with a reason, whatever was done to it.

    QFITLATENT_FUZZ_FILES=20000 python -m pytest tests/whole/test_fuzz.py

A crash, a hang over 10 seconds, a number that is none, or an entry that is not accounted for is a
failure. The file is written to ``results/fuzz/`` so that it can be looked at.
"""

import os
import random
import signal
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.mutations import Files, mutate, originals
from qfitlatent import cli
from qfitlatent.archive.entries import EntryRef
from qfitlatent.archive.log import log_local_files
from qfitlatent.base import config
from qfitlatent.dataset.invariants import check_invariants, read_tables
from qfitlatent.model.checkpoint import save_model
from qfitlatent.model.network import QFitLatent
from qfitlatent.model.settings import ModelConfig
from qfitlatent.structure.preprocess import preprocess_entries, read_entry
from qfitlatent.tables.parquet import read_table
from qfitlatent.tables.reasons import Reason
from qfitlatent.tables.schemas import SCHEMAS

NUM_FILES = int(os.environ.get("QFITLATENT_FUZZ_FILES", 2000))
HANG_S = 10
KEPT = Path(__file__).parents[2] / "results" / "fuzz"
SHARD = 250


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Files:
    return originals(tmp_path_factory.mktemp("originals"))


def mutant(base: Files, seed: int) -> bytes:
    rng = random.Random(seed)
    return mutate(rng.choice(base), rng)


@contextmanager
def no_hang(seed: int, data: bytes):
    """Whatever goes wrong, the file stays to be looked at."""

    def stop(number, frame):
        raise TimeoutError(f"mutated file {seed} took longer than {HANG_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG_S)
    try:
        yield
    except BaseException:
        KEPT.mkdir(parents=True, exist_ok=True)
        (KEPT / f"{seed}.bin").write_bytes(data)
        raise
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def assert_finite(table: pa.Table) -> None:
    for name, column in zip(table.column_names, table.columns, strict=True):
        values = column.combine_chunks()
        if pa.types.is_fixed_size_list(values.type):
            values = values.flatten()
        if pa.types.is_floating(values.type):
            assert np.isfinite(values.drop_null().to_numpy()).all(), f"{name} holds no number"


def assert_accounted(tables: dict[str, pa.Table]) -> None:
    """One entry: it has its row or its reason, and what was read is kept or rejected."""
    for name, schema in SCHEMAS.items():
        assert tables[name].schema.equals(schema), name
        assert_finite(tables[name])
    rejected = tables["rejected"].to_pylist()
    whole = [row for row in rejected if row["scope"] == "entry"]
    entries = tables["entries"].to_pylist()
    assert len(entries) + len(whole) == 1, whole
    for row in rejected:
        assert Reason(row["reason"]) is not Reason.UNEXPECTED_ERROR, row["detail"]
    for row in entries:
        for what in ("residues", "conformers"):
            kept, lost = row[f"num_{what}"], row[f"num_{what}_rejected"]
            assert row[f"num_{what}_read"] == kept + lost, what
        assert row["num_residues"] == len(tables["residues"]) == len(tables["frames"])
    residues = tables["residues"].select(["chain", "index"]).to_pylist()
    assert len({tuple(row.values()) for row in residues}) == len(residues)


@settings(
    max_examples=NUM_FILES // 4,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(seed=st.integers(0, 2**32))
def test_a_mutated_file_is_read_or_refused(base, tmp_path_factory, seed):
    path = tmp_path_factory.getbasetemp() / "mutated"
    data = mutant(base, seed)
    path.write_bytes(data)
    with no_hang(seed, data):
        assert_accounted(read_entry(path, "x").tables())


@pytest.mark.slow
def test_mutated_shards_pass_the_audit(base, tmp_path):
    """As a run reads them: many in a shard, all tables checked as the audit checks them."""
    outcomes: Counter[str] = Counter()
    for start in range(0, NUM_FILES - NUM_FILES // 4, SHARD):
        folder = tmp_path / str(start)
        folder.mkdir()
        references = []
        for seed in range(start, start + SHARD):
            path = folder / f"m{seed:06d}"
            path.write_bytes(mutant(base, seed))
            references.append(EntryRef(path.name, str(path)))
        log_local_files(references, "local", folder / "download.parquet")
        preprocess_entries(folder / "download.parquet", folder / "tables")
        tables = read_tables(folder / "tables", None)
        assert [str(violation) for violation in check_invariants(tables)] == []
        rejected = tables["rejected"]
        whole = rejected[rejected["scope"] == "entry"]
        outcomes.update(whole["reason"])
        outcomes["read"] += len(tables["entries"])
        assert not (rejected["reason"] == Reason.UNEXPECTED_ERROR).any(), whole["detail"].tolist()
        assert len(tables["entries"]) + len(whole) == SHARD
    print(dict(outcomes))
    # Most changes leave something to read, and some do not: else this test sees half of the code.
    assert 0.2 < outcomes["read"] / outcomes.total() < 0.95


@pytest.mark.slow
def test_mutated_folders_are_predicted_and_scored(base, tmp_path):
    """One in ten of the files goes through the commands: each is done or a line in failures.csv."""
    tiny = config.load(
        [{"model": {"d_s": 16, "d_z": 4, "num_blocks": 1, "num_heads": 2, "num_components": 2}}]
    )
    torch.manual_seed(0)
    model = tmp_path / "model.safetensors"
    save_model(QFitLatent(ModelConfig.from_dict(tiny["model"])), tiny, model)
    folder, out = tmp_path / "files", tmp_path / "predicted"
    folder.mkdir()
    names = []
    for seed in range(max(40, NUM_FILES // 10)):
        rng = random.Random(seed)
        kind = rng.randrange(len(base))
        names.append(f"m{seed:05d}")
        path = folder / f"{names[-1]}{('.cif', '.pdb')[kind % 2]}"
        path.write_bytes(mutate(base[kind], rng))
    status = cli.main(
        ["predict", str(folder), "-o", str(out), "--model", str(model), "--workers", "1"]
    )
    assert status in (0, 2)
    failed = pd.read_csv(out / "failures.csv")
    done = {path.name.removesuffix(".prediction.json") for path in out.glob("*.prediction.json")}
    assert done.isdisjoint(failed["entry"])
    assert done | set(failed["entry"]) == set(names)
    assert not failed["error"].str.contains("unexpected", case=False).any()
    for path in out.glob("*.mixture.parquet"):
        assert_finite(read_table(path))
    scores = tmp_path / "scores.parquet"
    cli.main(["score", str(folder), "-o", str(scores), "--model", str(model)])
    assert_finite(read_table(scores))
