"""The settings of a prediction; no torch here."""

from dataclasses import dataclass
from pathlib import Path

FORMATS = ("cif", "pdb")
"""Of the models that are sampled, the default first."""

FAILURES = {
    "predict": "failures.csv",
    "sample": "samples.failures.csv",
    "embed": "embedding.failures.csv",
}


def failures_table(command: str, out: Path) -> Path:
    """Where a command says what it could not use: none replaces what another has said.

    In the folder ``out``; that of ``score``, whose ``out`` is a table, is beside it and has its
    name: ``scores.failures.csv`` beside ``scores.parquet``.
    """
    if command == "score":
        return out.parent / f"{out.stem}.failures.csv"
    return out / FAILURES[command]


def look_list(out: Path, suffix: str = ".txt") -> Path:
    """What is worth a look, beside the table ``out`` of scores: to read, or with another suffix."""
    return out.with_name(f"{out.stem}.look{suffix}")


def surroundings_table(out: Path) -> Path:
    """What stood around the side chains, beside the table ``out`` of scores."""
    return out.with_name(f"{out.stem}.surroundings.csv")


@dataclass(frozen=True)
class PredictionSettings:
    """Section ``predict`` of the configuration; meanings, ranges and defaults are in its schema.

    ``base.config.settings(PredictionSettings, "predict", {...})`` makes one.
    """

    pattern: str
    min_weight: float
    merge_within_degrees: float
    heterogeneous_above: float
    ambiguous_above: float
    surroundings: str
    surprising_above: float
    look_above: float
    residues: str | None
    fix: str | None
    mutate: str | None
    truncate: bool
    min_confidence: float
    passes: int
    b_factors: str
    seed: int
    device: str
    workers: int | None
