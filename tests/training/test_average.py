"""The average of trained models: its density is the mean, and it is a run like any other."""

import copy
import itertools
import math

import pytest
import torch

from helpers.proteins import make_protein
from helpers.trainings import make_config, run, write_tables
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json
from qfitlatent.base.provenance import verify_run
from qfitlatent.model import checkpoint
from qfitlatent.model.batch import collate
from qfitlatent.training.artifacts import METRICS
from qfitlatent.training.average import _history, average_runs

AUTOREGRESSIVE = {"head": "autoregressive", "mean": "atan2", "head_hidden": 16}


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """The folder, the configuration and two runs of different seeds on the same data."""
    folder = tmp_path_factory.mktemp("members")
    write_tables(folder / "tables")
    paths = []
    for seed in (0, 1):
        config = make_config(epochs=2)
        config["model"] |= AUTOREGRESSIVE
        config["train"]["seed"] = seed
        paths.append(run(folder, config, f"seed{seed}"))
    config["average"]["members"] = [str(path) for path in paths]
    return folder, config, paths


def combine(folder, config):
    average_runs(config, folder / "tables", folder / "split.parquet", folder / "average")
    return folder / "average"


def test_the_density_is_the_mean_of_the_members_chi_by_chi(members):
    folder, config, paths = members
    model = checkpoint.load_model(combine(folder, config)).model
    protein = make_protein(12, seed=5)
    parts = [checkpoint.load_model(path).model.predict(protein) for path in paths]
    density = model.predict(protein)
    num_chi = density.chi_mask.sum(1)
    rows = torch.nonzero(num_chi == 2).squeeze(1)
    chi = torch.rand(len(rows), 4) * 2 * math.pi - math.pi
    total = 0
    for d in range(2):
        # The conditional of chi d is a ratio of two densities, of which one leaves chi d out.
        upto, before = (torch.arange(4).expand(len(rows), -1) < n for n in (d + 1, d))
        conditional = [p.log_prob(chi, upto, rows) - p.log_prob(chi, before, rows) for p in parts]
        total = total + torch.stack(conditional).logsumexp(0) - math.log(2)
    both = torch.arange(4).expand(len(rows), -1) < 2
    # Weights of the average are kept in half precision.
    torch.testing.assert_close(density.log_prob(chi, both, rows), total, atol=2e-2, rtol=1e-2)


def test_an_average_is_a_run_like_any_other(members):
    folder, config, paths = members
    average = combine(folder, config)
    assert verify_run(average) == []
    made = read_json(average / "manifest.json")
    assert {f"members/{p.name}/model.safetensors" for p in paths} <= set(made["inputs"])
    rows = (average / "metrics.csv").read_text().splitlines()
    assert rows[0].split(",") == list(METRICS)
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3", "4"]
    half = (average / "model.safetensors").stat().st_size
    assert half < 1.3 * (paths[0] / "model.safetensors").stat().st_size


def test_members_that_an_earlier_version_trained_have_fewer_figures_an_epoch(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,train_loss,validation_loss\n1,2.5,\n")
    assert _history(path, 3) == [{"epoch": 4.0, "train_loss": 2.5}]


def test_dropout_passes_are_more_members_that_do_not_depend_on_the_batch(members):
    folder, config, paths = members
    config = copy.deepcopy(config)
    config["model"]["dropout"] = 0.3
    config["average"] |= {"members": [str(paths[0])], "dropout_passes": 3}
    model = checkpoint.load_model(combine(folder, config)).model
    proteins = [make_protein(length, seed=length) for length in (12, 30)]
    together = model.encode(collate(proteins)).split([12, 30])
    for protein, own in zip(proteins, together, strict=True):
        alone = model.encode(collate([protein]))
        torch.testing.assert_close(alone, own, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone, model.encode(collate([protein])), atol=0, rtol=0)
    passes = together[1].chunk(3, dim=-1)
    # Every pass is the member with other masks, and none is the member without.
    member = model.members[0]
    plain = checkpoint.load_model(paths[0]).model.encode(collate(proteins)).split([12, 30])[1]
    apart = [float((a - b).norm()) for a, b in itertools.combinations([*passes, plain], 2)]
    assert min(apart) > 0.05 * float(plain.norm())
    density = model.predict(proteins[1])
    parts = [member.head(s, density.chi_mask, density.symmetric) for s in passes]
    rows = torch.nonzero(density.chi_mask.sum(1) == 1).squeeze(1)
    chi, first = torch.rand(len(rows), 4), (torch.arange(4) < 1).expand(len(rows), -1)
    mean = torch.stack([p.log_prob(chi, first, rows) for p in parts]).logsumexp(0) - math.log(3)
    torch.testing.assert_close(density.log_prob(chi, first, rows), mean, atol=1e-4, rtol=1e-4)
    without = model.embed(collate(proteins)).split([12, 30])[1]
    torch.testing.assert_close(without, plain, atol=2e-2, rtol=1e-2)  # half precision


def test_members_of_other_data_are_refused(members, tmp_path):
    _, config, _ = members
    write_tables(tmp_path / "tables", num_entries=9)
    with pytest.raises(QfitLatentError, match=r"trained with another .*parquet"):
        combine(tmp_path, config)


def test_members_that_are_not_there_or_of_another_architecture_are_refused(members):
    folder, config, _ = members
    absent = config | {"average": config["average"] | {"members": [str(folder / "nowhere")]}}
    with pytest.raises(QfitLatentError, match="holds no trained run"):
        combine(folder, absent)
    wider = config | {"model": config["model"] | {"head_hidden": 24}}
    with pytest.raises(QfitLatentError, match="another architecture"):
        combine(folder, wider)
    joint = config | {"model": config["model"] | {"head": "mixture"}}
    with pytest.raises(QfitLatentError, match="can be averaged"):
        combine(folder, joint)
