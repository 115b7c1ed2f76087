"""One file becomes flat arrays of its protein atoms, with their slots in the chi path.

Shapes: A atoms, R residues in file order, T templates (residue types with a skeleton of their own).
"""

import hashlib
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import gemmi
import numpy as np

from qfitlatent.chemistry.residues import (
    CHI_PATH,
    MODIFIED,
    OTHER_ATOM_NAMES,
    RESIDUE_TYPES,
    TOKEN,
    UNKNOWN_TOKEN,
    standard_name,
)
from qfitlatent.structure.coordinates import (
    HEAD_BYTES,
    OPENS_CIF,
    ends_well,
    gunzip,
    isotropic_structure,
    setup_entities,
)
from qfitlatent.structure.rejections import Loss
from qfitlatent.tables.reasons import Reason

C_SLOT = 7
"""Slots 0 to 6 are the atoms of the chi path in order (0 is N, 1 is CA), slot 7 is C."""


@dataclass
class Atoms:
    """The protein of one entry: arrays over its atoms, and over its residues in file order.

    Of blank atoms only those that define a frame or a chi are here. What has a name, of whatever
    length, is an index into ``names``, the first of which is empty.
    """

    names: list[str]
    residue: np.ndarray  # (A,) index into the residues below
    name: np.ndarray  # (A,) index into ATOM_NAMES, -1 for any other
    altloc: np.ndarray  # (A,) index into names, 0 for blank
    occupancy: np.ndarray  # (A,) float64
    b_factor: np.ndarray  # (A,) float32
    position: np.ndarray  # (A,3) float64, angstrom
    place: np.ndarray  # (R,) residue types at one place share its number, which rises in a chain
    residue_name: np.ndarray  # (R,) index into names, as deposited
    chain: np.ndarray  # (R,) index into names
    author_chain: np.ndarray  # (R,) index into names
    author_number: np.ndarray  # (R,) int32
    insertion_code: np.ndarray  # (R,) index into names, 0 for none
    label_seq: np.ndarray  # (R,) int32, 0 for none
    is_het: np.ndarray  # (R,) bool


@dataclass
class Parsed:
    """One entry on its way to the tables: either ``atoms`` or a ``rejection``."""

    entry: str
    source: str
    url: str | None
    header: dict[str, object] = field(default_factory=dict)
    atoms: Atoms | None = None
    rejection: tuple[str, Reason, str] | None = None
    num_backbones: int | None = None
    """Residues with N, CA and C in the raw records of model 1, counted from the text alone; a
    residue type more at one place counts as one more. None where nobody counted."""
    losses: list[Loss] = field(default_factory=list)
    """What is in the raw records and not in ``atoms``."""


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
    head = data[:HEAD_BYTES]
    is_gzip = head[:2] == b"\x1f\x8b"
    by_gemmi = is_gzip and str(path).endswith(".gz") and ends_well(data)
    if is_gzip and not by_gemmi:
        try:
            data = gunzip(data)
        except (zlib.error, EOFError) as error:
            return reject(Reason.TRUNCATED, f"the gzip stream is damaged: {error}")
        head = data[:HEAD_BYTES]
    elif is_gzip:
        head = zlib.decompressobj(wbits=31).decompress(head, HEAD_BYTES)
    if not head.strip() and not data.strip():
        return reject(Reason.EMPTY, "the file holds nothing")
    is_cif = OPENS_CIF.match(head) is not None
    try:
        if is_cif:
            document = gemmi.cif.read(str(path)) if by_gemmi else gemmi.cif.read_string(data)
            structure = isotropic_structure(document)
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
    setup_entities(structure)
    structure.remove_waters()  # a third of the atoms
    parsed.header |= _header(structure, is_cif, num_models)
    only_waters = structure[0].count_atom_sites() == 0
    atoms = None if only_waters else _protein_atoms(structure, is_cif)
    if atoms is None or len(atoms.position) == 0:
        return reject(Reason.NO_PROTEIN, "no polymer of amino acids in model 1")
    parsed.atoms = atoms
    return parsed


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

    names = [""]

    def indices(values: np.ndarray) -> np.ndarray:
        codes, inverse = np.unique(values, return_inverse=True)
        texts = [code.decode().strip() if isinstance(code, bytes) else code for code in codes]
        found = [long_names.get(text, text) for text in texts]
        names.extend(name for name in found if name not in names)
        return np.array([names.index(name) for name in found], dtype=np.int32)[inverse]

    def of_spans(values: list[str]) -> np.ndarray:
        return indices(np.repeat(np.array(values), num_residues)[rows])

    label_seq = [r.label_seq or 0 for chain in model for r in chain] if is_cif else length * 0
    number, insertion_code = flat.resnums[first], flat.icodes[first]
    chain = of_spans([span.subchain_id() for _, span in spans])
    key = (number.astype(np.int64) * 128 + insertion_code) * len(names) + chain
    _, at, same = np.unique(key, return_index=True, return_inverse=True)
    return Atoms(
        names=names,
        residue=residue[kept],
        name=name,
        altloc=indices(altloc.view("S1")),
        # The decimals as written, which float32 does not hold.
        occupancy=np.round(flat.occ[kept].astype(np.float64), 6),
        b_factor=flat.b_iso[kept],
        position=position,
        place=at[same],
        residue_name=indices(np.ascontiguousarray(flat.residue_names)[first].view("S8")[:, 0]),
        chain=chain,
        author_chain=of_spans([chain.name for chain, _ in spans]),
        author_number=number,
        insertion_code=indices(insertion_code.view("S1")),
        label_seq=np.array(label_seq, dtype=np.int32)[rows],
        is_het=flat.het_flags[first] == ord("H"),
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


_SKELETONS = (*RESIDUE_TYPES, "", *MODIFIED)
"""Names with a skeleton of their own; template 20 is any other residue."""


def template_of(name: str) -> int:
    """Index of the template of a component, whatever a program calls it."""
    name = standard_name(name)
    return _SKELETONS.index(name) if name in _SKELETONS else UNKNOWN_TOKEN


ATOM_NAMES = sorted(
    {"C", *(atom for path in CHI_PATH.values() for atom in ("N", "CA", *path))}
    | {name for _, names in MODIFIED.values() for name in names}
    | {name for names in OTHER_ATOM_NAMES.values() for name in names},
    key=_name_as_int,
)


_ATOM_CODES = np.array([_name_as_int(name) for name in ATOM_NAMES])


def _template_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """token (T,), length of the chi path (T,), slot (T, atom names), -1 for none."""
    token = np.full(len(_SKELETONS), UNKNOWN_TOKEN, dtype=np.int8)
    path_length = np.zeros(len(_SKELETONS), dtype=np.int64)
    slot = np.full((len(_SKELETONS), len(ATOM_NAMES)), -1, dtype=np.int8)
    column = {name: i for i, name in enumerate(ATOM_NAMES)}
    for t, name in enumerate(_SKELETONS):
        parent, others = MODIFIED.get(name, (name, OTHER_ATOM_NAMES.get(name, {})))
        path = CHI_PATH.get(parent, ())
        token[t], path_length[t] = TOKEN.get(parent, UNKNOWN_TOKEN), len(path)
        place = {atom: position for position, atom in enumerate(path or ("N", "CA"))}
        place |= {other: place[atom] for other, atom in others.items()}
        for atom, position in place.items():
            slot[t, column[atom]] = position
        slot[t, column["C"]] = C_SLOT
    return token, path_length, slot


TEMPLATE_TOKEN, TEMPLATE_PATH_LENGTH, TEMPLATE_SLOT = _template_tables()


_POLYMER = gemmi.EntityType.Polymer.value
