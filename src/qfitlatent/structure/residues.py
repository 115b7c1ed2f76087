"""Residues of coordinate files and their altlocs: what the policy of SPEC 2 to 4 leaves open.

Which residues
    A residue's place is its chain, author number and insertion code; places are counted from 0 in
    the order of the file.
Microheterogeneity
    The summed occupancy of a residue name is the sum over its altlocs of the mean over N, CA, C and
    chi-defining atoms; ties by name.
Altlocs
    The chi-defining atoms are those of ``chemistry.CHI_PATH``, with N, CA and CB. A conformer of
    the blank atoms beside named ones has an empty label, and shares the other blank atoms. Of atoms
    that a file repeats (same residue, name and altloc) the first counts.
Occupancy
    An altloc of occupancy 0 beside others is kept, with weight 0; a negative one is rejected, and
    all conformers of a residue whose sum is not positive.
Numbers that are none
    An atom with a coordinate that is no number, infinite or too large is not there; an occupancy
    or B factor of that kind is missing. Each is a rejected row of the scope atom.
Distinct conformers
    By falling occupancy, a conformer joins the first group whose first member it agrees with in
    every chi observed in both.
Chi
    Null where three of its atoms are on a line, too; a conformer without any chi is rejected.
Frames
    The occupancy of a named altloc is the mean over its own N, CA and C; ties by label. Where the
    three atoms are on a line, the frame is null, with a reason.

Accounting: residues and conformers read = kept + rejected, for every entry. Conformers are counted
for kept residues whose type defines chi.

Everything is computed for all residues of several entries at once: the cost of numpy calls is then
shared, and no Python loop runs over atoms or residues.

Shapes: A atoms, N kept residues, G named altlocs of residues, M conformers.
"""

from collections.abc import Sequence

import gemmi
import numpy as np

from qfitlatent.chemistry.residues import NUM_CHI, TOKEN, standard_name
from qfitlatent.structure.atoms import (
    ATOM_NAMES,
    C_SLOT,
    TEMPLATE_PATH_LENGTH,
    TEMPLATE_SLOT,
    TEMPLATE_TOKEN,
    Parsed,
    template_of,
)
from qfitlatent.tables.keys import begins_run
from qfitlatent.tables.reasons import Reason

_D_RESIDUES = frozenset(
    {"DAL", "DAR", "DAS", "DCY", "DGL", "DGN", "DHI", "DIL", "DLE", "DLY"}
    | {"DPN", "DPR", "DSG", "DSN", "DTH", "DTR", "DTY", "DVA", "MED"}
)

MAX_COORDINATE_ANGSTROM = 1e5
"""Beyond this float32 does not tell 0.01 angstrom apart, and no structure is."""

MAX_OCCUPANCY = 1e3
MAX_B_ANGSTROM2 = 1e5
_NUM_SLOTS = 8
BACKBONE = np.array([0, 1, C_SLOT])
"""Slots of N, CA and C."""


def _is_d_residue(name: str) -> bool:
    info = gemmi.find_tabulated_residue(name)
    return name in _D_RESIDUES or info.kind == gemmi.ResidueKind.AAD


