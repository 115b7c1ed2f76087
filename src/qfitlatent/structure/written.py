"""A predicted model as text that every program reads: mmCIF, and PDB where it can hold the model.

What is written, in words. The atoms; cell, symmetry, non-crystallographic symmetry and
assemblies; helices, sheets and cis peptides, which the backbone decides; entities, sequences and
residue numbers that agree with the atoms (``entities.py``); names of entities and components that
the input had; bonds of LINK, SSBOND or struct_conn whose atoms are both there, at the distance of
such a bond; where the model comes from (``origin.py``). Nothing else of the input is written: what
it says of data, refinement, software, authors and validation is not true of a predicted model.
"""

import gemmi

from qfitlatent.chemistry.residues import standard_name
from qfitlatent.structure.coordinates import NAMELESS
from qfitlatent.structure.entities import complete_entities
from qfitlatent.structure.origin import METHOD, Origin, write_loop, write_origin

KEPT_CATEGORIES = (
    "_entity_name_com.", "_entity_src_gen.", "_entity_src_nat.", "_pdbx_entity_src_syn.",
    "_pdbx_entity_branch.", "_pdbx_entity_branch_descriptor.", "_pdbx_entity_branch_link.",
    "_pdbx_entity_branch_list.",
)  # fmt: skip
"""Of an mmCIF input: what describes molecules by the ids of their entities."""

LONGEST_BOND_ANGSTROM = {
    gemmi.ConnectionType.Covale: 2.5,
    gemmi.ConnectionType.Disulf: 2.5,
    gemmi.ConnectionType.Hydrog: 3.8,
    gemmi.ConnectionType.MetalC: 3.5,
    gemmi.ConnectionType.Unknown: 3.5,
}
"""A record says of two atoms that they are bonded; beyond this they are not."""

PDB_RANGE = (-999.9995, 9999.9995)
"""Coordinates that eight columns hold, angstrom."""

PDB_ATOMS, PDB_NUMBERS = 99_999, (-999, 9999)
"""What serial numbers and residue numbers can be without letters in them, which few read."""


def finished(structure: gemmi.Structure, origin: Origin) -> gemmi.Structure:
    """The model that is written: atoms as they stand in the structure, which is left as it was."""
    model = gemmi.Structure()
    model.name = origin.block_name
    model.cell, model.spacegroup_hm = structure.cell, structure.spacegroup_hm
    model.ncs = structure.ncs
    for one in structure:
        model.add_model(one)
    model.entities = structure.entities
    model.helices, model.sheets = structure.helices, structure.sheets
    model.cispeps = structure.cispeps
    model.assemblies = structure.assemblies
    model.connections = structure.connections
    model.remove_empty_chains()
    model.setup_cell_images()
    complete_entities(model)
    there = {residue.subchain for chain in model[0] for residue in chain}
    for generator in (g for assembly in model.assemblies for g in assembly.generators):
        generator.subchains = [name for name in generator.subchains if name in there]
    model.connections = gemmi.ConnectionList(_complete(model))
    given = dict(structure.info.items())
    title = given.get("_struct.title", "")
    about = {"_entry.id": origin.block_name, "_struct.title": origin.title(title)}
    about["_exptl.method"] = METHOD
    if "_cell.Z_PDB" in given:
        about["_cell.Z_PDB"] = given["_cell.Z_PDB"]
    model.info = gemmi.InfoMap(about)
    model.raw_remarks = origin.remarks()
    model.assign_serial_numbers()
    return model


def _complete(structure: gemmi.Structure) -> list[gemmi.Connection]:
    """Connections whose atoms are there, as near as such a bond is; each names the altlocs."""
    at: dict[tuple, list[gemmi.Atom]] = {}
    for chain in structure[0]:
        for residue in chain:
            for atom in residue:
                place = (chain.name, str(residue.seqid), residue.name, atom.name)
                at.setdefault(place, []).append(atom)
    kept = []
    for connection in structure.connections:
        ends = (connection.partner1, connection.partner2)
        atoms = [
            at.get((e.chain_name, str(e.res_id.seqid), e.res_id.name, e.atom_name), [])
            for e in ends
        ]
        pairs = [
            (structure.cell.find_nearest_image(a.pos, b.pos, connection.asu).dist(), a, b)
            for a in atoms[0]
            for b in atoms[1]
            if a.altloc == b.altloc or not (a.has_altloc() and b.has_altloc())
        ]
        if not pairs:
            continue
        distance, *nearest = min(pairs, key=lambda pair: pair[0])
        if distance > LONGEST_BOND_ANGSTROM.get(connection.type, 3.5):
            continue
        for end, atom in zip(ends, nearest, strict=True):
            end.altloc = atom.altloc
        connection.reported_distance = distance
        kept.append(connection)
    return kept


