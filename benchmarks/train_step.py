"""One training step of SPEC 6, ours against named alternatives of the same attention.

    python benchmarks/train_step.py [--lengths 128 256 512] [--threads 1] [--repeats 3]

Each alternative is the same model (embedding, feed-forward, head, loss, AdamW) with only the
attention exchanged, run in turn in one process, so that ratios hold when the machine's speed
drifts. Peak extra memory is measured in a process of its own for each (alternative, length).

  ours          one augmented dot product, attention weights kept
  ours-blocked  the same in query blocks, saving only the logsumexp
  textbook      tests/textbook.py: every (N, N, H, P, 3) tensor written out
  checkpointed  the textbook form with torch.utils.checkpoint, as upstream implementations run it
  lucidrains    invariant-point-attention from PyPI, if it is installed
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import sys
import threading
import time
from pathlib import Path

import torch
from torch.utils.checkpoint import checkpoint

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from proteins import make_protein
from textbook import attention as textbook_attention
from textbook import explicit_z

from qfitlatent import config as configuration
from qfitlatent.attention import StaticPair
from qfitlatent.dataset import collate
from qfitlatent.mixture import mixture_nll
from qfitlatent.model import ModelConfig, QFitLatent

NAMES = ("ours", "ours-blocked", "textbook", "checkpointed", "lucidrains")


class Textbook(torch.nn.Module):
    """Our layer's parameters in the textbook form."""

    def __init__(self, layer: torch.nn.Module, recompute: bool) -> None:
        super().__init__()
        self.layer, self.recompute = layer, recompute

    def forward(self, s, rotation, x, pair: StaticPair):
        if self.recompute:
            return checkpoint(
                textbook_attention, self.layer, s, rotation, x, pair, use_reentrant=False
            )
        return textbook_attention(self.layer, s, rotation, x, pair)


class Lucidrains(torch.nn.Module):
    """``invariant_point_attention.InvariantPointAttention`` with our widths and pair tensor."""

    def __init__(self, settings: dict) -> None:
        from invariant_point_attention import InvariantPointAttention

        super().__init__()
        self.layer = InvariantPointAttention(
            dim=settings["d_s"],
            heads=settings["num_heads"],
            scalar_key_dim=settings["head_width"],
            scalar_value_dim=settings["head_width"],
            point_key_dim=settings["num_query_points"],
            point_value_dim=settings["num_value_points"],
            pairwise_repr_dim=settings["d_z"],
        )

    def forward(self, s, rotation, x, pair: StaticPair):
        return self.layer(
            s, explicit_z(pair), rotations=rotation.mT, translations=x, mask=pair.mask
        )


def make_step(name: str, num_residues: int):
    """A function that makes one training step."""
    settings = configuration.load()["model"]
    settings["attention"] = "blocked" if name == "ours-blocked" else "fused"
    torch.manual_seed(0)
    model = QFitLatent(ModelConfig.from_dict(settings)).train()
    for block in model.blocks:
        if name in ("textbook", "checkpointed"):
            block.attention = Textbook(block.attention, name == "checkpointed")
        elif name == "lucidrains":
            block.attention = Lucidrains(settings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    batch = collate([make_protein(num_residues)])

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        density = model(batch)
        loss = mixture_nll(density, batch.chi, batch.defined, batch.occupancy, batch.row_residue)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _peak(name: str, num_residues: int, threads: int, out) -> None:
    torch.set_num_threads(threads)
    make_step(name, 16)()  # loads code and allocator pools
    step = make_step(name, num_residues)
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


def peak_extra_mb(name: str, num_residues: int, threads: int) -> float:
    """Peak resident memory of one step beyond model and inputs, MB, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    process = context.Process(target=_peak, args=(name, num_residues, threads, out))
    process.start()
    process.join()
    return float("nan") if process.exitcode else out.get()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--names", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--no-memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = list(options.names)
    try:
        import invariant_point_attention  # noqa: F401
    except ImportError:
        names = [name for name in names if name != "lucidrains"]
        print("lucidrains: not installed (pip install invariant-point-attention)")
    print(f"{options.threads} thread(s), median of {options.repeats} interleaved steps")
    print("| N | form | ms a step | ours is faster by | peak extra MB |")
    print("|---|---|---|---|---|")
    for num in options.lengths:
        steps = {name: make_step(name, num) for name in names}
        times: dict[str, list[float]] = {name: [] for name in names}
        for step in steps.values():
            step()
        for _ in range(options.repeats):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                times[name].append(time.perf_counter() - start)
        del steps
        for name in names:
            ratio = statistics.median(
                a / b for a, b in zip(times[name], times["ours"], strict=True)
            )
            memory = "" if options.no_memory else f"{peak_extra_mb(name, num, options.threads):.0f}"
            print(
                f"| {num} | {name} | {1e3 * statistics.median(times[name]):.0f} "
                f"| {ratio:.1f} | {memory} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
