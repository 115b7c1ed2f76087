"""Training: it learns, resumes to the byte, refuses what it must, and divides among processes."""

import csv
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.trainings import make_config, run, write_tables
from qfitlatent.base import config as configuration
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json, sha256_file
from qfitlatent.chemistry.residues import UNKNOWN_TOKEN
from qfitlatent.model import checkpoint
from qfitlatent.model.dataset import Dataset
from qfitlatent.model.settings import ModelConfig, training_bytes
from qfitlatent.training.trainer import Trainer


@pytest.fixture
def data(tmp_path):
    write_tables(tmp_path / "tables")
    return tmp_path


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9, "dropout": 0.1}])
def test_a_killed_training_resumes_to_the_same_bytes(data, changes, monkeypatch):
    config = make_config(**changes)
    whole = run(data, config, "whole")
    original, calls = Trainer._one_epoch, []

    def killed(self, progress):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, progress)

    monkeypatch.setattr(Trainer, "_one_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        run(data, config, "parts")
    monkeypatch.setattr(Trainer, "_one_epoch", original)
    parts = run(data, config, "parts")
    assert sha256_file(whole / "model.safetensors") == sha256_file(parts / "model.safetensors")


def test_artifacts_explain_the_run(data):
    folder = run(data, make_config())
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    manifest = read_json(folder / "manifest.json")
    assert set(manifest["inputs"]) >= {"tables/residues.parquet", "split.parquet"}
    assert manifest["outputs"]["model.safetensors"]["sha256"] == sha256_file(
        folder / "model.safetensors"
    )
    assert configuration.load(folder / "config.yaml") == make_config()
    loaded = checkpoint.load_model(folder)
    best = min(float(row["validation_loss"]) for row in rows)
    trainer = Trainer(
        make_config(),
        Dataset.load(data / "tables", data / "split.parquet", ("train",)),
        Dataset.load(data / "tables", data / "split.parquet", ("validation",)),
        torch.device("cpu"),
    )
    trainer.model = loaded.model
    assert trainer.validate()["validation_loss"] == pytest.approx(best, rel=1e-4)


def test_a_run_folder_of_another_configuration_is_refused(data):
    run(data, make_config())
    with pytest.raises(QfitLatentError, match=r"learning_rate is 0\.003 there and 0\.1 here"):
        run(data, make_config(learning_rate=0.1))


def test_training_data_without_altlocs_is_refused(tmp_path):
    write_tables(tmp_path / "tables", multiconformer=False)
    with pytest.raises(QfitLatentError, match="no residue with two or more altlocs"):
        run(tmp_path, make_config())
    run(tmp_path, make_config(train_on="all", epochs=1))


def test_a_non_finite_loss_names_the_entry(data, monkeypatch):
    original = Trainer._loss

    def broken(self, proteins):
        loss, weight = original(self, proteins)
        return loss * (float("nan") if proteins[0].entry == "e03" else 1.0), weight

    monkeypatch.setattr(Trainer, "_loss", broken)
    with pytest.raises(QfitLatentError, match="e03"):
        run(data, make_config())


def test_a_checkpoint_of_another_architecture_is_refused(data):
    first = run(data, make_config(epochs=1))
    with pytest.raises(QfitLatentError, match="another architecture"):
        run(data, make_config(epochs=1, d_s=24, initial_model=str(first)), "second")


def test_fine_tuning_starts_from_the_weights(data):
    first = run(data, make_config())
    second = run(data, make_config(epochs=1, learning_rate=1e-9, initial_model=str(first)), "next")
    a, b = (checkpoint.load_model(folder).model.state_dict() for folder in (first, second))
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("damage", ["truncated", "changed", "foreign"])
def test_a_damaged_model_is_refused(data, damage):
    path = run(data, make_config(epochs=1)) / "model.safetensors"
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        path.write_bytes(content[:-4] + b"\0\0\0\0" if content[-4:] != b"\0" * 4 else content[:-1])
    else:
        path.write_text("not a model")
    with pytest.raises(QfitLatentError, match=r"model.safetensors"):
        checkpoint.load_model(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 2, "crop": 20, "backbone_noise_angstrom": 0.1, "warmup_steps": 3},
        {"gradient_clip": 0.5, "patience": 1, "density": "normalised", "train_on": "all"},
    ],
)
def test_options_train(data, changes):
    folder = run(data, make_config(**changes))
    assert checkpoint.load_model(folder).config["train"]["epochs"] == 4


