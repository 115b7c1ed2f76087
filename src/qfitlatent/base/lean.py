"""A process of this program alone that does without a library that others would import."""

import sys
from importlib.abc import MetaPathFinder
from typing import Any


class _WithoutPandas(MetaPathFinder):
    def find_spec(self, name: str, *_: Any) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("This process does without pandas.", name=name)


def without_pandas() -> None:
    """From here on this process has no pandas, which nothing that uses a model needs.

    pyarrow imports it at its first array, where there is one, for a fifth of a second.
    """
    sys.meta_path.insert(0, _WithoutPandas())
