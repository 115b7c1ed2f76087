"""The audit as one HTML page with its pictures, from the numbers of ``audit.json``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qfitlatent.dataset.invariants import Violation
from qfitlatent.pages.figures import BLUE, ORANGE, Figure, new_figure, save, whole_numbers
from qfitlatent.pages.reasons import reason_help
from qfitlatent.pages.render import Cell, embedded, render
from qfitlatent.tables.names import EXCLUDED, SPLITS

SPLIT_NUMBERS = (
    "entries",
    "chains",
    "clusters",
    "largest_cluster_chains",
    "residues",
    "multiconformer_residues",
)


SCOPES = {"frame": "backbone"}
"""Words of the tables that a crystallographer calls otherwise."""


def audit_page(s: Mapping[str, Any], violations: list[Violation], folder: Path) -> str:
    """The page as text; its pictures go into the folder, too.

    s: the numbers of ``audit.summarise``; where invariants are broken, only those are shown.
    """
    if violations:
        return render("pages/audit.html.j2", violations=[str(v) for v in violations])
    pictures = {name: embedded(path) for name, path in _pictures(s, folder).items()}
    split = s.get("split", {})
    return render(
        "pages/audit.html.j2",
        violations=[],
        s=s,
        pictures=pictures,
        c=s["counts"],
        cell=_cell,
        left_out=[
            [
                r["stage"],
                SCOPES.get(r["scope"], r["scope"]),
                r["reason"],
                r["rows"],
                *reason_help()[r["reason"]],
            ]
            for r in s["rejected"]
        ],
        split=[
            [n, *(split[n][c] for c in SPLIT_NUMBERS)] for n in (*SPLITS, EXCLUDED) if n in split
        ],
        unexpected=[[r["entry"], r["detail"]] for r in s["unexpected_errors"]],
        uncounted=[list(r.values()) for r in s["census"]["entries_where_it_does_not_hold"]],
        suspicious=[
            [r["residue"], r["entry"], r["chain"], r["index"], r["why"]] for r in s["suspicious"]
        ],
    )


def _cell(number: float | None, unit: str = "") -> Cell:
    """A number to open with; a dash where there is none."""
    if number is None:
        return Cell("–")
    return Cell(f"{number:,}{unit}" if isinstance(number, int) else f"{number:.2f}{unit}")


def _pictures(s: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """The numbers of the page drawn; name -> SVG, with a PNG beside it."""
    figures = {"chi": _chi_figure(s["chi_density"])}
    for name, key, xlabel, ylabel in (
        ("resolution", "entries_by_resolution_angstrom", "resolution / Å", "entries"),
        ("occupancy", "altlocs_by_occupancy", "occupancy", "altlocs"),
        ("differences", "altlocs_by_largest_chi_difference_degrees", "degrees", "altlocs"),
    ):
        figures[name], axes = new_figure(9, 2.8)
        edges, counts = np.array(s[key]["edges"]), np.array(s[key]["counts"])
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=BLUE)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        filled = np.flatnonzero(counts)
        if len(filled):  # and one empty bar on each side
            first, last = filled[0] - 1, filled[-1] + 2
            axes.set_xlim(edges[max(first, 0)], edges[min(last, len(edges) - 1)])
        axes.yaxis.set_major_locator(whole_numbers())

    figures["types"], panels = new_figure(9, 2.8, columns=2)
    for axes, title, key, look in (
        (panels[0], "all", "residues_by_type", {"color": BLUE}),
        (
            panels[1],
            "whose altlocs differ",
            "heterogeneous_residues_by_type",
            {"color": ORANGE, "hatch": "///", "edgecolor": "white", "lw": 0},
        ),
    ):
        numbers = {name: n for name, n in s[key].items() if n or name != "unknown"}
        axes.bar(list(numbers), list(numbers.values()), **look)
        axes.set_title(title)
        axes.tick_params(axis="x", rotation=90, labelsize=7)
        axes.yaxis.set_major_locator(whole_numbers())

    figures["conformers"], axes = new_figure(9, 2.8)
    numbers = s["residues_by_number_of_distinct_conformers"]
    axes.bar(list(numbers), list(numbers.values()), color=BLUE)
    # From below 1, so that a bar of one residue is seen.
    axes.set(xlabel="distinct conformers", ylabel="residues with chi", yscale="log")
    axes.set_ylim(bottom=0.7)

    if "split" in s:
        figures["clusters"], axes = new_figure(9, 2.8)
        sizes = {int(size): number for size, number in s["clusters_by_chains"].items()}
        axes.scatter(list(sizes), list(sizes.values()), color=BLUE, s=12)
        axes.set(xlabel="chains in the cluster", ylabel="clusters")
        if max(sizes, default=1) > 10:  # few sizes are read better on plain axes
            axes.set(xscale="log", yscale="log")
        else:
            axes.xaxis.set_major_locator(whole_numbers())
            axes.yaxis.set_major_locator(whole_numbers())
    return {name: save(figure, folder / name) for name, figure in figures.items()}


def _chi_figure(density: Mapping[str, list]) -> Figure:
    figure, panels = new_figure(9, 5.1, 3, 6)
    for axes, (name, values) in zip(panels.flat, density.items(), strict=True):
        root = np.sqrt(np.array(values))
        ticks = [0, len(root) / 2, len(root)]
        if root.ndim == 1:
            axes.bar(np.arange(len(root)) + 0.5, root, 1.0, color=BLUE)
            axes.set_yticks([])
        else:
            extent = (0, len(root), 0, len(root))
            axes.imshow(root.T, origin="lower", cmap="Blues", extent=extent, aspect="auto")
            axes.set_yticks(ticks, ["−180", "0", "180"], fontsize=6)
        axes.set_xticks(ticks, ["−180", "0", "180"], fontsize=6)
        axes.set_title(name, fontsize=8)
    return figure
