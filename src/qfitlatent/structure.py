"""Coordinate files become tables: the whole altloc policy of the project lives here (SPEC 2 to 4).

Which residues
    Model 1 only. Residues of polymers that are polypeptides, as gemmi finds them from the entities
    of an mmCIF file or from the records of a PDB file; waters, ligands and nucleic acids are none.
    A residue's place is its chain (label_asym_id; gemmi's subchain in PDB files), author number
    and insertion code, so 52 and 52A are two; places are counted from 0 in the order of the file.
Which type
    The 20 standard names have tokens 0 to 19. ``MODIFIED`` lists the modified residues whose side
    chain has the skeleton of their parent: they keep its token and chi. Every other name and every
    D residue is 20, without chi. The deposited name is kept.
Microheterogeneity
    Of several names at one place the one with the highest summed occupancy is kept (for each
    altloc the mean over its N, CA, C and chi-defining atoms; ties by name), the rest is rejected.
Altlocs
    Conformer ``A`` is its own atoms, and blank atoms where it has none of that name; atoms are
    never taken from another named altloc, and an own atom wins over a blank one. A named altloc
    that owns none of the chi-defining atoms (``chemistry.CHI_PATH``, with N, CA and CB) is no
    side-chain conformer: it is counted and rejected. Where no named altloc remains, the residue
    has one conformer, the blank atoms, with an empty label. Of atoms that a file repeats (same
    residue, name and altloc) the first counts.
Occupancy
    The mean over the conformer's own chi-defining atoms; it is normalised over the residue's kept
    conformers. An altloc of occupancy 0 beside others is kept, with weight 0; a negative one is
    rejected, and all conformers of a residue whose sum is not positive.
Chi
    Null where one of the four atoms is missing or three of them are on a line; a conformer without
    any chi is rejected. Beyond ``max_conformers`` those of lowest occupancy are rejected.
Frames
    From the blank N, CA and C where all three exist; otherwise from the named altloc with all
    three (its own or blank) that has the highest mean occupancy over its own ones, ties by label.
    Where there is none, or the three are on a line, the frame is null, with a reason.
Chain breaks
    Residues are bonded when C(i)-N(i+1) is below 2.0 angstrom, with the atoms of the frames.

Accounting: residues and conformers read = kept + rejected, for every entry. Conformers are counted
for kept residues whose type defines chi.

Everything is computed for all residues of several entries at once: the cost of numpy calls is then
shared, and no Python loop runs over atoms or residues.

Shapes: A atoms, N kept residues, G named altlocs of residues, M conformers.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TextIO

import gemmi
import numpy as np
import pyarrow as pa

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.progress import Progress
from qfitlatent.chemistry import geometry
from qfitlatent.chemistry.residues import (
    CHI_PATH,
    MODIFIED,
    NUM_CHI,
    NUM_CHI_MAX,
    RESIDUE_TYPES,
    TOKEN,
    UNKNOWN_TOKEN,
)
from qfitlatent.tables import schemas
from qfitlatent.tables.parquet import TableWriter, read_table
from qfitlatent.tables.reasons import Reason

BOND_ANGSTROM = 2.0
"""C(i)-N(i+1) below this is a bond (SPEC 2)."""


NEIGHBOUR_ANGSTROM = 10.0


OCCUPANCY_DISAGREEMENT = 0.01


_BATCH_ATOMS = 150_000
"""Atoms whose tables are made together: bounds memory."""


_BATCH_ENTRIES = 64


_D_RESIDUES = frozenset(
    {"DAL", "DAR", "DAS", "DCY", "DGL", "DGN", "DHI", "DIL", "DLE", "DLY"}
    | {"DPN", "DPR", "DSG", "DSN", "DTH", "DTR", "DTY", "DVA", "MED"}
)


_NUM_SLOTS = 8


_C_SLOT = 7
"""Slots 0 to 6 are the atoms of the chi path in order (0 is N, 1 is CA), slot 7 is C."""


_PATH = slice(0, _C_SLOT)


_BACKBONE = np.array([0, 1, _C_SLOT])


# Runs of residues with these backbone angles, in degrees, at least so long, are called so. Regions
# and lengths after the usual contours of the Ramachandran plot (Lovell et al. 2003).
_HELIX = ((-115.0, -35.0), (-75.0, 0.0), 4)


_STRAND = ((-180.0, -45.0), (90.0, 190.0), 3)


@dataclass(frozen=True)
class EntryRecords:
    """The tables of one entry (schemas.SCHEMAS).

    ``entries`` has one row, or none where the entry as a whole is in ``rejected``.
    """

    entries: pa.Table
    residues: pa.Table
    frames: pa.Table
    conformers: pa.Table
    rejected: pa.Table

    def tables(self) -> dict[str, pa.Table]:
        return {name: getattr(self, name) for name in schemas.SCHEMAS}


def read_entry(
    path: str | Path,
    entry: str,
    *,
    source: str = "local",
    url: str | None = None,
    max_conformers: int = 6,
) -> EntryRecords:
    """The tables of one coordinate file: mmCIF or PDB format, plain or gzipped.

    A file that is missing, unreadable or without protein gives an entry-level rejection.

    Args:
        source, url: written into the entries table.
        max_conformers: conformers of a residue that are used at most, highest occupancy first.
    """
    parsed = parse_file(path, entry, source=source, url=url)
    return EntryRecords(**make_tables([parsed], max_conformers))


def preprocess_entries(
    download_log: str | Path,
    out_dir: str | Path,
    *,
    max_conformers: int = 6,
    stream: TextIO | None = None,
) -> None:
    """Write the five tables of all entries in a download log (archive.LOG_SCHEMA) to ``out_dir``.

    Entries that are missing according to the log become rejected rows of the stage download.
    """
    columns = ["entry", "source", "url", "path", "reason", "detail"]
    rows = sorted(read_table(download_log, columns).to_pylist(), key=lambda row: row["entry"])
    out_dir = Path(out_dir)
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(TableWriter(out_dir / f"{name}.parquet", schema))
            for name, schema in schemas.SCHEMAS.items()
        }
        progress = stack.enter_context(Progress(len(rows), "entries", stream or sys.stderr))
        batch: list[Parsed] = []

        def write_batch() -> None:
            for name, table in make_tables(batch, max_conformers).items():
                writers[name].write(table)
            progress.update(len(batch), failures=sum(p.rejection is not None for p in batch))
            batch.clear()

        for row in rows:
            if row["path"] is None:
                rejection = ("download", Reason(row["reason"]), row["detail"] or "")
                batch.append(Parsed(row["entry"], row["source"], row["url"], rejection=rejection))
            else:
                batch.append(
                    parse_file(row["path"], row["entry"], source=row["source"], url=row["url"])
                )
            if (
                len(batch) >= _BATCH_ENTRIES
                or sum(len(p.atoms.occupancy) for p in batch if p.atoms) >= _BATCH_ATOMS
            ):
                write_batch()
        write_batch()


@dataclass
class Atoms:
    """The protein of one entry: arrays over its atoms, and over its residues in file order.

    Of blank atoms only those that define a frame or a chi are here. Names of residues and chains
    are eight bytes as one integer, so that numpy compares them at once.
    """

    residue: np.ndarray  # (A,) index into the residues below
    name: np.ndarray  # (A,) index into _ATOM_NAMES, -1 for any other
    altloc: np.ndarray  # (A,) int8, 0 for blank
    occupancy: np.ndarray  # (A,) float64
    b_factor: np.ndarray  # (A,) float32
    position: np.ndarray  # (A,3) float64, angstrom
    residue_name: np.ndarray  # (R,) int64
    chain: np.ndarray  # (R,) int64
    author_chain: np.ndarray  # (R,) int64
    author_number: np.ndarray  # (R,) int32
    insertion_code: np.ndarray  # (R,) int8, 32 for none
    label_seq: np.ndarray  # (R,) int32, 0 for none
    is_het: np.ndarray  # (R,) bool
    long_names: dict[str, str] = field(default_factory=dict)


@dataclass
class Parsed:
    """One entry on its way to the tables: either ``atoms`` or a ``rejection``."""

    entry: str
    source: str
    url: str | None
    header: dict[str, object] = field(default_factory=dict)
    atoms: Atoms | None = None
    rejection: tuple[str, Reason, str] | None = None


def parse_file(
    path: str | Path, entry: str, *, source: str = "local", url: str | None = None
) -> Parsed:
    """Read one file; what is wrong with it is in ``rejection``."""
    parsed = Parsed(entry, source, url)

    def reject(reason: Reason, detail: str) -> Parsed:
        parsed.rejection = ("preprocess", reason, detail)
        return parsed

    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return reject(Reason.NOT_FOUND, f"no file {_shown_path(path)}")
    parsed.header = {
        "path": _shown_path(path),
        "sha256": hashlib.sha256(data).hexdigest(),
        "num_bytes": len(data),
    }
    head = data[:_HEAD_BYTES]
    is_gzip = head[:2] == b"\x1f\x8b"
    by_gemmi = is_gzip and str(path).endswith(".gz") and _ends_well(data)
    if is_gzip and not by_gemmi:
        try:
            data = _gunzip(data)
        except (zlib.error, EOFError) as error:
            return reject(Reason.TRUNCATED, f"the gzip stream is damaged: {error}")
        head = data[:_HEAD_BYTES]
    elif is_gzip:
        head = zlib.decompressobj(wbits=31).decompress(head, _HEAD_BYTES)
    if not head.strip() and not data.strip():
        return reject(Reason.EMPTY, "the file holds nothing")
    is_cif = _OPENS_CIF.match(head) is not None
    try:
        if is_cif:
            document = gemmi.cif.read(str(path)) if by_gemmi else gemmi.cif.read_string(data)
            structure = _isotropic_structure(document)
        elif by_gemmi:
            structure = gemmi.read_structure(str(path), format=gemmi.CoorFormat.Pdb)
        else:
            structure = gemmi.read_structure_string(data, format=gemmi.CoorFormat.Pdb)
    except (ValueError, RuntimeError, IndexError) as error:
        return reject(Reason.UNREADABLE, " ".join(str(error).split())[:200])
    num_models = len(structure)
    while len(structure) > 1:
        del structure[-1]
    if num_models == 0 or structure[0].count_atom_sites() == 0:
        return reject(Reason.EMPTY, "the file holds no atoms")
    _setup_entities(structure)
    structure.remove_waters()  # a third of the atoms
    parsed.header |= _header(structure, is_cif, num_models)
    only_waters = structure[0].count_atom_sites() == 0
    atoms = None if only_waters else _protein_atoms(structure, is_cif)
    if atoms is None or len(atoms.residue_name) == 0:
        return reject(Reason.NO_PROTEIN, "no polymer of amino acids in model 1")
    parsed.atoms = atoms
    return parsed


def _isotropic_structure(document: gemmi.cif.Document) -> gemmi.Structure:
    """As ``gemmi.read_structure``, without anisotropic B-factors, which cost as much as the atoms.

    Raises ValueError where a second block has atoms, too.
    """
    if any(document[i].find_mmcif_category("_atom_site.") for i in range(1, len(document))):
        raise ValueError("more than one data block has atoms")
    document[0].find_mmcif_category("_atom_site_anisotrop.").erase()
    structure = gemmi.make_structure_from_block(document[0])
    structure.merge_chain_parts()
    return structure


def _setup_entities(structure: gemmi.Structure) -> None:
    """Polymers and subchains, where the file does not say what they are.

    gemmi makes no entity of a chain without a name, as old PDB files have; here it is called _
    meanwhile, so that its subchain is "_xp".
    """
    nameless = [chain for chain in structure[0] if not chain.name]
    for chain in nameless:
        chain.name = "_"
        for residue in chain:
            residue.subchain = ""
    structure.setup_entities()
    for chain in nameless:
        chain.name = ""


_HEAD_BYTES = 1024


_OPENS_CIF = re.compile(rb"(\xef\xbb\xbf)?(\s+|#[^\n]*\n)*data_", re.IGNORECASE)
"""An mmCIF file opens a data block before anything else but comments."""


def _ends_well(data: bytes) -> bool:
    """Whether a gzip file ends with a size that its content can have.

    gemmi unpacks faster than zlib of Python, but does not notice a PDB file that ends early. There
    the last four bytes are no size but anything, and such a file goes through :func:`_gunzip`.
    """
    size = int.from_bytes(data[-4:], "little")
    return 1.5 * len(data) < size < 20 * len(data)


def _gunzip(data: bytes) -> bytes:
    """All members of a gzip file. Raises zlib.error or EOFError where it is damaged or short."""
    out = []
    while data:
        stream = zlib.decompressobj(wbits=31)
        out.append(stream.decompress(data))
        if not stream.eof:
            raise EOFError("it ends early")
        data = stream.unused_data.lstrip(b"\0")
    return b"".join(out)


def _shown_path(path: str | Path) -> str:
    """Relative to the working directory where below it, so that tables do not name machines."""
    absolute = os.path.abspath(path)
    here = os.getcwd() + os.sep
    return Path(absolute.removeprefix(here)).as_posix()


def _header(structure: gemmi.Structure, is_cif: bool, num_models: int) -> dict[str, object]:
    info = dict(structure.info.items())
    methods = [e.method for e in structure.meta.experiments if e.method]
    method = "; ".join(methods) or info.get("_exptl.method", "")
    r_free = [r.r_free for r in structure.meta.refinement if 0 < r.r_free < 1]
    date_key = "_pdbx_database_status.recvd_initial_deposition_date"
    date = info.get(date_key, "")
    return {
        "format": "mmcif" if is_cif else "pdb",
        "method": method or None,
        "resolution_angstrom": structure.resolution if structure.resolution > 0 else None,
        "r_free": r_free[0] if r_free else None,
        "deposition_date": date or None,
        "num_models": num_models,
    }


def _protein_atoms(structure: gemmi.Structure, is_cif: bool) -> Atoms:
    model = structure[0]
    peptides = _peptide_subchains(structure)
    # FlatStructure holds names of up to 7 bytes.
    long_names = _rename_chains(model, _short_names(structure))
    flat = gemmi.FlatStructure(structure)
    _rename_chains(model, long_names)

    # gemmi's residues, in the order of its atoms.
    spans = [(chain, span) for chain in model for span in chain.subchains()]
    num_residues = [len(span) for _, span in spans]
    length = np.array([len(r) for chain in model for r in chain], dtype=np.int64)
    start = np.cumsum(length) - length
    is_peptide = np.repeat([span.subchain_id() in peptides for _, span in spans], num_residues)
    rows = np.flatnonzero(is_peptide & (length > 0))
    rows = rows[flat.entity_type[start[rows]] == _POLYMER]
    first = start[rows]

    # From here on only atoms that matter: the arrays become half as long.
    position_in = np.full(len(length), -1)
    position_in[rows] = np.arange(len(rows))
    residue = np.repeat(position_in, length)
    kept = np.flatnonzero(residue >= 0)
    code = _as_int(flat.atom_names)[kept]
    name = np.minimum(np.searchsorted(_ATOM_CODES, code), len(_ATOM_CODES) - 1)
    name[_ATOM_CODES[name] != code] = -1
    altloc = flat.altlocs[kept]
    matters = np.flatnonzero((name >= 0) | (altloc != 0))
    kept, name, altloc = kept[matters], name[matters], altloc[matters]
    position = flat.pos[kept]
    if not np.isfinite(position.sum()):
        # mmCIF may give ? for a coordinate: such an atom is not there.
        placed = np.isfinite(position.sum(axis=1))
        kept, name, altloc, position = (v[placed] for v in (kept, name, altloc, position))

    short = {long: code for code, long in long_names.items()}

    def of_spans(names: list[str]) -> np.ndarray:
        codes = {name: _name_as_int(short.get(name, name)) for name in set(names)}
        return np.repeat([codes[name] for name in names], num_residues)[rows]

    label_seq = [r.label_seq or 0 for chain in model for r in chain] if is_cif else length * 0
    return Atoms(
        residue=residue[kept],
        name=name,
        altloc=altloc,
        # The decimals as written, which float32 does not hold.
        occupancy=np.round(flat.occ[kept].astype(np.float64), 6),
        b_factor=flat.b_iso[kept],
        position=position,
        residue_name=_as_int(flat.residue_names)[first],
        chain=of_spans([span.subchain_id() for _, span in spans]),
        author_chain=of_spans([chain.name for chain, _ in spans]),
        author_number=flat.resnums[first],
        insertion_code=flat.icodes[first],
        label_seq=np.array(label_seq, dtype=np.int32)[rows],
        is_het=flat.het_flags[first] == ord("H"),
        long_names=long_names,
    )


def _peptide_subchains(structure: gemmi.Structure) -> set[str]:
    """Subchains of polypeptides. Where the file does not say so, the residues decide."""
    polypeptide = (gemmi.PolymerType.PeptideL, gemmi.PolymerType.PeptideD)
    found = []
    for entity in structure.entities:
        if entity.entity_type != gemmi.EntityType.Polymer:
            continue
        if entity.polymer_type in polypeptide:
            found += entity.subchains
        elif entity.polymer_type == gemmi.PolymerType.Unknown:
            found += [
                subchain
                for subchain in entity.subchains
                if structure[0].get_subchain(subchain).check_polymer_type() in polypeptide
            ]
    return set(found)


def _short_names(structure: gemmi.Structure) -> dict[str, str]:
    """A short code for each chain, subchain and entity whose name has more than 7 bytes."""
    names = {chain.name for chain in structure[0]}
    for entity in structure.entities:
        names |= {entity.name, *entity.subchains}
    return {name: f"~{i}" for i, name in enumerate(sorted(names)) if len(name.encode()) > 7}


def _rename_chains(model: gemmi.Model, new_name: dict[str, str]) -> dict[str, str]:
    """Rename chains, subchains and entities of the model; returns what undoes it."""
    if new_name:
        for chain in model:
            chain.name = new_name.get(chain.name, chain.name)
            for residue in chain:
                residue.subchain = new_name.get(residue.subchain, residue.subchain)
                residue.entity_id = new_name.get(residue.entity_id, residue.entity_id)
    return {new: old for old, new in new_name.items()}


def _as_int(names: np.ndarray) -> np.ndarray:
    """(n,) int64 from n names of 8 bytes."""
    return np.ascontiguousarray(names).view(np.int64)[:, 0]


def _name_as_int(name: str) -> int:
    return int(np.frombuffer(name.encode().ljust(8, b"\0"), dtype=np.int64)[0])


def _as_text(names: np.ndarray) -> list[str]:
    """The other way: strings of int64 names."""
    return [name.decode() for name in names.astype(np.int64).view("S8").tolist()]


_TEMPLATES = (*RESIDUE_TYPES, "", *MODIFIED)
"""Names with a skeleton of their own; template 20 is any other residue."""


_ATOM_NAMES = sorted(
    {"C", "SE", *(atom for path in CHI_PATH.values() for atom in ("N", "CA", *path))},
    key=_name_as_int,
)


_ATOM_CODES = np.array([_name_as_int(name) for name in _ATOM_NAMES])


def _template_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """token (T,), length of the chi path (T,), slot (T, atom names), -1 for none."""
    token = np.full(len(_TEMPLATES), UNKNOWN_TOKEN, dtype=np.int8)
    path_length = np.zeros(len(_TEMPLATES), dtype=np.int64)
    slot = np.full((len(_TEMPLATES), len(_ATOM_NAMES)), -1, dtype=np.int8)
    column = {name: i for i, name in enumerate(_ATOM_NAMES)}
    for t, name in enumerate(_TEMPLATES):
        parent, renamed = MODIFIED.get(name, (name, {}))
        path = CHI_PATH.get(parent, ())
        original = {standard: own for own, standard in renamed.items()}
        token[t], path_length[t] = TOKEN.get(parent, UNKNOWN_TOKEN), len(path)
        for position, atom in enumerate(path or ("N", "CA")):
            slot[t, column[original.get(atom, atom)]] = position
        slot[t, column["C"]] = _C_SLOT
    return token, path_length, slot


_TOKEN, _PATH_LENGTH, _SLOT = _template_tables()


def _is_d_residue(name: str) -> bool:
    info = gemmi.find_tabulated_residue(name)
    return name in _D_RESIDUES or info.kind == gemmi.ResidueKind.AAD


class _Rejections:
    """Rows of the rejected table, collected in pieces of numpy columns."""

    def __init__(self) -> None:
        self.pieces: list[dict[str, np.ndarray]] = []

    def add(
        self,
        stage: str,
        scope: str,
        reason: Reason,
        entry: np.ndarray,
        detail: Sequence[str] | str,
        position: np.ndarray | None = None,
        name: np.ndarray | None = None,
        altloc: np.ndarray | None = None,
    ) -> None:
        """entry: index of the entry; position: index of the place, -1 for none;
        name: name code, 0 for none; altloc: code, -1 for none."""
        n = len(entry)
        if n == 0:
            return
        self.pieces.append(
            {
                "entry": entry,
                "position": np.full(n, -1) if position is None else position,
                "name": np.zeros(n, dtype=np.int64) if name is None else name,
                "altloc": np.full(n, -1) if altloc is None else altloc.astype(np.int64),
                "stage": np.full(n, stage, dtype=object),
                "scope": np.full(n, scope, dtype=object),
                "reason": np.full(n, reason.value, dtype=object),
                "detail": np.array([detail] * n if isinstance(detail, str) else detail, object),
            }
        )


def make_tables(batch: Sequence[Parsed], max_conformers: int) -> dict[str, pa.Table]:
    """The five tables of these entries, rows in the order of ``batch``, which is sorted by entry.

    Raises:
        QfitLatentError: ``max_conformers`` is not positive, or the entries are not sorted.
    """
    if max_conformers < 1:
        raise QfitLatentError(
            f"preprocess.max_conformers is {max_conformers}: at least 1 conformer must be allowed."
        )
    names = [parsed.entry for parsed in batch]
    if any(a >= b for a, b in pairwise(names)):
        raise QfitLatentError("The entries of a batch must be sorted and differ; sort them by id.")
    rejections = _Rejections()
    for e, parsed in enumerate(batch):
        if parsed.rejection is not None:
            stage, reason, detail = parsed.rejection
            rejections.add(stage, "entry", reason, np.array([e]), detail)
    read = [(e, parsed) for e, parsed in enumerate(batch) if parsed.atoms is not None]
    if not read:
        empty = {name: schema.empty_table() for name, schema in schemas.SCHEMAS.items()}
        return empty | {"rejected": _rejected_table(names, rejections, None)}
    residues = Residues(names, read, rejections)
    return all_tables(residues, Conformers(residues, max_conformers))


class Residues:
    """The residues of many entries, step by step; each step fills columns that later ones use.

    Places are numbered through the batch in the order of the tables (entry, chain, index); the
    kept residues are exactly one for each place, so row = place in all arrays over N.
    """

    def __init__(
        self,
        names: Sequence[str],
        read: Sequence[tuple[int, Parsed]],
        rejections: _Rejections,
    ) -> None:
        self.names, self.read, self.rejections = names, read, rejections
        atoms = [parsed.atoms for _, parsed in read]
        num_residues = np.array([len(a.residue_name) for a in atoms])
        first_residue = np.cumsum(num_residues) - num_residues

        def over_residues(name: str) -> np.ndarray:
            return np.concatenate([getattr(a, name) for a in atoms])

        self.atom_residue = np.concatenate(
            [a.residue + first for a, first in zip(atoms, first_residue, strict=True)]
        )
        self.atom_name = over_residues("name")
        self.altloc = over_residues("altloc")
        self.occupancy = over_residues("occupancy")
        self.b_factor = over_residues("b_factor")
        self.position = over_residues("position")
        self.residue_entry = np.repeat([e for e, _ in read], num_residues)
        self.residue = {
            name: over_residues(name)
            for name in ("residue_name", "author_chain", "author_number", "insertion_code")
        }
        self.residue |= {name: over_residues(name) for name in ("label_seq", "is_het")}
        self._number_places(over_residues("chain"))
        self._assign_slots()
        self._choose_residue_types()
        self._describe_types()
        self._find_altlocs()
        self._make_frames()
        self._follow_backbone()

    def _number_places(self, chain: np.ndarray) -> None:
        """place of each residue read, and what holds for each place: entry, chain, index."""
        codes, code = np.unique(chain, return_inverse=True)
        names = _as_text(codes)
        for parsed in (p for _, p in self.read if p.atoms.long_names):
            of_entry = self.residue_entry == self.names.index(parsed.entry)
            for short, long in parsed.atoms.long_names.items():
                if short in names:
                    names.append(long)
                    code[of_entry & (code == names.index(short))] = len(names) - 1
        order = sorted(range(len(names)), key=names.__getitem__)
        rank = np.empty(len(names), dtype=np.int64)
        rank[order] = np.arange(len(names))
        self.chain_names = [names[i] for i in order]
        chain_key = self.residue_entry * len(names) + rank[code]  # sorts as entry, chain

        number = self.residue["author_number"].astype(np.int64)
        key = (number - number.min()) * 128 + self.residue["insertion_code"]
        key += chain_key * (int(key.max()) + 1)
        _, first, same = np.unique(key, return_index=True, return_inverse=True)
        # Places in the order of their first residue in the file, chain by chain.
        order = np.lexsort((first, chain_key[first]))
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        self.place = place[same]
        first = first[order]
        self.entry, self.chain = self.residue_entry[first], rank[code][first]
        chain_key = chain_key[first]
        self.first_in_chain = np.r_[True, chain_key[1:] != chain_key[:-1]]
        starts = np.flatnonzero(self.first_in_chain)
        self.index = np.arange(len(first)) - starts[np.cumsum(self.first_in_chain) - 1]

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
        text = np.array(_as_text(name))
        order = np.lexsort((text, -total, self.place[rivals]))
        places = self.place[rivals][order]
        is_best = np.r_[True, places[1:] != places[:-1]]
        row[places[is_best]] = rivals[order][is_best]
        best = np.flatnonzero(is_best)[np.cumsum(is_best) - 1]
        lost = np.flatnonzero(~is_best)
        detail = [
            f"{text[order[i]]} has occupancy {total[order[i]]:.2f}, "
            f"{text[order[best[i]]]} {total[order[best[i]]]:.2f}"
            for i in lost
        ]
        self.rejections.add(
            "preprocess",
            "residue",
            Reason.MICROHETEROGENEITY,
            self.residue_entry[rivals[order[lost]]],
            detail,
            places[lost],
            name[order[lost]],
        )

    def _summed_occupancy(self, residues: np.ndarray) -> np.ndarray:
        """Sum over altlocs of the mean occupancy of their atoms that have a slot."""
        local = np.full(len(self.place), -1)
        local[residues] = np.arange(len(residues))
        atoms = np.flatnonzero((local[self.atom_residue] >= 0) & (self.atom_slot >= 0))
        group, inverse = np.unique(
            local[self.atom_residue[atoms]] * 256 + self.altloc[atoms].view(np.uint8),
            return_inverse=True,
        )
        mean = np.bincount(inverse, self.occupancy[atoms]) / np.bincount(inverse)
        total = np.bincount(group // 256, mean, minlength=len(residues))
        return np.round(total, 4)

    def _assign_slots(self) -> None:
        """component and template of each residue read, slot of each atom (-1: none)."""
        codes, self.component = np.unique(self.residue["residue_name"], return_inverse=True)
        self.component_names = _as_text(codes)
        number = {n: t for t, n in enumerate(_TEMPLATES) if n}
        template = np.array([number.get(n, UNKNOWN_TOKEN) for n in self.component_names])
        self.template = template[self.component]
        slot = _SLOT[self.template[self.atom_residue], self.atom_name]
        self.atom_slot = np.where(self.atom_name >= 0, slot, -1)

    def _describe_types(self) -> None:
        """Token and flags of each place, row of each atom."""
        self.component = self.component[self.residue_row]
        self.is_d = np.array([_is_d_residue(n) for n in self.component_names])[self.component]
        self.is_modified = np.array([n not in TOKEN for n in self.component_names])[self.component]
        template = self.template[self.residue_row]
        self.token, self.path_length = _TOKEN[template], _PATH_LENGTH[template]
        self.num_chi = NUM_CHI[self.token]
        row_of_residue = np.full(len(self.place), -1)
        row_of_residue[self.residue_row] = np.arange(len(self.residue_row))
        self.atom_row = row_of_residue[self.atom_residue]

    def _find_altlocs(self) -> None:
        """blank (N,8) atom of each slot, -1 for none; the same for named altlocs, own (G,8)."""
        num = len(self.residue_row)
        used = np.flatnonzero((self.atom_slot >= 0) & (self.atom_row >= 0))[
            ::-1
        ]  # of repeated atoms the first is last
        blank = used[self.altloc[used] == 0]
        self.blank = np.full((num, _NUM_SLOTS), -1)
        self.blank[self.atom_row[blank], self.atom_slot[blank]] = blank

        named = np.flatnonzero((self.altloc != 0) & (self.atom_row >= 0))
        label = self.altloc.view(np.uint8)
        key, inverse = np.unique(
            self.atom_row[named] * 256 + label[named].astype(np.int64), return_inverse=True
        )
        self.group_row, self.group_label = key // 256, key % 256
        self.num_altlocs = np.bincount(self.group_row, minlength=num)
        self.own = np.full((len(key), _NUM_SLOTS), -1)
        in_slot = self.atom_slot[named] >= 0
        atoms, group = named[in_slot][::-1], inverse[in_slot][::-1]
        self.own[group, self.atom_slot[atoms]] = atoms

    def points(self, atoms: np.ndarray) -> np.ndarray:
        """(..., 3) positions of atoms; nan where -1."""
        points = self.position[atoms]
        points[atoms < 0] = np.nan
        return points

    def mean_occupancy(self, atoms: np.ndarray) -> np.ndarray:
        """(n,) mean over the atoms of each row that are there; nan where none is."""
        there = atoms >= 0
        total = np.where(there, self.occupancy[atoms], 0.0).sum(axis=1)
        with np.errstate(invalid="ignore"):
            return np.round(total / there.sum(axis=1), 6)

    def _make_frames(self) -> None:
        """backbone (N,3,3) positions of N, CA, C; rotation, frame_ok and frame_label (-1: none)."""
        chosen = self.blank[:, _BACKBONE]
        label = np.where((chosen >= 0).all(axis=1), 0, -1)
        own = self.own[:, _BACKBONE]
        merged = np.where(own >= 0, own, chosen[self.group_row])
        fits = np.flatnonzero(
            (own >= 0).any(axis=1) & (merged >= 0).all(axis=1) & (label[self.group_row] < 0)
        )
        occupancy = self.mean_occupancy(own[fits])
        worst_first = fits[np.lexsort((-self.group_label[fits], occupancy))]
        chosen[self.group_row[worst_first]] = merged[worst_first]
        label[self.group_row[worst_first]] = self.group_label[worst_first]
        self.backbone = self.points(chosen)
        self.rotation, self.translation, self.frame_ok = geometry.frames(
            *self.backbone.transpose(1, 0, 2)
        )
        self.frame_label = np.where(self.frame_ok, label, -1)

        incomplete = np.flatnonzero(label < 0)
        missing = self._missing_backbone(incomplete)
        self.reject("frame", Reason.INCOMPLETE_BACKBONE, incomplete, missing)
        degenerate = np.flatnonzero((label >= 0) & ~self.frame_ok)
        self.reject(
            "frame", Reason.DEGENERATE_BACKBONE, degenerate, "N, CA and C coincide or are on a line"
        )

    def _missing_backbone(self, rows: np.ndarray) -> list[str]:
        """What lacks, in words: atoms in no altloc, or no altloc that has all three."""
        anywhere = self.blank[:, _BACKBONE] >= 0
        np.logical_or.at(anywhere, self.group_row, self.own[:, _BACKBONE] >= 0)
        atoms = np.array(["N", "CA", "C"])
        return [
            f"no {', '.join(atoms[~there])}" if not there.all() else "no altloc has N, CA and C"
            for there in anywhere[rows]
        ]

    def reject(
        self,
        scope: str,
        reason: Reason,
        rows: np.ndarray,
        detail: Sequence[str] | str,
        altloc: np.ndarray | None = None,
    ) -> None:
        name = self.residue["residue_name"][self.residue_row[rows]]
        self.rejections.add(
            "preprocess", scope, reason, self.entry[rows], detail, rows, name, altloc
        )

    def _follow_backbone(self) -> None:
        """segment, phi, psi, omega, secondary structure and number of neighbours."""
        n, ca, c = self.backbone.transpose(1, 0, 2)
        gap = n[1:] - c[:-1]
        with np.errstate(invalid="ignore"):
            near = np.einsum("ij,ij->i", gap, gap) < BOND_ANGSTROM**2
        bonded = np.r_[False, near & ~self.first_in_chain[1:]]  # to the residue before
        broken = np.cumsum(~bonded)
        starts = np.maximum.accumulate(np.where(self.first_in_chain, np.arange(len(n)), 0))
        self.segment = broken - broken[starts]

        before = np.flatnonzero(bonded)
        after = before - 1
        num = len(n)
        self.phi, self.psi, self.omega = np.full((3, num), np.nan)
        self.phi[before] = geometry.dihedral(c[after], n[before], ca[before], c[before])
        self.psi[after] = geometry.dihedral(n[after], ca[after], c[after], n[before])
        self.omega[before] = geometry.dihedral(ca[after], c[after], n[before], ca[before])
        self.secondary = _secondary(self.phi, self.psi, broken)

        cb = geometry.virtual_cb(n, ca, c)
        self.num_neighbours = np.zeros(num, dtype=np.int64)
        ends = np.flatnonzero(np.r_[self.entry[1:] != self.entry[:-1], True]) + 1
        for start, end in zip(np.r_[0, ends[:-1]], ends, strict=True):
            rows = start + np.flatnonzero(self.frame_ok[start:end])
            self.num_neighbours[rows] = _count_within(cb[rows], NEIGHBOUR_ANGSTROM)


class Conformers:
    """The conformers of the residues, in the order of the table; the others are rejected.

    columns: (M,) or (M,4) arrays, ``row`` among them; (N,) num_conformers, occupancy_sum and
    disagreement of each residue; num_conformers_read of each entry.
    """

    def __init__(self, residues: Residues, max_conformers: int) -> None:
        own = residues.own[:, _PATH]
        has_chi = residues.num_chi > 0
        of_chi = has_chi[residues.group_row]
        is_own = (own >= 0).any(axis=1)
        no_own = np.flatnonzero(of_chi & ~is_own)
        residues.reject(
            "conformer",
            Reason.NO_OWN_CHI_ATOMS,
            residues.group_row[no_own],
            "",
            residues.group_label[no_own],
        )
        named = np.flatnonzero(of_chi & is_own)
        with_named = np.zeros(len(has_chi), dtype=bool)
        with_named[residues.group_row[named]] = True
        lone = np.flatnonzero(has_chi & ~with_named)

        shared = residues.blank[:, _PATH]
        row = np.r_[residues.group_row[named], lone]
        label = np.r_[residues.group_label[named], np.zeros(len(lone), dtype=np.int64)]
        own = np.concatenate([own[named], shared[lone]])
        atoms = np.where(own >= 0, own, shared[row])
        read = np.r_[row, residues.group_row[no_own]]
        self.num_conformers_read = np.bincount(residues.entry[read], minlength=len(residues.names))

        points = residues.points(atoms)
        chi = np.full((len(row), NUM_CHI_MAX), np.nan)
        for d in range(NUM_CHI_MAX):
            of = np.flatnonzero(residues.num_chi[row] > d)
            chi[of, d] = geometry.dihedral(*points[of, d : d + 4].transpose(1, 0, 2))
        there = own >= 0
        of_atom = residues.occupancy[own]
        occupancy = residues.mean_occupancy(own)
        self.columns = {
            "row": row,
            "label": label,
            "chi": chi,
            "occupancy": occupancy,
            "occupancy_min": np.where(there, of_atom, np.inf).min(axis=1, initial=np.inf),
            "occupancy_max": np.where(there, of_atom, -np.inf).max(axis=1, initial=-np.inf),
            "num_atoms_own": there.sum(axis=1),
            "num_atoms_shared": (atoms >= 0).sum(axis=1) - there.sum(axis=1),
            "num_atoms_missing": residues.path_length[row] - (atoms >= 0).sum(axis=1),
            "mean_b": np.where(there, residues.b_factor[own], 0.0).sum(axis=1)
            / np.maximum(there.sum(axis=1), 1),
        }
        kept = self._reject(residues, Reason.NO_CHI, np.isfinite(chi).any(axis=1), None)
        kept = self._reject(residues, Reason.NEGATIVE_OCCUPANCY, occupancy >= 0, kept)
        total = np.bincount(row[kept], occupancy[kept], len(has_chi))
        kept = self._reject(residues, Reason.ZERO_OCCUPANCY, total[row] > 0, kept)

        order = np.flatnonzero(kept)
        order = order[np.lexsort((label[order], -occupancy[order], row[order]))]
        of_row = row[order]
        first = np.flatnonzero(np.r_[True, of_row[1:] != of_row[:-1]][: len(order)])
        rank = np.full(len(row), -1)
        rank[order] = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
        kept = self._reject(residues, Reason.OVER_LIMIT, rank < max_conformers, kept)
        order = order[kept[order]]
        self.columns = {n: values[order] for n, values in self.columns.items()}
        self.columns["rank"] = rank[order]

        row, occupancy = self.columns["row"], self.columns["occupancy"]
        self.num_conformers = np.bincount(row, minlength=len(has_chi))
        self.occupancy_sum = np.bincount(row, occupancy, len(has_chi))
        self.columns["occupancy_normalised"] = occupancy / self.occupancy_sum[row]
        spread = self.columns["occupancy_max"] - self.columns["occupancy_min"]
        # 0.31 - 0.30 is no disagreement, whatever binary fractions make of it.
        disagrees = spread > OCCUPANCY_DISAGREEMENT + 1e-9
        self.disagreement = np.bincount(row, disagrees, len(has_chi)) > 0

    def _reject(
        self, residues: Residues, reason: Reason, good: np.ndarray, before: np.ndarray | None
    ) -> np.ndarray:
        """The conformers that were kept before and are good; the others become rejected rows."""
        before = np.ones(len(good), dtype=bool) if before is None else before
        lost = np.flatnonzero(before & ~good)
        if len(lost):
            detail = [f"occupancy {o:.3g}" for o in self.columns["occupancy"][lost]]
            residues.reject(
                "conformer",
                reason,
                self.columns["row"][lost],
                "" if reason is Reason.NO_CHI else detail,
                self.columns["label"][lost],
            )
        return before & good


def all_tables(residues: Residues, conformers: Conformers) -> dict[str, pa.Table]:
    """The five tables."""
    residue = {name: values[residues.residue_row] for name, values in residues.residue.items()}
    entry_of = pa.array(residues.names, pa.string())
    chain_of = pa.array(residues.chain_names, pa.string())
    key = {
        "entry": entry_of.take(pa.array(residues.entry)),
        "chain": chain_of.take(pa.array(residues.chain)),
        "index": residues.index,
    }
    residue_columns = key | {
        "author_chain": pa.array(author_chain_text(residues), pa.string()),
        "author_number": residue["author_number"],
        "insertion_code": _INSERTION_CODES.take(pa.array(residue["insertion_code"])),
        "label_seq": pa.array(residue["label_seq"], mask=residue["label_seq"] == 0),
        "name": pa.array(residues.component_names).take(pa.array(residues.component)),
        "token": residues.token,
        "segment": residues.segment,
        "is_modified": residues.is_modified,
        "is_het": residue["is_het"],
        "is_d_residue": residues.is_d,
        "is_microheterogeneous": residues.num_residue_types > 1,
        "num_residue_types": residues.num_residue_types,
        "phi_rad": _angle(residues.phi),
        "psi_rad": _angle(residues.psi),
        "omega_rad": _angle(residues.omega),
        "num_chi": residues.num_chi,
        "num_conformers": conformers.num_conformers,
        "num_altlocs": residues.num_altlocs,
        "occupancy_sum": conformers.occupancy_sum,
        "has_occupancy_disagreement": conformers.disagreement,
        "num_neighbours": pa.array(residues.num_neighbours, mask=~residues.frame_ok),
        "secondary": _SECONDARY.take(pa.array(residues.secondary)),
    }
    frames = key | {
        "rotation": _lists(residues.rotation.reshape(-1, 9), residues.frame_ok),
        "translation_angstrom": _lists(residues.translation, residues.frame_ok),
        "altloc": _ALTLOCS.take(
            pa.array(np.maximum(residues.frame_label, 0), mask=residues.frame_label < 0)
        ),
    }
    conformer = conformers.columns
    row = pa.array(conformer["row"])
    conformer_columns = {
        "entry": key["entry"].take(row),
        "chain": key["chain"].take(row),
        "index": residues.index[conformer["row"]],
        "altloc": _ALTLOCS.take(pa.array(conformer["label"])),
        "mean_b_angstrom2": conformer["mean_b"],
        **{f"chi{d + 1}_rad": _angle(conformer["chi"][:, d]) for d in range(NUM_CHI_MAX)},
        **{n: conformer[n] for n in schemas.CONFORMERS.names if n in conformer},
    }
    return {
        "entries": _table(_entries(residues, conformers), schemas.ENTRIES),
        "residues": _table(residue_columns, schemas.RESIDUES),
        "frames": _table(frames, schemas.FRAMES),
        "conformers": _table(conformer_columns, schemas.CONFORMERS),
        "rejected": _rejected_table(residues.names, residues.rejections, residues),
    }


def author_chain_text(residues: Residues) -> np.ndarray:
    """(N,) names of the author's chains."""
    codes = residues.residue["author_chain"][residues.residue_row]
    unique, inverse = np.unique(codes, return_inverse=True)
    text = np.array(_as_text(unique), dtype=object)[inverse]
    for parsed in (p for _, p in residues.read if p.atoms.long_names):
        of_entry = residues.entry == residues.names.index(parsed.entry)
        for short, long in parsed.atoms.long_names.items():
            text[of_entry & (text == short)] = long
    return text


