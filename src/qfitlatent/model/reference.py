"""What a model remembers of its training set, in a file beside it: is a backbone like those?

A residue is as unlike them as its single representation is far from that of the training residues
of its type: the Mahalanobis distance (Lee et al., NeurIPS 2018), in the directions in which
residues of one type differ most. What a distance means is read from residues that were held out.
The file also has the sequences of the training chains, of which the nearest is named.

Shapes: N residues, T=20 types, W width of the representation, R directions, Q quantiles, C chains.
"""

from __future__ import annotations

import json
import lzma
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path
from qfitlatent.chemistry.residues import ONE_LETTER, RESIDUE_TYPES
from qfitlatent.model.learnt import MIN_RESIDUES

REFERENCE_FILE = "training_set.safetensors"
"""Beside the file of the model."""

MAX_DIRECTIONS = 64
SHRINKAGE = 0.1
"""Chosen on validation entries (docs/ignorance.md): share of the identity, scaled to its trace, in
the covariance of each type after whitening."""

QUANTILES = np.linspace(0.0, 1.0, 201)

WORD_LENGTH = 4
"""Letters of the words that training chains must share with a chain to be aligned with it."""

MAX_ALIGNED = 4
MIN_IDENTITY = 0.3
"""Of an alignment over all of a chain: below it, unrelated chains come as near."""

_HEADER_KEY = "qfitlatent_training_set"
_NUM_TYPES = len(RESIDUE_TYPES)
_CODE = np.full(256, len(ONE_LETTER), dtype=np.int64)
_CODE[np.frombuffer(ONE_LETTER.encode(), dtype=np.uint8)] = np.arange(len(ONE_LETTER))
_NUM_LETTERS = len(ONE_LETTER) + 1


@dataclass(frozen=True)
class Reference:
    """The training set of the model whose weights begin with the sha256 ``model_version``.

    basis (W,R) whitens what all types share; mean (T,R) and factor (T,R,R) are of the types in it;
    quantiles (Q,) of the distance on held-out residues; chains (C) entry and name, and their
    sequences (C) in one-letter code, each once.
    """

    model_version: str
    basis: np.ndarray
    mean: np.ndarray
    factor: np.ndarray
    quantiles: np.ndarray
    chains: tuple[tuple[str, str], ...]
    sequences: tuple[str, ...]

    def distance(self, s: np.ndarray, token: np.ndarray) -> np.ndarray:
        """(N,) squared Mahalanobis distances of s (N,W) of types token (N,); nan of no known type.

        Raises QfitLatentError for representations of another width.
        """
        if s.shape[1] != len(self.basis):
            raise QfitLatentError(
                f"{REFERENCE_FILE} is of a model with {len(self.basis)} numbers for a residue, not "
                f"{s.shape[1]}: make it anew with tools/training_set.py."
            )
        z = s @ self.basis
        found = np.full(len(token), np.nan, dtype=np.float32)
        for kind in np.unique(token[token < _NUM_TYPES]):
            rows = token == kind
            found[rows] = np.square((z[rows] - self.mean[kind]) @ self.factor[kind]).sum(axis=1)
        return found

    def unlike(self, s: np.ndarray, token: np.ndarray) -> np.ndarray:
        """(N,) 0 to 1: share of the held-out residues that are nearer to the training set."""
        distance = self.distance(s, token)
        found = np.interp(distance, self.quantiles, QUANTILES).astype(np.float32)
        return np.where(np.isnan(distance), np.float32(np.nan), found)

    @cached_property
    def _words(self) -> tuple[np.ndarray, np.ndarray]:
        """The word at each place of all sequences, and where each sequence begins."""
        code = _CODE[np.frombuffer("".join(self.sequences).encode(), dtype=np.uint8)]
        return words(code), np.r_[0, np.cumsum([len(x) for x in self.sequences])[:-1]]

    def nearest(self, token: np.ndarray) -> dict[str, Any]:
        """training_entry, training_chain and identity of what is most like a chain token (N,).

        identity: residues of the chain that are the same in a global alignment, of all N. All are
        None below ``MIN_IDENTITY``, and for chains too short to say.
        """
        none = dict.fromkeys(("training_entry", "training_chain", "identity"))
        if len(token) < MIN_RESIDUES or not self.sequences:
            return none
        known = np.zeros(_NUM_LETTERS**WORD_LENGTH, dtype=bool)
        parts = np.lib.stride_tricks.sliding_window_view(token, WORD_LENGTH)
        known[words(token.astype(np.int64))[: len(parts)][(parts < _NUM_TYPES).all(axis=1)]] = True
        word, start = self._words
        shared = np.add.reduceat(known[word], start, dtype=np.int64)
        asked = spelt("".join(np.array(list(ONE_LETTER))[token]))
        best = MIN_IDENTITY, -1
        scoring = gemmi.AlignmentScoring("b")
        for at in np.argsort(-shared, kind="stable")[:MAX_ALIGNED].tolist():
            if not shared[at]:
                break
            result = gemmi.align_string_sequences(asked, spelt(self.sequences[at]), [], scoring)
            identity = result.match_count / len(token)
            if identity > best[0]:
                best = identity, at
        if best[1] < 0:
            return none
        return dict(zip(none, (*self.chains[best[1]], round(best[0], 3)), strict=True))

    def save(self, path: Path) -> None:
        """Writes the file, the same bytes for the same training set."""
        text = json.dumps({"chains": self.chains, "sequences": self.sequences})
        packed = np.frombuffer(lzma.compress(text.encode(), preset=9), dtype=np.uint8)
        lower = np.tril_indices(self.factor.shape[1])
        tensors: dict[str, np.ndarray] = {
            "basis": self.basis.astype(np.float32),
            "mean": self.mean.astype(np.float32),
            "factor": self.factor[:, lower[0], lower[1]].astype(np.float32),
            "quantiles": self.quantiles.astype(np.float32),
            "chains": packed,
        }
        # safetensors writes the memory of an array as it lies, whatever its strides say.
        tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(tensors, {_HEADER_KEY: self.model_version}))


