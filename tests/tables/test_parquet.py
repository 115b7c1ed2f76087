"""Tables: the same bytes, merged in order, errors that name file and column."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.tables import columns, parquet, schemas
from qfitlatent.tables.names import TABLES

SCHEMA = columns.make_schema(
    (
        columns.ENTRY,
        columns.CHAIN,
        *(columns.Column(name, columns.I32, False, "", name) for name in ("cluster", "group")),
        *(columns.Column(name, columns.TEXT, False, "", name) for name in ("split", "method")),
    )
)


def split_table(entries, chains=2):
    names = [entry for entry in entries for _ in range(chains)]
    n = len(names)
    return pa.table(
        {
            "entry": names,
            "chain": [f"c{i % chains}" for i in range(n)],
            "cluster": np.arange(n),
            "group": np.zeros(n, dtype=np.int64),
            "split": ["train"] * n,
            "method": ["builtin"] * n,
        }
    )


def test_every_column_says_what_it_is():
    for schema in schemas.SCHEMAS.values():
        assert schema.metadata[b"qfitlatent_schema"] == columns.VERSION.encode()
        for field in schema:
            assert field.metadata[b"description"], field.name
            unit = field.metadata[b"unit"].decode()
            for suffix, expected in (("_angstrom", "angstrom"), ("_rad", "radian")):
                assert field.name.endswith(suffix) == (unit == expected), field.name
    assert tuple(schemas.SCHEMAS) == TABLES


def test_the_same_rows_give_the_same_bytes_however_they_come(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", 10)
    whole = split_table([f"e{i:02d}" for i in range(16)])
    parquet.write_table(whole, tmp_path / "a", SCHEMA)
    with parquet.table_writer(tmp_path / "b", SCHEMA) as writer:
        for start in range(0, len(whole), 3):
            writer.write(whole.slice(start, 3))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    read = parquet.read_table(tmp_path / "a")
    assert read.schema.equals(SCHEMA, check_metadata=True)
    assert read["entry"].to_pylist() == whole["entry"].to_pylist()
    assert pq.ParquetFile(tmp_path / "a").num_row_groups == 4


def test_merging_sorts_the_entries_of_all_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 3)  # batches that end within an entry
    shards = [["a", "d", "e"], ["b", "c", "f", "g"], [], ["aa"]]
    paths = []
    for number, entries in enumerate(shards):
        paths.append(tmp_path / f"{number}.parquet")
        parquet.write_table(split_table(entries), paths[-1], SCHEMA)
    parquet.merge_tables(paths, tmp_path / "out", SCHEMA)
    merged = parquet.read_table(tmp_path / "out")
    everything = sorted(entry for entries in shards for entry in entries)
    assert merged["entry"].to_pylist() == [e for e in everything for _ in range(2)]
    assert merged["chain"].to_pylist() == ["c0", "c1"] * len(everything)
    parquet.merge_tables(paths[::-1], tmp_path / "again", SCHEMA)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "again").read_bytes()


def test_merging_refuses_shards_that_contradict_each_other(tmp_path):
    parquet.write_table(split_table(["a", "b"]), tmp_path / "1", SCHEMA)
    parquet.write_table(split_table(["b"]), tmp_path / "2", SCHEMA)
    parquet.write_table(split_table(["b", "a"]), tmp_path / "3", SCHEMA)
    with pytest.raises(QfitLatentError, match="entry b is in two"):
        parquet.merge_tables([tmp_path / "1", tmp_path / "2"], tmp_path / "out", SCHEMA)
    with pytest.raises(QfitLatentError, match="not sorted"):
        parquet.merge_tables([tmp_path / "3"], tmp_path / "out", SCHEMA)
    assert not (tmp_path / "out").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2", "3"]


def test_mistakes_name_table_and_column(tmp_path):
    table = split_table(["a"])
    path = tmp_path / "t.parquet"
    with pytest.raises(QfitLatentError, match=r"lacks the column cluster"):
        parquet.write_table(table.drop_columns(["cluster"]), path, SCHEMA)
    empty = table.set_column(4, "split", pa.array([None, None], pa.string()))
    with pytest.raises(QfitLatentError, match=r"split of .* has 2 missing values"):
        parquet.write_table(empty, path, SCHEMA)
    words = table.set_column(2, "cluster", pa.array(["x", "y"]))
    with pytest.raises(QfitLatentError, match="does not fit"):
        parquet.write_table(words, path, SCHEMA)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(QfitLatentError, match=r"t\.parquet does not exist"):
        parquet.read_table(path)
    parquet.write_table(table, path, SCHEMA)
    with pytest.raises(QfitLatentError, match="no column wrong"):
        parquet.read_table(path, ["entry", "wrong"])
    assert parquet.read_table(path, ["split"]).column_names == ["split"]
    path.write_bytes(b"nonsense")
    with pytest.raises(QfitLatentError, match="is no readable Parquet table"):
        parquet.read_table(path)


def test_an_interrupted_table_leaves_nothing(tmp_path):
    def interrupted():
        with parquet.table_writer(tmp_path / "t", SCHEMA) as writer:
            writer.write(split_table(["a"]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert list(tmp_path.iterdir()) == []
