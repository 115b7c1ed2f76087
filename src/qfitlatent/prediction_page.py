"""One HTML page for a prediction: sequence, residues and chi maps. It needs no network.

The mixture parameters are embedded and a small script evaluates the density, with the formula of
``mixture.py``, wherever the reader clicks. Nothing else is loaded.
"""

from __future__ import annotations

import html
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from qfitlatent.chemistry import NUM_CHI, ONE_LETTER, PI_SYMMETRIC

if TYPE_CHECKING:
    from qfitlatent.prediction_files import Predicted


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
    place = {int(row): i for i, row in enumerate(predicted.row)}
    chains: dict[str, dict[str, Any]] = {}
    for row, residue in enumerate(summary.to_pylist()):
        chain = chains.setdefault(
            residue["chain"], {"author": residue["author_chain"], "residues": []}
        )
        i = place.get(row)
        item: dict[str, Any] = {
            "id": f"{residue['author_number']}{residue['insertion_code']}",
            "name": residue["name"],
            "letter": ONE_LETTER[token[i]] if i is not None else "x",
            "note": residue["note"],
        }
        if residue["entropy"] is not None:
            item["entropy"] = round(residue["entropy"], 3)
            item["heterogeneity"] = round(residue["heterogeneity"], 3)
            item |= _mixture(predicted, i, int(token[i]))
        chain["residues"].append(item)
    data = {
        "entry": entry,
        "model": identity["model_sha256"][:12],
        "minWeight": identity["min_weight"],
        "chains": [{"name": name, **chain} for name, chain in chains.items()],
    }
    # A name in the file must not be able to end the script element.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    template = (files("qfitlatent") / "data" / "prediction_page.html").read_text("utf-8")
    return template.replace("@TITLE@", html.escape(entry)).replace("@DATA@", text)


def _mixture(predicted: Predicted, i: int, token: int) -> dict[str, Any]:
    num_chi = int(NUM_CHI[token])
    modes = np.flatnonzero(predicted.mode_weight[i])
    degrees = np.rad2deg(predicted.mode_chi[i, modes, :num_chi])
    return {
        "symmetric": [int(x) for x in PI_SYMMETRIC[token, :num_chi]],
        "modes": [
            [round(float(predicted.mode_weight[i, m]), 3), *(round(float(x)) for x in chi)]
            for m, chi in zip(modes, degrees, strict=True)
        ],
        "weight": _rounded(predicted.weight[i]),
        "mean": [_rounded(x) for x in predicted.mean[i, :, :num_chi]],
        "kappa": [_rounded(x) for x in predicted.kappa[i, :, :num_chi]],
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{x:.4g}") for x in values.tolist()]
