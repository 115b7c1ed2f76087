"""What a user reads for a mistake in the configuration: one sentence that names the key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
            synonym = error.schema.get("value_synonyms", {}).get(str(error.instance).lower())
            near = [synonym] if synonym else _similar(str(error.instance), allowed)
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
    """Names the key that was meant, or says that there is none.

    First another word for a key of the same section (``synonyms`` in the schema), then the same
    word in another section, another word for any key, a misspelling beside it, one anywhere. The
    root of the schema has under ``elsewhere`` what is set outside the configuration.
    """
    known = list(error.schema["properties"])
    unknown = next(key for key in error.instance if key not in known)
    path = " ".join(f"{parent}.{unknown}".lstrip(".").split())
    word = unknown.replace("-", "_")
    every = dict(keys(schema))
    synonym = [
        key
        for key, node in every.items()
        if {word, word.lower(), word.upper(), path} & set(node.get("synonyms", ()))
    ]
    in_section = [key for key in synonym if key.rpartition(".")[0] == parent]
    same_word = [key for key in every if key.rpartition(".")[2] == word.lower()]
    in_section = [f"{parent}.{word.lower()}".lstrip(".")] * (word.lower() in known) + in_section
    meant = [*in_section, *same_word, *synonym]
    if not meant and word in schema["elsewhere"]:
        return f"Unknown configuration key {path}: {schema['elsewhere'][word]}."
    meant = meant or [f"{parent}.{name}".lstrip(".") for name in _similar(word, known)]
    meant = meant or _misspelt(word, path, every)
    if meant:
        return f"Unknown configuration key {path}: did you mean {meant[0]}?"
    where = f"in {parent}" if parent else "at the top"
    return f"Unknown configuration key {path}: {where} there are {', '.join(known)}."


def _similar(word: str, names: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(word, list(names), n=1, cutoff=0.7)


def _misspelt(word: str, path: str, every: Iterable[str]) -> list[str]:
    """Keys of any section whose last word is like ``word``, that with the likest path first."""
    like = [key for key in every if _similar(word, [key.rpartition(".")[2]])]
    return difflib.get_close_matches(path, like, n=1, cutoff=0)


def keys(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every key and section of the schema by its whole path."""
    for name, child in node["properties"].items():
        yield prefix + name, child
        if "properties" in child:
            yield from keys(child, f"{prefix}{name}.")
