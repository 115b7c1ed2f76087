"""`qfitlatent scan`: what it says of native types, how long it takes, how far its regions reach.

python benchmarks/scan.py STRUCTURE ... --natives 20   # ranks of native types, buried changes
python benchmarks/scan.py STRUCTURE --times 50 100 300  # seconds a position; predict --mutate
python benchmarks/scan.py STRUCTURE --regions 16 24 40  # regions against the whole protein

Times are processor seconds of one thread, so that a busy machine does not decide.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import qfitlatent
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import RESIDUE_TYPES
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.model.variants import Variants
from qfitlatent.prediction.interface import shipped
from qfitlatent.prediction.records import read_input
from qfitlatent.prediction.runner import Runner

SMALL = ("GLY", "ALA", "SER", "CYS")
LARGE = ("PHE", "TYR", "TRP", "HIS", "ARG", "LYS", "MET", "LEU", "GLN", "GLU")
BURIED = 20
"""CB within 10 angstrom from which on a residue is called buried."""

RANKED = {
    "fit": 1.0,
    "neighbour_change": 1.0,
    "strain_change": -1.0,
    "energy_change": -1.0,
}
"""What types can be ranked by, and its sign: more is better."""


def names(path: Path, number: int | None, first: int = 0) -> str:
    """So many residues with a backbone, evenly spaced, as --residues takes them; None: all."""
    given = read_input(path)
    rows = np.flatnonzero(given.tables["frames"]["rotation"].is_valid())[first:]
    if number is not None:
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(number, len(rows))).astype(int))]
    residues = given.tables["residues"].take(rows).to_pylist()
    return ",".join(
        f"{r['author_chain']}:{r['author_number']}{r['insertion_code']}" for r in residues
    )


def natives(paths: list[Path], number: int) -> None:
    """Ranks of the native type among all, and small residues made large."""
    scans = []
    for path in paths:
        table = qfitlatent.scan(path, residues=names(path, number)).table.to_pandas()
        scans.append(table)
        print(f"{path.name}: {scans[-1]['is_native'].sum()} positions", flush=True)
    every = pd.concat(scans, ignore_index=True)
    keys = ["entry", "chain", "index"]
    print("\n| ranked by | positions | median rank | upper half | first five | ranks by fours |")
    print("|---|---:|---:|---:|---:|---|")
    for kind, some in (("all", every), ("buried", every[every["burial"] >= BURIED])):
        for name, sign in RANKED.items() if len(some) else ():
            # Of equal values the mean rank counts: a type that changes nothing is none the better.
            rank = (-sign * some[name].round(4)).groupby([some[k] for k in keys]).rank("average")
            own = rank[some["is_native"]]
            fours = 100 * np.histogram(own, np.arange(0.5, 21, 4))[0] / len(own)
            upper, five = (f"{100 * (own <= most).mean():.0f} %" for most in (10.5, 5.5))
            listed = " / ".join(f"{share:.0f}" for share in fours)
            median = f"{own.median():.1f}"
            print(f"| {name}, {kind} | {len(own)} | {median} | {upper} | {five} | {listed} % |")
    print("\n| changes | number | have no room |\n|---|---:|---:|")
    small = every["name"].isin(SMALL)
    large = every["type"].isin(LARGE)
    buried = every["burial"] >= BURIED
    changed = ~every["is_native"]
    for name, chosen in (
        ("small to large, buried", small & large & buried),
        ("small to large, exposed", small & large & ~buried),
        ("large to small, buried", every["name"].isin(LARGE) & every["type"].isin(SMALL) & buried),
        ("all", changed),
    ):
        some = every[chosen & changed]
        share = f"{100 * some['has_no_room'].mean():.1f} %" if len(some) else ""
        print(f"| {name} | {len(some)} | {share} |")


def times(path: Path, numbers: list[int]) -> None:
    """Processor seconds a position, beside those of one prediction a variant."""
    shipped()
    print("| positions | seconds | seconds a position |\n|---:|---:|---:|")
    for number in numbers:
        start = time.process_time()
        scan = qfitlatent.scan(path, residues=names(path, number))
        spent = time.process_time() - start
        num = sum(scan.table["is_native"].to_pylist())
        print(f"| {num} | {spent:.1f} | {spent / num:.3f} |", flush=True)
    residue = names(path, 3).split(",")[1]
    start = time.process_time()
    done = 0
    for name in RESIDUE_TYPES[:5]:
        try:
            qfitlatent.predict(path, mutate=f"{residue}:{name}")
            done += 1
        except QfitLatentError as error:
            print(f"{error}")
    each = 20 * (time.process_time() - start) / done
    print(
        f"\npredict --mutate, one call a type: {each:.1f} s a position, "
        f"{each / (spent / num):.0f} times as long"
    )


def regions(path: Path, sizes: list[int], number: int = 12) -> None:
    """The log density of neighbours' conformers with each region, against that with all."""
    runner, given = Runner(shipped(), None), read_input(path)
    protein = protein_from_tables(given.tables)
    chosen = np.linspace(0, len(protein) - 1, number).astype(int)
    token = torch.arange(len(RESIDUE_TYPES))
    near = {}
    for n in chosen.tolist():
        apart = (protein.translation - protein.translation[n]).norm(dim=1)
        rows = torch.zeros(len(protein), dtype=torch.bool)
        rows[(apart <= 10) & (apart > 0)] = True
        near[n] = rows[protein.row_residue]

    def said(size: int) -> tuple[np.ndarray, float]:
        variants = Variants(runner.model, protein, size)
        (s,) = runner.encode([protein])
        start, values = time.process_time(), []
        for n in chosen.tolist():
            every = s.repeat(len(token), 1, 1)
            every[:, variants.region(n)] = variants.encode(n, token)
            used = near[n]
            for each in every:
                log = runner.density(each, protein.token).log_prob(
                    protein.chi[used], protein.defined[used], protein.row_residue[used]
                )
                values.append(float((log * protein.occupancy[used]).sum()))
        return np.array(values), (time.process_time() - start) / len(values)

    with torch.inference_mode():
        whole, _ = said(len(protein))
        spread = whole.reshape(number, -1).std(axis=1).mean()
        print(f"spread of the types: {spread:.3f} nat\n")
        print("| residues of the region | mean error, nat | largest error, nat |\n|---:|---:|---:|")
        for size in sizes:
            error = np.abs(said(size)[0] - whole)
            print(f"| {size} | {error.mean():.5f} | {error.max():.5f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structures", type=Path, nargs="+")
    parser.add_argument("--natives", type=int, metavar="POSITIONS", help="of each structure")
    parser.add_argument("--times", type=int, nargs="+", metavar="POSITIONS")
    parser.add_argument("--regions", type=int, nargs="+", metavar="RESIDUES")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.natives:
        natives(options.structures, options.natives)
    if options.times:
        times(options.structures[0], options.times)
    if options.regions:
        regions(options.structures[0], options.regions)
