"""The command ``qfitlatent``: one subcommand for each thing a user does without the workflow.

Every subcommand imports what it needs when it runs, so that ``--help`` answers at once. Errors of
the user's making are one sentence on standard error and exit status 2.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.prediction import commands


@dataclass(frozen=True)
class Command:
    """A subcommand: its name, what it does, its arguments, and the function that does it."""

    name: str
    about: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 a negative answer, 2 an error."""
    options = build_parser().parse_args(arguments)
    try:
        return options.command.run(options)
    except QfitLatentError as error:
        print(f"qfitlatent: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output has had enough (`| head`); nothing is left to tell it.
        sys.stdout = None
        return 0
    except KeyboardInterrupt:
        print("qfitlatent: interrupted.", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The parser with every subcommand."""
    parser = argparse.ArgumentParser(
        prog="qfitlatent", description="How the side chains of a protein are distributed."
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        sub = subparsers.add_parser(command.name, help=command.about, description=command.about)
        command.add_arguments(sub)
        sub.set_defaults(command=command)
    return parser


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("entry", help="a structure file, or an id together with --tables")
    parser.add_argument("--tables", type=Path, help="folder of tables that holds the entry")
    parser.add_argument(
        "--multiconformer", action="store_true", help="only residues with two or more conformers"
    )


def _inspect(options: argparse.Namespace) -> int:
    from qfitlatent.dataset.inspect import inspect_entry

    print(
        inspect_entry(
            options.entry, options.tables, only_multiconformer=options.multiconformer
        ).rstrip("\n")
    )
    return 0


def _describe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=Path, help="a Parquet file of a data set")


def _describe(options: argparse.Namespace) -> int:
    from qfitlatent.dataset.inspect import describe_table

    print(describe_table(options.table).rstrip("\n"))
    return 0


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="a run folder, such as results/runs/simulated")


def _verify(options: argparse.Namespace) -> int:
    from qfitlatent.base.provenance import verify_run

    problems = verify_run(options.run)
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{options.run} is what its manifest says.")
    return 1 if problems else 0


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="*", help="YAML files, later over earlier ones")
    parser.add_argument("--table", action="store_true", help="all options as a Markdown table")


def _config(options: argparse.Namespace) -> int:
    from qfitlatent.base import config

    if options.table:
        print(config.option_table())
    else:
        print(config.commented(config.load(options.files)), end="")
    return 0


def _simulate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", "--entries", type=int, default=10, help="how many (default 10)")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--seed", type=int, default=1, help="seed (default 1)")
    parser.add_argument(
        "--config", type=Path, action="append", default=[], help="configuration with simulate:"
    )


def _simulate(options: argparse.Namespace) -> int:
    from qfitlatent.base import config
    from qfitlatent.simulate.entry import write_entries
    from qfitlatent.simulate.settings import SimulatorSettings, entry_ids

    settings = config.load(options.config)["simulate"] | {"num_entries": options.entries}
    simulator = config.settings(SimulatorSettings, "simulate", settings)
    paths = write_entries(entry_ids(simulator), options.out, simulator, options.seed)
    print(f"{len(paths)} simulated entries in {options.out}, their truth in {options.out}/truth")
    return 0


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, action="append", default=[], help="YAML files")
    parser.add_argument("--tables", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--split", type=Path, required=True, help="split.parquet")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run, made if absent")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")


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


COMMANDS = (
    *(Command(*command) for command in commands.COMMANDS),
    Command("inspect", "show an entry's residues and altlocs", _inspect_arguments, _inspect),
    Command("describe", "show a table's columns and units", _describe_arguments, _describe),
    Command("verify", "check a run against its manifest", _verify_arguments, _verify),
    Command("config", "show a configuration with all its defaults", _config_arguments, _config),
    Command("train", "train a model on tables, without the workflow", _train_arguments, _train),
    Command("simulate", "write simulated entries", _simulate_arguments, _simulate),
)
