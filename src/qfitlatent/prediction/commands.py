"""The subcommands that use a trained model: their arguments, and what they print.

Imports of torch wait until a command runs, so that ``qfitlatent --help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qfitlatent.base import config
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.machine import num_cores
from qfitlatent.prediction.settings import FORMATS, PredictionSettings

if TYPE_CHECKING:
    from qfitlatent.prediction.records import Written


MAX_LINES = 20
MAX_THREADS = 1024
EXAMPLE = Path(str(files("qfitlatent").joinpath("data/example.cif.gz")))
"""A small simulated structure; tools/make_example.py writes it."""


def _arguments(parser: argparse.ArgumentParser, *settings: str) -> None:
    """What all commands share, and these keys of the section ``predict`` of the configuration."""
    parser.add_argument(
        "structures", nargs="*", metavar="STRUCTURE", type=Path, help="PDB or mmCIF file, or folder"
    )
    parser.add_argument("--example", action="store_true", help="the simulated structure that ships")
    parser.add_argument(
        "--model", type=Path, help="run folder or model file (default: the model that ships)"
    )
    parser.add_argument("--overwrite", action="store_true", help="write over existing results")
    parser.add_argument(
        "--threads", type=_number, help="threads of the network (default: all cores)"
    )
    section = config.schema()["properties"]["predict"]["properties"]
    for key in (*settings, "device", "workers"):
        name = key.removesuffix("_degrees")
        default = section[key]["default"]
        about = section[key]["description"].rstrip(".")
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=key,
            type=_number,
            metavar=name.upper(),
            help=about if default is None else f"{about} (default {default})",
        )


def _number(text: str) -> int | float | str:
    """The number, or the text, which the schema then refuses in words."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _run(
    options: argparse.Namespace, function: Callable[..., Sequence[Written]], **more: Any
) -> Sequence[Written]:
    """Calls it with the paths, settings and model of the command line; says what failed."""
    import torch

    structures = [*options.structures, *[EXAMPLE] * options.example]
    if not structures:
        raise QfitLatentError(
            "No structure is named: give PDB or mmCIF files, folders of them, or --example."
        )
    threads = num_cores() if options.threads is None else options.threads
    if not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise QfitLatentError(f"--threads is {threads}, but must be 1 to {MAX_THREADS}.")
    torch.set_num_threads(threads)
    section = config.schema()["properties"]["predict"]["properties"]
    given = {key: value for key, value in vars(options).items() if key in section}
    del given["structures"], given["model"]
    given = {key: value for key, value in given.items() if value is not None}
    is_long = len(structures) > 1 or structures[0].is_dir()
    return function(
        structures,
        options.out,
        options.model,
        config.settings(PredictionSettings, "predict", given),
        overwrite=options.overwrite,
        stream=sys.stderr if is_long else None,
        **more,
    )


def _resumes(options: argparse.Namespace) -> bool:
    """A folder goes on where it stopped; results of single files are not written over unasked."""
    return not options.overwrite and any(path.is_dir() for path in options.structures)


def _report(results: Sequence[Written], out: Path, say: Callable[[Written], str]) -> int:
    """0 when every structure could be used, 2 when one could not."""
    failed = [result for result in results if result.error]
    # Of a long list the table of failures and the progress say enough.
    for result in results if len(results) <= MAX_LINES else ():
        if not result.error:
            print(f"{result.entry}: {'; '.join(filter(None, [say(result), *result.notes]))}")
    for result in failed if len(failed) <= MAX_LINES else ():
        print(f"qfitlatent: {result.error}", file=sys.stderr)
    if failed:
        print(
            f"qfitlatent: {len(failed)} of {len(results)} structures could not be used: see "
            f"{out / 'failures.csv'}",
            file=sys.stderr,
        )
    return 2 if failed else 0


def predict_arguments(parser: argparse.ArgumentParser) -> None:
    _arguments(parser, "min_weight", "merge_within_degrees", "entropy_samples", "seed")
    parser.add_argument("-o", "--out", type=Path, default=Path("."), help="folder for the results")


def run_predict(options: argparse.Namespace) -> int:
    from qfitlatent.prediction.predict import predict_structures

    results = _run(options, predict_structures, resume=_resumes(options))
    return _report(
        results,
        options.out,
        lambda result: (
            f"{result.num_residues} residues predicted; "
            f"{result.num_heterogeneous} with several conformers"
        ),
    )


def score_arguments(parser: argparse.ArgumentParser) -> None:
    _arguments(parser, "surprising_above", "min_weight", "merge_within_degrees", "seed")
    parser.add_argument("-o", "--out", type=Path, required=True, help="Parquet file to write")


def run_score(options: argparse.Namespace) -> int:
    from qfitlatent.prediction.score import score_structures

    results = _run(options, score_structures)
    return _report(results, options.out.parent, lambda result: f"{result.num_residues} residues")


def sample_arguments(parser: argparse.ArgumentParser) -> None:
    _arguments(parser, "seed")
    parser.add_argument("-n", "--number", type=int, default=10, help="draws (default 10)")
    parser.add_argument("-o", "--out", type=Path, default=Path("."), help="folder for the results")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help=f"of the models (default {FORMATS[0]})",
    )


def run_sample(options: argparse.Namespace) -> int:
    from qfitlatent.prediction.sample import sample_structures

    results = _run(
        options,
        sample_structures,
        num=options.number,
        file_format=options.format,
        resume=_resumes(options),
    )
    return _report(results, options.out, lambda result: f"{result.num_residues} residues drawn")


def embed_arguments(parser: argparse.ArgumentParser) -> None:
    _arguments(parser)
    parser.add_argument("-o", "--out", type=Path, default=Path("."), help="folder for the results")


def run_embed(options: argparse.Namespace) -> int:
    from qfitlatent.prediction.sample import embed_structures

    results = _run(options, embed_structures, resume=_resumes(options))
    return _report(results, options.out, lambda result: f"{result.num_residues} residues embedded")


COMMANDS = (
    ("predict", "predict side-chain conformers of structures", predict_arguments, run_predict),
    ("score", "score the conformers of multiconformer structures", score_arguments, run_score),
    ("sample", "draw conformers of structures at random", sample_arguments, run_sample),
    ("embed", "write the model's representation of each residue", embed_arguments, run_embed),
)
"""Name, what it does, its arguments and its function: ``cli.py`` registers them."""
