"""Side chains that are turned at random in deposited structures: how many of them `score` finds.

    python benchmarks/wrong_side_chains.py STRUCTURE ... [--model MODEL] [--share 0.08] [--seed 0]

Turned are side chains with one conformer, all chi observed and a B rank below 0.8 (no prolines,
none that a bond holds), as they stand, about their bonds: by random angles, so that some chi is
more than 40 degrees off; or by thirds of a circle, which puts them on another rotamer. Each file is
scored as deposited and as turned. The rule is that of `--look-above`, here at several values.
"""

import argparse
import tempfile
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd

from qfitlatent.base import config
from qfitlatent.chemistry.building import chi_depth
from qfitlatent.chemistry.geometry import circular_distance, unit
from qfitlatent.chemistry.residues import (
    CHI_DEFINED,
    CHI_PATH,
    PI_SYMMETRIC,
    RESIDUE_TYPES,
    SIDE_CHAIN_ATOMS,
)
from qfitlatent.model.checkpoint import load_model
from qfitlatent.prediction.records import find_structures, read_input
from qfitlatent.prediction.score import score_structures
from qfitlatent.prediction.settings import PredictionSettings
from qfitlatent.structure.coordinates import open_structure

PLACE = ["entry", "author_chain", "author_number", "insertion_code"]
LOOKS = (3.0, 4.0, 5.0, 6.0)
WRONG = np.deg2rad(40.0)
HELD_ANGSTROM = 2.5
"""From a side chain to another residue: a bond holds it, as far as can be told without it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structures", nargs="+", type=Path, help="files or folders")
    parser.add_argument("--model", help="run folder, model file or name")
    parser.add_argument("--share", type=float, default=0.08, help="of the side chains, turned")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = load_model(options.model)
    paths = find_structures(options.structures)
    given = {"device": "cpu", "look_above": min(LOOKS)}
    settings = config.settings(PredictionSettings, "predict", given)
    rng = np.random.default_rng(options.seed)
    groups = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        deposited = looks(list(paths), folder / "deposited.parquet", model, settings)
        good = pd.concat([well_determined(path, entry) for path, entry in paths.items()])
        groups["deposited, all"] = deposited
        groups["deposited, well determined"] = deposited.merge(good, on=PLACE)
        for kind in ("random angles", "another rotamer"):
            written = folder / kind.replace(" ", "_")
            written.mkdir()
            chosen = [turn(p, e, good, written, kind, options.share, rng) for p, e in paths.items()]
            wrong = pd.concat(chosen).assign(wrong=True)
            scored = looks([written], written.with_suffix(".parquet"), model, settings)
            scored = scored.merge(wrong, how="left", on=PLACE)
            is_wrong = scored.pop("wrong").notna()
            groups[f"turned, {kind}"] = scored[is_wrong]
            groups[f"beside these, {kind}"] = scored[~is_wrong]
    print("| side chains | number | " + " | ".join(f"from {x:g} nats" for x in LOOKS) + " |")
    print("|---|---|" + "---|" * len(LOOKS))
    for name, rows in groups.items():
        shares = [f"{100 * (rows['look'] >= x).mean():.1f} %" for x in LOOKS]
        print(f"| {name} | {len(rows)} | " + " | ".join(shares) + " |")


def looks(
    paths: list[Path], out: Path, model: object, settings: PredictionSettings
) -> pd.DataFrame:
    score_structures(paths, out, model, settings)
    scores = pd.read_parquet(out, columns=[*PLACE, "look"])
    return scores.dropna(subset="look")


def well_determined(path: Path, entry: str) -> pd.DataFrame:
    """Places of the side chains that may be turned."""
    tables = {name: table.to_pandas() for name, table in read_input(path, entry).tables.items()}
    residues, conformers = tables["residues"], tables["conformers"]
    rows = conformers.merge(residues, on=["entry", "chain", "index"], suffixes=("", "_residue"))
    observed = rows[[f"chi{d}_observed" for d in range(1, 5)]].fillna(False).to_numpy(dtype=bool)
    whole = (observed == CHI_DEFINED[rows["token"]]).all(axis=1) & (rows["num_chi"] > 0)
    good = whole & (rows["altloc"] == "") & (rows["b_rank"] < 0.8) & (rows["name"] != "PRO")
    return rows.loc[good, PLACE].drop_duplicates(keep=False)


def turn(
    path: Path,
    entry: str,
    good: pd.DataFrame,
    folder: Path,
    kind: str,
    share: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Writes the structure with some side chains turned; returns their places."""
    structure, _ = open_structure(path)
    wanted = set(good.loc[good["entry"] == entry, PLACE[1:]].itertuples(index=False, name=None))
    search = gemmi.NeighborSearch(structure[0], structure.cell, HELD_ANGSTROM)
    search.populate(include_h=False)
    turned = []
    for c, chain in enumerate(structure[0]):
        for r, residue in enumerate(chain):
            place = chain.name, residue.seqid.num, residue.seqid.icode.strip()
            if place not in wanted or rng.random() >= share or residue.name not in RESIDUE_TYPES:
                continue
            if any(is_held(atom, search, (c, r)) for atom in residue):
                continue
            angles = rng.uniform(-np.pi, np.pi, 4)
            if kind == "another rotamer":
                angles = rng.integers(0, 3, 4) * 2 * np.pi / 3
            token = RESIDUE_TYPES.index(residue.name)
            off = circular_distance(angles, np.zeros(4), PI_SYMMETRIC[token])
            if (off > WRONG)[CHI_DEFINED[token]].any():
                rotate(residue, angles)
                turned.append((entry, *place))
    structure.make_mmcif_document().write_file(str(folder / f"{entry}.cif"))
    return pd.DataFrame(turned, columns=PLACE)


def is_held(atom: gemmi.Atom, search: gemmi.NeighborSearch, own: tuple[int, int]) -> bool:
    """Whether an atom beyond CB is as near to an atom of another residue as a bond."""
    if atom.name in ("N", "CA", "C", "O", "CB", "OXT"):
        return False
    near = search.find_atoms(atom.pos, radius=HELD_ANGSTROM)
    return any((mark.chain_idx, mark.residue_idx) != own for mark in near)


def rotate(residue: gemmi.Residue, angles: np.ndarray) -> None:
    """Turns a side chain about the bonds of its chi by angles (4,) radians."""
    token, path = RESIDUE_TYPES.index(residue.name), CHI_PATH[residue.name]
    depth = dict(zip(SIDE_CHAIN_ATOMS[residue.name], chi_depth()[token].tolist(), strict=False))
    place = {atom.name: np.array(atom.pos.tolist()) for atom in residue}
    for d in range(1, len(path) - 2):
        origin, end = place[path[d]], place[path[d + 1]]
        x, y, z = unit(end - origin)
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        turn = np.eye(3) + np.sin(angles[d - 1]) * cross
        turn += (1 - np.cos(angles[d - 1])) * cross @ cross
        for name, last in depth.items():
            if last >= d and name in place:
                place[name] = origin + turn @ (place[name] - origin)
    for atom in residue:
        if atom.name in depth:
            atom.pos = gemmi.Position(*place[atom.name])


if __name__ == "__main__":
    main()
