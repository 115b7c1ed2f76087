"""The configuration: defaults from the schema, and every mistake a sentence that names the key."""

import dataclasses
import datetime
import re
from pathlib import Path

import pytest
import yaml

from qfitlatent.base import config
from qfitlatent.base.errors import QfitLatentError

ROOT = Path(__file__).parents[2]


def leaves(node, prefix=""):
    for key, child in node["properties"].items():
        yield prefix + key, child
        if "properties" in child:
            yield from leaves(child, f"{prefix}{key}.")


def test_every_key_has_a_description_and_every_value_a_default():
    for key, node in leaves(config.schema()):
        assert node["description"].endswith("."), key
        if node.get("type") != "object":
            assert "default" in node, key
        else:
            assert node["additionalProperties"] is False, key


def test_defaults_pass_their_own_schema():
    assert config.load(config.load()) == config.load()


def test_root_configuration_is_the_defaults_with_their_comments():
    """So the file, `qfitlatent config` and docs/options.md, all made from the schema, agree."""
    assert (ROOT / "config.yaml").read_text("utf-8") == config.commented(config.load())


def test_the_shipped_model_is_trained_on_the_data_set_that_is_described():
    data, recipe = (
        yaml.safe_load((ROOT / f"experiments/{n}.yaml").read_text()) for n in ("real/data", "real")
    )
    assert {name: recipe[name] for name in data} == data


@pytest.mark.parametrize("path", sorted(ROOT.glob("experiments/**/*.yaml")), ids=lambda p: p.name)
def test_experiments_are_valid(path):
    config.load([ROOT / "config.yaml", path])


def test_model_defaults_are_those_of_the_specification():
    model, train = config.load()["model"], config.load()["train"]
    expected = {"d_s": 128, "d_z": 32, "num_blocks": 8, "num_heads": 4, "head_width": 8}
    expected |= {"num_query_points": 4, "num_value_points": 8, "num_components": 5}
    expected |= {"kappa_min": 0.01, "dropout": 0.2, "head": "mixture", "mean": "tanh"}
    assert expected.items() <= model.items()
    assert train["learning_rate"] == 3e-4
    assert train["final_learning_rate_fraction"] == 0.01
    assert train["batch_size"] == 1
    assert train["train_on"] == "multiconformer"


