"""The PDB format (wwPDB v3.3, and earlier) as raw sites.

Columns: name 13-16, altloc 17, residue 18-20 (18-21 where a force field has four letters), chain 22
(21-22 where a program has two), number 23-26, insertion code 27, coordinates 31-54, occupancy
55-60, B 61-66, segment 73-76. A line whose first six columns are no record name is no record.

- The first model that has atoms is read. Atoms behind END are of the same model, unless they repeat
  residues: then they are another frame.
- A segment identifier tells chains apart where the atoms of a residue agree in it. (Old files have
  the entry code there, the same throughout; others have partial charges.)
- Of a line whose coordinates are no numbers the atom is missing. Where columns are shifted the file
  is refused: numbers of the wrong columns are worse than none.
"""

import re

import gemmi
import numpy as np

from qfitlatent.chemistry.residues import TOKEN, is_water, standard_name
from qfitlatent.structure.containers import FileError
from qfitlatent.structure.sites import Names, Sites, as_float32, parse_fixed
from qfitlatent.tables.reasons import Reason

_WIDTH = 80
_BLANK = ord(" ")


def _record(name: str) -> int:
    """The first six characters of a line as the integer that they are in memory."""
    return int.from_bytes(name.ljust(6).encode(), "little")


_ATOM, _HETATM, _TER, _END = map(_record, ("ATOM", "HETATM", "TER", "END"))
_MODEL, _ENDMDL = map(_record, ("MODEL", "ENDMDL"))
_SIX, _FOUR = 0xFFFF_FFFF_FFFF, 0xFFFF_FFFF
_HOH = int.from_bytes(b"HOH ", "little")

_MAX_UNREADABLE = 0.1
"""Share of atoms without coordinates above which columns are taken to be shifted."""


def read_pdb(text: bytes, *, with_waters: bool = True) -> Sites:
    """The atoms of the first model; without most waters where these are not asked for.

    Raises:
        FileError: no atoms, or columns that do not hold what they should.
    """
    if not text.isascii():
        # A column is a character, so that each must be one byte.
        text = text.decode().encode("latin-1", errors="replace")
    end = _ends_of_lines(text)
    begin = np.append(0, end[:-1] + 1)
    if begin[-1] + _WIDTH > len(text):
        text += b" " * _WIDTH  # so that each line can be read to its last column
    head = _lines(text, begin, end, 8)
    if (head[:, 0] >= ord("a")).any():
        head -= 32 * ((head - np.uint8(ord("a"))) < 26).astype(np.uint8)
    record = head.view("<u8")[:, 0] & _SIX
    is_het, is_atom = record == _HETATM, (record & _FOUR) == (_ATOM & _FOUR)
    for digit in (head[:, 4], head[:, 5]):
        # Serial numbers of more than five digits begin farther left.
        is_atom &= (digit == _BLANK) | ((digit - np.uint8(ord("0"))) < 10)
    is_atom |= is_het

    atoms = np.flatnonzero(is_atom)
    if len(atoms) == 0:
        raise FileError(Reason.EMPTY, _why_no_atoms(text))
    first = atoms[0]
    others = np.flatnonzero(~is_atom)
    record = record[others]
    models = others[(record == _MODEL) | (record == _ENDMDL)]
    num_models = 1
    if len(models):
        model = np.searchsorted(models, atoms)
        num_models += int(np.count_nonzero(model[1:] != model[:-1]))
        atoms = atoms[model == model[0]]
    if not with_waters:
        het = np.flatnonzero(is_het[atoms])
        waters = het[_windows(text, "<u4")[begin[atoms[het]] + 17] == _HOH]
        if len(waters) < len(atoms):
            atoms = np.delete(atoms, waters)
    lines = _lines(text, begin[atoms], end[atoms], _WIDTH)
    ends = others[record == _END]
    frames = np.searchsorted(ends, atoms[[0, -1]])
    if frames[0] < frames[1]:
        kept = _first_frame(lines, np.searchsorted(ends, atoms) - frames[0])
        num_models += int(not kept.all())
        atoms, lines = atoms[kept], lines[kept]
    is_last = (record == _TER) | (record == _END)
    closed = np.append(record[is_last] == _TER, False)
    sites = _sites(lines, is_het[atoms], atoms, others[is_last], closed)
    sites.header = _header(text, begin[:first], end[:first]) | {"num_models": num_models}
    return sites


