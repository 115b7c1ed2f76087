"""Pages and texts: the words are templates under ``data/``, the numbers come from the caller."""

import base64
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jinja2


class Cell(NamedTuple):
    """A cell of a table: its text, smaller words below it, whether it is the best of its row."""

    text: str
    small: str = ""
    best: bool = False


def render(template: str, **values: Any) -> str:
    """A template of ``data/``, filled. What it asks for and is not given is an error.

    In templates of HTML every value is escaped, whatever it holds; Markdown is left as it is.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(files("qfitlatent") / "data")),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # For the filter tojson, which also keeps a text from ending the script that holds it.
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment


def embedded(picture: Path | None) -> str:
    """A picture file as the address of an image inside the page; empty where there is none."""
    if picture is None:
        return ""
    kind = {".svg": "svg+xml", ".png": "png"}[picture.suffix]
    return f"data:image/{kind};base64,{base64.b64encode(picture.read_bytes()).decode('ascii')}"
