"""What a file is, whose it is, and whether it is all there: by its bytes alone."""

import pytest

from helpers.archive_run import PDB
from helpers.archive_server import gzipped, mmcif
from qfitlatent.archive import content, http


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        (PDB, True),
        (PDB.rstrip(), True),
        (PDB[:-4], True),
        (PDB[:40], False),
        (mmcif("1abc"), True),
        (mmcif("1abc")[:-30], False),
        (b"data_x\nloop_\n_a.b\n_a.c\n1\n", False),
    ],
)
def test_end_of_plain_text(tmp_path, text, whole):
    path = tmp_path / "file"
    path.write_bytes(text)
    suffix = content.structure_suffix(text)
    if whole:
        content.check_text(path, suffix)
    else:
        with pytest.raises(http.Fault):
            content.check_text(path, suffix)


def test_gzip_of_several_members_and_every_cut_of_it():
    data = gzipped(mmcif("1abc")) + gzipped(b"# more\n")

    def check(pieces):
        unpacker = content.Unpacker(1e6)
        for piece in pieces:
            unpacker.feed(piece)
        unpacker.close()
        assert unpacker.packed
        assert unpacker.head == mmcif("1abc") + b"# more\n"

    check([data])
    check([data + bytes(3)])  # padding
    for size in (1, 7):
        check([data[i : i + size] for i in range(0, len(data), size)])
    first = len(gzipped(mmcif("1abc")))
    for end in range(2, len(data)):
        if end != first:  # that is a whole file of one member
            with pytest.raises(http.Fault):
                check([data[:end]])


def test_content_decides_what_a_file_is():
    suffix = content.structure_suffix
    assert suffix(b"\xef\xbb\xbf# comment\n\n  \ndata_1ABC\n") == ".cif"
    assert suffix(b"DATA_x") == ".cif"
    assert suffix(b"CRYST1   10.0") == ".pdb"
    assert suffix(b"REMARK 1\n", packed=True) == ".pdb.gz"
    for other in (b"", b"  \n", b"<html>", b"{}", b"\x00\x01", b"database", b"\x1f\x8b\x08"):
        with pytest.raises(http.Fault):
            suffix(other)
