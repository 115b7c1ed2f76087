"""What observed residues are evidence for, and how much each weighs in the density loss.

Shapes: N residues.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError


@dataclass(frozen=True)
class LabelWeights:
    """Keys of the section ``train``; meanings and defaults are in the schema."""

    high_b_weight: float
    unknown_altlocs_weight: float
    cluster_weight_power: float

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LabelWeights":
        """From the section, whose other keys are left out."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})

    def of(self, b_rank: Tensor, unknown: Tensor, cluster_size: Tensor, counts: Tensor) -> Tensor:
        """(N,) weight of each residue, 1 in the mean over those that count.

        b_rank (N,), nan where there is none; unknown (N,) bool, the entry's altlocs are not known;
        cluster_size (N,) training chains of the chain's cluster; counts (N,) bool.
        """
        high = (2 * b_rank - 1).clamp(min=0).nan_to_num()  # 0 for the lower half of the B factors
        weight = 1 - (1 - self.high_b_weight) * high
        weight = weight * torch.where(unknown, self.unknown_altlocs_weight, 1.0)
        weight = weight * cluster_size.to(weight).clamp(min=1) ** -self.cluster_weight_power
        mean = weight[counts].mean() if counts.any() else torch.ones(())
        return weight / mean if mean > 0 else weight


def read_entry_list(path: str | Path) -> list[str]:
    """Column ``entry`` of a CSV table. Raises QfitLatentError where there is none."""
    as_text = pyarrow.csv.ConvertOptions(column_types={"entry": pa.string()})
    try:
        table = pyarrow.csv.read_csv(path, convert_options=as_text)
    except (OSError, pa.ArrowInvalid) as error:
        raise QfitLatentError(
            f"The list of entries {path} cannot be read ({error}): give a CSV table with a column "
            "entry."
        ) from error
    if "entry" not in table.column_names:
        raise QfitLatentError(f"The list of entries {path} has no column entry: add one.")
    return [entry for entry in table["entry"].to_pylist() if entry]


def unknown_entries(names: np.ndarray, path: str | Path | None) -> np.ndarray:
    """(E,) bool: entries whose altlocs the list at ``path`` calls stripped or unknown.

    names (E,) of a whole data set. Raises QfitLatentError where the list names none of them.
    """
    if path is None:
        return np.zeros(len(names), dtype=bool)
    unknown = np.isin(names, read_entry_list(path))
    if not unknown.any():
        raise QfitLatentError(
            f"train.altlocs_unknown is {path}, which names no entry of the data set: write the "
            "entries as the tables have them, or leave the key at null."
        )
    return unknown
