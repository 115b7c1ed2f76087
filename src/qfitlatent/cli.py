"""The command ``qfitlatent``: one subcommand for each thing a user does without the workflow.

Every subcommand imports what it needs when it runs, so that ``--help`` answers at once. Errors of
the user's making are one sentence on standard error and exit status 2.
"""

import argparse
import errno
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qfitlatent import __version__
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.prediction.commands import COMMANDS as OF_PREDICTION
from qfitlatent.questions.commands import COMMANDS as OF_QUESTIONS

Arguments = Callable[[argparse.ArgumentParser], None]


class Command(NamedTuple):
    """A subcommand: its name, what it does, its arguments, and the function that does it."""

    name: str
    about: str
    add_arguments: Arguments
    run: Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 a negative answer, 2 an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without UTF-8, or a file name that is no text, is no reason to stop.
            stream.reconfigure(errors="backslashreplace")
    is_whole_process = arguments is None
    arguments = sys.argv[1:] if arguments is None else arguments
    named = next((word for word in arguments if not word.startswith("-")), "")
    if is_whole_process and any(named == command[0] for command in (*OF_PREDICTION, *OF_QUESTIONS)):
        from qfitlatent.base.lean import without_pandas

        without_pandas()
    options = build_parser(named).parse_args(arguments)
    try:
        status = options.command.run(options)
        sys.stdout.flush()
        return status
    except QfitLatentError as error:
        return _stopped(str(error))
    except BrokenPipeError:
        # The reader of our output has had enough (`| head`); nothing is left to tell it.
        sys.stdout = None
        return 0
    except OSError as error:
        if error.errno not in OF_THE_MACHINE:
            raise
        return _stopped(_of_the_machine(error))
    except MemoryError:
        return _stopped("There is not enough memory: give less at once, or use a larger machine.")
    except KeyboardInterrupt:
        print("qfitlatent: interrupted; what is finished is kept.", file=sys.stderr)
        return 130


OF_THE_MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ENOENT, errno.EIO),
    *(errno.EMFILE, errno.ENFILE, errno.ENXIO, errno.ENODEV, errno.ELOOP),
}
"""Errors of the file system: a path of the user cannot be read or written, the program is well."""


def _of_the_machine(error: OSError) -> str:
    if error.filename is None:
        # What is still buffered cannot be written when the program ends either.
        sys.stdout = None
        return f"The output cannot be written: {error.strerror}."
    where = " ".join(str(error.filename).split())
    return f"{where} cannot be read or written ({error.strerror}): free it or give another path."


def _stopped(sentence: str) -> int:
    print(f"qfitlatent: {sentence}", file=sys.stderr)
    return 2


