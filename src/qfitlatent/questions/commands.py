"""The subcommands that answer a question: their arguments, and what they print.

Imports wait until a command runs, so that ``qfitlatent --help`` answers at once.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.prediction.commands import (
    FOLDER,
    add_arguments,
    add_settings,
    asked,
    given_of,
    tell,
)
from qfitlatent.questions.structure_commands import OF_STRUCTURES


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


def _packing(options: argparse.Namespace) -> int:
    from qfitlatent.questions.packing import as_text, score_packing

    ask = asked(options)
    predicted = {path.name: path for path in options.predicted}
    if len(predicted) < len(options.predicted):
        raise QfitLatentError("Two folders of --predicted have the same name: rename one.")
    found = score_packing(
        ask.structures, predicted, options.out, ask.model, ask.settings, sys.stderr
    )
    print(f"model {ask.model.about}")
    print(as_text(found))
    for name in ("learnt_from", "missing"):
        num = sum(getattr(target, f"num_{name}") for target in found.targets.values())
        if num:
            print(f"{num} residues are left out: {_LEFT_OUT[name]}")
    failed = [result for result in found.results if result.error]
    for result in failed:
        print(f"qfitlatent: {result.error}", file=sys.stderr)
    return 2 if any(result.reason != "learnt_from" for result in failed) else 0


_LEFT_OUT = {
    "learnt_from": "the model was trained on their chains",
    "missing": "a method has no side chain there",
}
_PACKING_OWN = (
    (
        "--predicted",
        {
            "action": "append",
            "type": Path,
            "default": [],
            "help": "folder of models by another method, called as the natives; for each one more",
        },
    ),
    ("-o", "--out", {"type": Path, "default": Path("packing.csv"), "help": "CSV file to write"}),
)
COMMANDS: tuple[tuple[Any, ...], ...] = (
    *OF_STRUCTURES,
    ("scan", "give each residue each type, in context", _scan_arguments, _scan),
    (
        "compare-experiment",
        "compare predicted order parameters, couplings and populations with measured ones",
        _experiment_arguments,
        _experiment,
    ),
    (
        "packing",
        "score side chains of native structures as papers on packing do",
        partial(add_arguments, (), _PACKING_OWN),
        _packing,
    ),
)
"""Name, what it does, what adds its arguments, what runs it: as in the commands of prediction."""
