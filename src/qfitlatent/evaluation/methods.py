"""The methods that are scored: the model, the libraries, the generator, and tables of others."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI, NUM_CHI_MAX, PI_SYMMETRIC
from qfitlatent.density.libraries import Library
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.evaluation.columns import MIXTURE_COLUMNS, SAMPLE_COLUMNS
from qfitlatent.evaluation.residues import EvaluationSet
from qfitlatent.tables.columns import KEYS
from qfitlatent.tables.keys import KeyCodes

MODEL = "model"


GENERATOR = "generator"


Chunks = Iterator[tuple[np.ndarray, object, torch.Tensor | None]]
"""(ascending positions of residues, density, index of each residue's row in the density)."""


@dataclass(frozen=True)
class Method:
    """A name and a function that yields densities for all residues, some at a time."""

    name: str
    chunks: Callable[[], Chunks]


def library_method(library: Library, data: EvaluationSet, chunk: int) -> Method:
    """A baseline; one that ignores the backbone is drawn from once a residue type only."""
    o = data.observations

    def chunks() -> Chunks:
        shared = None
        if not library.backbone:
            types = np.arange(len(NUM_CHI))
            shared = library.density(types, np.full((len(types), 2), np.nan))
        for start in range(0, data.num, chunk):
            rows = np.arange(start, min(start + chunk, data.num))
            if shared is not None:
                yield rows, shared, torch.from_numpy(o.token[rows])
            else:
                yield rows, library.density(o.token[rows], o.phi_psi[rows]), None

    return Method(library.name, chunks)


def model_method(model, dataset, data: EvaluationSet) -> Method:
    """The trained model, one protein at a time; residues without observations are predicted too."""
    position = np.full(int(data.residue_row.max()) + 1, -1)
    position[data.residue_row] = np.arange(data.num)

    def chunks() -> Chunks:
        for i in range(len(dataset)):
            protein = dataset[i]
            row = protein.residue_row.numpy()
            at = np.where(row < len(position), position[np.minimum(row, len(position) - 1)], -1)
            local = np.flatnonzero(at >= 0)
            if not len(local):
                continue
            local = local[np.argsort(at[local])]
            density = model.predict(protein)
            yield at[local], density.select(torch.from_numpy(local)), None

    return Method(MODEL, chunks)


def table_method(name: str, table: pa.Table, data: EvaluationSet, chunk: int) -> Method:
    """Mixtures given as a table with ``MIXTURE_COLUMNS``; residues it lacks stay unscored."""
    key = KeyCodes(data.columns)
    codes = key.codes(table)
    table = table.filter(pa.array(codes >= 0))
    own = key.codes(data.columns)
    order = np.argsort(own)
    at = np.minimum(np.searchsorted(own[order], codes[codes >= 0]), len(own) - 1)
    known = own[order][at] == codes[codes >= 0]
    table, residue = table.filter(pa.array(known)), order[at[known]]
    if not len(residue):
        raise QfitLatentError(
            f"The external table {name!r} has none of the evaluated residues: "
            "its columns entry, chain and index must be those of the residues table."
        )
    rank = np.lexsort((np.arange(len(residue)), residue))
    residue, table = residue[rank], table.take(rank)
    covered, first, count = np.unique(residue, return_index=True, return_counts=True)
    slot = np.arange(len(residue)) - np.repeat(first, count)
    row = np.repeat(np.arange(len(covered)), count)
    num = int(count.max())
    weight = np.zeros((len(covered), num))
    weight[row, slot] = table["weight"].to_numpy()
    if not (weight >= 0).all() or not (weight.sum(1) > 0).all():
        raise QfitLatentError(
            f"The external table {name!r} has a residue whose weights are negative or all zero."
        )
    mean = np.zeros((len(covered), num, NUM_CHI_MAX))
    kappa = np.zeros_like(mean)
    token = data.observations.token[covered]
    for d in range(NUM_CHI_MAX):
        for array, column in ((mean, f"mean{d + 1}_rad"), (kappa, f"kappa{d + 1}")):
            values = table[column].to_numpy(zero_copy_only=False).astype(float)
            needed = CHI_DEFINED[token][row, d]
            if not np.isfinite(values[needed]).all():
                raise QfitLatentError(
                    f"The external table {name!r} has no {column} for a residue whose type "
                    "has this chi."
                )
            array[row, slot, d] = np.where(needed, values, 0.0)

    def chunks() -> Chunks:
        for start in range(0, len(covered), chunk):
            part = slice(start, start + chunk)
            w = weight[part] / weight[part].sum(1, keepdims=True)
            yield (
                covered[part],
                VonMisesMixture(
                    log_weight=torch.from_numpy(np.log(np.maximum(w, 1e-12))).float(),
                    mean=torch.from_numpy(mean[part]).float(),
                    kappa=torch.from_numpy(kappa[part]).float(),
                    chi_mask=torch.from_numpy(CHI_DEFINED[token[part]]),
                    symmetric=torch.from_numpy(PI_SYMMETRIC[token[part]]),
                ),
                None,
            )

    return Method(name, chunks)


def external_method(setting: dict[str, Any], data: EvaluationSet, chunk: int) -> Method:
    """A user's table (``evaluate.external``): mixtures, or samples widened to von Mises kernels."""
    name, path = setting["name"], Path(setting["path"])
    if not path.exists():
        raise QfitLatentError(f"No external table at {path}: correct `evaluate.external`.")
    table = pq.read_table(path)
    kind = setting.get("kind", "mixture")
    wanted = MIXTURE_COLUMNS if kind == "mixture" else SAMPLE_COLUMNS
    missing = [
        c for c in wanted if c not in table.column_names and c not in ("weight", "component")
    ]
    if missing or (kind == "mixture" and "weight" not in table.column_names):
        raise QfitLatentError(
            f"The external table {path} of kind {kind} has no column "
            f"{(missing or ['weight'])[0]!r}: it needs {', '.join(wanted)}."
        )
    if kind == "samples":
        sigma = math.radians(float(setting.get("smoothing_degrees", 15.0)))
        columns = {k: table[k] for k in KEYS}
        ones = pa.array(np.ones(len(table)))
        columns["weight"] = table["weight"] if "weight" in table.column_names else ones
        for d in range(1, 5):
            chi = table[f"chi{d}_rad"]
            columns[f"mean{d}_rad"] = chi
            columns[f"kappa{d}"] = pc.if_else(pc.is_valid(chi), 1.0 / sigma**2, None)
        table = pa.table(columns)
    return table_method(name, table, data, chunk)


def refuse_repeated(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise QfitLatentError(
                f"Two methods are called {name!r}: rename the one in `evaluate.external`."
            )
