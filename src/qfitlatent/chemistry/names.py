"""How a residue and its rotamer are called, in tables of notes, on pages and in messages."""

import math
from collections.abc import Sequence

from qfitlatent.chemistry.residues import NUM_CHI, RESIDUE_TYPES

_PLANAR = {"ARG": 4, "ASN": 2, "ASP": 2, "GLN": 3, "GLU": 3, "HIS": 2, "PHE": 2, "TRP": 2, "TYR": 2}
"""The chi of a type that has no three preferred values."""


def residue_label(chain: str, name: str, number: int, insertion_code: str = "") -> str:
    """A residue as ``A/LYS 52A``: chain, component, author number and insertion code."""
    return f"{chain}/{name} {number}{insertion_code}"


def rotamer_name(token: int, chi: Sequence[float]) -> str:
    """A rotamer as ``mt``, ``t-20``: p, t, m for chi near 60, 180, -60 degrees, others in degrees.

    chi (4,) radians, those of the type; the names are Lovell's (Proteins 40 (2000) 389). Empty for
    a type without chi.
    """
    planar = _PLANAR.get(RESIDUE_TYPES[token]) if token < len(RESIDUE_TYPES) else None
    words = []
    for number, angle in enumerate(chi[: NUM_CHI[token]], start=1):
        degrees = round(math.degrees(angle))
        if number == planar:
            words.append(str(degrees))
        else:
            words.append("p" if 0 <= degrees < 120 else "m" if -120 <= degrees < 0 else "t")
    return "".join(words)
