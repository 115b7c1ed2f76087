"""Whether what arrives is a coordinate file, the right one, and complete."""

import io
import os
import re
import threading
import zlib
from pathlib import Path

from qfitlatent.archive.entries import pdb_id
from qfitlatent.archive.http import Fault, plain, too_large
from qfitlatent.tables.reasons import Reason

# So much of a file, unpacked, tells its format and its id; they stand in the first lines.
HEAD_BYTES = 65536

# zlib copies what is left of its input behind each member of a gzip file: it gets little at a time.
_SLICE_BYTES = 16384
_PDB_RECORDS = frozenset(
    b"ANISOU ATOM AUTHOR CAVEAT CISPEP COMPND CRYST1 DBREF EXPDTA FTNOTE HEADER HELIX HET HETATM "
    b"HETNAM JRNL KEYWDS LINK MASTER MDLTYP MODEL MODRES MTRIX1 NUMMDL OBSLTE ORIGX1 REMARK REVDAT "
    b"SCALE1 SEQADV SEQRES SHEET SITE SOURCE SPLIT SPRSDE SSBOND TER TITLE USER".split()
)

_PDB_ATOM = re.compile(rb"^(ATOM  |HETATM)[^\n]{24}", re.MULTILINE | re.IGNORECASE)


class Unpacker:
    """Reads a file as it arrives, gzip to its end, where checksum and length are compared.

    Attributes:
        head: the first bytes, unpacked: ``HEAD_BYTES`` or all that has arrived.
        packed: whether the bytes are gzip.
    """

    def __init__(self, max_bytes: float) -> None:
        self.head, self.packed = bytearray(), False
        self._start = b""
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._member: zlib._Decompress | None = None

    def feed(self, piece: bytes) -> None:
        """
        Raises:
            Fault: damaged, or larger than ``max_bytes``.
        """
        if len(self._start) < 2:  # of this the format is told
            piece, self._start = self._start + piece, (self._start + piece)[:2]
            self.packed = self._start == b"\x1f\x8b"
            if len(self._start) < 2:
                return
        if not self.packed:
            self._take(piece)
            return
        try:
            for start in range(0, len(piece), _SLICE_BYTES):
                self._unpack(piece[start : start + _SLICE_BYTES])
        except zlib.error as error:
            raise Fault(Reason.CORRUPT, f"the gzip stream is damaged: {error}") from error

    def _unpack(self, data: bytes) -> None:
        while True:
            if self._member is None or self._member.eof:
                data = data.lstrip(b"\0") if self._member else data  # padding of tapes
                if not data:
                    return
                self._member = zlib.decompressobj(31)
            out = self._member.decompress(data, _SLICE_BYTES * 16)
            self._take(out)
            data = self._member.unused_data or self._member.unconsumed_tail
            if not data and len(out) < _SLICE_BYTES * 16:
                return

    def _take(self, text: bytes) -> None:
        self.head += text[: max(0, HEAD_BYTES - len(self.head))]
        self._num_bytes += len(text)
        if self._num_bytes > self._max_bytes:
            raise too_large(self._max_bytes, " unpacked")

    def close(self) -> None:
        """
        Raises:
            Fault: truncated.
        """
        if self.packed and not (self._member and self._member.eof):
            raise Fault(Reason.TRUNCATED, "the gzip stream ends too early")


def structure_suffix(text: bytes, packed: bool = False, encoding: str | None = None) -> str:
    """``.cif`` or ``.pdb``, with ``.gz`` where the bytes are gzip, by content alone.

    A structure file is known by its first line that is not a comment; PDB format also by an atom,
    behind whatever a program wrote above. The header Content-Encoding is not believed: servers
    label a .cif.gz so, and some label plain text so. It is only named in the message when the
    content is neither.

    Args:
        text: the first bytes of the file, unpacked.
    Raises:
        Fault: an empty body, a web page, or anything else.
    """
    suffix = ".gz" if packed else ""
    for line in io.BytesIO(text.removeprefix(b"\xef\xbb\xbf")):
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        if line.lstrip()[:5].lower() == b"data_":
            return ".cif" + suffix
        if line[:6].strip().upper() in _PDB_RECORDS or _PDB_ATOM.search(text):
            return ".pdb" + suffix
        break
    if not text.strip():
        what = "an empty body" if not text else "blanks"
        reason = Reason.TRUNCATED if packed else Reason.BAD_RESPONSE
        raise Fault(reason, f"{what} instead of a structure")
    start = text[:200].decode("latin-1").strip()
    shown = re.sub(r"[^\x20-\x7e]+", " ", start)[:60]
    label = f", sent with Content-Encoding {plain(encoding)}" if encoding else ""
    what = "a web page" if start.startswith("<") else "something that is neither mmCIF nor PDB"
    raise Fault(Reason.BAD_RESPONSE, f"{what}{label}, beginning {shown!r}")


def check_id(text: bytes, suffix: str, entry: str) -> None:
    """Whether a file says that it is another entry of the PDB than the one asked for.

    mmCIF says it in ``_entry.id``, or else in the name of its first block; PDB in columns 63-66 of
    HEADER. What is no PDB id, there or in ``entry``, says nothing: many programs write a title.

    Raises:
        Fault: it is another entry.
    """
    if suffix.startswith(".cif"):
        found = _ENTRY_ID.search(text) or _BLOCK_NAME.search(text)
        said = found[1] if found else b""
    else:
        header = re.search(rb"^HEADER[^\n]{56}([^\n]{4})", text, re.MULTILINE)
        said = header[1] if header else b""
    stated, asked = (pdb_id(name) for name in (said.decode("latin-1").strip("'\""), entry))
    if stated and asked and stated != asked:
        raise Fault(Reason.WRONG_ENTRY, f"the file says that it is the entry {stated}")


_ENTRY_ID = re.compile(rb"^[ \t]*_entry\.id\s+(\S{1,20})", re.MULTILINE | re.IGNORECASE)
_BLOCK_NAME = re.compile(rb"^[ \t]*data_(\S{1,20})", re.MULTILINE | re.IGNORECASE)


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
            with _PARSER:
                # As read(), but for the search for duplicates, which is quadratic in the blocks.
                document = gemmi.cif.Document()
                document.parse_file(str(path))
                document.check_for_missing_values()
        except (ValueError, RuntimeError) as error:
            raise Fault(Reason.TRUNCATED, f"mmCIF that does not parse: {plain(error)}") from error


_PARSER = threading.Lock()
"""A parsed file takes several times its size in memory: one at a time, whatever arrives at once."""
