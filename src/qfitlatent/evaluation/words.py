"""The words, styles and order of reports and comparisons, which are ``data/words.yaml``."""

import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from qfitlatent.evaluation.columns import GENERATOR
from qfitlatent.pages.render import Cell

WORDS = yaml.safe_load(files("qfitlatent").joinpath("data", "words.yaml").read_text("utf-8"))
METHODS: dict[str, dict[str, str]] = WORDS["methods"]
POPULATIONS: dict[str, str] = WORDS["populations"]
METRICS: dict[str, dict[str, Any]] = WORDS["metrics"]
GROUPS: dict[str, str] = WORDS["groups"]
PREDICTED: dict[str, str] = WORDS["predicted"]
FACTORS = {"%": 100.0, "degrees": 180 / math.pi}
"""What a figure of the tables is multiplied with to be shown in this unit; 1 for the others."""

NONE = "–"
Rows = list[Sequence[str | int | Cell]]
Figure = Mapping[str, Any]
"""``value`` with the interval ``low`` to ``high``, null where there is none."""


def label(method: str) -> str:
    return METHODS[method]["words"] if method in METHODS else method.replace("_", " ")


def ordered(methods: Iterable[str]) -> list[str]:
    """The model first, then the baselines from best to simplest, other methods, the truth."""
    known = {name: place for place, name in enumerate(METHODS)}
    return sorted(methods, key=lambda name: (name == GENERATOR, known.get(name, len(known)), name))


def style(method: str, methods: Iterable[str]) -> dict[str, str]:
    """``colour``, ``line`` and ``marker`` of a method in a picture of these methods."""
    if method in METHODS:
        return METHODS[method]
    others = [name for name in ordered(methods) if name not in METHODS]
    return WORDS["others"][others.index(method) % len(WORDS["others"])]


def title(metric: str) -> str:
    words, unit = METRICS[metric]["words"], METRICS[metric]["unit"]
    return f"{words}, {unit}" if unit else words


def cell(figure: Figure | None, metric: str) -> Cell:
    """A figure and its interval in the unit of its metric; a dash where there is none."""
    decimals, factor = METRICS[metric]["decimals"], FACTORS.get(METRICS[metric]["unit"], 1.0)

    def shown(value: float) -> str:
        # + 0.0: what rounds to nothing has no sign.
        return f"{round(value * factor, decimals) + 0.0:.{decimals}f}".replace("-", "−")

    if figure is None or figure["value"] is None:
        return Cell(NONE)
    interval = [shown(figure[key]) for key in ("low", "high") if figure[key] is not None]
    return Cell(shown(figure["value"]), " to ".join(interval) if len(interval) == 2 else "")


def figure_text(figure: Figure | None, metric: str) -> str:
    """A figure in running text: ``2.02 (1.95 to 2.10)``."""
    shown = cell(figure, metric)
    return f"{shown.text} ({shown.small})" if shown.small else shown.text


def best_of(figures: Mapping[str, Figure | None], metric: str) -> str | None:
    """The name with the best figure; the truth does not compete."""
    best = METRICS[metric]["best"]

    def loss(value: float) -> float:
        if isinstance(best, str):
            return value if best == "lowest" else -value
        return abs(value - best)

    losses = {
        name: loss(figure["value"])
        for name, figure in figures.items()
        if name != GENERATOR and figure is not None and figure["value"] is not None
    }
    return min(losses, key=losses.__getitem__, default=None)


def figure_cells(figures: Mapping[str, Figure | None], metric: str) -> list[Cell]:
    """The figures of one row, by name; the best is marked, with those that look the same."""
    cells = {name: cell(figure, metric) for name, figure in figures.items()}
    best = best_of(figures, metric)
    if len(cells) < 2 or best is None:
        return list(cells.values())
    return [
        c._replace(best=name != GENERATOR and c.text == cells[best].text)
        for name, c in cells.items()
    ]


def figure_rows(figures: Mapping[str, Mapping[str, Any]]) -> Rows:
    """A row a metric, a column a name; figures: name -> metric -> figure."""
    return [
        [title(metric), *figure_cells({name: f.get(metric) for name, f in figures.items()}, metric)]
        for metric in METRICS
        if any(metric in of_name for of_name in figures.values())
    ]


def difference_rows(differences: Mapping[str, Mapping[str, Any]], metrics: Iterable[str]) -> Rows:
    """A row a metric, a column a name: paired differences, of which none is the best."""
    return [
        (
            title(metric).replace("%", "points"),
            *(cell(of_name.get(metric), metric) for of_name in differences.values()),
        )
        for metric in metrics
    ]


def pick(table: pa.Table, **wanted: str | int | None) -> pa.Table:
    """The rows whose columns have these values; None is null."""
    for name, value in wanted.items():
        column = table[name]
        table = table.filter(pc.is_null(column) if value is None else pc.equal(column, value))
    return table
