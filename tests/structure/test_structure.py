"""The altloc policy, rule by rule, on structures written for the purpose; and a round trip of
random ones."""

import gzip
import io
import itertools
import math

import gemmi
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.peptides import (
    CHI,
    conformers,
    peptide,
    place,
    read,
    reasons,
    residue,
    row,
    side_chain,
    structure,
    with_altlocs,
)
from qfitlatent.archive.log import LOG_SCHEMA
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import CHI_PATH, RESIDUE_TYPES, TOKEN
from qfitlatent.structure import backbone
from qfitlatent.structure.atoms import parse_file
from qfitlatent.structure.preprocess import make_tables, preprocess_entries, read_entry
from qfitlatent.tables import schemas
from qfitlatent.tables.reasons import Reason


@pytest.mark.parametrize("kind", ["cif", "pdb"])
def test_altlocs_own_and_shared_atoms(tmp_path, kind):
    middle = with_altlocs("LEU", {"A": (0.7, [-1.0, 2.0]), "B": (0.3, [1.1, -2.5])})
    found = conformers(read(tmp_path, peptide(middle), kind))
    assert [c["altloc"] for c in found] == ["A", "B"]
    assert [c["rank"] for c in found] == [0, 1]
    assert [round(c["occupancy_normalised"], 6) for c in found] == [0.7, 0.3]
    assert [(c["num_atoms_own"], c["num_atoms_shared"]) for c in found] == [(2, 3), (2, 3)]
    for conformer, chi in zip(found, ([-1.0, 2.0], [1.1, -2.5]), strict=True):
        assert [conformer[n] for n in CHI[:2]] == pytest.approx(chi, abs=2e-3)
        assert conformer["chi3_rad"] is None


def test_atoms_are_never_borrowed_from_another_altloc(tmp_path):
    middle = with_altlocs("LEU", {"A": (0.6, [-1.0, 2.0]), "B": (0.4, [1.0, 2.0])})
    middle["atoms"] = [a for a in middle["atoms"] if a[:2] != ("CD1", "B")]
    found = conformers(read(tmp_path, peptide(middle)))
    assert found[1]["altloc"] == "B"
    assert found[1]["chi1_rad"] is not None
    assert found[1]["chi2_rad"] is None
    assert found[1]["num_atoms_missing"] == 1


@pytest.mark.parametrize("kind", ["cif", "pdb"])
def test_blank_atoms_beside_named_ones_are_a_conformer(tmp_path, kind):
    middle = with_altlocs("LEU", {"B": (0.3, [-1.0, 2.0])})
    blank = side_chain("LEU", 3, [2.0, 1.0])
    middle["atoms"] += [(name, "", 0.6, blank[name]) for name in ("CG", "CD1")]
    found = conformers(read(tmp_path, peptide(middle), kind))
    assert [(c["altloc"], round(c["occupancy"], 3)) for c in found] == [("", 0.6), ("B", 0.3)]
    for conformer, chi in zip(found, ([2.0, 1.0], [-1.0, 2.0]), strict=True):
        assert [conformer[n] for n in CHI[:2]] == pytest.approx(chi, abs=2e-3)
        assert (conformer["num_atoms_own"], conformer["num_atoms_shared"]) == (2, 3)


def test_a_chi_on_an_atom_without_occupancy_is_not_observed(tmp_path):
    middle = with_altlocs("LEU", {"A": (0.6, [-1.0, 2.0]), "B": (0.4, [-1.0, -2.0])})
    middle["atoms"] = [(n, a, 0.0 if n == "CD1" else o, p) for n, a, o, p in middle["atoms"]]
    records = read(tmp_path, peptide(middle))
    assert [c["chi1_observed"] for c in conformers(records)] == [True, True]
    assert [c["chi2_observed"] for c in conformers(records)] == [False, False]
    assert {c["chi3_observed"] for c in conformers(records)} == {None}
    assert None not in [c["chi2_rad"] for c in conformers(records)]
    assert row(records, 3)["num_distinct_conformers"] == 1  # what was seen is one side chain


