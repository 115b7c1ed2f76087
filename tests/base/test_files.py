"""Files that are there completely or not at all, and what their names say."""

import os
import time

import pytest

from qfitlatent.base.files import (
    STALE_AGE_S,
    atomic_path,
    find_in_folder,
    structure_id,
    structure_stem,
    sweep,
    where_structures_are,
)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("1abc.cif", "1abc"),
        ("1abc.v2.cif.gz", "1abc.v2"),
        ("MODEL.PDB.GZ", "MODEL"),
        ("pdb1abc.ent", "pdb1abc"),
        ("a.mmcif", "a"),
        (".cif", None),
        ("1abc.gz", None),
        ("1abc.cif.txt", None),
    ],
)
def test_the_id_in_a_file_name(name, stem):
    assert structure_stem(name) == stem


def test_what_killed_processes_left_is_swept(tmp_path):
    """Whatever their writer made of the name; what is young or not ours stays."""
    inside = tmp_path / "deep" / "er"
    inside.mkdir(parents=True)
    left = []
    for folder in (tmp_path, inside):
        with atomic_path(folder / "1abc.cif.gz") as temporary:
            left.append(temporary)
    others = [tmp_path / "mine.tmp", tmp_path / ".swap.tmp", inside / "1abc.cif.gz"]
    for path in [*left, *others]:
        path.touch()
    sweep(tmp_path, deep=True)
    assert all(path.exists() for path in left)
    for path in [*left, *others]:
        os.utime(path, (time.time() - STALE_AGE_S - 60,) * 2)
    sweep(tmp_path)
    assert [path.exists() for path in left] == [False, True]
    sweep(tmp_path, deep=True)
    assert not left[1].exists()
    assert all(path.exists() for path in others)
    sweep(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("path", "entry"),
    [
        ("a/1abc.pdb", "1abc"),
        ("a/1abc.cif.gz", "1abc"),
        ("pdb1abc.ent.gz", "pdb1abc"),
        ("1abc_qFit.v2.PDB", "1abc_qFit.v2"),
        ("runs/1abc/multiconformer_model2.pdb", "1abc"),
        ("runs/1abc/multiconformer_model.pdb.gz", "1abc"),
        ("runs/1abc/../2abc/multiconformer_model2.pdb", "2abc"),
    ],
)
def test_a_file_alone_has_the_id_of_its_name_or_of_the_folder_of_a_qfit_model(path, entry):
    assert structure_id(path) == entry


QFIT = (
    *("1abc/multiconformer_model2.pdb", "1abc/1abc_qFit.pdb", "1abc/1abc.pdb", "1abc/map.mtz"),
    *("2abc/multiconformer_model2.pdb", "2abc/qfit_ligand/multiconformer_A_301.pdb"),
    *("old/2abc/multiconformer_model2.pdb", "old/2abc/final.pdb", "top.pdb", ".hidden/x.pdb"),
)


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("*", {"top"}),
        ("*/multiconformer_model2.pdb", {"1abc", "2abc"}),
        ("**/multiconformer_model2.pdb", {"1abc", "2abc", "old_2abc"}),
        ("*/*_qFit.pdb", {"1abc_qFit"}),
        ("**/final.pdb", {"old_2abc"}),
        ("*/*/*.pdb", {"2abc_qfit_ligand_multiconformer_A_301", "old_2abc", "old_2abc_final"}),
        ("[0-9]abc/[0-9]abc.*", {"1abc"}),
        ("*/*.cif", set()),
    ],
)
def test_patterns_find_models_in_folders_and_ids_come_from_there(tmp_path, pattern, ids):
    for name in QFIT:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_in_folder(tmp_path, pattern)
    assert set(found.values()) == ids
    assert len(found) == len(ids)
    assert list(found) == sorted(found)


def test_a_pattern_that_finds_nothing_is_told_of_one_that_does(tmp_path):
    assert "files end in .cif" in where_structures_are(tmp_path)
    for name in ("1abc/multiconformer_model2.pdb", "2abc/multiconformer_model2.pdb", "x/y.cif"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    said = where_structures_are(tmp_path)
    assert "the pattern '*/multiconformer_model2.pdb' would find 2 of the 3" in said


def test_links_that_lead_in_a_circle_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.pdb").touch()
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert set(find_in_folder(tmp_path, "**/*.pdb").values()) == {"a_x"}
