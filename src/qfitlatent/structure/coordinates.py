"""A structure to change, as gemmi's, with the residues and chains of the tables."""

from collections import Counter
from itertools import count
from pathlib import Path

import gemmi
import numpy as np

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import is_water
from qfitlatent.structure.atoms import read_sites
from qfitlatent.structure.containers import default_limits, plain_text, read_bytes
from qfitlatent.structure.crystal import drop_impossible_cell
from qfitlatent.structure.mmcif import is_mmcif
from qfitlatent.structure.polymer import BOND_ANGSTROM, Polymer
from qfitlatent.structure.sites import Sites

NAMELESS = "_"
"""Name in mmCIF of a chain without one."""


def open_structure(path: str | Path) -> tuple[gemmi.Structure, gemmi.cif.Document | None]:
    """The first model and, of an mmCIF file, its document, whose other categories are to be kept.

    Residues and subchains are those of the tables. Where gemmi reads the file in another way, the
    structure is made from the raw records: it then has no anisotropic B factors.

    Raises:
        QfitLatentError: the file cannot be read, or has names that gemmi cannot hold.
    """
    limits = default_limits()
    text = plain_text(read_bytes(path, limits), limits)
    sites = read_sites(text, limits)
    polymer = Polymer(sites)
    document = None
    try:
        if is_mmcif(text):
            document = gemmi.cif.read_string(text)
            while not document[0].find_mmcif_category("_atom_site."):
                del document[0]
            structure = gemmi.make_structure_from_block(document[0])
        else:
            # In ASCII: gemmi cuts columns by bytes, also within a letter of several.
            letters = text.decode("utf-8", errors="replace").encode("ascii", errors="replace")
            structure = gemmi.read_pdb_string(letters.decode())
        structure.merge_chain_parts()
        del structure[1:]
        _setup_entities(structure)
    except (ValueError, RuntimeError, IndexError):
        structure = gemmi.Structure()
    drop_impossible_cell(structure)
    if len(structure) and _agrees(structure[0], sites, polymer):
        _release_others(structure, sites, polymer)
    else:
        structure = _from_sites(structure, sites, polymer)
    return structure, document


def _setup_entities(structure: gemmi.Structure) -> None:
    """Polymers and subchains, where the file does not say what they are.

    gemmi makes no entity of a chain without a name, as old PDB files have; here it is called _
    meanwhile, so that its subchain is "_xp".
    """
    nameless = [chain for chain in structure[0] if not chain.name]
    for chain in nameless:
        chain.name = NAMELESS
        for residue in chain:
            residue.subchain = ""
    structure.setup_entities()
    for chain in nameless:
        chain.name = ""


def _agrees(model: gemmi.Model, sites: Sites, polymer: Polymer) -> bool:
    """Whether gemmi has all atoms, and the residues of the tables in the same subchains."""
    num_runs = 1 + np.count_nonzero(np.diff(polymer.place)) if len(polymer.place) else 0
    if num_runs > len(np.unique(polymer.place)):
        return False  # residue types of one place stand apart
    texts = sites.names.texts
    labels = {texts[i] or "\0" for i in np.unique(sites.altloc).tolist()}
    if (
        model.count_atom_sites() != len(sites.atom)
        or not np.isfinite(sites.position).all()
        or labels != {atom.altloc for chain in model for residue in chain for atom in residue}
    ):
        return False
    found = Counter(_key(residue) for chain in model for residue in chain)
    wanted = _keys(sites, polymer)
    # Each once: not in pieces, and no two residues under one number.
    return len(wanted) == len(polymer.first) and all(found[key] == 1 for key in wanted)


def _key(residue: gemmi.Residue) -> tuple:
    number = residue.seqid
    return residue.subchain, number.num, number.icode.strip(), residue.name


def _keys(sites: Sites, polymer: Polymer) -> set[tuple]:
    """What ``_key`` says of each residue of the tables."""
    texts = sites.names.texts
    return {
        (texts[chain], int(sites.number[g]), texts[sites.insertion_code[g]], _name(sites, g))
        for g, chain in zip(polymer.first.tolist(), polymer.chain.tolist(), strict=True)
    }


def _release_others(structure: gemmi.Structure, sites: Sites, polymer: Polymer) -> None:
    """What stands in a protein and is no residue of it, such as an ion, becomes a molecule.

    Caps (ACE, NME) are bonded to residues, and stay.
    """
    wanted = _keys(sites, polymer)
    proteins = {key[0] for key in wanted}
    taken = {residue.subchain for chain in structure[0] for residue in chain}
    released = False
    for chain in structure[0]:
        for i, residue in enumerate(chain):
            if residue.subchain not in proteins or _key(residue) in wanted:
                continue
            if any(_bonded(residue, chain[j]) for j in (i - 1, i + 1) if 0 <= j < len(chain)):
                continue
            name = next(x for n in count(1) if (x := f"{residue.subchain}{n}") not in taken)
            taken.add(name)
            kind = gemmi.EntityType.Water if is_water(residue.name) else gemmi.EntityType.NonPolymer
            residue.subchain, residue.entity_type, residue.label_seq = name, kind, None
            residue.entity_id, released = "", True
    if released:
        structure.ensure_entities()


