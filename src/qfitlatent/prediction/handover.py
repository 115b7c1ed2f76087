"""What other programs take over of a prediction: to look at it, and to refine what was written.

Everything is read off the structure as it was written, so that selections and occupancy groups are
always those of its file. Residues are named as in the mmCIF file: author chain, number, insertion
code. The words of each file are its template in ``data/handover/``.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gemmi
import pyarrow as pa

from qfitlatent.pages.render import render
from qfitlatent.structure.coordinates import NAMELESS

HANDOVER = {
    ".cxc": "handover/chimerax.cxc.j2",
    ".defattr": "handover/chimerax.defattr.j2",
    ".pml": "handover/pymol.pml.j2",
    ".coot.py": "handover/coot.py.j2",
    ".phenix.eff": "handover/phenix.eff.j2",
    ".refmac.txt": "handover/refmac.txt.j2",
}
"""How the name of each file ends, and its template."""

Key = tuple[str, int, str]
"""A residue in the tables: label chain, author number, insertion code."""


class Place(NamedTuple):
    """A residue as the programs name it."""

    chain: str
    number: int
    icode: str
    name: str

    @property
    def resid(self) -> str:
        return f"{self.number}{self.icode}"


class Group(NamedTuple):
    """Residues whose conformers of one label go together: one occupancy for each label.

    occupancies: label -> occupancy, of every residue of the group; they sum to 1.
    """

    occupancies: dict[str, float]
    residues: tuple[Place, ...]


def hand_over(
    entry: str,
    model: str,
    structure: gemmi.Structure,
    summary: pa.Table,
) -> dict[str, str]:
    """Suffix of ``HANDOVER`` -> text of that file.

    Args:
        entry: the id of the structure, as its files are named.
        model: name of the model that predicted, for the titles.
        structure: as it was written to ``<entry>_ensemble.cif``, which the scripts open.
        summary: a row a residue (``columns.RESIDUES``); its real numbers become attributes. States
            of the residues of one ``group`` were chosen together.
    """
    rows = summary.to_pylist()
    places = _places(structure)
    keyed = {(row["chain"], row["author_number"], row["insertion_code"]): row for row in rows}
    shown = [(places[key], row) for key, row in keyed.items() if key in places]
    joint = {key: row["group"] for key, row in keyed.items() if row["is_built"]}
    attributes = [field.name for field in summary.schema if pa.types.is_floating(field.type)]
    groups = occupancy_groups(structure, joint)
    several = [place for group in groups for place in group.residues]
    # A line for each residue and attribute, too many for a loop of a template.
    plain = [(f"/{at.chain}:{at.resid}", row) for at, row in shown if _is_plain(at.chain)]
    facts = {
        "entry": " ".join(entry.split()),
        "model": model,
        "model_file": json.dumps(f"{entry}_ensemble.cif"),
        "attribute_file": json.dumps(f"{entry}.defattr"),
        "heterogeneity": [
            (place, row["heterogeneity"])
            for place, row in shown
            if row["heterogeneity"] is not None
        ],
        "attributes": {
            name: [f"{place}\t{row[name]:.4f}" for place, row in plain if row[name] is not None]
            for name in attributes
        },
        "groups": groups,
        "several": sorted(several),
        "looks": _looks(groups, shown),
        "made": "predicted",
        "listed": "several conformers, then what was left as it was",
        "chimerax": _chimerax,
        "pymol": _pymol,
        "phenix": _phenix,
        "unnameable": sorted({place.chain for place in several if not _is_plain(place.chain)}),
        "is_plain": _is_plain,
    }
    return {suffix: render(template, **facts) for suffix, template in HANDOVER.items()}


def looks_for_coot(
    entry: str, model: str, structure: Path, looks: Iterable[tuple[Place, str]]
) -> str:
    """A script that opens the deposited structure with the side chains that are worth a look.

    model: name of the model that scored; structure: its path as Coot is to find it; looks: each
    residue with the words for it, the worst first.
    """
    return render(
        HANDOVER[".coot.py"],
        entry=" ".join(entry.split()),
        made="scored",
        model=model,
        listed="side chains that are worth a look, the worst first",
        model_file=json.dumps(str(structure)),
        looks=list(looks),
    )


def occupancy_groups(structure: gemmi.Structure, joint: Mapping[Key, int | None]) -> list[Group]:
    """The groups of the residues that were built with several labels, in the order of the file.

    joint: number of the joint group of each residue that was built; None is one by itself.

    Residues of one joint group stay together as far as they have the same labels and occupancies:
    whoever refines them has one occupancy a label, whatever the file says.
    """
    found: dict[Any, tuple[dict[str, float], list[Place]]] = {}
    for residue, place in _residues(structure):
        key = _key(residue)
        occupancies = {atom.altloc: round(atom.occ, 2) for atom in residue if atom.has_altloc()}
        if key in joint and len(occupancies) > 1:
            number = joint[key]
            group = (key if number is None else number, tuple(sorted(occupancies.items())))
            found.setdefault(group, (dict(sorted(occupancies.items())), []))[1].append(place)
    return [Group(occupancies, tuple(members)) for occupancies, members in found.values()]


def _residues(structure: gemmi.Structure) -> list[tuple[gemmi.Residue, Place]]:
    return [
        (residue, Place(chain.name or NAMELESS, *_numbering(residue), residue.name))
        for chain in structure[0]
        for residue in chain
    ]


def _numbering(residue: gemmi.Residue) -> tuple[int, str]:
    number = residue.seqid.num
    assert number is not None, "a residue of the tables has a number"
    return number, residue.seqid.icode.strip()


def _places(structure: gemmi.Structure) -> dict[Key, Place]:
    return {_key(residue): place for residue, place in _residues(structure)}


def _key(residue: gemmi.Residue) -> Key:
    return residue.subchain, *_numbering(residue)


def _looks(
    groups: list[Group], shown: list[tuple[Place, dict[str, Any]]]
) -> list[tuple[Place, str]]:
    """Residues with several conformers, the most even first, then those that are more likely wrong
    than right, then what was left as it was."""
    found = [
        (-min(group.occupancies.values()), place, ", ".join(f"{a} {o:.2f}" for a, o in pairs))
        for group in groups
        for pairs in [group.occupancies.items()]
        for place in group.residues
    ]
    several = [(place, words) for _, place, words in sorted(found)]
    named = {place for place, _ in several}
    unsure = [
        (row["confidence"], place)
        for place, row in shown
        if row["confidence"] is not None and row["confidence"] < 0.5 and place not in named
    ]
    several += [(place, f"confidence {value:.2f}") for value, place in sorted(unsure)]
    return several + [(place, row["note"]) for place, row in shown if row["note"]]


def _is_plain(chain: str) -> bool:
    """Whether the programs' selections can name the chain without a way to quote it."""
    return re.fullmatch(r"\w+", chain, re.ASCII) is not None


def _chimerax(places: Sequence[Place]) -> str:
    """An atom specification: /A:45,46A/B:3."""
    chains = _by_chain(place for place in places if _is_plain(place.chain))
    return "".join(f"/{chain}:{','.join(numbers)}" for chain, numbers in chains.items())


def _pymol(places: Sequence[Place]) -> str:
    """A selection: (chain "A" and resi 45+46A) or (chain "B" and resi 3)."""
    return " or ".join(
        f'(chain "{chain}" and resi {"+".join(numbers)})'.replace("-", "\\-")
        for chain, numbers in _by_chain(places).items()
    )


def _by_chain(places: Iterable[Place]) -> dict[str, list[str]]:
    chains: dict[str, list[str]] = {}
    for place in places:
        chains.setdefault(place.chain, []).append(place.resid)
    return chains


def _phenix(place: Place, label: str) -> str:
    icode = place.icode or " "
    chosen = f"chain '{place.chain}' and resseq {place.number} and icode '{icode}'"
    return f"({chosen} and altid '{label}')"
