"""The residues that are scored, with what was observed, and their groups.

Shapes: N residues, M observed rows (residue x altloc), E entries.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import NUM_CHI, RESIDUE_TYPES
from qfitlatent.density.rows import Observed
from qfitlatent.model.batch import Protein
from qfitlatent.model.dataset import Dataset
from qfitlatent.model.learnt import COLUMNS as LEARNT_COLUMNS
from qfitlatent.model.learnt import Learnt
from qfitlatent.tables.columns import IDS
from qfitlatent.tables.parquet import read_table

RESOLUTION_EDGES = (1.2, 1.5, 1.8, 2.2)
NEIGHBOUR_EDGES = (10, 15, 20, 25)
SPREAD_EDGES_DEGREES = (20, 40, 80)
WELL_DETERMINED = 0.8
"""B rank below which a side chain is well determined (SPEC 3)."""

COVARIATES = (*(column.name for column in IDS), "num_neighbours", "secondary")
"""What is read of the residues beside what the model reads."""


@dataclass(frozen=True)
class EvaluationSet:
    """Residues of one part of the split that show a chi, sorted by key.

    The model reads them through ``dataset``, where they are the rows residue_row (N,) of the
    residues table; columns (N rows) are its ``COVARIATES``. altloc (M,) labels. entries (E,) names.
    learnt_from (entry, chain, residues) are chains left out because the model was trained on them.
    """

    dataset: Dataset
    observed: Observed
    residue_row: Tensor
    columns: pa.Table
    entries: list[str]
    altloc: pa.Array
    learnt_from: pa.Table

    @property
    def num(self) -> int:
        return len(self.observed)

    @property
    def entry(self) -> np.ndarray:
        """(N,) number of each residue's entry."""
        return self.observed.entry.numpy()

    @property
    def several(self) -> np.ndarray:
        """(N,) bool: two or more altlocs."""
        return self.observed.num_conformers.numpy() > 1

    def rows_of(self, protein: Protein) -> np.ndarray:
        """Positions of the residues of one protein of ``dataset``."""
        ends = protein.residue_row[[0, -1]] + torch.tensor([0, 1])
        return np.arange(*torch.searchsorted(self.residue_row, ends).tolist())

    def labels(self, name: str) -> np.ndarray:
        """(N,) heterogeneous or b_rank, nan where it is not known."""
        return self.dataset.labels(name, self.residue_row).numpy()

    @property
    def well_determined(self) -> np.ndarray:
        """(N,) bool: a B rank below ``WELL_DETERMINED``, and every chi observed (SPEC 3)."""
        observed = self.observed
        hidden = observed.chi_mask[observed.row_residue] & ~observed.defined
        seen = observed.sum_rows(hidden.any(1).long()).numpy() == 0
        return seen & (self.labels("b_rank") < WELL_DETERMINED)

    def left_out(self) -> dict[str, Any]:
        """The chains that the model was trained on, and how many residues with a chi they have."""
        chains = sorted(f"{row['entry']} {row['chain']}" for row in self.learnt_from.to_pylist())
        num = sum(self.learnt_from["residues"].to_pylist())
        return {"num_residues": num, "num_chains": len(chains), "chains": chains}

    def size(self) -> dict[str, int]:
        """How much there is, in numbers."""
        return {
            "num_entries": len(self.entries),
            "num_residues": self.num,
            "num_multiconformer": int(self.several.sum()),
            "num_single": int((~self.several).sum()),
            "num_heterogeneous": int((self.observed.num_distinct > 1).sum()),
            "num_altlocs": len(self.observed.row_residue),
            "num_without_frame": self.dataset.num_without_frame,
        }


