"""One training step of SPEC 6, ours against named alternatives of the same attention.

    python benchmarks/train_step.py [--lengths 128 256 512] [--threads 1] [--repeats 3]

Each form (forms.py) is the same model (embedding, feed-forward, head, loss, AdamW) with only the
attention exchanged.
"""

from collections.abc import Callable

import torch
from forms import compare_forms, exchange_attention

from helpers.proteins import make_protein
from qfitlatent.base import config as configuration
from qfitlatent.density.loss import nll_sum
from qfitlatent.model.batch import collate
from qfitlatent.model.network import QFitLatent
from qfitlatent.model.settings import ModelConfig


def make_step(name: str, num_residues: int) -> Callable[[], None]:
    """A function that makes one training step: forward, backward, clip, AdamW."""
    torch.manual_seed(0)
    model = QFitLatent(ModelConfig.from_dict(configuration.load()["model"])).train()
    exchange_attention(model, name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    batch = collate([make_protein(num_residues)])

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        density = model(batch)
        observed = (batch.chi, batch.defined, batch.occupancy, batch.row_residue)
        loss, weight = nll_sum(density, *observed)
        (loss / weight).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


if __name__ == "__main__":
    compare_forms(make_step, "One training step")
