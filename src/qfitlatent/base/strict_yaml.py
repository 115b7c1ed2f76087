"""YAML as people write it: what is easily got wrong is a sentence, and never a guess.

A key given twice is refused (the library would keep the last one silently), a date stays the text
that it is, and a file that is no text, no regular file or nested without end is named as such.
"""

from pathlib import Path
from typing import Any

import yaml

from qfitlatent.base.errors import QfitLatentError

MAX_BYTES = 4_000_000
"""Nobody writes more settings than this; it is read into memory as a whole."""

MAX_VALUES = 200_000


def quick_yaml(text: str) -> Any:
    """YAML that this package brings, by libyaml where there is one: ten times faster."""
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


class _Loader(yaml.SafeLoader):
    """The safe loader without dates and without keys given twice."""


# A date that does not exist would be an exception of the library, and one that does no text.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.value in seen and isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key.value} is given twice", key.start_mark
            )
        seen.add(str(key.value))
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def _expanded(node: yaml.Node, sizes: dict[int, float]) -> float:
    """Values below ``node`` when its references are followed; infinite where it holds itself."""
    if id(node) not in sizes:
        sizes[id(node)] = float("inf")
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        pairs = (child if isinstance(child, tuple) else (child,) for child in children)
        sizes[id(node)] = 1 + sum(_expanded(part, sizes) for pair in pairs for part in pair)
    return sizes[id(node)]


def read_yaml(path: str | Path) -> Any:
    """What the file holds.

    Raises:
        QfitLatentError: it cannot be read, is no UTF-8 or no YAML, or gives a key twice.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise QfitLatentError(f"The configuration {path} is not a file: give a YAML file.")
        if path.stat().st_size > MAX_BYTES:
            raise QfitLatentError(
                f"The configuration {path} is larger than {MAX_BYTES // 10**6} MB: give a YAML "
                "file of settings."
            )
        loader = _Loader(path.read_text("utf-8-sig"))
        node = loader.get_single_node()
        if node is None:
            return None
        if _expanded(node, {}) > MAX_VALUES:
            raise QfitLatentError(
                f"The configuration {path} has more than {MAX_VALUES} values when its references "
                "(&, *) are followed: write what they stand for."
            )
        return loader.construct_document(node)
    except UnicodeDecodeError as error:
        raise QfitLatentError(
            f"The configuration {path} is not in UTF-8 (byte {error.start}): save it as UTF-8."
        ) from error
    except (OSError, ValueError) as error:
        raise QfitLatentError(f"The configuration {path} cannot be read: {error}.") from error
    except RecursionError as error:
        raise QfitLatentError(
            f"The configuration {path} is nested too deep to be read: correct its brackets."
        ) from error
    except yaml.YAMLError as error:
        detail = " ".join(str(error).split())
        raise QfitLatentError(f"The configuration {path} is not valid YAML: {detail}.") from error