def _ends_of_lines(text: bytes) -> np.ndarray:
    is_end = np.frombuffer(text, dtype=np.uint8) == ord("\n")
    width = text.find(b"\n") + 1
    if width * np.count_nonzero(is_end) == len(text) and is_end[width - 1 :: width].all():
        return np.arange(width - 1, len(text), width)  # as in most files, of one width
    end = np.flatnonzero(is_end)
    return end if text.endswith(b"\n") else np.append(end, len(text))


def _windows(text: bytes, kind: str) -> np.ndarray:
    """What stands at each place of a text, of a numpy type, without copying any of it."""
    dtype = np.dtype(kind)
    return np.ndarray((len(text) - dtype.itemsize + 1,), dtype, text, strides=(1,))


def _lines(text: bytes, begin: np.ndarray, end: np.ndarray, width: int) -> np.ndarray:
    """(n, width) the first characters of lines, blank beyond their ends."""
    found = _windows(text, f"V{width}")[begin].view(np.uint8).reshape(-1, width)
    length = end - begin
    for short in np.unique(length[length < width]).tolist():
        found[length == short, short:] = _BLANK
    return found


def _columns(lines: np.ndarray) -> np.ndarray:
    """(width, n) contiguous, from (n, width); block by block, since then it stays in the cache."""
    found = np.empty(lines.shape[::-1], dtype=np.uint8)
    for i in range(0, len(lines), 512):
        found[:, i : i + 512] = lines[i : i + 512].T
    return found


def _text(characters: np.ndarray) -> np.ndarray:
    """(n,) bytes from characters (n, width)."""
    return np.ascontiguousarray(characters).view(f"S{characters.shape[1]}")[:, 0]


