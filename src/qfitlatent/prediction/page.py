"""One HTML page for a prediction: sequence, residues and chi maps. It needs no network.

The mixture parameters are embedded and a small script evaluates the density, with the formula of
``mixture.py``, wherever the reader clicks. Nothing else is loaded.
"""

from __future__ import annotations

import base64
import html
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from qfitlatent.chemistry.residues import NUM_CHI, ONE_LETTER, PI_SYMMETRIC

if TYPE_CHECKING:
    from qfitlatent.prediction.records import Predicted


def page(
    entry: str,
    summary: pa.Table,
    predicted: Predicted,
    token: np.ndarray,
    identity: dict[str, Any],
) -> str:
    """The page as text.

    summary: ``prediction_files.RESIDUES``, all residues; predicted: n of them, of types token (n,).
    """
    has_chi = NUM_CHI[token] > 0
    slot = np.full(len(summary), -1)
    slot[predicted.row[has_chi]] = np.arange(has_chi.sum())
    letter = np.full(len(summary), "x")
    letter[predicted.row] = np.array(list(ONE_LETTER))[token]
    columns = {name: summary[name].to_pylist() for name in _COLUMNS}
    ids = [
        f"{number}{code}"
        for number, code in zip(columns["author_number"], columns["insertion_code"], strict=True)
    ]
    data = {
        "entry": entry,
        "model": identity["model_sha256"][:12],
        "minWeight": identity["min_weight"],
        "columns": {
            "chain": columns["chain"],
            "author": columns["author_chain"],
            "id": ids,
            "name": columns["name"],
            "note": columns["note"],
            "letter": letter.tolist(),
            "slot": slot.tolist(),
        },
        # Of the residues with chi, in the order of their slots.
        "numChi": NUM_CHI[token[has_chi]].tolist(),
        "symmetric": [int(d.argmax()) if d.any() else -1 for d in PI_SYMMETRIC[token[has_chi]]],
        "arrays": {name: _base64(getattr(predicted, name)[has_chi]) for name in _ARRAYS},
    }
    # A name in the file must not be able to end the script element.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    template = (files("qfitlatent") / "data" / "prediction_page.html").read_text("utf-8")
    return template.replace("@TITLE@", html.escape(entry)).replace("@DATA@", text)


_COLUMNS = ("chain", "author_chain", "author_number", "insertion_code", "name", "note")


_ARRAYS = ("entropy", "top_weight", "mode_weight", "mode_chi", "weight", "mean", "kappa")


def _base64(values: np.ndarray) -> str:
    """Little-endian float32: a tenth of the time, and half of the bytes, of numbers as text."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")
