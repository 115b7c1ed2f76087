"""Coordinate files gone wrong: simulated entries, changed as programs, disks and people do.

``mutate(data, rng)`` changes the bytes of a PDB or mmCIF file a few times; the same generator gives
the same file. Nothing here knows what the package makes of a change.
"""

import bz2
import gzip
import lzma
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import gemmi

NUMBERS = (
    "nan", "-nan", "inf", "-inf", "1e39", "-1e308", "1e999", "********", "?", ".", "", "0",
    "-0.000", "99999.999", "1.0.0", "12,5", "0x1A", "1_000", "٣", "²", "--1.0", "+5.000",
    "1e-400", "9" * 40,
)  # fmt: skip
NAMES = (
    "HOH", "ZN", "GOL", "MSE", "UNK", "ala", "HID", "HSD", "CYX", "NALA", "CLEU", "DAL", "A", "DA",
    "", "?", "LONGNAME", "SEP", "ACE", "NH2", "\x00", "é", "'", '"', "A B", "_", "#", ";", "data_",
)  # fmt: skip
LINES = (
    "TER", "END", "ENDMDL", "MODEL        1", "MODEL", "HETATM", "ATOM", "REMARK 999 ****", "",
    "ANISOU", "data_second", "loop_", "#", ";", "stop_", "save_x", "_atom_site.id 1",
    "score: -31.2", "ATOMIC CONTACT ENERGY -3.25",
    "HEADER    HYDROLASE                               01-JAN-00   1ABC",
)  # fmt: skip
SIMULATED = {
    "num_entries": 6,
    "num_families": 3,
    "min_residues": 20,
    "max_residues": 30,
    "num_waters": 4,
}


class Files(tuple[bytes, ...]):
    """Contents of files; a test that fails does not print them."""

    def __repr__(self) -> str:
        return f"{len(self)} files"


@cache
def originals(folder: Path) -> Files:
    """Simulated entries as mmCIF and as PDB files in turn, plain."""
    from qfitlatent.base import config
    from qfitlatent.simulate.entry import write_entries
    from qfitlatent.simulate.settings import SimulatorSettings, entry_ids

    settings = config.settings(SimulatorSettings, "simulate", SIMULATED)
    texts: list[bytes] = []
    for path in write_entries(entry_ids(settings), folder, settings, 1):
        texts.append(gzip.decompress(path.read_bytes()))
        texts.append(gemmi.read_structure(str(path)).make_pdb_string().encode())
    return Files(texts)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to four changes of a file, and now and then another container."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice(CHANGES)(data, rng)
    if rng.random() < 0.15:
        data = rng.choice(CONTAINERS)(data, rng)
    return data


# --- Bytes --------------------------------------------------------------------------------------


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 8, 80, 4000)))


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(min(len(changed), rng.choice((1, 20)))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _drop(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:end] + data[start:end] + data[end:]


def _blot(data: bytes, rng: random.Random) -> bytes:
    """A block that the disk lost."""
    start, end = _span(data, rng)
    return data[:start] + rng.choice((b"\0", b" ", b"\xff", b"*")) * (end - start) + data[end:]


def _line_ends(data: bytes, rng: random.Random) -> bytes:
    return data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"", b"\x0c\n", b" \n")))


