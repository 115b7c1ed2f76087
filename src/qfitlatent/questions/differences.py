"""What differs between two sets of structures, and what of it their backbones explain.

Of each residue the populations of its rotamer wells, predicted on the backbones and observed; the
observed difference is held against the predicted one along its own direction:

    distance = sum_w |b_w - a_w| / 2                         (total variation, 0 to 1)
    share    = sum_w o_w p_w / sum_w o_w o_w,  o, p the observed and the predicted b - a

A share of 1 predicts all of what is observed, 0 nothing of it, and it is negative where the
prediction goes the other way. Exchanging a and b changes the sign of changes, nothing else.

Shapes: P pairs of residues, W wells.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import NUM_CHI
from qfitlatent.questions.alignment import matched
from qfitlatent.questions.average import deviation
from qfitlatent.questions.populations import Populations
from qfitlatent.questions.wells import WELL_NAMES, circular_wasserstein
from qfitlatent.tables.columns import CHI, F32, I32, TEXT, Column, make_schema
from qfitlatent.tables.parquet import conform

Z_95 = 1.959964
"""Standard deviations on each side that hold 95 % of a normal distribution."""

EXPLAINED, NOT_EXPLAINED = "explained", "not explained"
NO_DIFFERENCE, NOT_OBSERVED = "no difference", "not observed"
UNSEEN, OTHER_TYPE, NO_CHI = "no side chain", "another type", "no chi"

_PLACE = (
    ("chain", "chain", TEXT, "label_asym_id; for PDB files gemmi's subchain"),
    ("author_chain", "author_chain", TEXT, "auth_asym_id; the chain of a PDB file"),
    ("author_number", "author_number", I32, "auth_seq_id"),
    ("insertion_code", "insertion_code", TEXT, "insertion code; empty if none"),
    ("name", "name", TEXT, "component name"),
)


def _of(side: str) -> tuple[Column, ...]:
    return tuple(
        Column(f"{name}_{side}", kind, False, "", f"{about}, in the first structure of {side}")
        for name, _, kind, about in _PLACE
    )


DIFFERENCES = make_schema(
    (
        *_of("a"),
        *_of("b"),
        Column("decision", TEXT, False, "", "what the difference is; see the page of the docs"),
        Column("rotamer", TEXT, False, "", "well that changes most, observed or else predicted"),
        Column("predicted_a", F32, True, "1", "its predicted population in a"),
        Column("predicted_b", F32, True, "1", "its predicted population in b"),
        Column("predicted_change", F32, True, "1", "predicted_b - predicted_a"),
        Column("predicted_change_low", F32, True, "1", "lower end of its 95 % interval"),
        Column("predicted_change_high", F32, True, "1", "upper end of its 95 % interval"),
        Column("observed_a", F32, True, "1", "its observed population in a; null: not seen"),
        Column("observed_b", F32, True, "1", "its observed population in b; null: not seen"),
        Column("observed_change", F32, True, "1", "observed_b - observed_a"),
        Column("observed_change_low", F32, True, "1", "as above; null of single structures"),
        Column("observed_change_high", F32, True, "1", "as above; null of single structures"),
        Column("predicted_distance", F32, True, "1", "total variation over all its wells"),
        Column("observed_distance", F32, True, "1", "total variation over all its wells"),
        Column("share", F32, True, "1", "of the observed difference that is predicted"),
        Column("share_low", F32, True, "1", "lower end of its 95 % interval"),
        Column("share_high", F32, True, "1", "upper end of its 95 % interval"),
        *(
            Column(f"wasserstein{d}_degrees", F32, True, "degree", f"of the predicted chi{d}")
            for d in CHI
        ),
        Column("observed_rotamers_a", TEXT, False, "", "observed wells and populations in a"),
        Column("observed_rotamers_b", TEXT, False, "", "observed wells and populations in b"),
    )
)


@dataclass(frozen=True)
class Thresholds:
    """Of the decisions; section ``compare_structures`` of the configuration."""

    observed_above: float
    predicted_above: float
    explained_from: float
    coordinate_error_angstrom: float


def differences(a: Populations, b: Populations, limits: Thresholds) -> pa.Table:
    """A row for each pair of aligned residues, in the order of a: columns of ``DIFFERENCES``.

    Raises QfitLatentError where no chain of a is one of b.
    """
    chains = a.residues["chain"].to_pylist(), b.residues["chain"].to_pylist()
    pairs = matched(chains, (a.token.tolist(), b.token.tolist()))
    if not len(pairs):
        raise QfitLatentError(
            f"No chain of {a.name} is like one of {b.name}: give structures of one protein."
        )
    i, j = pairs.T
    token = a.token[i]
    same = (token == b.token[j]) & (NUM_CHI[token] > 0)
    seen = same & (a.observed.count[i] > 0) & (b.observed.count[j] > 0)
    before, after = a.predicted.value[i], b.predicted.value[j]
    shown_before, shown_after = a.observed.value[i], b.observed.value[j]
    predicted, observed = after - before, (shown_after - shown_before) * seen[:, None]
    distance, shown = (0.5 * np.abs(change).sum(axis=1) for change in (predicted, observed))
    covariance = a.covariance[i] + b.covariance[j]

    leading = np.where((shown > 0)[:, None], observed, predicted)
    well = _leading(leading)
    one_hot = np.eye(leading.shape[1])[well]
    change, half = (predicted * one_hot).sum(1), Z_95 * deviation(covariance, one_hot)
    norm = (observed**2).sum(axis=1)
    differs = norm > 0
    direction = observed / np.where(differs, norm, 1.0)[:, None]
    share, half_share = (predicted * direction).sum(1), Z_95 * deviation(covariance, direction)
    decision = _decided(
        {
            OTHER_TYPE: token != b.token[j],
            NO_CHI: ~same,
            EXPLAINED: (shown >= limits.observed_above)
            & (share >= limits.explained_from)
            & (share > half_share),
            NOT_EXPLAINED: shown >= limits.observed_above,
            NOT_OBSERVED: (distance >= limits.predicted_above) & (np.abs(change) > half),
            UNSEEN: ~seen,
        }
    )
    scatter = _observed_scatter(a, b, i, j, one_hot)
    shown_change = (observed * one_hot).sum(1)
    asked = seen & (shown >= limits.observed_above)
    columns: dict[str, Any] = {
        **{f"{name}_a": a.residues[column].take(pa.array(i)) for name, column, *_ in _PLACE},
        **{f"{name}_b": b.residues[column].take(pa.array(j)) for name, column, *_ in _PLACE},
        "decision": decision,
        "rotamer": [
            WELL_NAMES[t][w] if is_same else ""
            for t, w, is_same in zip(token.tolist(), well.tolist(), same.tolist(), strict=True)
        ],
        "predicted_a": _floats((before * one_hot).sum(1), same),
        "predicted_b": _floats((after * one_hot).sum(1), same),
        "predicted_change": _floats(change, same),
        "predicted_change_low": _floats(np.maximum(change - half, -1.0), same),
        "predicted_change_high": _floats(np.minimum(change + half, 1.0), same),
        "observed_a": _floats((shown_before * one_hot).sum(1), same & (a.observed.count[i] > 0)),
        "observed_b": _floats((shown_after * one_hot).sum(1), same & (b.observed.count[j] > 0)),
        "observed_change": _floats(shown_change, seen),
        "observed_change_low": _floats(
            np.maximum(shown_change - scatter, -1.0), seen & np.isfinite(scatter)
        ),
        "observed_change_high": _floats(
            np.minimum(shown_change + scatter, 1.0), seen & np.isfinite(scatter)
        ),
        "predicted_distance": _floats(distance, same),
        "observed_distance": _floats(shown, seen),
        "share": _floats(share, asked),
        "share_low": _floats(share - half_share, asked),
        "share_high": _floats(share + half_share, asked),
        "observed_rotamers_a": _listed(token, shown_before, same),
        "observed_rotamers_b": _listed(token, shown_after, same),
    }
    moved = circular_wasserstein(token, a.histogram[i], b.histogram[j])
    for d in CHI:
        known = same & np.isfinite(moved[:, d - 1])
        columns[f"wasserstein{d}_degrees"] = _floats(moved[:, d - 1], known)
    return conform(pa.table(columns), DIFFERENCES, "the differences")


def _leading(change: np.ndarray) -> np.ndarray:
    """(P,) the well that changes most; of equal ones the first, whichever way they change."""
    size = np.round(np.abs(change), 9)
    return size.argmax(axis=1)


def _decided(cases: dict[str, np.ndarray]) -> list[str]:
    """For each pair the first case (P,) bool that holds, else that there is no difference."""
    names = np.array(list(cases))
    held = np.stack(list(cases.values()))
    return np.where(held.any(0), names[held.argmax(0)], NO_DIFFERENCE).tolist()


def _observed_scatter(
    a: Populations, b: Populations, i: np.ndarray, j: np.ndarray, one_hot: np.ndarray
) -> np.ndarray:
    """(P,) half of the 95 % interval of the observed change, nan where both are single."""
    covariance = a.observed.covariance[i] + b.observed.covariance[j]
    known = (a.observed.count[i] > 1) & (b.observed.count[j] > 1)
    return np.where(known, Z_95 * deviation(covariance, one_hot), np.nan)


def _floats(values: np.ndarray, known: np.ndarray) -> pa.Array:
    return pa.array(values.astype(np.float32), mask=~known)


def _listed(token: np.ndarray, population: np.ndarray, same: np.ndarray) -> list[str]:
    """``mt 0.70, tp 0.30``, the largest first; empty where nothing is shown."""
    texts = []
    for kind, values, is_same in zip(token.tolist(), population, same.tolist(), strict=True):
        order = np.argsort(-values, kind="stable").tolist() if is_same else []
        texts.append(
            ", ".join(f"{WELL_NAMES[kind][w]} {values[w]:.2f}" for w in order if values[w])
        )
    return texts
