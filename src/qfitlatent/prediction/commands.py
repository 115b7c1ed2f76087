"""The subcommands that use a trained model: their arguments, and what they print.

Imports wait until a command runs, so that ``qfitlatent --help`` answers at once.
"""

import argparse
import sys
from contextlib import suppress
from dataclasses import fields
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.machine import num_cores
from qfitlatent.prediction.settings import (
    FORMATS,
    PredictionSettings,
    failures_table,
    look_list,
)

MAX_LINES = 20
MAX_THREADS = 1024
EXAMPLE = Path(str(files("qfitlatent").joinpath("data/example.cif.gz")))
"""A small simulated structure; tools/make_example.py writes it."""


def _arguments(
    settings: tuple[str, ...], own: tuple[tuple[Any, ...], ...], parser: argparse.ArgumentParser
) -> None:
    """What all commands share, these keys of the section ``predict`` of the configuration, and own.

    own: of each argument the flags, and at the end its options.
    """
    from qfitlatent.base import config

    parser.add_argument(
        "structures", nargs="*", metavar="STRUCTURE", type=Path, help="PDB or mmCIF file, or folder"
    )
    parser.add_argument("--example", action="store_true", help="the simulated structure that ships")
    parser.add_argument(
        "--model",
        type=Path,
        help="run folder, model file or name of a published model (default: the model that ships)",
    )
    parser.add_argument("--overwrite", action="store_true", help="write over existing results")
    parser.add_argument(
        "--threads", type=_number, help="threads of the network (default: all cores)"
    )
    section = config.schema()["properties"]["predict"]["properties"]
    for key in ("pattern", *settings, "device", "workers"):
        name = key.removesuffix("_degrees")
        default = section[key]["default"]
        about = section[key]["description"].rstrip(".")
        flag = f"--{name.replace('_', '-')}"
        if section[key].get("type") == "boolean":
            parser.add_argument(flag, dest=key, action="store_const", const=True, help=about)
            continue
        parser.add_argument(
            flag,
            dest=key,
            type=_number,
            metavar=name.upper(),
            help=about if default is None else f"{about} (default {default})",
        )
    for *flags, how in own:
        parser.add_argument(*flags, **how)


def _number(text: str) -> int | float | str:
    """The number, or the text, which the schema then refuses in words."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _run(name: str, says: str, options: argparse.Namespace) -> int:
    """Calls the command with what the command line gives, and says what came of each structure.

    0 when every structure could be used, 2 when one could not.
    """
    import torch

    import qfitlatent
    from qfitlatent.base import config
    from qfitlatent.model.checkpoint import load_model
    from qfitlatent.model.device import choose_device

    structures = [*options.structures, *[EXAMPLE] * options.example]
    if not structures:
        raise QfitLatentError(
            "No structure is named: give PDB or mmCIF files, folders of them, or --example."
        )
    threads = num_cores() if options.threads is None else options.threads
    if not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise QfitLatentError(f"--threads is {threads}, but must be 1 to {MAX_THREADS}.")
    torch.set_num_threads(threads)
    given = vars(options)
    keys = {field.name for field in fields(PredictionSettings)}
    settings = {k: value for k, value in given.items() if k in keys and value is not None}
    chosen = config.settings(PredictionSettings, "predict", settings)
    choose_device(chosen.device)  # before a model is read
    model = load_model(options.model)
    how: dict[str, Any] = {key: given[key] for key in ("num", "file_format") if key in given}
    if name != "score":
        # A folder goes on where it stopped; results of single files are not written over unasked.
        how["resume"] = not options.overwrite and any(p.is_dir() for p in options.structures)
    function = "predict_files" if name == "predict" else name
    results = getattr(qfitlatent, function)(
        structures,
        options.out,
        model,
        chosen,
        overwrite=options.overwrite,
        stream=sys.stderr,
        **how,
    )
    print(f"model {model.about}")
    failed = [result for result in results if result.error]
    # Of a long list the table of failures and the progress say enough.
    for result in results if len(results) <= MAX_LINES else ():
        if not result.error:
            print("; ".join([f"{result.entry}: {says.format(result)}", *result.notes]))
    if name == "score":
        num = sum(result.num_looks for result in results)
        print(f"{num} side chains worth a look: see {look_list(options.out)}")
    for result in failed if len(failed) <= MAX_LINES else ():
        print(f"qfitlatent: {result.error}", file=sys.stderr)
    if failed:
        print(
            f"qfitlatent: {len(failed)} of {len(results)} structures could not be used: see "
            f"{failures_table(name, options.out)}",
            file=sys.stderr,
        )
    return 2 if failed else 0


_FOLDER = ("-o", "--out", {"type": Path, "default": Path("."), "help": "folder for the results"})
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
_CRYSTAL = (
    "--crystal-neighbours",
    {
        "action": "store_true",
        "default": None,
        "help": "leave room for neighbours in the crystal",
    },
)
_WHAT = ("residues", "fix", "mutate")
_HOW = ("truncate", "min_confidence", "b_factors")
_OF_MODES = ("min_weight", "merge_within_degrees")
_OF_ALTLOCS = ("heterogeneous_above", "ambiguous_above")
COMMANDS = (
    (
        "predict",
        "predict side-chain conformers of structures",
        partial(_arguments, (*_WHAT, *_HOW, *_OF_MODES, *_OF_ALTLOCS), (_FOLDER, _CRYSTAL)),
        partial(
            _run,
            "predict",
            "{0.num_residues} residues predicted; {0.num_heterogeneous} with several conformers",
        ),
    ),
    (
        "score",
        "score the conformers of multiconformer structures",
        partial(_arguments, ("look_above", "surprising_above", *_OF_MODES), (_TABLE,)),
        partial(_run, "score", "{0.num_residues} residues scored, {0.num_looks} worth a look"),
    ),
    (
        "sample",
        "draw conformers of structures at random",
        partial(
            _arguments,
            (*_WHAT, "merge_within_degrees", "seed"),
            (_DRAWS, _FOLDER, _FORMAT, _CRYSTAL),
        ),
        partial(_run, "sample", "{0.num_residues} residues drawn"),
    ),
    (
        "embed",
        "write the model's representation of each residue",
        partial(_arguments, ("mutate",), (_FOLDER,)),
        partial(_run, "embed", "{0.num_residues} residues embedded"),
    ),
)
"""Name, what it does, its arguments and its function: ``cli.py`` registers them."""
