"""What the documentation site takes from the code while it is built: hooks of mkdocs.

A line ``<!-- generated: NAME -->`` in a page becomes what the function of that name returns, so
that no table is kept by hand; ``docs/python/<room>.md`` exist in the built site alone. Equations
become MathML, which browsers show without any script, and "SPEC 7" a link to that section.
"""

import argparse
import ast
import html
import re
from collections.abc import Callable
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

import qfitlatent
from qfitlatent.base import config
from qfitlatent.cli import build_parser
from qfitlatent.pages.reasons import reason_table

PACKAGE = Path(config.__file__).parents[1]
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def on_files(files: Any, config: Any) -> Any:
    """One page of the Python interface for each room."""
    from mkdocs.structure.files import File

    for room in ROOMS:
        files.append(File.generated(config, f"python/{room}.md", content=python_page(room)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the generated parts in their places."""
    return fill(markdown)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Equations, and links to the sections of the contract."""
    spec = "" if page.file.src_uri == "spec.md" else "../" * page.url.count("/") + "spec.html"
    return link_sections(to_mathml(html), spec)


def fill(markdown: str) -> str:
    """The page with every generated part in its place."""
    return re.sub(
        r"^<!-- generated: (\w+) -->$", lambda found: GENERATED[found[1]](), markdown, flags=re.M
    )


def options() -> str:
    """A table for each section of the configuration."""
    parts = []
    for section, rows in groupby(config.options(), lambda option: option.key.partition(".")[0]):
        node = config.schema()["properties"][section]
        if "properties" in node:
            parts.append(f"\n## {section}\n\n{node['description']}\n")
        if "properties" in node or not parts:
            parts.append("| key | default | values | what it is |\n|---|---|---|---|")
        for key, default, description in rows:
            shown = "" if default in (None, []) else _code(default)
            parts.append(f"| `{key}` | {shown} | {_values(key)} | {_cell(description)} |")
    return "\n".join(parts)


def _values(key: str) -> str:
    """What the schema allows for this key, in a few words."""
    node: dict[str, Any] = {"properties": config.schema()["properties"]}
    for name in key.split("."):
        node = node["properties"][name]
    if "enum" in node:
        return ", ".join(_code(value) for value in node["enum"])
    low = node.get("minimum", node.get("exclusiveMinimum"))
    high = node.get("maximum", node.get("exclusiveMaximum"))
    kind = " or ".join([node["type"]] if isinstance(node["type"], str) else node["type"])
    bounds = []
    if low is not None:
        bounds.append(f"{'from' if 'minimum' in node else 'above'} {low:g}")
    if high is not None:
        bounds.append(f"{'to' if 'maximum' in node else 'below'} {high:g}")
    return " ".join([kind, *bounds])


def _code(value: Any) -> str:
    text = {True: "true", False: "false", None: "null"}.get(value) if _is_word(value) else None
    return f"`{text or (', '.join(map(str, value)) if isinstance(value, list) else value)}`"


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _cell(text: str) -> str:
    """Text that cannot break a Markdown table, and shows `<` as it is."""
    return html.escape(text, quote=False).replace("|", "\\|")


TITLES = {
    "tables.ENTRIES": "tables/entries.parquet",
    "tables.RESIDUES": "tables/residues.parquet",
    "tables.FRAMES": "tables/frames.parquet",
    "tables.CONFORMERS": "tables/conformers.parquet",
    "tables.REJECTED": "tables/rejected.parquet",
    "dataset.SCHEMA": "split.parquet",
    "archive.LOG_SCHEMA": "download.parquet",
    "simulate.TRUTH_SCHEMA": "simulated/truth/<id>.parquet",
    "prediction.MIXTURE": "<id>.mixture.parquet, which predict writes",
    "prediction.RESIDUES": "<id>.residues.csv, which predict writes",
    "prediction.OBSERVABLES": "<id>.observables.csv, which predict writes",
    "prediction.GROUPS": "<id>.groups.csv, which predict writes",
    "prediction.SEEN": "<id>.surroundings.csv of predict, and the like of score and scan",
    "questions.SCAN": "<id>.scan.parquet, which scan writes",
    "prediction.SUMMARY": "summary.csv, a row a structure",
    "prediction.FAILURES": "failures.csv, a row a structure that could not be used",
    "prediction.SCORES": "The table that score writes",
    "prediction.LOOKS": "<scores>.look.csv, which score writes",
    "prediction.SAMPLES": "<id>.samples.parquet, which sample writes",
    "questions.DIFFERENCES": "<a>_<b>.differences.parquet, which compare-structures writes",
    "questions.POPULATIONS": "<id>.populations.csv, which ensemble writes",
    "questions.AVERAGES": "<id>.averages.csv, which ensemble writes",
    "evaluation.SCORES": "evaluation/scores.parquet",
    "evaluation.ALTLOCS": "evaluation/altlocs.parquet",
    "evaluation.PREDICTIONS": "evaluation/predictions.parquet",
    "evaluation.BY_GROUP": "evaluation/by_group.parquet",
    "evaluation.CALIBRATION": "evaluation/calibration.parquet",
    "evaluation.CURVES": "evaluation/curves.parquet",
    "evaluation.CHI_MAPS": "evaluation/chi_maps.parquet",
    "prediction.JUDGED_ENTRIES": "evaluation/predicted/entries.parquet",
    "prediction.JUDGED_RESIDUES": "evaluation/predicted/residues.parquet",
    "prediction.JUDGED_BONDS": "evaluation/predicted/bonds.parquet",
    "questions.PAIRS": "experiment.pairs.csv, which compare-experiment writes",
    "questions.AGREEMENT": "experiment.csv, which compare-experiment writes",
    "questions.PACKING": "packing.csv, which packing writes",
    "questions.MEASURED": "A table of measurements for compare-experiment",
    "evaluation.COMPARE": "compare/compare.parquet",
    "evaluation.MIXTURES": "A table of mixtures for `evaluate.external`",
    "evaluation.SAMPLES": "A table of samples for `evaluate.external`",
}
"""The file that has a schema, in the order of the page; a test asks that none is missing."""


def schemas() -> dict[str, pa.Schema]:
    """Every schema in the package as ``room.NAME``."""
    found: dict[str, pa.Schema] = {}
    for room in ROOMS:
        for path in _modules(room):
            if not re.search(r"\b(make_schema|pa\.schema)\(", path.read_text("utf-8")):
                continue
            for name, value in vars(import_module(f"qfitlatent.{room}.{path.stem}")).items():
                if isinstance(value, pa.Schema) and all(value is not v for v in found.values()):
                    found[f"{room}.{name}"] = value
    return found


def tables() -> str:
    """The columns of every table, with the file that has them."""
    found = schemas()
    return "\n".join(
        f"### {_cell(title)}\n\n{_columns(found[name])}\n" for name, title in TITLES.items()
    )


def _columns(schema: pa.Schema) -> str:
    rows = ["| column | type | unit | null | meaning |", "|---|---|---|---|---|"]
    for field in schema:
        meta = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
        unit = meta.get("unit", "").removeprefix("1")
        null = "may be" if field.nullable else ""
        kind = str(field.type)
        if pa.types.is_fixed_size_list(field.type):
            kind = f"{field.type.list_size} x {field.type.value_type}"
        about = _cell(meta.get("description", ""))
        rows.append(f"| `{field.name}` | {kind} | {unit} | {null} | {about} |")
    return "\n".join(rows)


def commands() -> str:
    """The help of every subcommand."""
    parser = build_parser()
    (subparsers,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return "\n".join(
        f"## {name}\n\n```text\n{sub.format_help().strip()}\n```\n"
        for name, sub in subparsers.choices.items()
    )


def names() -> str:
    """The public names of the package, each with a link to what it is."""
    rows = ["| name | what it is |", "|---|---|"]
    for name, (module, there) in qfitlatent._PUBLIC.items():
        rows.append(f"| `qfitlatent.{name}` | [`{module}.{there}`][qfitlatent.{module}.{there}] |")
    return "\n".join(rows)


def rooms() -> str:
    """Every room with its purpose and its files, from their own first sentences."""
    rows = ["| room | what for | files |", "|---|---|---|"]
    for room in ROOMS:
        files = ", ".join(f"`{path.stem}`" for path in _modules(room))
        rows.append(f"| [`{room}`](python/{room}.md) | {_cell(_about(room))} | {files} |")
    return "\n".join(rows)


def targets() -> str:
    """The README's table of what each target of the workflow makes."""
    readme = (PACKAGE.parents[1] / "README.md").read_text("utf-8")
    return re.search(r"^## What each target makes\n+((?:\|.*\n)+)", readme, re.M)[1]


def python_page(room: str) -> str:
    """The public names of every file of a room."""
    directives = [
        f"::: qfitlatent.{room}.{path.stem}\n    options: {{heading_level: 2}}\n"
        for path in _modules(room)
    ]
    return "\n".join([f"# {room}\n", f"{_about(room)}\n", *directives])


def _modules(room: str) -> list[Path]:
    return sorted(p for p in (PACKAGE / room).glob("*.py") if p.stem != "__init__")


def _about(room: str) -> str:
    text = (PACKAGE / room / "__init__.py").read_text("utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").strip()


GENERATED: dict[str, Callable[[], str]] = {
    "commands": commands,
    "names": names,
    "options": options,
    "reasons": reason_table,
    "rooms": rooms,
    "tables": tables,
    "targets": targets,
}


def to_mathml(text: str) -> str:
    """Arithmatex's spans and blocks as MathML."""
    from latex2mathml.converter import convert

    def equation(found: re.Match[str]) -> str:
        display = "block" if found["tag"] == "div" else "inline"
        return convert(html.unescape(found["latex"]).strip(), display=display)

    return re.sub(
        r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>',
        equation,
        text,
        flags=re.S,
    )


def link_sections(text: str, spec: str) -> str:
    """``SPEC 7`` as a link, wherever it is neither code nor a link nor a heading."""
    depth, parts = 0, []
    for part in re.split(r"(<[^>]*>)", text):
        if found := re.match(r"<(/?)(?:a|code|pre|h1|h2)\b", part):
            depth += -1 if found[1] else 1
        elif not depth:
            part = re.sub(r"\bSPEC (\d+)", rf'<a href="{spec}#spec-\1">SPEC \1</a>', part)
        parts.append(part)
    return "".join(parts)