def build_parser(named: str | None = None) -> argparse.ArgumentParser:
    """The parser with every subcommand, and the arguments of all, or of the ``named`` one alone.

    Arguments whose defaults the configuration has take time to read.
    """
    parser = argparse.ArgumentParser(
        prog="qfitlatent", description="How the side chains of a protein are distributed."
    )
    parser.add_argument("--version", action="version", version=f"qfitlatent {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        sub = subparsers.add_parser(command.name, help=command.about, description=command.about)
        if named in (None, command.name):
            command.add_arguments(sub)
        sub.set_defaults(command=command)
    return parser


def _inspect(options: argparse.Namespace) -> int:
    from qfitlatent.dataset.inspect import inspect_entry

    shown = inspect_entry(options.entry, options.tables, only_multiconformer=options.multiconformer)
    print(shown, end="")
    return 0


def _describe(options: argparse.Namespace) -> int:
    from qfitlatent.dataset.inspect import describe_table

    print(describe_table(options.table), end="")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from qfitlatent.base.provenance import verify_run

    problems = verify_run(options.run)
    print("\n".join(problems or [f"{options.run} is what its manifest says."]))
    return 1 if problems else 0


def _pack(options: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from qfitlatent.dataset.pack import About, pack_data_set

    today = datetime.now(UTC).date()
    about = About(options.title, options.author, options.license, options.version, today)
    written = pack_data_set(options.data, options.out, about)
    print(f"{options.out} holds {len(written)} files, ready for an archive.")
    return 0


def _config(options: argparse.Namespace) -> int:
    from qfitlatent.base import config

    if options.table:
        print(config.option_table())
    else:
        print(config.commented(config.load(options.files)), end="")
    return 0


def _simulate(options: argparse.Namespace) -> int:
    from qfitlatent.base import config
    from qfitlatent.simulate.entry import write_entries
    from qfitlatent.simulate.settings import SimulatorSettings, entry_ids

    settings = config.load(options.config)["simulate"] | {"num_entries": options.entries}
    simulator = config.settings(SimulatorSettings, "simulate", settings)
    seed = config.load({"seed": options.seed})["seed"]
    paths = write_entries(entry_ids(simulator), options.out, simulator, seed)
    print(f"{len(paths)} simulated entries in {options.out}, their truth in {options.out}/truth")
    return 0


def _workflow(options: argparse.Namespace) -> int:
    from qfitlatent.base.project import make_project

    for path in make_project(options.folder):
        print(path)
    print(f"Now: cd {options.folder} && snakemake --cores 2")
    return 0


def _train(options: argparse.Namespace) -> int:
    from qfitlatent.base import config
    from qfitlatent.training.run import train_run

    train_run(
        config.load(options.config),
        options.tables,
        options.split,
        options.run,
        threads=options.threads,
        log=sys.stderr,
    )
    return 0


def _takes(*arguments: tuple[Any, ...]) -> Arguments:
    """A function that adds these arguments: each the flags, and at the end its options."""

    def add(parser: argparse.ArgumentParser) -> None:
        for *flags, options in arguments:
            parser.add_argument(*flags, **options)

    return add


_CONFIG = {"type": Path, "action": "append", "default": [], "help": "YAML file of settings"}
COMMANDS = (
    *(Command(*command) for command in OF_PREDICTION),
    *(Command(*command) for command in OF_QUESTIONS),
    Command(
        "inspect",
        "show an entry's residues and altlocs",
        _takes(
            ("entry", {"help": "a structure file, or an id together with --tables"}),
            ("--tables", {"type": Path, "help": "folder of tables that holds the entry"}),
            ("--multiconformer", {"action": "store_true", "help": "residues with altlocs only"}),
        ),
        _inspect,
    ),
    Command(
        "describe",
        "show a table's columns and units",
        _takes(
            (
                "table",
                {"type": Path, "help": "a Parquet or CSV file, of a data set or a prediction"},
            )
        ),
        _describe,
    ),
    Command(
        "verify",
        "check a run against its manifest",
        _takes(("run", {"type": Path, "help": "a run folder, such as results/runs/simulated"})),
        _verify,
    ),
    Command(
        "pack",
        "pack a data set for publication: tables, split, licence, citation, metadata",
        _takes(
            ("data", {"type": Path, "help": "folder of a data set: results/data/<dataset>"}),
            ("-o", "--out", {"type": Path, "required": True, "help": "folder to make"}),
            ("--title", {"required": True, "help": "what the data set is called"}),
            ("--author", {"action": "append", "default": [], "help": "a name; give it for each"}),
            ("--license", {"default": "CC0-1.0", "help": "CC0-1.0 (default) or CC-BY-4.0"}),
            ("--version", {"default": "1.0.0", "help": "of the data set (default 1.0.0)"}),
        ),
        _pack,
    ),
    Command(
        "config",
        "show a configuration with all its defaults",
        _takes(
            ("files", {"type": Path, "nargs": "*", "help": "YAML files, later over earlier ones"}),
            ("--table", {"action": "store_true", "help": "all options as a Markdown table"}),
        ),
        _config,
    ),
    Command(
        "workflow",
        "lay out a folder of your own for the workflow",
        _takes(("folder", {"type": Path, "help": "a new folder, or one without such files"})),
        _workflow,
    ),
    Command(
        "train",
        "train a model on tables, without the workflow",
        _takes(
            ("--config", _CONFIG),
            ("--tables", {"type": Path, "required": True, "help": "folder of the tables"}),
            ("--split", {"type": Path, "required": True, "help": "split.parquet"}),
            ("--run", {"type": Path, "required": True, "help": "folder of the run"}),
            ("--threads", {"type": int, "default": 1, "help": "threads of each process"}),
        ),
        _train,
    ),
    Command(
        "simulate",
        "write simulated entries",
        _takes(
            ("-n", "--entries", {"type": int, "default": 10, "help": "how many (default 10)"}),
            ("-o", "--out", {"type": Path, "required": True, "help": "folder for the files"}),
            ("--seed", {"type": int, "default": 1, "help": "seed (default 1)"}),
            ("--config", _CONFIG),
        ),
        _simulate,
    ),
)
