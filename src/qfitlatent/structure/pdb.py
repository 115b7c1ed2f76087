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
from numpy.lib.stride_tricks import sliding_window_view

from qfitlatent.chemistry.residues import TOKEN, is_water, standard_name
from qfitlatent.structure.containers import FileError
from qfitlatent.structure.sites import Names, Sites, as_float32, parse_fixed
from qfitlatent.tables.reasons import Reason

_WIDTH = 80
_BLANK = ord(" ")
_TWO_BLANKS = 0x2020


def _four(text: str) -> int:
    """Four characters as the integer that they are in memory."""
    return int(np.frombuffer(text.encode(), dtype=np.uint32)[0])


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
    buffer = np.frombuffer(text, dtype=np.uint8)
    end = np.flatnonzero(buffer == ord("\n"))
    if not text.endswith(b"\n"):
        end = np.r_[end, len(text)]
    begin = np.r_[0, end[:-1] + 1]
    head = _columns(buffer, begin, end, 8)
    if (head[:, 0] >= ord("a")).any():
        head -= 32 * ((head - np.uint8(ord("a"))) < 26).astype(np.uint8)
    name, tail = head.view(np.uint32).T
    tail = tail & 0xFFFF
    is_het = (name == _four("HETA")) & (tail == (_four("TM  ") & 0xFFFF))
    # Serial numbers of more than five digits begin farther left.
    is_serial = [(c == _BLANK) | ((c - np.uint8(ord("0"))) < 10) for c in (head[:, 4], head[:, 5])]
    is_atom = is_het | ((name == _four("ATOM")) & is_serial[0] & is_serial[1])
    is_ter = (name == _four("TER ")) & (tail == _TWO_BLANKS)
    is_end = (name == _four("END ")) & (tail == _TWO_BLANKS)
    is_model = (name == _four("MODE")) & (tail == (_four("L   ") & 0xFFFF))
    is_model |= (name == _four("ENDM")) & (tail == (_four("DL  ") & 0xFFFF))

    atoms = np.flatnonzero(is_atom)
    if len(atoms) == 0:
        raise FileError(Reason.EMPTY, _why_no_atoms(text))
    model = np.searchsorted(np.flatnonzero(is_model), atoms)
    num_models = 1 + np.count_nonzero(model[1:] != model[:-1])
    atoms = atoms[model == model[0]]
    if not with_waters and (dry := _not_water(buffer, begin[atoms], is_het[atoms])).any():
        atoms = atoms[dry]
    column = np.ascontiguousarray(_columns(buffer, begin[atoms], end[atoms], _WIDTH).T)
    frames = np.searchsorted(np.flatnonzero(is_end), atoms)
    frames -= frames[0]
    if frames[-1] > 0:
        kept = _first_frame(column, frames)
        num_models += int(not kept.all())
        atoms, column = atoms[kept], np.ascontiguousarray(column[:, kept])
    ends = np.flatnonzero(is_ter | is_end)
    stretch = np.searchsorted(ends, atoms)
    is_closed = np.r_[is_ter[ends], False][stretch]
    sites = _sites(column, is_het[atoms], stretch, is_closed, atoms + 1)
    sites.header = _header(text[: begin[atoms[0]]]) | {"num_models": num_models}
    return sites


def _columns(buffer: np.ndarray, begin: np.ndarray, end: np.ndarray, width: int) -> np.ndarray:
    """(n, width) the first characters of lines, blank beyond their ends."""
    found = np.full((len(begin), width), _BLANK, dtype=np.uint8)
    inside = np.searchsorted(begin, len(buffer) - width, side="right")
    if inside:
        found[:inside] = sliding_window_view(buffer, width)[begin[:inside]]
    for i in range(inside, len(begin)):
        last = buffer[begin[i] : min(end[i], begin[i] + width)]
        found[i, : len(last)] = last
    length = end - begin
    if length.min(initial=width) < width:
        found[np.arange(width) >= length[:, None]] = _BLANK
    return found


def _not_water(buffer: np.ndarray, begin: np.ndarray, is_het: np.ndarray) -> np.ndarray:
    """(A,) whether an atom is of anything but HOH: waters are a third of the residues."""
    name = sliding_window_view(buffer, 4)[np.minimum(begin + 17, len(buffer) - 4)]
    code = np.ascontiguousarray(name).view(np.uint32)[:, 0]
    return ~is_het | (code != _four("HOH "))


def _text(column: np.ndarray) -> np.ndarray:
    """(n,) bytes from columns of characters (width, n)."""
    return np.ascontiguousarray(column.T).view(f"S{len(column)}")[:, 0]