def _first_frame(lines: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """(A,) whether an atom is of the first frame: what stands behind END and is there before."""
    key = _text(np.concatenate([lines[:, 12:27], lines[:, 72:76]], axis=1))
    kept = frames == 0
    for frame in range(1, frames[-1] + 1):
        atoms = frames == frame
        if atoms.any() and not np.isin(key[atoms], key[kept]).any():
            kept |= atoms
    return kept


def _sites(
    lines: np.ndarray, is_het: np.ndarray, at: np.ndarray, ends: np.ndarray, closed: np.ndarray
) -> Sites:
    """lines (A,80) of the atoms, at (A,) which lines these are, ends (E,) the lines TER and END,
    closed (E+1,) whether it is TER."""
    _join_left_names(lines)
    numbers = _columns(lines[:, 30:66])
    coordinates = numbers[:24].reshape(3, 8, -1).transpose(1, 0, 2)
    position = parse_fixed(coordinates, 3)
    # Right-justified, so that a number that was cut is none.
    if (is_cut := coordinates[-1] == _BLANK).any():
        position[is_cut] = np.nan
    _check_columns(lines, position, at)
    occupancy, b_factor = parse_fixed(numbers[24:].reshape(2, 6, -1).transpose(1, 0, 2), 2)
    missing = np.isnan(occupancy)
    if missing.any():  # blank is 1, as the format has it; anything else is no number
        occupancy[missing & (numbers[24:30] == _BLANK).all(axis=0)] = 1.0

    eight = lines.view("<u8")  # characters in the order of a number's bytes, the first is lowest
    changed = _differs(eight[:, 2] >> 8) | _differs(eight[:, 3] & 0xFF_FFFF)  # columns 18-27
    in_segment = _differs(eight[:, 9] & _FOUR)
    # Otherwise the columns hold something of each atom, or of the whole file.
    has_segments = 2 * np.count_nonzero(in_segment & ~changed) <= np.count_nonzero(in_segment) > 0
    if has_segments:
        changed |= in_segment
    behind = np.searchsorted(at, ends)
    changed[behind[(behind > 0) & (behind < len(at))] - 1] = True
    start = np.append(0, np.flatnonzero(changed) + 1)
    group = lines[start]
    stretch = np.searchsorted(ends, at[start])
    names = Names("latin-1")
    component, chain = _components_and_chains(names, group)
    zeros = np.zeros_like(start)
    return Sites(
        names=names,
        atom=_left_justified((eight[:, 1] >> 32).astype("<u4")),
        element=(eight[:, 9] >> 32).astype("<u2").view("S2"),
        altloc=names.of_characters(lines[:, 16]),
        position=np.ascontiguousarray(position.T),
        occupancy=occupancy,
        b_factor=as_float32(b_factor),
        start=start,
        component=component,
        author_chain=chain,
        label_chain=zeros,
        segment=names.indices(_text(group[:, 72:76])) if has_segments else zeros,
        number=_residue_numbers(_text(group[:, 22:26]), at[start] + 1),
        insertion_code=names.of_characters(group[:, 26]),
        label_seq=zeros,
        is_het=is_het[start],
        is_declared=zeros.astype(bool),
        stretch=stretch,
        is_closed=closed[stretch],
    )


def _join_left_names(lines: np.ndarray) -> None:
    """Residue names that begin in the column of the altloc are moved to their own, in place."""
    is_odd = (lines[:, 16] != _BLANK) & (lines[:, 19] == _BLANK)
    for i in np.flatnonzero(is_odd).tolist():
        name = lines[i, 16:19].tobytes()
        if b" " not in name and standard_name(name.decode("latin-1")) in TOKEN:
            lines[i, 16:20] = [_BLANK, *name]


def _check_columns(lines: np.ndarray, position: np.ndarray, at: np.ndarray) -> None:
    """
    Raises:
        FileError: something stands between residue number and coordinates, or too many lines have
            no coordinates.
    """
    between = np.flatnonzero(lines.view("<u8")[:, 3] >> 24 & 0xFF_FFFF != 0x20_2020)
    unreadable = np.flatnonzero(np.isnan(position.sum(axis=0)))
    if len(between):
        where, what = between[0], "columns 28 to 30, before the coordinates, are not blank"
    elif len(unreadable) > _MAX_UNREADABLE * len(at):
        where, what = unreadable[0], "columns 31 to 54 hold no coordinates: they are no numbers"
    else:
        return
    raise FileError(
        Reason.UNREADABLE,
        f"line {at[where] + 1}: {what}; are the columns shifted? "
        f"({lines[where, 17:54].tobytes().decode('latin-1').strip()!r})",
    )


def _differs(values: np.ndarray) -> np.ndarray:
    """(A-1,) whether each differs from the one before."""
    return values[1:] != values[:-1]


def _components_and_chains(names: Names, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(G,) names of residues and of chains; column 21 belongs to one of them. group (G,80)."""
    component = names.indices(_text(group[:, 17:20]))
    chain = names.of_characters(group[:, 21])
    odd = np.flatnonzero(group[:, 20] != _BLANK)
    if len(odd) == 0:
        return component, chain
    texts = _text(group[odd, 17:22]).tolist()
    is_four = {text: text.endswith(b" ") or _is_four(text[:4]) for text in set(texts)}
    of_four = np.array([is_four[text] for text in texts])
    four, two = odd[of_four], odd[~of_four]
    component[four] = names.indices(_text(group[four, 17:21]))
    chain[two] = names.indices(_text(group[two, 20:22]))
    return component, chain


def _is_four(text: bytes) -> bool:
    """Whether it is a name of a residue, such as force fields have."""
    name = text.decode("latin-1").strip()
    return standard_name(name) in TOKEN or is_water(name)


def _left_justified(word: np.ndarray) -> np.ndarray:
    """(n,) bytes without blanks around them from four characters in each word (n,)."""
    for _ in range(3):
        if not (leads := (word & 0xFF) == _BLANK).any():
            break
        word = word >> (8 * leads.astype(np.uint32))
    character = word.view(np.uint8)
    return (character * (character != _BLANK)).view("S4")


def _residue_numbers(text: np.ndarray, number_of_line: np.ndarray) -> np.ndarray:
    """(n,) numbers in decimal, or hybrid-36 beyond 9999.

    Raises:
        FileError: neither.
    """
    try:
        return text.astype(np.int64)
    except ValueError:
        found = [_residue_number(value) for value in text.tolist()]
    wrong = next((i for i, value in enumerate(found) if value is None), None)
    if wrong is not None:
        raise FileError(
            Reason.UNREADABLE,
            f"line {number_of_line[wrong]}: columns 23 to 26 hold no residue number "
            f"({text[wrong].decode('latin-1')!r}); are the columns shifted?",
        )
    return np.array(found, dtype=np.int64)


def _residue_number(text: bytes) -> int | None:
    digits = text.decode("latin-1").strip()
    if re.fullmatch(r"-?[0-9]+", digits):
        return int(digits)
    # A000 follows 9999, a000 follows ZZZZ (hybrid-36).
    for first, pattern in ((10, "[A-Z][0-9A-Z]{3}"), (10 + 26, "[a-z][0-9a-z]{3}")):
        if re.fullmatch(pattern, digits):
            shift = 26 * 36**3 if first > 10 else 0
            return int(digits, 36) - 10 * 36**3 + 10_000 + shift
    return None


def _why_no_atoms(text: bytes) -> str:
    start = text.lstrip()[:200]
    if start.startswith(b"<"):
        return "a web page (HTML), neither mmCIF nor PDB format"
    if re.search(rb"^(?:ATOM|HETATM)[ \t]+[^ \t]+[ \t]", text, re.MULTILINE | re.IGNORECASE):
        return "no line has an atom in the columns of the PDB format; are they cut or shifted?"
    return "the file holds no atoms in PDB format and is not mmCIF"


def _header(text: bytes, begin: np.ndarray, end: np.ndarray) -> dict[str, object]:
    """What the entries table says of the experiment, from the lines before the first atom."""
    records = []
    if len(begin):
        start = _windows(text, "S10")[begin]
        for name in (b"HEADER", b"EXPDTA", b"REMARK   2", b"REMARK   3"):
            of = np.flatnonzero(start.astype(f"S{len(name)}") == name)
            if len(of):
                # From the first to the last of them: they stand together.
                records.append(text[begin[of[0]] : end[of[-1]] + 1])
    try:
        # In ASCII: gemmi cuts columns by bytes, also within a letter of several.
        structure = gemmi.read_pdb_string(b"".join(records).translate(_IN_ASCII).decode())
    except (ValueError, RuntimeError):  # words that are no numbers in the remarks
        structure = gemmi.Structure()
    info = dict(structure.info.items())
    methods = [e.method for e in structure.meta.experiments if e.method]
    method = "; ".join(methods) or info.get("_exptl.method", "")
    r_free = [r.r_free for r in structure.meta.refinement if 0 < r.r_free < 1]
    date = info.get("_pdbx_database_status.recvd_initial_deposition_date", "")
    return {
        "format": "pdb",
        "method": method or None,
        "resolution_angstrom": structure.resolution if structure.resolution > 0 else None,
        "r_free": r_free[0] if r_free else None,
        "deposition_date": date or None,
    }


_IN_ASCII = bytes(
    c if c == ord("\n") or ord(" ") <= c <= ord("~") else ord("?") for c in range(256)
)
