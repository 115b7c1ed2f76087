"""Ids, lists, folders and shards."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qfitlatent.archive.entries import (
    EntryRef,
    middle,
    normalise_id,
    read_entry_list,
    scan_folder,
    select_entries,
    shard_entries,
    shard_of,
)
from qfitlatent.base.errors import QfitLatentError

SETTINGS = {"source": "rcsb", "ids": [], "list": None, "folder": None, "pattern": "*"}


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("1ABC", "1abc"),
        (" 1aBc\t", "1abc"),
        ("PDB_00001ABC", "1abc"),
        ("pdb_10001abc", "pdb_10001abc"),
        ("pdb_0000abcd", "pdb_0000abcd"),
    ],
)
def test_pdb_ids_in_any_case_and_both_forms(text, entry):
    for source in ("rcsb", "pdb_redo"):
        assert normalise_id(text, source) == entry
        assert normalise_id(entry, source) == entry


@pytest.mark.parametrize("text", ["", "abc", "abcd", "1abcd", "1ab-", "pdb_1abc", "pdb-00001abc"])
def test_malformed_pdb_ids(text):
    with pytest.raises(QfitLatentError, match="not a PDB id"):
        normalise_id(text, "rcsb")


@pytest.mark.parametrize("text", ["", ".", "..", ".hidden", "-x", "a/b", "a b", "ä", "a\x00"])
def test_free_ids_never_leave_their_folder(text):
    with pytest.raises(QfitLatentError, match="not an entry id"):
        normalise_id(text, "local")


def test_free_ids_keep_their_case():
    assert normalise_id("My_model-1.refined", "url") == "My_model-1.refined"


@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", fullmatch=True))
def test_middle_is_a_harmless_folder_name(entry):
    name = middle(normalise_id(entry, "local"))
    assert 1 <= len(name) <= 2
    assert all(letter.isalnum() or letter == "_" for letter in name)


def test_middle_is_that_of_the_archive():
    assert middle("1abc") == "1abc"[1:3] == middle("pdb_10001abc")


# -- lists ------------------------------------------------------------------------------------


def test_text_list(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("# chosen by hand\n1ABC\n\n2xyz, 3def  # the best\n\t4GHI\n")
    assert [ref.id for ref in read_entry_list(path, "rcsb")] == ["1abc", "2xyz", "3def", "4ghi"]


@pytest.mark.parametrize("heading", ["id,path\n", ""])
def test_table_of_paths_relative_to_the_table(tmp_path, heading):
    path = tmp_path / "models.csv"
    path.write_text(f"{heading}b, models/b.pdb\na,/abs/a.cif\n# no\n\n", "utf-8-sig")
    assert read_entry_list(path, "local") == [
        EntryRef("b", str(tmp_path / "models/b.pdb")),
        EntryRef("a", "/abs/a.cif"),
    ]


def test_table_of_ids_alone(tmp_path):
    path = tmp_path / "ids.tsv"
    path.write_text("id\n1abc\n2xyz\n")
    assert read_entry_list(path, "rcsb") == [EntryRef("1abc"), EntryRef("2xyz")]


def test_result_of_a_search_is_a_list(tmp_path):
    path = tmp_path / "search.json"
    path.write_text('{"ids": ["1abc", "2xyz"], "date": "2026-01-01"}')
    assert [ref.id for ref in read_entry_list(path, "rcsb")] == ["1abc", "2xyz"]
    path.write_text("[]")
    with pytest.raises(QfitLatentError, match="no list 'ids'"):
        read_entry_list(path, "rcsb")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.txt", "1abc\n2xyz\n1ABC\n", "a.txt, line 3: the entry 1ABC was named before"),
        ("a.txt", "1abc\npdb_00001abc\n", "a.txt, line 2: the entry pdb_00001abc was named"),
        ("a.txt", "1abc\n\n2xy\n", "a.txt, line 3: '2xy' is not a PDB id"),
        ("a.csv", "id,path\n1abc\n1abc,x\n", "a.csv, line 3: the entry 1abc was named before"),
        ("a.csv", "id,path\n1abc,b,c\n", "a.csv, line 2: '1abc,b,c' is not a row id,path"),
        ("a.txt", "# nothing\n", "names no entry"),
        ("a.csv", "id,path\n", "names no entry"),
    ],
)
def test_faulty_lists_name_file_and_line(tmp_path, name, text, says):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(QfitLatentError) as error:
        read_entry_list(path, "rcsb")
    assert says in str(error.value)


def test_a_local_table_needs_paths(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,path\na,a.cif\nb,\n")
    with pytest.raises(QfitLatentError, match=r"a\.csv, line 3"):
        read_entry_list(path, "local")


def test_unreadable_lists(tmp_path):
    with pytest.raises(QfitLatentError, match="cannot be read"):
        read_entry_list(tmp_path / "none.txt", "rcsb")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(QfitLatentError, match="cannot be read"):
        read_entry_list(tmp_path / "binary.txt", "rcsb")
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(QfitLatentError, match="no regular file"):
        read_entry_list(tmp_path / "pipe.txt", "rcsb")
    (tmp_path / "long.csv").write_text("1abc," + "x" * 200_000)
    with pytest.raises(QfitLatentError, match=r"long\.csv, line 1: field larger than"):
        read_entry_list(tmp_path / "long.csv", "rcsb")
    (tmp_path / "deep.json").write_text('{"ids": ' + "[" * 100_000)
    with pytest.raises(QfitLatentError, match="not the result of a search"):
        read_entry_list(tmp_path / "deep.json", "rcsb")


# -- folders ----------------------------------------------------------------------------------


def test_folder(tmp_path):
    names = ["b.cif", "a.pdb.gz", "c.ENT", "d.mmcif", "E.x.cif.gz", ".hidden.cif", "notes.txt"]
    for name in [*names, "f.cif.bak", "g.mtz"]:
        (tmp_path / name).touch()
    (tmp_path / "folder.cif").mkdir()
    refs = scan_folder(tmp_path)
    assert [ref.id for ref in refs] == ["E.x", "a", "b", "c", "d"]
    assert refs[1].path == str(tmp_path / "a.pdb.gz")
    assert [ref.id for ref in scan_folder(tmp_path, "*.gz")] == ["E.x", "a"]


@pytest.mark.parametrize(
    ("names", "pattern", "says"),
    [
        (["notes.txt"], "*", "holds no structure file"),
        (["a.cif"], "*.pdb", r"entries.pattern '\*.pdb': the pattern '\*.cif'"),
        (["a.cif", "a.pdb"], "*", "a.cif and a.pdb in .* both are the entry a"),
    ],
)
def test_faulty_folders(tmp_path, names, pattern, says):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(QfitLatentError, match=says):
        scan_folder(tmp_path, pattern)


def test_odd_names_keep_no_file_out_of_a_folder(tmp_path):
    names = [b"good.cif", b"a b.cif", b"a_b.cif", b"new\nline.cif", b"bad\xff.cif", b"-x.pdb"]
    names += ["\N{GREEK SMALL LETTER ALPHA}.cif".encode(), b"n" * 251 + b".cif", b"a\tb.cif"]
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    refs = scan_folder(tmp_path)
    assert len({normalise_id(ref.id, "local") for ref in refs}) == len(names)  # valid, unlike
    assert {ref.id for ref in refs} >= {"good", "a_b"}
    paths = {ref.path for ref in refs}
    assert paths == {str(tmp_path / name.decode()) for name in names if b"\xff" not in name} | {
        None
    }
    settings = {"source": "local", "folder": str(tmp_path), "pattern": "*", "ids": []}
    assert select_entries(settings) == refs


def test_models_of_qfit_in_folders_of_their_own(tmp_path):
    for name in ("1abc", "2 bc"):
        (tmp_path / name / "qfit_ligand").mkdir(parents=True)
        (tmp_path / name / "multiconformer_model2.pdb").touch()
        (tmp_path / name / "qfit_ligand" / "multiconformer_A_301.pdb").touch()
    with pytest.raises(
        QfitLatentError, match=r"'\*/multiconformer_model2.pdb' would find 2 of the 4"
    ):
        scan_folder(tmp_path)
    refs = scan_folder(tmp_path, "*/multiconformer_model2.pdb")
    assert refs[0] == EntryRef("1abc", str(tmp_path / "1abc" / "multiconformer_model2.pdb"))
    assert normalise_id(refs[1].id, "local").startswith("2_bc-")
    (tmp_path / "1abc" / "multiconformer_model2.pdb.gz").touch()
    with pytest.raises(QfitLatentError, match=r"both are the entry 1abc"):
        scan_folder(tmp_path, "*/multiconformer*")


def test_missing_folder(tmp_path):
    with pytest.raises(QfitLatentError, match=r"none.*No such file.*entries\.folder"):
        scan_folder(tmp_path / "none")


# -- selection --------------------------------------------------------------------------------


def test_ids_list_and_search_together(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("3def\n2xyz\n")
    settings = SETTINGS | {"ids": ["4GHI"], "list": str(path)}
    assert [ref.id for ref in select_entries(settings, ["1abc"])] == [
        "1abc",
        "2xyz",
        "3def",
        "4ghi",
    ]
    with pytest.raises(QfitLatentError, match=r"2xyz was named before \(entries\.ids\)"):
        select_entries(settings | {"ids": ["2xyz"]})


def test_simulated_entries_are_those_of_the_simulator():
    settings = SETTINGS | {"source": "simulated", "ids": ["ignored"]}
    assert select_entries(settings, ["sim1", "sim0"]) == [EntryRef("sim0"), EntryRef("sim1")]


def test_local_folder_may_be_narrowed_to_ids(tmp_path):
    for name in ("a.cif", "b.cif"):
        (tmp_path / name).touch()
    settings = SETTINGS | {"source": "local", "folder": str(tmp_path)}
    assert [ref.id for ref in select_entries(settings)] == ["a", "b"]
    assert select_entries(settings | {"ids": ["b", "c"]}) == [
        EntryRef("b", str(tmp_path / "b.cif")),
        EntryRef("c"),  # becomes a row of the log: not found
    ]


def test_no_entries_is_an_error():
    with pytest.raises(QfitLatentError, match="has no entries"):
        select_entries(SETTINGS)


# -- shards -----------------------------------------------------------------------------------


def test_shards_do_not_change_between_versions_and_machines():
    assert [shard_of(entry, 140) for entry in ("1abc", "2xyz", "sim00000")] == [108, 85, 31]


@given(
    st.sets(st.from_regex(r"[0-9][a-z0-9]{3}", fullmatch=True), min_size=1),
    st.integers(1, 140),
    st.from_regex(r"[0-9][a-z0-9]{3}", fullmatch=True),
)
def test_adding_an_entry_changes_one_shard(ids, num_shards, more):
    refs = [EntryRef(entry) for entry in ids]
    before = shard_entries(refs, num_shards)
    after = shard_entries([*refs, EntryRef(more)] if more not in ids else refs, num_shards)
    assert sorted(ref for shard in before.values() for ref in shard) == sorted(refs)
    assert all(before.values())
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed <= {f"{shard_of(more, num_shards):03d}"}


def test_ten_thousand_ids_in_well_under_a_second(tmp_path):
    ids = [f"{i // 46656 + 1}{i:03x}"[:4] for i in range(4096)]
    ids = sorted(set(ids) | {f"pdb_{i:08d}" for i in range(10_000_000, 10_006_000)})
    path = tmp_path / "ids.txt"
    path.write_text("\n".join(ids))
    start = time.process_time()
    shards = shard_entries(select_entries(SETTINGS | {"list": str(path)}), 100)
    assert time.process_time() - start < 0.5
    sizes = [len(shard) for shard in shards.values()]
    assert sum(sizes) == len(ids) > 10_000
    assert len(shards) == 100
    assert max(sizes) < 1.5 * len(ids) / 100
