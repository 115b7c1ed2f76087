"""Opening a coordinate file: bytes, gzip, mmCIF or PDB format, and writing it back as text."""

import gzip
import re
import zlib
from pathlib import Path
from textwrap import wrap

import gemmi


def isotropic_structure(document: gemmi.cif.Document) -> gemmi.Structure:
    """As ``gemmi.read_structure``, without anisotropic B-factors, which cost as much as the atoms.

    Raises ValueError where a second block has atoms, too.
    """
    if any(document[i].find_mmcif_category("_atom_site.") for i in range(1, len(document))):
        raise ValueError("more than one data block has atoms")
    document[0].find_mmcif_category("_atom_site_anisotrop.").erase()
    structure = gemmi.make_structure_from_block(document[0])
    structure.merge_chain_parts()
    return structure


def setup_entities(structure: gemmi.Structure) -> None:
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


HEAD_BYTES = 1024


OPENS_CIF = re.compile(rb"(\xef\xbb\xbf)?(\s|#[^\n]*\n)*data_", re.IGNORECASE)
"""An mmCIF file opens a data block before anything else but comments."""


def ends_well(data: bytes) -> bool:
    """Whether a gzip file ends with a size that its content can have.

    gemmi unpacks faster than zlib of Python, but does not notice a PDB file that ends early. There
    the last four bytes are no size but anything, and such a file goes through :func:`gunzip`.
    """
    size = int.from_bytes(data[-4:], "little")
    return 1.5 * len(data) < size < 20 * len(data)


def gunzip(data: bytes) -> bytes:
    """All members of a gzip file. Raises zlib.error or EOFError where it is damaged or short."""
    out = []
    while data:
        stream = zlib.decompressobj(wbits=31)
        out.append(stream.decompress(data))
        if not stream.eof:
            raise EOFError("it ends early")
        data = stream.unused_data.lstrip(b"\0")
    return b"".join(out)


NAMELESS = "_"
"""Name in mmCIF of a chain without one, as in structure.py."""


def open_structure(path: str | Path) -> tuple[gemmi.Structure, gemmi.cif.Document | None]:
    """The structure and, of an mmCIF file, its document, whose other categories are to be kept.

    Read in the same way as for the tables (structure.py), so that the ids agree.
    """
    data = Path(path).read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    text = data.decode("utf-8", errors="replace")
    if OPENS_CIF.match(data[:HEAD_BYTES]):
        document = gemmi.cif.read_string(text)
        structure = gemmi.make_structure_from_block(document[0])
        structure.merge_chain_parts()
    else:
        document = None
        structure = gemmi.read_pdb_string(text)
        structure.merge_chain_parts()
    del structure[1:]
    setup_entities(structure)
    return structure, document


def mmcif_text(
    structure: gemmi.Structure, document: gemmi.cif.Document | None, note: dict[str, str]
) -> str:
    """The structure as mmCIF: the input's document with new atoms where there is one."""
    structure.assign_serial_numbers()
    if document is None:
        if any(not chain.name for chain in structure[0]):
            # Old PDB files have chains without a name, which mmCIF cannot write.
            structure = structure.clone()
            structure.rename_chain("", NAMELESS)
        groups = gemmi.MmcifOutputGroups(True)
        groups.auth_all = True
        document = structure.make_mmcif_document(groups)
        for row in document[0].find(["_struct_asym.id"]):
            row[0] = gemmi.cif.quote(row[0])  # gemmi 0.7 writes _xp here without its quotes
    else:
        groups = gemmi.MmcifOutputGroups(False)
        groups.atoms = groups.group_pdb = groups.auth_all = True
        structure.update_mmcif_block(document[0], groups)
    document[0].set_pairs("_qfitlatent.", {k: gemmi.cif.quote(v) for k, v in note.items()})
    return document.as_string(gemmi.cif.Style.Pdbx)


def pdb_text(structure: gemmi.Structure, note: dict[str, str]) -> str | None:
    """The structure in PDB format; None where that format cannot hold it.

    It has two characters for a chain; longer residue names are shortened as gemmi does.
    """
    if any(len(chain.name) > 2 for chain in structure[0]):
        return None
    copy = structure.clone()
    copy.shorten_ccd_codes()
    lines = copy.make_pdb_string().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if line[:6].strip() not in _TITLE_SECTION)
    text = [part for key, value in note.items() for part in wrap(f"{key.upper()}: {value}", 68)]
    return "".join([*lines[:at], *(f"REMARK 999 {line:<69}\n" for line in text), *lines[at:]])


_TITLE_SECTION = frozenset(
    "HEADER OBSLTE TITLE SPLIT CAVEAT COMPND SOURCE KEYWDS EXPDTA NUMMDL MDLTYP AUTHOR REVDAT "  # noqa: SIM905
    "SPRSDE JRNL REMARK".split()
)
"""Records that stand before and among the remarks."""
