"""What a prediction reads and writes; no torch here, so that worker processes start at once.

One structure gives, in the output folder,

    <id>.mixture.parquet, .csv    a row a residue and component: weight, mean, concentration
    <id>.residues.csv             a row a residue: entropy, heterogeneity, modes, or why none
    <id>_ensemble.cif, .pdb       the multiconformer model (ensemble.py)
    <id>.html                     a page to look at (prediction_page.py)
    <id>.prediction.json          input, model and settings by checksum; written last

so a structure is done when its .prediction.json is there.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json, sha256_file, write_json, write_text
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI
from qfitlatent.ensemble import Placement
from qfitlatent.ensemble import place_side_chains as place
from qfitlatent.pages.reasons import REASON_HELP
from qfitlatent.prediction_page import page
from qfitlatent.structure.coordinates import mmcif_text, open_structure, pdb_text
from qfitlatent.structure.preprocess import read_entry
from qfitlatent.tables.columns import (
    CHI,
    F32,
    I32,
    IDS,
    TEXT,
    Column,
    chi_columns,
    id_columns,
    make_schema,
)
from qfitlatent.tables.keys import fixed_list
from qfitlatent.tables.parquet import conform, write_csv, write_table
from qfitlatent.tables.reasons import Reason

STRUCTURE_SUFFIXES = (".cif", ".mmcif", ".pdb", ".ent")
"""A folder's files with these endings are structures, plain or with .gz behind."""


SUFFIXES = (
    ".mixture.parquet",
    ".mixture.csv",
    ".residues.csv",
    "_ensemble.cif",
    "_ensemble.pdb",
    ".html",
    ".prediction.json",
)
"""Every file of one structure, the one that says it is done last."""


MIXTURE = make_schema(
    (
        *IDS,
        Column("component", pa.int8(), False, "", "0, 1, ... within the residue"),
        Column("weight", F32, False, "1", "weight of the component; sums to 1 over the residue"),
        *(Column(f"mean{d}_rad", F32, True, "radian", f"mean of chi{d}") for d in CHI),
        *(Column(f"kappa{d}", F32, True, "1", f"concentration of chi{d}; 0 is flat") for d in CHI),
    )
)


RESIDUES = make_schema(
    (
        *IDS,
        Column("entropy", F32, True, "nat", "differential entropy of the predicted density"),
        Column("heterogeneity", F32, True, "1", "1 - weight of the heaviest mode"),
        Column("num_modes", pa.int8(), True, "", "modes of at least the weight threshold"),
        Column("is_built", pa.bool_(), False, "", "the ensemble has a rebuilt side chain here"),
        Column("note", TEXT, False, "", "why there is no prediction or no side chain; else empty"),
    )
)


SCORES = make_schema(
    (
        *IDS,
        Column("altloc", TEXT, False, "", "altloc label; empty for the blank one"),
        Column("occupancy", F32, False, "1", "as deposited"),
        Column("occupancy_normalised", pa.float64(), False, "1", "divided by the residue's sum"),
        *(Column(f"chi{d}_rad", F32, True, "radian", f"chi{d}; null if undefined") for d in CHI),
        Column("nll", F32, False, "nat", "-log density on the full circle"),
        Column("nll_folded", F32, False, "nat", "-log density with pi-symmetric chi folded"),
        Column("hdr_level", F32, False, "1", "predicted mass of the region denser than this"),
        Column("is_surprising", pa.bool_(), False, "", "hdr_level is above the threshold"),
        Column("missing_weight", F32, False, "1", "weight of modes that no altloc comes near"),
        *(
            Column(f"missing_chi{d}_rad", F32, True, "radian", "chi of the heaviest such mode")
            for d in CHI
        ),
    )
)


SAMPLES = make_schema(
    (
        *IDS,
        Column("sample", I32, False, "", "number of the draw, from 0"),
        *(Column(f"chi{d}_rad", F32, True, "radian", f"chi{d}; null if undefined") for d in CHI),
    )
)


