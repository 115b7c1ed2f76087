"""What is set on held-out residues after training, and stands in the header of a model's file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from qfitlatent.density.width import Width
from qfitlatent.model.outputs import Outputs


@dataclass(frozen=True)
class Calibration:
    """One rule for all residues: the density's width, the log odds' line, the B rank's spread."""

    width: Width
    heterogeneous_slope: float = 1.0
    heterogeneous_offset: float = 0.0
    b_rank_spread_scale: float = 1.0

    def outputs(self, outputs: Outputs) -> Outputs:
        """What is said, corrected; a residue without chi stays as it is."""
        logit, slope = outputs.heterogeneous_logit, self.heterogeneous_slope
        return replace(
            outputs,
            heterogeneous_logit=logit * slope + self.heterogeneous_offset,
            b_rank_spread=outputs.b_rank_spread * self.b_rank_spread_scale,
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Calibration:
        """Raises ValueError, TypeError or KeyError for what is no calibration."""
        width = Width(**record["width"])
        calibration = cls(**{**record, "width": width})
        positive = (
            *(width.temperature, width.kappa_scale, width.flat, 1.0 - width.flat),
            *(calibration.heterogeneous_slope, calibration.b_rank_spread_scale),
        )
        if not all(isinstance(x, float) and 0 < x < math.inf for x in positive):
            raise ValueError("a calibration has positive numbers")
        if not math.isfinite(calibration.heterogeneous_offset):
            raise ValueError("an offset is a number")
        return calibration