def mmcif_text(
    model: gemmi.Structure, origin: Origin, document: gemmi.cif.Document | None = None
) -> str:
    """A finished model as mmCIF; of the input's document the names of its molecules are kept."""
    if any(not chain.name for one in model for chain in one):
        # Old PDB files have chains without a name, which mmCIF cannot write.
        model = model.clone()
        model.rename_chain("", NAMELESS)
    groups = gemmi.MmcifOutputGroups(True)
    groups.auth_all = True
    groups.software = False
    groups.symmetry = bool(model.spacegroup_hm)
    written = model.make_mmcif_document(groups)
    block = written[0]
    bonds = block.find("_struct_conn.", ["id"])
    if bonds:
        bonds.loop.add_columns(["_struct_conn.pdbx_value_order"], "?")  # NGL fails without it
    _complete_polymers(block, model)
    if document is not None:
        _take_names(block, document[0])
    _components(block, model, document)
    write_origin(block, origin, model[0], model.entities)
    for tag in ("_struct_asym.id", "_atom_site.label_alt_id"):
        for row in block.find([tag]):
            # gemmi 0.7 writes _xp, and labels that are no letters, without their quotes.
            is_quoted = len(row[0]) > 1 and row[0][0] == row[0][-1] and row[0][0] in "'\""
            if row[0] != "." and not is_quoted:
                row[0] = gemmi.cif.quote(row[0])
    return written.as_string(gemmi.cif.WriteOptions(gemmi.cif.Style.Pdbx))


def _complete_polymers(block: gemmi.cif.Block, model: gemmi.Structure) -> None:
    """What gemmi leaves out: canonical letters, and the numbering of each chain."""
    polymers = [e for e in model.entities if e.entity_type == gemmi.EntityType.Polymer]
    letters = {entity.name: _letters(entity) for entity in polymers}
    table = block.find("_entity_poly.", ["entity_id"])
    canonical = [gemmi.cif.quote(letters[row.str(0)]) for row in table]
    if canonical:
        loop = table.loop
        loop.add_columns(["_entity_poly.pdbx_seq_one_letter_code_can"], "?")
        column = block.find_values("_entity_poly.pdbx_seq_one_letter_code_can")
        for i, text in enumerate(canonical):
            column[i] = text
    entity_of = {name: entity for entity in polymers for name in entity.subchains}
    rows: list[list[str]] = []
    for chain in model[0]:
        for subchain in chain.subchains():
            entity = entity_of.get(subchain.subchain_id())
            if entity is None:
                continue
            there = {(residue.label_seq, residue.name): residue for residue in subchain}
            for number, names in enumerate(entity.full_sequence, start=1):
                for name in names.split(","):
                    row = [subchain.subchain_id(), entity.name, str(number), name, str(number)]
                    residue = there.get((number, name))
                    if residue is None:
                        row += ["?", "?", "?", "?", chain.name, "."]
                    else:
                        author = str(residue.seqid.num)
                        code = residue.seqid.icode.strip() or "."
                        row += [author, author, name, name, chain.name, code]
                    rows.append([*row, "y" if "," in names else "n"])
    if rows:
        columns = (
            *("asym_id", "entity_id", "seq_id", "mon_id", "ndb_seq_num", "pdb_seq_num"),
            *("auth_seq_num", "pdb_mon_id", "auth_mon_id", "pdb_strand_id", "pdb_ins_code"),
            "hetero",
        )
        write_loop(block, "_pdbx_poly_seq_scheme.", columns, rows)


def _letters(entity: gemmi.Entity) -> str:
    """One letter for each residue, that of its parent, X for an unknown one."""
    letters = []
    for names in entity.full_sequence:
        name = standard_name(gemmi.Entity.first_mon(names))
        info = gemmi.find_tabulated_residue(name)
        letter = info.one_letter_code.upper().strip() if info.found() else ""
        letters.append(letter or "X")
    return "".join(letters)


