"""The audit: clean tables pass, and every invariant can fail."""

import io
import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.browser import check_in_browser, check_self_contained
from helpers.peptides import peptide, read, with_altlocs
from qfitlatent.archive.log import LOG_SCHEMA
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.dataset import audit, invariants
from qfitlatent.dataset.split import SCHEMA as SPLIT_SCHEMA
from qfitlatent.structure.preprocess import preprocess_entries
from qfitlatent.tables import schemas
from qfitlatent.tables.parquet import write_table


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Tables of six small entries, one of them unreadable, and their split."""
    folder = tmp_path_factory.mktemp("audit")
    rows = []
    for i, name in enumerate(["SER", "LEU", "ARG", "PHE", "VAL", "none"]):
        inside = folder / f"in{i}"
        inside.mkdir()
        if name == "none":
            (inside / "x.cif").write_bytes(b"")
        else:
            altlocs = {"A": (0.7, [1.0] * 4), "B": (0.4, [-2.0] * 4)}
            read(inside, peptide(with_altlocs(name, altlocs)))
        rows.append(
            {"entry": f"e{i}", "source": "local", "path": str(inside / "x.cif"), "attempts": 0}
        )
    log = pa.Table.from_pylist(rows, schema=LOG_SCHEMA)
    pq.write_table(log, folder / "download.parquet")
    preprocess_entries(folder / "download.parquet", folder / "tables", stream=io.StringIO())
    split = pa.table(
        {
            "entry": [f"e{i}" for i in range(5)],
            "chain": ["Axp"] * 5,
            "cluster": range(5),
            "split": ["train", "train", "train", "validation", "test"],
            "reason": pa.nulls(5, pa.string()),
            "method": ["builtin"] * 5,
            "allocation": ["fractions"] * 5,
        }
    )
    write_table(split, folder / "split.parquet", SPLIT_SCHEMA)
    return folder


@pytest.fixture
def frames(data):
    """The tables in memory, to be spoiled."""
    found = invariants.read_tables(data / "tables", data / "split.parquet")
    return {name: table.copy() for name, table in found.items()}


def test_clean_tables_pass_and_the_page_opens_offline(data, tmp_path):
    summary = audit.make_audit(data / "tables", data / "split.parquet", tmp_path)
    assert summary == json.loads((tmp_path / "audit.json").read_text())
    assert summary["broken_invariants"] == []
    assert summary["counts"]["entries"] == 5
    assert summary["counts"]["entries_rejected"] == 1
    assert summary["counts"]["multiconformer_residues"] == 5
    assert summary["residues_by_type"]["ALA"] == 20
    assert summary["counts"]["heterogeneous_residues"] == 5
    assert summary["residues_by_number_of_distinct_conformers"] == {"2": 5}
    assert summary["unexpected_errors"] == []
    assert sum(summary["altlocs_by_largest_chi_difference_degrees"]["counts"]) == 5
    assert np.sum(summary["chi_density"]["LEU"]) == pytest.approx(1, abs=0.01)
    assert "occupancies sum to 1.10" in summary["suspicious"][0]["why"]
    page = (tmp_path / "index.html").read_text()
    assert page.count("<img") >= 6
    opening = page[: page.index("<nav ")]
    assert re.findall(r"<b>(.*?)</b>", opening) == ["5", "25", "5", "–"]
    check_self_contained(page)
    check_in_browser(tmp_path / "index.html")
    first = (tmp_path / "index.html").read_bytes(), (tmp_path / "audit.json").read_bytes()
    audit.make_audit(data / "tables", data / "split.parquet", tmp_path)
    again = (tmp_path / "index.html").read_bytes(), (tmp_path / "audit.json").read_bytes()
    assert first == again


def spoil(table, column, value, where=0):
    def change(tables):
        at = tables[table].columns.get_loc(column)
        tables[table].iloc[where, at] = value

    return change


def doubled(table):
    def change(tables):
        tables[table] = pd.concat([tables[table], tables[table].head(1)])

    return change


def without_row(table, where=0):
    def change(tables):
        tables[table] = tables[table].drop(tables[table].index[where])

    return change


@pytest.mark.parametrize(
    ("change", "invariant"),
    [
        (doubled("entries"), "keys of entries"),
        (doubled("residues"), "keys of residues"),
        (doubled("conformers"), "keys of conformers"),
        (without_row("entries"), "residues belong to an entry"),
        (without_row("residues"), "frames belong to a residue"),
        (without_row("frames"), "every residue has a row in frames"),
        (without_row("residues", 2), "conformers belong to a residue"),
        (spoil("frames", "r0", 0.5), "rotations are orthonormal"),
        (spoil("frames", "altloc", None), "null together"),
        (spoil("conformers", "occupancy_normalised", 0.5), "sum to 1"),
        (spoil("conformers", "occupancy", 3.0), "between their minimum and maximum"),
        (spoil("conformers", "rank", 1), "ranks count from 0"),
        (spoil("conformers", "chi2_rad", 1.0), "only where the residue type defines it"),
        (spoil("conformers", "chi1_rad", 4.0), "chi is in"),
        (spoil("conformers", "chi1_rad", np.nan), "at least one chi"),
        (spoil("residues", "phi_rad", -4.0, 1), "phi, psi and omega"),
        (spoil("conformers", "chi3_observed", True), "observed or not exactly where"),
        (spoil("conformers", "group", 2), "groups of conformers"),
        (spoil("residues", "num_distinct_conformers", 1, 2), "groups of conformers"),
        (spoil("residues", "b_rank", 1.5), "ranks of B"),
        (spoil("entries", "num_heterogeneous", 3), "several distinct_conformers"),
        (spoil("entries", "num_multiconformer", 3), "several conformers"),
        (spoil("entries", "num_backbones_kept", 9), "among those kept and rejected"),
        (spoil("residues", "token", 5), "tokens agree with names"),
        (spoil("residues", "num_chi", 3), "numbers of chi"),
        (spoil("rejected", "reason", "because"), "closed vocabulary"),
        (spoil("entries", "num_residues_read", 9), "residues read = kept"),
        (spoil("entries", "num_conformers", 9), "conformers are as many"),
        (spoil("residues", "num_conformers", 4, 2), "as many as counted"),
        (without_row("rejected"), "every selected entry"),
        (spoil("rejected", "entry", "e0"), "kept or rejected, not both"),
        (spoil("split", "cluster", 4), "no cluster is in two splits"),
        (spoil("split", "cluster", 4), "no cluster is learnt from and held out"),
        (spoil("split", "reason", "because"), "what is excluded, and only that, has a reason"),
        (without_row("split"), "every chain is in the split"),
        (spoil("split", "chain", "Q"), "the split has no other chains"),
        (spoil("split", "split", "tset"), "splits are train"),
    ],
)
def test_a_broken_invariant_is_found(frames, change, invariant):
    assert invariants.check_invariants(frames) == []
    change(frames)
    broken = invariants.check_invariants(frames)
    assert any(invariant in violation.invariant for violation in broken), broken
    assert all(len(violation.rows) for violation in broken)


def test_a_broken_table_fails_the_audit_with_its_rows(data, tmp_path):
    table = pq.read_table(data / "tables" / "residues.parquet")
    index = table.column_names.index("token")
    tokens = table["token"].to_pylist()
    tokens[3] = 7
    folder = tmp_path / "tables"
    folder.mkdir()
    for path in (data / "tables").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    spoiled = table.set_column(index, "token", pa.array(tokens, pa.int8()))
    write_table(spoiled, folder / "residues.parquet", schemas.RESIDUES)
    with pytest.raises(QfitLatentError, match=r"(?s)tokens agree with names: 1 rows.*e0.*ALA"):
        audit.make_audit(folder, data / "split.parquet", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert any("tokens" in b["invariant"] for b in written["broken_invariants"])
    page = (tmp_path / "out" / "index.html").read_text()
    assert "contradict themselves in 1 way." in page
    assert "tokens agree with names: 1 rows" in page
    check_self_contained(page)


@pytest.mark.parametrize(("value", "column"), [(np.nan, "b_rank"), (np.inf, "phi_rad")])
def test_a_number_that_is_none_is_told_from_a_missing_one(data, tmp_path, value, column):
    folder = tmp_path / "tables"
    folder.mkdir()
    for path in (data / "tables").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    table = pq.read_table(folder / "residues.parquet")
    numbers = pa.array([value, *[None] * (len(table) - 1)], pa.float32())
    at = table.column_names.index(column)
    spoiled = table.set_column(at, table.schema.field(column), numbers)
    write_table(spoiled, folder / "residues.parquet", schemas.RESIDUES)
    tables = invariants.read_tables(folder, None)
    assert tables["not_finite"].values.tolist() == [["residues", column, "e0"]]


@pytest.mark.parametrize(("limit", "fails"), [(0.1, True), (0.2, False)])
def test_the_census_names_entries_and_fails_above_its_share(data, tmp_path, limit, fails):
    """One of five entries has a residue in its raw records that is in no table."""
    folder = tmp_path / "tables"
    folder.mkdir()
    for path in (data / "tables").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    table = pq.read_table(folder / "entries.parquet")
    counted = table["num_backbones_kept"].to_pylist()
    counted[1] += 1
    at = table.column_names.index("num_backbones")
    table = table.set_column(at, table.schema.field(at), pa.array(counted, pa.int32()))
    write_table(table, folder / "entries.parquet", schemas.ENTRIES)
    if fails:
        with pytest.raises(QfitLatentError, match=r"(?s)1 of 5 entries.*e1 +6 +5"):
            audit.make_audit(folder, None, tmp_path / "out", limit)
    else:
        audit.make_audit(folder, None, tmp_path / "out", limit)
    census = json.loads((tmp_path / "out" / "audit.json").read_text())["census"]
    (row,) = census["entries_where_it_does_not_hold"]
    assert (row["entry"], row["num_backbones"], row["num_backbones_kept"]) == ("e1", 6, 5)
    assert (census["in_raw_records"], census["kept"], census["rejected"]) == (26, 25, 0)
    assert "e1" in (tmp_path / "out" / "index.html").read_text()
