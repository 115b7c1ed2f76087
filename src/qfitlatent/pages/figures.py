"""Pictures: the only place that knows matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qfitlatent.base.files import atomic_path

mpl.rcParams.update(
    {
        "svg.hashsalt": "qfitlatent",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.axisbelow": True,
        "grid.color": "#e6e9ec",
        "legend.frameon": False,
        "legend.fontsize": 8,
        "figure.facecolor": "white",
        "savefig.dpi": 160,
    }
)

BLUE, ORANGE, GREY, GREEN, INK = "#0b4f8a", "#c8641b", "#7a8794", "#2f7d4f", "#444444"


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """A figure of this size in inches, and its axes: one, or an array (rows, columns)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def whole_numbers() -> MaxNLocator:
    """Ticks of an axis that counts."""
    return MaxNLocator(integer=True)


def save(figure: Figure, stem: Path) -> Path:
    """``stem.png`` and ``stem.svg``, without dates: the same numbers give the same bytes.

    Returns the path of the SVG.
    """
    # Where things stand is found once: a figure with an engine for that is drawn twice a file.
    figure.set_dpi(mpl.rcParams["savefig.dpi"])
    if engine := figure.get_layout_engine():
        engine.execute(figure)
    figure.set_layout_engine(None)
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
        path = stem.with_name(stem.name + suffix)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=suffix[1:], metadata=metadata)
    return path


def draw_learning_curve(history: Sequence[Mapping[str, float]], stem: Path) -> None:
    """The losses, and the validation NLL of both populations, over the epochs of a training."""
    figure, axes = new_figure(6, 3.6)
    for name, label, colour, look in (
        ("train_loss", "training loss", GREY, "x:"),
        ("validation_loss", "validation loss", BLUE, "o-"),
        ("validation_nll_multiconformer", "validation NLL, multiconformer", ORANGE, "s--"),
        ("validation_nll_single", "validation NLL, single conformer", GREEN, "^-."),
    ):
        points = [(row["epoch"], row[name]) for row in history if row.get(name) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), look, color=colour, label=label, ms=3)
    axes.set(xlabel="epoch", ylabel="nats per residue")
    axes.grid()
    axes.legend()
    save(figure, stem)