def test_later_parts_lie_over_earlier_ones(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("seed: 5\ntrain: {epochs: 7, patience: 2}\n")
    second.write_text("train: {epochs: 8}\n")
    loaded = config.load([first, second, {"run": "x"}])
    assert (loaded["seed"], loaded["run"]) == (5, "x")
    assert (loaded["train"]["epochs"], loaded["train"]["patience"]) == (8, 2)
    assert loaded["train"]["learning_rate"] == 3e-4


def test_loading_changes_neither_the_input_nor_the_schema():
    given = {"split": {"fractions": {"train": 0.6, "validation": 0.2, "test": 0.2}}}
    config.load(given)["entries"]["ids"].append("x")
    assert given == {"split": {"fractions": {"train": 0.6, "validation": 0.2, "test": 0.2}}}
    assert config.load()["entries"]["ids"] == []


def test_defaults_reach_into_lists_and_nullable_sections():
    loaded = config.load(
        {
            "evaluate": {"external": [{"name": "packer", "path": "p.parquet"}]},
            "entries": {"source": "rcsb", "search": {"max_entries": 5}},
        }
    )
    assert loaded["evaluate"]["external"][0]["kind"] == "mixture"
    assert loaded["entries"]["search"]["method"] == "X-RAY DIFFRACTION"
    assert config.load()["entries"]["search"] is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"train": {"learnin_rate": 0.1}}, "train.learnin_rate: did you mean train.learning_rate"),
        ({"learning_rate": 0.1}, "did you mean train.learning_rate"),
        ({"modle": {}}, "modle: did you mean model"),
        ({"zzz": 1}, "zzz: at the top there are dataset"),
        ({"evaluate": {"external": [{"nmae": "x"}]}}, "did you mean evaluate.external.0.name"),
        ({"evaluate": {"external": [{"name": "x"}]}}, "lacks the key path"),
        ({"train": {"epochs": "ten"}}, "train.epochs is 'ten', but must be an integer"),
        ({"train": {"epochs": 1.5}}, "train.epochs is 1.5, but must be an integer"),
        ({"train": {"epochs": True}}, "train.epochs is True, but must be an integer"),
        ({"train": {"learning_rate": "3e-4"}}, "write 3.0e-4"),
        ({"train": {"learning_rate": 0}}, "train.learning_rate is 0, but must be above 0"),
        ({"train": 3}, "train is 3, but must be a section of keys"),
        ({"seed": None}, "seed is None, but must be an integer"),
        ({"entries": {"list": 4}}, "must be null or a text"),
        ({"model": {"head": "mixtur"}}, "did you mean mixture"),
        ({"model": {"dropout": 1.0}}, "must be below 1"),
        ({"dataset": "a/b"}, "dataset is 'a/b'"),
        ({"split": {"fractions": {"train": 0.9}}}, "split.fractions sum to 1.1"),
        ({"entries": {"source": "local"}}, "entries.folder"),
        ({"entries": {"source": "rcsb"}}, "no entry is named"),
        ({"entries": {"source": "url", "ids": ["a"]}}, "download.url is null"),
        ({"train": {"frozen_blocks": 2}}, "train.initial_model is null: name one"),
        ({"average": {"dropout_passes": 2}, "model": {"dropout": 0}}, "needs model.dropout above"),
        # Judged by whole paths, and by other words for the same thing.
        ({"epochs": 3}, "epochs: did you mean train.epochs"),
        ({"gpu": 1}, "did you mean train.device?"),
        ({"model": {"num_layers": 3}}, "did you mean model.num_blocks"),
        ({"predict": {"folder": "x"}}, "did you mean predict.structures"),
        ({"train": {"lr": 0.1}}, "did you mean train.learning_rate"),
        ({"train": {"batch": 2}}, "did you mean train.batch_size"),
        ({"train": {"num_blocks": 2}}, "did you mean model.num_blocks"),
        ({"split": {"seed": 2}}, "split.seed: did you mean seed?"),
        ({"trian": {"epochs": 2}}, "did you mean train?"),
        # What is no number, no integer, no line of text, no date.
        ({"train": {"learning_rate": float("nan")}}, "train.learning_rate is nan, but must be a"),
        ({"split": {"fractions": {"train": float("inf")}}}, "split.fractions.train is inf"),
        ({"train": {"epochs": 10**40}}, "train.epochs is 1000"),
        ({"dataset": "a\n"}, "must be one line of printable text"),
        ({"entries": {"source": "rcsb", "ids": ["1abc\x00"]}}, "entries.ids.0 is"),
        ({"run": "a" * 300}, "but must have at most 100 characters"),
        ({"results_dir": "res{x}"}, "results_dir is 'res{x}'"),
        ({"evaluate": {"baselines": ["uniform"] * 2}}, "names 'uniform' twice"),
        (
            {"entries": {"source": "rcsb", "search": {"released_from": "2020-13-45"}}},
            "entries.search.released_from is '2020-13-45', which is no date",
        ),
    ],
)
def test_mistakes_are_sentences(given, words):
    with pytest.raises(QfitLatentError) as caught:
        config.load(given)
    assert words in str(caught.value)
    assert str(caught.value)[-1] in ".?"
    assert "\n" not in str(caught.value)


MEANT = """
epochs train.epochs | gpu train.device | train.gpu train.device | predict.gpu predict.device
model.num_layers model.num_blocks | model.n_layers model.num_blocks | model.k model.num_components
model.hidden_dim model.d_s | hidden_dim model.d_s | d_model model.d_s | train.dropout model.dropout
predict.folder predict.structures | predict.dir predict.structures | folder entries.folder
predict.path predict.structures | predict.structure predict.structures | path entries.folder
predict.num_workers predict.workers | predict.min_occupancy predict.min_weight
predict.run predict.model | predict.weights predict.model
predict.checkpoint predict.model | evaluate.checkpoint evaluate.model | weights predict.model
lr train.learning_rate | train.learning-rate train.learning_rate | train.l_r train.learning_rate
train.learningRate train.learning_rate | Train train | training train | train.l2 train.weight_decay
train.clip_grad train.gradient_clip | train.fp16 train.precision | train.warm_up train.warmup_steps
train.finetune train.initial_model | pretrained train.initial_model | train.num_gpus train.devices
early_stopping train.patience | train.crop_length train.crop | loss train.density
split.val split.fractions.validation | split.fractions.val split.fractions.validation
split.test split.fractions.test | split.seed seed | split.path split.file | simulate.seed seed
split.min_identity split.sequence_identity | test_fraction split.fractions.test
entries.glob entries.pattern | entries.dir entries.folder | entries.files entries.list
entries.resolution entries.search.max_resolution_angstrom | pattern entries.pattern
entries.search.rfree entries.search.max_r_free | shards entries.shards | mirror download.rcsb_url
entries.search.resolution entries.search.max_resolution_angstrom | timeout download.read_timeout_s
download.cache_dir download.cache | download.parallel download.connections | head model.head
simulate.entries simulate.num_entries | simulate.n simulate.num_entries | altlocs preprocess.max_conformers
average.runs average.members | compare.models compare.runs | evaluate.samples evaluate.num_samples
evaluate.methods evaluate.external | outdir results_dir | experiment_name run | data_dir entries.folder
"""  # fmt: skip # noqa: E501
"""What people write, and the key that they mean."""


