"""Training: it learns, resumes to the byte, refuses what it must, and divides among processes."""

import csv
import io
import itertools
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.trainings import Killed, killed_at, make_config, run, write_tables
from qfitlatent.base import config as configuration
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json, sha256_file
from qfitlatent.base.progress import Progress
from qfitlatent.base.provenance import verify_run
from qfitlatent.chemistry.residues import UNKNOWN_TOKEN
from qfitlatent.model import checkpoint
from qfitlatent.model.batch import collate
from qfitlatent.model.dataset import Dataset
from qfitlatent.model.settings import ModelConfig, training_bytes
from qfitlatent.training.processes import Processes
from qfitlatent.training.state import CONSTANTS, load_tensors, read_state
from qfitlatent.training.trainer import Trainer


@pytest.fixture
def data(tmp_path):
    write_tables(tmp_path / "tables")
    return tmp_path


def trainer_of(folder: Path, config: dict, world: int = 1, rank: int = 0) -> Trainer:
    """A trainer on the tables of ``data``, on the CPU; one of ``world`` processes."""
    parts = [
        Dataset.load(folder / "tables", folder / "split.parquet", (split,))
        for split in ("train", "validation")
    ]
    cpu = torch.device("cpu")
    return Trainer(config, *parts, cpu, Processes(cpu, world, rank))


