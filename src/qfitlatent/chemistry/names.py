"""How a residue is called, in tables of notes, on pages and in messages."""


def residue_label(chain: str, name: str, number: int, insertion_code: str = "") -> str:
    """A residue as ``A/LYS 52A``: chain, component, author number and insertion code."""
    return f"{chain}/{name} {number}{insertion_code}"