def trainer_of(folder: Path, config: dict) -> Trainer:
    """A trainer on the tables of ``data``, on the CPU."""
    parts = [
        Dataset.load(folder / "tables", folder / "split.parquet", (split,))
        for split in ("train", "validation")
    ]
    return Trainer(config, *parts, torch.device("cpu"))


def test_the_schedule_warms_up_and_falls_as_a_cosine(data):
    config = make_config(learning_rate=1.0, warmup_steps=4, final_learning_rate_fraction=0.01)
    trainer = trainer_of(data, config)
    rates = []
    for step in range(trainer.num_steps):
        trainer.step = step
        rates.append(trainer._learning_rate())
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    turn = np.linspace(0, np.pi, trainer.num_steps - 4)
    np.testing.assert_allclose(rates[4:], 0.01 + 0.99 * (1 + np.cos(turn)) / 2, atol=1e-12)


def test_the_running_mean_of_the_weights_is_what_is_validated_and_kept(data):
    """With a decay of nearly 1 the mean is the plain average at first: (1 + n) / (10 + n)."""
    trainer = trainer_of(data, make_config(ema_decay=0.9999))
    expected = {n: p.clone() for n, p in trainer.model.state_dict().items()}
    for step, batch in enumerate(trainer._batches(torch.Generator().manual_seed(0))):
        trainer.step = step
        trainer._one_step(batch, 0.01)
        decay = (1 + step) / (10 + step)
        for name, value in trainer.model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    for name, value in expected.items():
        torch.testing.assert_close(trainer.ema[name], value, atol=1e-6, rtol=0)
    moved = trainer.model.state_dict()["embedding.weight"].clone()
    with_mean = trainer.validate()["validation_loss"]
    torch.testing.assert_close(
        trainer.model.state_dict()["embedding.weight"], moved, atol=0, rtol=0
    )
    trainer.model.load_state_dict(trainer.ema)
    trainer.ema = None
    assert trainer.validate()["validation_loss"] == pytest.approx(with_mean, rel=1e-6)


def test_training_on_all_residues_weighs_the_two_populations(data):
    """The loss of `all` is the weighted mean of the losses of both kinds."""
    sums = {}
    for name, options in {
        "multi": {},
        "single": {"train_on": "all", "single_weight": 1.0, "multiconformer_weight": 0.0},
        "both": {"train_on": "all", "single_weight": 0.25, "multiconformer_weight": 2.0},
    }.items():
        trainer = trainer_of(data, make_config(dropout=0.0, **options))
        sums[name] = [float(x.detach()) for x in trainer._loss([trainer.train[2]])]
    assert sums["multi"][1] > 0
    assert sums["single"][1] > 0
    for i in range(2):
        expected = 2.0 * sums["multi"][i] + 0.25 * sums["single"][i]
        assert sums["both"][i] == pytest.approx(expected, rel=1e-5)


def test_clipping_bounds_the_gradient_and_weight_decay_shrinks_the_weights(data):
    lengths = {}
    for clip in (0.0, 1e-3):
        trainer = trainer_of(data, make_config(gradient_clip=clip))
        trainer._one_step([trainer.train[0]], 0.0)
        lengths[clip] = torch.cat([p.grad.flatten() for p in trainer.model.parameters()]).norm()
    assert lengths[0.0] > 2e-3
    assert float(lengths[1e-3]) == pytest.approx(1e-3, rel=1e-3)
    trainer = trainer_of(data, make_config(weight_decay=0.5))
    assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {0.5}


def test_crops_hold_the_residues_nearest_to_one(data):
    protein = trainer_of(data, make_config()).train[4]
    crop = protein.crop(20, torch.Generator().manual_seed(3))
    assert len(crop) == 20
    assert (crop.residue_row.diff() > 0).all()
    distance = torch.cdist(protein.translation, protein.translation)
    own = torch.isin(protein.residue_row, crop.residue_row)
    nearest = [set(row.topk(20, largest=False).indices.tolist()) for row in distance]
    assert set(torch.nonzero(own)[:, 0].tolist()) in nearest
    # The observed rows follow their residues.
    kept = own[protein.row_residue]
    torch.testing.assert_close(crop.chi, protein.chi[kept])
    torch.testing.assert_close(
        crop.residue_row[crop.row_residue], protein.residue_row[protein.row_residue[kept]]
    )


