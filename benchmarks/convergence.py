"""Time to a validation NLL on simulated entries: our training step against the textbook step.

    python benchmarks/convergence.py [--target 1.3] [--entries 60] [--threads 1]

Both trainings are SPEC 6 with the same data, seed, order and schedule; only the attention differs,
and the two compute the same function. They take turns, an epoch each, so that a machine whose
speed drifts slows both; the time of a form is the sum of its own epochs.
"""

import argparse
import io
import sys
import tempfile
import time
from pathlib import Path

import torch
from forms import exchange_attention

from qfitlatent.archive.entries import EntryRef
from qfitlatent.archive.log import log_local_files
from qfitlatent.base import config as configuration
from qfitlatent.base.progress import Progress
from qfitlatent.dataset.split import split_entries
from qfitlatent.model.dataset import Dataset
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import SimulatorSettings, entry_ids
from qfitlatent.structure.preprocess import preprocess_entries
from qfitlatent.training.trainer import Trainer


def make_data(folder: Path, num_entries: int, residues: tuple[int, int]) -> list[Dataset]:
    """Training and validation set of simulated entries."""
    shortest, longest = residues
    given = {
        "num_entries": num_entries,
        "num_families": max(4, num_entries // 4),
        "min_residues": shortest,
        "max_residues": longest,
        "max_chains": 1,
    }
    settings = configuration.settings(SimulatorSettings, "simulate", given)
    paths = write_entries(entry_ids(settings), folder / "entries", settings, seed=1)
    refs = [EntryRef(path.name.split(".")[0], str(path)) for path in paths]
    log_local_files(refs, "simulated", folder / "log.parquet", io.StringIO())
    preprocess_entries(folder / "log.parquet", folder / "tables", stream=io.StringIO())
    fractions = {"train": 0.8, "validation": 0.1, "test": 0.1}
    split = folder / "split.parquet"
    sets = configuration.load({"split": {"fractions": fractions}})["split"]
    split_entries(folder / "tables", split, seed=1, **sets)
    return [Dataset.load(folder / "tables", split, (name,)) for name in ("train", "validation")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--target", type=float, default=1.3, help="validation nll, nats per residue"
    )
    parser.add_argument("--entries", type=int, default=60)
    parser.add_argument("--residues", type=int, nargs=2, default=[240, 300])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = configuration.load(
        {"train": {"epochs": options.epochs, "learning_rate": 1e-3, "device": "cpu"}}
    )
    with tempfile.TemporaryDirectory() as folder:
        train, validation = make_data(Path(folder), options.entries, tuple(options.residues))
    trainers = {
        name: Trainer(config, train, validation, torch.device("cpu"))
        for name in ("ours", "textbook")
    }
    exchange_attention(trainers["textbook"].model, "textbook")
    seconds = dict.fromkeys(trainers, 0.0)
    reached: dict[str, float] = {}
    print("| epoch | ours: nll | seconds | textbook: nll | seconds |")
    print("|---|---|---|---|---|")
    for epoch in range(options.epochs):
        cells = []
        for name, trainer in trainers.items():
            start = time.perf_counter()
            with Progress(len(train), "proteins", io.StringIO()) as progress:
                row = trainer.train_epoch(progress)
            seconds[name] += time.perf_counter() - start
            nll = row["validation_nll_multiconformer"]
            if nll <= options.target:
                reached.setdefault(name, seconds[name])
            cells.append(f"{nll:.3f} | {seconds[name]:.0f}")
        print(f"| {epoch + 1} | {cells[0]} | {cells[1]} |", flush=True)
        if len(reached) == len(trainers):
            break
    if len(reached) < len(trainers):
        sys.exit(f"nll {options.target} was not reached in {options.epochs} epochs.")
    ours, textbook = reached["ours"], reached["textbook"]
    print(
        f"nll {options.target}: ours {ours:.0f} s, textbook {textbook:.0f} s, "
        f"{textbook / ours:.1f} times faster"
    )


if __name__ == "__main__":
    main()
