"""What the mixture that predict writes loses of the model's own density, nats per residue.

    python benchmarks/written_mixture.py results/data/real [--model MODEL] [--split validation]
        [--residues 100] [--seed 0]

Both densities are scored on the same observed residues of a part of the split: of every type so
many with one conformer and so many with altlocs, drawn by the seed (0 is all). A type counts by its
share of the whole part; the error is that of the mean over the sample. Beside the loss: the rows of
the mixture table, and, of some whole entries, the time of one thread for the network and for the
mixtures of its densities.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from qfitlatent.chemistry.residues import RESIDUE_TYPES
from qfitlatent.density.protocol import Density
from qfitlatent.model.checkpoint import load_model
from qfitlatent.model.dataset import Dataset

TIMED = 8
"""Every so many entries the time is taken."""


@dataclass
class Lost:
    """Of residues (n,): type, several altlocs, residues of its kind in the part for each sampled,
    nats by the model's density and by the mixture, rows of the table."""

    token: torch.Tensor
    several: torch.Tensor
    stands_for: torch.Tensor
    own: torch.Tensor
    written: torch.Tensor
    rows: torch.Tensor

    def line(self, name: str, mask: torch.Tensor) -> str:
        """A row of the table: weighted means of the residues in mask (n,) bool."""
        share = self.stands_for[mask] / self.stands_for[mask].sum()
        own, written, rows = ((share * x[mask]).sum() for x in (self.own, self.written, self.rows))
        lost = (self.written - self.own)[mask]
        # Strata are types and populations: the variance of a mean is that of its strata's means.
        kind = self.token[mask] * 2 + self.several[mask]
        variance = 0.0
        for one in kind.unique():
            inside = kind == one
            if int(inside.sum()) > 1:
                spread = lost[inside].var() / inside.sum()
                variance += float(share[inside].sum() ** 2 * spread)
        return (
            f"| {name} | {int(mask.sum())} | {own:.3f} | {written:.3f} | {written - own:.3f} "
            f"| {variance**0.5:.3f} | {rows:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of a data set: tables/ and split.parquet")
    parser.add_argument("--model", default=None, help="run folder or model file; default shipped")
    parser.add_argument("--split", default="validation", help="part of the split")
    parser.add_argument("--residues", type=int, default=100, help="of a type and population")
    parser.add_argument("--seed", type=int, default=0, help="which residues")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model).model
    files = (options.data / "tables", options.data / "split.parquet", (options.split,))
    data = Dataset.load(*files)
    shown = [protein.row_residue.unique() for protein in data]
    kinds = [
        2 * protein.token[of] + (torch.bincount(protein.row_residue)[of] > 1)
        for protein, of in zip(data, shown, strict=True)
    ]
    wanted, stands_for = sample(torch.cat(kinds), options.residues, options.seed)
    sizes = [len(of) for of in shown]
    parts, seconds, num_timed = [], torch.zeros(2), 0
    for number, (protein, of, chosen, weight) in enumerate(
        zip(data, shown, wanted.split(sizes), stands_for.split(sizes), strict=True)
    ):
        start = time.process_time()
        density = model.predict(protein)
        if number % TIMED == 0:
            predicted = time.process_time()
            density.as_mixture()
            seconds += torch.tensor([predicted - start, time.process_time() - predicted])
            num_timed += len(protein)
        if chosen.any():
            parts.append((*losses(density, protein, of[chosen]), weight[chosen]))
    token, several, own, written, rows, weight = (torch.cat(x) for x in zip(*parts, strict=True))
    lost = Lost(token, several, weight, own, written, rows)
    print("| residues | sampled | own density | written | lost | standard error | rows a residue |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    groups = {"with altlocs": several, "one conformer": ~several, "all": several | ~several}
    groups |= {name: token == number for number, name in enumerate(RESIDUE_TYPES)}
    for name, mask in groups.items():
        if mask.any():
            print(lost.line(name, mask))
    network, mixture = (1e3 * seconds / num_timed).tolist()
    print(f"\nNetwork {network:.2f} ms a residue, mixture {mixture:.2f}.")


def sample(kind: torch.Tensor, most: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(n,) bool, at most so many residues of each kind (n,), 0 all; how many each stands for."""
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.zeros(len(kind), dtype=torch.bool)
    stands_for = torch.zeros(len(kind))
    for one in kind.unique():
        of = torch.nonzero(kind == one)[:, 0]
        drawn = of[torch.randperm(len(of), generator=generator)[: most or len(of)]]
        wanted[drawn] = True
        stands_for[drawn] = len(of) / len(drawn)
    return wanted, stands_for


def losses(density: Density, protein, chosen: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Of residues chosen (n,) long: type, several altlocs, both NLL, rows of the table."""
    density = density.select(chosen)
    mixture = density.as_mixture()
    number = torch.full((len(protein),), -1)
    number[chosen] = torch.arange(len(chosen))
    at = number[protein.row_residue]
    mine = at >= 0
    at, chi, defined = at[mine], protein.chi[mine], protein.defined[mine]
    nll = [
        torch.zeros(len(chosen)).index_add(
            0, at, -protein.occupancy[mine] * one.log_prob(chi, defined, at)
        )
        for one in (density, mixture)
    ]
    rows = (mixture.log_weight > -torch.inf).sum(1).float()
    return protein.token[chosen], torch.bincount(at) > 1, *nll, rows


if __name__ == "__main__":
    with torch.inference_mode():
        main()
