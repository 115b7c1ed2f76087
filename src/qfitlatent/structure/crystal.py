"""The unit cell of a structure, and what is near an atom in it."""

import math

import gemmi

CELL_ANGSTROM = (2.0, 10_000.0)
"""Edges of a cell; other numbers stand for something else, or for nothing."""

FLATTEST = 0.01
"""Volume of a cell by that of a box of its edges; below, its angles leave no room."""

BINS = 64
"""A search divides no space into more parts along an edge: their number would be its memory."""


def is_possible(cell: gemmi.UnitCell) -> bool:
    """Whether a cell of these edges and angles exists, and could hold a molecule."""
    edges = cell.a, cell.b, cell.c
    least, most = CELL_ANGSTROM
    if not all(math.isfinite(edge) and least <= edge <= most for edge in edges):
        return False
    if not all(0.0 < angle < 180.0 for angle in (cell.alpha, cell.beta, cell.gamma)):
        return False
    return math.isfinite(cell.volume) and cell.volume > FLATTEST * math.prod(edges)


def drop_impossible_cell(structure: gemmi.Structure) -> None:
    """A structure whose cell is impossible has none: its atoms stand, its crystal is not known."""
    if not is_possible(structure.cell):
        structure.cell = gemmi.UnitCell()


def neighbour_search(structure: gemmi.Structure, radius_angstrom: float) -> gemmi.NeighborSearch:
    """An empty search for atoms within a radius of each other in the first model."""
    cell = structure.cell
    crystal = [cell.a, cell.b, cell.c] if cell.is_crystal() else None
    longest = max(crystal or structure.calculate_box().get_size().tolist())
    width = max(radius_angstrom, longest / BINS)
    return gemmi.NeighborSearch(structure[0], cell, width)
