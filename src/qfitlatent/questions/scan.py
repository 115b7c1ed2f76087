"""Mutational scan: each residue as each type, in context.

    import qfitlatent
    scan = qfitlatent.scan("1abc.pdb", residues="A:10-40", types="ALA,LEU")
    scan.table                     # a row a position and type
    scan.write("scanned")

For every variant the network is given the sequence with that one residue changed (``model/
variants.py``); the side chains around it are repacked (``repack.py``). Positions are worked on one
by one: time grows with their number, memory with that of the residues.

Shapes: N residues of the network, B types, M residues of a region, n of a site, D=4 chi.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from qfitlatent.base import config
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.progress import Progress
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI, RESIDUE_TYPES, TOKEN, UNKNOWN_TOKEN
from qfitlatent.density.protocol import Density
from qfitlatent.joint.candidates import Densities
from qfitlatent.model.batch import Protein
from qfitlatent.model.checkpoint import LoadedModel
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.model.variants import Variants
from qfitlatent.prediction.ensemble import open_given, placement_of
from qfitlatent.prediction.interface import Source, as_input, shipped
from qfitlatent.prediction.looks import CLASH_NATS
from qfitlatent.prediction.records import Input, Unusable, Written, is_batch
from qfitlatent.prediction.results import Results, output_folder
from qfitlatent.prediction.runner import Runner, joint_densities
from qfitlatent.prediction.scene import is_complete
from qfitlatent.prediction.selection import choice_of, choose, why_not_changed
from qfitlatent.prediction.settings import PredictionSettings
from qfitlatent.questions.repack import Packing, Repacked
from qfitlatent.questions.scan_columns import SCAN
from qfitlatent.questions.scan_files import SCAN_FILES, Scanned, write_scan
from qfitlatent.questions.sites import Sites
from qfitlatent.tables.columns import AUTHOR, author_label, chi_columns, id_columns
from qfitlatent.tables.parquet import conform

NEAR_ANGSTROM = 10.0
"""Between CB: what is a neighbour, whose conformers become more or less likely."""

IDENTITY = ("min_weight", "merge_within_degrees", "residues", "fix", "surroundings")
"""Settings of the section ``predict`` that decide about a scan."""


@dataclass(frozen=True)
class ScanSettings:
    """Section ``scan`` of the configuration; meanings and defaults are in its schema."""

    types: str | None
    region: int


@dataclass(frozen=True)
class Scan:
    """A scan of one structure; nothing of it has been written.

    table: ``scan_columns.SCAN``, a row a position and type; seen: ``columns.SEEN``, what stood
    around; left_out: positions that were asked for and not scanned, and why.
    """

    entry: str
    table: pa.Table
    seen: pa.Table
    left_out: list[str]
    _parts: tuple[dict[str, Any], Input, Scanned] = field(repr=False)

    def write(self, out: str | Path, *, overwrite: bool = False) -> list[Path]:
        """The files that ``qfitlatent scan`` writes for a structure, in the folder ``out``.

        Returns their paths. Raises QfitLatentError for files that are there, unless ``overwrite``,
        and a folder that cannot be made.
        """
        identity, given, scanned = self._parts
        results = Results("scan", Path(out), SCAN_FILES, identity)
        with output_folder(results.folder):
            if not overwrite:
                results.refuse_existing([self.entry], only_finished=False)
            write_scan(results, given, scanned)
        return [path for path in results.paths(self.entry) if path.exists()]


def scan(
    structure: Source,
    model: str | Path | LoadedModel | None = None,
    *,
    types: str | None = None,
    region: int | None = None,
    **settings: Any,
) -> Scan:
    """Scan one structure: what each residue would be as each type.

    Args:
        structure, model: as of ``predict``.
        types: three-letter codes with commas; None for all twenty.
        region: residues that go through the network again for a variant; None for the default.
        settings: keys of the section ``predict`` of the configuration, such as
            ``residues="A:10-40"``, the positions, ``fix="all"`` or ``surroundings="all"``.

    Raises:
        QfitLatentError: the structure, the model or a setting cannot be used.
    """
    chosen = config.settings(PredictionSettings, "predict", settings)
    given_own = {"types": types, "region": region}
    own = {key: value for key, value in given_own.items() if value is not None}
    work = _Work(shipped() if model is None else model, chosen, own)
    with as_input(structure) as read:
        given = choose(work.runner.choice, read)
        (s,) = work.runner.encode([protein := protein_from_tables(given.tables)])
        scanned = work(given, protein, s)
        parts = (work.identity, given, scanned)
    return Scan(given.entry, scanned.table, scanned.seen, scanned.left_out, parts)


def scan_structures(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    model: str | Path | LoadedModel | None = None,
    settings: PredictionSettings | None = None,
    scan_settings: dict[str, Any] | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    stream: TextIO | None = None,
) -> list[Written]:
    """Scan structures and write the files of ``scan_files`` for each into ``out``.

    ``scan_settings``: keys of the section ``scan`` of the configuration. Of one structure the
    progress counts positions. The other arguments, what is returned and what is raised are those of
    ``predict_structures``.
    """
    work = _Work(model, settings, scan_settings or {})
    one = stream is not None and not is_batch(paths)
    work.stream = stream if one else None
    return work.runner.run_into(
        Results("scan", Path(out), SCAN_FILES, work.identity),
        paths,
        work,
        write_scan,
        overwrite=overwrite,
        resume=resume,
        stream=None if one else stream,
        failures=Path(out) / "scan.failures.csv",
    )


class _Reference(NamedTuple):
    """The conformers whose likelihood changes: row (R,) of the network, chi and defined (R,D).

    weight (R,) sums to 1 over a residue; is_deposited (N,) bool.
    """

    row: Tensor
    chi: Tensor
    defined: Tensor
    weight: Tensor
    is_deposited: np.ndarray


class _Work:
    """What is scanned, by what; called with a structure and what the network makes of it."""

    stream: TextIO | None = None

    def __init__(
        self,
        model: str | Path | LoadedModel | None,
        settings: PredictionSettings | None,
        own: dict[str, Any],
    ) -> None:
        chosen = settings or config.settings(PredictionSettings, "predict")
        self.own = config.settings(ScanSettings, "scan", own)
        self.types = _tokens(self.own.types)
        if chosen.mutate is not None:
            raise QfitLatentError("A scan changes every type by itself: leave out --mutate.")
        # The positions are what is chosen; what is fixed is asked for by itself.
        self.runner = Runner(model, replace(chosen, fix=None))
        self.fixed = choice_of(replace(chosen, residues=None))
        self.identity = self.runner.identity(*IDENTITY) | {
            "fix": chosen.fix,
            "types": ",".join(RESIDUE_TYPES[t] for t in self.types),
            "region": self.own.region,
        }

    def __call__(self, given: Input, protein: Protein, s: Tensor) -> Scanned:
        """All rows of one structure; s (N,d_s)."""
        row = protein.residue_row.numpy()
        left_out = _left_out(given, protein)
        wanted = [n for n, r in enumerate(row.tolist()) if r not in left_out]
        wanted = [n for n in wanted if given.chosen.rebuilt[row[n]]]
        at = _Structure(self, given, protein, s) if wanted else None
        positions = [n for n in wanted if at and np.isfinite(at.cb[n]).all()]
        for n in {*wanted} - {*positions}:
            left_out[row[n]] = f"{_labels(given)[row[n]]}: its backbone is not found in the file"
        if at is None or not positions:
            words = "; ".join(left_out.values()) or "--residues names none with a backbone"
            raise Unusable("nothing_to_scan", f"{given.path} has no position to scan: {words}.")
        with Progress(len(positions), "positions", self.stream or io.StringIO()) as progress:
            tables = []
            for n in positions:
                tables.append(at.scanned(n))
                progress.update(1)
        table = conform(pa.concat_tables(tables), SCAN, given.path)
        return Scanned(table, at.sites.seen, list(left_out.values()))


def _tokens(types: str | None) -> list[int]:
    names = RESIDUE_TYPES if types is None else [x.strip().upper() for x in types.split(",")]
    for name in names:
        if name not in TOKEN:
            raise QfitLatentError(
                f"--types names {name!r}, which is no residue type: give some of "
                f"{', '.join(RESIDUE_TYPES)}, separated by commas."
            )
    return sorted({TOKEN[name] for name in names})


def _left_out(given: Input, protein: Protein) -> dict[int, str]:
    """Of the rows that were asked for those that have no variants, each with the reason."""
    token = np.full(len(given.tables["residues"]), -1)
    token[protein.residue_row.numpy()] = protein.token.numpy()
    labels, found = _labels(given), {}
    for row in np.flatnonzero(given.chosen.rebuilt).tolist():
        why = why_not_changed(given, row)
        if not why and token[row] == UNKNOWN_TOKEN:
            why = "it is a modified residue whose parent is not known"
        if why:
            found[row] = f"{labels[row]}: {why}"
    return found


def _labels(given: Input) -> list[str]:
    """How each row of the residues table is called."""
    names = [column.name for column in AUTHOR]
    return [author_label(row) for row in given.tables["residues"].select(names).to_pylist()]


class _Structure:
    """One structure: what is the same for all of its positions."""

    @torch.inference_mode()
    def __init__(self, work: _Work, given: Input, protein: Protein, s: Tensor) -> None:
        self.runner, self.types, self.protein, self.given = (
            work.runner,
            work.types,
            protein,
            given,
        )
        density = self.runner.density(s, protein.token)
        self.densities = _densities(density, protein.token, self.runner.settings)
        row = protein.residue_row.numpy()
        fixed = _fixed(choose(work.fixed, given), row)
        self.sites = Sites(work.identity, given, row, self.densities, fixed)
        self.cb, self.token = self.sites.cb, protein.token.numpy()
        self.reference = _reference(protein, self.sites.chi)
        self.variants = Variants(self.runner.model, protein, work.own.region)
        self.s = s

    @torch.inference_mode()
    def scanned(self, n: int) -> pa.Table:
        """The rows of one position (0..N-1)."""
        native = int(self.token[n])
        types = sorted({*self.types, native})
        region = self.variants.region(n)
        s = self.s.repeat(len(types), 1, 1)  # (B,N,width), outside the region as it is
        s[:, region] = self.variants.encode(n, torch.tensor(types))
        likelihood, counts = self._likelihood(n, len(types), s)
        states, entropy, modes = self._repacked(n, types, s)
        own = types.index(native)
        first = states[own]
        change = likelihood - likelihood[own]
        strain = np.array([state.contacts - first.contacts for state in states])
        energy = np.array([state.energy - first.energy for state in states])
        fit = change - energy
        has_chi = NUM_CHI[types] > 0
        columns: dict[str, Any] = id_columns(
            self.given.tables["residues"],
            np.full(len(types), int(self.protein.residue_row[n])),
        )
        clashes = np.array([state.num_clashes for state in states])
        chi = np.array([state.chi for state in states])
        burial = np.count_nonzero(np.linalg.norm(self.cb - self.cb[n], axis=1) <= NEAR_ANGSTROM) - 1
        columns |= {
            "type": [RESIDUE_TYPES[t] for t in types],
            "is_native": np.array(types) == native,
            "fit": fit,
            "rank": 1 + (fit[None] > fit[:, None]).sum(axis=1),
            "neighbour_change": change,
            "num_neighbours": np.full(len(types), counts[0]),
            "num_deposited": np.full(len(types), counts[1]),
            "entropy": pa.array(entropy, mask=~has_chi),
            "num_modes": pa.array(modes, mask=~has_chi),
            "fitting_mass": pa.array([state.fitting_mass for state in states], mask=~has_chi),
            **chi_columns("chi", chi, "_rad", CHI_DEFINED[types]),
            "energy_change": energy,
            "strain": [state.strain for state in states],
            "strain_change": strain,
            "num_clashes": clashes,
            "clash_change": clashes - first.num_clashes,
            "burial": np.full(len(types), burial),
            "has_no_room": strain >= CLASH_NATS,
            "note": [self._note(n, t, native) for t in types],
        }
        return conform(pa.table(columns), SCAN, self.given.path)

    def _likelihood(self, n: int, num: int, s: Tensor) -> tuple[np.ndarray, tuple[int, int]]:
        """(B,) log density of the neighbours' conformers; how many they are, and deposited."""
        reference = self.reference
        near = np.linalg.norm(self.cb - self.cb[n], axis=1) <= NEAR_ANGSTROM
        near[n] = False
        used = torch.from_numpy(near)[reference.row]
        rows = reference.row[used]
        wanted, which = torch.unique(rows, return_inverse=True)
        each = len(wanted)
        token = self.protein.token[wanted].repeat(num)
        around = self.runner.density(s[:, wanted].flatten(0, 1), token)
        index = (torch.arange(num)[:, None] * each + which).flatten()
        log = around.log_prob(
            reference.chi[used].repeat(num, 1), reference.defined[used].repeat(num, 1), index
        )
        likelihood = (log.view(num, -1) * reference.weight[used]).sum(1)
        deposited = int(reference.is_deposited[wanted.numpy()].sum())
        return likelihood.double().numpy(), (each, deposited)

    def _repacked(
        self, n: int, types: list[int], s: Tensor
    ) -> tuple[list[Repacked], np.ndarray, np.ndarray]:
        """The best state of the site with each type; (B,) entropy, and how many modes that has."""
        token = torch.tensor(types)
        density = self.runner.density(s[:, n], token)
        own = _densities(density, token, self.runner.settings)
        site = self.sites.at(n)
        packing = Packing(site, self.densities.select(site.rows))
        states = [packing(t, own.select(np.array([b]))) for b, t in enumerate(types)]
        modes = np.count_nonzero(own.mode_weight >= self.runner.settings.min_weight, axis=1)
        return states, density.entropy().numpy(), np.maximum(modes, 1)

    def _note(self, n: int, token: int, native: int) -> str:
        phi, psi = (math.degrees(float(x)) for x in self.protein.torsion[n, :2])
        if token == native:
            return ""
        if token == TOKEN["PRO"] and not PROLINE_PHI[0] <= phi <= PROLINE_PHI[1]:
            return f"phi of {phi:.0f} degrees is none of a proline" if math.isfinite(phi) else ""
        if native == TOKEN["GLY"] and phi > 0:
            return f"phi of {phi:.0f} degrees is rare but for glycine, psi {psi:.0f}"
        return "a proline's ring goes" if native == TOKEN["PRO"] else ""


