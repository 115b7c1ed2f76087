"""The configuration: read, checked against the closed schema, defaults filled in.

The schema (``base/config.schema.yaml``) is the one home of defaults, ranges and
descriptions. What a schema cannot say (fractions that sum to 1, a source that needs a
folder) is checked here. Every error is one sentence that names the key.
"""

import copy
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from qfitlatent.base.errors import QfitLatentError

_TYPE_WORDS = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "an integer",
    "null": "null",
    "number": "a number",
    "object": "a section of keys",
    "string": "a text",
}


_EXPONENT_WITHOUT_POINT = re.compile(r"^[-+]?\d+[eE][-+]?\d+$")


class Option(NamedTuple):
    """One key of the configuration, for the README's table."""

    key: str
    default: Any
    description: str


@cache
def schema() -> dict[str, Any]:
    """The schema of the whole configuration. Treat it as read-only."""
    text = files("qfitlatent").joinpath("base/config.schema.yaml").read_text("utf-8")
    return yaml.safe_load(text)


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
        values = copy.deepcopy(dict(part)) if isinstance(part, Mapping) else _read_yaml(Path(part))
        _merge(given, values)
    error = min(
        Draft202012Validator(schema()).iter_errors(given),
        key=lambda error: (error.validator != "additionalProperties", list(map(str, error.path))),
        default=None,
    )
    if error is not None:
        raise QfitLatentError(_sentence(error))
    config = _with_defaults(schema(), given)
    _cross_check(config)
    return config


def section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A copy of one section, so that a stage sees its own settings and nothing else."""
    return copy.deepcopy(dict(config[name]))


def dump(config: Mapping[str, Any]) -> str:
    """The resolved configuration as YAML, keys in the schema's order."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)


def options() -> list[Option]:
    """Every key with its default and description, in the schema's order."""
    return list(_options(schema(), ""))


def option_table() -> str:
    """The options as a Markdown table, for the README."""
    lines = ["| key | default | what it is |", "|---|---|---|"]
    for key, default, description in options():
        shown = "none" if default in (None, []) else _scalar(default)
        about = description.replace("|", "\\|")
        lines.append(f"| `{key}` | {shown.replace('*', r'`*`').strip(chr(39))} | {about} |")
    return "\n".join(lines)


def _options(node: Mapping[str, Any], prefix: str) -> Iterator[Option]:
    for key, child in node["properties"].items():
        if "default" in child:
            yield Option(prefix + key, child["default"], child["description"])
        if "properties" in child:
            yield from _options(child, f"{prefix}{key}.")


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


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise QfitLatentError(f"The configuration {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        detail = " ".join(str(error).split())
        raise QfitLatentError(f"The configuration {path} is not valid YAML: {detail}.") from error
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
    if "properties" not in node or value is None:
        return value
    filled = {}
    for key, child in node["properties"].items():
        if key in value:
            filled[key] = _with_defaults(child, value[key])
        elif "default" in child:
            filled[key] = copy.deepcopy(child["default"])
        else:
            filled[key] = _with_defaults(child, {})
    return filled


def _sentence(error: ValidationError) -> str:
    """What a user reads for one violation of the schema."""
    key = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        return _unknown_key(error, key)
    value = f"{key} is {error.instance!r}"
    match error.validator:
        case "type":
            allowed = error.validator_value
            names = [allowed] if isinstance(allowed, str) else list(allowed)
            expected = " or ".join(_TYPE_WORDS[name] for name in names)
            hint = ""
            if isinstance(error.instance, str) and _EXPONENT_WITHOUT_POINT.match(error.instance):
                written = re.sub("[eE]", ".0e", error.instance, count=1)
                hint = f" (YAML takes {error.instance} for a text: write {written})"
            what = "a section" if isinstance(error.instance, dict) else f"{error.instance!r}"
            name = key or "The configuration"
            return f"{name} is {what}, but must be {expected}{hint}."
        case "enum":
            allowed = [str(item) for item in error.validator_value]
            near = difflib.get_close_matches(str(error.instance), allowed, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            return f"{value}, but must be one of {', '.join(allowed)}{hint}"
        case "required":
            absent = next(name for name in error.validator_value if name not in error.instance)
            return f"{key} lacks the key {absent}: add it."
        case "minimum":
            return f"{value}, but must be at least {error.validator_value}."
        case "exclusiveMinimum":
            return f"{value}, but must be above {error.validator_value}."
        case "maximum":
            return f"{value}, but must be at most {error.validator_value}."
        case "exclusiveMaximum":
            return f"{value}, but must be below {error.validator_value}."
        case "pattern":
            return f"{value}, but must look like the pattern {error.validator_value}."
        case _:
            return f"{value}: {error.message}."


def _unknown_key(error: ValidationError, parent: str) -> str:
    known = list(error.schema["properties"])
    unknown = next(key for key in error.instance if key not in known)
    prefix = f"{parent}." if parent else ""
    near = difflib.get_close_matches(str(unknown), known, n=1, cutoff=0.5)
    if near:
        return f"Unknown configuration key {prefix}{unknown}: did you mean {prefix}{near[0]}?"
    elsewhere = [option.key for option in options() if option.key.split(".")[-1] == unknown]
    if elsewhere:
        return f"Unknown configuration key {prefix}{unknown}: did you mean {elsewhere[0]}?"
    where = f"in {parent}" if parent else "at the top"
    return f"Unknown configuration key {prefix}{unknown}: {where} there are {', '.join(known)}."


def _cross_check(config: Mapping[str, Any]) -> None:
    fractions = config["split"]["fractions"]
    total = sum(fractions.values())
    if abs(total - 1.0) > 1e-6:
        listed = ", ".join(f"{name} {value:g}" for name, value in fractions.items())
        raise QfitLatentError(
            f"split.fractions sum to {total:g} ({listed}), but must sum to 1: change one of them."
        )
    entries = config["entries"]
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
    if config["train"]["dropout_passes"] and not config["model"]["dropout"]:
        raise QfitLatentError(
            "train.dropout_passes needs model.dropout above 0: without, all passes are the same."
        )