def embedding_schema(width: int) -> pa.Schema:
    """Schema of an embedding of this width."""
    kind = pa.list_(pa.field("element", F32, nullable=False), width)
    return make_schema(
        (*IDS, Column("embedding", kind, False, "1", "final single representation s"))
    )


@dataclass(frozen=True)
class Input:
    """A structure that was read: its tables (schemas.py), or the sentence that says why not."""

    entry: str
    path: Path
    sha256: str = ""
    tables: dict[str, pa.Table] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0


def structure_id(path: str | Path) -> str:
    """The file's name without .gz and without the ending of its format."""
    name = Path(path).name.removesuffix(".gz")
    for suffix in STRUCTURE_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def find_structures(paths: Iterable[str | Path]) -> list[Path]:
    """The files given, and for a folder the structures in it, by name.

    Raises QfitLatentError for a path that does not exist, a folder without structures, and two
    files that would have the same id.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = [
                p
                for p in sorted(path.iterdir())
                if p.is_file() and p.name.lower().removesuffix(".gz").endswith(STRUCTURE_SUFFIXES)
            ]
            if not inside:
                raise QfitLatentError(
                    f"The folder {path} holds no structure: their names end in "
                    f"{', '.join(STRUCTURE_SUFFIXES)}, with or without .gz."
                )
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise QfitLatentError(f"There is no file {path}: correct the path.")
    by_id: dict[str, Path] = {}
    for path in found:
        other = by_id.setdefault(structure_id(path), path)
        if other != path:
            raise QfitLatentError(
                f"{other} and {path} would both write {structure_id(path)}: rename one, or predict "
                "them into different folders."
            )
    return list(by_id.values())


def read_input(path: Path, max_conformers: int = 6) -> Input:
    """Tables of one structure; whatever is wrong with the file becomes a sentence, not an error."""
    start = time.perf_counter()
    entry = structure_id(path)
    records = read_entry(path, entry, max_conformers=max_conformers)
    tables = {
        name: getattr(records, name) for name in ("residues", "frames", "conformers", "rejected")
    }
    error = ""
    whole = [row for row in tables["rejected"].to_pylist() if row["scope"] == "entry"]
    if whole:
        error = f"{path} cannot be used: {_explain(whole[0])}"
    elif tables["frames"]["rotation"].null_count == len(tables["frames"]):
        error = (
            f"{path} cannot be used: no protein residue has all of N, CA and C, "
            "so there is no backbone to predict on."
        )
    sha256 = "" if error else sha256_file(path)
    return Input(entry, path, sha256, tables, error, time.perf_counter() - start)


def _explain(rejected: dict[str, Any]) -> str:
    meaning, what_to_do = REASON_HELP[Reason(rejected["reason"])]
    detail = f" ({rejected['detail']})" if rejected["detail"] else ""
    return f"{meaning.rstrip('.')}{detail}. {what_to_do}"


@dataclass(frozen=True)
class Predicted:
    """Densities of n residues as arrays, ready to cross to another process.

    row (n,) of the residues table; weight (n,K), mean and kappa (n,K,4); entropy (n,);
    mode_weight (n,J) heaviest first and 0 where not valid; mode_chi (n,J,4).
    """

    row: np.ndarray
    weight: np.ndarray
    mean: np.ndarray
    kappa: np.ndarray
    entropy: np.ndarray
    top_weight: np.ndarray
    mode_weight: np.ndarray
    mode_chi: np.ndarray


@dataclass(frozen=True)
class Written:
    """What became of one structure."""

    entry: str
    path: Path
    error: str = ""
    notes: tuple[str, ...] = ()
    num_residues: int = 0
    num_built: int = 0
    num_heterogeneous: int = 0
    seconds: float = 0.0


def output_paths(out: Path, entry: str) -> list[Path]:
    """Every file of this structure."""
    return [out / f"{entry}{suffix}" for suffix in SUFFIXES]


def write_prediction(
    given: Input, predicted: Predicted, out: Path, identity: dict[str, Any]
) -> Written:
    """All files of one structure; identity says which model and settings made them."""
    start = time.perf_counter()
    mixture_path, mixture_csv, residues_csv, cif_path, pdb_path, page_path, done_path = (
        output_paths(out, given.entry)
    )
    done_path.unlink(missing_ok=True)
    residues = given.tables["residues"]
    token = residues["token"].to_numpy()[predicted.row]
    has_chi = NUM_CHI[token] > 0

    structure, document = open_structure(given.path)
    placement = _placement(given.tables, predicted)
    built = set(place(structure, placement))
    note = {"model_sha256": identity["model_sha256"], "input_sha256": given.sha256}
    note["content"] = "Side chains predicted and built by qfitlatent; see README"
    write_text(cif_path, mmcif_text(structure, document, note))
    pdb = pdb_text(structure, note)
    if pdb is None:
        pdb_path.unlink(missing_ok=True)
    else:
        write_text(pdb_path, pdb)

    mixture = _mixture_table(residues, predicted, token, has_chi)
    write_table(mixture, mixture_path, MIXTURE)
    write_csv(mixture_csv, mixture)
    summary = _summary_table(given.tables, predicted, has_chi, built)
    write_csv(residues_csv, summary)
    write_text(page_path, page(given.entry, summary, predicted, token, identity))

    left_out = [
        f"{row['chain']}/{row['name']} {row['author_number']}{row['insertion_code']}: {row['note']}"
        for row in summary.to_pylist()
        if row["note"]
    ]
    notes = [f"{len(left_out)} residues stay as they were; see {residues_csv.name}"] * bool(
        left_out
    )
    if pdb is None:
        notes.append("no PDB file: that format has no room for chain names of three characters")
    modes = np.count_nonzero(predicted.mode_weight, axis=1)
    written = Written(
        given.entry,
        given.path,
        notes=tuple(notes),
        num_residues=len(predicted.row),
        num_built=len(built),
        num_heterogeneous=int(np.count_nonzero(has_chi & (modes > 1))),
        seconds=time.perf_counter() - start,
    )
    write_json(
        done_path,
        {
            **identity,
            "entry": given.entry,
            "input": given.path.name,
            "input_sha256": given.sha256,
            "num_residues": written.num_residues,
            "num_built": written.num_built,
            "num_heterogeneous": written.num_heterogeneous,
            "left_as_they_were": left_out,
            "notes": notes,
        },
    )
    return written


def is_done(out: Path, path: Path, identity: dict[str, Any]) -> bool:
    """Whether this file has been predicted by this model with these settings."""
    done = output_paths(out, structure_id(path))[-1]
    if not done.exists():
        return False
    found = read_json(done)
    same = all(found.get(key) == value for key, value in identity.items())
    return same and found.get("input_sha256") == sha256_file(path)


def _placement(tables: dict[str, pa.Table], predicted: Predicted) -> Placement:
    residues = tables["residues"].take(pa.array(predicted.row))
    frames = tables["frames"].take(pa.array(predicted.row))
    columns = [residues[name].to_pylist() for name in _PLACE]
    return Placement(
        key=list(zip(*columns, strict=True)),
        frame_altloc=frames["altloc"].to_pylist(),
        rotation=fixed_list(frames["rotation"], (3, 3)),
        translation=fixed_list(frames["translation_angstrom"], (3,)),
        token=residues["token"].to_numpy(),
        weight=predicted.mode_weight,
        chi=predicted.mode_chi,
    )


_PLACE = ("chain", "author_number", "insertion_code", "name")


def _mixture_table(
    residues: pa.Table, predicted: Predicted, token: np.ndarray, has_chi: np.ndarray
) -> pa.Table:
    # Components of weight 0 only fill up the array.
    residue, component = np.nonzero(has_chi[:, None] & (predicted.weight > 0))
    mask = CHI_DEFINED[token[residue]]
    columns = id_columns(residues, predicted.row[residue])
    columns["component"] = component
    columns["weight"] = predicted.weight[residue, component].astype(np.float32)
    columns |= chi_columns("mean", predicted.mean[residue, component], "_rad", mask)
    columns |= chi_columns("kappa", predicted.kappa[residue, component], "", mask)
    return conform(pa.table(columns), MIXTURE, "the mixture")


def _summary_table(
    tables: dict[str, pa.Table], predicted: Predicted, has_chi: np.ndarray, built: set[str]
) -> pa.Table:
    residues = tables["residues"]
    num = len(residues)
    entropy, heterogeneity = np.full((2, num), np.nan)
    num_modes = np.zeros(num, dtype=np.int8)
    rows = predicted.row[has_chi]
    entropy[rows] = predicted.entropy[has_chi]
    heterogeneity[rows] = 1.0 - predicted.top_weight[has_chi]
    num_modes[rows] = np.count_nonzero(predicted.mode_weight[has_chi], axis=1)
    missing = np.ones(num, dtype=bool)
    missing[rows] = False

    why = {
        (row["chain"], row["index"]): _explain(row)
        for row in tables["rejected"].to_pylist()
        if row["scope"] in ("residue", "frame") and row["chain"] is not None
    }
    is_built, notes = [], []
    for i, row in enumerate(residues.select(list(_NOTED)).to_pylist()):
        name = f"{row['chain']}/{row['name']} {row['author_number']}{row['insertion_code']}"
        is_built.append(name in built)
        notes.append("" if name in built else _why_not(row, missing[i], why))
    columns = id_columns(residues, np.arange(num))
    columns |= {
        "entropy": pa.array(entropy.astype(np.float32), mask=missing),
        "heterogeneity": pa.array(heterogeneity.astype(np.float32), mask=missing),
        "num_modes": pa.array(num_modes, mask=missing),
        "is_built": pa.array(is_built),
        "note": pa.array(notes, pa.string()),
    }
    return conform(pa.table(columns), RESIDUES, "the residues")


_FLAGS = ("is_modified", "is_d_residue", "is_microheterogeneous")


_NOTED = ("chain", "index", "author_number", "insertion_code", "name", *_FLAGS)


def _why_not(row: dict[str, Any], missing: bool, why: dict[tuple, str]) -> str:
    """Why a residue keeps its atoms; empty where a missing side chain is as it should be."""
    if row["name"] in ("GLY", "ALA"):
        return why.get((row["chain"], row["index"]), "")
    if (row["chain"], row["index"]) in why and missing:
        return why[row["chain"], row["index"]]
    if row["is_d_residue"]:
        return "a D residue: its side chain is not predicted"
    if row["is_microheterogeneous"]:
        return "several residue types at this position: its atoms are kept"
    if row["is_modified"]:
        return "a modified residue: its atoms are kept"
    return "not predicted"


def write_sample_models(
    given: Input, row: np.ndarray, chi: np.ndarray, path: Path, identity: dict[str, str]
) -> bool:
    """A file with one model a draw: chi (S,n,4) on rows (n,) of the residues table.

    The format follows the ending of path. False where the PDB format cannot hold it.
    """
    first, document = open_structure(given.path)
    models = []
    for draw in chi:
        structure = first.clone()
        predicted = Predicted(
            row, *[np.empty(0)] * 5, np.ones((len(row), 1)), draw[:, None].astype(np.float64)
        )
        place(structure, _placement(given.tables, predicted))
        models.append(structure[0])
    del first[:]
    for number, model in enumerate(models, start=1):
        model.num = number
        first.add_model(model)
    note = identity | {"content": "Side chains sampled and built by qfitlatent; see README"}
    text = pdb_text(first, note) if path.suffix == ".pdb" else mmcif_text(first, document, note)
    if text is not None:
        write_text(path, text)
    return text is not None
