"""Rotamer populations of a set of backbones: what is predicted on them, and what they show.

Shapes: N residues of the first backbone that have a frame, n of them that another one has, W wells,
B bins, D=4 chi, S points, R draws.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import torch

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.progress import Progress
from qfitlatent.chemistry.residues import NUM_CHI_MAX
from qfitlatent.model.batch import Protein
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.prediction.records import Input, read_input
from qfitlatent.prediction.runner import BATCH_RESIDUES, Runner
from qfitlatent.questions.alignment import matched
from qfitlatent.questions.average import Mean
from qfitlatent.questions.backbones import Backbones
from qfitlatent.questions.coordinate_error import displaced
from qfitlatent.questions.wells import (
    NUM_BINS,
    NUM_WELLS,
    histograms,
    observed_wells,
    points_of,
    predicted_wells,
)

NUM_POINTS = 256
"""Of each residue's density, from which its populations are counted."""

FEW = 5
"""From so many backbones on their scatter says how well their mean is known."""

NUM_DRAWS = 16
"""Backbones within the error of coordinates that stand for one of few."""

POINTS_OF_DRAWS = 64
"""As ``NUM_POINTS``, of each of these."""


class Populations:
    """Of the N residues of a set's first backbone that have a frame; the others are aligned to it.

    residues (N rows) of its table, token (N,), predicted and observed populations (N,W), and the
    mean histogram (N,D,B) of each predicted chi.
    """

    def __init__(self, name: str, given: Input, protein: Protein) -> None:
        self.name, self.num = name, 0
        self.residues = given.tables["residues"].take(pa.array(protein.residue_row.numpy()))
        self.token = protein.token.numpy()
        num = len(self.token)
        self.predicted, self.observed = Mean(num, NUM_WELLS), Mean(num, NUM_WELLS)
        self._error = np.zeros((num, NUM_WELLS, NUM_WELLS))
        self._histogram = np.zeros((num, NUM_CHI_MAX, NUM_BINS))
        self._total = np.zeros(num)

    @property
    def histogram(self) -> np.ndarray:
        return self._histogram / self._total[:, None, None]

    @property
    def covariance(self) -> np.ndarray:
        """(N,W,W) of the predicted mean: from the scatter of the backbones, or, where there are
        few, from the error of their coordinates."""
        if self.num >= FEW:
            return self.predicted.covariance
        return self._error / self._total[:, None, None] ** 2

    def places(self, given: Input, protein: Protein) -> tuple[np.ndarray, np.ndarray]:
        """(n,) residues here and (n,) of the protein that are the same; of one type.

        Raises QfitLatentError where no chain is one of these.
        """
        residues = given.tables["residues"].take(pa.array(protein.residue_row.numpy()))
        chains = self.residues["chain"].to_pylist(), residues["chain"].to_pylist()
        token = protein.token.numpy()
        pairs = matched(chains, (self.token.tolist(), token.tolist()))
        pairs = pairs[self.token[pairs[:, 0]] == token[pairs[:, 1]]]
        if not len(pairs):
            raise QfitLatentError(
                f"{given.path.name} has no chain of the protein that the first structure of "
                f"{self.name} has: give structures of one protein."
            )
        return pairs[:, 0], pairs[:, 1]

    def add(
        self,
        weight: float,
        at: np.ndarray,
        chi: np.ndarray,
        observed: tuple[np.ndarray, np.ndarray],
        error: np.ndarray | None,
    ) -> None:
        """A backbone's points chi (S,n,D) at residues (n,), what it shows, and its covariance."""
        self.num += 1
        token = self.token[at]
        self.predicted.add(weight, predicted_wells(token, chi), at)
        self._histogram[at] += weight * histograms(token, chi)
        self._total[at] += weight
        wells, seen = observed
        self.observed.add(weight, wells[seen], at[seen])
        if error is not None:
            self._error[at] += weight**2 * error


def populations_of(
    runner: Runner,
    backbones: Backbones,
    coordinate_error: float,
    progress: Progress,
) -> Populations:
    """The populations of a set, whose backbones are read one by one.

    coordinate_error: angstrom along each axis, of N, CA and C. Raises QfitLatentError for a
    backbone that cannot be used, and one that is of no such protein as the first.
    """
    found: Populations | None = None
    for member in backbones:
        with member.named():
            given = read_input(member.path)
        protein = protein_from_tables(given.tables)
        if found is None:
            found = Populations(backbones.name, given, protein)
        at, rows = found.places(given, protein)
        (s,) = runner.encode([protein])
        chi = points_of(runner.density(s[rows], protein.token[rows]), NUM_POINTS)
        wells, seen = observed_wells(protein)
        error = None
        if len(backbones) < FEW:
            error = _of_coordinates(runner, protein, rows, coordinate_error)
        found.add(member.weight, at, chi, (wells[rows], seen[rows]), error)
        progress.update(1, amount=len(protein))
    assert found is not None  # a set has a member
    return found


def _of_coordinates(
    runner: Runner, protein: Protein, rows: np.ndarray, angstrom: float
) -> np.ndarray:
    """(n,W,W) covariance of the populations predicted for rows (n,) under the error of coordinates.

    The draws are the same for every structure of as many residues.
    """
    rng = np.random.default_rng(runner.settings.seed)
    drawn = [displaced(protein, angstrom, rng) for _ in range(NUM_DRAWS)]
    token = protein.token[rows]
    kind = token.numpy()
    wells = []
    for few in _batches(drawn, BATCH_RESIDUES[runner.device.type]):
        s = torch.cat([s[rows] for s in runner.encode(few)])
        chi = points_of(runner.density(s, token.repeat(len(few))), POINTS_OF_DRAWS)
        found = predicted_wells(np.tile(kind, len(few)), chi)
        wells.append(found.reshape(len(few), len(rows), NUM_WELLS))
    population = np.concatenate(wells)  # (R,n,W)
    away = population - population.mean(axis=0)
    return np.einsum("rnv,rnw->nvw", away, away) / (NUM_DRAWS - 1)


def _batches(proteins: list[Protein], budget: int) -> Iterator[list[Protein]]:
    size = max(1, budget // len(proteins[0]))
    for start in range(0, len(proteins), size):
        yield proteins[start : start + size]