PROLINE_PHI = (-100.0, -35.0)
"""Degrees between which the ring of a proline closes."""


def _densities(density: Density, token: Tensor, settings: PredictionSettings) -> Densities:
    return joint_densities(density.as_mixture(), token, settings)


def _fixed(given: Input, row: np.ndarray) -> np.ndarray:
    """(N,) bool: side chains that stay as in the file."""
    fixed = ~given.chosen.rebuilt[row]
    if given.chosen.fix_complete:
        structure, _ = open_given(given)
        fixed |= is_complete(structure, placement_of(given.tables, row))
    return fixed


def _reference(protein: Protein, predicted: np.ndarray) -> _Reference:
    """Deposited conformers with all altlocs; of residues without, the predicted one (N,D)."""
    has_chi = CHI_DEFINED[protein.token.numpy()]
    deposited = np.zeros(len(protein), dtype=bool)
    deposited[protein.row_residue.numpy()] = True
    other = np.flatnonzero(has_chi.any(axis=1) & ~deposited & np.isfinite(predicted[:, 0]))
    return _Reference(
        torch.cat([protein.row_residue, torch.from_numpy(other)]),
        torch.cat([protein.chi, torch.from_numpy(predicted[other]).to(protein.chi)]),
        torch.cat([protein.defined, torch.from_numpy(has_chi[other])]),
        torch.cat([protein.occupancy, torch.ones(len(other), dtype=protein.occupancy.dtype)]),
        deposited,
    )