def read_evaluation_set(
    tables_dir: str | Path,
    split_path: str | Path,
    split: str,
    learnt: Learnt | None = None,
    altlocs_unknown: str | Path | None = None,
) -> EvaluationSet:
    """The residues of one part of the split, without those of chains that a model learnt from.

    altlocs_unknown: list of entries that are no evidence for p_heterogeneous.

    Raises QfitLatentError where there are none.
    """
    dataset = Dataset.load(tables_dir, split_path, (split,), altlocs_unknown=altlocs_unknown)
    observed, residue_row, conformer_row = dataset.observed()
    if not len(observed):
        raise QfitLatentError(
            f"No residue of the split {split!r} has chi angles in {tables_dir}: "
            "choose another `evaluate.split` or add entries."
        )
    residues = read_table(Path(tables_dir) / "residues.parquet", COVARIATES)
    known = np.zeros(len(residues), dtype=bool)
    if learnt is not None:
        sequences = read_table(Path(tables_dir) / "residues.parquet", list(LEARNT_COLUMNS))
        known = learnt.rows(sequences)
    scored = torch.from_numpy(~known)[residue_row]
    if not scored.any():
        raise QfitLatentError(
            f"The model was trained on every chain of the split {split!r} in {tables_dir}, so that "
            "there is nothing to judge it by: choose another `evaluate.split`, or the split that "
            "it was trained with (`split.file`)."
        )
    left_out = residues.take(residue_row[~scored].numpy()).group_by(["entry", "chain"])
    conformer_row = conformer_row[scored[observed.row_residue]]
    observed, residue_row = observed.select(scored), residue_row[scored]
    # Entries without a scored residue are none of those that intervals are drawn from.
    present, entry = observed.entry.unique(return_inverse=True)
    conformers = read_table(Path(tables_dir) / "conformers.parquet", ["altloc"])
    return EvaluationSet(
        dataset,
        replace(observed, entry=entry),
        residue_row,
        residues.take(residue_row.numpy()),
        [dataset.entries[i] for i in present.tolist()],
        conformers["altloc"].take(conformer_row.numpy()),
        left_out.aggregate([("index", "count")]).rename_columns(["entry", "chain", "residues"]),
    )


@dataclass(frozen=True)
class Group:
    """A way to divide the residues: level (N,) number into ``levels``."""

    name: str
    levels: list[str]
    level: np.ndarray


def overall(num: int) -> Group:
    """All residues together."""
    return Group("overall", ["all"], np.zeros(num, dtype=np.int64))


def residue_groups(data: EvaluationSet, resolution: np.ndarray, spread: np.ndarray) -> list[Group]:
    """The divisions of the figures; resolution (E,) angstrom, spread (N,) radians."""
    columns, token = data.columns, data.observed.token.numpy()
    altlocs, distinct = (
        np.clip(counts.numpy(), 1, 4) - 1
        for counts in (data.observed.num_conformers, data.observed.num_distinct)
    )
    of_entry = resolution[data.entry]
    unknown = len(RESOLUTION_EDGES) + 1
    strata = np.where(np.isfinite(of_entry), np.digitize(of_entry, RESOLUTION_EDGES), unknown)
    shapes, shape = np.unique(columns["secondary"].to_numpy().astype(str), return_inverse=True)
    neighbours = np.digitize(columns["num_neighbours"].to_numpy(), NEIGHBOUR_EDGES)
    apart = np.digitize(np.degrees(spread), SPREAD_EDGES_DEGREES) + 1
    return [
        overall(data.num),
        Group("type", list(RESIDUE_TYPES), token),
        Group("num_chi", ["1", "2", "3", "4"], NUM_CHI[token].astype(np.int64) - 1),
        Group("resolution_angstrom", [*_ranges(RESOLUTION_EDGES), "unknown"], strata),
        Group("num_neighbours", _ranges(NEIGHBOUR_EDGES), neighbours),
        Group("num_conformers", ["1", "2", "3", "4 or more"], altlocs),
        Group("num_distinct_conformers", ["1", "2", "3", "4 or more"], distinct),
        Group(
            "altloc_distance_degrees",
            ["one", *_ranges(SPREAD_EDGES_DEGREES)],
            np.where(data.several, apart, 0),
        ),
        Group("well_determined", ["no", "yes"], data.well_determined.astype(np.int64)),
        Group("secondary", list(shapes), shape),
        Group("entry", data.entries, data.entry),
    ]


def _ranges(edges: tuple[float, ...]) -> list[str]:
    middle = [f"{low} to {high}" for low, high in pairwise(edges)]
    return [f"below {edges[0]}", *middle, f"{edges[-1]} or more"]


def population_masks(several: np.ndarray) -> dict[str, np.ndarray]:
    """(N,) bool of each population, those without a residue left out; several (N,) bool."""
    masks = {"multiconformer": several, "single": ~several, "all": np.ones_like(several)}
    return {name: mask for name, mask in masks.items() if mask.any()}


def read_resolutions(tables_dir: str | Path, names: list[str]) -> np.ndarray:
    """(E,) angstrom of the named entries, nan where unknown."""
    columns = ["entry", "resolution_angstrom"]
    entries = read_table(Path(tables_dir) / "entries.parquet", columns)
    at = pc.index_in(pa.array(names), entries["entry"].combine_chunks())
    return entries["resolution_angstrom"].take(at).to_numpy().astype(float)
