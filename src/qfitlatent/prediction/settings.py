"""The settings of a prediction; no torch here."""

from dataclasses import dataclass

FORMATS = ("cif", "pdb")
"""Of the models that are sampled, the default first."""


@dataclass(frozen=True)
class PredictionSettings:
    """Section ``predict`` of the configuration; meanings, ranges and defaults are in its schema.

    ``base.config.settings(PredictionSettings, "predict", {...})`` makes one.
    """

    min_weight: float
    merge_within_degrees: float
    entropy_samples: int
    surprising_above: float
    seed: int
    device: str
    workers: int | None
