"""What went wrong once, in this project or in others: the file or a fragment, and why it matters.

Add a case with its reason; never take one away.
"""

import gzip

import numpy as np
import pytest

from helpers.peptides import CHI, conformers, peptide, read, reasons, residue, row, with_altlocs
from qfitlatent.structure.preprocess import read_entry
from qfitlatent.tables.reasons import Reason


@pytest.mark.parametrize("name", ["1bhe.pdb", "1cse.pdb", "1prn.pdb"])
def test_chains_without_a_name_are_protein(shared_data, name):
    """Old PDB files leave the chain blank; gemmi makes no entity of it, and the whole entry was
    rejected as no_protein. 1cse has no TER record either."""
    records = read_entry(shared_data / "mostly_single" / name, "x")
    residues = records.residues.to_pylist()
    assert len(residues) > 60
    assert {r["author_chain"] for r in residues} == {""}
    assert {r["chain"] for r in residues} == {"_xp"}


def test_a_peptide_in_a_chain_without_a_name_is_protein(tmp_path):
    """The same of a fragment, without TER."""
    read(tmp_path, peptide(residue("SER", 3), length=20), "pdb")
    lines = (tmp_path / "x.pdb").read_text().splitlines()
    atoms = [line[:21] + " " + line[22:] for line in lines if line.startswith("ATOM")]
    (tmp_path / "y.pdb").write_text("\n".join([*atoms, "END", ""]))
    residues = read_entry(tmp_path / "y.pdb", "x").residues.to_pylist()
    assert len(residues) == 20
    assert {(r["author_chain"], r["chain"]) for r in residues} == {("", "_xp")}


def test_names_of_more_than_seven_bytes_are_read(tmp_path):
    """gemmi.FlatStructure raises on chains, subchains and entities with longer names."""
    records = read(tmp_path, {"chain-of-hex-42": peptide(residue("SER", 3))["A"]})
    assert {r["author_chain"] for r in records.residues.to_pylist()} == {"chain-of-hex-42"}


def test_a_pdb_file_in_a_broken_gzip_stream_is_not_a_short_structure(tmp_path):
    """gemmi reads what unpacks of a truncated .pdb.gz, and says nothing: half a protein."""
    read(tmp_path, peptide(residue("ARG", 3), length=60), "pdb")
    packed = gzip.compress((tmp_path / "x.pdb").read_bytes())
    (tmp_path / "y.pdb.gz").write_bytes(packed[: len(packed) // 2])
    assert reasons(read_entry(tmp_path / "y.pdb.gz", "x")) == [Reason.TRUNCATED]


def test_a_file_of_waters_alone_is_a_rejected_entry(tmp_path):
    """Nothing was left once the waters were gone, and empty arrays stopped the whole shard."""
    water = {"W": [residue("HOH", i, atoms=[("O", "", 1.0, [5.0 * i, i, 0])]) for i in (1, 2)]}
    assert reasons(read(tmp_path, water)) == [Reason.NO_PROTEIN]


def test_52_and_52a_are_two_residues(shared_data):
    """1a4w (thrombin) numbers by chymotrypsin: keys without the insertion code merge residues."""
    residues = read_entry(shared_data / "raw" / "1a4w.cif.gz", "x").residues.to_pylist()
    numbers = [(r["chain"], r["author_number"], r["insertion_code"]) for r in residues]
    assert len(set(numbers)) == len(numbers) == 283
    assert sum(code != "" for _, _, code in numbers) > 20
    assert len({number[:2] for number in numbers}) < len(numbers)


def test_shared_chi_atoms_make_no_conformer(shared_data):
    """noid_DHR4: 41 altlocs own hydrogens only; counting them doubles residues that have one
    side chain."""
    records = read_entry(shared_data / "raw" / "noid_DHR4_xtal_182e18.pdb.gz", "x")
    assert reasons(records, "conformer").count(Reason.NO_OWN_CHI_ATOMS) == 41


def test_zero_occupancies_do_not_divide(shared_data):
    """1fne has side chains of occupancy zero: 0/0 gave nan as a normalised occupancy."""
    records = read_entry(shared_data / "raw" / "1fne.pdb.gz", "x")
    assert reasons(records).count(Reason.ZERO_OCCUPANCY) == 18
    normalised = records.conformers["occupancy_normalised"].to_numpy()
    assert np.isfinite(normalised).all()


def test_equal_microheterogeneity_is_decided_by_name(shared_data):
    """2hmz A 21 is ILE and VAL at 0.50 each: the order of the file must not decide."""
    records = read_entry(shared_data / "raw" / "2hmz.pdb.gz", "x")
    assert {row["name"] for row in records.rejected.to_pylist()} == {"VAL"}
    kept = [r for r in records.residues.to_pylist() if r["is_microheterogeneous"]]
    assert {r["name"] for r in kept} == {"ILE"}


@pytest.mark.parametrize("order", [("ILE", "VAL"), ("VAL", "ILE")])
def test_equal_microheterogeneity_of_a_fragment(tmp_path, order):
    specs = []
    for label, name in zip("AB", order, strict=True):
        spec = residue(name, 3)
        spec["atoms"] = [(atom, label, 0.5, xyz) for atom, _, _, xyz in spec["atoms"]]
        specs.append(spec)
    records = read(tmp_path, peptide(specs))
    assert row(records, 3)["name"] == "ILE"
    assert [r["name"] for r in records.rejected.to_pylist()] == ["VAL"]


def test_half_of_float32_occupancy_is_half(tmp_path):
    """0.35 in float32 is 0.3499999940: ties were broken by rounding, not by the label."""
    atoms = with_altlocs("LEU", {"A": (0.35, [1.0, 1.0]), "B": (0.35, [-1.0, 1.0])})
    found = conformers(read(tmp_path, peptide(atoms)))
    assert [c["altloc"] for c in found] == ["A", "B"]
    assert [c["occupancy_normalised"] for c in found] == [0.5, 0.5]


def test_pi_is_not_beyond_pi(tmp_path):
    """float32(pi) is above pi: a trans chi fell outside (-pi, pi] when stored."""
    flat = residue("SER", 3)
    position = {name: p for name, _, _, p in flat["atoms"]}
    n, ca, cb = position["N"], position["CA"], position["CB"]
    # OG in the plane of N, CA and CB, on the other side.
    flat["atoms"] = [
        (name, altloc, o, cb + (ca - n) if name == "OG" else p)
        for name, altloc, o, p in flat["atoms"]
    ]
    chi = conformers(read(tmp_path, peptide(flat)))[0][CHI[0]]
    assert abs(chi) == pytest.approx(np.pi, abs=1e-3)
    assert -np.pi < chi <= np.pi


def test_selenium_in_mse_stands_for_sulphur(shared_data):
    """3ot3 and others: chi2 and chi3 of MSE were missing, as SE is not SD."""
    records = read_entry(shared_data / "raw" / "1zma.pdb.gz", "x")
    names = {(r["chain"], r["index"]): r["name"] for r in records.residues.to_pylist()}
    chi3 = [c["chi3_rad"] for c in conformers(records) if names[c["chain"], c["index"]] == "MSE"]
    assert len(chi3) > 0
    assert None not in chi3


def test_a_d_serine_is_not_a_serine(tmp_path):
    """gemmi tabulates DSN with the letter s: mapped to SER it has chi of the wrong sign."""
    spec = residue("SER", 3)
    spec["name"] = "DSN"
    records = read(tmp_path, peptide(spec))
    assert (row(records, 3)["token"], row(records, 3)["is_d_residue"]) == (20, True)
    assert conformers(records) == []
