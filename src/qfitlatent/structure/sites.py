"""The atoms of a file's first model as its raw records give them, before anything is decided.

Shapes: A atoms, G groups: stretches of atoms in the file that say the same of their residue.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from qfitlatent.structure.rejections import Loss


class Names:
    """The names of one file, each an index; the first is empty."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._of_text: dict[str, int] = {"": 0}
        self._of_bytes = _Codes(self)

    def indices(self, values: np.ndarray) -> np.ndarray:
        """(n,) int64 from n names in bytes; blanks around a name are no part of it."""
        return np.fromiter(map(self._of_bytes.__getitem__, values.tolist()), np.int64, len(values))

    def of_characters(self, values: np.ndarray) -> np.ndarray:
        """(n,) int64 from n names of one character (n,) uint8."""
        codes = np.zeros(256, dtype=np.int64)
        for value in np.flatnonzero(np.bincount(values)).tolist():
            codes[value] = self.of_bytes(bytes([value]))
        return codes[values]

    def index(self, text: str) -> int:
        return self._of_text.setdefault(text, len(self._of_text))

    def of_bytes(self, value: bytes) -> int:
        return self.index(value.decode(self._encoding, errors="replace").strip())

    @property
    def texts(self) -> list[str]:
        return list(self._of_text)


class _Codes(dict[bytes, int]):
    """Remembers the index of each name."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def __missing__(self, value: bytes) -> int:
        self[value] = found = self._names.of_bytes(value)
        return found


@dataclass
class Sites:
    """Arrays over atoms and over groups, in the order of the file.

    Names are indices; numbers that the file does not give, or gives as something that is no number,
    are nan.
    """

    names: Names
    atom: np.ndarray  # (A,) bytes, names of atoms without blanks, as deposited
    element: np.ndarray  # (A,) bytes, may be blank
    altloc: np.ndarray  # (A,) index, 0 for blank
    position: np.ndarray  # (A,3) float64, angstrom
    occupancy: np.ndarray  # (A,) float64
    b_factor: np.ndarray  # (A,) float32
    start: np.ndarray  # (G,) first atom of each group
    component: np.ndarray  # (G,) index, as deposited
    author_chain: np.ndarray  # (G,) index
    label_chain: np.ndarray  # (G,) index, as the file gives it; 0 where it does not
    segment: np.ndarray  # (G,) index
    number: np.ndarray  # (G,) int64, of the author
    insertion_code: np.ndarray  # (G,) index
    label_seq: np.ndarray  # (G,) int64, 0 for none
    is_het: np.ndarray  # (G,) bool
    is_declared: np.ndarray  # (G,) bool, the file says that it is in the sequence of a polypeptide
    stretch: np.ndarray  # (G,) counts the ends of chains (TER, END) before
    is_closed: np.ndarray  # (G,) bool, a TER ends the stretch
    header: dict[str, object] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)

    @cached_property
    def group(self) -> np.ndarray:
        """(A,) group of each atom."""
        return np.repeat(np.arange(len(self.start)), np.diff(self.start, append=len(self.atom)))

    @cached_property
    def atom_code(self) -> np.ndarray:
        """(A,) names in upper case as integers, as :func:`name_codes`."""
        return name_codes(self.atom)


def name_codes(names: np.ndarray) -> np.ndarray:
    """(n,) uint32 from n names in bytes: upper case, 0 for more than four characters."""
    short = names if names.dtype.itemsize == 4 else names.astype("S4")
    if names.dtype.itemsize > 4:
        short = np.where(short == names, short, b"").astype("S4")
    byte = np.ascontiguousarray(short).view(np.uint8)
    is_lower = (byte - np.uint8(ord("a"))) < 26
    if is_lower.any():
        byte = byte - 32 * is_lower.astype(np.uint8)
    return byte.view(np.uint32)


_MAX_WIDTH = 16
"""Of a number that is read at once: its digits are then exact in float64."""


def parse_fixed(characters: np.ndarray, decimals: int) -> np.ndarray:
    """(...) numbers from characters (width, ...) uint8, at the right of their field.

    Those with exactly so many decimals are read at once, others one by one; nan for what is none.
    """
    field, characters = characters, characters[-_MAX_WIDTH:]
    width = len(characters)
    point = width - decimals - 1
    digit = characters - np.uint8(ord("0"))
    is_digit = digit < 10
    digit *= is_digit
    is_minus, is_blank = characters[:point] == ord("-"), characters[:point] == ord(" ")
    # Blanks, then perhaps a minus, then digits to the point, and behind it.
    good = is_digit[1:point] | (is_blank[:-1] & (is_blank | is_minus)[1:])
    good = good.all(axis=0) & (is_digit[0] | is_blank[0] | is_minus[0]) & is_digit[point - 1]
    good &= (characters[point] == ord(".")) & is_digit[point + 1 :].all(axis=0)
    good &= (field[:-_MAX_WIDTH] == ord(" ")).all(axis=0)
    weight = [0 if i == point else 10 ** (width - 1 - i - (i < point)) for i in range(width)]
    # Seven digits are exact in float32. The quotient of whole numbers is the float nearest to
    # the text.
    kind = np.float32 if width <= 8 else np.float64
    whole = np.array(weight, dtype=kind) @ digit.reshape(width, -1).astype(kind)
    value = (whole.astype(np.float64) / 10.0**decimals).reshape(good.shape)
    if (is_negative := is_minus.any(axis=0)).any():
        value = np.where(is_negative, -value, value)
    if not good.all():
        for at in zip(*np.nonzero(~good), strict=True):
            value[at] = parse_number(field[(slice(None), *at)].tobytes())
    return value


def parse_number(text: bytes) -> float:
    """A number in any other way to write one; nan for what is none."""
    text = text.strip()
    if b" " in text or b"_" in text:  # Python reads 1_000
        return np.nan
    if text.endswith(b")"):  # 1.234(5), with its uncertainty
        text = text[: text.find(b"(")]
    try:
        value = float(text)
    except ValueError:
        return np.nan
    return value if np.isfinite(value) else np.nan


def as_float32(values: np.ndarray) -> np.ndarray:
    """What float32 cannot hold becomes infinite, which is no number either."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)
