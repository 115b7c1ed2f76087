"""One attention layer of SPEC 6, forward and backward, ours against named alternatives.

    python benchmarks/attention.py [--lengths 128 256 512] [--threads 1] [--repeats 3]

Each form (forms.py) gets what it works on: ours the static pair representation, the others the
tensor (N, N, d_z) made from it, which is not timed. Gradients go to the residues, to all parameters
and to the pair representation.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from forms import as_form, compare_forms, explicit, make_parser

from helpers.proteins import make_protein
from qfitlatent.base import config as configuration
from qfitlatent.model.batch import collate
from qfitlatent.model.geometry import Geometry
from qfitlatent.model.network import QFitLatent
from qfitlatent.model.settings import ModelConfig


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


if __name__ == "__main__":
    options = make_parser(__doc__).parse_args()
    compare_forms(make_pass, "One attention layer, forward and backward", options)
