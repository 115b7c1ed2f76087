# What every stage shares: the checked configuration, names of folders, shards, code digests.
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

SOURCE_DIR = Path(workflow.basedir) / "src"
sys.path.insert(0, str(SOURCE_DIR))
# Jobs import the package of this checkout, whatever else is installed, also in environments of
# their own.
os.environ.update(
    PYTHONPATH=os.pathsep.join(filter(None, [str(SOURCE_DIR), os.getenv("PYTHONPATH")]))
)
# Threads that wait must not spin: beside other jobs on the same cores training would stand still.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from qfitlatent.base import config as configuration
from qfitlatent.archive import entries as entry_lists
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.provenance import code_digest

TABLES = ["entries", "residues", "frames", "conformers", "rejected"]


def checked(function, *arguments):
    """The function's result; what is wrong with the user's input ends the run with a sentence."""
    try:
        return function(*arguments)
    except QfitLatentError as error:
        raise WorkflowError(str(error)) from None


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
    return code_digest([f"{workflow.basedir}/workflow/scripts/{rule_name}.py"])


def by_attempt(amount):
    """A resource that grows with each attempt, so that a job killed for memory or time may pass.

    Memory is more than docs/scaling.md measures, by the 400 MB of the two Snakemake processes that
    Slurm counts with each job and by room for larger entries.
    """
    return lambda wildcards, attempt: amount * attempt


def simulated_ids():
    from qfitlatent.simulate.settings import SimulatorSettings
    from qfitlatent.simulate.settings import entry_ids

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
    """(id, path) of the shard's entries; for a user's own files with size and time of change."""
    return [
        [entry.id, entry.path, *_stamp(entry.path)] for entry in shards().get(wildcards.shard, [])
    ]


def _stamp(path):
    """Size and time of change, so that a file that the user replaces is read again."""
    if path is None or not os.path.exists(path):
        return []
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


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
        raise WorkflowError(
            "predict.structures is null: set it to the folder of the structures to predict."
        )
    return config["predict"]["structures"]


def initial_model(wildcards):
    """The weights that training starts from, if any."""
    start = config["train"]["initial_model"]
    if start is None:
        return []
    return start if start.endswith(".safetensors") else f"{start}/model.safetensors"


def num_gpus():
    """GPUs of a training, one for each process; `auto` may find them. The profile limits them."""
    return 0 if config["train"]["device"] == "cpu" else config["train"]["devices"]