PLACES = [
    ("Trainer:train_epoch", 3),
    ("qfitlatent.training.trainer:save_tensors", 1),
    ("qfitlatent.training.trainer:save_tensors", 4),
    ("qfitlatent.training.trainer:write_metrics", 4),
    ("qfitlatent.training.run:write_artifacts", 1),
    ("qfitlatent.training.artifacts:write_metrics", 1),
    ("qfitlatent.training.artifacts:draw_learning_curve", 1),
    ("qfitlatent.training.artifacts:write_json", 1),
    ("qfitlatent.training.run:clear", 1),
    ("qfitlatent.training.state:shutil.rmtree", 1),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run of the default small training: its data and the bytes of its weights."""
    folder = tmp_path_factory.mktemp("whole")
    write_tables(folder / "tables")
    return folder, (run(folder, make_config()) / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("place", "call"), PLACES, ids=[f"{p}-{n}" for p, n in PLACES])
def test_a_training_killed_anywhere_resumes_to_the_same_bytes(whole, tmp_path, place, call):
    """Also when the workflow has deleted the outputs that the killed job had declared."""
    folder, expected = whole
    for outputs_deleted in (False, True):
        target = tmp_path / str(outputs_deleted)
        with pytest.MonkeyPatch.context() as patch:
            if place.endswith("rmtree"):
                patch.setattr("shutil.rmtree", lambda *a, **k: (_ for _ in ()).throw(Killed))
            else:
                killed_at(patch, place, call)
            with pytest.raises(Killed):
                run(folder, make_config(), target)
        if outputs_deleted:
            for path in target.glob("*.*"):
                path.unlink()
        run(folder, make_config(), target)
        assert (target / "model.safetensors").read_bytes() == expected
        assert verify_run(target) == []
        assert not (target / "state").exists()


def test_the_running_mean_of_the_weights_and_dropout_resume_too(data):
    config = make_config(ema_decay=0.9, dropout=0.1)
    expected = sha256_file(run(data, config, "whole") / "model.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, "Trainer:train_epoch", 3)
        with pytest.raises(Killed):
            run(data, config, "parts")
    assert sha256_file(run(data, config, "parts") / "model.safetensors") == expected


def test_the_rate_after_a_resume_is_that_of_new_work(data, monkeypatch):
    """Of a clock that goes on by a second whenever it is asked; one protein a step."""
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, "Trainer:train_epoch", 3)
        with pytest.raises(Killed):
            run(data, make_config())
    rates = []

    class Ticking(Progress):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, clock=itertools.count().__next__, **options)

        def update(self, *arguments, **options):
            super().update(*arguments, **options)
            rates.append(self.rate())

    monkeypatch.setattr("qfitlatent.training.trainer.Progress", Ticking)
    run(data, make_config())
    assert 0 < max(rate for rate in rates if rate is not None) <= 1


def test_outputs_are_trained_resumed_and_validated(data):
    """On the same bytes as uninterrupted, from a list of entries that are no evidence."""
    unknown = data / "unknown.csv"
    unknown.write_text("entry\ne01\n")
    weights = {"high_b_weight": 0.5, "cluster_weight_power": 0.5, "unknown_altlocs_weight": 0.5}
    config = make_config(outputs=True, altlocs_unknown=str(unknown), **weights)
    folder = run(data, config, "whole")
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, "Trainer:train_epoch", 3)
        with pytest.raises(Killed):
            run(data, config, "parts")
    again = run(data, config, "parts")
    assert sha256_file(again / "model.safetensors") == sha256_file(folder / "model.safetensors")
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    for name in ("validation_nll_heterogeneous", "validation_nll_b_rank"):
        assert float(rows[-1][name]) < float(rows[0][name])
    with open(run(data, make_config(epochs=1), "plain") / "metrics.csv") as file:
        assert next(csv.DictReader(file))["validation_nll_heterogeneous"] == ""


def test_a_stripped_entry_gives_no_gradient_to_p_heterogeneous(data):
    """It is learnt from for the density and for b_rank alone."""
    unknown = data / "unknown.csv"
    unknown.write_text("entry\ne01\n")
    config = make_config(outputs=True, b_rank_loss=0.0, heterogeneous_loss=2.0)
    files = (data / "tables", data / "split.parquet", ("train",))
    train = Dataset.load(*files, altlocs_unknown=unknown)
    trainer = Trainer(config, train, train, torch.device("cpu"))

    def gradients(protein):
        trainer.train_step([protein], 0.0)
        head = trainer.model.output_head
        return [head.last.weight.grad.abs().sum(1), trainer.model.embedding.weight.grad.abs().sum()]

    (logit, *rest), density = gradients(train[1])
    assert float(logit) == 0.0
    assert not any(rest)
    assert density > 0
    assert gradients(train[0])[0][0] > 0


def test_a_label_weight_scales_the_gradient_of_a_step(data):
    """It does not cancel where one protein is a batch, and the sum of the weights stays."""
    trainer = trainer_of(data, make_config(dropout=0.0))
    protein = trainer.train[0]
    results = []
    for weight in (1.0, 0.25, 0.0):
        changed = replace(protein, weight=torch.full_like(protein.weight, weight))
        loss, total, _ = trainer.train_step([changed], 0.0)
        grad = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
        results.append((loss, total, grad))
    (loss, total, grad), (quarter, same, small), (nothing, _, zero) = results
    assert total == same > 0
    assert quarter == pytest.approx(loss / 4)
    torch.testing.assert_close(small, grad / 4)
    assert nothing == 0
    assert not zero.any()


def interrupted(folder: Path, target: Path) -> Path:
    """A run killed in its third epoch; returns its state."""
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, "Trainer:train_epoch", 3)
        with pytest.raises(Killed):
            run(folder, make_config(), target)
    return target / "state" / "last.pt"


def flipped(content: bytes, at: float) -> bytes:
    place = int(at * len(content))
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


DAMAGES = {
    "empty": lambda content: b"",
    "text": lambda content: b"hello",
    "zip": lambda content: b"PK\x03\x04" + b"\0" * 200,
    "pickle": lambda content: b"\x80\x02}q\x00.",
    "cut": lambda content: content[: len(content) // 2],
    "longer": lambda content: content + b"\0",
    "bit in a tensor": lambda content: flipped(content, 0.5),
    "bit in the checksum": lambda content: flipped(content, 60 / len(content)),
}


@pytest.mark.parametrize("file", ["last.pt", "best.pt"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_said_and_training_starts_afresh(whole, tmp_path, capsys, file, damage):
    folder, expected = whole
    path = interrupted(folder, tmp_path / "run").with_name(file)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    run(folder, make_config(), tmp_path / "run")
    (said,) = capsys.readouterr().err.splitlines()
    assert "training starts afresh" in said
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == expected


def test_a_state_of_other_tables_starts_afresh(data, capsys):
    interrupted(data, data / "run")
    shutil.rmtree(data / "tables")
    write_tables(data / "tables", num_entries=9)
    expected = sha256_file(run(data, make_config(), "whole") / "model.safetensors")
    assert sha256_file(run(data, make_config()) / "model.safetensors") == expected
    assert "was trained with another conformers.parquet" in capsys.readouterr().err


def test_a_training_interrupted_before_some_keys_became_constants_resumes(whole, tmp_path):
    """Its state has these keys, and no checksum."""
    folder, expected = whole
    path = interrupted(folder, tmp_path / "run")
    state = load_tensors(path)
    for section, constants in CONSTANTS.items():
        state["identity"][section] |= constants
    torch.save(state, path)
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, "Trainer:train_epoch", 3)  # two epochs are left
        run(folder, make_config(), tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == expected
    state["identity"]["model"]["attention"] = "blocked"
    path.parent.mkdir()
    torch.save(state, path)
    with pytest.raises(QfitLatentError, match=r"model\.attention is blocked there"):
        read_state(tmp_path / "run", state["identity"] | {"model": make_config()["model"]})


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
    trainer = trainer_of(data, make_config())
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
    original, num_residues = Trainer.loss, 24 + 3 * 3  # of e03

    def broken(self, batch):
        loss, weight = original(self, batch)
        return loss * (float("nan") if batch.token.shape[1] == num_residues else 1.0), weight

    monkeypatch.setattr(Trainer, "loss", broken)
    with pytest.raises(QfitLatentError, match="e03"):
        run(data, make_config())


def test_fine_tuning_starts_from_the_weights(data):
    first = run(data, make_config())
    second = run(data, make_config(epochs=1, learning_rate=1e-9, initial_model=str(first)), "next")
    a, b = (checkpoint.load_model(folder).model.state_dict() for folder in (first, second))
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], atol=1e-6, rtol=0)


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


def test_the_schedule_warms_up_and_falls_as_a_cosine(data):
    config = make_config(learning_rate=1.0, warmup_steps=4, final_learning_rate_fraction=0.01)
    trainer = trainer_of(data, config)
    rates = [trainer.learning_rate(step) for step in range(trainer.num_steps)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    turn = np.linspace(0, np.pi, trainer.num_steps - 4)
    np.testing.assert_allclose(rates[4:], 0.01 + 0.99 * (1 + np.cos(turn)) / 2, atol=1e-12)


def distance(a, b) -> float:
    return float(sum(((a[name] - b[name]) ** 2).sum() for name in a) ** 0.5)


def test_the_running_mean_of_the_weights_lags_and_is_what_is_validated(data):
    trainer = trainer_of(data, make_config(ema_decay=0.99))
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with Progress(len(trainer.train), "proteins", io.StringIO()) as progress:
        row = trainer.train_epoch(progress)
    moved = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert 0 < distance(trainer.ema, start) < distance(moved, start)
    assert distance(trainer.ema, moved) < distance(moved, start)
    # Validation leaves the weights alone, and gives the figures of a model that has the mean.
    again = trainer.validate()
    assert distance(trainer.model.state_dict(), moved) == 0
    plain = trainer_of(data, make_config())
    plain.model.load_state_dict(trainer.ema)
    for name, value in plain.validate().items():
        assert value == pytest.approx(row[name], rel=1e-6)
        assert value == pytest.approx(again[name], rel=1e-6)


def test_training_on_all_residues_weighs_the_two_populations(data):
    """The loss of `all` is the weighted mean of the losses of both kinds."""
    sums = {}
    for name, options in {
        "multi": {},
        "single": {"train_on": "all", "single_weight": 1.0, "multiconformer_weight": 0.0},
        "both": {"train_on": "all", "single_weight": 0.25, "multiconformer_weight": 2.0},
    }.items():
        trainer = trainer_of(data, make_config(dropout=0.0, **options))
        sums[name] = [float(x.detach()) for x in trainer.loss(collate([trainer.train[2]]))]
    assert sums["multi"][1] > 0
    assert sums["single"][1] > 0
    for i in range(2):
        expected = 2.0 * sums["multi"][i] + 0.25 * sums["single"][i]
        assert sums["both"][i] == pytest.approx(expected, rel=1e-5)


def test_clipping_bounds_the_gradient_and_weight_decay_shrinks_the_weights(data):
    lengths = {}
    for clip in (0.0, 1e-3):
        trainer = trainer_of(data, make_config(gradient_clip=clip))
        trainer.train_step([trainer.train[0]], 0.0)
        lengths[clip] = torch.cat([p.grad.flatten() for p in trainer.model.parameters()]).norm()
    assert lengths[0.0] > 2e-3
    assert float(lengths[1e-3]) == pytest.approx(1e-3, rel=1e-3)
    ends = {}
    for decay in (0.0, 0.5):
        trainer = trainer_of(data, make_config(weight_decay=decay, dropout=0.0))
        trainer.train_step([trainer.train[0]], 0.1)
        ends[decay] = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    start = torch.cat(
        [p.detach().flatten() for p in trainer_of(data, make_config()).model.parameters()]
    )
    # AdamW takes away the product of rate, decay and weight, beside the same step.
    torch.testing.assert_close(ends[0.0] - ends[0.5], 0.1 * 0.5 * start, atol=1e-5, rtol=1e-4)


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
    masked = trainer.batches.prepared(protein, torch.Generator().manual_seed(3))
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
    assert float(trainer.loss(collate([masked]))[1]) == sum(~hidden[multiconformer])


def test_batches_hold_proteins_of_like_lengths(data):
    trainer = trainer_of(data, make_config(batch_size=2))
    lengths = sorted(trainer.train.num_residues.tolist())
    neighbours = {*pairwise(lengths), (lengths[-1],)}
    for seed in range(5):
        for batch in trainer.batches.epoch(torch.Generator().manual_seed(seed)):
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
    seen = []
    for rank in range(2):
        trainer = trainer_of(data, make_config(batch_size=2), 2, rank)
        batches = list(trainer.batches.epoch(torch.Generator().manual_seed(1)))
        assert len(batches) == trainer.batches.steps_per_epoch
        seen += [protein.entry for batch in batches for protein in batch]
    assert sorted(seen) == trainer.train.entries


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
        timeout=3000,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run(data, make_config(dropout=0.0, batch_size=2), "one")

    def curve(name):
        with open(data / name / "metrics.csv") as file:
            return [float(row["validation_loss"]) for row in csv.DictReader(file)]

    # The batches differ in composition, the optimisation does not.
    np.testing.assert_allclose(curve("two"), curve("one"), atol=0.15)
