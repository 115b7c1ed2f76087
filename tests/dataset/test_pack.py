"""A packed data set: what the libraries of both standards read in it."""

import json
from datetime import date

import mlcroissant
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rocrate.rocrate import ROCrate

from qfitlatent import cli
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import sha256_file
from qfitlatent.dataset.pack import LICENCES, About, pack_data_set
from qfitlatent.dataset.split import SCHEMA as SPLIT
from qfitlatent.tables.names import TABLES
from qfitlatent.tables.parquet import write_table
from qfitlatent.tables.schemas import SCHEMAS

ABOUT = About("My side chains", ["A. Author", "B. Zürich"], "CC-BY-4.0", "1.2.0", date(2026, 1, 2))


def value(field, number):
    """A value of the field's type; null in every other row where it may be."""
    if field.nullable and number % 2:
        return None
    if pa.types.is_fixed_size_list(field.type):
        return [number + i / 8 for i in range(field.type.list_size)]
    if pa.types.is_string(field.type):
        return "/home/me/secret/1abc.cif" if field.name == "path" else f"{field.name}{number}"
    if pa.types.is_floating(field.type):
        return number + 0.5
    return bool(number) if pa.types.is_boolean(field.type) else number


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three rows in every table, each column filled."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "tables").mkdir()
    schemas = {f"tables/{name}": SCHEMAS[name] for name in TABLES} | {"split": SPLIT}
    for name, schema in schemas.items():
        rows = {f.name: pa.array([value(f, n) for n in range(3)], f.type) for f in schema}
        write_table(pa.table(rows, schema=schema), folder / f"{name}.parquet", schema)
    return folder


@pytest.fixture(scope="module")
def packed(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "set"
    pack_data_set(data, out, ABOUT)
    return out


def test_croissant_is_valid_and_loads_every_row(packed):
    found = mlcroissant.Dataset(jsonld=str(packed / "croissant.json"))
    issues = found.metadata.ctx.issues
    assert not issues.errors
    assert not issues.warnings
    assert found.metadata.name == ABOUT.title
    assert {record.name for record in found.metadata.record_sets} == {*TABLES, "split"}
    for record in found.metadata.record_sets:
        path = packed / ("" if record.name == "split" else "tables") / f"{record.name}.parquet"
        table = pq.read_table(path)
        assert [field.name for field in record.fields] == table.column_names
        rows = list(found.records(record.name))
        assert len(rows) == len(table)
        for row, wanted in zip(rows, table.to_pylist(), strict=True):
            for name, exact in wanted.items():
                there = row[f"{record.name}/{name}"]
                if isinstance(exact, str):
                    assert there.decode() == exact
                elif isinstance(exact, list):
                    assert list(there) == pytest.approx(exact)
                elif exact is not None:
                    assert there == pytest.approx(exact)


def test_croissant_describes_the_columns_as_the_tables_do(packed):
    described = json.loads((packed / "croissant.json").read_text())
    for record in described["recordSet"]:
        for field in record["field"]:
            schema = SPLIT if record["name"] == "split" else SCHEMAS[record["name"]]
            metadata = schema.field(field["name"]).metadata
            assert field["description"].startswith(metadata[b"description"].decode())
            assert metadata[b"unit"].decode() in field["description"]
    for file in described["distribution"]:
        assert file["sha256"] == sha256_file(packed / file["contentUrl"])


def test_the_crate_is_read_with_all_of_its_files(packed, tmp_path):
    crate = ROCrate(packed)
    assert crate.name == ABOUT.title
    assert crate.datePublished.date() == ABOUT.published
    assert crate.license.id == LICENCES["CC-BY-4.0"]
    assert [person["name"] for person in crate.root_dataset["author"]] == ABOUT.authors
    listed = {entity.id for entity in crate.data_entities}
    there = {str(p.relative_to(packed)) for p in packed.rglob("*") if p.is_file()}
    assert listed == there - {"ro-crate-metadata.json"}
    for entity in crate.data_entities:
        assert entity["sha256"] == sha256_file(packed / entity.id)
    crate.write(tmp_path / "again")
    assert {e.id for e in ROCrate(tmp_path / "again").data_entities} == listed


def test_tables_are_those_of_the_data_set_without_its_paths(data, packed):
    for name in (*(f"tables/{name}" for name in TABLES if name != "entries"), "split"):
        assert (packed / f"{name}.parquet").read_bytes() == (data / f"{name}.parquet").read_bytes()
    before, after = (pq.read_table(f / "tables/entries.parquet") for f in (data, packed))
    assert set(after["path"].to_pylist()) == {"1abc.cif"}
    assert after.schema.equals(before.schema, check_metadata=True)
    assert after.drop(["path"]).equals(before.drop(["path"]))
    assert b"secret" not in b"".join(p.read_bytes() for p in packed.rglob("*") if p.is_file())


def test_people_read_licence_and_citation(packed):
    citation = yaml.safe_load((packed / "CITATION.cff").read_text("utf-8"))
    assert citation["type"] == "dataset"
    assert citation["license"] == "CC-BY-4.0"
    assert [author["name"] for author in citation["authors"]] == ABOUT.authors
    readme = (packed / "README.md").read_text("utf-8")
    assert "| `tables/residues.parquet` | 3 |" in readme
    assert LICENCES["CC-BY-4.0"] in readme


def test_two_packings_are_the_same_bytes(data, packed, tmp_path):
    pack_data_set(data, tmp_path / "again", ABOUT)
    for path in packed.rglob("*"):
        if path.is_file() and path.name != "README.md":  # that one names its folder
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(packed)).read_bytes()


def test_what_cannot_be_packed_is_one_sentence(data, packed, tmp_path):
    with pytest.raises(QfitLatentError, match=r"There is no .*entries\.parquet: give the folder"):
        pack_data_set(tmp_path, tmp_path / "out", ABOUT)
    with pytest.raises(QfitLatentError, match="exists already"):
        pack_data_set(data, packed, ABOUT)
    with pytest.raises(QfitLatentError, match=r"MIT is no licence .* CC0-1\.0 or CC-BY-4\.0"):
        About("x", ["y"], "MIT", "1", date(2026, 1, 1))
    with pytest.raises(QfitLatentError, match="needs a title, a version and authors"):
        About(" ", ["y"], "CC0-1.0", "1", date(2026, 1, 1))


def test_the_command_packs(data, tmp_path, capsys):
    out = tmp_path / "set"
    command = ["pack", str(data), "-o", str(out), "--title", "T", "--author", "A", "--author", "B"]
    assert cli.main(command) == 0
    assert capsys.readouterr().out == f"{out} holds 10 files, ready for an archive.\n"
    assert json.loads((out / "croissant.json").read_text())["license"] == LICENCES["CC0-1.0"]
    assert cli.main(command) == 2
    assert cli.main(["pack", str(data), "-o", str(tmp_path / "x"), "--title", "T"]) == 2
    assert "--author" in capsys.readouterr().err
