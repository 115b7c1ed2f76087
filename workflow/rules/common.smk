# What every stage shares: the checked configuration, names of folders, shards, and what each stage
# is made from.
import os
import sys
from functools import cache
from pathlib import Path

# The folder that holds this workflow: a checkout, or share/qfitlatent of an installed package. It is
# neither the working directory nor, where another workflow includes this one, workflow.basedir.
HOME = Path(workflow.current_basedir).parents[1]
SOURCE_DIR = HOME / "src"
if SOURCE_DIR.is_dir():
    sys.path.insert(0, str(SOURCE_DIR))
    # Jobs import the package of this checkout, whatever else is installed, also in environments of
    # their own.
    os.environ.update(
        PYTHONPATH=os.pathsep.join(filter(None, [str(SOURCE_DIR), os.getenv("PYTHONPATH")]))
    )
# Threads that wait must not spin: beside other jobs on the same cores training would stand still.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from qfitlatent.base import config as configuration
from qfitlatent.base import made_from as origins
from qfitlatent.archive import entries as entry_lists
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.models import model_path
from qfitlatent.tables.names import TABLES
from qfitlatent.base.provenance import code_digest
from qfitlatent.base.strict_yaml import read_yaml
from qfitlatent.questions.named import check_entries, named_files


def refuse(sentence):
    """Ends the run with a sentence for the user, and no more: where in these files it is noticed is
    nothing to them, and Snakemake would print that of any error that it knows."""
    print(f"qfitlatent: {sentence}", file=sys.stderr)
    sys.exit(2)


def checked(function, *arguments):
    """The function's result; what is wrong with the user's input ends the run with a sentence."""
    try:
        return function(*arguments)
    except QfitLatentError as error:
        refuse(str(error))


# Snakemake keeps the last of a key given twice; reading its files once more refuses that.
for path in getattr(workflow, "configfiles", []):
    checked(read_yaml, path)
config.update(checked(configuration.load, config))

RESULTS = config["results_dir"]
DATA = f"{RESULTS}/data/{config['dataset']}"
RUN = f"{RESULTS}/runs/{config['run']}"
LOGS = f"{RESULTS}/logs/{config['dataset']}/{config['run']}"
BENCHMARKS = f"{RESULTS}/benchmarks/{config['dataset']}/{config['run']}"
DATA_LOGS = f"{RESULTS}/logs/{config['dataset']}"
DATA_BENCHMARKS = f"{RESULTS}/benchmarks/{config['dataset']}"
CACHE = config["download"]["cache"] or f"{RESULTS}/raw"
SOURCE = config["entries"]["source"]
TABLE_FILES = expand(f"{DATA}/tables/{{table}}.parquet", table=TABLES)


wildcard_constraints:
    shard=r"\d{3}",


def code_of(rule_name):
    """Digest of the rule's script and of all code of the package that it runs."""
    return code_digest([HOME / "workflow" / "scripts" / f"{rule_name}.py"])


def by_attempt(amount):
    """A resource that grows with each attempt, so that a job killed for memory or time may pass.

    Memory is more than docs/scaling.md measures, by the 400 MB of the two Snakemake processes that
    Slurm counts with each job and by room for larger entries.
    """
    return lambda wildcards, attempt: amount * attempt


def simulated_ids():
    from qfitlatent.simulate.settings import SimulatorSettings, entry_ids

    return entry_ids(SimulatorSettings(**config["simulate"]))


def selected_shards():
    """Entries by shard. Those of a search are known once the checkpoint has run."""
    found = None
    if SOURCE == "simulated":
        found = checked(simulated_ids)
    elif config["entries"]["search"]:
        listing = checkpoints.search_entries.get().output[0]
        found = [entry.id for entry in entry_lists.read_entry_list(listing, SOURCE)]
    chosen = checked(entry_lists.select_entries, config["entries"], found)
    return entry_lists.shard_entries(chosen, config["entries"]["shards"])


SHARDS = None if config["entries"]["search"] else selected_shards()


def shards():
    return selected_shards() if SHARDS is None else SHARDS


def entries_of_shard(wildcards):
    """(id, path) of the shard's entries; for a user's own files with size and time of change, so
    that a file that is replaced is read again."""
    return [
        [entry.id, entry.path, *origins.file_facts(entry.path)[1:]]
        for entry in shards().get(wildcards.shard, [])
    ]


def of_all_shards(*patterns):
    """An input function: the files of all shards."""
    return lambda wildcards: expand(patterns, shard=shards())


def finished_evaluations(wildcards):
    """Folders of the runs to compare: those named, or all that are finished."""
    runs = config["compare"]["runs"] or sorted(
        path.parent.parent.name for path in Path(RESULTS).glob("runs/*/evaluation/metrics.json")
    )
    return [f"{RESULTS}/runs/{run}/evaluation/metrics.json" for run in runs]


def folder_of_structures(wildcards):
    if config["predict"]["structures"] is None:
        refuse("predict.structures is null: set it to the folder of the structures to predict.")
    return config["predict"]["structures"]


