"""Brings config.yaml and the README's option table up to date with the schema.

Run after a change of src/qfitlatent/schemas/config.schema.yaml. Values in config.yaml stay.
"""

import re
from pathlib import Path

from qfitlatent import config

ROOT = Path(__file__).parents[1]
START, END = "<!-- options: made by `qfitlatent config --table` -->\n", "<!-- end of options -->"

path = ROOT / "config.yaml"
path.write_text(config.commented(config.load(path)))
readme = ROOT / "README.md"
pattern = re.escape(START) + ".*?" + re.escape(END)
table = START + config.option_table() + "\n" + END
readme.write_text(re.sub(pattern, lambda _: table, readme.read_text(), flags=re.S))
