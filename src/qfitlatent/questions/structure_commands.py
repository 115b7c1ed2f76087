"""The subcommands on several structures: two side by side, and ensembles of backbones.

Imports wait until a command runs, so that ``qfitlatent --help`` answers at once.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from qfitlatent.prediction.commands import (
    FOLDER,
    WHAT,
    add_settings,
    add_shared,
    add_structures,
    asked,
    given_of,
    loaded,
)

_FRAMES = (
    "--frames",
    {"metavar": "START:STOP:STEP", "help": "which models or frames, counted from 0 (default all)"},
)


def _trajectory(flag: str, of: str) -> tuple[Any, ...]:
    about = f"trajectory whose frames count, with {of} as its topology; MDAnalysis reads it"
    return flag, {"type": Path, "metavar": "FILE", "help": about}


_OF_ENSEMBLES = (
    _trajectory("--trajectory", "STRUCTURE"),
    _FRAMES,
    (
        "--weights",
        {
            "type": Path,
            "metavar": "CSV",
            "help": "weights of the models, columns model and weight (default all alike)",
        },
    ),
    (
        "--written",
        {
            "dest": "num_written",
            "metavar": "NUMBER",
            "type": int,
            "default": 20,
            "help": "models with side chains to write, evenly chosen (default 20)",
        },
    ),
    FOLDER,
)
_HOW = (*WHAT, "min_weight", "merge_within_degrees", "heterogeneous_above")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    for name in ("a", "b"):
        about = "structure file, of which all models count, or folder of them"
        parser.add_argument(name, metavar=name.upper(), type=Path, help=about)
    add_shared(parser)
    for flag, of in (("--trajectory-a", "A"), ("--trajectory-b", "B")):
        name, how = _trajectory(flag, of)
        parser.add_argument(name, **how)
    for *flags, how in (_FRAMES, FOLDER):
        parser.add_argument(*flags, **how)
    thresholds = ("observed_above", "predicted_above", "explained_from")
    add_settings("compare_structures", (*thresholds, "coordinate_error_angstrom"), parser)
    add_settings("predict", ("pattern", "seed", "device"), parser)


def _compare(options: argparse.Namespace) -> int:
    from qfitlatent.prediction.settings import PredictionSettings
    from qfitlatent.questions.compare import compare_structures
    from qfitlatent.questions.differences import Thresholds

    model, _ = loaded(options)
    comparison = compare_structures(
        options.a,
        options.b,
        model,
        trajectory_a=options.trajectory_a,
        trajectory_b=options.trajectory_b,
        frames=options.frames,
        stream=sys.stderr,
        **given_of(Thresholds, options),
        **given_of(PredictionSettings, options),
    )
    comparison.write(options.out, overwrite=options.overwrite)
    print(f"model {model.about}")
    counts = ", ".join(f"{num} {decision}" for decision, num in comparison.counts.items())
    print(f"{comparison.name}: {len(comparison.differences)} aligned residues: {counts}")
    return 0


def _add_ensemble(parser: argparse.ArgumentParser) -> None:
    add_structures(parser)
    add_shared(parser)
    for *flags, how in _OF_ENSEMBLES:
        parser.add_argument(*flags, **how)
    add_settings("predict", ("pattern", *_HOW, "device"), parser)


def _ensemble(options: argparse.Namespace) -> int:
    from qfitlatent.questions.ensemble import predict_ensemble

    ask = asked(options)
    made = predict_ensemble(
        ask.structures,
        options.out,
        ask.model,
        ask.settings,
        trajectory=options.trajectory,
        frames=options.frames,
        weights=options.weights,
        num_written=options.num_written,
        overwrite=options.overwrite,
        stream=sys.stderr,
    )
    print(f"model {ask.model.about}")
    counted = f"{made.num_residues} residues predicted on {made.num_models} models"
    print("; ".join([f"{made.name}: {counted}", *made.notes]))
    return 0


OF_STRUCTURES: tuple[tuple[Any, ...], ...] = (
    (
        "compare-structures",
        "show what differs between two structures, and what their backbones explain",
        _add_compare,
        _compare,
    ),
    (
        "ensemble",
        "predict every model or frame, and average the populations",
        _add_ensemble,
        _ensemble,
    ),
)
"""Name, what it does, what adds its arguments, what runs it: as in the commands of prediction."""
