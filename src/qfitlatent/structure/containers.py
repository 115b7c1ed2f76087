"""The bytes of a file become plain text: unpacked within limits, UTF-8, lines that end with LF.

Compressed files are known by their first bytes, never by their names: gzip (also in several
members, or twice), bzip2, xz and zip with one file. Unix compress (.Z) and BinaryCIF are told apart
and refused with what to do.
"""

import bz2
import codecs
import gzip
import io
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from isal import isal_zlib

from qfitlatent.base.config import settings
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.tables.reasons import Reason

_MEGABYTE = 1_000_000
_MAX_LAYERS = 4
"""Compressed files in compressed files."""

_MAX_FILL_BYTES = 512
_HEAD_BYTES = 4096


class FileError(QfitLatentError):
    """A file of which nothing can be read: why, from the closed vocabulary, and in words."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class ReadingLimits:
    """What one file may cost; section ``preprocess`` of the configuration."""

    max_file_mb: float
    max_unpacked_mb: float
    max_items: int

    @property
    def unpacked_bytes(self) -> int:
        return int(self.max_unpacked_mb * _MEGABYTE)


@cache
def default_limits() -> ReadingLimits:
    """The limits of the default configuration."""
    return settings(ReadingLimits, "preprocess")


def read_bytes(path: str | Path, limits: ReadingLimits) -> bytes:
    """The bytes of a regular file.

    Raises:
        FileError: no such file, no file but a folder, FIFO or device, or larger than the limit.
    """
    try:
        # Opening a FIFO would wait for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise FileError(Reason.NOT_FOUND, f"no file {os.fspath(path)}") from None
    except (OSError, ValueError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise FileError(Reason.UNREADABLE, f"the file cannot be opened: {detail}") from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise FileError(Reason.UNREADABLE, "this is no file but a folder, a pipe or a device")
    with open(descriptor, "rb") as file:
        if found.st_size > limits.max_file_mb * _MEGABYTE:
            raise FileError(
                Reason.BEYOND_LIMIT,
                f"the file has {found.st_size / _MEGABYTE:.3g} MB; preprocess.max_file_mb allows "
                f"{limits.max_file_mb:g}",
            )
        return file.read()


def plain_text(data: bytes, limits: ReadingLimits) -> bytes:
    """UTF-8 text with lines that end with LF, whatever the bytes are packed in.

    Raises:
        FileError: damaged, too large when unpacked, or of a kind that is not read.
    """
    for _ in range(_MAX_LAYERS):
        unpack = next((f for magic, f in _PACKED.items() if data.startswith(magic)), None)
        if unpack is None:
            break
        data = unpack(data, limits)
        if len(data) > limits.unpacked_bytes:
            raise _too_large(limits)
    else:
        raise FileError(Reason.UNREADABLE, "compressed several times over; unpack it first")
    if b"dataBlocks" in data[:_HEAD_BYTES] and data[0] & 0xF0 in (0x80, 0xD0):
        # A MessagePack map: a text begins with none of these bytes.
        raise FileError(
            Reason.UNREADABLE,
            "BinaryCIF (bcif), which is not read: fetch the entry as mmCIF, or convert the file to "
            "mmCIF",
        )
    return _one_encoding(data)


def _too_large(limits: ReadingLimits) -> FileError:
    return FileError(
        Reason.BEYOND_LIMIT,
        f"more than {limits.max_unpacked_mb:g} MB when unpacked, the limit of "
        "preprocess.max_unpacked_mb",
    )


def _gunzip(data: bytes, limits: ReadingLimits) -> bytes:
    # Most files are one whole member; ISA-L takes half the time of zlib for it.
    with suppress(isal_zlib.error):  # type: ignore[arg-type]  # its stub calls it no class
        fast = isal_zlib.decompressobj(wbits=31)
        out = fast.decompress(data, limits.unpacked_bytes + 1)
        if fast.eof and not fast.unused_data:
            return out
    try:
        first = zlib.decompressobj(wbits=31)
        out = first.decompress(data, limits.unpacked_bytes + 1)
        if first.eof and not first.unused_data:
            return out
        if not first.eof:
            if len(out) > limits.unpacked_bytes:
                return out
            raise EOFError("it ends early")
        # Several members are one stream (RFC 1952); zero bytes may fill up the last block.
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as members:
            return members.read(limits.unpacked_bytes + 1)
    except EOFError:
        raise FileError(Reason.TRUNCATED, "the gzip stream is damaged: it ends early") from None
    except (zlib.error, OSError) as error:
        raise FileError(Reason.CORRUPT, f"the gzip stream is damaged: {error}") from None


def _decompressed(
    kind: str, opened: Callable[[io.BytesIO], io.BufferedIOBase]
) -> Callable[[bytes, ReadingLimits], bytes]:
    def unpack(data: bytes, limits: ReadingLimits) -> bytes:
        try:
            with opened(io.BytesIO(data)) as stream:
                return stream.read(limits.unpacked_bytes + 1)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise FileError(Reason.CORRUPT, f"the {kind} stream is damaged: {error}") from None

    return unpack


def _unzip(data: bytes, limits: ReadingLimits) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if len(names) != 1:
                raise FileError(
                    Reason.UNREADABLE,
                    f"a zip archive of {len(names)} files; unpack it, an entry is one file",
                )
            with archive.open(names[0]) as file:
                return file.read(limits.unpacked_bytes + 1)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise FileError(Reason.CORRUPT, f"the zip archive is damaged: {error}") from None


def _refuse(what: str) -> Callable[[bytes, ReadingLimits], bytes]:
    def unpack(data: bytes, limits: ReadingLimits) -> bytes:
        raise FileError(Reason.UNREADABLE, what)

    return unpack


_PACKED: dict[bytes, Callable[[bytes, ReadingLimits], bytes]] = {
    b"\x1f\x8b": _gunzip,
    b"BZh": _decompressed("bzip2", bz2.BZ2File),
    b"\xfd7zXZ\0": _decompressed("xz", lzma.LZMAFile),
    b"PK\x03\x04": _unzip,
    b"\x1f\x9d": _refuse("compressed with Unix compress (.Z); run uncompress, or gzip -d, first"),
}
"""By the first bytes."""


def _one_encoding(data: bytes) -> bytes:
    """UTF-8 without a byte-order mark, lines that end with LF."""
    if not data.isascii():
        for mark, name in _BYTE_ORDER_MARKS.items():
            if data.startswith(mark):
                data = data[len(mark) :].decode(name, errors="replace").encode()
                break
        else:
            try:
                data.decode()
            except UnicodeDecodeError:
                # Latin-1, as old programs write names of authors: any byte is a character.
                data = data.decode("latin-1").encode()
    elif b"\0" in data[:2]:
        # UTF-16 without a mark: every other byte of such text is 0.
        data = data.decode("utf-16-be" if data[:1] == b"\0" else "utf-16-le", "replace").encode()
    if b"\0" in data:
        # Tapes and old programs fill up the last block; more than that was never written.
        kept = data.rstrip(b"\0\x1a\r\n\t ")
        if b"\0" in kept or len(data) - len(kept) > _MAX_FILL_BYTES:
            raise FileError(
                Reason.CORRUPT, "bytes of value 0 where text should be: the copy is damaged"
            )
        data = kept + b"\n"
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data


_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # begins as that of UTF-16, so it is asked first
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
