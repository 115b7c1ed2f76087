"""The subcommands that answer a question: their arguments, and what they print.

Imports wait until a command runs, so that ``qfitlatent --help`` answers at once.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from qfitlatent.prediction.commands import (
    FOLDER,
    add_arguments,
    add_settings,
    asked,
    given_of,
    tell,
)


def _scan_arguments(parser: argparse.ArgumentParser) -> None:
    keys = ("residues", "fix", "surroundings", "min_weight", "merge_within_degrees")
    add_arguments(keys, (FOLDER,), parser)
    add_settings("scan", ("types", "region"), parser)


def _scan(options: argparse.Namespace) -> int:
    from qfitlatent.questions.scan import ScanSettings, scan_structures

    ask = asked(options)
    results = scan_structures(
        ask.structures,
        options.out,
        ask.model,
        ask.settings,
        given_of(ScanSettings, options),
        overwrite=options.overwrite,
        resume=not options.overwrite and ask.has_folder,
        stream=sys.stderr,
    )
    says = "{0.num_residues} positions scanned"
    return tell(results, says, options.out / "scan.failures.csv", ask.model)


def _experiment_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("measured", type=Path, help="CSV file with a row a measurement")
    parser.add_argument(
        "predicted", nargs="+", type=Path, help="folder that predict wrote, or <id>.observables.csv"
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("."), help="folder for the results")
    add_settings("evaluate", ("bootstrap_samples", "seed"), parser)


def _experiment(options: argparse.Namespace) -> int:
    from qfitlatent.base import config
    from qfitlatent.evaluation.settings import EvaluationSettings
    from qfitlatent.questions.experiment import as_text, compare_experiment

    given = given_of(EvaluationSettings, options)
    chosen = config.settings(EvaluationSettings, "evaluate", given)
    compared = compare_experiment(
        options.measured, options.predicted, options.out, chosen.bootstrap_samples, chosen.seed
    )
    print(as_text(compared))
    if compared.num_unpaired:
        print(
            f"{compared.num_unpaired} of {len(compared.pairs)} measurements have no prediction: "
            f"see {options.out / 'experiment.pairs.csv'}"
        )
    return 0


COMMANDS: tuple[tuple[Any, ...], ...] = (
    ("scan", "give each residue each type, in context", _scan_arguments, _scan),
    (
        "compare-experiment",
        "compare predicted order parameters, couplings and populations with measured ones",
        _experiment_arguments,
        _experiment,
    ),
)
"""Name, what it does, what adds its arguments, what runs it: as in the commands of prediction."""