def _entries(residues: Residues, conformers: Conformers) -> dict[str, object]:
    num = len(residues.names)

    def count(rows: np.ndarray) -> np.ndarray:
        return np.bincount(residues.entry[rows], minlength=num)

    per_entry = {
        "num_chains": count(residues.first_in_chain),
        "num_residues_read": np.bincount(residues.residue_entry, minlength=num),
        "num_residues": np.bincount(residues.entry, minlength=num),
        "num_residues_rejected": _num_rejected(residues, "residue"),
        "num_conformers_read": conformers.num_conformers_read,
        "num_conformers": count(conformers.columns["row"]),
        "num_conformers_rejected": _num_rejected(residues, "conformer"),
        "num_multiconformer": count(conformers.num_conformers >= 2),
        "num_frames": count(residues.frame_ok),
    }
    which = np.array([e for e, _ in residues.read])
    columns: dict[str, object] = {n: values[which] for n, values in per_entry.items()}
    for name in ("entry", "source", "url"):
        columns[name] = [getattr(parsed, name) for _, parsed in residues.read]
    for name in schemas.ENTRIES.names:
        if name not in columns:
            columns[name] = [parsed.header[name] for _, parsed in residues.read]
    return columns


def _num_rejected(residues: Residues, scope: str) -> np.ndarray:
    counts = np.zeros(len(residues.names), dtype=np.int64)
    for piece in residues.rejections.pieces:
        if piece["scope"][0] == scope:
            counts += np.bincount(piece["entry"], minlength=len(counts))
    return counts