@pytest.mark.parametrize(
    ("name", "chis", "groups"),
    [
        ("SER", [[1.0], [1.1], [2.0]], [0, 0, 1]),
        ("SER", [[3.1], [-3.1], [1.0]], [0, 0, 1]),
        ("SER", [[1.0], [1.15], [1.3]], [0, 0, 1]),  # groups do not chain
        ("PHE", [[1.0, 0.5], [1.0, 0.5 - np.pi], [1.0, 1.0]], [0, 0, 1]),
        ("LEU", [[1.0, 0.5], [1.0, 0.5 - np.pi], [2.0, 0.5]], [0, 1, 2]),
    ],
)
def test_conformers_that_agree_are_one_group(tmp_path, name, chis, groups):
    altlocs = {a: (o, chi) for a, o, chi in zip("ABC", (0.5, 0.3, 0.2), chis, strict=True)}
    records = read(tmp_path, peptide(with_altlocs(name, altlocs)))
    assert [c["group"] for c in conformers(records)] == groups
    assert row(records, 3)["num_distinct_conformers"] == max(groups) + 1
    assert records.entries["num_heterogeneous"].to_pylist() == [1]


def test_b_rank_is_the_rank_of_the_side_chain_in_its_entry(shared_data):
    """As pandas ranks the means of the chi-defining atoms beyond CA, by gemmi alone."""
    path = shared_data / "raw" / "2hmz.pdb.gz"
    records = read_entry(path, "x")
    means = {}
    for chain in gemmi.read_structure(str(path))[0]:
        for one in chain:
            atoms = [a.b_iso for a in one if a.name in CHI_PATH.get(one.name, ())[2:]]
            if atoms:
                means[chain.name, one.seqid.num, one.seqid.icode.strip(), one.name] = np.mean(atoms)
    expected = pd.Series(means).round(4).rank().sub(1).div(len(means) - 1)
    found = records.residues.to_pandas().set_index(
        ["author_chain", "author_number", "insertion_code", "name"]
    )["b_rank"]
    # Residue types that lost at a place are in the file, and move the rank of others a little.
    both = expected.index.intersection(found.dropna().index)
    assert len(both) > 0.95 * len(found.dropna())
    assert (expected[both] - found[both]).abs().max() < 0.01


def test_b_factors_that_are_all_equal_rank_nothing(tmp_path):
    records = read(tmp_path, peptide(residue("SER", 3)))
    assert set(records.residues["b_rank"].to_pylist()) == {None}


def test_numbers_that_are_none_are_missing_with_a_reason(tmp_path):
    """Through the arrays that a reader makes, whatever the file gave it."""
    read(tmp_path, peptide(with_altlocs("LEU", {"A": (0.6, [-1.0, 2.0]), "B": (0.4, [1.0, 2.0])})))
    good = make_tables([parse_file(tmp_path / "x.cif", "x")], 6)
    for column, row_index, value in itertools.product(
        ("position", "occupancy", "b_factor"), range(0, 20, 3), (np.nan, np.inf, -np.inf, 1e30)
    ):
        parsed = parse_file(tmp_path / "x.cif", "x")
        getattr(parsed.atoms, column)[row_index] = value
        made = make_tables([parsed], 6)
        for table in made.values():
            for name in table.column_names:
                values = table[name].combine_chunks()
                values = values.flatten() if pa.types.is_fixed_size_list(values.type) else values
                if pa.types.is_floating(values.type):
                    assert np.isfinite(values.drop_null().to_numpy()).all(), (column, name)
        assert "not_a_number" in made["rejected"]["reason"].to_pylist()
        assert len(made["residues"]) == len(good["residues"])
        assert made["entries"]["num_backbones_kept"] == good["entries"]["num_backbones_kept"]


def test_an_altloc_without_own_chi_atoms_is_no_conformer(tmp_path):
    middle = residue("SER", 3)
    oxygen = place(3)["O"]
    middle["atoms"] = [a for a in middle["atoms"] if a[0] != "O"]
    middle["atoms"] += [("O", "A", 0.5, oxygen), ("O", "B", 0.5, oxygen + 0.4)]
    records = read(tmp_path, peptide(middle))
    assert [c["altloc"] for c in conformers(records)] == [""]
    assert reasons(records) == [Reason.NO_OWN_CHI_ATOMS] * 2
    assert row(records, 3)["num_altlocs"] == 2
    entry = records.entries.to_pylist()[0]
    assert (entry["num_conformers_read"], entry["num_conformers"]) == (3, 1)


