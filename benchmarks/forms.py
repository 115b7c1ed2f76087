"""The attention of SPEC 6 in five forms, and how the benchmarks time and weigh them.

  ours          one augmented dot product, as training takes it
  ours-blocked  the same in query blocks, saving only the logsumexp, as above 2048 residues
  textbook      tests/textbook.py: every (N, N, H, P, 3) tensor written out
  checkpointed  the textbook form with torch.utils.checkpoint, as upstream implementations run it
  lucidrains    invariant-point-attention from PyPI, if it is installed

The last three get the pair representation as a tensor (N, N, d_z), made once for all layers.
Forms take turns in one process, so that ratios hold when the machine's speed drifts; with one
thread the processor's time counts, which other jobs disturb less. Peak extra memory is measured in
a process of its own for each form and length.
"""

import argparse
import importlib.util
import multiprocessing
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.textbook import attention as textbook_attention
from helpers.textbook import explicit_z
from qfitlatent.model.attention import (
    ExplicitPair,
    InvariantPointAttention,
    StaticPair,
)
from qfitlatent.model.network import QFitLatent

NAMES = ("ours", "ours-blocked", "textbook", "checkpointed", "lucidrains")


class Textbook(nn.Module):
    """Our layer's parameters in the textbook form."""

    def __init__(self, layer: InvariantPointAttention, recompute: bool) -> None:
        super().__init__()
        self.layer, self.recompute = layer, recompute

    def forward(self, s, rotation, x, pair: ExplicitPair):
        arguments = (self.layer, s, rotation, x, pair)
        if self.recompute:
            return checkpoint(textbook_attention, *arguments, use_reentrant=False)
        return textbook_attention(*arguments)


class Lucidrains(nn.Module):
    """``invariant_point_attention.InvariantPointAttention`` with the widths of our layer."""

    def __init__(self, layer: InvariantPointAttention) -> None:
        from invariant_point_attention import InvariantPointAttention as Theirs

        super().__init__()
        self.layer = Theirs(
            dim=layer.project.in_features,
            heads=layer.num_heads,
            scalar_key_dim=layer.head_width,
            scalar_value_dim=layer.head_width,
            point_key_dim=layer.num_query_points,
            point_value_dim=layer.num_value_points,
            pairwise_repr_dim=layer.pair_bias.in_features,
        )

    def forward(self, s, rotation, x, pair: ExplicitPair):
        return self.layer(s, pair.z, rotations=rotation.mT, translations=x, mask=pair.mask[:, 0])


def explicit(pair: StaticPair) -> ExplicitPair:
    return ExplicitPair(explicit_z(pair), None, pair.mask[:, :, None] & pair.mask[:, None])


def as_form(layer: InvariantPointAttention, name: str) -> nn.Module:
    """The layer in this form."""
    if name in ("ours", "ours-blocked"):
        if name == "ours-blocked":
            layer.save_probabilities_below = 0
        return layer
    return Lucidrains(layer) if name == "lucidrains" else Textbook(layer, name == "checkpointed")


def exchange_attention(model: QFitLatent, name: str) -> None:
    """Every attention of the model in this form."""
    for block in model.blocks:
        block.attention = as_form(block.attention, name)
    if not name.startswith("ours"):
        static = model.pair.static
        model.pair.static = lambda *arguments: explicit(static(*arguments))


Make = Callable[[str, int], Callable[[], None]]
"""(form, number of residues) -> what is timed."""


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _peak(make: Make, name: str, num_residues: int, threads: int, out) -> None:
    torch.set_num_threads(threads)
    make(name, 16)()  # loads code and allocator pools
    step = make(name, num_residues)
    base, peak, done = _resident_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], _resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    step()
    done.set()
    watcher.join()
    out.put((peak[0] - base) / 1e6)


def peak_extra_mb(make: Make, name: str, num_residues: int, threads: int) -> float:
    """Peak resident memory of one call beyond model and inputs, MB, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    process = context.Process(target=_peak, args=(make, name, num_residues, threads, out))
    process.start()
    process.join()
    return float("nan") if process.exitcode else out.get()


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """The options of ``compare_forms``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--names", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--no-memory", action="store_true")
    return parser


def compare_forms(make: Make, what: str, options: argparse.Namespace) -> None:
    """Times the forms in turns and prints a table."""
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    names = list(options.names)
    if importlib.util.find_spec("invariant_point_attention") is None and "lucidrains" in names:
        names.remove("lucidrains")
        print("lucidrains: not installed (pip install invariant-point-attention)")
    print(f"{what}: {options.threads} thread(s), median of {options.repeats} interleaved calls")
    print(f"| N | form | ms | {names[0]} is faster by | peak extra MB |")
    print("|---|---|---|---|---|")
    for num in options.lengths:
        calls = {name: make(name, num) for name in names}
        times: dict[str, list[float]] = {name: [] for name in names}
        for call in calls.values():
            call()
        for _ in range(options.repeats):
            for name, call in calls.items():
                start = clock()
                call()
                times[name].append(clock() - start)
        del calls
        for name in names:
            ratio = statistics.median(
                a / b for a, b in zip(times[name], times[names[0]], strict=True)
            )
            memory = (
                ""
                if options.no_memory
                else f"{peak_extra_mb(make, name, num, options.threads):.0f}"
            )
            print(
                f"| {num} | {name} | {1e3 * statistics.median(times[name]):.1f} "
                f"| {ratio:.1f} | {memory} |",
                flush=True,
            )
