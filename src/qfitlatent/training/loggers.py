"""Where the figures of an epoch go beside ``metrics.csv``: a function of the user's own.

It is for wandb, MLflow and the like (docs/training.md). Nothing of a training depends on it, so it
is no part of the configuration, and naming another one trains nothing again.
"""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from qfitlatent.base.errors import QfitLatentError

VARIABLE = "QFITLATENT_ON_EPOCH"

OnEpoch = Callable[[Mapping[str, float], Mapping[str, Any]], object]
"""Called with a row of ``metrics.csv`` and the configuration, after the epoch is safe on disk."""


def on_epoch() -> OnEpoch | None:
    """The function that the environment names as MODULE:FUNCTION; None where it names none.

    The module is looked for in the working folder first, as ``python -m`` does.

    Raises QfitLatentError: no such module or function.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    module_name, _, name = text.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise QfitLatentError(
            f"{VARIABLE} is {text!r}, which cannot be imported ({error}): give MODULE:FUNCTION, "
            "with the module in this folder or installed."
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    if not callable(found):
        raise QfitLatentError(f"{VARIABLE} is {text!r}, which is no function: name one.")
    return found
