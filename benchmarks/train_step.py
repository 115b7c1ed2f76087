"""One training step: of SPEC 6 in named forms of its attention, or of a recipe by two versions.

    python benchmarks/train_step.py [--lengths 128 256 512] [--threads 1] [--repeats 3]
    python benchmarks/train_step.py --against 760b04c [--structures FOLDER] [--repeats 20]

Each form (forms.py) is the same model (embedding, feed-forward, head, loss, AdamW) with only the
attention exchanged.

With ``--against`` the shipped recipe as that commit has it (experiments/real.yaml) is trained by
the package of that commit and by the one at hand, in turns, one thread each: crops of 320 residues
of the first entries of the folder that have as many, or of made-up chains. Both start from the
same seed; without dropout, whose masks differ, their losses are the same.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from forms import compare_forms, exchange_attention, make_parser
from versions import ROOT, version

from helpers.proteins import make_protein
from qfitlatent.base import config as configuration
from qfitlatent.density.loss import nll_sum
from qfitlatent.model.batch import Protein, collate
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.model.network import QFitLatent
from qfitlatent.model.settings import ModelConfig
from qfitlatent.structure.preprocess import read_entry

NUM_PROTEINS = 4


def make_step(name: str, num_residues: int) -> Callable[[], None]:
    """A function that makes one training step: forward, backward, clip, AdamW."""
    torch.manual_seed(0)
    model = QFitLatent(ModelConfig.from_dict(configuration.load()["model"])).train()
    exchange_attention(model, name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    batch = collate([make_protein(num_residues)])

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        density = model(batch)
        observed = (batch.chi, batch.defined, batch.occupancy, batch.row_residue)
        loss, weight = nll_sum(density, *observed)
        (loss / weight).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def crops(folder: Path | None, num_residues: int) -> list[Protein]:
    """Proteins of ``num_residues`` residues."""
    if folder is None:
        return [make_protein(num_residues, seed) for seed in range(NUM_PROTEINS)]
    proteins = []
    for path in sorted(folder.iterdir()):
        try:
            protein = protein_from_tables(read_entry(path, path.name).tables())
        except Exception as error:  # whatever is in the folder
            print(f"{path.name}: {error}", file=sys.stderr)
            continue
        if len(protein) >= num_residues:
            generator = torch.Generator().manual_seed(len(proteins))
            proteins.append(protein.crop(num_residues, generator))
        if len(proteins) == NUM_PROTEINS:
            return proteins
    sys.exit(f"{folder} has not {NUM_PROTEINS} structures of {num_residues} residues.")


def worker(source: Path, *arguments: Path) -> subprocess.Popen[str]:
    """Training steps by the package in ``source`` (recipe_step.py)."""
    environment = os.environ | {"PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        str(Path(__file__).with_name("recipe_step.py")),
        *map(str, arguments),
    ]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)


def ask(process: subprocess.Popen[str], question: str) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(question + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        sys.exit("A version could not train the recipe: see its message above.")
    return float(json.loads(answer))


def compare_versions(commit: str, folder: Path | None, num_residues: int, repeats: int) -> None:
    """Prints residues per second and losses of both versions, and how they differ."""
    with version(commit) as old:
        recipe_path, proteins_path = old / "recipe.json", old / "proteins.pt"
        recipe = yaml.safe_load((old / "experiments/real.yaml").read_text())
        recipe = {name: recipe[name] for name in ("model", "train")}
        known = configuration.load()["train"]
        recipe["train"] = {n: value for n, value in recipe["train"].items() if n in known}
        recipe_path.write_text(json.dumps(recipe))
        proteins = [
            # At 760b04c every residue with two altlocs was a heterogeneous one.
            vars(p) | {"num_distinct": torch.bincount(p.row_residue, minlength=len(p))}
            for p in crops(folder, num_residues)
        ]
        torch.save(proteins, proteins_path)
        versions = {commit: old, "at hand": ROOT}
        workers = {n: worker(p, recipe_path, proteins_path) for n, p in versions.items()}
        answers: dict[str, dict[str, list[float]]]
        answers = {name: {"loss": [], "time": []} for name in workers}
        for question in ["loss"] * repeats + ["time"] * (repeats + 1):
            for name, process in workers.items():
                answers[name][question].append(ask(process, question))
        for process in workers.values():
            process.communicate()
    times = {name: answer["time"][1:] for name, answer in answers.items()}  # the first warms up
    losses = {name: answer["loss"] for name, answer in answers.items()}
    print(f"{num_residues} residues a step, one thread, median of {repeats} interleaved steps")
    print("| version | ms | residues/s | loss of the first step | of the last |")
    print("|---|---|---|---|---|")
    for name in workers:
        middle = statistics.median(times[name])
        first, last = losses[name][0], losses[name][-1]
        speed = num_residues / middle
        print(f"| {name} | {1e3 * middle:.1f} | {speed:.0f} | {first:.6f} | {last:.6f} |")
    pairs = zip(*times.values(), strict=True)
    ratio = statistics.median(before / now for before, now in pairs)
    apart = max(abs(a - b) for a, b in zip(*losses.values(), strict=True))
    print(f"at hand: {ratio:.2f} times the residues a second; losses at most {apart:.1e} apart")


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--structures", type=Path, metavar="FOLDER")
    parser.add_argument("--crop", type=int, default=320)
    options = parser.parse_args()
    if options.against:
        compare_versions(options.against, options.structures, options.crop, options.repeats)
    else:
        compare_forms(make_step, "One training step", options)
