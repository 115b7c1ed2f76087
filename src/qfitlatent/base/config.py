"""The configuration: read, checked against the closed schema, defaults filled in.

The schema (``base/config.schema.yaml``) is the one home of defaults, ranges and descriptions.
Classes of settings have no defaults of their own: ``settings`` fills them from it. What a schema
cannot say (fractions that sum to 1, a source that needs a folder) is checked here. Every error is
one sentence that names the key; ``base/mistakes.py`` words it.
"""

import copy
import dataclasses
import datetime
import math
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.mistakes import keys, sentence
from qfitlatent.base.strict_yaml import quick_yaml, read_yaml

T = TypeVar("T")
MAX_INTEGER = 2**53
"""Beyond it an integer is none in every program that reads the configuration."""


class Option(NamedTuple):
    """One key of the configuration, for the README's table."""

    key: str
    default: Any
    description: str


@cache
def schema() -> dict[str, Any]:
    """The schema of the whole configuration. Treat it as read-only."""
    text = files("qfitlatent").joinpath("base/config.schema.yaml").read_text("utf-8")
    return quick_yaml(text)


def load(source: str | Path | Mapping | Iterable[str | Path | Mapping] = ()) -> dict[str, Any]:
    """The complete configuration from files and mappings, later ones over earlier ones.

    Args:
        source: a YAML file, a mapping, or several of them.
    Raises:
        QfitLatentError: an unreadable file, an unknown key, a value of a wrong type or out of
            range, or values that contradict each other.
    """
    parts = [source] if isinstance(source, str | Path | Mapping) else list(source)
    given: dict[str, Any] = {}
    for part in parts:
        _merge(given, part if isinstance(part, Mapping) else _read(Path(part)))
    config = _checked(schema(), given)
    _cross_check(config)
    return config


def settings(kind: type[T], section: str, values: Mapping[str, Any] | None = None) -> T:
    """The dataclass ``kind``, each field filled from the key of that name in ``section``.

    Args:
        values: keys of the section that differ from the schema's defaults. Keys that ``kind`` has
            no field for are left out; keys that the schema does not have are refused.
    Raises:
        QfitLatentError: as ``load``.
    """
    node = {"properties": {section: schema()["properties"][section]}, "additionalProperties": False}
    given = {section: dict(values or {})}
    # Defaults alone need no check, which every structure that is read would wait for.
    resolved = (_checked(node, given) if given[section] else _with_defaults(node, given))[section]
    return kind(**{field.name: resolved[field.name] for field in dataclasses.fields(kind)})  # type: ignore[arg-type]


