"""The audit as one HTML page with its pictures, from the numbers of ``audit.json``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qfitlatent.dataset.invariants import Violation
from qfitlatent.pages.figures import BLUE, ORANGE, Figure, new_figure, save
from qfitlatent.pages.reasons import reason_help
from qfitlatent.pages.render import embedded, render
from qfitlatent.tables.names import EXCLUDED, SPLITS

SPLIT_NUMBERS = (
    "entries",
    "chains",
    "clusters",
    "largest_cluster_chains",
    "residues",
    "multiconformer_residues",
)


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
        counts=[[name.replace("_", " "), number] for name, number in s["counts"].items()],
        left_out=[
            [r["stage"], r["scope"], r["reason"], r["rows"], *reason_help()[r["reason"]]]
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


def _pictures(s: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """The numbers of the page drawn; name -> SVG, with a PNG beside it."""
    figures = {"chi": _chi_figure(s["chi_density"])}
    for name, key, xlabel, ylabel in (
        ("resolution", "entries_by_resolution_angstrom", "resolution / Å", "entries"),
        ("occupancy", "altlocs_by_occupancy", "occupancy", "conformers"),
        ("differences", "altlocs_by_largest_chi_difference_degrees", "degrees", "altlocs"),
    ):
        figures[name], axes = new_figure(9, 2.8)
        edges = np.array(s[key]["edges"])
        axes.bar(edges[:-1], s[key]["counts"], np.diff(edges), align="edge", color=BLUE)
        axes.set(xlabel=xlabel, ylabel=ylabel)

    figures["types"], panels = new_figure(9, 2.8, columns=2)
    for axes, title, key, colour in (
        (panels[0], "all", "residues_by_type", BLUE),
        (panels[1], "with distinct conformers", "heterogeneous_residues_by_type", ORANGE),
    ):
        axes.bar(list(s[key]), list(s[key].values()), color=colour)
        axes.set_title(title)
        axes.tick_params(axis="x", rotation=90, labelsize=7)

    figures["conformers"], axes = new_figure(9, 2.8)
    numbers = s["residues_by_number_of_distinct_conformers"]
    axes.bar(list(numbers), list(numbers.values()), color=BLUE)
    axes.set(xlabel="distinct conformers", ylabel="residues with chi", yscale="log")

    if "split" in s:
        figures["clusters"], axes = new_figure(9, 2.8)
        sizes = {int(size): number for size, number in s["clusters_by_chains"].items()}
        axes.scatter(list(sizes), list(sizes.values()), color=BLUE, s=12)
        axes.set(xlabel="chains in the cluster", ylabel="clusters", xscale="log", yscale="log")
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