def _rejected_table(
    names: Sequence[str], rejections: _Rejections, residues: Residues | None
) -> pa.Table:
    if not rejections.pieces:
        return schemas.REJECTED.empty_table()
    joined = {
        name: np.concatenate([piece[name] for piece in rejections.pieces])
        for name in rejections.pieces[0]
    }
    component = np.array([text or None for text in _as_text(joined["name"])], dtype=object)
    scope = joined["scope"].astype(str)
    order = np.lexsort(
        (
            joined["reason"].astype(str),
            scope,
            joined["altloc"],
            np.array([text or "" for text in component]),
            joined["position"],
            joined["entry"],
        )
    )
    joined = {name: values[order] for name, values in joined.items()}
    position, nowhere = joined["position"], joined["position"] < 0
    columns = {
        "entry": pa.array(names, pa.string()).take(pa.array(joined["entry"])),
        "altloc": _ALTLOCS.take(
            pa.array(np.maximum(joined["altloc"], 0), mask=joined["altloc"] < 0)
        ),
        "name": component[order],
        **{name: joined[name] for name in ("stage", "scope", "reason", "detail")},
    }
    if residues is None:
        absent = ("chain", "index", "author_chain", "author_number", "insertion_code")
        columns |= {name: [None] * len(position) for name in absent}
    else:
        at = np.maximum(position, 0)
        residue = {n: values[residues.residue_row][at] for n, values in residues.residue.items()}
        chain_names = np.array(residues.chain_names, dtype=object)
        columns |= {
            "chain": pa.array(chain_names[residues.chain[at]], pa.string(), mask=nowhere),
            "index": pa.array(residues.index[at], mask=nowhere),
            "author_chain": pa.array(author_chain_text(residues)[at], pa.string(), mask=nowhere),
            "author_number": pa.array(residue["author_number"], mask=nowhere),
            "insertion_code": _INSERTION_CODES.take(
                pa.array(residue["insertion_code"], mask=nowhere)
            ),
        }
    return _table(columns, schemas.REJECTED)


