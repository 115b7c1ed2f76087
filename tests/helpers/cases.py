"""The shared cases: folders of files with the values that are right for them."""

from pathlib import Path

import pytest

CASES = Path(__file__).parents[3] / "shared" / "cases"
MISSING = pytest.mark.skip("no ../shared/cases")

FOLDERS = sorted(path for path in CASES.glob("[0-9]*") if path.is_dir()) or [
    pytest.param(None, marks=MISSING)
]
"""One parameter a folder; without the cases one that says why it is skipped."""

LONG_LABELS = frozenset(
    ("numbers_to_12.cif", "two_characters.cif", "words.cif", "icode_of_two_characters.cif")
)
"""Altlocs and insertion codes that no written model can have: refused in a sentence."""
