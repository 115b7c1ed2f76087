"""Pictures: the only place that knows matplotlib."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from qfitlatent.base.files import atomic_path

BLUE, ORANGE = "#0072b2", "#e69f00"


def new_figure(rows: int = 1, columns: int = 1, height: float = 2.8):
    figure = Figure(figsize=(9, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns)


def bars_of_histogram(histogram: Mapping[str, list], xlabel: str, ylabel: str) -> Figure:
    figure, axes = new_figure()
    edges = np.array(histogram["edges"])
    axes.bar(edges[:-1], histogram["counts"], np.diff(edges), align="edge", color=BLUE)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return figure


def embedded(figure: Figure) -> str:
    buffer = io.BytesIO()
    # Without the version of matplotlib: the same numbers give the same bytes.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return (
        f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
    )


def pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "svg.hashsalt": "qfitlatent",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "legend.frameon": False,
            "figure.facecolor": "white",
        }
    )
    return plt


def save(figure, folder: Path, name: str) -> None:
    """SVG and PNG, without dates, so that two runs give the same bytes."""
    for suffix in ("svg", "png"):
        with atomic_path(folder / f"{name}.{suffix}") as temporary:
            metadata = {"Date": None} if suffix == "svg" else {"Software": None}
            figure.savefig(temporary, format=suffix, dpi=160, metadata=metadata)
    pyplot().close(figure)


def draw_learning_curve(history: Sequence[Mapping[str, float]], stem: Path) -> None:
    """Training and validation loss by epoch, as PNG and SVG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "qfitlatent"
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for name, label in (("train_loss", "training"), ("validation_loss", "validation")):
        axes.plot(epochs, [row[name] for row in history], label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss (nats per residue)")
    axes.legend(frameon=False)
    for suffix in (".png", ".svg"):
        with atomic_path(stem.with_suffix(suffix)) as temporary:
            metadata = {"Date": None} if suffix == ".svg" else None
            figure.savefig(temporary, format=suffix[1:], dpi=150, metadata=metadata)
    plt.close(figure)