_ALTLOCS = pa.array(["", *(bytes([i]).decode("latin-1") for i in range(1, 256))], pa.string())


_INSERTION_CODES = pa.array(
    [bytes([i]).decode("latin-1").strip("\0 ") for i in range(128)], pa.string()
)


_SECONDARY = pa.array(["loop", "helix", "strand"])


_POLYMER = gemmi.EntityType.Polymer.value


def _table(columns: dict[str, object], schema: pa.Schema) -> pa.Table:
    """Columns by name, cast to the schema's types."""
    arrays = []
    for declared in schema:
        values = columns[declared.name]
        if isinstance(values, np.ndarray) and pa.types.is_primitive(declared.type):
            values = values.astype(declared.type.to_pandas_dtype(), copy=False)
        array = values if isinstance(values, pa.Array) else pa.array(values, declared.type)
        arrays.append(array if array.type == declared.type else array.cast(declared.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _angle(values: np.ndarray) -> pa.Array:
    """float32 angles in (-pi, pi]; null where nan."""
    angle = values.astype(np.float32)
    # float32(pi) is above pi, and its negative below -pi.
    limit = np.nextafter(np.float32(np.pi), np.float32(0))
    angle = np.clip(angle, -limit, limit)
    return pa.array(angle, mask=np.isnan(values))


def _lists(values: np.ndarray, valid: np.ndarray) -> pa.Array:
    """(n, width) as a float32 list column of fixed size, null where not valid."""
    flat = np.where(valid[:, None], values, 0.0).astype(np.float32).ravel()
    width = values.shape[1]
    kind = pa.list_(pa.field("element", pa.float32(), nullable=False), width)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind, mask=pa.array(~valid))


def _secondary(phi: np.ndarray, psi: np.ndarray, run: np.ndarray) -> np.ndarray:
    """(N,) 0 loop, 1 helix, 2 strand; run numbers the stretches of bonded residues."""
    phi, psi = np.degrees(phi), np.degrees(psi)
    found = np.zeros(len(phi), dtype=np.int64)
    for kind, ((phi_low, phi_high), (psi_low, psi_high), least) in ((1, _HELIX), (2, _STRAND)):
        with np.errstate(invalid="ignore"):
            turned = np.where(psi < psi_low, psi + 360.0, psi)
            inside = (phi >= phi_low) & (phi <= phi_high) & (turned >= psi_low)
            inside &= turned <= psi_high
        same = inside[1:] & inside[:-1] & (run[1:] == run[:-1])
        stretch = np.cumsum(np.r_[True, ~same])
        long = np.bincount(stretch)[stretch] >= least
        found[inside & long] = kind
    return found


def _count_within(points: np.ndarray, radius: float) -> np.ndarray:
    """(n,) number of other points within the radius; blocks of rows keep memory flat."""
    if len(points) == 0:
        return np.zeros(0, dtype=np.int64)
    # Half the time of float64; about the centre it tells distances apart to 1e-4 angstrom.
    points = (points - points.mean(axis=0)).astype(np.float32)
    square = np.einsum("ij,ij->i", points, points)
    one = np.ones_like(square)
    right = np.concatenate([-2 * points.T, square[None], one[None]])
    left = np.concatenate([points, one[:, None], square[:, None]], axis=1)
    counts = [
        np.count_nonzero(left[start : start + 256] @ right <= radius**2, axis=1)
        for start in range(0, len(points), 256)
    ]
    return np.concatenate(counts) - 1