def _bonded(one: gemmi.Residue, other: gemmi.Residue) -> bool:
    """Whether C of one is bonded to N of the other."""
    pairs = [(a, b) for r, s in ((one, other), (other, one)) for a in r for b in s]
    return any(
        (a.name, b.name) == ("C", "N") and a.pos.dist(b.pos) < BOND_ANGSTROM for a, b in pairs
    )


def _name(sites: Sites, group: int) -> str:
    return sites.names.texts[sites.component[group]]


def _from_sites(read: gemmi.Structure, sites: Sites, polymer: Polymer) -> gemmi.Structure:
    """The atoms of the raw records, with the metadata that gemmi has read."""
    structure = gemmi.Structure()
    structure.name, structure.cell = read.name, read.cell
    structure.spacegroup_hm, structure.info = read.spacegroup_hm, read.info
    texts = sites.names.texts
    model = gemmi.Model(1)
    chains: dict[str, gemmi.Chain] = {}
    residues: dict[tuple, gemmi.Residue] = {}
    end = np.r_[sites.start[1:], len(sites.atom)]
    owner: dict[str, str] = {}  # the subchain of the polymer that has the name of a chain
    # Residue types at one place one behind the other, wherever the file has them.
    _, place = np.unique(polymer.place, return_inverse=True)
    start = np.full(len(polymer.place), len(polymer.residue))
    np.minimum.at(start, place, polymer.first)
    at = np.arange(len(polymer.residue))
    in_polymer = polymer.residue >= 0
    at[in_polymer] = start[place[polymer.residue[in_polymer]]]
    for g in np.argsort(at, kind="stable").tolist():
        row = int(polymer.residue[g])
        author, name = texts[sites.author_chain[g]], _name(sites, g)
        if row >= 0:
            subchain = texts[polymer.chain[row]]
            kind = gemmi.EntityType.Polymer
            if owner.setdefault(author, subchain) != subchain:
                author = subchain  # a segment or a copy
            key: tuple = ("polymer", row)
        else:
            water = is_water(name)
            kind = gemmi.EntityType.Water if water else gemmi.EntityType.NonPolymer
            subchain = texts[sites.label_chain[g]] or f"{author or NAMELESS}x"
            subchain += "w" if water else f"{g}"
            key = ("other", g)
        if key not in residues:
            residue = gemmi.Residue()
            residue.name = name
            code = _one_character(texts[sites.insertion_code[g]], "insertion code")
            residue.seqid = gemmi.SeqId(int(sites.number[g]), code or " ")
            residue.label_seq = int(sites.label_seq[g]) or None
            residue.subchain, residue.entity_type = subchain, kind
            residue.het_flag = "H" if sites.is_het[g] else "A"
            residues[key] = residue
            chains.setdefault(author, gemmi.Chain(author))
        _add_atoms(residues[key], sites, range(int(sites.start[g]), int(end[g])))
        residues[key].entity_id = author
    for residue in residues.values():
        author = residue.entity_id
        residue.entity_id = ""
        chains[author].add_residue(residue)
    for chain in chains.values():
        model.add_chain(chain)
    structure.add_model(model)
    structure.ensure_entities()
    for entity in structure.entities:
        if entity.entity_type == gemmi.EntityType.Polymer:
            entity.polymer_type = gemmi.PolymerType.PeptideL
    return structure


def _add_atoms(residue: gemmi.Residue, sites: Sites, atoms: range) -> None:
    """The atoms that have a position; an occupancy or B that is none is 1 and 0 here."""
    for i in atoms:
        if not np.isfinite(sites.position[i]).all():
            continue
        atom = gemmi.Atom()
        atom.name = sites.atom[i].decode("utf-8", errors="replace")
        atom.altloc = _one_character(sites.names.texts[sites.altloc[i]], "altloc") or "\0"
        element = sites.element[i].decode("latin-1").strip() or atom.name.lstrip("0123456789")[:1]
        atom.element = gemmi.Element(element)
        atom.pos = gemmi.Position(*sites.position[i])
        atom.occ = float(np.nan_to_num(sites.occupancy[i], nan=1.0))
        atom.b_iso = float(np.nan_to_num(sites.b_factor[i]))
        residue.add_atom(atom)


def _one_character(label: str, what: str) -> str:
    if len(label) > 1 or not label.isascii():
        raise QfitLatentError(
            f"The {what} {label!r} is not one ASCII character, as the written model needs it: "
            "rename it."
        )
    return label