@pytest.mark.parametrize("pair", re.split(r"[|\n]", MEANT.strip()))
def test_what_people_write_leads_to_the_key_they_mean(pair):
    written, meant = pair.split()
    given: object = 1
    for part in reversed(written.split(".")):
        given = {part: given}
    with pytest.raises(QfitLatentError, match=re.escape(f"key {written}: did you mean {meant}?")):
        config.load(given)
    assert meant in dict(leaves(config.schema()))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cores": 8}, "cores: the number of cores is an option of Snakemake, `--cores 8`."),
        ({"train": {"threads": 8}}, "the number of cores is an option of Snakemake"),
        ({"train": {"optimizer": "adam"}}, "train.optimizer: the optimiser is always AdamW."),
        ({"train": {"resume": True}}, "goes on when the same command is given again."),
        # No key is like these: no key is named.
        ({"train": {"val_every": 1}}, "train.val_every: in train there are epochs,"),
        ({"simulate": {"x": 1}}, "simulate.x: in simulate there are num_entries,"),
    ],
)
def test_what_is_no_key_at_all_is_not_sent_to_one(given, words):
    with pytest.raises(QfitLatentError) as caught:
        config.load(given)
    assert words in str(caught.value)


def test_a_file_that_is_no_configuration(tmp_path):
    for content, words in [
        (b"a: [", "not valid YAML"),
        (b"- 1\n", "holds no keys"),
        (b"seed: 1\nseed: 2\n", "key seed is given twice"),
        (b"train: {epochs: 2, epochs: 3}\n", "key epochs is given twice"),
        (b"dataset: caf\xe9\n", "not in UTF-8"),
        ("dataset: x\n".encode("utf-16"), "not in UTF-8"),
        (b"x: " + b"[" * 20000 + b"]" * 20000, "nested too deep"),
        (b"entries: &a {ids: [*a]}\n", "references"),
        (
            b"a: &a [1, 1]\n"
            + b"".join(b"%c: &%c [*%c, *%c]\n" % (n, n, n - 1, n - 1) for n in range(98, 123)),
            "references",
        ),
        (b"entries: {search: {released_to: 2021-02-30}}\n", "2021-02-30', which is no date"),
    ]:
        path = tmp_path / "c.yaml"
        path.write_bytes(content)
        with pytest.raises(QfitLatentError, match=words) as caught:
            config.load(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(QfitLatentError, match="is not a file"):
        config.load(tmp_path)
    with pytest.raises(QfitLatentError, match="cannot be read"):
        config.load(tmp_path / "absent.yaml")


def test_whole_numbers_are_integers_and_dates_are_texts(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "entries: {shards: 2.0, source: rcsb, search: {released_from: 2020-01-31}}\n"
        "train: {epochs: 3.0}\n"
    )
    loaded = config.load(path)
    assert type(loaded["entries"]["shards"]) is type(loaded["train"]["epochs"]) is int
    assert loaded["entries"]["search"]["released_from"] == "2020-01-31"
    # Another reader of YAML, such as the workflow's, may have made a date of it.
    given = {"entries": {"source": "rcsb", "search": {"released_from": datetime.date(2020, 1, 31)}}}
    assert config.load(given)["entries"] == loaded["entries"] | {"shards": 4}


@dataclasses.dataclass(frozen=True)
class Clustering:
    sequence_identity: float
    method: str


def test_settings_are_filled_from_the_schema_and_what_is_given():
    split = config.load()["split"]
    assert config.settings(Clustering, "split") == Clustering(
        split["sequence_identity"], split["method"]
    )
    assert config.settings(Clustering, "split", split | {"method": "builtin"}).method == "builtin"
    with pytest.raises(QfitLatentError, match=r"split\.metod: did you mean split.method"):
        config.settings(Clustering, "split", {"metod": "builtin"})
    with pytest.raises(QfitLatentError, match="sequence_identity is 7"):
        config.settings(Clustering, "split", {"sequence_identity": 7})


def test_dump_and_commented_read_back():
    loaded = config.load({"entries": {"source": "rcsb", "search": {"max_entries": 5}}})
    assert yaml.safe_load(config.dump(loaded)) == loaded
    assert yaml.safe_load(config.commented(loaded)) == loaded