@pytest.mark.parametrize(
    ("occupancies", "kept", "reason"),
    [
        ({"A": 0.0, "B": 0.0}, [], Reason.ZERO_OCCUPANCY),
        ({"A": 0.8, "B": 0.0}, ["A", "B"], None),
        ({"A": 0.8, "B": -0.3}, ["A"], Reason.NEGATIVE_OCCUPANCY),
    ],
)
def test_zero_and_negative_occupancies(tmp_path, occupancies, kept, reason):
    chis = {a: (o, [1.0 if a == "A" else -1.0]) for a, o in occupancies.items()}
    records = read(tmp_path, peptide(with_altlocs("SER", chis)))
    assert [c["altloc"] for c in conformers(records)] == kept
    assert set(reasons(records)) == ({reason} if reason else set())
    if kept:
        assert sum(c["occupancy_normalised"] for c in conformers(records)) == pytest.approx(1)
    assert row(records, 3)["num_conformers"] == len(kept)


def test_occupancy_is_the_mean_of_own_atoms_and_disagreement_is_flagged(tmp_path):
    middle = with_altlocs("LEU", {"A": (0.6, [-1.0, 2.0]), "B": (0.4, [1.0, 2.0])})
    middle["atoms"] = [
        (n, a, 0.5 if (n, a) == ("CD1", "A") else o, p) for n, a, o, p in middle["atoms"]
    ]
    records = read(tmp_path, peptide(middle))
    first = conformers(records)[0]
    numbers = [first[n] for n in ("occupancy", "occupancy_min", "occupancy_max")]
    assert numbers == pytest.approx([0.55, 0.5, 0.6])
    assert row(records, 3)["has_occupancy_disagreement"]
    assert not row(records, 2)["has_occupancy_disagreement"]


def test_conformers_beyond_the_limit_are_the_lowest(tmp_path):
    chis = {a: (0.1 * (i + 1), [float(i)]) for i, a in enumerate("ABC")}
    records = read(tmp_path, peptide(with_altlocs("SER", chis)), max_conformers=2)
    assert [c["altloc"] for c in conformers(records)] == ["C", "B"]
    assert reasons(records) == [Reason.OVER_LIMIT]
    with pytest.raises(QfitLatentError, match="max_conformers"):
        read(tmp_path, peptide(residue("SER", 3)), max_conformers=0)


def test_ties_and_odd_labels(tmp_path):
    chis = {a: (0.25, [float(i)]) for i, a in enumerate("b1aZ")}
    found = conformers(read(tmp_path, peptide(with_altlocs("SER", chis))))
    assert [c["altloc"] for c in found] == ["1", "Z", "a", "b"]


def test_microheterogeneity_keeps_the_higher_sum(tmp_path):
    serine = with_altlocs("SER", {"A": (0.3, [1.0]), "C": (0.3, [-1.0])})
    threonine = with_altlocs("THR", {"B": (0.4, [1.0])})
    for spec, occupancies in ((serine, {"A": 0.3, "C": 0.3}), (threonine, {"B": 0.4})):
        named = [a for a in spec["atoms"] if a[1]]
        blank = [a for a in spec["atoms"] if not a[1]]
        spec["atoms"] = named + [
            (n, altloc, o, p) for altloc, o in occupancies.items() for n, _, _, p in blank
        ]
    records = read(tmp_path, peptide([threonine, serine]))
    found = row(records, 3)
    assert (found["name"], found["is_microheterogeneous"], found["index"]) == ("SER", True, 2)
    rejected = records.rejected.to_pylist()
    assert [(r["scope"], r["name"], r["index"]) for r in rejected] == [("residue", "THR", 2)]
    entry = records.entries.to_pylist()[0]
    assert (entry["num_residues_read"], entry["num_residues"]) == (6, 5)
    assert [r["index"] for r in records.residues.to_pylist()] == [0, 1, 2, 3, 4]


def test_modified_and_d_residues(tmp_path):
    mse = residue("MET", 3)
    mse["name"] = "MSE"
    mse["atoms"] = [("SE" if n == "SD" else n, a, o, p) for n, a, o, p in mse["atoms"]]
    sep = residue("SER", 4)
    sep["name"] = "SEP"
    dsn = residue("SER", 5)
    dsn["name"] = "DSN"
    records = read(tmp_path, {"A": [residue("ALA", 1), residue("ALA", 2), mse, sep, dsn]})
    rows = records.residues.to_pylist()[2:]
    assert [r["name"] for r in rows] == ["MSE", "SEP", "DSN"]
    assert [r["token"] for r in rows] == [TOKEN["MET"], 20, 20]
    assert [r["num_chi"] for r in rows] == [3, 0, 0]
    assert [r["is_d_residue"] for r in rows] == [False, False, True]
    assert all(r["is_modified"] for r in rows)
    found = conformers(records)
    assert [c["index"] for c in found] == [2]
    assert [found[0][n] for n in CHI[:3]] == pytest.approx([1.0] * 3, abs=2e-3)


