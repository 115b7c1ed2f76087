"""A predicted model beside the deposited one: what is right, what clashes, residue by residue.

Three models on the same backbone are judged: the heaviest mode of each residue, altloc A of the
joint model, and the deposited side chains. What stays around them is the same for all. No torch.

Shapes: N residues that are predicted, M observed altlocs, A side-chain atoms, D=4 chi, L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gemmi
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qfitlatent.base.files import printable
from qfitlatent.chemistry.residues import (
    NUM_CHI,
    RESIDUE_TYPES,
    SIDE_CHAIN_ATOMS,
    UNKNOWN_TOKEN,
)
from qfitlatent.joint.candidates import Densities
from qfitlatent.joint.model import JointModel, Protein, joint_model
from qfitlatent.joint.quality import (
    chi_apart,
    clashes,
    deviations,
    disulfides,
    metal_bonds,
    per_residue,
)
from qfitlatent.joint.states import DISTINCT, States
from qfitlatent.prediction.columns import JUDGED_BONDS, JUDGED_ENTRIES, JUDGED_RESIDUES, MODELS
from qfitlatent.prediction.ensemble import densities_of, placement_of
from qfitlatent.prediction.records import Input, Predicted, Written
from qfitlatent.prediction.scene import Kind, Scene, names_of_its_own, scene_of
from qfitlatent.prediction.surroundings import first_conformers, protein_of
from qfitlatent.structure.coordinates import open_structure
from qfitlatent.tables.columns import id_columns
from qfitlatent.tables.parquet import conform, write_table


@dataclass(frozen=True)
class Known:
    """What is known of N residues.

    counts (N,) bool: it is judged; learnt (N,) bool: it would be, had the model not learnt from it.
    row_residue (M,) ascending, chi (M,D) nan where not observed, occupancy (M,) of the deposited
    altlocs, of a residue the heaviest first; altlocs_kept: a residue with one conformer is single.
    """

    counts: np.ndarray
    learnt: np.ndarray
    row_residue: np.ndarray
    chi: np.ndarray
    occupancy: np.ndarray
    altlocs_kept: bool

    def main(self) -> np.ndarray:
        """(N,D) chi of the heaviest altloc, nan where there is none."""
        chi = np.full((len(self.counts), self.chi.shape[1]), np.nan)
        has, first = np.unique(self.row_residue, return_index=True)
        chi[has] = self.chi[first]
        return chi


class Subject(NamedTuple):
    """A structure as the joint step takes it, and its deposited side chains (N,A,3).

    has_own_atoms (N,) bool: a modified residue, as MSE, whose geometry is not that of its parent.
    """

    protein: Protein
    densities: Densities
    deposited: np.ndarray
    has_own_atoms: np.ndarray
    metal_names: list[str]


def subject_of(given: Input, predicted: Predicted) -> Subject:
    """All side chains are built anew; nan in ``deposited`` is an atom that there is not."""
    structure, _ = open_structure(given.path)
    placement = placement_of(given.tables, predicted.row)
    scene = scene_of(structure, placement)
    protein, _ = protein_of(scene, placement)
    names = [key[3] for key in placement.key]
    metals = scene.element[scene.kind == Kind.METAL].tolist()
    return Subject(
        protein,
        densities_of(predicted, protein),
        _deposited(scene, protein.backbones.token, names),
        np.array([bool(names_of_its_own(name)) for name in names], dtype=bool),
        [gemmi.Element(number).name.upper() for number in metals],
    )


def _deposited(scene: Scene, token: np.ndarray, names: list[str]) -> np.ndarray:
    coords = np.full((len(token), len(SIDE_CHAIN_ATOMS["TRP"]), 3), np.nan)
    rows = np.flatnonzero((scene.kind == Kind.GOES) & first_conformers(scene))
    for row in rows.tolist():
        n = int(scene.residue[row])
        if token[n] == UNKNOWN_TOKEN:
            continue
        atoms = SIDE_CHAIN_ATOMS[RESIDUE_TYPES[token[n]]]
        parents = {own: parent for parent, own in names_of_its_own(names[n]).items()}
        name = parents.get(str(scene.name[row]), str(scene.name[row]))
        if name in atoms:
            coords[n, atoms.index(name)] = scene.position[row]
    return coords


JUDGED = {"residues": JUDGED_RESIDUES, "bonds": JUDGED_BONDS, "entries": JUDGED_ENTRIES}
"""The tables, by the names of their files."""


def part_path(folder: Path, entry: str, table: str) -> Path:
    """Where the rows of one entry wait for those of the others."""
    return folder / f"{entry}.{table}.parquet"


def write_judged(
    folder: Path, min_population: float, given: Input, value: tuple[Predicted, Known]
) -> Written:
    """One structure's rows of all tables, each in a file of its own."""
    predicted, known = value
    subject = subject_of(given, predicted)
    joint = joint_model(subject.protein, subject.densities, predicted.heterogeneous, min_population)
    residues, bonds = judge(given, predicted.row, subject, joint, known)
    tables = residues, bonds, _entry(given, residues, int(known.learnt.sum()))
    for (name, schema), table in zip(JUDGED.items(), tables, strict=True):
        write_table(table, part_path(folder, given.entry, name), schema)
    return Written(given.entry, given.path, num_residues=len(predicted.row))