def test_masked_residues_hide_their_type_and_leave_the_loss(data):
    trainer = trainer_of(data, make_config(masked_residues=0.5))
    protein = trainer.train[4]
    masked = trainer._prepare(protein, torch.Generator().manual_seed(3))
    hidden = masked.token == UNKNOWN_TOKEN
    assert 0.3 < hidden.float().mean() < 0.7
    assert torch.equal(masked.token[~hidden], protein.token[~hidden])
    of_hidden = hidden[protein.row_residue]
    assert not masked.defined[of_hidden].any()
    assert torch.equal(masked.defined[~of_hidden], protein.defined[~of_hidden])
    multiconformer = [
        i for i in range(len(protein)) if protein.defined[protein.row_residue == i].any(1).sum() > 1
    ]
    assert any(hidden[multiconformer])
    assert float(trainer._loss([masked])[1]) == sum(~hidden[multiconformer])


def test_batches_hold_proteins_of_like_lengths(data):
    trainer = trainer_of(data, make_config(batch_size=2))
    lengths = sorted(trainer.train.num_residues.tolist())
    neighbours = {*pairwise(lengths), (lengths[-1],)}
    for seed in range(5):
        for batch in trainer._batches(torch.Generator().manual_seed(seed)):
            assert tuple(len(protein) for protein in batch) in neighbours


def test_training_stops_early_and_keeps_the_best_epoch(data, monkeypatch):
    losses = iter([3.0, 2.0, 2.5, 2.4, 1.0, 1.0])
    original = Trainer.validate

    def scripted(self):
        return original(self) | {"validation_loss": next(losses)}

    monkeypatch.setattr(Trainer, "validate", scripted)
    folder = run(data, make_config(epochs=6, patience=2), "stopped")
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + 4
    assert read_json(folder / "manifest.json")["best_epoch"] == 2


def test_metrics_are_also_events_where_tensorboard_is_installed(data):
    pytest.importorskip("tensorboard")
    folder = run(data, make_config(epochs=2))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    with open(folder / "metrics.csv") as file:
        expected = [float(row["validation_loss"]) for row in csv.DictReader(file)]
    found = [event.value for event in events.Scalars("validation_loss")]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_proteins_too_large_for_the_memory_are_cropped_with_a_message(data, monkeypatch, capsys):
    config = make_config()
    model = ModelConfig.from_dict(config["model"])
    monkeypatch.setattr(
        "qfitlatent.training.trainer.device_memory_bytes",
        lambda device: 2 * training_bytes(model, 30),
    )
    run(data, config)
    assert "are cropped to 30 residues" in capsys.readouterr().err
    monkeypatch.setattr("qfitlatent.training.trainer.device_memory_bytes", lambda device: 1000)
    with pytest.raises(QfitLatentError, match="Not even the smallest"):
        run(data, config, "other")


def test_an_epoch_holds_every_entry_once_among_all_processes(data):
    config = make_config(batch_size=2)
    splits = [
        Dataset.load(data / "tables", data / "split.parquet", (s,)) for s in ("train", "validation")
    ]
    seen = []
    for rank in range(2):
        trainer = Trainer(config, *splits, torch.device("cpu"), world=2, rank=rank)
        batches = list(trainer._batches(torch.Generator().manual_seed(1)))
        assert len(batches) == trainer.steps_per_epoch
        seen += [protein.entry for batch in batches for protein in batch]
    assert sorted(seen) == splits[0].entries


def test_two_processes_follow_one_with_the_same_global_batch(data):
    """Two processes with one protein each against one process with two proteins a step."""
    script = data / "work.py"
    script.write_text(
        "import sys, io, json\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from helpers.trainings import make_config, run\n"
        "from pathlib import Path\n"
        "run(Path(sys.argv[1]), make_config(dropout=0.0), 'two')\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script), str(data)], env=environment, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run(data, make_config(dropout=0.0, batch_size=2), "one")

    def curve(name):
        with open(data / name / "metrics.csv") as file:
            return [float(row["validation_loss"]) for row in csv.DictReader(file)]

    # The batches differ in composition, the optimisation does not.
    np.testing.assert_allclose(curve("two"), curve("one"), atol=0.15)
