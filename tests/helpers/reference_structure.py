"""A slow reader written from SPEC 2 to 4 alone: a plain loop over gemmi's residues.

It shares no code with qfitlatent, so that agreement means something: its own residue types, chi
quadruples, policy on altlocs, frames (numpy on three vectors) and angles (gemmi's).
Where SPEC leaves a choice open, it makes the choice that the docstring of structure.py states.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise

import gemmi
import numpy as np

STANDARD = [
    *("ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE"),
    *("LEU", "LYS", "MET", "PHE", "PRO", "SER", "THR", "TRP", "TYR", "VAL"),
]
QUADRUPLES = {
    "ARG": ["N CA CB CG", "CA CB CG CD", "CB CG CD NE", "CG CD NE CZ"],
    "LYS": ["N CA CB CG", "CA CB CG CD", "CB CG CD CE", "CG CD CE NZ"],
    "GLN": ["N CA CB CG", "CA CB CG CD", "CB CG CD OE1"],
    "GLU": ["N CA CB CG", "CA CB CG CD", "CB CG CD OE1"],
    "MET": ["N CA CB CG", "CA CB CG SD", "CB CG SD CE"],
    "ASN": ["N CA CB CG", "CA CB CG OD1"],
    "ASP": ["N CA CB CG", "CA CB CG OD1"],
    "HIS": ["N CA CB CG", "CA CB CG ND1"],
    "ILE": ["N CA CB CG1", "CA CB CG1 CD1"],
    "LEU": ["N CA CB CG", "CA CB CG CD1"],
    "PHE": ["N CA CB CG", "CA CB CG CD1"],
    "PRO": ["N CA CB CG", "CA CB CG CD"],
    "TRP": ["N CA CB CG", "CA CB CG CD1"],
    "TYR": ["N CA CB CG", "CA CB CG CD1"],
    "CYS": ["N CA CB SG"],
    "SER": ["N CA CB OG"],
    "THR": ["N CA CB OG1"],
    "VAL": ["N CA CB CG1"],
}


SYMMETRIC = ("ASP 2", "GLU 3", "PHE 2", "TYR 2")


@dataclass
class Conformer:
    altloc: str
    occupancy: float
    chi: list[float | None]
    occupancy_min: float
    occupancy_max: float
    num_own: int
    num_shared: int
    num_missing: int
    mean_b: float
    observed: list[bool]
    group: int = 0


@dataclass
class Residue:
    author_chain: str
    number: int
    insertion_code: str
    label_seq: int | None
    name: str
    token: int
    altlocs: list[str]
    num_types: int
    conformers: list[Conformer] = field(default_factory=list)
    frame: tuple[np.ndarray, np.ndarray, str] | None = None
    backbone: dict[str, gemmi.Position] = field(default_factory=dict)
    segment: int = 0
    phi: float | None = None
    psi: float | None = None
    omega: float | None = None


@dataclass
class Result:
    """chains: name to residues in order; the counts are those of the accounting."""

    chains: dict[str, list[Residue]] = field(default_factory=dict)
    num_rejected_residues: int = 0
    num_conformers_read: int = 0
    rejected_conformers: list[tuple[str, int, str, str]] = field(default_factory=list)


def read(path: str, max_conformers: int = 6) -> Result:
    structure = gemmi.read_structure(str(path))
    for chain in structure[0]:
        if not chain.name:
            chain.name = "_"
            for residue in chain:
                residue.subchain = ""
    structure.setup_entities()
    is_peptide = {}
    for entity in structure.entities:
        for subchain in entity.subchains:
            kind = entity.polymer_type
            if kind == gemmi.PolymerType.Unknown:
                kind = structure[0].get_subchain(subchain).check_polymer_type()
            is_peptide[subchain] = entity.entity_type == gemmi.EntityType.Polymer and (
                kind in (gemmi.PolymerType.PeptideL, gemmi.PolymerType.PeptideD)
            )
    result = Result()
    places: dict[str, dict[tuple, list[gemmi.Residue]]] = {}
    author = {}
    for chain in structure[0]:
        for residue in chain:
            if residue.entity_type == gemmi.EntityType.Polymer and is_peptide.get(residue.subchain):
                key = (residue.seqid.num, residue.seqid.icode)
                of_chain = places.setdefault(residue.subchain, {})
                of_chain.setdefault(key, []).append(residue)
                author[residue.subchain] = chain.name if chain.name != "_" else ""
    for name in sorted(places):
        rows = result.chains[name] = []
        for rivals in places[name].values():
            chosen = min(rivals, key=lambda r: (-_summed_occupancy(r), r.name))
            result.num_rejected_residues += len(rivals) - 1
            rows.append(
                _residue(chosen, author[name], len(rivals), max_conformers, result, name, len(rows))
            )
        _backbone_angles(rows)
    return result


def _summed_occupancy(residue: gemmi.Residue) -> float:
    standard = "MET" if residue.name in ("MSE", "FME") else residue.name
    counted = {"N", "CA", "C", *" ".join(QUADRUPLES.get(standard, [])).split()}
    by_altloc: dict[str, list[float]] = {}
    for atom in residue:
        name = "SD" if residue.name == "MSE" and atom.name == "SE" else atom.name
        if name in counted:
            by_altloc.setdefault(atom.altloc, []).append(round(atom.occ, 6))
    return round(sum(sum(o) / len(o) for o in by_altloc.values()), 4)


def _residue(chosen, author_chain, num_types, max_conformers, result, chain, index) -> Residue:
    standard = chosen.name
    if chosen.name in ("MSE", "FME"):
        standard = "MET"
    token = STANDARD.index(standard) if standard in STANDARD else 20
    quadruples = [q.split() for q in QUADRUPLES.get(standard, [])]
    path = list(dict.fromkeys(atom for q in quadruples for atom in q))
    atoms: dict[str, dict[str, gemmi.Atom]] = {}
    for atom in chosen:
        name = atom.name
        if chosen.name == "MSE":
            name = {"SE": "SD", "SD": "none"}.get(name, name)
        altloc = "" if atom.altloc == "\0" else atom.altloc
        atoms.setdefault(altloc, {}).setdefault(name, atom)
    blank = atoms.get("", {})
    named = sorted(a for a in atoms if a)
    seq = chosen.seqid
    residue = Residue(
        author_chain,
        seq.num,
        seq.icode.strip(),
        chosen.label_seq,
        chosen.name,
        token,
        named,
        num_types,
    )
    if path:
        _conformers(
            residue,
            atoms,
            named,
            blank,
            quadruples,
            path,
            max_conformers,
            result,
            chain,
            index,
            standard,
        )
    _frame(residue, atoms, named, blank)
    return residue


def _conformers(
    residue, atoms, named, blank, quadruples, path, max_conformers, result, chain, index, standard
) -> None:
    found = []

    def reject(altloc: str, reason: str) -> None:
        result.rejected_conformers.append((chain, index, altloc, reason))

    owners = []
    for altloc in named:
        result.num_conformers_read += 1
        if any(atom in atoms[altloc] for atom in path):
            owners.append(altloc)
        else:
            reject(altloc, "no_own_chi_atoms")
    # A blank atom beside a named one of its name is not shared: a conformer that nobody labelled.
    doubled = {n for n in blank for altloc in owners if n in path and n in atoms[altloc]}
    if not owners or doubled:
        result.num_conformers_read += 1
        owners = [*owners, ""]
    for altloc in owners:
        own = {n: a for n, a in atoms.get(altloc, {}).items() if n in path}
        if not altloc and doubled:
            own = {n: a for n, a in own.items() if n in doubled}
        seen = {n: a for n, a in blank.items() if n in path} | own
        chi = []
        for quadruple in quadruples:
            if all(n in seen for n in quadruple):
                angle = gemmi.calculate_dihedral(*(seen[n].pos for n in quadruple))
                chi.append(angle if math.isfinite(angle) else None)
            else:
                chi.append(None)
        occupancies = [round(a.occ, 6) for a in own.values()] or [0.0]
        conformer = Conformer(
            altloc,
            round(sum(occupancies) / len(occupancies), 6),
            chi,
            min(occupancies),
            max(occupancies),
            len(own),
            len(seen) - len(own),
            len(path) - len(seen),
            sum(a.b_iso for a in own.values()) / max(len(own), 1),
            [all(n in seen and seen[n].occ != 0 for n in quadruple) for quadruple in quadruples],
        )
        if all(angle is None for angle in chi):
            reject(altloc, "no_chi")
        elif conformer.occupancy < 0:
            reject(altloc, "negative_occupancy")
        else:
            found.append(conformer)
    if found and sum(c.occupancy for c in found) <= 0:
        for conformer in found:
            reject(conformer.altloc, "zero_occupancy")
        found = []
    found.sort(key=lambda c: (-c.occupancy, c.altloc))
    for conformer in found[max_conformers:]:
        reject(conformer.altloc, "over_limit")
    residue.conformers = found[:max_conformers]
    leaders: list[Conformer] = []
    for conformer in sorted(residue.conformers, key=lambda c: not any(c.observed)):
        alike = [one.group for one in leaders if _alike(one, conformer, standard)]
        conformer.group = alike[0] if alike else len(leaders)
        if not alike:
            leaders.append(conformer)


def _alike(a: Conformer, b: Conformer, standard: str) -> bool:
    """Whether they agree within 10 degrees in every chi that both show."""
    for d, (x, y) in enumerate(zip(a.chi, b.chi, strict=True), start=1):
        if x is None or y is None or not (a.observed[d - 1] and b.observed[d - 1]):
            continue
        period = 180 if f"{standard} {d}" in SYMMETRIC else 360
        apart = math.degrees(x - y) % period
        if min(apart, period - apart) > 10:
            return False
    return True


def _frame(residue, atoms, named, blank) -> None:
    candidates = []
    if all(n in blank for n in ("N", "CA", "C")):
        candidates.append((0.0, "", blank))
    else:
        for altloc in named:
            own = [n for n in ("N", "CA", "C") if n in atoms[altloc]]
            merged = blank | atoms[altloc]
            if own and all(n in merged for n in ("N", "CA", "C")):
                mean = round(sum(round(atoms[altloc][n].occ, 6) for n in own) / len(own), 6)
                candidates.append((-mean, altloc, merged))
    if not candidates:
        # What there is of the backbone still bonds: blank atoms only.
        residue.backbone = {n: blank[n].pos for n in ("N", "CA", "C") if n in blank}
        return
    _, altloc, chosen = min(candidates, key=lambda c: c[:2])
    residue.backbone = {n: chosen[n].pos for n in ("N", "CA", "C")}
    n, ca, c = (np.array(chosen[a].pos.tolist()) for a in ("N", "CA", "C"))
    x, z = c - ca, np.cross(c - ca, n - ca)
    if np.linalg.norm(x) < 1e-3 or np.linalg.norm(n - ca) < 1e-3:
        return
    if np.linalg.norm(z) < 1e-3 * np.linalg.norm(x) * np.linalg.norm(n - ca):
        return
    x, z = x / np.linalg.norm(x), z / np.linalg.norm(z)
    residue.frame = (np.stack([x, np.cross(z, x), z], axis=1), ca, altloc)


def _backbone_angles(rows: list[Residue]) -> None:
    for before, after in pairwise(rows):
        a, b = before.backbone, after.backbone
        bonded = "C" in a and "N" in b and a["C"].dist(b["N"]) < 2.0
        after.segment = before.segment + (not bonded)
        if not bonded:
            continue
        if "CA" in b and "C" in b:
            after.phi = gemmi.calculate_dihedral(a["C"], b["N"], b["CA"], b["C"])
        if "N" in a and "CA" in a:
            before.psi = gemmi.calculate_dihedral(a["N"], a["CA"], a["C"], b["N"])
        if "CA" in a and "CA" in b:
            after.omega = gemmi.calculate_dihedral(a["CA"], a["C"], b["N"], b["CA"])
