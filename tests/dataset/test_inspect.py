"""Text for the terminal: one entry, and one table."""

import pytest

from helpers.peptides import peptide, read, with_altlocs
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.dataset.inspect import describe_table, inspect_entry
from qfitlatent.tables import schemas
from qfitlatent.tables.parquet import write_table


@pytest.fixture
def folder(tmp_path):
    altlocs = {"A": (0.7, [1.0, 1.0]), "B": (0.3, [-2.0, 3.0])}
    records = read(tmp_path, peptide(with_altlocs("LEU", altlocs)))
    for name, table in records.tables().items():
        write_table(table, tmp_path / "tables" / f"{name}.parquet", schemas.SCHEMAS[name])
    return tmp_path


def test_an_entry_shows_its_altlocs_in_degrees(folder):
    from_tables = inspect_entry("x", folder / "tables")
    from_file = inspect_entry(str(folder / "x.cif"))
    assert from_tables == from_file
    lines = from_tables.splitlines()
    assert lines[0].startswith("x: method not stated")
    leucine = next(i for i, line in enumerate(lines) if "LEU 3" in line)
    assert {"A", "0.70", "57"} <= set(lines[leucine].split())
    assert {"B", "0.30", "-115", "172"} <= set(lines[leucine + 1].split())
    assert sum("ALA" in line for line in lines) == 4
    only = inspect_entry("x", folder / "tables", only_multiconformer=True)
    assert "ALA" not in only
    assert "LEU 3" in only


def test_what_was_left_out_is_shown(tmp_path):
    altlocs = {"A": (0.0, [1.0]), "B": (0.0, [-2.0])}
    read(tmp_path, peptide(with_altlocs("SER", altlocs)))
    text = inspect_entry(str(tmp_path / "x.cif"))
    assert "Left out (2)" in text
    assert "conformer A/SER 3 altloc A: zero_occupancy (occupancy 0)" in text


def test_an_angle_without_density_is_in_brackets(tmp_path):
    altlocs = {"A": (0.7, [1.0]), "B": (0.0, [-2.0])}
    read(tmp_path, peptide(with_altlocs("SER", altlocs)))
    words = inspect_entry(str(tmp_path / "x.cif")).split()
    assert {"57", "(-115)"} <= set(words)


def test_a_table_shows_units_missing_values_and_ranges(folder):
    text = describe_table(folder / "tables" / "residues.parquet")
    lines = {line.split()[0]: line for line in text.splitlines()[1:]}
    assert set(schemas.RESIDUES.names) <= set(lines)
    assert "5 rows" in text.splitlines()[0]
    assert "radian" in lines["phi_rad"]
    assert lines["phi_rad"].split()[3] == "1"
    assert "0 to 10" in lines["token"]
    assert "0 % true" in lines["is_het"]
    frames = describe_table(folder / "tables" / "frames.parquet")
    assert "float[9]" in frames


def test_mistakes_are_sentences(folder):
    with pytest.raises(QfitLatentError, match="no entry y"):
        inspect_entry("y", folder / "tables")
    with pytest.raises(QfitLatentError, match="no file"):
        inspect_entry("y")
    with pytest.raises(QfitLatentError, match="does not exist"):
        inspect_entry("x", folder)
    with pytest.raises(QfitLatentError, match="does not exist"):
        describe_table(folder / "none.parquet")
