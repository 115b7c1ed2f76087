"""One HTML page for a prediction: sequence, residues, chi maps and model. It needs no network.

The mixture parameters are embedded and a small script, ``data/pages/prediction.js``, evaluates the
density of the residue that the reader chooses, with the formula of ``density/mixture.py``; another,
``data/pages/pane.js``, draws the atoms around it. Nothing else is loaded. Weight that lies in no
mode is said to be elsewhere and is not shown as heterogeneity.
"""

import base64
from typing import Any

import gemmi
import numpy as np
import pyarrow as pa

from qfitlatent.chemistry.geometry import wrap
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI, ONE_LETTER, PI_SYMMETRIC
from qfitlatent.joint.contacts import STIFFNESS
from qfitlatent.joint.states import States
from qfitlatent.pages.render import render
from qfitlatent.prediction.pane import packed_atoms, packed_viewer
from qfitlatent.prediction.records import Predicted
from qfitlatent.prediction.seen import in_words
from qfitlatent.tables.columns import CHI_COLUMNS
from qfitlatent.tables.keys import find_rows, row_keys

COLUMNS = {"chain": "chain", "author": "author_chain", "name": "name", "note": "note"}
JUDGED = ("confidence", "strain", "disagreement", "unlike_training")
"""Columns of the summary by which a residue is judged."""

UNLIKE = 0.9
"""From this ``unlike_training`` on, a residue is said to be unlike the training set: a tenth of
those that were held out."""

STRAINED = STIFFNESS * 0.4**2
"""Nats of contacts from which they are too close: what an overlap of 0.4 angstrom costs, which is
a clash by Word et al., J. Mol. Biol. 285, 1711 (1999)."""

KAPPA_DRAWN = 365.0
"""Concentration of a kernel 3 degrees wide; narrower ones are drawn so."""

LIGHTEST_DRAWN = 5e-4
"""Weight of the lightest component that a page holds; the others are spread over the circle."""

UNITS = {"weight": 1 / 65535, "angle": np.pi / 32767, "kappa": KAPPA_DRAWN / 65535}
"""What one step of the page's 16-bit numbers is worth; angles have a sign, the others none."""