def test_insertion_codes_and_negative_numbers_stay_apart(tmp_path):
    numbers = [(-1, " "), (52, " "), (52, "A"), (52, "B"), (60, " ")]
    residues = []
    for i, (number, icode) in enumerate(numbers):
        spec = residue("SER", i)
        residues.append(spec | {"number": number, "icode": icode})
    for kind in ("cif", "pdb"):
        rows = read(tmp_path, {"A": residues}, kind).residues.to_pylist()
        assert [(r["author_number"], r["insertion_code"] or " ") for r in rows] == numbers
        assert [r["index"] for r in rows] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["C", "AAA", "A-long-chain-name"])
def test_chain_names_of_any_length(tmp_path, name):
    chains = {name: peptide(residue("SER", 3))["A"], "B": peptide(residue("VAL", 3))["A"]}
    records = read(tmp_path, chains)
    assert {r["author_chain"] for r in records.residues.to_pylist()} == {name, "B"}
    assert records.entries.to_pylist()[0]["num_chains"] == 2


def test_frames(tmp_path):
    both = residue("SER", 3)
    both["atoms"] = [
        (n, altloc, o, p + shift)
        for altloc, o, shift in (("A", 0.4, 0.0), ("B", 0.6, 0.1))
        for n, _, _, p in both["atoms"]
    ]
    without_n = residue("ALA", 4)
    without_n["atoms"] = [a for a in without_n["atoms"] if a[0] != "N"]
    line = residue(
        "ALA", 5, atoms=[(n, "", 1.0, [16 + i, 0, 0]) for i, n in enumerate(("N", "CA", "C", "O"))]
    )
    records = read(tmp_path, {"A": [residue("ALA", 1), residue("ALA", 2), both, without_n, line]})
    frames = records.frames.to_pylist()
    assert [f["altloc"] for f in frames] == ["", "", "B", None, None]
    assert frames[2]["translation_angstrom"] == pytest.approx(place(3)["CA"] + 0.1, abs=1e-3)
    assert reasons(records, "frame") == [Reason.INCOMPLETE_BACKBONE, Reason.DEGENERATE_BACKBONE]
    rotation = np.reshape(frames[0]["rotation"], (3, 3))
    atoms = place(1)
    local_n, local_c = ((atoms[n] - atoms["CA"]) @ rotation for n in ("N", "C"))
    np.testing.assert_allclose(local_c, [np.linalg.norm(local_c), 0, 0], atol=2e-3)
    assert local_n[1] > 0.1
    assert abs(local_n[2]) < 2e-3


def test_chain_breaks_end_segments_and_torsions(tmp_path):
    residues = [residue("ALA", i) for i in (1, 2, 5, 6)]
    rows = read(tmp_path, {"A": residues}).residues.to_pylist()
    assert [r["segment"] for r in rows] == [0, 0, 1, 1]
    assert [r["phi_rad"] is None for r in rows] == [True, False, True, False]
    assert [r["psi_rad"] is None for r in rows] == [False, True, False, True]
    assert [r["omega_rad"] is None for r in rows] == [True, False, True, False]


def test_neighbours_are_counted_in_all_chains(tmp_path):
    near = [residue("ALA", i) for i in (1, 2, 3)]
    far = [
        spec | {"atoms": [(n, a, o, p + np.array([0, 100, 0])) for n, a, o, p in spec["atoms"]]}
        for spec in near
    ]
    beside = [
        spec | {"atoms": [(n, a, o, p + np.array([0, 0, 5])) for n, a, o, p in spec["atoms"]]}
        for spec in near
    ]
    count = [
        [r["num_neighbours"] for r in read(tmp_path, {"A": near, "B": other}).residues.to_pylist()]
        for other in (far, beside)
    ]
    assert count == [[2] * 6, [5] * 6]


def test_neighbours_by_cells_are_those_among_all(monkeypatch):
    points = np.random.default_rng(0).random((300, 3)) * 40.0 + 1000.0
    among_all = backbone._count_within(points, 10.0)
    monkeypatch.setattr(backbone, "CELLS_ABOVE", 64)
    assert (backbone._count_within(points, 10.0) == among_all).all()
    assert among_all.mean() > 10