class Residues:
    """The residues of many entries, step by step; each step fills columns that later ones use.

    Places are numbered through the batch in the order of the tables (entry, chain, index); the
    kept residues are exactly one for each place, so row = place in all arrays over N.
    """

    def __init__(self, names: Sequence[str], read: Sequence[tuple[int, Parsed]]) -> None:
        self.names, self.read = names, read
        self.rejected: list[dict[str, np.ndarray]] = []
        atoms = [parsed.atoms for _, parsed in read if parsed.atoms is not None]
        self.vocabulary = sorted({"", *(name for a in atoms for name in a.names)})
        code = {name: i for i, name in enumerate(self.vocabulary)}
        codes = [np.array([code[name] for name in a.names]) for a in atoms]
        num_residues = np.array([len(a.residue_name) for a in atoms])
        first_residue = np.cumsum(num_residues) - num_residues

        def over(name: str) -> np.ndarray:
            return np.concatenate([getattr(a, name) for a in atoms])

        def named(name: str) -> np.ndarray:
            """Indices of one entry's names become indices of the vocabulary, which is sorted."""
            return np.concatenate(
                [of[getattr(a, name)] for a, of in zip(atoms, codes, strict=True)]
            )

        self.atom_residue = np.concatenate(
            [a.residue + first for a, first in zip(atoms, first_residue, strict=True)]
        )
        self.atom_name = over("name")
        self.altloc = named("altloc")
        self.occupancy = over("occupancy")
        self.b_factor = over("b_factor")
        self.position = over("position")
        self.residue_entry = np.repeat([e for e, _ in read], num_residues)
        self.residue = {n: named(n) for n in ("residue_name", "author_chain", "insertion_code")}
        self.residue |= {n: over(n) for n in ("author_number", "label_seq", "is_het")}
        self._number_places(named("chain"), over("place"))
        self._assign_slots()
        self._count_backbones()
        self._leave_out_what_is_no_number()
        self._choose_residue_types()
        self._describe_types()
        self._find_altlocs()

    def _number_places(self, chain: np.ndarray, place: np.ndarray) -> None:
        """place of each residue read, and what holds for each place: entry, chain, index.

        chain (R,) code of the chain of each residue read; place (R,) its place in the entry.
        """
        chain_key = self.residue_entry * len(self.vocabulary) + chain  # sorts as entry, chain
        key = chain_key * (int(place.max(initial=0)) + 1) + place
        _, first, self.place = np.unique(key, return_index=True, return_inverse=True)
        self.entry, self.chain = self.residue_entry[first], chain[first]
        chain_key = chain_key[first]
        self.first_in_chain = begins_run(chain_key)
        starts = np.flatnonzero(self.first_in_chain)
        self.index = np.arange(len(first)) - starts[np.cumsum(self.first_in_chain) - 1]

    def _count_backbones(self) -> None:
        """has_backbone: whether each residue read has N, CA and C, wherever they are."""
        used = np.flatnonzero(self.atom_slot >= 0)
        there = np.zeros((len(self.place), _NUM_SLOTS), dtype=bool)
        there[self.atom_residue[used], self.atom_slot[used]] = True
        self.has_backbone: np.ndarray = np.all(there[:, BACKBONE], axis=1)

    def _leave_out_what_is_no_number(self) -> None:
        """Atoms without a position lose their slot; occupancies and B factors become nan.

        Each is a rejected row; a B factor only where the entry gives any.
        """
        atoms = _not_numbers(self.position, MAX_COORDINATE_ANGSTROM)
        self.atom_slot[atoms] = -1
        self._reject_atoms(atoms, "the coordinates of {} are no numbers")
        atoms = _not_numbers(self.occupancy, MAX_OCCUPANCY)
        self.occupancy[atoms] = np.nan
        self._reject_atoms(atoms, "the occupancy of {} is no number")
        atoms = _not_numbers(self.b_factor, MAX_B_ANGSTROM2)
        self.b_factor[atoms] = np.nan
        if len(atoms):
            entry = self.residue_entry[self.atom_residue]
            gives_any = np.bincount(entry, ~np.isnan(self.b_factor)) > 0
            self._reject_atoms(atoms[gives_any[entry[atoms]]], "the B factor of {} is no number")

    def _reject_atoms(self, atoms: np.ndarray, detail: str) -> None:
        """A row for all these atoms of one altloc of a residue."""
        found: dict[tuple[int, int], list[str]] = {}
        for atom in atoms.tolist():
            name = self.atom_name[atom]
            key = (int(self.atom_residue[atom]), int(self.altloc[atom]))
            found.setdefault(key, []).append(ATOM_NAMES[name] if name >= 0 else "another atom")
        residue, altloc = np.array(list(found), dtype=np.int64).reshape(-1, 2).T
        details = [detail.format(", ".join(names)) for names in found.values()]
        name = self.residue["residue_name"][residue]
        self.reject("atom", Reason.NOT_A_NUMBER, self.place[residue], details, altloc, name)

    def _choose_residue_types(self) -> None:
        """residue_row (N,): the residue kept at each place; losers are rejected."""
        num_types = np.bincount(self.place)
        self.num_residue_types = num_types
        row = np.empty(len(num_types), dtype=np.int64)
        row[self.place] = np.arange(len(self.place))
        self.residue_row = row
        if not (num_types > 1).any():
            return
        rivals = np.flatnonzero(num_types[self.place] > 1)
        total = self._summed_occupancy(rivals)
        name = self.residue["residue_name"][rivals]
        text = [self.vocabulary[code] for code in name]
        order = np.lexsort((name, -total, self.place[rivals]))
        places = self.place[rivals][order]
        is_best = begins_run(places)
        row[places[is_best]] = rivals[order][is_best]
        best = np.flatnonzero(is_best)[np.cumsum(is_best) - 1]
        lost = np.flatnonzero(~is_best)
        detail = [
            f"{text[order[i]]} has occupancy {total[order[i]]:.2f}, "
            f"{text[order[best[i]]]} {total[order[best[i]]]:.2f}"
            for i in lost
        ]
        name = name[order[lost]]
        self.reject("residue", Reason.MICROHETEROGENEITY, places[lost], detail, name=name)

    def _summed_occupancy(self, residues: np.ndarray) -> np.ndarray:
        """Sum over altlocs of the mean occupancy of their atoms that have a slot."""
        local = np.full(len(self.place), -1)
        local[residues] = np.arange(len(residues))
        atoms = np.flatnonzero((local[self.atom_residue] >= 0) & (self.atom_slot >= 0))
        group, inverse = np.unique(
            local[self.atom_residue[atoms]] * len(self.vocabulary) + self.altloc[atoms],
            return_inverse=True,
        )
        occupancy = np.nan_to_num(self.occupancy[atoms])
        mean = np.bincount(inverse, occupancy) / np.bincount(inverse)
        total = np.bincount(group // len(self.vocabulary), mean, minlength=len(residues))
        return np.round(total, 4)

    def _assign_slots(self) -> None:
        """template of each residue read, slot of each atom (-1: none)."""
        template = np.array([template_of(name) for name in self.vocabulary])
        self.template = template[self.residue["residue_name"]]
        slot = TEMPLATE_SLOT[self.template[self.atom_residue], self.atom_name]
        self.atom_slot = np.where(self.atom_name >= 0, slot, -1)

    def _describe_types(self) -> None:
        """Token and flags of each place, row of each atom."""
        name = self.residue["residue_name"][self.residue_row]
        standard = [standard_name(text) for text in self.vocabulary]
        self.is_d = np.array([_is_d_residue(text) for text in standard])[name]
        self.is_modified = np.array([text not in TOKEN for text in standard])[name]
        template = self.template[self.residue_row]
        self.token, self.path_length = TEMPLATE_TOKEN[template], TEMPLATE_PATH_LENGTH[template]
        self.num_chi = NUM_CHI[self.token]
        row_of_residue = np.full(len(self.place), -1)
        row_of_residue[self.residue_row] = np.arange(len(self.residue_row))
        self.atom_row = row_of_residue[self.atom_residue]

    def _find_altlocs(self) -> None:
        """blank (N,8) atom of each slot, -1 for none; the same for named altlocs, own (G,8)."""
        num = len(self.residue_row)
        used = (self.atom_slot >= 0) & (self.atom_row >= 0)
        # Backwards: of repeated atoms the first is written last.
        blank = np.flatnonzero(used & (self.altloc == 0))[::-1]
        self.blank = np.full((num, _NUM_SLOTS), -1)
        self.blank[self.atom_row[blank], self.atom_slot[blank]] = blank

        named = np.flatnonzero((self.altloc != 0) & (self.atom_row >= 0))
        num_names = len(self.vocabulary)
        key, inverse = np.unique(
            self.atom_row[named] * num_names + self.altloc[named], return_inverse=True
        )
        self.group_row, self.group_label = key // num_names, key % num_names
        self.num_altlocs = np.bincount(self.group_row, minlength=num)
        self.own = np.full((len(key), _NUM_SLOTS), -1)
        in_slot = self.atom_slot[named] >= 0
        atoms, group = named[in_slot][::-1], inverse[in_slot][::-1]
        self.own[group, self.atom_slot[atoms]] = atoms

    def points(self, atoms: np.ndarray) -> np.ndarray:
        """(..., 3) positions of atoms; nan where -1."""
        points = self.position.take(atoms, axis=0)
        points[atoms < 0] = np.nan
        return points

    def mean_occupancy(self, atoms: np.ndarray) -> np.ndarray:
        """(n,) mean over the atoms of each row that have one; nan where none has."""
        return np.round(mean_of(self.occupancy, atoms), 6)

    def reject(
        self,
        scope: str,
        reason: Reason,
        place: np.ndarray,
        detail: Sequence[str] | str,
        altloc: np.ndarray | None = None,
        name: np.ndarray | None = None,
    ) -> None:
        """Rows of the rejected table, one a place; name is that of the residue kept there, if None.

        altloc, name: indices of the vocabulary.
        """
        n = len(place)
        if n == 0:
            return
        if name is None:
            name = self.residue["residue_name"][self.residue_row[place]]
        self.rejected.append(
            {
                "place": place,
                "name": name,
                "altloc": np.full(n, -1) if altloc is None else altloc.astype(np.int64),
                "scope": np.full(n, scope, dtype=object),
                "reason": np.full(n, reason.value, dtype=object),
                "detail": np.array([detail] * n if isinstance(detail, str) else detail, object),
            }
        )


def _not_numbers(values: np.ndarray, limit: float) -> np.ndarray:
    """Rows of values (n,) or (n,3) with one that is nan, infinite or beyond the limit."""
    size = np.abs(values)
    if size.max(initial=0.0) <= limit:  # false where one is nan
        return np.empty(0, dtype=np.int64)
    good = size <= limit
    return np.flatnonzero(~good.reshape(len(values), -1).all(axis=1))


def mean_of(values: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """(n,) mean of values (A,) over atoms (n,k), without those that are -1 or nan; nan for none."""
    found = np.where(atoms >= 0, values[atoms], np.nan)
    number = (~np.isnan(found)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.nansum(found, axis=1) / number
