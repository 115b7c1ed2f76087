"""One attention layer of SPEC 6, forward and backward, ours against named alternatives.

    python benchmarks/attention.py [--lengths 128 256 512] [--threads 1] [--repeats 3]
    python benchmarks/attention.py --growth [--lengths 100 1000 10000 100000]
    python benchmarks/attention.py --bfloat16 [--lengths 300 1000]

Each form (forms.py) gets what it works on: ours the static pair representation, the others the
tensor (N, N, d_z) made from it, which is not timed. Gradients go to the residues, to all parameters
and to the pair representation.

With ``--growth`` the whole network of experiments/real.yaml (one, with random weights), without
gradients, encodes globules of 100 residues copied out to these lengths: seconds of processor time,
peak memory beyond model and structure in a process of its own, and the exponents of both between a
length and the next. With ``--bfloat16`` the model that ships encodes globules in single precision
and in bfloat16 (autocast): seconds, and how far apart the representations are.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from forms import as_form, compare_forms, explicit, make_parser, peak_extra_mb

from helpers.proteins import copied_out, globule, make_protein
from qfitlatent.base import config as configuration
from qfitlatent.model.batch import collate
from qfitlatent.model.checkpoint import load_model
from qfitlatent.model.geometry import Geometry
from qfitlatent.model.network import QFitLatent
from qfitlatent.model.settings import ModelConfig

RECIPE = Path(__file__).parents[1] / "experiments/real.yaml"
COPIED = 100


def make_pass(name: str, num_residues: int) -> Callable[[], None]:
    """A function that runs the first layer of the model forward and backward."""
    torch.manual_seed(0)
    model = QFitLatent(ModelConfig.from_dict(configuration.load()["model"]))
    batch = collate([make_protein(num_residues)])
    geometry = Geometry(model.config, batch)
    with torch.no_grad():
        s = model.embedding(batch.token)
        pair = model.pair.static(s, geometry)
        if not name.startswith("ours"):
            pair = explicit(pair)
    learned = ("z",) if hasattr(pair, "z") else ("relative", "distance_vector", "left", "right")
    leaves = {n: getattr(pair, n).detach().clone().requires_grad_() for n in learned}
    pair = replace(pair, **leaves)
    s = s.clone().requires_grad_()
    layer = as_form(model.blocks[0].attention, name)
    inputs = [s, *leaves.values(), *layer.parameters()]

    def run() -> None:
        torch.autograd.grad(
            layer(s, batch.rotation, geometry.x, pair).square().sum(), inputs, allow_unused=True
        )

    return run


def make_encoding(_name: str, num_residues: int) -> Callable[[], None]:
    """A function that encodes a large structure by the network with neighbour lists."""
    torch.manual_seed(0)
    recipe = configuration.load([RECIPE])["model"]
    model = QFitLatent(ModelConfig.from_dict(recipe)).eval()
    batch = collate([copied_out(globule(COPIED), math.ceil(num_residues / COPIED))])

    def encode() -> None:
        with torch.inference_mode():
            model.encode(batch)

    return encode


def print_growth(lengths: list[int], threads: int) -> None:
    print(f"Network with neighbour lists, without gradients, {threads} thread(s)")
    print("| residues | s | exponent | peak extra MB | exponent |")
    print("|---|---|---|---|---|")
    before: tuple[int, float, float] | None = None
    for num in lengths:
        encode = make_encoding("", num)
        start = time.process_time()
        encode()
        seconds = time.process_time() - start
        memory = peak_extra_mb(make_encoding, "", num, threads)
        exponents = ["", ""]
        if before:
            further = math.log(num / before[0])
            exponents = [
                f"{math.log(now / then) / further:.2f}"
                for now, then in ((seconds, before[1]), (memory, before[2]))
            ]
        print(f"| {num} | {seconds:.2f} | {exponents[0]} | {memory:.0f} | {exponents[1]} |")
        before = num, seconds, memory


@torch.inference_mode()
def print_bfloat16(lengths: list[int], threads: int) -> None:
    print(f"The model that ships, single precision and bfloat16, {threads} thread(s)")
    print("| residues | single: s | bfloat16: s | difference, of the mean size |")
    print("|---|---|---|---|")
    model = load_model().model
    for num in lengths:
        batch = collate([copied_out(globule(COPIED), math.ceil(num / COPIED))])
        seconds, found = [], []
        for half in (False, True):
            times = []
            for _ in range(4):
                start = time.process_time()
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                    s = model.encode(batch).float()
                times.append(time.process_time() - start)
            seconds.append(min(times))
            found.append(s)
        off = float((found[1] - found[0]).abs().mean() / found[0].abs().mean())
        print(f"| {num} | {seconds[0]:.3f} | {seconds[1]:.3f} | {off:.2%} |")


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--growth", action="store_true")
    options = parser.parse_args()
    if options.bfloat16:
        torch.set_num_threads(options.threads)
        print_bfloat16(options.lengths, options.threads)
        sys.exit()
    if options.growth:
        torch.set_num_threads(options.threads)
        make_encoding("", COPIED)()  # the first call loads code
        print_growth(options.lengths, options.threads)
        sys.exit()
    compare_forms(make_pass, "One attention layer, forward and backward", options)
