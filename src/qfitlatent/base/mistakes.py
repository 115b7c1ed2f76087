"""What a user reads for a mistake in the configuration: one sentence that names the key."""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema.exceptions import ValidationError

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


def sentence(error: ValidationError, schema: Mapping[str, Any]) -> str:
    """What a user reads for one violation of ``schema``, which is that of the configuration."""
    key = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        return _unknown_key(error, key, schema)
    value = f"{key} is {_shown(error.instance)}"
    match error.validator:
        case "type":
            allowed = error.validator_value
            names = [allowed] if isinstance(allowed, str) else list(allowed)
            expected = " or ".join(_TYPE_WORDS[name] for name in names)
            hint = ""
            if isinstance(error.instance, str) and _EXPONENT_WITHOUT_POINT.match(error.instance):
                written = re.sub("[eE]", ".0e", error.instance, count=1)
                hint = f" (YAML takes {error.instance} for a text: write {written})"
            what = "a section" if isinstance(error.instance, dict) else _shown(error.instance)
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
        case "maxLength":
            return f"{value}, but must have at most {error.validator_value} characters."
        case "minLength" | "minItems":
            return f"{value}, but must not be empty."
        case "uniqueItems":
            twice = next(x for n, x in enumerate(error.instance) if x in error.instance[:n])
            return f"{key} names {_shown(twice)} twice: remove one."
        case _:
            return f"{value}: {error.message}."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def _unknown_key(error: ValidationError, parent: str, schema: Mapping[str, Any]) -> str:
    """Names the nearest key, judged by whole paths: another word for it (``synonyms`` in the
    schema), the same word in another section, a misspelling beside it, then one anywhere."""
    known = list(error.schema["properties"])
    unknown = next(key for key in error.instance if key not in known)
    path = " ".join(f"{parent}.{unknown}".lstrip(".").split())
    beside = {name: f"{parent}.{name}".lstrip(".") for name in known}
    every = dict(keys(schema))
    near = _similar(unknown, beside) or _similar(path, {key: key for key in every})
    same_word = [key for key in every if key.split(".")[-1] == unknown]
    synonym = [
        key
        for key, node in every.items()
        if unknown in node.get("synonyms", ()) or path in node.get("synonyms", ())
    ]
    in_section = [key for key in synonym if key.rpartition(".")[0] == parent]
    meant = [*in_section, *synonym, *same_word, *near]
    if meant:
        return f"Unknown configuration key {path}: did you mean {meant[0]}?"
    where = f"in {parent}" if parent else "at the top"
    return f"Unknown configuration key {path}: {where} there are {', '.join(known)}."


def _similar(word: str, paths: Mapping[str, str]) -> list[str]:
    found = difflib.get_close_matches(word, paths, n=1, cutoff=0.7)
    return [paths[name] for name in found]


def keys(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every key and section of the schema by its whole path."""
    for name, child in node["properties"].items():
        yield prefix + name, child
        if "properties" in child:
            yield from keys(child, f"{prefix}{name}.")