def words(code: np.ndarray) -> np.ndarray:
    """(L,) number of the word that begins at each place of code (L,), past the end padded."""
    padded = np.r_[code, np.full(WORD_LENGTH - 1, len(ONE_LETTER))]
    windows = np.lib.stride_tricks.sliding_window_view(padded, WORD_LENGTH)
    return windows @ _NUM_LETTERS ** np.arange(WORD_LENGTH)


def spelt(sequence: str) -> list[str]:
    """Residue names as gemmi's scoring knows them."""
    return gemmi.expand_one_letter_sequence(sequence, gemmi.ResidueKind.AA)


def read_reference(model_file: Path, version: str) -> tuple[Reference | None, str]:
    """What is beside the file of a model whose weights have this version, or why there is none.

    Raises QfitLatentError for a file that cannot be read.
    """
    path = model_file.with_name(REFERENCE_FILE)
    if not path.is_file():
        return None, f"there is no {REFERENCE_FILE} beside the model"
    try:
        with safe_open(path, "np") as file:
            of_model = (file.metadata() or {}).get(_HEADER_KEY, "")
            if of_model != version:
                return None, f"{REFERENCE_FILE} beside the model belongs to other weights"
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        size = held["basis"].shape[1]
        factor = np.zeros((len(held["factor"]), size, size), dtype=np.float32)
        lower = np.tril_indices(size)
        factor[:, lower[0], lower[1]] = held["factor"]
        named = json.loads(lzma.decompress(held["chains"].tobytes()))
    except (SafetensorError, OSError, KeyError, ValueError, lzma.LZMAError) as error:
        raise QfitLatentError(
            f"{path} cannot be read ({error}): copy it again, or remove it."
        ) from error
    chains = tuple((entry, chain) for entry, chain in named["chains"])
    return Reference(
        version, held["basis"], held["mean"], factor, held["quantiles"], chains,
        tuple(named["sequences"]),
    ), ""  # fmt: skip


def fit(s: np.ndarray, token: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """basis, mean and factor of training residues s (N,W) of types token (N,).

    factor L of each type has L L' = the inverse of its shrunken covariance.
    """
    mean = np.stack([s[token == kind].mean(axis=0) for kind in range(_NUM_TYPES)])
    known = token < _NUM_TYPES
    apart = s[known] - mean[token[known]]
    variance, direction = np.linalg.eigh(apart.T @ apart / len(apart))
    order = np.argsort(-variance)[:MAX_DIRECTIONS]
    order = order[variance[order] > 1e-6 * variance.max()]
    basis = direction[:, order] / np.sqrt(variance[order])
    z = apart @ basis
    factors = []
    for kind in range(_NUM_TYPES):
        own = z[token[known] == kind]
        cov = own.T @ own / len(own)
        size = len(cov)
        shrunk = (1 - SHRINKAGE) * cov + SHRINKAGE * np.trace(cov) / size * np.eye(size)
        factors.append(np.linalg.cholesky(np.linalg.inv(shrunk)))
    return basis, mean @ basis, np.stack(factors)
