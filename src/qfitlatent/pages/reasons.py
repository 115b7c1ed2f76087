"""What each reason to leave data out means, for people; the words are ``data/reasons.yaml``."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from qfitlatent.base.strict_yaml import quick_yaml


@cache
def reason_help() -> dict[str, tuple[str, str]]:
    """Reason -> (what it means, what the reader can do), in the order of the vocabulary."""
    text = files("qfitlatent").joinpath("data", "reasons.yaml").read_text("utf-8")
    return {key: (row["meaning"], row["what_to_do"]) for key, row in quick_yaml(text).items()}


def explain(rejected: Mapping[str, Any]) -> str:
    """A row of the table ``rejected`` in words: what happened, to what, and what to do."""
    meaning, what_to_do = reason_help()[rejected["reason"]]
    detail = f" ({rejected['detail']})" if rejected["detail"] else ""
    return f"{meaning.rstrip('.')}{detail}. {what_to_do}"


def reason_table() -> str:
    """All reasons as a Markdown table: the one in the README."""
    rows = [f"| `{reason}` | {what} | {to_do} |" for reason, (what, to_do) in reason_help().items()]
    return "\n".join(["| `reason` | what it means | what you can do |", "|---|---|---|", *rows])
