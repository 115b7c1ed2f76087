"""Brings config.yaml and the README's tables up to date with the schema and the reasons.

Run after a change of base/config.schema.yaml or data/reasons.yaml.
Values in config.yaml stay.
"""

import re
from pathlib import Path

from qfitlatent.base import config
from qfitlatent.pages.reasons import reason_table

ROOT = Path(__file__).parents[1]
TABLES = {
    "<!-- options: made by `qfitlatent config --table` -->\n(.*?)<!-- end of options -->": (
        config.option_table()
    ),
    "<!-- reasons: made by tools/update_options.py -->\n(.*?)<!-- end of reasons -->": (
        reason_table()
    ),
}
"""Where a table stands in the README, and what it is."""


def main() -> None:
    path = ROOT / "config.yaml"
    path.write_text(config.commented(config.load(path)))
    readme = ROOT / "README.md"
    text = readme.read_text()
    for place, table in TABLES.items():
        found = re.search(place, text, re.S)
        text = text[: found.start(1)] + table + "\n" + text[found.end(1) :]
    readme.write_text(text)


if __name__ == "__main__":
    main()
