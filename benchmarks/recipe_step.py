"""Training steps of one recipe by one version of the package: a worker of ``train_step.py``.

    python recipe_step.py RECIPE.json PROTEINS.pt

runs with the package of its own version in PYTHONPATH. It answers each line of its input with one
line of its output: ``loss`` makes a step without dropout and says the loss before it, ``time`` one
as the recipe has it and says its seconds of processor time.
"""

import json
import sys
import time
from dataclasses import fields

import numpy as np
import torch

try:
    from qfitlatent.base import config as configuration
    from qfitlatent.model.batch import Protein
    from qfitlatent.training.trainer import Trainer
except ImportError:  # the layout of 760b04c
    from qfitlatent import config as configuration
    from qfitlatent.dataset import Protein
    from qfitlatent.train import Trainer

LEARNING_RATE = 1e-4


class Proteins(list):
    """What a trainer asks of a data set."""

    @property
    def num_residues(self) -> np.ndarray:
        return np.array([len(protein) for protein in self])


def merged(config: dict, recipe: dict) -> dict:
    """The configuration with the sections of the recipe."""
    return config | {name: config[name] | section for name, section in recipe.items()}


def main(recipe_path: str, proteins_path: str) -> None:
    torch.set_num_threads(1)
    with open(recipe_path) as file:
        config = merged(configuration.load(), json.load(file))
    known = [field.name for field in fields(Protein)]
    loaded = torch.load(proteins_path)
    data = Proteins(Protein(**{name: values[name] for name in known}) for values in loaded)
    without = merged(config, {"model": {"dropout": 0.0}})
    steps = {}
    for name, settings in (("time", config), ("loss", without)):
        trainer = Trainer(settings, data, data, torch.device("cpu"))
        trainer.model.train()
        steps[name] = getattr(trainer, "train_step", None) or trainer._one_step
    made = dict.fromkeys(steps, 0)
    for line in sys.stdin:
        name = line.strip()
        protein = data[made[name] % len(data)]
        made[name] += 1
        start = time.process_time()
        loss, weight, _norm = steps[name]([protein], LEARNING_RATE)
        seconds = time.process_time() - start
        print(json.dumps(seconds if name == "time" else loss / weight), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
