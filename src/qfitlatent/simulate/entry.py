"""Simulated multiconformer entries whose true chi distribution is known (SPEC 9).

What an entry is made of:

1. A sequence family: an ancestor (sequence, secondary structure, phi/psi) that the members
   mutate. Families share nothing, so splits by sequence cluster mean something. All chains of
   an entry are copies of one sequence, so that no entry ties two families together.
2. A backbone of helices, strands and loops with ideal geometry, the most compact of a few.
3. For each residue a true mixture p(chi): at most four von Mises components over all its chi,
   with weights (and, slightly, means) that depend on the residue type, smoothly on phi and psi,
   and on the types of the bonded neighbours in sequence. Nothing else: see ``true_mixture``.
4. Altlocs: their number is drawn first, then each altloc's chi is an independent draw from
   p(chi), and occupancies are drawn without looking at the chi. The occupancy-weighted negative
   log likelihood of SPEC 7 therefore has the expectation of the unweighted one, and no density
   can beat in expectation the truth itself, whose value is the entropy of p.
5. The disorder of real files: blank atoms shared by all altlocs, whole-residue altlocs,
   occupancies that do not sum to 1, missing atoms and residues, insertion codes, MSE, several
   chains, waters, headers. All of it is drawn independently of the chi.

Pi-symmetric angles are deposited in (-pi/2, pi/2], as IUPAC names them: chi and chi + pi are one
conformation. The true density on the full circle is therefore half of the mixture at chi and
half at chi + pi, the form ``nll`` of SPEC 8, and the entropy given here is of that density.

Shape legend: N residues, K = 4 components (unused ones have weight 0), D = 4 chi.
"""

import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path
from qfitlatent.chemistry.building import MAX_SIDE_CHAIN_ATOMS, build_side_chains
from qfitlatent.chemistry.geometry import axes
from qfitlatent.chemistry.residues import (
    BACKBONE_ATOMS,
    MODIFIED,
    NUM_CHI,
    ONE_LETTER,
    RESIDUE_TYPES,
    SIDE_CHAIN_ATOMS,
)
from qfitlatent.simulate.chains import Chain, fold_chain, member, new_rng
from qfitlatent.simulate.settings import SimulatorSettings
from qfitlatent.simulate.truth import TruthMixture, true_mixture, truth_table

EXTRA_CHAIN_FRACTION = 0.15
"""Probability of each further chain up to ``max_chains``."""

MISSING_ATOM_FRACTION = 0.01
"""Probability that a residue lacks the end of its side chain."""

WHOLE_RESIDUE_FRACTION = 0.15
"""Probability that altlocs of a multiconformer residue include its backbone atoms."""

UNEVEN_OCCUPANCY_FRACTION = 0.04
"""Probability that the occupancies of a multiconformer residue do not sum to 1."""


@dataclass(frozen=True)
class SimulatedEntry:
    entry: str
    mmcif: str
    truth: pa.Table


def simulate_entry(entry: str, seed: int, settings: SimulatorSettings) -> SimulatedEntry:
    """One entry, the same for the same (entry, seed, settings) whatever else is simulated."""
    if not (entry.startswith("sim") and entry[3:].isdigit() and len(entry) == 8):
        raise QfitLatentError(
            f"'{entry}' is not the id of a simulated entry: use sim and five digits, as sim00042."
        )
    rng = new_rng(seed, "entry", entry)
    token, phi, psi = member(entry, seed, settings, rng)
    num_chains = 1 + int((rng.random(settings.max_chains - 1) < EXTRA_CHAIN_FRACTION).sum())
    selenium = bool(rng.random() < settings.mse_fraction)
    atoms, truths = [], []
    for number in range(num_chains):
        name = chr(ord("A") + number)
        chain = fold_chain(token, phi, psi, number, rng)
        truth = true_mixture(
            chain.token, chain.phi, chain.psi, chain.bonded, settings.context_strength
        )
        atoms.append(_chain_atoms(name, chain, truth, selenium, settings, rng))
        truths.append(truth_table(entry, name, chain.token, truth))
    atoms.append(_waters(chr(ord("A") + num_chains), settings.num_waters, rng))
    text = _mmcif(entry, token, num_chains, selenium, atoms, rng)
    return SimulatedEntry(entry, text, pa.concat_tables(truths))


def write_entries(
    ids: Iterable[str], folder: Path, settings: SimulatorSettings, seed: int
) -> list[Path]:
    """Write ``<id>.cif.gz`` and ``truth/<id>.parquet`` under folder; returns the cif paths.

    The bytes of an entry depend on its id, the seed and the settings alone.
    """
    folder = Path(folder)
    (folder / "truth").mkdir(parents=True, exist_ok=True)
    paths = []
    for entry in ids:
        simulated = simulate_entry(entry, seed, settings)
        path = folder / f"{entry}.cif.gz"
        with atomic_path(path) as temporary:
            temporary.write_bytes(gzip.compress(simulated.mmcif.encode(), compresslevel=4, mtime=0))
        with atomic_path(folder / "truth" / f"{entry}.parquet") as temporary:
            pq.write_table(simulated.truth, temporary, compression="zstd")
        paths.append(path)
    return paths


