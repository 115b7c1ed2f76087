"""The loop ``_atom_site`` of an mmCIF file as raw sites.

- One data block with atoms is read, wherever it stands; where several have atoms the file is
  refused, since an entry is one structure.
- The first model of the file is read, whatever its number, also where models alternate.
- ``label_`` items are the dictionary's; where one is missing the ``auth_`` item stands for it, and
  the reverse. Without occupancy it is 1, the default; without B it is missing.
- Unquoted ``.`` and ``?`` are nothing; in quotes they are values.

The loop of most files is one row a line without quoted blanks: it is cut into values with numpy,
and only the rest of the file goes through the general reader.
"""

import re
from dataclasses import dataclass

import gemmi
import numpy as np

from qfitlatent.structure.containers import FileError, ReadingLimits
from qfitlatent.structure.sites import Names, Sites, as_float32, parse_fixed, parse_number
from qfitlatent.tables.reasons import Reason


def is_mmcif(text: bytes) -> bool:
    """Whether a data block opens before anything that is no comment."""
    at = 0
    while at < len(text):
        end = text.find(b"\n", at)
        end = len(text) if end < 0 else end
        line = text[at:end].strip()
        if line and not line.startswith(b"#"):
            return line[:5].lower() == b"data_"
        at = end + 1
    return False


@dataclass
class _Columns:
    """The values of the loop: (A,) bytes by lower-case item; nothing is empty."""

    items: list[str]
    values: "_Plain | _General"

    def text(self, *items: str) -> np.ndarray | None:
        """The first of these items that the loop has."""
        item = next((item for item in items if item in self.items), None)
        return None if item is None else self.values.text(self.items.index(item))

    def numbers(self, item: str, decimals: int) -> np.ndarray | None:
        """(A,) float64, nan for what is no number."""
        if item not in self.items:
            return None
        return self.values.numbers(self.items.index(item), decimals)


