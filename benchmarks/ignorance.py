"""Whether disagreement of dropout passes tells where a model is wrong.

    python benchmarks/ignorance.py DATA [--split validation] [--model RUN] [--passes 8] [--number N]

DATA is the folder of a data set with tables/ and split.parquet. Of residues with altlocs, with one
conformer, and all: mean loss (nll, nats, of the model itself), and the mean loss of the tenth with
most disagreement, of that most unlike the training set, and of that with the highest entropy, as
multiples of it, with 95 % intervals over proteins. Then processor milliseconds a residue of the
passes, of the distance from the training set, and of network and density.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from qfitlatent.evaluation.intervals import bootstrap_weights
from qfitlatent.model.batch import collate
from qfitlatent.model.checkpoint import load_model
from qfitlatent.model.dataset import Dataset
from qfitlatent.model.passes import Passes
from qfitlatent.model.reference import read_reference

RESAMPLES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of a data set")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--model", help="run folder or model file; default: the shipped one")
    parser.add_argument("--passes", type=int, default=8)
    parser.add_argument("--number", type=int, default=30, help="proteins, evenly from all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load_model(options.model)
    model = loaded.model.eval()
    reference, why = read_reference(loaded.path, loaded.about.version)
    if reference is None:
        parser.error(f"{why}: run tools/training_set.py first.")
    passes = Passes(model, options.passes)
    dataset = Dataset.load(
        options.data / "tables", options.data / "split.parquet", (options.split,)
    )
    chosen = np.linspace(0, len(dataset) - 1, min(options.number, len(dataset))).astype(int)
    columns, seconds = [], np.zeros(3)
    for number, at in enumerate(np.unique(chosen).tolist()):
        protein = dataset[at]
        start = time.process_time()
        with torch.inference_mode():
            s = model.encode(collate([protein]))
            density = model.density(s, protein.token)
            entropy = density.entropy().numpy()
        middle = time.process_time()
        apart = passes.disagreement(protein).numpy()
        after = time.process_time()
        unlike = reference.distance(s.numpy(), protein.token.numpy())
        seconds += middle - start, after - middle, time.process_time() - after
        with torch.inference_mode():
            nll = -density.log_prob(protein.chi, protein.defined, protein.row_residue)
        row, weight = protein.row_residue.numpy(), protein.occupancy.numpy()
        shown = protein.defined.any(1).numpy()
        row, weight, nll = row[shown], weight[shown], nll.numpy()[shown]
        total, count = (np.bincount(row, x, len(protein)) for x in (weight, np.ones(len(row))))
        kept = total > 0
        loss = np.bincount(row, weight * nll, len(protein))[kept] / total[kept]
        own = np.stack([loss, *(x[kept] for x in (apart, unlike, entropy, count))], axis=1)
        columns.append(np.column_stack([own, np.full(len(own), number)]))
    loss, apart, unlike, entropy, count, protein_of = np.concatenate(columns).T
    heads = ("tenth of most disagreement", "most unlike the training set", "of highest entropy")
    print(f"| residues | number | mean loss | {' | '.join(heads)} |")
    print("|---|---:|---:|---|---|---|")
    for name, kept in (
        ("with altlocs", count > 1),
        ("one conformer", count == 1),
        ("all", count > 0),
    ):
        cells = [
            multiple(loss[kept], score[kept], protein_of[kept].astype(int))
            for score in (apart, unlike, entropy)
        ]
        print(f"| {name} | {kept.sum()} | {loss[kept].mean():.3f} | {' | '.join(cells)} |")
    encoded, asked, compared = 1000 * seconds / len(loss)
    print(f"{asked:.2f} ms a residue for {passes.num} passes, {encoded:.2f} ms without them")
    print(f"{compared:.4f} ms a residue for the distance from the training set")


def multiple(loss: np.ndarray, score: np.ndarray, protein: np.ndarray) -> str:
    """Mean loss of the tenth that scores highest, divided by that of all, with an interval."""
    if len(loss) < 10:
        return "too few"
    top = score >= np.quantile(score, 0.9)
    num = protein.max() + 1
    weights = bootstrap_weights(num, RESAMPLES, 1)
    sums = [
        np.bincount(protein[kept], values, num)
        for kept in (top, np.ones_like(top))
        for values in (loss[kept], np.ones(kept.sum()))
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = [(weights @ total) / (weights @ size) for total, size in (sums[:2], sums[2:])]
        low, high = np.nanpercentile(drawn[0] / drawn[1], [2.5, 97.5])
    return f"{loss[top].mean() / loss.mean():.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
