"""The vectorised reader against a slow one written from SPEC alone, on real files.

All raw files, and every tenth of the archives; QFITLATENT_ALL_STRUCTURES=1 takes all of them.
"""

import os
import zlib
from collections import Counter
from pathlib import Path

import gemmi
import numpy as np
import pytest

from helpers import reference_structure
from qfitlatent.structure.preprocess import read_entry

ANGLE_TOLERANCE = 1e-5
FRAME_TOLERANCE = 1e-5
_CHI = [f"chi{d}_rad" for d in range(1, 5)]


def sample(folder: Path, num_tenths: int) -> list[Path]:
    """A part of the files that does not change when others come or go."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".pdb", ".cif", ".gz"))
    return [path for path in files if zlib.crc32(path.name.encode()) % 10 < num_tenths]


@pytest.mark.parametrize("name", ["raw", "multiconformer", "mostly_single"])
def test_agrees_with_the_slow_reference(shared_data, name):
    everything = name == "raw" or os.environ.get("QFITLATENT_ALL_STRUCTURES") == "1"
    files = sample(shared_data / name, 10 if everything else 1)
    assert len(files) >= 30
    disagreements = [f"{path.name}: {line}" for path in files for line in compare(path)]
    assert disagreements == []


@pytest.mark.parametrize("limit", [1, 2, 6])
def test_simulated_files_agree_with_the_slow_reference(simulated_files, limit):
    assert [line for path in simulated_files for line in compare(path, limit)] == []


@pytest.mark.parametrize("limit", [1, 2])
def test_agrees_with_the_limit_of_conformers(shared_data, limit):
    files = [p for p in sample(shared_data / "raw", 10) if "7aa5e0" in p.name or "2hmz" in p.name]
    assert len(files) == 2
    assert [line for path in files for line in compare(path, limit)] == []


def compare(path: Path, max_conformers: int = 6) -> list[str]:
    """Every difference between the two readers, in words."""
    expected = reference_structure.read(str(path), max_conformers)
    records = read_entry(path, "entry", max_conformers=max_conformers)
    found: dict[str, list[dict]] = {}
    residues, frames = records.residues.to_pylist(), records.frames.to_pylist()
    for residue, frame in zip(residues, frames, strict=True):
        assert (residue["chain"], residue["index"]) == (frame["chain"], frame["index"])
        residue["frame"], residue["conformers"] = frame, []
        found.setdefault(residue["chain"], []).append(residue)
    for row in records.conformers.to_pylist():
        found[row["chain"]][row["index"]]["conformers"].append(row)
    # Peptides that a file calls ligands: the reference takes the file's word for it.
    ligands = [
        chain
        for chain, rows in found.items()
        if chain not in expected.chains and all(row["is_het"] for row in rows)
    ]
    for chain in ligands:
        expected.num_conformers_read += sum(len(row["conformers"]) for row in found.pop(chain))
    if list(expected.chains) != list(found):
        return [f"chains {list(found)}, not {list(expected.chains)}"]
    lines = []
    for chain, rows in expected.chains.items():
        if len(rows) != len(found[chain]):
            return [f"chain {chain} has {len(found[chain])} residues, not {len(rows)}"]
        for index, (theirs, ours) in enumerate(zip(rows, found[chain], strict=True)):
            place = f"{chain} {index} ({theirs.name} {theirs.number}{theirs.insertion_code})"
            lines += [f"{place}: {line}" for line in compare_residue(theirs, ours)]
    return lines + compare_rejected(expected, records)


def compare_residue(theirs: reference_structure.Residue, ours: dict) -> list[str]:
    lines = []
    same = {
        "author_chain": theirs.author_chain,
        "author_number": theirs.number,
        "insertion_code": theirs.insertion_code,
        "label_seq": theirs.label_seq,
        "name": theirs.name,
        "token": theirs.token,
        "segment": theirs.segment,
        "num_residue_types": theirs.num_types,
        "num_altlocs": len(theirs.altlocs),
        "num_conformers": len(theirs.conformers),
        "num_distinct_conformers": len({c.group for c in theirs.conformers}),
    }
    lines += [f"{k} {ours[k]}, not {v}" for k, v in same.items() if ours[k] != v]
    for name in ("phi", "psi", "omega"):
        lines += compare_angle(name, getattr(theirs, name), ours[f"{name}_rad"])
    labels = [row["altloc"] for row in ours["conformers"]]
    if labels != [c.altloc for c in theirs.conformers]:
        return [*lines, f"altlocs {labels}, not {[c.altloc for c in theirs.conformers]}"]
    total = sum(c.occupancy for c in theirs.conformers)
    for conformer, row in zip(theirs.conformers, ours["conformers"], strict=True):
        numbers = {
            "occupancy": conformer.occupancy,
            "occupancy_min": conformer.occupancy_min,
            "occupancy_max": conformer.occupancy_max,
            "occupancy_normalised": conformer.occupancy / total,
            "num_atoms_own": conformer.num_own,
            "num_atoms_shared": conformer.num_shared,
            "num_atoms_missing": conformer.num_missing,
            "group": conformer.group,
        }
        wrong = {k: v for k, v in numbers.items() if abs(row[k] - v) > 1e-6}
        if abs(row["mean_b_angstrom2"] - conformer.mean_b) > 1e-3:
            wrong["mean_b_angstrom2"] = conformer.mean_b
        lines += [f"altloc {conformer.altloc!r}: {k} {row[k]}, not {v}" for k, v in wrong.items()]
        chi = conformer.chi + [None] * (4 - len(conformer.chi))
        for d, (name, angle) in enumerate(zip(_CHI, chi, strict=True)):
            lines += compare_angle(f"{conformer.altloc!r} {name}", angle, row[name])
            seen = None if angle is None else conformer.observed[d]
            if row[f"chi{d + 1}_observed"] is not seen:
                lines.append(f"altloc {conformer.altloc!r}: {name} observed is not {seen}")
    return lines + compare_frame(theirs, ours["frame"])


def compare_angle(name: str, theirs: float | None, ours: float | None) -> list[str]:
    if theirs is None or ours is None:
        return [] if theirs is ours else [f"{name} {ours}, not {theirs}"]
    away = abs((theirs - ours + np.pi) % (2 * np.pi) - np.pi)
    inside = -np.pi < ours <= np.pi
    return [] if away <= ANGLE_TOLERANCE and inside else [f"{name} {ours}, not {theirs}"]


def compare_frame(theirs: reference_structure.Residue, ours: dict) -> list[str]:
    if theirs.frame is None or ours["rotation"] is None:
        there = (theirs.frame is not None, ours["rotation"] is not None)
        return [] if there == (False, False) else [f"frame there (reference, ours): {there}"]
    rotation, translation, altloc = theirs.frame
    away = np.abs(np.reshape(ours["rotation"], (3, 3)) - rotation).max()
    moved = np.abs(np.array(ours["translation_angstrom"]) - translation).max()
    lines = [] if ours["altloc"] == altloc else [f"frame of {ours['altloc']!r}, not {altloc!r}"]
    if away > FRAME_TOLERANCE or moved > FRAME_TOLERANCE * max(1, np.abs(translation).max() / 100):
        lines.append(f"frame differs by {away:.2g} and {moved:.2g} angstrom")
    return lines


def compare_rejected(expected: reference_structure.Result, records) -> list[str]:
    rows = records.rejected.to_pylist()
    ours = Counter(
        (r["chain"], r["index"], r["altloc"], r["reason"])
        for r in rows
        if r["scope"] == "conformer"
    )
    theirs = Counter(expected.rejected_conformers)
    lines = [f"rejected {key} in one reader only" for key in (ours - theirs) + (theirs - ours)]
    entry = records.entries.to_pylist()[0]
    num_ligands = sum(row["reason"] == "not_polymer" for row in rows)
    if entry["num_residues_rejected"] - num_ligands != expected.num_rejected_residues:
        lines.append(f"{entry['num_residues_rejected']} residues rejected")
    if entry["num_conformers_read"] != expected.num_conformers_read:
        lines.append(
            f"{entry['num_conformers_read']} conformers read, not {expected.num_conformers_read}"
        )
    for what in ("residues", "conformers"):
        if entry[f"num_{what}_read"] != entry[f"num_{what}"] + entry[f"num_{what}_rejected"]:
            lines.append(f"{what} read are not kept + rejected")
    return lines


def test_pdb_and_mmcif_of_one_entry_agree(shared_data, tmp_path):
    """The same chi and frames, residue by residue, whatever the format calls the chains."""
    check_formats(sample(shared_data / "raw", 10)[::4], tmp_path)


def test_pdb_and_mmcif_of_a_simulated_entry_agree(simulated_files, tmp_path):
    check_formats(simulated_files, tmp_path)


def check_formats(files, tmp_path):
    for path in files:
        structure = gemmi.read_structure(str(path))
        structure.setup_entities()
        # Both formats are written by one writer from one structure: 3 decimals either way.
        structure.write_pdb(str(tmp_path / "x.pdb"))
        structure.make_mmcif_document().write_file(str(tmp_path / "x.cif"))
        pdb, cif = (by_author(read_entry(tmp_path / f"x.{s}", "x")) for s in ("pdb", "cif"))
        assert pdb.keys() == cif.keys(), path.name
        for key, (frame, conformers) in pdb.items():
            other_frame, other = cif[key]
            assert conformers.keys() == other.keys(), (path.name, key)
            for altloc, chi in conformers.items():
                np.testing.assert_allclose(chi, other[altloc], atol=1e-6, err_msg=f"{path} {key}")
            np.testing.assert_allclose(frame, other_frame, atol=1e-6, err_msg=f"{path} {key}")


def by_author(records) -> dict:
    """(chain, number, insertion code, name): frame and chi by altloc."""
    found, author = {}, {}
    for residue, frame in zip(
        records.residues.to_pylist(), records.frames.to_pylist(), strict=True
    ):
        key = tuple(residue[n] for n in ("author_chain", "author_number", "insertion_code", "name"))
        rotation = frame["rotation"] or [np.nan] * 9
        found[key] = (rotation + (frame["translation_angstrom"] or [np.nan] * 3), {})
        author[residue["chain"], residue["index"]] = key
    for row in records.conformers.to_pylist():
        chi = [np.nan if row[name] is None else row[name] for name in _CHI]
        found[author[row["chain"], row["index"]]][1][row["altloc"]] = chi
    return found