def test_only_the_first_model_and_only_protein(tmp_path):
    made = structure(peptide(residue("SER", 3)))
    second = made[0].clone()
    second.num = 2
    made.add_model(second)
    water = structure(
        {"W": [residue("HOH", i, atoms=[("O", "", 1.0, [50, i, 0])]) for i in (1, 2)]}
    )
    made[0].add_chain(water[0][0])
    made.setup_entities()
    path = tmp_path / "x.cif"
    made.make_mmcif_document().write_file(str(path))
    records = read_entry(path, "x")
    entry = records.entries.to_pylist()[0]
    assert (entry["num_models"], entry["num_residues"]) == (2, 5)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.pdb", b"", Reason.EMPTY),
        ("a.cif", b"  \n", Reason.EMPTY),
        ("a.pdb", b"<html>Not found</html>\n", Reason.EMPTY),
        ("a.cif", b"data_x\nloop_\n_atom_site.id\n_atom_site.type_symbol\n1\n", Reason.UNREADABLE),
        ("a.cif", b"data_x\n_cell.length_a 1\n", Reason.EMPTY),
        ("a.cif", b"data_x\n_cell.length_a 1\ndata_y\n_atom_site.id 1\n", Reason.UNREADABLE),
        ("a.pdb.gz", gzip.compress(b"HEADER\n" * 100, mtime=0)[:-12], Reason.TRUNCATED),
        ("a.cif.gz", gzip.compress(b"", mtime=0), Reason.EMPTY),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    records = read_entry(tmp_path / name, "x")
    rejected = records.rejected.to_pylist()
    assert [(r["scope"], r["reason"], r["stage"]) for r in rejected] == [
        ("entry", reason, "preprocess")
    ]
    assert all(len(t) == 0 for n, t in records.tables().items() if n != "rejected")


def test_a_missing_file_and_a_file_without_protein(tmp_path):
    records = read_entry(tmp_path / "none.cif", "x")
    assert reasons(records) == [Reason.NOT_FOUND]
    ions = {"I": [residue("NA", i, atoms=[("NA", "", 1.0, [5.0 * i, i, 0])]) for i in (1, 2)]}
    assert reasons(read(tmp_path, ions)) == [Reason.NO_PROTEIN]