class _Plain:
    """Values cut at white space: start (A,W) and length (A,W) in the buffer, without quotes."""

    def __init__(self, buffer: np.ndarray, start: np.ndarray, length: np.ndarray) -> None:
        self._buffer, self._start, self._length = buffer, start, length

    def _place(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the values of a column begin, and how long they are."""
        return self._start[:, column].copy(), self._length[:, column].copy()

    def text(self, column: int) -> np.ndarray:
        start, length = self._place(column)
        width = max(1, int(length.max()))
        ahead = np.arange(width)[:, None]
        found = self._buffer.take(start + ahead, mode="clip")
        found *= ahead < length
        return np.ascontiguousarray(found.T).view(f"S{width}")[:, 0]

    def numbers(self, column: int, decimals: int) -> np.ndarray:
        start, length = self._place(column)
        width = max(decimals + 2, int(length.max()))
        back = np.arange(-width, 0)[:, None]
        found = self._buffer.take(start + length + back, mode="clip")
        found[back < -length] = ord(" ")
        return parse_fixed(found, decimals)


class _General:
    """Values as the general reader gives them, quotes and all."""

    def __init__(self, rows: list[list[str]]) -> None:
        self._columns = rows

    def text(self, column: int) -> np.ndarray:
        return np.array([gemmi.cif.as_string(value).encode() for value in self._columns[column]])

    def numbers(self, column: int, decimals: int) -> np.ndarray:
        return np.array([parse_number(value) for value in self.text(column).tolist()])


def read_mmcif(text: bytes, limits: ReadingLimits) -> Sites:
    """The atoms of the first model.

    Raises:
        FileError: no atoms, several structures, or what is no mmCIF.
    """
    block, columns = read_loop(text, limits)
    if not {"cartn_x", "cartn_y", "cartn_z"} <= set(columns.items):
        raise FileError(
            Reason.UNREADABLE, "the loop _atom_site has no coordinates (Cartn_x, Cartn_y, Cartn_z)"
        )
    sites = _sites(columns, _polypeptides(block))
    sites.header |= _header(block)
    return sites


def _header(block: gemmi.cif.Block) -> dict[str, object]:
    """What the entries table says of the experiment."""

    def values(*items: str) -> list[str]:
        found = [gemmi.cif.as_string(v) for item in items for v in block.find_values(item)]
        return [value for value in found if value]

    resolutions = [gemmi.cif.as_number(v) for v in values(*_RESOLUTION)]
    r_free = [gemmi.cif.as_number(v) for v in values("_refine.ls_R_factor_R_free")]
    return {
        "format": "mmcif",
        "method": "; ".join(values("_exptl.method")) or None,
        "resolution_angstrom": next((v for v in resolutions if 0 < v < np.inf), None),
        "r_free": next((v for v in r_free if 0 < v < 1), None),
        "deposition_date": next(iter(values(*_DATE)), None),
    }


_RESOLUTION = (
    "_refine.ls_d_res_high",
    "_em_3d_reconstruction.resolution",
    "_reflns.d_resolution_high",
)

_DATE = (
    "_pdbx_database_status.recvd_initial_deposition_date",
    "_database_PDB_rev.date_original",
)


def read_loop(text: bytes, limits: ReadingLimits) -> tuple[gemmi.cif.Block, _Columns]:
    """The block with atoms, and the values of its atoms."""
    buffer = np.frombuffer(text, dtype=np.uint8)
    line = np.r_[0, np.flatnonzero(buffer == ord("\n")) + 1]
    line = line[line < len(text)]
    lead = buffer[line]
    heads = _that_begin(text, line[(lead | 0x20) == ord("d")], b"data_")
    num_items = len(heads) + np.count_nonzero(lead == ord("_"))
    if num_items > limits.max_items:
        raise FileError(
            Reason.BEYOND_LIMIT,
            f"{num_items} data blocks and items; preprocess.max_items allows {limits.max_items}",
        )
    if len(heads) == 1 and (found := _plain_loop(text, line, lead)) is not None:
        rest, columns = found
        return _document(rest)[0], columns
    document = _document(text)
    try:
        blocks = [block for block in document if block.find_mmcif_category("_atom_site.")]
    except RuntimeError as error:  # a loop that mixes items of several categories
        raise FileError(Reason.UNREADABLE, f"its loop of atoms is no loop: {error}") from None
    if not blocks:
        raise FileError(Reason.EMPTY, "the file holds no atoms: no block has a loop _atom_site")
    if len(blocks) > 1:
        raise FileError(
            Reason.UNREADABLE,
            f"more than one data block has atoms ({blocks[0].name}, {blocks[1].name}); an entry is "
            "one structure: split the file",
        )
    table = blocks[0].find_mmcif_category("_atom_site.")
    if len(table) == 0:
        raise FileError(Reason.EMPTY, "the file holds no atoms: its loop _atom_site is empty")
    items = [tag[len("_atom_site.") :].lower() for tag in table.tags]
    values = [list(table.column(i)) for i in range(table.width())]
    return blocks[0], _Columns(items, _General(values))


def _document(text: bytes) -> gemmi.cif.Document:
    try:
        return gemmi.cif.read_string(text)
    except (ValueError, RuntimeError, IndexError) as error:
        detail = " ".join(str(error).split())[:200]
        raise FileError(Reason.UNREADABLE, f"no mmCIF that parses: {detail}") from None


def _that_begin(text: bytes, line: np.ndarray, word: bytes) -> list[int]:
    """Those of the lines that begin with a word, in either case."""
    return [at for at in line.tolist() if text[at : at + len(word)].lower() == word]


def _plain_loop(text: bytes, line: np.ndarray, lead: np.ndarray) -> tuple[bytes, _Columns] | None:
    """The rest of the text and the loop's values, where these are simple; None where not.

    line: where each line begins; lead: its first character.
    """
    found = _loop(text, line, lead, b"_atom_site.")
    if found is None:
        return None
    begin, items, at, end = found
    if text.find(b"\n_atom_site.", end - 1) >= 0:
        return None
    body = text[at:end].rstrip()
    while (last := body.rfind(b"\n") + 1) and body.startswith(b"#", last):
        body = body[:last].rstrip()
    buffer = np.frombuffer(b" " + body + b" ", dtype=np.uint8)
    is_space = buffer <= ord(" ")
    edges = np.flatnonzero(is_space[1:] != is_space[:-1]) + 1
    start, length = edges[::2], edges[1::2] - edges[::2]
    if len(start) == 0 or len(start) % len(items) or len(set(items)) < len(items):
        return None
    first = buffer[start]
    is_null = (length == 1) & ((first == ord(".")) | (first == ord("?")))
    # Other signs at the beginning of a value have a meaning: comments, names, quotes with blanks.
    is_odd = _HAS_MEANING[first]
    if is_odd.any():
        is_quoted = (first == ord("'")) | (first == ord('"'))
        last = buffer[start + length - 1]
        if (is_odd & ~(is_quoted & (first == last) & (length > 1))).any():
            return None
        start = start + is_quoted
        length -= 2 * is_quoted
    length -= is_null
    other = _loop(text, line, lead, b"_atom_site_anisotrop.", end)
    if other is None:
        rest = text[:begin] + text[end:]
    else:
        rest = text[:begin] + text[end : other[0]] + text[other[3] :]
    shape = (-1, len(items))
    return rest, _Columns(items, _Plain(buffer, start.reshape(shape), length.reshape(shape)))


def _loop(
    text: bytes, line: np.ndarray, lead: np.ndarray, category: bytes, after: int = 0
) -> tuple[int, list[str], int, int] | None:
    """Where a loop begins, its items, where its values begin and end; None where there is none."""
    begin = text.find(b"\nloop_\n" + category, after) + 1
    if begin == 0:
        return None
    items, at = [], begin + len(b"loop_\n")
    while text.startswith(category, at):
        end = text.find(b"\n", at)
        items.append(text[at + len(category) : end].decode().strip().lower())
        at = end + 1
    first = np.searchsorted(line, at)
    for place in line[first:][_ENDS_LOOP[lead[first:]]].tolist():
        word = text[place : place + 5].lower()
        if word.startswith(b"_") or word in (b"loop_", b"data_", b"save_"):
            return begin, items, at, place
        if word.startswith(b";"):
            return None
    return begin, items, at, len(text)


_ENDS_LOOP = np.isin(np.arange(256), list(b"_lLdDsS;"))
_HAS_MEANING = np.isin(np.arange(256), list(b"#_$[]'\""))


def _polypeptides(block: gemmi.cif.Block) -> set[bytes]:
    """Entities that the file says are polypeptides."""
    table = block.find("_entity_poly.", ["entity_id", "type"])
    return {
        gemmi.cif.as_string(row[0]).encode()
        for row in table
        if "peptide" in gemmi.cif.as_string(row[1]).lower()
    }


def _sites(columns: _Columns, polypeptides: set[bytes]) -> Sites:
    axes = [columns.numbers(f"cartn_{axis}", 3) for axis in "xyz"]
    position = np.stack([values for values in axes if values is not None], axis=1)
    num = len(position)
    empty = np.zeros(num, dtype="S1")

    def text(*items: str) -> np.ndarray:
        """These items, the next where one is missing or empty."""
        out = empty
        for item in items:
            if (values := columns.text(item)) is not None:
                out = values if out is empty else np.where(out == b"", values, out)
                if not (out == b"").any():
                    break
        return out

    model = text("pdbx_pdb_model_num")
    kept = model == model[0]
    num_models = len(set(model[~kept].tolist())) + 1

    occupancy = columns.numbers("occupancy", 2)
    if occupancy is None:
        occupancy = np.ones(num)
    elif np.isnan(occupancy).any():
        occupancy[text("occupancy") == b""] = 1.0
    b_factor = columns.numbers("b_iso_or_equiv", 2)
    b_factor = np.full(num, np.nan) if b_factor is None else b_factor
    fields = {
        "component": text("label_comp_id", "auth_comp_id"),
        "author_chain": text("auth_asym_id", "label_asym_id"),
        "label_chain": text("label_asym_id", "auth_asym_id"),
        "number": text("auth_seq_id", "label_seq_id"),
        "insertion_code": text("pdbx_pdb_ins_code"),
        "label_seq": text("label_seq_id"),
    }
    atom = text("label_atom_id", "auth_atom_id")
    element, altloc = text("type_symbol"), text("label_alt_id")
    entity, group_pdb = text("label_entity_id"), text("group_pdb")
    if not kept.all():
        fields = {name: values[kept] for name, values in fields.items()}
        atom, element, altloc, entity, group_pdb = (
            v[kept] for v in (atom, element, altloc, entity, group_pdb)
        )
        position, occupancy, b_factor = (v[kept] for v in (position, occupancy, b_factor))

    changed = np.zeros(len(atom) - 1, dtype=bool)
    for values in fields.values():
        changed |= values[1:] != values[:-1]
    start = np.r_[0, np.flatnonzero(changed) + 1]
    of_group = {name: values[start] for name, values in fields.items()}
    names = Names("utf-8")
    code = {n: names.indices(v) for n, v in of_group.items() if n not in ("number", "label_seq")}
    number, insertion_code = of_group["number"], code["insertion_code"]
    try:
        number = _integers(number, "auth_seq_id")
    except FileError:
        number, insertion_code = _numbers(number, names, insertion_code)
    label_seq = _integers(of_group["label_seq"], "label_seq_id")
    is_sequence = (label_seq > 0) & np.isin(entity[start], list(polypeptides) or [b""])
    return Sites(
        names=names,
        atom=atom,
        element=element,
        altloc=names.indices(altloc),
        position=position,
        occupancy=occupancy,
        b_factor=as_float32(b_factor),
        start=start,
        component=code["component"],
        author_chain=code["author_chain"],
        label_chain=code["label_chain"],
        segment=np.zeros_like(start),
        number=number,
        insertion_code=insertion_code,
        label_seq=label_seq,
        is_het=np.char.upper(group_pdb[start]) == b"HETATM",
        is_declared=is_sequence & bool(polypeptides),
        stretch=np.zeros_like(start),
        is_closed=np.zeros(len(start), dtype=bool),
        header={"num_models": num_models},
    )


_TOO_LARGE = 10**9


def _integers(values: np.ndarray, item: str) -> np.ndarray:
    """(n,) int64, 0 where nothing is given.

    Raises:
        FileError: a value that is no integer, or has more than nine digits.
    """
    try:
        numbers = np.where(values == b"", b"0", values).astype(np.int64)
    except (ValueError, OverflowError):
        numbers = np.array([_TOO_LARGE])
    if np.abs(numbers).max(initial=0) < _TOO_LARGE:
        return numbers
    wrong = next(v for v in values.tolist() if not re.fullmatch(rb"[+-]?\d{0,9}", v))
    shown = wrong.decode(errors="replace")
    raise FileError(
        Reason.UNREADABLE,
        f"_atom_site.{item} is {shown!r}, which is no integer number of at most nine digits",
    )


def _numbers(values: np.ndarray, names: Names, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Author numbers, and insertion codes, which some programs write behind the number."""
    found = {value: re.fullmatch(rb"([+-]?\d+)([A-Za-z])", value) for value in set(values.tolist())}
    if any(found.values()):
        code = code.copy()
        for i, value in enumerate(values.tolist()):
            if (match := found[value]) and code[i] == 0:
                code[i] = names.of_bytes(match[2])
        values = np.array([m[1] if (m := found[v]) else v for v in values.tolist()])
    return _integers(values, "auth_seq_id"), code
