"""Pages and texts: the words are templates under ``data/``, the numbers come from the caller."""

import base64
import html
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """A template of ``data/``, filled. What it asks for and is not given is an error.

    In templates of HTML every value is escaped, whatever it holds; Markdown is left as it is.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(files("qfitlatent") / "data")),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1b2126;
  margin: 0; background: #fff; }
main { max-width: 62rem; margin: 0 auto; padding: 1.2rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .4rem 0 .8rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; border-top: 1px solid #dfe4e8; padding-top: 1rem; }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .4rem; }
p.lead { background: #f2f6fa; border-left: 4px solid #0b4f8a; padding: .8rem 1rem;
  margin: 0 0 1rem; }
nav a { margin-right: .9rem; white-space: nowrap; }
a { color: #0b4f8a; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: #4c5760; font-size: .9rem; margin-top: .3rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .6rem; text-align: right; border-bottom: 1px solid #e6e9ec;
  vertical-align: top; }
td { white-space: nowrap; }
td.text, td:first-child { white-space: normal; }
td small { display: block; color: #5d6871; font-weight: 400; font-size: .74rem; }
th:first-child, td:first-child { min-width: 6.5rem;
  text-align: left; position: sticky; left: 0; background: #fff; }
td.text, th.text { text-align: left; }
thead th { border-bottom: 2px solid #b9c2ca; vertical-align: bottom; }
tbody td:nth-child(2) { font-weight: 600; }
.plain tbody td:nth-child(2) { font-weight: 400; }
footer { color: #4c5760; font-size: .85rem; margin-top: 3rem; }
@media print {
  body { font-size: 10pt; } main { max-width: none; padding: 0; }
  nav { display: none; } .scroll { overflow: visible; } table { font-size: 7.5pt; }
  figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
}
"""


def html_table(head: list[str], rows: list[list[str]], plain: bool = False, text: int = 0) -> str:
    """A table that scrolls sideways on a narrow screen; the last ``text`` columns are words."""
    if not rows:
        return "<p>None.</p>"

    def cells(tag: str, row: list[str]) -> str:
        first_text = len(row) - text
        return "".join(
            f"<{tag} class=text>{html.escape(c)}</{tag}>"
            if i >= first_text
            else f"<{tag}>{_with_small_interval(c)}</{tag}>"
            for i, c in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    kind = " class=plain" if plain else ""
    return (
        f"<div class=scroll><table{kind}><thead><tr>{cells('th', head)}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _with_small_interval(cell: str) -> str:
    """``2.02 (1.95 to 2.10)`` on two lines, the interval small: narrow columns for a phone."""
    value, parenthesis, interval = html.escape(cell).partition(" (")
    if not parenthesis or " to " not in interval:
        return html.escape(cell)
    return f"{value}<small>{interval.removesuffix(')')}</small>"


def html_figure(folder: Path, name: str | None, words: str) -> str:
    """The SVG as an image inside the page, isolated from the others' ids."""
    if name is None:
        return ""
    data = base64.b64encode((folder / f"{name}.svg").read_bytes()).decode()
    return (
        f'<figure><img alt="{html.escape(words)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{html.escape(words)}</figcaption></figure>"
    )


def html_page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rows_table(head: tuple[str, ...], rows: list[tuple]) -> str:
    def cell(value: object) -> str:
        if isinstance(value, int):
            return f'<td class="number">{value:,}</td>'
        return f"<td>{html.escape(str(value))}</td>"

    header = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table><tr>{header}</tr>{body}</table>"