@pytest.mark.parametrize("kind", ["cif", "pdb"])
def test_a_truncated_gzip_file_is_found_wherever_it_ends(tmp_path, kind):
    chain = peptide([with_altlocs("LEU", {"A": (1.0, [1.0, 1.0])})], length=60)
    whole = read(tmp_path, chain, kind)
    packed = gzip.compress((tmp_path / f"x.{kind}").read_bytes())
    path = tmp_path / f"y.{kind}.gz"
    path.write_bytes(packed)
    assert read_entry(path, "x").conformers.equals(whole.conformers)
    for end in range(len(packed) // 3, len(packed) - 1, len(packed) // 7):
        path.write_bytes(packed[:end])
        assert reasons(read_entry(path, "x")) == [Reason.TRUNCATED], end


def test_line_ends_of_other_systems_and_wrong_suffixes(tmp_path):
    for kind in ("cif", "pdb"):
        whole = read(tmp_path, peptide(residue("ARG", 3)), kind)
        content = (tmp_path / f"x.{kind}").read_bytes()
        path = tmp_path / "y.txt"
        path.write_bytes(content.replace(b"\n", b"\r\n"))
        assert read_entry(path, "x").conformers.equals(whole.conformers)
        path.write_bytes(gzip.compress(content))
        assert read_entry(path, "x").frames.equals(whole.frames)


def test_tables_have_their_schemas_and_the_header_is_kept(tmp_path):
    made = structure(peptide(residue("SER", 3)))
    made.info["_exptl.method"] = "X-RAY DIFFRACTION"
    path = tmp_path / "x.cif"
    document = made.make_mmcif_document()
    refined = {"pdbx_refine_id": "x", "ls_d_res_high": "1.5", "ls_R_factor_R_free": "0.21"}
    for name, value in refined.items():
        document[0].set_pair(f"_refine.{name}", value)
    document.write_file(str(path))
    records = read_entry(path, "x", source="url", url="https://example.org/x.cif")
    for name, table in records.tables().items():
        assert table.schema.equals(schemas.SCHEMAS[name], check_metadata=True)
    entry = records.entries.to_pylist()[0]
    assert entry["method"] == "X-RAY DIFFRACTION"
    assert entry["resolution_angstrom"] == pytest.approx(1.5)
    assert entry["r_free"] == pytest.approx(0.21)
    assert (entry["source"], entry["url"]) == ("url", "https://example.org/x.cif")


def test_preprocess_writes_the_same_bytes_and_accounts_for_every_entry(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = []
    for i, name in enumerate(["SER", "LEU", "ARG"]):
        folder = tmp_path / f"in{i}"
        folder.mkdir()
        read(folder, peptide(with_altlocs(name, {"A": (0.5, [1.0]), "B": (0.5, [2.0])})))
        rows.append({"entry": f"e{i}", "source": "local", "path": f"in{i}/x.cif", "attempts": 0})
    gone = {"entry": "d0", "source": "rcsb", "reason": "not_found", "detail": "404", "attempts": 1}
    pq.write_table(pa.Table.from_pylist([*rows[::-1], gone], schema=LOG_SCHEMA), "log.parquet")
    for out in ("one", "two"):
        preprocess_entries("log.parquet", out, stream=io.StringIO())
    for name in schemas.SCHEMAS:
        first, second = ((tmp_path / o / f"{name}.parquet").read_bytes() for o in ("one", "two"))
        assert first == second
    entries = pq.read_table("one/entries.parquet").to_pylist()
    assert [(e["entry"], e["path"]) for e in entries] == [
        (f"e{i}", f"in{i}/x.cif") for i in range(3)
    ]
    rejected = pq.read_table("one/rejected.parquet").to_pylist()
    whole = [r for r in rejected if r["scope"] == "entry"]
    assert [(r["entry"], r["stage"], r["reason"]) for r in whole] == [
        ("d0", "download", "not_found")
    ]


# Random structures come back as they were written


@st.composite
def random_residue(draw, number, labels_of):
    name = draw(st.sampled_from([*RESIDUE_TYPES, "UNK"]))
    path = CHI_PATH.get(name, ())
    num_chi = max(0, len(path) - 3)
    labels = draw(
        st.lists(st.sampled_from(labels_of), unique=True, max_size=3) if num_chi else st.just([])
    )
    angle = st.floats(-3.1, 3.1)
    truth = {}
    atoms = [(n, "", 1.0, p) for n, p in place(number).items()]
    for label in labels or [""]:
        chi = draw(st.lists(angle, min_size=num_chi, max_size=num_chi))
        occupancy = draw(st.integers(5, 100)) / 100 if label else 1.0
        side = side_chain(name, number, chi) if num_chi else {}
        # An altloc may be cut short; what is beyond the cut is missing.
        present = draw(st.integers(1, num_chi)) if num_chi else 0
        kept = path[2 : 3 + present] if num_chi else ()
        shared = () if not label else ("CB",)
        atoms += [(n, label, occupancy, side[n]) for n in kept if n not in shared]
        truth[label] = (occupancy, [c if d < present else None for d, c in enumerate(chi)])
    if num_chi and labels:
        atoms.append(("CB", "", 1.0, side["CB"]))
    order = draw(st.permutations(range(len(atoms))))
    return residue(name, number, atoms=[atoms[i] for i in order]), truth if num_chi else {}


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_random_structures_come_back(tmp_path, data):
    # gemmi's writer of PDB files turns altlocs into capitals.
    kind, labels_of = data.draw(st.sampled_from([("cif", "ABCDab12"), ("pdb", "ABCD1234")]))
    num_residues = data.draw(st.integers(3, 8))
    made = [data.draw(random_residue(i, labels_of)) for i in range(num_residues)]
    records = read(tmp_path, {"A": [spec for spec, _ in made]}, kind)
    rows = records.residues.to_pylist()
    assert [r["name"] for r in rows] == [spec["name"] for spec, _ in made]
    found: dict[int, dict] = {i: {} for i in range(len(made))}
    for conformer in conformers(records):
        found[conformer["index"]][conformer["altloc"]] = conformer
    for index, (_, truth) in enumerate(made):
        assert found[index].keys() == truth.keys()
        total = sum(occupancy for occupancy, _ in truth.values())
        for label, (occupancy, chi) in truth.items():
            row = found[index][label]
            assert row["occupancy"] == pytest.approx(occupancy, abs=1e-6)
            assert row["occupancy_normalised"] == pytest.approx(occupancy / total, abs=1e-6)
            for name, angle in zip(CHI, chi + [None] * 4, strict=False):
                if angle is None:
                    assert row[name] is None
                else:
                    away = math.remainder(row[name] - angle, 2 * math.pi)
                    assert abs(away) < 4e-3  # coordinates have three decimals
