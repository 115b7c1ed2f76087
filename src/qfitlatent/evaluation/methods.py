"""The methods that are scored: the model, the libraries, the generator, and tables of others."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import (
    CHI_DEFINED,
    NUM_CHI,
    NUM_CHI_MAX,
    NUM_TOKENS,
    PI_SYMMETRIC,
)
from qfitlatent.density.libraries import Library
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.density.protocol import Density
from qfitlatent.evaluation.columns import MIXTURES, MODEL, SAMPLES
from qfitlatent.evaluation.residues import EvaluationSet
from qfitlatent.evaluation.settings import CHUNK_RESIDUES
from qfitlatent.model.batch import collate
from qfitlatent.model.network import DensityNetwork
from qfitlatent.model.outputs import Outputs
from qfitlatent.tables.columns import CHI, KEYS
from qfitlatent.tables.keys import find_rows, row_keys
from qfitlatent.tables.parquet import conform, read_table


class Chunk(NamedTuple):
    """Some residues and the density that a method gives them."""

    rows: np.ndarray  # (n,) ascending positions in the evaluation set
    density: Density  # of n residues, or of fewer that are shared
    of_density: Tensor  # (n,) long, the residue of the density that each is
    outputs: Outputs | None = None  # of n residues, by a model that has them


@dataclass(frozen=True)
class Method:
    """A name, and the densities of all residues, a part of them at a time."""

    name: str
    parts: Sequence[np.ndarray]
    chunk: Callable[[np.ndarray], Chunk]
    shared: Density | None = None
    """The density of every chunk, where they have one in common."""


def _parts(num_components: np.ndarray, token: np.ndarray, size: int) -> list[np.ndarray]:
    """0 to n - 1 by their num_components (n,) and their chi, so many at a time, each ascending.

    The residues of a part are alike, so that little of what is computed for all is padding.
    """
    order = np.lexsort((NUM_CHI[token], num_components))
    return [np.sort(order[start : start + size]) for start in range(0, len(order), size)]


def library_method(library: Library, data: EvaluationSet, size: int = CHUNK_RESIDUES) -> Method:
    """A baseline; the points of one that ignores the backbone are those of a residue type."""
    token, phi_psi, shared = data.observed.token, data.observed.phi_psi, None
    if not library.backbone:
        types = torch.arange(NUM_TOKENS)
        shared = library.density(types, torch.full((NUM_TOKENS, 2), math.nan))

    def chunk(rows: np.ndarray) -> Chunk:
        if shared is not None:
            return Chunk(rows, shared, token[rows])
        own = library.density(token[rows], phi_psi[rows])
        return Chunk(rows, own, torch.arange(len(rows)))

    sizes = np.zeros(NUM_TOKENS, dtype=np.int64)
    for kind, components in library.components.items():
        sizes[kind] = len(components.weight)
    kinds = token.numpy()
    return Method(library.name, _parts(sizes[kinds], kinds, size), chunk, shared)


def model_method(model: DensityNetwork, data: EvaluationSet, size: int = CHUNK_RESIDUES) -> Method:
    """The trained model, some proteins at a time; residues that show no chi are in its view."""
    seen = [number for number, p in enumerate(data.dataset) if len(data.rows_of(p))]
    before = np.cumsum(data.dataset.num_residues[seen])
    parts = np.split(np.array(seen), np.flatnonzero(np.diff(before // size)) + 1)

    def chunk(numbers: np.ndarray) -> Chunk:
        rows, parts = [], []
        for protein in (data.dataset[number] for number in numbers.tolist()):
            own = data.rows_of(protein)
            local = torch.searchsorted(protein.residue_row, data.residue_row[own])
            parts.append((model.encode(collate([protein]))[local], protein.token[local]))
            rows.append(own)
        every = np.concatenate(rows)
        s, token = (torch.cat(x) for x in zip(*parts, strict=True))
        density, said = model.density(s, token), model.outputs(s, token)
        return Chunk(every, density, torch.arange(len(every)), said)

    return Method(MODEL, parts, chunk)


def table_method(
    name: str, table: pa.Table, data: EvaluationSet, size: int = CHUNK_RESIDUES
) -> Method:
    """Mixtures given as a table of ``columns.MIXTURES``; residues it lacks stay unscored."""
    residue = find_rows(*row_keys(data.columns, table))
    rank = np.argsort(residue, kind="stable")[np.count_nonzero(residue < 0) :]
    if not len(rank):
        raise QfitLatentError(
            f"The external table {name!r} has none of the evaluated residues: "
            "its columns entry, chain and index must be those of the residues table."
        )
    table, residue = table.take(rank), residue[rank]
    covered, first, row, num_components = np.unique(residue, True, True, True)
    slot = np.arange(len(residue)) - first[row]
    shape = (len(covered), int(num_components.max()))
    weight = np.zeros(shape)
    weight[row, slot] = table["weight"].to_numpy()
    if not (weight >= 0).all() or not (weight.sum(1) > 0).all():
        raise QfitLatentError(
            f"The external table {name!r} has a residue whose weights are negative or all zero."
        )
    token = data.observed.token.numpy()[covered]
    mean, kappa = np.zeros((2, *shape, NUM_CHI_MAX))
    for d in CHI:
        needed = CHI_DEFINED[token][row, d - 1]
        for array, column in ((mean, f"mean{d}_rad"), (kappa, f"kappa{d}")):
            values = table[column].to_numpy()
            if not np.isfinite(values[needed]).all():
                raise QfitLatentError(
                    f"The external table {name!r} has no {column} for a residue whose type "
                    "has this chi."
                )
            array[row, slot, d - 1] = np.where(needed, values, 0.0)
    weight = np.maximum(weight / weight.sum(1, keepdims=True), 1e-12)
    masks = (torch.from_numpy(x[token]) for x in (CHI_DEFINED, PI_SYMMETRIC))
    parameters = (torch.from_numpy(x).float() for x in (np.log(weight), mean, kappa))
    mixture = VonMisesMixture(*parameters, *masks)

    def chunk(part: np.ndarray) -> Chunk:
        own = mixture.select(torch.from_numpy(part)).first(int(num_components[part].max()))
        return Chunk(covered[part], own, torch.arange(len(part)))

    return Method(name, _parts(num_components, token, size), chunk)


def external_method(
    setting: dict[str, Any], data: EvaluationSet, size: int = CHUNK_RESIDUES
) -> Method:
    """A user's table (``evaluate.external``): mixtures, or samples widened to von Mises kernels."""
    name, path = setting["name"], Path(setting["path"])
    if not path.exists():
        raise QfitLatentError(f"No external table at {path}: correct `evaluate.external`.")
    table = read_table(path)
    if setting["kind"] == "mixture":
        return table_method(name, conform(table, MIXTURES, path), data, size)
    if "weight" not in table.column_names:
        table = table.append_column("weight", pa.array(np.ones(len(table))))
    table = conform(table, SAMPLES, path)
    kappa = 1.0 / math.radians(setting["smoothing_degrees"]) ** 2
    columns = {name: table[name] for name in (*KEYS, "weight")}
    for d in CHI:
        columns[f"mean{d}_rad"] = table[f"chi{d}_rad"]
        columns[f"kappa{d}"] = pc.if_else(pc.is_valid(table[f"chi{d}_rad"]), kappa, None)
    return table_method(name, pa.table(columns), data, size)


def refuse_repeated(names: Sequence[str]) -> None:
    """Raises QfitLatentError where two methods have one name."""
    for name in names:
        if list(names).count(name) > 1:
            raise QfitLatentError(
                f"Two methods are called {name!r}: rename the one in `evaluate.external`."
            )
