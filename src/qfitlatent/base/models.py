"""Which file a model's name stands for, and what a model says of itself.

No torch here: the workflow asks for files when it plans its jobs.
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

SHIPPED = "shipped"
"""The name of the model inside the package, wherever a model can be named."""

MODEL_FILE = "model.safetensors"
PUBLISHED = re.compile(r"qfitlatent-chi-(\d+)\.(\d+)")
"""Names of published models; what the numbers promise is in docs/models.md."""

_SOURCES = {
    "simulated": "simulated proteins",
    "local": "structure files",
    "rcsb": "entries of the PDB",
    "pdb_redo": "entries of PDB-REDO",
    "url": "structure files from an address",
}


def shipped_model_path() -> Path:
    """The pretrained model inside the package."""
    return Path(str(files("qfitlatent").joinpath("data/pretrained", MODEL_FILE)))


def is_published(source: str | Path | None) -> bool:
    """Whether the source is the name of a published model, and no file of that name."""
    return PUBLISHED.fullmatch(str(source)) is not None and not Path(str(source)).exists()


def model_path(source: str | Path | None) -> Path:
    """The file of ``shipped`` or None, of a published model (which may be another than the one
    that ships), of a run folder, or of a model file; there or not."""
    if source is None or str(source) == SHIPPED or is_published(source):
        return shipped_model_path()
    path = Path(source)
    return path if path.is_file() or path.suffix == ".safetensors" else path / MODEL_FILE


class About(NamedTuple):
    """What every output says of the model that made it.

    ``name`` is that of a published model, or of the run; ``version`` begins the sha256 of the
    weights.
    """

    name: str
    version: str
    trained_on: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}, trained on {self.trained_on}"


def about_model(name: str, config: Mapping[str, Any], sha256: str) -> About:
    """Of the configuration that a model was trained with, and the sha256 of its weights."""
    source = config["entries"]["source"]
    trained_on = f"{_SOURCES[source]} (data set {config['dataset']})"
    start = config["train"]["initial_model"]
    if start is not None:
        trained_on += f", starting from the model {start}"
    return About(name, sha256[:12], trained_on)
