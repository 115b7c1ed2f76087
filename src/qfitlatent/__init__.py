"""qFitLatent: how protein side chains are distributed, learned from multiconformer structures.

Data flows one way: structure -> tables -> dataset -> model -> evaluation; nothing lower imports
anything higher. The workflow around it is the ``Snakefile`` at the root of the repository.

What most programs need has a short name here. It is imported when it is asked for, so that
``import qfitlatent`` costs nothing:

    import qfitlatent
    prediction = qfitlatent.predict("1abc.cif")
    qfitlatent.predict_files(["1abc.cif", "2abc.pdb"], out="predictions")
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_PUBLIC = {
    "QfitLatentError": ("base.errors", "QfitLatentError"),
    "load_config": ("base.config", "load"),
    "read_entry": ("structure.preprocess", "read_entry"),
    "load_model": ("model.checkpoint", "load_model"),
    "predict": ("prediction.interface", "predict"),
    "predict_files": ("prediction.predict", "predict_structures"),
    "score": ("prediction.score", "score_structures"),
    "sample": ("prediction.sample", "sample_structures"),
    "embed": ("prediction.sample", "embed_structures"),
    "compare_structures": ("questions.compare", "compare_structures"),
    "predict_ensemble": ("questions.ensemble", "predict_ensemble"),
    "scan": ("questions.scan", "scan"),
    "scan_files": ("questions.scan", "scan_structures"),
}
"""Name here -> module and name there."""

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, there = _PUBLIC[name]
    return getattr(import_module(f"{__name__}.{module}"), there)


def __dir__() -> list[str]:
    return sorted(__all__)
