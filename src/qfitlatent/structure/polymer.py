"""Which groups of raw sites are residues of proteins, in which chain and at which place (SPEC 2).

Residue
    A component with N, CA and C that is bonded to another (C-N below 2 angstrom), in whatever
    chain, before or after TER, whatever it is called; one with the name of an amino acid, as ATOM
    or in the sequence that the file declares, also where atoms are missing or neighbours are. An
    amino acid of HETATM records without a bond is one where it stands among the residues of its
    chain, before their TER; so is a cap that is bonded there (ACE), whose C gives its neighbour a
    phi. Waters and nucleotides are none. What has N, CA and C and is no residue is a loss, with a
    reason.
Chain
    What the file calls so: label_asym_id; in a PDB file the chain and, where there are several, the
    segment. Where a residue comes again with the same atoms a copy of the chain begins.
Place
    One residue, or several types at one number: groups of one number that share no atom of one
    altloc. Residues listed behind the end of their chain (MSE behind TER) go to the place that
    their number has there.

Shapes: A atoms, G groups, R residues.
"""

from bisect import bisect_left
from collections import defaultdict
from functools import cached_property, lru_cache

import gemmi
import numpy as np

from qfitlatent.chemistry.residues import is_water, parent_name, standard_name
from qfitlatent.structure.rejections import Loss
from qfitlatent.structure.sites import Sites, name_codes
from qfitlatent.tables.reasons import Reason

BOND_ANGSTROM = 2.0
"""C(i)-N(i+1) below this is a bond (SPEC 2)."""

_CLASH_ANGSTROM = 2.4
"""Alpha carbons of bonded residues are 2.8 (cis) to 3.9 angstrom apart."""

_N, _CA, _C = name_codes(np.array([b"N", b"CA", b"C"])).tolist()
_BACKBONE = (_N, _CA, _C)
_OTHER, _NEVER, _AMINO = 0, -1, 1


