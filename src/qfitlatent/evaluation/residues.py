"""The residues that are scored, with what was observed, and their groups."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI, PI_SYMMETRIC, RESIDUE_TYPES
from qfitlatent.density.rows import Observations, Observed
from qfitlatent.tables.columns import CHI_COLUMNS, KEYS, OBSERVED_COLUMNS
from qfitlatent.tables.keys import KeyCodes, observed_rows, positions
from qfitlatent.tables.parquet import read_table

POPULATIONS = ("multiconformer", "single", "all")


RESOLUTION_EDGES = (1.2, 1.5, 1.8, 2.2)


NEIGHBOUR_EDGES = (10, 15, 20, 25)


SPREAD_EDGES_DEGREES = (20, 40, 80)


@dataclass(frozen=True)
class EvaluationSet:
    """Residues with chi and observed altlocs of one part of the split, sorted by key.

    residue_row (N,) row in the residues table; columns holds the covariates of each residue;
    observations its altlocs. altloc (M,) labels.
    """

    observations: Observations
    residue_row: np.ndarray
    columns: pa.Table
    entries: list[str]
    altloc: pa.Array
    num_without_frame: int

    @property
    def num(self) -> int:
        return len(self.residue_row)

    def observed(self, rows: np.ndarray | None = None) -> Observed:
        """All residues, or those of ascending positions ``rows``, for the metrics."""
        o = self.observations
        if rows is not None:
            keep = np.zeros(self.num, dtype=bool)
            keep[rows] = True
            o = o.select(keep)
        return Observed(
            torch.from_numpy(o.chi.astype(np.float32)),
            torch.from_numpy(o.defined),
            torch.from_numpy(o.row_residue),
            torch.from_numpy(o.occupancy.astype(np.float32)),
            torch.from_numpy(CHI_DEFINED[o.token]),
            torch.from_numpy(PI_SYMMETRIC[o.token]),
        )


RESIDUE_COLUMNS = (
    *KEYS, "author_chain", "author_number", "insertion_code", "name", "token", "phi_rad",
    "psi_rad", "num_chi", "num_neighbours", "secondary",
)  # fmt: skip


CONFORMER_COLUMNS = (
    *KEYS, "altloc", "rank", "occupancy_normalised", *CHI_COLUMNS, *OBSERVED_COLUMNS,
)  # fmt: skip


def read_evaluation_set(
    tables_dir: str | Path, split_path: str | Path, split: str
) -> EvaluationSet:
    """The residues of one part of the split. Raises QfitLatentError where there are none."""
    tables_dir = Path(tables_dir)
    residues = read_table(tables_dir / "residues.parquet", list(RESIDUE_COLUMNS))
    conformers = read_table(tables_dir / "conformers.parquet", list(CONFORMER_COLUMNS))
    frames = read_table(tables_dir / "frames.parquet", [*KEYS, "rotation"])
    part = read_table(split_path, ["entry", "chain", "split"])

    key = KeyCodes(residues)
    row_of_key = key.codes(residues)
    in_part = np.isin(
        key.chain_codes(residues), key.chain_codes(part.filter(pc.equal(part["split"], split)))
    )
    framed = np.zeros(len(residues), dtype=bool)
    with_frame = frames.filter(pc.is_valid(frames["rotation"])).select(list(KEYS))
    framed[positions(row_of_key, key.codes(with_frame))] = True

    owner = positions(row_of_key, key.codes(conformers))
    order = np.lexsort((conformers["rank"].to_numpy(), owner))
    conformers, owner = conformers.take(order), owner[order]
    shown, chi, occupancy = observed_rows(conformers, owner)
    has_conformer = np.bincount(owner[shown], minlength=len(residues)) > 0
    usable = in_part & has_conformer & (residues["num_chi"].to_numpy() > 0)
    keep = usable & framed
    if not keep.any():
        raise QfitLatentError(
            f"No residue of the split {split!r} has chi angles in {tables_dir}: "
            "choose another `evaluate.split` or add entries."
        )
    number = np.cumsum(keep) - 1
    in_set = keep[owner[shown]]
    rows, chi = shown[in_set], chi[in_set].astype(np.float64)
    chosen = conformers.take(rows)
    defined = np.isfinite(chi)
    columns = residues.filter(keep)
    names, entry = np.unique(
        columns["entry"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True
    )
    observations = Observations(
        token=columns["token"].to_numpy().astype(np.int64),
        phi_psi=np.stack(
            [columns[n].to_numpy(zero_copy_only=False) for n in ("phi_rad", "psi_rad")], axis=1
        ).astype(np.float64),
        entry=entry,
        row_residue=number[owner[rows]],
        chi=np.where(defined, chi, 0.0),
        defined=defined,
        occupancy=occupancy[in_set].astype(np.float64),
    )
    return EvaluationSet(
        observations,
        np.flatnonzero(keep),
        columns,
        list(names),
        chosen["altloc"].combine_chunks(),
        int((usable & ~framed).sum()),
    )


@dataclass(frozen=True)
class Group:
    """A way to divide the residues: level (N,) number into ``levels``."""

    name: str
    levels: list[str]
    level: np.ndarray


def residue_groups(data: EvaluationSet, resolution: np.ndarray, spread: np.ndarray) -> list[Group]:
    """The divisions of the figures; resolution (E,) angstrom, spread (N,) radians."""
    o, columns = data.observations, data.columns
    conformers = np.minimum(o.num_conformers, 4)
    of_entry = resolution[o.entry]
    unknown = len(RESOLUTION_EDGES) + 1
    strata = np.where(np.isfinite(of_entry), np.digitize(of_entry, RESOLUTION_EDGES), unknown)
    secondary = columns["secondary"].to_numpy(zero_copy_only=False).astype(str)
    shapes, shape = np.unique(secondary, return_inverse=True)
    neighbours = np.digitize(columns["num_neighbours"].to_numpy(), NEIGHBOUR_EDGES)
    apart = np.where(
        o.num_conformers > 1, np.digitize(np.degrees(spread), SPREAD_EDGES_DEGREES) + 1, 0
    )
    return [
        Group("overall", ["all"], np.zeros(data.num, dtype=np.int64)),
        Group("type", list(RESIDUE_TYPES), o.token),
        Group("num_chi", ["1", "2", "3", "4"], NUM_CHI[o.token].astype(np.int64) - 1),
        Group("resolution_angstrom", [*_ranges(RESOLUTION_EDGES), "unknown"], strata),
        Group("num_neighbours", _ranges(NEIGHBOUR_EDGES), neighbours),
        Group("num_conformers", ["1", "2", "3", "4 or more"], conformers - 1),
        Group("altloc_distance_degrees", ["one", *_ranges(SPREAD_EDGES_DEGREES)], apart),
        Group("secondary", list(shapes), shape),
        Group("entry", data.entries, o.entry),
    ]


def _ranges(edges: tuple[float, ...]) -> list[str]:
    middle = [f"{low} to {high}" for low, high in pairwise(edges)]
    return [f"below {edges[0]}", *middle, f"{edges[-1]} or more"]


def population_masks(data: EvaluationSet) -> dict[str, np.ndarray]:
    """(N,) bool for each of ``POPULATIONS``."""
    several = data.observations.num_conformers > 1
    return {"multiconformer": several, "single": ~several, "all": np.ones(data.num, dtype=bool)}


def resolution_of(entries: pa.Table, names: list[str]) -> np.ndarray:
    """(E,) angstrom of the named entries, nan where unknown."""
    at = pc.index_in(pa.array(names), entries["entry"].combine_chunks()).to_numpy(
        zero_copy_only=False
    )
    values = entries["resolution_angstrom"].to_numpy(zero_copy_only=False).astype(float)
    return values[at.astype(int)]


def group_size(data: EvaluationSet) -> dict[str, int]:
    several = data.observations.num_conformers > 1
    return {
        "num_entries": len(data.entries),
        "num_residues": data.num,
        "num_multiconformer": int(several.sum()),
        "num_single": int((~several).sum()),
        "num_altlocs": len(data.observations.row_residue),
        "num_without_frame": data.num_without_frame,
    }
