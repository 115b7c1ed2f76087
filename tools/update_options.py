"""Brings config.yaml up to date with base/config.schema.yaml; values in config.yaml stay."""

from pathlib import Path

from qfitlatent.base import config

CONFIG = Path(__file__).parents[1] / "config.yaml"


def main() -> None:
    CONFIG.write_text(config.commented(config.load(CONFIG)))


if __name__ == "__main__":
    main()
