"""What a file is, whose it is, and whether it is all there: by its bytes alone."""

import gzip
import tracemalloc

import pytest

from helpers.archive_run import PDB
from helpers.archive_server import gzipped, mmcif
from qfitlatent.archive import content, http
from qfitlatent.tables.reasons import Reason


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
    assert suffix(b"USER  MOD reduce.3.23\n") == ".pdb"
    assert suffix(b"MADE BY A PROGRAM\n" + ATOM) == ".pdb"
    assert suffix(ATOM.lower()) == ".pdb"
    assert suffix(b"  # comment\n  data_x") == ".cif"
    assert suffix(b"REMARK 1\n", packed=True) == ".pdb.gz"
    for other in (b"", b"  \n", b"<html>", b"{}", b"\x00\x01", b"database", b"\x1f\x8b\x08"):
        with pytest.raises(http.Fault):
            suffix(other)


ATOM = b"ATOM      1  CA  ALA A   1      11.1  12.2  13.3  1.0 20.0\n"


def header(entry: bytes) -> bytes:
    return b"HEADER    HYDROLASE                               01-JAN-01   " + entry + b"\n" + ATOM


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        (b"data_2XYZ\n", "2xyz"),
        (b"data_1ABC\n_entry.id   2XYZ\n", "2xyz"),
        (b"data_any\nloop_\n_entry.id\n'2XYZ'\n", "2xyz"),
        (b"data_x\n_ENTRY.ID pdb_00002xyz\n", "2xyz"),
        (header(b"2XYZ"), "2xyz"),
        (b"REMARK\n" + header(b"2XYZ"), "2xyz"),
        (b"data_1abc_final\n_entry.id 1ABC\n", None),
        (b"data_sim00001\n", None),
        (b"data_x\n_entry.id ?\n", None),
        (b"data_\n_cell.entry_id 2XYZ\n", None),
        (header(b"    "), None),
        (header(b"1ABC"), None),
        (b"HEADER\n" + ATOM, None),
    ],
)
def test_a_file_of_another_entry_says_so(text, stated):
    suffix = content.structure_suffix(text)
    for asked in ("1abc", "pdb_10001ext"):
        if stated or (asked != "1abc" and b"1ABC" in text):
            with pytest.raises(http.Fault, match=stated) as fault:
                content.check_id(text, suffix, asked)
            assert fault.value.reason == Reason.WRONG_ENTRY
        else:
            content.check_id(text, suffix, asked)
    content.check_id(text, suffix, "My-model.2")


@pytest.mark.parametrize("members", [1, 50_000])
def test_unpacking_is_bounded_in_memory_and_in_size(members):
    """A bomb of 100 MB, and a file of many members, of which zlib copies the rest each time."""
    packed = gzip.compress(bytes(100_000_000)) if members == 1 else gzip.compress(b"") * members
    tracemalloc.start()
    unpacker = content.Unpacker(50_000_000)
    if members == 1:
        with pytest.raises(http.Fault, match="50 MB unpacked") as fault:
            unpacker.feed(packed)
        assert fault.value.reason == Reason.TOO_LARGE
    else:
        unpacker.feed(packed)
        unpacker.close()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
