"""Files that are there completely or not at all, and what their names say."""

import os
import time

import pytest

from qfitlatent.base.files import STALE_AGE_S, atomic_path, structure_stem, sweep


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