class Polymer:
    """The residues of proteins among the sites.

    residue (G,) row of each group, -1 for none; of each of R rows: first (its first group), chain
    (index), place, which rises along each chain; losses; num_backbones, the census.
    """

    def __init__(self, sites: Sites) -> None:
        self._sites = sites
        self._find_backbones()
        accepted = self._accept()
        self.num_backbones = self._census()
        self._number(np.flatnonzero(accepted))
        self.losses = [*sites.losses, *self._losses(accepted)]

    def _find_backbones(self) -> None:
        """backbone (G,3): the first atom N, CA and C of each group, -1 for none."""
        sites = self._sites
        self._backbone = np.full((len(sites.start), 3), -1)
        for i, code in enumerate(_BACKBONE):
            atoms = np.flatnonzero(sites.atom_code == code)[::-1]
            self._backbone[sites.group[atoms], i] = atoms
        self._is_complete = (self._backbone >= 0).all(axis=1)

    def _accept(self) -> np.ndarray:
        """(G,) whether each group is of a residue."""
        sites = self._sites
        kind = np.array([_kind(name) for name in sites.names.texts])[sites.component]
        has_ca = self._backbone[:, 1] >= 0
        is_amino = kind == _AMINO
        accepted = is_amino & (~sites.is_het | sites.is_declared)
        accepted |= sites.is_declared & (kind != _NEVER)
        is_open = ~accepted & (kind != _NEVER) & (has_ca | is_amino)
        if is_open.any():
            accepted |= is_open & self._bonded(is_open, accepted | is_open)
            accepted |= is_open & is_amino & self._among(accepted)
        is_cap = ~accepted & (kind == _OTHER) & ~has_ca & (self._backbone >= 0).any(axis=1)
        if is_cap.any():
            accepted |= is_cap & self._among(accepted) & self._bonded(is_cap, accepted)
        if not self._is_each_in_one_piece:
            # More atoms of a residue, such as those of one altloc at the end of the chain.
            key, pieces = self._key_of_type, np.flatnonzero(~accepted & (kind != _NEVER))
            accepted[pieces] = np.isin(key[pieces], key[accepted])
        return accepted

    def _bonded(self, groups: np.ndarray, partners: np.ndarray) -> np.ndarray:
        """(G,) whether a group has a peptide bond to a partner of its chain."""
        sites = self._sites
        position = np.where(self._backbone[:, :, None] >= 0, sites.position[self._backbone], np.nan)
        n, ca, c = position.transpose(1, 0, 2)
        found = np.zeros(len(groups), dtype=bool)
        for chain in np.unique(sites.author_chain[groups]):
            in_chain = sites.author_chain == chain
            to = np.flatnonzero(partners & in_chain)
            rows = np.flatnonzero(groups & in_chain)
            for some in (rows[i : i + 256] for i in range(0, len(rows), 256)):
                with np.errstate(invalid="ignore", over="ignore"):
                    near = _square(c[some], n[to]) < BOND_ANGSTROM**2
                    near |= _square(n[some], c[to]) < BOND_ANGSTROM**2
                    # What lies on top of another ligand is not bonded to it.
                    near &= ~(_square(ca[some], ca[to]) < _CLASH_ANGSTROM**2)
                near &= some[:, None] != to
                found[some] |= near.any(axis=1)
        return found

    def _among(self, accepted: np.ndarray) -> np.ndarray:
        """(G,) whether a group stands among residues of its chain, before the TER of these.

        Where the file declares its sequences, no group does.
        """
        sites = self._sites
        if sites.is_declared.any():
            return np.zeros(len(accepted), dtype=bool)
        _, chain = np.unique(self._chain_keys(), return_inverse=True)
        key = chain * (int(sites.stretch.max()) + 1) + sites.stretch
        last = np.full(int(key.max()) + 1, -1)
        rows = np.flatnonzero(accepted)
        last[key[rows]] = rows
        return (last[key] >= 0) & (sites.is_closed | (np.arange(len(key)) < last[key]))

    @cached_property
    def _key(self) -> np.ndarray:
        """(G,) int64: equal for groups of one chain, segment, number and insertion code."""
        sites = self._sites
        columns = np.stack(
            [
                sites.author_chain,
                sites.label_chain,
                sites.segment,
                sites.insertion_code,
                sites.label_seq,
                sites.number,
            ]
        )
        low = columns.min(axis=1)
        sizes = (columns.max(axis=1) - low + 1).tolist()
        columns -= low[:, None]
        key = np.zeros(len(sites.start), dtype=np.int64)
        room = 1
        for values, size in zip(columns, sizes, strict=True):
            if size == 1:
                continue
            if room > 2**62 // size:
                _, key = np.unique(key, return_inverse=True)
                room = len(key)
            key = key * size + values
            room *= size
        if room > 2**62 // len(sites.names.texts):
            _, key = np.unique(key, return_inverse=True)
        return key

    @cached_property
    def _key_of_type(self) -> np.ndarray:
        """(G,) the same, and of one component."""
        return self._key * len(self._sites.names.texts) + self._sites.component

    @cached_property
    def _is_each_in_one_piece(self) -> bool:
        """Whether no two groups say the same of their residue."""
        return _all_differ(self._key_of_type)

    def _census(self) -> int:
        """Residues with N, CA and C, counted from names and numbers alone.

        Of groups that say the same of their residue there are as many residues as there are times
        that each of N, CA and C stands there in one altloc.
        """
        sites = self._sites
        if self._is_each_in_one_piece:
            return int(np.count_nonzero(self._is_complete))
        _, same = np.unique(self._key_of_type, return_inverse=True)
        count = np.bincount(same)
        several = count[same] > 1
        alone = int(np.count_nonzero(self._is_complete & ~several))
        which = np.full(len(sites.atom), -1)
        for i, code in enumerate(_BACKBONE):
            which[sites.atom_code == code] = i
        atoms = np.flatnonzero(several[sites.group] & (which >= 0))
        triple = np.stack([same[sites.group[atoms]], which[atoms], sites.altloc[atoms]], axis=1)
        kinds, times = np.unique(triple, axis=0, return_counts=True)
        most = np.zeros((len(count), 3), dtype=np.int64)
        np.maximum.at(most, (kinds[:, 0], kinds[:, 1]), times)
        return alone + int(most.min(axis=1).sum())

    def _number(self, groups: np.ndarray) -> None:
        sites = self._sites
        self.residue = np.full(len(sites.start), -1)
        key = self._key[groups]
        chain = self._chain_keys()[groups]
        _, chain_number = np.unique(chain, return_inverse=True)
        if _all_differ(key) and not _has_breaks(chain_number, sites.stretch[groups]):
            place, copy = np.arange(len(groups)), np.zeros(len(groups), dtype=np.int64)
            residue, first = np.arange(len(groups)), np.arange(len(groups))
        else:
            place, copy, residue, first = self._merge(groups, key, chain_number)
        self.residue[groups] = residue
        self.first = groups[first]
        self.place = place[first]
        self.chain = self._chain_names(groups[first], chain_number[first], copy[first])

    def _chain_keys(self) -> np.ndarray:
        sites = self._sites
        size = len(sites.names.texts)
        return (sites.label_chain * size + sites.author_chain) * size + sites.segment

    def _merge(
        self, groups: np.ndarray, key: np.ndarray, chain: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """place, copy of the chain and residue of each group; first group of each residue."""
        sites = self._sites
        end = np.r_[sites.start[1:], len(sites.atom)]
        _, inverse, count = np.unique(key, return_inverse=True, return_counts=True)
        is_repeated = count[inverse] > 1
        code, altloc = sites.atom_code, sites.altloc
        current: dict[int, int] = defaultdict(int)
        found: dict[tuple[int, int, int], dict[int, tuple[int, set]]] = {}
        place, copy, residue = np.zeros((3, len(groups)), dtype=np.int64)
        first: list[int] = []
        previous = (-1, -1)
        for i, g in enumerate(groups.tolist()):
            one_chain, one_key = int(chain[i]), int(key[i])
            component = int(sites.component[g])
            atoms: set[tuple[int, int]] = set()
            if is_repeated[i]:
                span = slice(int(sites.start[g]), int(end[g]))
                atoms = set(zip(code[span].tolist(), altloc[span].tolist(), strict=True))
            at = current[one_chain]
            goes_on = previous == (one_chain, one_key)
            for number in range(at, -1, -1):
                types = found.get((one_chain, number, one_key))
                if types is None:
                    continue
                if _fits(types, component, atoms, goes_on):
                    at = number
                    break
                if number == current[one_chain]:
                    at = current[one_chain] = number + 1
                    break
            types = found.setdefault((one_chain, at, one_key), {})
            if component in types:
                residue[i] = types[component][0]
                types[component][1].update(atoms)
            else:
                residue[i] = len(first)
                first.append(i)
                types[component] = (len(first) - 1, atoms)
            place[i] = min(first[row] for row, _ in types.values())
            copy[i] = at
            previous = (one_chain, one_key)
        rows = np.array(first)
        self._put_in_order(groups, place, chain, copy, rows)
        return place, copy, residue, rows

    def _put_in_order(
        self,
        groups: np.ndarray,
        place: np.ndarray,
        chain: np.ndarray,
        copy: np.ndarray,
        first: np.ndarray,
    ) -> None:
        """Places behind the end of their chain go where their number is; in place."""
        sites = self._sites
        members: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i in first.tolist():
            if place[i] == i:
                members[int(chain[i]), int(copy[i])].append(i)
        rank = place.copy()
        for rows in members.values():
            stretch = sites.stretch[groups[rows]]
            if stretch[0] == stretch[-1]:
                continue
            main = [i for i, s in zip(rows, stretch, strict=True) if s == stretch[0]]
            number = {i: int(sites.number[groups[i]]) for i in rows}
            for i in rows[len(main) :]:
                known = [number[j] for j in main]
                inside = known[0] < number[i] < known[-1]
                if inside and known == sorted(known):
                    main.insert(bisect_left(known, number[i]), i)
                else:
                    main.append(i)
            rank[sorted(rows)] = sorted(rows)  # the places of this chain, to be dealt out anew
            for new, i in zip(sorted(rows), main, strict=True):
                rank[i] = new
        place[:] = rank[place]

    def _chain_names(self, first: np.ndarray, chain: np.ndarray, copy: np.ndarray) -> np.ndarray:
        """(R,) index of the name of each residue's chain: label_asym_id, or as gemmi names them."""
        sites = self._sites
        pairs = chain * (int(copy.max(initial=0)) + 1) + copy
        _, at, same = np.unique(pairs, return_index=True, return_inverse=True)
        taken: set[str] = set()
        codes = np.zeros(len(at), dtype=np.int64)
        texts = sites.names.texts
        for i in np.argsort(at, kind="stable").tolist():
            group = first[at[i]]
            label = texts[sites.label_chain[group]]
            name = label or f"{texts[sites.author_chain[group]] or '_'}xp"
            base, number = name, 1
            while name in taken:
                number += 1
                name = f"{base}{number}"
            taken.add(name)
            codes[i] = sites.names.index(name)
        return codes[same]

    def _losses(self, accepted: np.ndarray) -> list[Loss]:
        """What has a backbone, or the name of a residue in a sequence, and is none."""
        sites = self._sites
        lost = np.flatnonzero(~accepted & self._is_complete)
        if len(lost) == 0:
            return []
        texts = sites.names.texts
        _, once = np.unique(self._key_of_type[lost], return_index=True)
        return [
            Loss(
                "residue",
                Reason.NOT_POLYMER,
                "it has N, CA and C, but no peptide bond to another residue of its chain",
                author_chain=texts[sites.author_chain[g]],
                author_number=int(sites.number[g]),
                insertion_code=texts[sites.insertion_code[g]],
                name=texts[sites.component[g]],
                has_backbone=True,
            )
            for g in np.sort(lost[once]).tolist()
        ]


@lru_cache(maxsize=65536)
def _kind(name: str) -> int:
    """Whether a component is an amino acid by its name, never a residue, or may be one."""
    if parent_name(name):
        return _AMINO
    if is_water(name):
        return _NEVER
    info = gemmi.find_tabulated_residue(standard_name(name))
    if info.found() and info.is_amino_acid():
        return _AMINO
    return _NEVER if info.found() and (info.is_nucleic_acid() or info.is_water()) else _OTHER


def _fits(types: dict[int, tuple[int, set]], component: int, atoms: set, goes_on: bool) -> bool:
    """Whether atoms are more of a residue, or another type at its place, and no second copy."""
    if component in types:
        return goes_on or not (types[component][1] & atoms)
    if goes_on:
        return True
    backbone = {(code, label) for code, label in atoms if code in _BACKBONE}
    return not any(there & backbone for _, there in types.values())


def _all_differ(values: np.ndarray) -> bool:
    ordered = np.sort(values)
    return not (ordered[1:] == ordered[:-1]).any()


def _has_breaks(chain: np.ndarray, stretch: np.ndarray) -> bool:
    """Whether a chain goes on behind the end of a stretch."""
    first = np.full(int(chain.max(initial=0)) + 1, -1)
    first[chain] = stretch
    return bool((first[chain] != stretch).any())


def _square(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,m) squared distances of points (n,3) and (m,3)."""
    gap = a[:, None] - b[None]
    return np.einsum("ijk,ijk->ij", gap, gap)