def _checked(node: Mapping[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """``given`` without a mistake against the schema, and with its defaults."""
    from jsonschema import Draft202012Validator  # slow to import, and often not needed

    try:
        given = _plain(given, "")
        error = min(
            Draft202012Validator(node).iter_errors(given),
            key=lambda error: (
                error.validator != "additionalProperties",
                list(map(str, error.path)),
            ),
            default=None,
        )
    except RecursionError as error:
        raise QfitLatentError(
            "The configuration is nested without end: correct its brackets and references."
        ) from error
    if error is not None:
        raise QfitLatentError(sentence(error, schema()))
    return _with_defaults(node, given)


def _plain(value: Any, key: str) -> Any:
    """``value`` as JSON can hold it; what it cannot hold is refused by its key."""
    match value:
        case Mapping():
            return {str(k): _plain(v, f"{key}.{k}".lstrip(".")) for k, v in value.items()}
        case list() | tuple():
            return [_plain(item, f"{key}.{number}") for number, item in enumerate(value)]
        case datetime.date():
            return value.isoformat()
        case str() if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value):
            raise QfitLatentError(f"{key} is {value!r}, but must be one line of printable text.")
        case float() if not math.isfinite(value):
            raise QfitLatentError(f"{key} is {value}, but must be a finite number.")
        case int() if abs(value) > MAX_INTEGER:
            raise QfitLatentError(f"{key} is {value}, but must be at most {MAX_INTEGER}.")
    return value


def dump(config: Mapping[str, Any]) -> str:
    """The resolved configuration as YAML, keys in the schema's order."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)


def options() -> list[Option]:
    """Every key with its default and description, in the schema's order."""
    return [
        Option(key, node["default"], node["description"])
        for key, node in keys(schema())
        if "default" in node
    ]


def option_table() -> str:
    """The options as a Markdown table, for the README."""
    lines = ["| key | default | what it is |", "|---|---|---|"]
    for key, default, description in options():
        shown = "none" if default in (None, []) else _scalar(default)
        about = description.replace("|", "\\|")
        lines.append(f"| `{key}` | {shown.replace('*', r'`*`').strip(chr(39))} | {about} |")
    return "\n".join(lines)


def commented(config: Mapping[str, Any]) -> str:
    """The configuration as YAML in which a comment explains every key."""
    lines = [
        "# yaml-language-server: $schema=src/qfitlatent/base/config.schema.yaml",
        "# The complete default experiment. Copy the keys you change into a file of your own and",
        "# give it with --configfile: it is laid over this one.",
        "",
    ]
    for key, node in schema()["properties"].items():
        lines += _commented(key, node, config[key], 0)
    return "\n".join(lines).rstrip() + "\n"


def _commented(key: str, node: Mapping[str, Any], value: Any, depth: int) -> list[str]:
    indent = "  " * depth
    about = f"{indent}# {node['description']}"
    if isinstance(value, dict):
        lines = [about, f"{indent}{key}:"] if depth else ["", about, f"{key}:"]
        for name, child in node["properties"].items():
            lines += _commented(name, child, value[name], depth + 1)
        return lines
    choices = f" ({', '.join(map(_scalar, node['enum']))})" if "enum" in node else ""
    return [about + choices, f"{indent}{key}: {_scalar(value)}"]


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _read(path: Path) -> dict[str, Any]:
    values = read_yaml(path)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise QfitLatentError(f"The configuration {path} holds no keys: write `key: value` lines.")
    return values


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = copy.deepcopy(value)


def _with_defaults(node: Mapping[str, Any], value: Any) -> Any:
    """``value`` with the defaults of every missing key; null sections stay null."""
    if node.get("type") == "array" and "properties" in node["items"]:
        return [_with_defaults(node["items"], item) for item in value]
    if node.get("type") == "integer" and isinstance(value, float):
        return int(value)  # 2.0 is an integer for the schema
    if "properties" not in node or value is None:
        return copy.deepcopy(value)
    return {
        key: _with_defaults(child, value[key] if key in value else child.get("default", {}))
        for key, child in node["properties"].items()
    }


def _cross_check(config: Mapping[str, Any]) -> None:
    fractions = config["split"]["fractions"]
    total = sum(fractions.values())
    if abs(total - 1.0) > 1e-6:
        listed = ", ".join(f"{name} {value:g}" for name, value in fractions.items())
        raise QfitLatentError(
            f"split.fractions sum to {total:g} ({listed}), but must sum to 1: change one of them."
        )
    entries = config["entries"]
    for name in ("released_from", "released_to"):
        value = (entries["search"] or {}).get(name)
        try:
            datetime.date.fromisoformat(value or "2000-01-01")
        except ValueError as error:
            raise QfitLatentError(
                f"entries.search.{name} is {value!r}, which is no date: {error}."
            ) from error
    source = entries["source"]
    if source == "local":
        if (entries["folder"] is None) == (entries["list"] is None):
            raise QfitLatentError(
                "entries.source is local: give either entries.folder, a folder of structure files, "
                "or entries.list, a table id,path."
            )
    elif source in ("rcsb", "pdb_redo", "url"):
        if not (entries["ids"] or entries["list"] or entries["search"]):
            raise QfitLatentError(
                f"entries.source is {source}, but no entry is named: give entries.ids, "
                "entries.list or entries.search."
            )
        if source == "url" and config["download"]["url"] is None:
            raise QfitLatentError(
                "entries.source is url, but download.url is null: give a template with {id}."
            )
    if config["train"]["train_on"] == "all" and not (
        config["train"]["single_weight"] or config["train"]["multiconformer_weight"]
    ):
        raise QfitLatentError(
            "train.single_weight and train.multiconformer_weight are both 0: nothing would be "
            "learned; give one of them a weight."
        )
    if config["train"]["frozen_blocks"] and config["train"]["initial_model"] is None:
        raise QfitLatentError(
            "train.frozen_blocks keeps weights of the model that training starts from, but "
            "train.initial_model is null: name one, such as shipped."
        )
    if config["average"]["dropout_passes"] and not config["model"]["dropout"]:
        raise QfitLatentError(
            "average.dropout_passes needs model.dropout above 0: without, all passes are the same."
        )
