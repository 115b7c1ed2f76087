"""What order parameters, couplings and populations cost, and what the mixture loses of them.

    python benchmarks/order_parameters.py STRUCTURE ... [--model RUN] [--rounds 5] [--draws 4096]

A row a structure, one thread: processor milliseconds of the closed forms (the best of the rounds),
of the density with its mixture and entropy, which a prediction needs anyway, and their ratio; then
by how much S2 and the shares of chi1 differ, in the mean and at most, from those of exact draws of
the density itself.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from qfitlatent.base import config
from qfitlatent.chemistry.observables import kinds, kinds_of
from qfitlatent.density.observables import observables
from qfitlatent.model.checkpoint import load_model
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.prediction.records import find_structures, read_input
from qfitlatent.prediction.runner import Runner
from qfitlatent.prediction.settings import PredictionSettings

SHARP = 1e6
"""Concentration of a draw that stands as a component."""


def milliseconds(step, rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        step()
        best = min(best, time.process_time() - start)
    return 1000.0 * best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structures", nargs="+", type=Path)
    parser.add_argument("--model", help="run folder or model file; default: the shipped one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=4096)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = config.settings(PredictionSettings, "predict", {"device": "cpu"})
    runner = Runner(load_model(options.model), settings)
    print("| structure | residues | this, ms | density, ms | ratio | S2 off by | chi1 off by |")
    print("|---|---:|---:|---:|---:|---|---|")
    for path, entry in find_structures(options.structures).items():
        protein = protein_from_tables(read_input(path).tables)
        (s,) = runner.encode([protein])
        token = protein.token.numpy()

        def needed(s=s, protein=protein):
            density = runner.density(s, protein.token)
            return density.as_mixture(), density.entropy()

        mixture, _ = needed()
        closed = milliseconds(lambda m=mixture, t=token: observables(m, t), options.rounds)
        density = milliseconds(needed, options.rounds)
        draws = runner.density(s, protein.token).sample(
            options.draws, torch.Generator().manual_seed(1)
        )
        equal = torch.full((len(token), options.draws), -np.log(options.draws))
        drawn = type(mixture)(
            equal,
            draws.transpose(0, 1),
            torch.full((len(token), options.draws, 4), SHARP),
            mixture.chi_mask,
            mixture.symmetric,
        )
        apart = np.abs(observables(mixture, token).values - observables(drawn, token).values)
        quantity = np.array([kind.quantity for kind in kinds()])[kinds_of()[token]]
        off = []
        for name in ("S2", "population"):
            values = apart[(quantity == name) & ~np.isnan(apart)]
            off.append(f"{values.mean():.3f}, {values.max():.3f}" if len(values) else "")
        print(
            f"| {entry} | {len(token)} | {closed:.1f} | {density:.1f} | {closed / density:.3f} | "
            f"{' | '.join(off)} |"
        )


if __name__ == "__main__":
    main()