def left_out(failed: Sequence[Written]) -> pa.Table:
    """Rows of ``JUDGED_ENTRIES`` of what could not be judged."""
    nothing = dict.fromkeys(JUDGED_ENTRIES.names)
    rows = [
        nothing | {"entry": x.entry, "reason": x.reason, "detail": printable(x.error)}
        for x in failed
    ]
    return pa.Table.from_pylist(rows, schema=JUDGED_ENTRIES)


def _entry(given: Input, residues: pa.Table, num_learnt: int) -> pa.Table:
    """The row of ``JUDGED_ENTRIES`` of an entry's residues."""
    column = {name: residues[name].to_numpy() for name in residues.column_names}
    row: dict[str, Any] = {"entry": given.entry, "reason": None, "detail": None}
    row |= {"num_residues": len(residues), "num_learnt_from": num_learnt}
    for model in MODELS:
        row[f"{model}_clashes"] = 100 * column[f"{model}_clashes"].mean()
    for model in ("heaviest", "joint"):
        error = column[f"{model}_chi_error_rad"]
        error = error[np.isfinite(error)]
        for degrees in (20, 40):
            near = error <= np.deg2rad(degrees)
            row[f"{model}_all_within_{degrees}"] = near.mean() if len(near) else None
    row["num_with_altlocs"] = int((column["num_conformers"] > 1).sum())
    known = residues["is_heterogeneous"].drop_null()
    row["num_heterogeneous"] = pc.sum(known).as_py() if len(known) else None
    return pa.Table.from_pylist([row], schema=JUDGED_ENTRIES)


def judge(
    given: Input, row: np.ndarray, subject: Subject, joint: JointModel, known: Known
) -> tuple[pa.Table, pa.Table]:
    """Rows of ``JUDGED_RESIDUES`` and ``JUDGED_BONDS``; row (N,) of the residues table."""
    token, states = subject.densities.token, joint.states
    chi = {"heaviest": subject.densities.mode_chi[:, 0], "joint": states.chi[:, 0]}
    coords = {name: _built(subject, angles) for name, angles in chi.items()}
    coords["deposited"] = subject.deposited
    columns = _of_chi(token, chi, known)
    columns |= _of_contacts(subject, coords, states) | _of_geometry(subject, coords)
    columns |= _of_altlocs(token, states, known)
    columns["confidence"] = np.where(NUM_CHI[token] > 0, joint.confidence, np.nan)
    columns["num_conformers"] = np.count_nonzero(states.occupancy, axis=1)
    kept = np.flatnonzero(known.counts)
    ids = id_columns(given.tables["residues"], row[kept])
    shown = {name: pa.array(values[kept], from_pandas=True) for name, values in columns.items()}
    residues = conform(pa.table(ids | shown), JUDGED_RESIDUES, given.path)
    return residues, _bonds(given, row, subject, coords, known)


def _built(subject: Subject, chi: np.ndarray) -> np.ndarray:
    """(N,A,3) side chains with chi (N,D)."""
    return subject.protein.backbones.build(np.arange(len(chi)), chi)


def _of_chi(token: np.ndarray, chi: dict[str, np.ndarray], known: Known) -> dict[str, np.ndarray]:
    """Distances from the heaviest altloc, nan where not every chi of the residue was observed."""
    columns = {}
    for name, angles in chi.items():
        apart = chi_apart(token, angles, known.main())
        whole = np.isfinite(apart).all(axis=1) & (NUM_CHI[token] > 0)
        columns[f"{name}_chi1_error_rad"] = np.where(whole, apart[:, 0], np.nan)
        columns[f"{name}_chi_error_rad"] = np.where(whole, apart.max(axis=1), np.nan)
    return columns


