"""The subcommands that use a trained model: their arguments, and what they print.

What all of them share has no underscore: the subcommands of ``questions`` are made of it, too.
Imports wait until a command runs, so that ``qfitlatent --help`` answers at once.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.machine import num_cores
from qfitlatent.prediction.settings import (
    FORMATS,
    PredictionSettings,
    failures_table,
    look_list,
)

if TYPE_CHECKING:
    from qfitlatent.model.checkpoint import LoadedModel
    from qfitlatent.prediction.records import Written

MAX_LINES = 20
MAX_THREADS = 1024
EXAMPLE = Path(str(files("qfitlatent").joinpath("data/example.cif.gz")))
"""A small simulated structure; tools/make_example.py writes it."""


class Asked(NamedTuple):
    """What a command line asks for: structures (files and folders), the model, the settings."""

    structures: list[Path]
    model: "LoadedModel"
    settings: PredictionSettings

    @property
    def has_folder(self) -> bool:
        return any(path.is_dir() for path in self.structures)


def add_arguments(
    settings: tuple[str, ...], own: tuple[tuple[Any, ...], ...], parser: argparse.ArgumentParser
) -> None:
    """What all commands share, these keys of the section ``predict`` of the configuration, and own.

    own: of each argument the flags, and at the end its options.
    """
    add_structures(parser)
    add_shared(parser)
    add_settings("predict", ("pattern", *settings, "device", "workers"), parser)
    for *flags, how in own:
        parser.add_argument(*flags, **how)


def add_structures(parser: argparse.ArgumentParser) -> None:
    """The structures that a command takes."""
    parser.add_argument(
        "structures", nargs="*", metavar="STRUCTURE", type=Path, help="PDB or mmCIF file, or folder"
    )
    parser.add_argument("--example", action="store_true", help="the simulated structure that ships")


def add_shared(parser: argparse.ArgumentParser) -> None:
    """What all commands have beside their structures: the model, the threads, writing over."""
    parser.add_argument(
        "--model",
        type=Path,
        help="run folder, model file or name of a published model (default: the model that ships)",
    )
    parser.add_argument("--overwrite", action="store_true", help="write over existing results")
    parser.add_argument(
        "--threads", type=number, help="threads of the network (default: all cores)"
    )


def add_settings(section: str, keys: tuple[str, ...], parser: argparse.ArgumentParser) -> None:
    """An option for each of these keys of a section of the configuration; without it None."""
    from qfitlatent.base import config

    known = config.schema()["properties"][section]["properties"]
    for key in keys:
        name = key.removesuffix("_degrees")
        default = known[key]["default"]
        about = known[key]["description"].rstrip(".").replace("%", "%%")
        flag = f"--{name.replace('_', '-')}"
        if known[key].get("type") == "boolean":
            parser.add_argument(flag, dest=key, action="store_const", const=True, help=about)
            continue
        parser.add_argument(
            flag,
            dest=key,
            type=number,
            metavar=name.upper(),
            help=about if default is None else f"{about} (default {default})",
        )


def number(text: str) -> int | float | str:
    """The number, or the text, which the schema then refuses in words."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def asked(options: argparse.Namespace) -> Asked:
    """What the arguments of ``add_arguments`` name; torch has as many threads as they say.

    Raises QfitLatentError where no structure is named, and for a model or settings of no use.
    """
    structures = [*options.structures, *[EXAMPLE] * options.example]
    if not structures:
        raise QfitLatentError(
            "No structure is named: give PDB or mmCIF files, folders of them, or --example."
        )
    return Asked(structures, *loaded(options))


def loaded(options: argparse.Namespace) -> "tuple[LoadedModel, PredictionSettings]":
    """The model and the settings that the command line names; torch has as many threads.

    Raises QfitLatentError for threads, a model or settings of no use.
    """
    import torch

    from qfitlatent.base import config
    from qfitlatent.model.checkpoint import load_model
    from qfitlatent.model.device import choose_device

    threads = num_cores() if options.threads is None else options.threads
    if not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise QfitLatentError(f"--threads is {threads}, but must be 1 to {MAX_THREADS}.")
    torch.set_num_threads(threads)
    chosen = config.settings(PredictionSettings, "predict", given_of(PredictionSettings, options))
    choose_device(chosen.device)  # before a model is read
    return load_model(options.model), chosen


