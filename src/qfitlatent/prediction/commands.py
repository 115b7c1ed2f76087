"""The subcommands that use a trained model: their arguments, and what they print.

Imports of torch wait until a command runs, so that ``qfitlatent --help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from qfitlatent.base.errors import QfitLatentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qfitlatent.prediction.records import Written


MAX_LINES = 20

EXAMPLE = Path(str(files("qfitlatent").joinpath("data/example.cif.gz")))
"""A small simulated structure; tools/make_example.py writes it."""


def _common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", type=Path, help="run folder or model file (default: the model that ships)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default auto)")
    parser.add_argument("--threads", type=int, help="threads of the network (default: all cores)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all draws (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="write over existing results")


def predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "structures", nargs="*", metavar="STRUCTURE", type=Path, help="PDB or mmCIF file, or folder"
    )
    parser.add_argument(
        "--example", action="store_true", help="predict the simulated structure that ships"
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("."), help="folder for the results")
    parser.add_argument(
        "--min-weight",
        type=float,
        default=0.1,
        help="smallest weight of a mode that becomes an altloc (default 0.1)",
    )
    parser.add_argument(
        "--merge-within",
        type=float,
        default=30.0,
        metavar="DEGREES",
        help="components are one mode when every chi is so near (default 30)",
    )
    parser.add_argument(
        "--entropy-samples", type=int, default=32, help="draws behind each entropy (default 32)"
    )
    parser.add_argument(
        "--workers", type=int, help="processes that read and write (default: by number of files)"
    )
    _common_arguments(parser)


def run_predict(options: argparse.Namespace) -> int:
    """0 when every structure was predicted, 2 when one could not be used.

    A folder goes on where it stopped; results of single files are not written over unasked.
    """
    from qfitlatent.prediction.predict import predict_structures, write_failures

    structures = [*options.structures, *[EXAMPLE] * options.example]
    if not structures:
        raise QfitLatentError(
            "No structure is named: give PDB or mmCIF files, folders of them, or --example."
        )
    _set_threads(options)
    batch = any(path.is_dir() for path in structures)
    results = predict_structures(
        structures,
        options.model,
        options.out,
        min_weight=options.min_weight,
        merge_within_degrees=options.merge_within,
        entropy_samples=options.entropy_samples,
        seed=options.seed,
        overwrite=options.overwrite,
        resume=batch and not options.overwrite,
        workers=options.workers,
        device=options.device,
        stream=sys.stderr if len(structures) > 1 or batch else None,
    )
    if len(results) > 1:
        write_failures(results, options.out)
    # Of a long list the table of failures and the progress say enough.
    for result in results if len(results) <= MAX_LINES else ():
        if not result.error:
            print(f"{result.entry}: {'; '.join([*_counts(result), *result.notes])}")
    return _report(results)


def _counts(result: Written) -> list[str]:
    if not result.num_residues:
        return []
    return [
        f"{result.num_residues} residues predicted",
        f"{result.num_heterogeneous} with several conformers",
    ]


def score_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "structures", nargs="+", metavar="STRUCTURE", type=Path, help="PDB or mmCIF file, or folder"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="Parquet file to write")
    parser.add_argument(
        "--surprising-above",
        type=float,
        default=0.95,
        help="predicted mass of likelier conformers above which one is surprising (default 0.95)",
    )
    parser.add_argument("--workers", type=int, help="processes that read (default: by number)")
    _common_arguments(parser)


def run_score(options: argparse.Namespace) -> int:
    from qfitlatent.prediction.score import score_structures

    _set_threads(options)
    results = score_structures(
        options.structures,
        options.out,
        options.model,
        surprising_above=options.surprising_above,
        seed=options.seed,
        overwrite=options.overwrite,
        workers=options.workers,
        device=options.device,
        stream=sys.stderr if len(options.structures) > 1 else None,
    )
    return _report(results)


def sample_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("structure", metavar="STRUCTURE", type=Path, help="PDB or mmCIF file")
    parser.add_argument("-n", "--number", type=int, default=10, help="draws (default 10)")
    parser.add_argument("-o", "--out", type=Path, default=Path("."), help="folder for the results")
    parser.add_argument(
        "--format", choices=("cif", "pdb"), default="cif", help="of the models (default cif)"
    )
    _common_arguments(parser)


def run_sample(options: argparse.Namespace) -> int:
    from qfitlatent.prediction.sample import sample_structure

    _set_threads(options)
    for path in sample_structure(
        options.structure,
        options.number,
        options.out,
        options.model,
        seed=options.seed,
        file_format=options.format,
        overwrite=options.overwrite,
        device=options.device,
    ):
        print(path)
    return 0


def embed_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("structure", metavar="STRUCTURE", type=Path, help="PDB or mmCIF file")
    parser.add_argument("-o", "--out", type=Path, default=Path("."), help="folder for the results")
    _common_arguments(parser)


def run_embed(options: argparse.Namespace) -> int:
    from qfitlatent.prediction.sample import embed_structure

    _set_threads(options)
    for path in embed_structure(
        options.structure,
        options.out,
        options.model,
        overwrite=options.overwrite,
        device=options.device,
    ):
        print(path)
    return 0


def _set_threads(options: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(max(1, options.threads or len(os.sched_getaffinity(0))))


def _report(results: Sequence[Written]) -> int:
    failed = [result for result in results if result.error]
    for result in failed:
        print(f"qfitlatent: {result.error}", file=sys.stderr)
    return 2 if failed else 0


COMMANDS = (
    ("predict", "predict side-chain conformers of structures", predict_arguments, run_predict),
    ("score", "score the conformers of multiconformer structures", score_arguments, run_score),
    ("sample", "draw conformers of a structure at random", sample_arguments, run_sample),
    ("embed", "write the model's representation of each residue", embed_arguments, run_embed),
)
"""Name, what it does, its arguments and its function: ``cli.py`` registers them."""