def _of_contacts(
    subject: Subject, coords: dict[str, np.ndarray], states: States
) -> dict[str, np.ndarray]:
    """Clashes of the three models, and those that B, C, ... have beyond A."""
    num = len(subject.deposited)
    found = {name: clashes(subject.protein, x) for name, x in coords.items()}
    columns = {f"{name}_clashes": per_residue(pairs, num) for name, pairs in found.items()}
    in_first = set(map(tuple, found["joint"].tolist()))
    columns["altloc_clashes"] = np.zeros(num)
    for label in range(1, states.occupancy.shape[1]):
        written = states.occupancy[:, label] > 0
        if written.any():
            pairs = clashes(subject.protein, _built(subject, states.chi[:, label]))
            new = np.append(written, False)[pairs].any(axis=1)  # -1 is no residue
            new &= np.array([tuple(x) not in in_first for x in pairs.tolist()], dtype=bool)
            columns["altloc_clashes"] += per_residue(pairs[new], num)
    return columns


def _of_geometry(subject: Subject, coords: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    for name in ("joint", "deposited"):
        for part, off in zip(
            ("bonds_angstrom", "angles_rad"), deviations(subject.protein, coords[name]), strict=True
        ):
            columns[f"{name}_{part}"] = np.where(subject.has_own_atoms, np.nan, off)
    return columns


def _of_altlocs(token: np.ndarray, states: States, known: Known) -> dict[str, np.ndarray]:
    """Whether the deposited altlocs are distinct rotamers, and how far occupancies are off."""
    distinct = np.full(len(token), None, dtype=object)
    error = np.full(len(token), np.nan)
    if not known.altlocs_kept:
        return {"is_heterogeneous": distinct, "occupancy_error": error}
    distinct[known.row_residue] = False
    written = np.count_nonzero(states.occupancy, axis=1) > 1
    for n in np.flatnonzero(np.bincount(known.row_residue) > 1).tolist():
        rows = known.row_residue == n
        rotamers, occupancy = _rotamers(token[n], known.chi[rows], known.occupancy[rows])
        distinct[n] = len(rotamers) > 1
        if distinct[n] and written[n]:
            there = states.occupancy[n] > 0
            apart = _largest(token[n], states.chi[n][there][:, None], rotamers)  # (l,R)
            nearest = np.where(apart.min(axis=1) <= DISTINCT, apart.argmin(axis=1), len(rotamers))
            share = np.bincount(nearest, states.occupancy[n][there], len(rotamers) + 1) / 100
            error[n] = np.abs(share[: len(rotamers)] - occupancy).mean()
    return {"is_heterogeneous": distinct, "occupancy_error": error}


def _rotamers(
    token: np.integer, chi: np.ndarray, occupancy: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(R,D) distinct rotamers of a residue's altlocs, and (R,) what they are occupied together."""
    apart = _largest(token, chi[:, None], chi)
    first = (apart <= DISTINCT).argmax(axis=1)
    which = np.unique(first)
    return chi[which], np.bincount(first, occupancy)[which]


def _largest(token: np.integer, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The largest distance of a chi that both have; a (...,D), b (...,D)."""
    return np.nan_to_num(chi_apart(np.asarray(token), a, b)).max(axis=-1)


def _bonds(
    given: Input, row: np.ndarray, subject: Subject, coords: dict[str, np.ndarray], known: Known
) -> pa.Table:
    """Disulfides and metals' bonds of residues that count, deposited or of the joint model."""
    residues, models = given.tables["residues"], [coords[name] for name in MODELS]
    author = residues.select(["author_chain", "author_number", "insertion_code"]).to_pylist()
    place = ["{author_chain}:{author_number}{insertion_code}".format(**author[n]) for n in row]
    token = subject.densities.token
    parts = []
    for kind, find, partners in (
        ("disulfide", disulfides, place),
        ("metal", metal_bonds, subject.metal_names),
    ):
        bonded = find(subject.protein, models)
        made = bonded.is_bond[:, [list(MODELS).index(name) for name in ("joint", "deposited")]]
        of = np.flatnonzero(made.any(axis=1) & known.counts[bonded.residue])
        columns: dict[str, Any] = id_columns(residues, row[bonded.residue[of]])
        columns["kind"] = [kind] * len(of)
        types = [RESIDUE_TYPES[token[n]] for n in bonded.residue[of]]
        columns["atom"] = [
            SIDE_CHAIN_ATOMS[name][a] for name, a in zip(types, bonded.atom[of], strict=True)
        ]
        columns["partner"] = [partners[bonded.partner[p]] for p in of]
        columns["is_deposited"] = made[of, 1]
        columns["cb_cb_angstrom"] = pa.array(bonded.cb_cb[of], from_pandas=True)
        for k, name in enumerate(MODELS):
            columns[f"{name}_angstrom"] = pa.array(bonded.length[of, k], from_pandas=True)
        parts.append(pa.table(columns))
    return pa.concat_tables(conform(part, JUDGED_BONDS, given.path) for part in parts)