def given_of(settings: type, options: argparse.Namespace) -> dict[str, Any]:
    """Of the fields of these settings those that the command line gives."""
    given = vars(options)
    keys = [field.name for field in fields(settings)]
    return {key: given[key] for key in keys if given.get(key) is not None}


def tell(
    results: "Sequence[Written]", says: str, failures: Path, model: "LoadedModel", last: str = ""
) -> int:
    """Says what came of each structure, and ``last`` before what failed; returns the exit status.

    says: a format of a result. 0 when every structure could be used, 2 when one could not.
    """
    print(f"model {model.about}")
    failed = [result for result in results if result.error]
    # Of a long list the table of failures and the progress say enough.
    for result in results if len(results) <= MAX_LINES else ():
        if not result.error:
            print("; ".join([f"{result.entry}: {says.format(result)}", *result.notes]))
    if last:
        print(last)
    for result in failed if len(failed) <= MAX_LINES else ():
        print(f"qfitlatent: {result.error}", file=sys.stderr)
    if failed:
        print(
            f"qfitlatent: {len(failed)} of {len(results)} structures could not be used: see "
            f"{failures}",
            file=sys.stderr,
        )
    return 2 if failed else 0


def _run(name: str, says: str, options: argparse.Namespace) -> int:
    """Calls the command with what the command line gives, and says what came of each structure."""
    import qfitlatent

    ask = asked(options)
    given = vars(options)
    how: dict[str, Any] = {key: given[key] for key in ("num", "file_format") if key in given}
    if name != "score":
        # A folder goes on where it stopped; results of single files are not written over unasked.
        how["resume"] = not options.overwrite and ask.has_folder
    function = "predict_files" if name == "predict" else name
    results = getattr(qfitlatent, function)(
        ask.structures,
        options.out,
        ask.model,
        ask.settings,
        overwrite=options.overwrite,
        stream=sys.stderr,
        **how,
    )
    last = ""
    if name == "score":
        num = sum(result.num_looks for result in results)
        last = f"{num} side chains worth a look: see {look_list(options.out)}"
    return tell(results, says, failures_table(name, options.out), ask.model, last)


FOLDER = ("-o", "--out", {"type": Path, "default": Path("."), "help": "folder for the results"})
_TABLE = ("-o", "--out", {"type": Path, "required": True, "help": "Parquet file to write"})
_DRAWS = (
    *("-n", "--number"),
    {"dest": "num", "metavar": "NUMBER", "type": int, "default": 10, "help": "draws (default 10)"},
)
_FORMAT = (
    "--format",
    {
        "dest": "file_format",
        "choices": FORMATS,
        "default": FORMATS[0],
        "help": f"of the models (default {FORMATS[0]})",
    },
)
WHAT = ("residues", "fix", "surroundings", "mutate")
_HOW = ("truncate", "min_confidence", "b_factors", "passes")
_OF_MODES = ("min_weight", "merge_within_degrees")
_OF_ALTLOCS = ("heterogeneous_above", "ambiguous_above")
COMMANDS = (
    (
        "predict",
        "predict side-chain conformers of structures",
        partial(add_arguments, (*WHAT, *_HOW, *_OF_MODES, *_OF_ALTLOCS), (FOLDER,)),
        partial(
            _run,
            "predict",
            "{0.num_residues} residues predicted; {0.num_heterogeneous} with several conformers",
        ),
    ),
    (
        "score",
        "score the conformers of multiconformer structures",
        partial(
            add_arguments, ("surroundings", "look_above", "surprising_above", *_OF_MODES), (_TABLE,)
        ),
        partial(_run, "score", "{0.num_residues} residues scored, {0.num_looks} worth a look"),
    ),
    (
        "sample",
        "draw conformers of structures at random",
        partial(
            add_arguments,
            (*WHAT, "merge_within_degrees", "seed"),
            (_DRAWS, FOLDER, _FORMAT),
        ),
        partial(_run, "sample", "{0.num_residues} residues drawn"),
    ),
    (
        "embed",
        "write the model's representation of each residue",
        partial(add_arguments, ("mutate",), (FOLDER,)),
        partial(_run, "embed", "{0.num_residues} residues embedded"),
    ),
)
"""Name, what it does, its arguments and its function: ``cli.py`` registers them."""