_CARTN = ("Cartn_x", "Cartn_y", "Cartn_z")
_ATOM_NAMES = np.full((len(RESIDUE_TYPES), 4 + MAX_SIDE_CHAIN_ATOMS), "", dtype="<U3")
for _t, _name in enumerate(RESIDUE_TYPES):
    _all = (*BACKBONE_ATOMS, *SIDE_CHAIN_ATOMS[_name])
    _ATOM_NAMES[_t, : len(_all)] = _all


_OWN_FROM = np.where(NUM_CHI > 0, 5, 4)
"""Column of the first atom that chi moves: after N, CA, C, O, CB."""


def _chain_atoms(
    name: str,
    chain: Chain,
    truth: TruthMixture,
    selenium: bool,
    settings: SimulatorSettings,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Columns of ``atom_site`` in their order; rows in that of the file: residue, atom, altloc."""
    token, num = chain.token, len(chain.token)
    has_chi = NUM_CHI[token] > 0
    multiple = has_chi & (rng.random(num) < settings.multiconformer_fraction)
    extra = 2.0 ** -np.arange(settings.max_altlocs - 1)
    drawn = 2 + rng.choice(len(extra), size=num, p=extra / extra.sum())
    num_altlocs = np.where(multiple, drawn, 1)
    whole = multiple & (rng.random(num) < WHOLE_RESIDUE_FRACTION)

    # One row a residue and altloc; chi are independent draws of the truth.
    row = np.repeat(np.arange(num), num_altlocs)
    altloc = np.arange(len(row)) - np.repeat(np.cumsum(num_altlocs) - num_altlocs, num_altlocs)
    chi = truth.sample(row, rng)
    occupancy = _occupancies(row, num_altlocs, multiple, settings, rng)

    shift = np.where((whole[row] & (altloc > 0))[:, None], 0.05 * rng.normal(size=(len(row), 3)), 0)
    backbone = chain.backbone[row] + shift[:, None, :]
    n, ca, c = backbone[:, 0], backbone[:, 1], backbone[:, 2]
    side, exists = build_side_chains(
        axes(n, ca, c), ca, token[row], chi, nitrogen=n, selenium=np.full(len(row), selenium)
    )

    xyz = np.concatenate((backbone, side), axis=1)  # (rows, 4 + A, 3)
    there = np.concatenate((np.ones((len(row), 4), dtype=bool), exists), axis=1)
    column = np.arange(xyz.shape[1])
    cut = has_chi & (rng.random(num) < MISSING_ATOM_FRACTION)
    first_cut = 5 + (rng.random(num) * NUM_CHI[token]).astype(int)
    there &= ~(cut[row][:, None] & (column >= first_cut[row][:, None]))

    cb_own = rng.random(num) < 0.5
    own_from = np.where(whole, 0, _OWN_FROM[token] - cb_own * (NUM_CHI[token] > 0))
    owned = multiple[row][:, None] & (column >= own_from[row][:, None])
    there &= owned | (altloc == 0)[:, None]  # shared atoms are written once, blank

    at_row, at_column = np.nonzero(there)
    order = np.lexsort((altloc[at_row], at_column, row[at_row]))
    at_row, at_column = at_row[order], at_column[order]
    residue = row[at_row]
    own = owned[at_row, at_column]
    b_residue = rng.gamma(6.0, 3.0, size=num) + 6.0
    b_row = b_residue[row] + 3.0 * rng.random(len(row))
    atom_names = _ATOM_NAMES[token[residue], at_column]
    names = _component_names(token, selenium)
    element = np.array([atom[0] for atom in atom_names.tolist()], dtype="<U2")
    group = np.full(len(residue), "ATOM", dtype="<U6")
    if selenium:
        is_mse = names[residue] == "MSE"
        for own_name, parents in MODIFIED["MSE"].atoms.items():
            renamed = is_mse & (atom_names == parents)
            atom_names = np.where(renamed, own_name, atom_names)
            element = np.where(renamed, own_name, element)  # selenium is called by its symbol
        group = np.where(is_mse, "HETATM", group)
    author_number, insertion = _author_numbers(chain.number, settings, rng)
    return {
        "group_PDB": group,
        "type_symbol": element,
        "label_atom_id": atom_names,
        "label_alt_id": np.where(own, np.array(list("ABCDEF"))[altloc[at_row]], "."),
        "label_comp_id": names[residue],
        "label_asym_id": np.full(len(residue), name),
        "label_entity_id": np.full(len(residue), "1"),
        "label_seq_id": (chain.number[residue] + 1).astype(str),
        "pdbx_PDB_ins_code": insertion[residue],
        **dict(zip(_CARTN, xyz[at_row, at_column].T, strict=True)),
        "occupancy": np.where(own, occupancy[at_row], 1.0),
        "B_iso_or_equiv": b_row[at_row],
        "auth_seq_id": author_number[residue],
        "auth_asym_id": np.full(len(residue), name),
    }


def _component_names(token: np.ndarray, selenium: bool) -> np.ndarray:
    names = np.array(RESIDUE_TYPES)[token]
    return np.where(names == MODIFIED["MSE"].parent, "MSE", names) if selenium else names


def _occupancies(
    row: np.ndarray,
    num_altlocs: np.ndarray,
    multiple: np.ndarray,
    settings: SimulatorSettings,
    rng: np.random.Generator,
) -> np.ndarray:
    """(rows,) occupancies in hundredths: at least 0.05, summing to 1 a residue but for a few."""
    num = len(num_altlocs)
    raw = rng.gamma(2.0, size=len(row))
    share = raw / np.bincount(row, weights=raw, minlength=num)[row]
    spare = 100 - 5 * num_altlocs[row]
    hundredths = 5 + np.floor(share * spare).astype(int)
    missing = 100 - np.bincount(row, weights=hundredths, minlength=num).astype(int)
    first = np.cumsum(num_altlocs) - num_altlocs
    hundredths[first] += missing
    uneven = multiple & (rng.random(num) < UNEVEN_OCCUPANCY_FRACTION)
    factor = np.where(uneven, rng.uniform(0.7, 0.97, size=num), 1.0)
    return np.round(hundredths * factor[row]) / 100


def _author_numbers(
    number: np.ndarray, settings: SimulatorSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Author numbers with an offset of the chain's own, and for some a run such as 52, 52A, 52B."""
    author = number + int(rng.integers(-3, 40))
    insertion = np.full(len(number), "?")
    inserted = rng.random() < settings.insertion_code_fraction
    start = int(rng.integers(3, len(number) - 5))
    run = int(rng.integers(1, 4))
    if inserted:
        insertion[start : start + run] = np.array(list("ABC"))[:run]
        author[start : start + run] = author[start - 1]
        author[start + run :] -= run
    return author, insertion


def _waters(name: str, num: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "group_PDB": np.full(num, "HETATM"),
        "type_symbol": np.full(num, "O"),
        "label_atom_id": np.full(num, "O"),
        "label_alt_id": np.full(num, "."),
        "label_comp_id": np.full(num, "HOH"),
        "label_asym_id": np.full(num, name),
        "label_entity_id": np.full(num, "2"),
        "label_seq_id": np.full(num, "."),
        "pdbx_PDB_ins_code": np.full(num, "?"),
        **dict(zip(_CARTN, rng.normal(scale=20.0, size=(num, 3)).T, strict=True)),
        "occupancy": np.ones(num),
        "B_iso_or_equiv": np.full(num, 30.0),
        "auth_seq_id": 1001 + np.arange(num),
        "auth_asym_id": np.full(num, "A"),
    }


_ATOM_ROW = "%s %d %s %s %s %s %s %s %s %s %.3f %.3f %.3f %.2f %.2f %d %s 1"


def _mmcif(
    entry: str,
    token: np.ndarray,
    num_chains: int,
    selenium: bool,
    atoms: list[dict[str, np.ndarray]],
    rng: np.random.Generator,
) -> str:
    """The file: written as text, since the loop over atoms is most of the time of an entry."""
    resolution = rng.uniform(0.9, 1.9)
    r_free = 0.1 + 0.05 * resolution + 0.02 * rng.random()
    chains = [chr(ord("A") + i) for i in range(num_chains)]
    water = chr(ord("A") + num_chains)
    names = _component_names(token, selenium)
    columns = [np.concatenate([part[tag] for part in atoms]).tolist() for tag in atoms[0]]
    columns.insert(1, list(range(1, len(columns[0]) + 1)))
    template = files("qfitlatent").joinpath("data", "simulated.cif").read_text("utf-8")
    return Template(template).substitute(
        entry=entry,
        resolution=f"{resolution:.2f}",
        r_free=f"{r_free:.3f}",
        strands=",".join(chains),
        letters="".join(ONE_LETTER[t] for t in token),
        sequence="\n".join(f"1 {i} {name}" for i, name in enumerate(names, start=1)),
        chains="\n".join([*(f"{chain} 1" for chain in chains), f"{water} 2"]),
        atoms="\n".join([_ATOM_ROW % row for row in zip(*columns, strict=True)]),
    )