def table_of_measurements(wildcards):
    """The table evaluate.experiment, once it is known that it can be used."""
    path, folder = (config["evaluate"][name] for name in ("experiment", "experiment_structures"))
    if path is None:
        refuse("evaluate.experiment is null: set it to the table of measurements.")
    if folder is None:
        known = {entry.id for entries in shards().values() for entry in entries}
        checked(check_entries, path, known, "an entry of the dataset")
    else:
        checked(named_files, path, folder)
    return path


def model_input(name):
    """The file of a model that the configuration names; no input where it names none."""
    return [] if name is None else str(model_path(name))


def predicting_model(wildcards):
    """The shipped model, that of this run, or another; a simulated one only by its own name."""
    if config["predict"]["model"] != "run":
        return str(model_path(config["predict"]["model"]))
    if SOURCE == "simulated":
        refuse(
            f"predict.model is run, but the run {config['run']} learns from simulated proteins, "
            "which says nothing about real ones: leave predict.model at shipped; or, to use it all "
            f"the same, name it: predict.model: {RUN}"
        )
    return f"{RUN}/model.safetensors"


def tell_where_results_are():
    """After a run: where its pages and tables are, and the figures that matter."""
    from qfitlatent.evaluation.summary import summary

    places = {
        "report": f"{RUN}/evaluation/report.html",
        "audit": f"{DATA}/audit/index.html",
        "tables": f"{DATA}/tables",
        "predictions": f"{RUN}/predictions/summary.csv",
    }
    lines = [f"{name}: {path}" for name, path in places.items() if os.path.exists(path)]
    print(
        "",
        *lines,
        *summary(f"{RUN}/evaluation/metrics.json", f"{RUN}/model.safetensors"),
        "",
        sep="\n",
        file=sys.stderr,
    )


def num_gpus():
    """GPUs of a training, one for each process; `auto` may find them. The profile limits them."""
    return 0 if config["train"]["device"] == "cpu" else config["train"]["devices"]


JUDGES = config["evaluate"]["predicted_entries"] != 0
TRAIN = "average_runs" if config["average"]["members"] else "train_model"
EVALUATED = ["split_entries"] if config["evaluate"]["model"] else [TRAIN]
FETCH = "simulate_entries" if SOURCE == "simulated" else "download_entries"
SHARDED = (FETCH, "preprocess_entries")
# The stages before each stage: what those are made from, it is made from too.
AFTER = {
    "search_entries": [],
    FETCH: [],
    "merge_downloads": [FETCH],
    "preprocess_entries": [FETCH],
    "merge_tables": ["preprocess_entries", "merge_downloads"],
    "split_entries": ["merge_tables"],
    "audit_tables": ["split_entries"],
    TRAIN: ["split_entries"],
    "judge_models": EVALUATED,
    "evaluate_model": ["judge_models"] if JUDGES else EVALUATED,
    "compare_experiment": (
        [TRAIN]
        if config["evaluate"]["model"] is None
        else ["merge_downloads"] if config["evaluate"]["experiment_structures"] is None else []
    ),
    "describe_results": [],
    "compare_runs": [],
    "predict_structures": [TRAIN] if config["predict"]["model"] == "run" else [],
}
# Files of the user's that a stage reads. Of files among the results Snakemake sees the change.
FILES = {
    "split_entries": [config["split"]["file"]],
    "train_model": [
        model_input(config["train"]["initial_model"]),
        config["train"]["altlocs_unknown"],
    ],
    "average_runs": config["average"]["members"],
    "judge_models": [
        model_input(config["evaluate"]["model"]),
        config["train"]["altlocs_unknown"],
    ],
    "evaluate_model": [
        model_input(config["evaluate"]["model"]),
        config["train"]["altlocs_unknown"],
        *(method["path"] for method in config["evaluate"]["external"]),
    ],
    "compare_experiment": [
        model_input(config["evaluate"]["model"]),
        config["evaluate"]["experiment"],
        config["evaluate"]["experiment_structures"],
    ],
    "predict_structures": [
        model_input(config["predict"]["model"] if config["predict"]["model"] != "run" else None),
        config["predict"]["structures"],
    ],
}


@cache
def _facts(rule_name, shard):
    """Settings, code, files and digests of the stages before, of one stage or one shard of it."""
    settings = dict(getattr(rules, rule_name).params.items())
    if "entries" in settings:
        settings["entries"] = [[id, *rest[1:]] for id, *rest in settings["entries"](shard)]
    after = {}
    for before in AFTER[rule_name]:
        wanted = [None] if before not in SHARDED else [shard] if shard else map(Shard, shards())
        for one in wanted:
            after[_stage(before, one)] = origins.digest_of(_facts(before, one))
    files = [
        origins.file_facts(path)
        for path in FILES.get(rule_name, [])
        if path and not Path(path).resolve().is_relative_to(Path(RESULTS).resolve())
    ]
    return {"settings": settings, "files": files, "after": after}


class Shard(str):
    """A shard as wildcards give it."""

    shard = property(str)


def _stage(rule_name, shard):
    return f"{rule_name}.{shard}" if shard else rule_name


def made_from(rule_name, folder):
    """An input function: the record of what the stage is made from, see base/made_from.py."""

    def record(wildcards):
        shard = Shard(wildcards.shard) if rule_name in SHARDED else None
        facts = _facts(rule_name, shard)
        return checked(origins.record, folder, _stage(rule_name, shard), facts)

    return record
