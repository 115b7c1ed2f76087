"""Writes config.yaml: the defaults of base/config.schema.yaml, with their comments."""

from pathlib import Path

from qfitlatent.base import config

CONFIG = Path(__file__).parents[1] / "config.yaml"


def main() -> None:
    CONFIG.write_text(config.commented(config.load()), "utf-8")


if __name__ == "__main__":
    main()