def page(
    entry: str,
    summary: pa.Table,
    predicted: Predicted,
    states: States,
    token: np.ndarray,
    conformers: pa.Table,
    model: gemmi.Model,
    identity: dict[str, Any],
    seen: pa.Table,
) -> str:
    """The page as text.

    summary: all residues, ``columns.RESIDUES``; predicted: n of them, of types token (n,);
    states: the side chains that were written; conformers: as deposited; model: as written; seen:
    what stood around them, ``columns.SEEN``.
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
    columns |= {name: _rounded(summary[name].to_pylist(), 3) for name in JUDGED}
    # The modes that count, as in the summary: the heaviest always does.
    counts = predicted.mode_weight[has_chi] >= identity["min_weight"]
    counts[:, :1] = True
    occupancy = states.occupancy[has_chi]
    modes, labels = (slice(_width(used)) for used in (counts, occupancy > 0))
    kind = token[has_chi]
    residue, weight, mean, kappa = _drawn(predicted, np.flatnonzero(has_chi))
    has_value = CHI_DEFINED[kind[residue]]  # of the components, the chi that the type has
    arrays = {
        "weight": _steps(weight, "weight"),
        "mean": _steps(mean[has_value], "angle"),
        "kappa": _steps(kappa[has_value], "kappa"),
        "mode_weight": _steps(
            np.where(counts, predicted.mode_weight[has_chi], 0.0)[:, modes], "weight"
        ),
        "mode_chi": _steps(wrap(predicted.mode_chi[has_chi, modes]), "angle"),
        "written_occupancy": _steps(occupancy[:, labels] / 100.0, "weight"),
        "written_chi": _steps(wrap(states.chi[has_chi, labels]), "angle"),
    }
    data = {
        "entry": entry,
        "columns": columns | {"letter": letter.tolist(), "slot": slot.tolist()},
        "judged": JUDGED,
        "strained": STRAINED,
        "unlike": UNLIKE,
        "observed": _observed(conformers, summary, slot),
        # Of the residues with chi, in the order of their slots.
        "numChi": NUM_CHI[kind].tolist(),
        "numComponents": np.bincount(residue, minlength=len(kind)).tolist(),
        "symmetric": [int(d.argmax()) if d.any() else -1 for d in PI_SYMMETRIC[kind]],
        "entropy": _rounded(predicted.entropy[has_chi].tolist(), 4),
        "units": UNITS,
        "arrays": arrays,
    }
    return render(
        "pages/prediction.html.j2",
        entry=entry,
        model="{model} {model_version}, trained on {trained_on}".format(**identity),
        min_weight=identity["min_weight"],
        num_residues=int(has_chi.sum()),
        num_chains=len(set(columns["chain"])),
        num_heterogeneous=int((np.count_nonzero(occupancy, axis=1) > 1).sum()),
        seen=in_words(seen),
        nearest=_nearest_in_words(predicted),
        data=data,
        viewer=packed_viewer(),
        atoms=packed_atoms(model, summary),
    )


def _nearest_in_words(predicted: Predicted) -> str:
    """The nearest training chain of each chain, chains with the same one together."""
    of_chain: dict[str, list[str]] = {}
    for row in predicted.nearest:
        words = "none that is related"
        if row["training_entry"] is not None:
            same = f"{100 * row['identity']:.0f} % identical"
            words = f"{row['training_entry']} {row['training_chain']}, {same}"
        of_chain.setdefault(words, []).append(row["chain"])
    listed = (f"{words} (chain {', '.join(names)})" for words, names in of_chain.items())
    return "; ".join(listed) or f"not known: {predicted.no_reference}"


def _drawn(
    predicted: Predicted, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Components (M,) as the page holds them, of these rows (n,) of a prediction.

    0..n-1 (M,), weight (M,), mean (M,D), kappa (M,D); the last of a row is uniform, and of all
    light ones.
    """
    weight = predicted.weight[rows]
    is_light = weight < LIGHTEST_DRAWN
    rest = np.where(is_light, weight, 0.0).sum(axis=1, keepdims=True)
    weight = np.hstack([np.where(is_light, 0.0, weight), rest])
    residue, component = np.nonzero(weight > 0)
    is_rest = component == weight.shape[1] - 1
    at = rows[residue], np.where(is_rest, 0, component)
    mean, kappa = (
        np.where(is_rest[:, None], np.float32(0.0), values[at])
        for values in (predicted.mean, predicted.kappa)
    )
    return residue, weight[residue, component], wrap(mean), np.minimum(kappa, KAPPA_DRAWN)


def _observed(conformers: pa.Table, summary: pa.Table, slot: np.ndarray) -> dict[str, Any]:
    """The deposited conformers of residues in slots (N,), the table's rows in their order."""
    key, wanted = row_keys(summary, conformers)
    order = np.argsort(key)
    found = find_rows(key[order], wanted)
    place = np.where(found >= 0, slot[order[found]], -1)
    rows = np.flatnonzero(place >= 0)
    shown = conformers.take(pa.array(rows))
    chi = [shown[name].to_numpy() for name in CHI_COLUMNS]
    return {
        "slot": place[rows].tolist(),
        "altloc": shown["altloc"].to_pylist(),
        "occupancy": _rounded(shown["occupancy"].to_pylist(), 2),
        "chi": _steps(np.stack(chi, axis=1), "angle"),
    }


def _width(used: np.ndarray) -> int:
    """Columns of used (n,J) bool up to the last that some residue needs."""
    return int(np.flatnonzero(used.any(axis=0)).max(initial=-1)) + 1


def _rounded(values: list[float | None], decimals: int) -> list[float | None]:
    return [None if value is None else round(value, decimals) for value in values]


def _steps(values: np.ndarray, unit: str) -> tuple[str, str]:
    """The unit, and little-endian 16-bit numbers of it in base64; an angle that is nan is -32768.

    A fifth of the bytes of numbers as text: a page of 2,000 residues opens at once.
    """
    kind = "<i2" if unit == "angle" else "<u2"
    steps = np.nan_to_num(np.rint(values / UNITS[unit]), nan=-32768.0).astype(kind)
    return unit, base64.b64encode(steps.tobytes()).decode("ascii")
