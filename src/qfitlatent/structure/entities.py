"""Entities, sequences and numbers in the polymer that agree with each other and with the atoms.

A PDB file has them in part or not at all, and what is built may change a residue's type. Readers of
mmCIF need all of them:

- Where every residue of a polymer has a number in the sequence of its entity, number and sequence
  stay, and a name that differs is the residue's.
- Otherwise SEQRES is aligned with the residues. Where that gives no number to one of them, or there
  is no SEQRES, the sequence is the residues that are there, numbered from 1.
- Polymers of one sequence are one entity. Entities keep their ids where these are numbers; of a PDB
  file, which has none, they are numbered.
"""

from itertools import count

import gemmi


def complete_entities(structure: gemmi.Structure) -> None:
    """Makes entities, ``full_sequence`` and ``label_seq`` of the structure agree, in place."""
    structure.ensure_entities()
    structure.assign_label_seq_id(False)
    by_subchain = {
        subchain: entity for entity in structure.entities for subchain in entity.subchains
    }
    owner: dict[tuple, gemmi.Entity] = {}
    wanted: dict[str, list[str]] = {}
    added: list[gemmi.Entity] = []
    known = {entity.name for entity in structure.entities}
    names = set(known)
    for subchain, places in _polymers(structure).items():
        entity = by_subchain.get(subchain) or _new_entity(names)
        sequence = _sequence(places, entity.full_sequence)
        key = (str(entity.polymer_type), *sequence)
        if key not in owner:
            if any(other.name == entity.name for other in owner.values()):
                entity, of = _new_entity(names), entity
                entity.polymer_type = of.polymer_type
            if entity.name not in known:
                added.append(entity)
            owner[key] = entity
            entity.full_sequence = sequence
        wanted.setdefault(owner[key].name, []).append(subchain)
    for entity in added:
        structure.entities.append(entity)
    there = {residue.subchain for chain in structure[0] for residue in chain}
    kept = []
    for entity in structure.entities:
        if entity.entity_type == gemmi.EntityType.Polymer:
            entity.subchains = wanted.get(entity.name, [])
        else:
            entity.subchains = [name for name in entity.subchains if name in there]
        if entity.subchains:
            kept.append(entity)
    if not all(entity.name.isdecimal() for entity in kept):
        for number, entity in enumerate(kept, start=1):
            entity.name = str(number)
    structure.entities = gemmi.EntityList(kept)
    structure.add_entity_ids(True)


def _polymers(structure: gemmi.Structure) -> dict[str, list[list[gemmi.Residue]]]:
    """Of each polymer the residues at each of its places: several where the type is not one.

    Residues of one number are at one place where all but the first have altlocs.
    """
    found: dict[str, list[list[gemmi.Residue]]] = {}
    for chain in structure[0]:
        before: tuple | None = None
        for residue in chain:
            if residue.entity_type != gemmi.EntityType.Polymer:
                continue
            place = (residue.subchain, str(residue.seqid), residue.label_seq)
            places = found.setdefault(residue.subchain, [])
            if place == before and all(atom.has_altloc() for atom in residue):
                places[-1].append(residue)
            else:
                places.append([residue])
            before = place
    return found


def _sequence(places: list[list[gemmi.Residue]], declared: list[str]) -> list[str]:
    """The sequence of a polymer, names of one place separated by commas; numbers its residues."""
    names = [",".join(dict.fromkeys(residue.name for residue in place)) for place in places]
    numbers = [place[0].label_seq or 0 for place in places]
    rises = all(a < b for a, b in zip([0, *numbers], numbers, strict=False))
    if not declared or not rises or numbers[-1] > len(declared):
        numbers, declared = list(range(1, len(places) + 1)), names
    sequence = list(declared)
    for place, number, name in zip(places, numbers, names, strict=True):
        there = sequence[number - 1].split(",")
        if not set(name.split(",")) <= set(there):
            sequence[number - 1] = name
        for residue in place:
            residue.label_seq = number
    return sequence


def _new_entity(names: set[str]) -> gemmi.Entity:
    """A protein under a number that is not among the names, which then has it."""
    name = next(str(number) for number in count(1) if str(number) not in names)
    names.add(name)
    entity = gemmi.Entity(name)
    entity.entity_type = gemmi.EntityType.Polymer
    entity.polymer_type = gemmi.PolymerType.PeptideL
    return entity
