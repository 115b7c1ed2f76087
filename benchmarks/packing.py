"""Rotamer accuracy as papers on side-chain packing give it, on a folder of native structures.

    python benchmarks/packing.py FOLDER [--model RUN] [--out accuracy.csv]

Share of residues whose chi1, and whose every chi, lie within 20 and 40 degrees of the deposited
altloc of highest occupancy (pi-symmetric angles folded), by the heaviest mode of each residue's
density: pooled over residues and as the mean over targets; all residues, core (at least 20 residues
with CB within 10 angstrom) and surface (at most 15). Chi on atoms without density do not count.
Targets whose chains the model was trained on are named and left out.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import torch

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import PI_SYMMETRIC
from qfitlatent.density.von_mises import circular_distance
from qfitlatent.model.checkpoint import LoadedModel, load_model
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.prediction.records import Unusable, find_structures, read_input

CORE_NEIGHBOURS, SURFACE_NEIGHBOURS = 20, 15
LIMITS_DEGREES = (20, 40)
MIN_WEIGHT, MERGE_RADIANS = 0.1, np.pi / 6
FIGURES = [f"{what}_{limit}" for what in ("chi1", "all") for limit in LIMITS_DEGREES]


def accuracy(loaded: LoadedModel, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(n,4) bool, the figures of each residue with a chi; (n,) residues near each.

    Raises Unusable for a file that cannot be read, or whose chains were all learnt from.
    """
    given = read_input(path)
    protein = protein_from_tables(given.tables)
    residues = given.tables["residues"]
    known = np.zeros(len(residues), bool) if not loaded.learnt else loaded.learnt.rows(residues)
    # The heaviest altloc of a residue stands first.
    first = torch.from_numpy(np.unique(protein.row_residue.numpy(), return_index=True)[1])
    first = first[protein.defined[first, 0]]
    first = first[~torch.from_numpy(known)[protein.residue_row[protein.row_residue[first]]]]
    if not len(first):
        raise Unusable(
            "learnt_from", f"{path}: the model was trained on every chain that shows a chi."
        )
    at = protein.row_residue[first]
    with torch.inference_mode():
        modes = loaded.model.predict(protein).modes(MIN_WEIGHT, MERGE_RADIANS)
    symmetric = torch.from_numpy(PI_SYMMETRIC)[protein.token[at]]
    distance = circular_distance(modes.chi[at, 0], protein.chi[first], symmetric).rad2deg()
    defined = protein.defined[first]
    found = []
    for angles in (slice(0, 1), slice(None)):
        for limit in LIMITS_DEGREES:
            near = (distance[:, angles] <= limit) | ~defined[:, angles]
            found.append(near.all(1))
    neighbours = residues["num_neighbours"].to_numpy()[protein.residue_row[at].numpy()]
    return torch.stack(found, dim=1).numpy(), neighbours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="+", help="folders or files of natives")
    parser.add_argument("--model", help="run folder or model file; default: the shipped one")
    parser.add_argument("--out", type=Path, help="a row a target")
    options = parser.parse_args()
    loaded = load_model(options.model)
    targets: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for path in find_structures(options.folder):
        try:
            targets[path.name] = accuracy(loaded, path)
        except (Unusable, QfitLatentError) as error:
            print(error, file=sys.stderr)
    if not targets:
        sys.exit("No structure could be scored.")
    rows = []
    print(f"| Residues | | targets | residues | {' | '.join(FIGURES)} |")
    print(f"|---|---|---:|---:|{'---:|' * len(FIGURES)}")
    for name, low, high in (
        ("all", 0, np.inf),
        ("core", CORE_NEIGHBOURS, np.inf),
        ("surface", 0, SURFACE_NEIGHBOURS),
    ):
        own = {t: near[(n >= low) & (n <= high)] for t, (near, n) in targets.items()}
        own = {target: near for target, near in own.items() if len(near)}
        if not own:
            continue
        pooled = np.concatenate(list(own.values()))
        by_target = np.stack([near.mean(0) for near in own.values()])
        for kind, values in (("pooled", pooled.mean(0)), ("per target", by_target.mean(0))):
            cells = " | ".join(f"{100 * value:.1f} %" for value in values)
            print(f"| {name} | {kind} | {len(own)} | {len(pooled)} | {cells} |")
        rows += [
            {"target": target, "residues": name, "num": len(near)}
            | dict(zip(FIGURES, near.mean(0).round(4).tolist(), strict=True))
            for target, near in own.items()
        ]
    if options.out:
        with open(options.out, "w", newline="") as file:
            writer = csv.DictWriter(file, ["target", "residues", "num", *FIGURES])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