def _take_names(block: gemmi.cif.Block, given: gemmi.cif.Block) -> None:
    """Descriptions of entities, and categories about them, from the input."""
    known = {
        row.str(0): row[1] for row in given.find("_entity.", ["id", "pdbx_description"]) if row[1]
    }
    if known:
        loop = block.find("_entity.", ["id"]).loop
        loop.add_columns(["_entity.pdbx_description"], "?")
        ids = block.find_values("_entity.id")
        column = block.find_values("_entity.pdbx_description")
        for i, name in enumerate(ids):
            column[i] = known.get(gemmi.cif.as_string(name), "?")
    there = {gemmi.cif.as_string(name) for name in block.find_values("_entity.id")}
    for category in KEPT_CATEGORIES:
        values = given.get_mmcif_category(category, raw=True)
        if values and {gemmi.cif.as_string(x) for x in values.get("entity_id", ["?"])} <= there:
            block.set_mmcif_category(category, values, raw=True)


def _components(
    block: gemmi.cif.Block, model: gemmi.Structure, document: gemmi.cif.Document | None
) -> None:
    """What each component is: of the input where it says so, else by its name and its place."""
    names = sorted({r.name for one in model for chain in one for r in chain})
    names += sorted(
        {name for e in model.entities for mon in e.full_sequence for name in mon.split(",")}
        - set(names)
    )
    in_polymer = {
        residue.name
        for chain in model[0]
        for residue in chain
        if residue.entity_type == gemmi.EntityType.Polymer
    }
    given: dict[str, list[str]] = {}
    if document is not None:
        table = document[0].find("_chem_comp.", ["id", "type", "?name", "?formula"])
        for row in table:
            given[row.str(0)] = [
                row.str(i) if row.has(i) and row[i] not in ".?" else "?" for i in (1, 2, 3)
            ]
    rows = []
    for name in names:
        kind, called, formula = given.get(name, ["?", "?", "?"])
        if kind == "?":
            kind = _type_of(name, name in in_polymer)
        rows.append([name, kind, called, formula])
    write_loop(block, "_chem_comp.", ("id", "type", "name", "formula"), rows)


def _type_of(name: str, in_polymer: bool) -> str:
    info = gemmi.find_tabulated_residue(standard_name(name))
    kinds = {
        gemmi.ResidueKind.AA: "L-PEPTIDE LINKING",
        gemmi.ResidueKind.PAA: "L-PEPTIDE LINKING",
        gemmi.ResidueKind.MAA: "L-PEPTIDE LINKING",
        gemmi.ResidueKind.AAD: "D-PEPTIDE LINKING",
        gemmi.ResidueKind.RNA: "RNA LINKING",
        gemmi.ResidueKind.DNA: "DNA LINKING",
    }
    if standard_name(name) == "GLY":
        return "PEPTIDE LINKING"
    return kinds.get(info.kind, "L-PEPTIDE LINKING" if in_polymer else "NON-POLYMER")


def pdb_text(model: gemmi.Structure) -> str | None:
    """A finished model in PDB format; None where that format cannot hold it.

    It has two characters for a chain, a number for each residue of it, and a fixed width for every
    number. Names of force fields that are longer than three characters become the dictionary's;
    others are shortened as gemmi does.
    """
    low, high = PDB_RANGE
    low_number, high_number = PDB_NUMBERS
    if max(one.count_atom_sites() for one in model) + len(model[0]) > PDB_ATOMS:
        return None
    for chain in model[0]:
        places = [(r.subchain, str(r.seqid)) for r in chain if not all(a.has_altloc() for a in r)]
        fits = len(chain.name) <= 2 and chain.name.isascii()
        fits &= all(low_number <= (r.seqid.num or 0) <= high_number for r in chain)
        if not fits or len(set(places)) < len(places):
            return None
        if any(not low < x < high for r in chain for a in r for x in a.pos.tolist()):
            return None
    copy = model.clone()
    for one in copy:
        for site in one.all():
            if len(site.residue.name) > 3:
                site.residue.name = standard_name(site.residue.name)
    copy.shorten_ccd_codes()
    return copy.make_pdb_string()
