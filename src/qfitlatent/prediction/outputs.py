"""What a prediction reads and writes; no torch here, so that worker processes start at once.

One structure gives, in the output folder,

    <id>.mixture.parquet, .csv    a row a residue and component: weight, mean, concentration
    <id>.residues.csv             a row a residue: entropy, heterogeneity, modes, or why none
    <id>_ensemble.cif, .pdb       the multiconformer model (ensemble.py)
    <id>.html                     a page to look at (prediction_page.py)
    <id>.prediction.json          input, model and settings by checksum; written last

so a structure is done when its .prediction.json is there.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from qfitlatent.base.files import read_json, sha256_file, write_json, write_text
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI
from qfitlatent.pages.reasons import explain
from qfitlatent.prediction.columns import MIXTURE, RESIDUES
from qfitlatent.prediction.page import page
from qfitlatent.prediction.placing import Placement
from qfitlatent.prediction.placing import place_side_chains as place
from qfitlatent.prediction.records import Input, Predicted, Written, structure_id
from qfitlatent.structure.coordinates import mmcif_text, open_structure, pdb_text
from qfitlatent.tables.columns import chi_columns, id_columns
from qfitlatent.tables.keys import fixed_list
from qfitlatent.tables.parquet import conform, write_csv, write_table

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
        (row["chain"], row["index"]): explain(row)
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
