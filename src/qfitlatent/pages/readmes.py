"""The README.md of a folder of results: what is in it, after it was copied away, too."""

from pathlib import Path
from typing import Any

from qfitlatent.base.files import write_text
from qfitlatent.pages.render import render


def write_readme(template: str, folder: str | Path, **facts: Any) -> None:
    """Fill a template of ``data/readmes/`` into ``folder/README.md``.

    Whoever calls names the template, so that its words are part of what the caller's stage is made
    of, and of no other stage. Facts are what the template asks for; it knows ``folder`` already.
    """
    folder = Path(folder)
    write_text(folder / "README.md", render(template, folder=folder.as_posix(), **facts))
