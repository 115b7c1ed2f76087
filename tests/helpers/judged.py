"""Tables of predicted models as ``prediction/judge.py`` writes them, small enough to work out."""

import numpy as np
import pyarrow as pa

from qfitlatent.prediction.columns import JUDGED_BONDS, JUDGED_ENTRIES, JUDGED_RESIDUES
from qfitlatent.tables.parquet import write_table

DEGREE = np.pi / 180


def _rows(schema, rows):
    """Rows of this schema; what they do not say is null."""
    return pa.Table.from_pylist([dict.fromkeys(schema.names) | row for row in rows], schema=schema)


def _residue(entry, index, name="LEU", **values):
    ids = {"entry": entry, "chain": "A", "index": index, "author_chain": "A"}
    ids |= {"author_number": index + 1, "insertion_code": "", "name": name}
    return ids | values


def _judged(entry, index, clashes, error, sure, several, found, **values):
    """clashes: of the three models; error: degrees of the heaviest modes and of the joint model."""
    heaviest, joint, deposited = clashes
    row = {"heaviest_clashes": heaviest, "joint_clashes": joint, "deposited_clashes": deposited}
    for model, degrees in zip(("heaviest", "joint"), error or (), strict=False):
        row |= {f"{model}_chi1_error_rad": 0.0, f"{model}_chi_error_rad": degrees * DEGREE}
    row |= {"altloc_clashes": 0.0, "confidence": sure, "num_conformers": several}
    return _residue(entry, index, is_heterogeneous=found, **(row | values))


def write_tables(folder):
    """Two entries of five residues, a third without a file, and four bonds."""
    folder.mkdir(exist_ok=True)
    geometry = {"deposited_bonds_angstrom": 0.01, "deposited_angles_rad": 2 * DEGREE}
    geometry |= {"joint_bonds_angstrom": 0.0, "joint_angles_rad": 0.0}
    worse = geometry | {"deposited_bonds_angstrom": 0.03}
    residues = [
        _judged("a", 0, (2.0, 0.5, 0.0), (10, 10), 0.95, 2, True, occupancy_error=0.15, **geometry),
        _judged("a", 1, (0.5, 0.0, 0.5), (50, 10), 0.95, 2, False, **geometry),
        _judged("a", 2, (0.0, 0.0, 0.0), None, None, 1, None, name="GLY"),
        _judged("b", 0, (0.5, 0.5, 0.0), (30, 30), 0.55, 1, None, **geometry),
        _judged("b", 1, (0.0, 0.0, 0.0), None, 0.55, 1, False, **worse),
    ]
    bonds = [
        _bond("a", 0, "disulfide", True, (3.0, 2.06, 2.03), 3.8),
        _bond("a", 1, "disulfide", True, (3.0, 2.5, 2.04), 5.0),
        _bond("b", 0, "disulfide", False, (3.0, 2.06, 3.9), 4.0),
        _bond("b", 1, "metal", True, (4.0, 2.1, 2.3), None),
    ]
    entries = [
        {"entry": "a", "num_residues": 3, "num_learnt_from": 0},
        {"entry": "b", "num_residues": 2, "num_learnt_from": 0},
        {"entry": "c", "reason": "no_file", "detail": "The file of c is not there any more."},
    ]
    for name, schema, rows in (
        ("residues", JUDGED_RESIDUES, residues),
        ("bonds", JUDGED_BONDS, bonds),
        ("entries", JUDGED_ENTRIES, entries),
    ):
        write_table(_rows(schema, rows), folder / f"{name}.parquet", schema)


def _bond(entry, index, kind, is_deposited, lengths, cb_cb):
    models = ("heaviest", "joint", "deposited")
    columns = {f"{x}_angstrom": y for x, y in zip(models, lengths, strict=True)}
    return _residue(
        entry, index, "CYS", kind=kind, atom="SG", partner="A:9", is_deposited=is_deposited,
        cb_cb_angstrom=cb_cb, **columns,
    )  # fmt: skip