def _encoding(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("latin-1")
    kind = rng.choice(("utf-16", "utf-16-be", "utf-8-sig", "utf-32", "latin-1", "cp037"))
    return ("Jürgen\n" + text if kind == "latin-1" else text).encode(kind, "replace")


# --- Lines and columns --------------------------------------------------------------------------


def _lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(6):
        case 0:
            lines[i], lines[j] = lines[j], lines[i]
        case 1:
            lines.insert(i, lines[j])
        case 2:
            del lines[i]
        case 3:
            lines.insert(i, rng.choice(LINES).encode())
        case 4:
            first, last = sorted((i, j))
            block = lines[first:last]
            rng.shuffle(block)
            lines[first:last] = block
        case 5:
            lines[i] = lines[i].swapcase()
    return b"\n".join(lines)


def _atom_lines(data: bytes) -> tuple[list[bytes], list[int]]:
    lines = data.split(b"\n")
    return lines, [i for i, line in enumerate(lines) if line[:6] in (b"ATOM  ", b"HETATM")]


FIELDS = (
    (6, 11), (12, 16), (16, 17), (17, 20), (17, 21), (21, 22), (22, 26), (26, 27), (30, 38),
    (38, 46), (46, 54), (54, 60), (60, 66), (72, 76), (76, 78), (78, 80),
)  # fmt: skip


def _pdb_field(data: bytes, rng: random.Random) -> bytes:
    """One field of one, a few or all atoms holds something else."""
    lines, atoms = _atom_lines(data)
    if not atoms:
        return _flip(data, rng)
    first, last = rng.choice(FIELDS)
    value = rng.choice((*NUMBERS, *NAMES, *"ABC 1")).encode()[: last - first]
    aligned = value.rjust(last - first) if rng.random() < 0.7 else value.ljust(last - first)
    start = rng.randrange(len(atoms))
    for i in atoms[start : start + rng.choice((1, 7, 40, len(atoms)))]:
        lines[i] = lines[i][:first] + aligned + lines[i][last:]
    return b"\n".join(lines)


def _pdb_shift(data: bytes, rng: random.Random) -> bytes:
    lines, atoms = _atom_lines(data)
    if not atoms:
        return _drop(data, rng)
    at, start = rng.randrange(80), rng.randrange(len(atoms))
    for i in atoms[start : start + rng.choice((1, 10, len(atoms)))]:
        lines[i] = lines[i][:at] + (
            lines[i][at + 1 :] if rng.random() < 0.5 else b" " + lines[i][at:]
        )
    return b"\n".join(lines)


def _cif_token(data: bytes, rng: random.Random) -> bytes:
    """One value of one, a few or all rows holds something else, or is not there."""
    lines = data.split(b"\n")
    rows = [i for i, line in enumerate(lines) if len(line.split()) > 12]
    if not rows:
        return _repeat(data, rng)
    column = rng.randrange(len(lines[rows[0]].split()))
    value = rng.choice((*NUMBERS, *NAMES, "'A'", '" "', "?", ".", "'it''s'")).encode()
    start = rng.randrange(len(rows))
    for i in rows[start : start + rng.choice((1, 7, 40, len(rows)))]:
        tokens = lines[i].split()
        if column < len(tokens):
            tokens[column] = value
        lines[i] = b" ".join(tokens)
    return b"\n".join(lines)


def _cif_column(data: bytes, rng: random.Random) -> bytes:
    """A column of the atoms leaves, comes twice or changes its name."""
    lines = data.split(b"\n")
    tags = [i for i, line in enumerate(lines) if line.startswith(b"_atom_site.")]
    if not tags:
        return _lines(data, rng)
    i = rng.choice(tags)
    match rng.randrange(4):
        case 0:
            lines[i] = lines[i].upper()
        case 1:
            lines[i] = lines[i].strip() + b"_x"
        case 2:
            lines.insert(i, lines[i])
        case 3:
            position = i - tags[0]
            del lines[i]
            for row, line in enumerate(lines):
                tokens = line.split()
                if len(tokens) == len(tags):
                    lines[row] = b" ".join(tokens[:position] + tokens[position + 1 :])
    return b"\n".join(lines)


CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _cut, _drop, _repeat, _blot, _line_ends, _encoding, _lines, _lines, _pdb_field,
    _pdb_field, _pdb_field, _pdb_shift, _cif_token, _cif_token, _cif_token, _cif_column,
)  # fmt: skip
CONTAINERS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    lambda data, rng: gzip.compress(data, mtime=0),
    lambda data, rng: gzip.compress(gzip.compress(data, mtime=0), mtime=0),
    lambda data, rng: _cut(gzip.compress(data, mtime=0), rng),
    lambda data, rng: _flip(gzip.compress(data, mtime=0), rng),
    lambda data, rng: gzip.compress(data, mtime=0) + rng.randbytes(rng.choice((1, 100))),
    lambda data, rng: bz2.compress(data),
    lambda data, rng: lzma.compress(data),
)
