"""What the figures of an evaluation rest on: settings, and the constants of SPEC 8."""

from dataclasses import asdict, dataclass
from typing import Any

from qfitlatent.density.rows import DISTINCT_DEGREES

MODE_WEIGHT = 0.1
"""Smallest probability mass that makes a predicted mode, fraction."""

MODE_MERGE_DEGREES = 30
"""Components closer than this in every chi are one mode."""

MATCH_DEGREES = 30
"""A mode matches an observed altloc when every chi is this close."""

CHUNK_RESIDUES = 2048
"""Residues scored at once, which bounds memory."""


@dataclass(frozen=True)
class EvaluationSettings:
    """Keys of the section ``evaluate``; meanings and defaults are in the schema."""

    split: str
    bootstrap_samples: int
    num_samples: int
    seed: int
    baselines: tuple[str, ...]
    external: tuple[dict[str, Any], ...]
    predicted_entries: int | None

    def reported(self) -> dict[str, Any]:
        """Settings and constants, as ``metrics.json`` has them."""
        return asdict(self) | {
            "mode_weight": MODE_WEIGHT,
            "mode_merge_degrees": MODE_MERGE_DEGREES,
            "match_degrees": MATCH_DEGREES,
            "distinct_degrees": DISTINCT_DEGREES,
            "chunk_residues": CHUNK_RESIDUES,
        }
