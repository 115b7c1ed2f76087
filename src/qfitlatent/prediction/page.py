"""One HTML page for a prediction: sequence, residues and chi maps. It needs no network.

The mixture parameters are embedded and a small script evaluates the density, with the formula of
``density/mixture.py``, wherever the reader clicks. Nothing else is loaded.
"""

import base64
from typing import Any

import numpy as np
import pyarrow as pa

from qfitlatent.chemistry.residues import NUM_CHI, ONE_LETTER, PI_SYMMETRIC
from qfitlatent.pages.render import render
from qfitlatent.prediction.records import Predicted

COLUMNS = {"chain": "chain", "author": "author_chain", "name": "name", "note": "note"}
ARRAYS = ("entropy", "top_weight", "mode_weight", "mode_chi", "weight", "mean", "kappa")


def page(
    entry: str,
    summary: pa.Table,
    predicted: Predicted,
    token: np.ndarray,
    identity: dict[str, Any],
) -> str:
    """The page as text.

    summary: all residues, ``columns.RESIDUES``; predicted: n of them, of types token (n,).
    """
    has_chi = NUM_CHI[token] > 0
    slot = np.full(len(summary), -1)
    slot[predicted.row[has_chi]] = np.arange(has_chi.sum())
    letter = np.full(len(summary), "x")
    letter[predicted.row] = np.array(list(ONE_LETTER))[token]
    columns = {name: summary[column].to_pylist() for name, column in COLUMNS.items()}
    numbers = zip(
        summary["author_number"].to_pylist(), summary["insertion_code"].to_pylist(), strict=True
    )
    columns["id"] = [f"{number}{code}" for number, code in numbers]
    data = {
        "columns": columns | {"letter": letter.tolist(), "slot": slot.tolist()},
        # Of the residues with chi, in the order of their slots.
        "numChi": NUM_CHI[token[has_chi]].tolist(),
        "symmetric": [int(d.argmax()) if d.any() else -1 for d in PI_SYMMETRIC[token[has_chi]]],
        "arrays": {name: _base64(getattr(predicted, name)[has_chi]) for name in ARRAYS},
    }
    return render(
        "pages/prediction.html.j2",
        entry=entry,
        model="{model} {model_version}, trained on {trained_on}".format(**identity),
        min_weight=identity["min_weight"],
        num_residues=int(has_chi.sum()),
        num_chains=len(set(columns["chain"])),
        num_heterogeneous=int((np.count_nonzero(predicted.mode_weight[has_chi], 1) > 1).sum()),
        data=data,
    )


def _base64(values: np.ndarray) -> str:
    """Little-endian float32: a tenth of the time, and half of the bytes, of numbers as text."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")
