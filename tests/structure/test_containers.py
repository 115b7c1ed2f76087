"""Files are unpacked within limits, whatever they are packed in; anything else is one sentence."""

import bz2
import dataclasses
import gzip
import io
import lzma
import os
import zipfile

import pytest

from qfitlatent.chemistry.residues import parent_name, standard_name
from qfitlatent.structure.containers import FileError, default_limits, plain_text, read_bytes
from qfitlatent.tables.reasons import Reason

TEXT = b"data_x\n_cell.length_a 10.5\n"


def zipped(data: bytes, *names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("x.cif",):
            archive.writestr(name, data)
    return out.getvalue()


PACKERS = {
    "gzip": gzip.compress,
    "members": lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]) + b"\0" * 40,
    "twice": lambda data: gzip.compress(gzip.compress(data)),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": zipped,
}


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_unpacks_to_the_same_text_and_no_more_than_allowed(pack):
    limits = default_limits()
    assert plain_text(pack(TEXT), limits) == TEXT
    small = dataclasses.replace(limits, max_unpacked_mb=0.01)
    with pytest.raises(FileError, match=r"preprocess\.max_unpacked_mb") as error:
        plain_text(pack(b"#" * 1_000_000), small)
    assert error.value.reason is Reason.BEYOND_LIMIT


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_a_stream_that_ends_early_is_no_text(pack):
    data = pack(os.urandom(5000))
    with pytest.raises(FileError, match="damaged"):
        plain_text(data[: len(data) // 3], default_limits())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_one_encoding_and_one_end_of_line(encoding, end):
    data = TEXT.decode().replace("\n", end).encode(encoding)
    assert plain_text(data, default_limits()) == TEXT


def test_what_cannot_be_read_is_a_sentence(tmp_path):
    limits = default_limits()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 2000)
    tiny = dataclasses.replace(limits, max_file_mb=0.001)
    for name, allowed, words in (
        ("pipe", limits, "no file but"),
        (".", limits, "no file but"),
        ("absent", limits, "no file"),
        ("large", tiny, r"preprocess\.max_file_mb"),
    ):
        with pytest.raises(FileError, match=words):
            read_bytes(tmp_path / name, allowed)
    for data, words in (
        (b"\x1f\x9d\x90" + TEXT, "uncompress"),
        (b"\x83\xa7encoder\xa1x\xaadataBlocks\x90", "BinaryCIF"),
        (TEXT + b"\0" * 4096 + TEXT, "damaged"),
        (zipped(TEXT, "a.cif", "b.cif"), "2 files"),
    ):
        with pytest.raises(FileError, match=words):
            plain_text(data, limits)


@pytest.mark.parametrize(
    ("names", "standard"),
    [
        ("HID HIE HIP HSD HSE HSP HISD hie CHIE NHID", "HIS"),
        ("CYX CYM CYS2 NCYX", "CYS"),
        ("ASH ASPH", "ASP"),
        ("GLH GLUH", "GLU"),
        ("LYN LYSH", "LYS"),
        ("NALA CALA ala Ala", "ALA"),
    ],
)
def test_names_of_force_fields_are_their_standard_residue(names, standard):
    assert {standard_name(name) for name in names.split()} == {standard}


@pytest.mark.parametrize("name", ["NAL", "NLE", "CAS", "NME", "SEP", "HOH", "NZZZ"])
def test_components_of_their_own_stay(name):
    assert standard_name(name) == name
    assert parent_name(name) == ""