def _first_frame(column: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """(A,) whether an atom is of the first frame: what stands behind END and is there before."""
    key = _text(np.concatenate([column[12:27], column[72:76]]))
    kept = frames == 0
    for frame in range(1, frames[-1] + 1):
        atoms = frames == frame
        if atoms.any() and not np.isin(key[atoms], key[kept]).any():
            kept |= atoms
    return kept


def _sites(
    column: np.ndarray,
    is_het: np.ndarray,
    stretch: np.ndarray,
    is_closed: np.ndarray,
    number_of_line: np.ndarray,
) -> Sites:
    """column (80,A): the characters of the atoms; number_of_line (A,) to say where it is wrong."""
    _join_left_names(column)
    coordinates = column[30:54].reshape(3, 8, -1).transpose(1, 0, 2)
    position = parse_fixed(coordinates, 3).T
    # Right-justified, so that a number that was cut is none.
    position[coordinates[-1].T == _BLANK] = np.nan
    _check_columns(column, position, number_of_line)
    occupancy = parse_fixed(column[54:60], 2)
    missing = np.isnan(occupancy)
    if missing.any():  # blank is 1, as the format has it; anything else is no number
        occupancy[missing & (column[54:60] == _BLANK).all(axis=0)] = 1.0

    changed = (column[17:27, 1:] != column[17:27, :-1]).any(axis=0)
    has_segments, segment_changed = _segments(column, changed)
    changed |= (stretch[1:] != stretch[:-1]) | segment_changed
    start = np.r_[0, np.flatnonzero(changed) + 1]
    group = column[:, start]
    names = Names("latin-1")
    code_of_label = np.zeros(256, dtype=np.int64)
    for label in np.flatnonzero(np.bincount(column[16])).tolist():
        code_of_label[label] = names.of_bytes(bytes([label]))
    component, chain = _components_and_chains(names, group)
    return Sites(
        names=names,
        atom=_left_justified(column[12:16]),
        element=_text(column[76:78]),
        altloc=code_of_label[column[16]],
        position=position,
        occupancy=occupancy,
        b_factor=as_float32(parse_fixed(column[60:66], 2)),
        start=start,
        component=component,
        author_chain=chain,
        label_chain=np.zeros_like(start),
        segment=names.indices(_text(group[72:76])) if has_segments else np.zeros_like(start),
        number=_residue_numbers(_text(group[22:26]), number_of_line[start]),
        insertion_code=names.indices(_text(group[26:27])),
        label_seq=np.zeros_like(start),
        is_het=is_het[start],
        is_declared=np.zeros(len(start), dtype=bool),
        stretch=stretch[start],
        is_closed=is_closed[start],
    )


def _join_left_names(column: np.ndarray) -> None:
    """Residue names that begin in the column of the altloc are moved to their own, in place."""
    is_odd = (column[19] == _BLANK) & (column[16:19] != _BLANK).all(axis=0)
    for i in np.flatnonzero(is_odd).tolist():
        if standard_name(column[16:19, i].tobytes().decode("latin-1")) in TOKEN:
            column[16:20, i] = [_BLANK, *column[16:19, i]]


def _check_columns(column: np.ndarray, position: np.ndarray, number_of_line: np.ndarray) -> None:
    """
    Raises:
        FileError: something stands between residue number and coordinates, or too many lines have
            no coordinates.
    """
    between = np.flatnonzero((column[27:30] != _BLANK).any(axis=0))
    unreadable = np.flatnonzero(np.isnan(position.sum(axis=1)))
    if len(between):
        where, what = between[0], "columns 28 to 30, before the coordinates, are not blank"
    elif len(unreadable) > _MAX_UNREADABLE * len(position):
        where, what = unreadable[0], "columns 31 to 54 hold no coordinates: they are no numbers"
    else:
        return
    raise FileError(
        Reason.UNREADABLE,
        f"line {number_of_line[where]}: {what}; are the columns shifted? "
        f"({column[17:54, where].tobytes().decode('latin-1').strip()!r})",
    )


def _segments(column: np.ndarray, changed: np.ndarray) -> tuple[bool, np.ndarray]:
    """Whether columns 73-76 hold segments, and where these change from atom to atom."""
    differs = (column[72:76, 1:] != column[72:76, :-1]).any(axis=0)
    num_changes = np.count_nonzero(differs)
    within = np.count_nonzero(differs & ~changed)
    if num_changes == 0 or 2 * within > num_changes:
        return False, np.zeros(len(differs), dtype=bool)
    return True, differs


def _components_and_chains(names: Names, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(G,) names of residues and of chains; column 21 belongs to one of them."""
    component, chain = names.indices(_text(group[17:20])), names.indices(_text(group[21:22]))
    for i in np.flatnonzero(group[20] != _BLANK).tolist():
        four = group[17:21, i].tobytes().decode("latin-1").strip()
        known = standard_name(four) in TOKEN or is_water(four)
        if known or group[21, i] == _BLANK:
            component[i] = names.index(four)
        else:
            chain[i] = names.of_bytes(group[20:22, i].tobytes())
    return component, chain


def _left_justified(column: np.ndarray) -> np.ndarray:
    """(n,) bytes without blanks around them from columns of characters (width, n)."""
    out = column.copy()
    for _ in range(len(out) - 1):
        leads = out[0] == _BLANK
        if leads.any():
            for i in range(len(out) - 1):
                out[i] = np.where(leads, out[i + 1], out[i])
            out[-1, leads] = _BLANK
    out[out == _BLANK] = 0
    return _text(out)


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


def _header(text: bytes) -> dict[str, object]:
    """What the entries table says of the experiment, from the records before the first atom."""
    records = []
    for name in (b"HEADER", b"EXPDTA", b"REMARK   2", b"REMARK   3"):
        # From the first to the last of them: they stand together.
        begin, last = text.find(b"\n" + name) + 1, text.rfind(b"\n" + name) + 1
        if text.startswith(name) or begin:
            records.append(text[begin if begin else 0 : text.find(b"\n", last) + 1])
    try:
        # In ASCII: gemmi cuts columns by bytes, also within a letter of several.
        ascii_text = re.sub(rb"[^\n -~]", b"?", b"".join(records)).decode()
        structure = gemmi.read_pdb_string(ascii_text)
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
