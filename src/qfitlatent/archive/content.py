"""Whether what arrived is a coordinate file, and a complete one."""

import io
import os
import re
import zlib
from pathlib import Path

from qfitlatent.archive.http import Fault, plain
from qfitlatent.tables.reasons import Reason

# A structure file is known by its first line that is not a comment; of gzip this much is enough.
HEAD_BYTES = 65536


SNIFF_BYTES = 8192


_PDB_RECORDS = frozenset(
    b"ANISOU ATOM AUTHOR CAVEAT CISPEP COMPND CRYST1 DBREF EXPDTA HEADER HELIX HET HETATM HETNAM "
    b"JRNL KEYWDS LINK MASTER MDLTYP MODEL MODRES MTRIX1 NUMMDL OBSLTE ORIGX1 REMARK REVDAT SCALE1 "
    b"SEQADV SEQRES SHEET SITE SOURCE SPLIT SPRSDE SSBOND TER TITLE".split()
)


def structure_suffix(head: bytes, encoding: str | None = None) -> str:
    """``.cif`` or ``.pdb``, with ``.gz`` where the bytes are gzip, by content alone.

    The header Content-Encoding is not believed: servers label a .cif.gz so, and some label plain
    text so. It is only named in the message when the content is neither.

    Args:
        head: the first bytes of the file, at most ``HEAD_BYTES``.
    Raises:
        Fault: an empty body, a web page, or anything else.
    """
    text, suffix = head, ""
    if head.startswith(b"\x1f\x8b"):
        suffix = ".gz"
        try:
            text = zlib.decompressobj(31).decompress(head[:SNIFF_BYTES], HEAD_BYTES)
        except zlib.error as error:
            raise Fault(Reason.CORRUPT, f"the gzip stream is damaged: {error}") from error
    for line in io.BytesIO(text.removeprefix(b"\xef\xbb\xbf")):
        if not line.strip() or line.startswith(b"#"):
            continue
        if line[:5].lower() == b"data_":
            return ".cif" + suffix
        if line[:6].strip() in _PDB_RECORDS:
            return ".pdb" + suffix
        break
    if not text.strip():
        what = "an empty body" if not head or suffix else "blanks"
        reason = Reason.TRUNCATED if suffix else Reason.BAD_RESPONSE
        raise Fault(reason, f"{what} instead of a structure")
    start = text[:200].decode("latin-1").strip()
    page = start.startswith("<")
    shown = re.sub(r"[^\x20-\x7e]+", " ", start)[:60]
    label = f", sent with Content-Encoding {encoding}" if encoding else ""
    what = "a web page" if page else "something that is neither mmCIF nor PDB"
    raise Fault(Reason.BAD_RESPONSE, f"{what}{label}, beginning {shown!r}")


class GzipCheck:
    """Reads a gzip stream as it arrives, to its end, where its checksum and length are compared."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(31)

    def feed(self, piece: bytes) -> None:
        """
        Raises:
            Fault: damaged.
        """
        try:
            while piece:
                if self._member.eof:  # a file may have several members, one after the other
                    self._member = zlib.decompressobj(31)
                self._member.decompress(piece)
                piece = self._member.unused_data
        except zlib.error as error:
            raise Fault(Reason.CORRUPT, f"the gzip stream is damaged: {error}") from error

    def close(self) -> None:
        """
        Raises:
            Fault: truncated.
        """
        if not self._member.eof:
            raise Fault(Reason.TRUNCATED, "the gzip stream ends too early")


def check_text(path: Path, suffix: str) -> None:
    """Whether plain text of unknown length has a proper end; the best that can be done for it.

    Raises:
        Fault: the last line is not finished, or an mmCIF file does not parse.
    """
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 100))
        end = file.read()
    if not end.endswith(b"\n") and end.splitlines()[-1].strip() != b"END":
        raise Fault(Reason.TRUNCATED, "the last line is not finished")
    if suffix == ".cif":
        import gemmi  # only here: planning and most downloads do not need it

        try:
            gemmi.cif.read(str(path))
        except (ValueError, RuntimeError) as error:
            raise Fault(Reason.TRUNCATED, f"mmCIF that does not parse: {plain(error)}") from error
