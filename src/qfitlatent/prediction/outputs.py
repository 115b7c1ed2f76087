"""The files that predict, sample and embed write; no torch here, so that workers start at once.

Shapes: N residues, n of them predicted, J modes, S samples, D=4 chi.
"""

from dataclasses import replace
from typing import Any

import gemmi
import numpy as np
import pyarrow as pa

from qfitlatent.base.files import write_text
from qfitlatent.chemistry.names import residue_label
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI, NUM_CHI_MAX, parent_name
from qfitlatent.joint.candidates import Densities
from qfitlatent.joint.model import JointModel, Protein, joint_model
from qfitlatent.joint.sampling import sample_joint
from qfitlatent.joint.states import States
from qfitlatent.pages.reasons import explain
from qfitlatent.prediction.columns import GROUPS, MIXTURE, RESIDUES, SAMPLES, embedding_schema
from qfitlatent.prediction.handover import HANDOVER, hand_over
from qfitlatent.prediction.page import page
from qfitlatent.prediction.placing import ALTLOCS, place_side_chains
from qfitlatent.prediction.records import Drawn, Input, Predicted, Unusable, Written
from qfitlatent.prediction.results import COUNTS, Results
from qfitlatent.prediction.scene import Placement, scene_of
from qfitlatent.prediction.surroundings import protein_of
from qfitlatent.structure.coordinates import mmcif_text, open_structure, pdb_text
from qfitlatent.tables.columns import chi_columns, id_columns
from qfitlatent.tables.keys import fixed_list
from qfitlatent.tables.parquet import conform, write_csv, write_table

PREDICTION = (
    ".mixture.parquet",  # a row a residue and component of its density
    ".mixture.csv",
    ".residues.csv",  # a row a residue: entropy, modes, or why there are none
    ".groups.csv",  # a row a group of residues and altloc: what belongs together
    "_ensemble.cif",  # the multiconformer model (placing.py)
    "_ensemble.pdb",
    ".html",  # a page to look at (page.py)
    *HANDOVER,  # scripts and groups for other programs (handover.py)
    ".prediction.json",  # input, model and settings by checksum
)
"""How the names of the files of one structure end, here and below, the record last."""

EMBEDDING = (".embedding.parquet", ".embedding.npz", ".embedding.json")


def sample_suffixes(file_format: str) -> tuple[str, ...]:
    return ".samples.parquet", f"_samples.{file_format}", ".samples.json"


def write_prediction(results: Results, given: Input, predicted: Predicted) -> Written:
    """All files of one structure."""
    residues = given.tables["residues"]
    token = residues["token"].to_numpy()[predicted.row]
    has_chi = NUM_CHI[token] > 0

    structure, document = open_structure(given.path)
    placement = placement_of(given.tables, predicted.row)
    protein = _protein(results, structure, placement)
    joint = joint_model(
        protein,
        densities_of(predicted, protein),
        predicted.heterogeneous,
        results.identity["min_weight"],
    )
    states = joint.states
    placement = replace(placement, weight=states.occupancy, chi=states.chi)
    is_built = np.zeros(len(residues), dtype=bool)
    is_built[predicted.row[place_side_chains(structure, placement)]] = True
    facts = results.about_model()
    note = facts | {"input_sha256": given.sha256}
    note["content"] = "Side chains predicted and built by qfitlatent; see README"
    cif, pdb = mmcif_text(structure, document, note), pdb_text(structure, note)
    mixture = _mixture_table(residues, predicted, token, has_chi)
    min_weight = results.identity["min_weight"]
    summary = _summary_table(given.tables, predicted, joint, has_chi, is_built, min_weight)
    groups = _groups_table(residues, predicted.row, states)
    left_out = [
        f"{residue_label(*(row[name] for name in _LABEL))}: {row['note']}"
        for row in summary.to_pylist()
        if row["note"]
    ]
    notes = []
    if left_out:
        listed = f"{given.entry}.residues.csv"
        notes.append(f"{len(left_out)} residues stay as they were; see {listed}")
    if pdb is None:
        notes.append("no PDB file: that format has no room for these names of chains or numbers")
    conformers = np.count_nonzero(states.occupancy, axis=1)
    written = Written(
        given.entry,
        given.path,
        notes=tuple(notes),
        num_residues=len(predicted.row),
        num_built=int(is_built.sum()),
        num_heterogeneous=int(np.count_nonzero(has_chi & (conformers > 1))),
    )
    counts = {name: getattr(written, name) for name in COUNTS}
    record = {**counts, "left_as_they_were": left_out, "notes": notes}
    with results.files(given, record) as (
        mixture_path, mixture_csv, residues_csv, groups_csv, cif_path, pdb_path, page_path, *others,
    ):  # fmt: skip
        write_table(mixture, mixture_path, MIXTURE, facts)
        write_csv(mixture_csv, mixture)
        write_csv(residues_csv, summary)
        write_csv(groups_csv, groups)
        write_text(cif_path, cif)
        if pdb is not None:
            write_text(pdb_path, pdb)
        conformers = given.tables["conformers"]
        text = page(given.entry, summary, predicted, states, token, conformers, results.identity)
        write_text(page_path, text)
        handed = hand_over(given.entry, results.identity["model"], structure, summary)
        for path, text in zip(others, handed.values(), strict=True):
            write_text(path, text)
    return written


def write_samples(results: Results, given: Input, drawn: Drawn) -> Written:
    """Joint states of what was drawn; a row a residue and draw."""
    row = drawn.row
    residues = given.tables["residues"]
    token = residues["token"].to_numpy()[row]
    has_chi = NUM_CHI[token] > 0
    first, document = open_structure(given.path)
    placement = placement_of(given.tables, row)
    protein = _protein(results, first, placement)
    densities = replace(drawn.densities, token=protein.backbones.token)
    chi = sample_joint(protein, densities, drawn.chi, drawn.num, results.identity["seed"])
    columns: dict[str, Any] = id_columns(residues, np.repeat(row[has_chi], len(chi)))
    columns["sample"] = np.tile(np.arange(len(chi)), has_chi.sum())
    mask = np.repeat(CHI_DEFINED[token[has_chi]], len(chi), axis=0)
    flat = chi[:, has_chi].transpose(1, 0, 2).reshape(-1, chi.shape[2])
    columns |= chi_columns("chi", flat, "_rad", mask)
    note = results.about_model() | {
        "input_sha256": given.sha256,
        "seed": str(results.identity["seed"]),
        "content": "Side chains sampled and built by qfitlatent; see README",
    }
    models = []
    for draw in chi:
        structure = first.clone()
        place_side_chains(structure, replace(placement, chi=draw[:, None]))
        models.append(structure[0])
    del first[:]
    for number, model in enumerate(models, start=1):
        model.num = number
        first.add_model(model)
    as_pdb = results.suffixes[1].endswith("pdb")
    text = pdb_text(first, note) if as_pdb else mmcif_text(first, document, note)
    if text is None:
        raise Unusable(
            "no_pdb",
            f"{given.path} has names of chains or numbers of residues for which the PDB format has "
            "no room: use --format cif.",
        )
    with results.files(given, {"num_residues": len(row)}) as (table_path, model_path):
        write_text(model_path, text)
        write_table(pa.table(columns), table_path, SAMPLES, results.about_model())
    return Written(given.entry, given.path, num_residues=len(row))


def write_embedding(
    results: Results, given: Input, known: tuple[np.ndarray, np.ndarray]
) -> Written:
    """known: rows (n,) of the residues table, and their single representations (n,d_s)."""
    row, s = known
    ids = id_columns(given.tables["residues"], row)
    schema = embedding_schema(s.shape[1])
    flat = pa.array(s.reshape(-1), pa.float32())
    embedding = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("embedding").type)
    arrays = {
        name: np.asarray(column.to_pylist(), dtype="U" if pa.types.is_string(column.type) else None)
        for name, column in ids.items()
        if not column.null_count
    }
    with results.files(given, {"num_residues": len(row)}) as (table_path, array_path):
        table = pa.table({**ids, "embedding": embedding})
        write_table(table, table_path, schema, results.about_model())
        with open(array_path, "wb") as file:
            np.savez(file, allow_pickle=False, embedding=s, **arrays)
    return Written(given.entry, given.path, num_residues=len(row))


def placement_of(tables: dict[str, pa.Table], row: np.ndarray) -> Placement:
    """One side chain a residue, whose chi are not known yet, on rows (n,) of the residues table."""
    residues = tables["residues"].take(pa.array(row))
    frames = tables["frames"].take(pa.array(row))
    columns = [residues[name].to_pylist() for name in _PLACE]
    return Placement(
        key=list(zip(*columns, strict=True)),
        frame_altloc=frames["altloc"].to_pylist(),
        rotation=fixed_list(frames["rotation"], (3, 3)),
        translation=fixed_list(frames["translation_angstrom"], (3,)),
        token=residues["token"].to_numpy(),
        weight=np.ones((len(row), 1)),
        chi=np.zeros((len(row), 1, NUM_CHI_MAX)),
    )


def _protein(results: Results, structure: gemmi.Structure, placement: Placement) -> Protein:
    crystal = structure if results.identity["crystal_neighbours"] else None
    return protein_of(scene_of(structure, placement), placement, crystal)


def densities_of(predicted: Predicted, protein: Protein) -> Densities:
    """As the joint step takes them; what is not built there has no chi."""
    names = ("weight", "mean", "kappa", "mode_weight", "mode_chi")
    return Densities(
        protein.backbones.token, *(getattr(predicted, n).astype(np.float64) for n in names)
    )


_PLACE = ("chain", "author_number", "insertion_code", "name", "label_seq")
_LABEL = ("chain", "name", "author_number", "insertion_code")


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


def _groups_table(residues: pa.Table, row: np.ndarray, states: States) -> pa.Table:
    names = residues.select(list(_LABEL)).take(pa.array(row)).to_pylist()
    rows = []
    for number, group in enumerate(states.groups):
        for label, population in enumerate(group.population.tolist()):
            shows = [n for n in group.residues if states.occupancy[n, label] > 0]
            rows.append(
                {
                    "group": number,
                    "altloc": ALTLOCS[label],
                    "population": population,
                    "distance": group.distance,
                    "num_residues": len(group.residues),
                    "residues": "; ".join(residue_label(*names[n].values()) for n in shows),
                }
            )
    return conform(pa.Table.from_pylist(rows, schema=GROUPS), GROUPS, "the groups")


def _summary_table(
    tables: dict[str, pa.Table],
    predicted: Predicted,
    joint: JointModel,
    has_chi: np.ndarray,
    is_built: np.ndarray,
    min_weight: float,
) -> pa.Table:
    residues = tables["residues"]
    num = len(residues)
    entropy, heterogeneity = np.full((2, num), np.nan)
    num_modes = np.zeros(num, dtype=np.int8)
    rows = predicted.row[has_chi]
    entropy[rows] = predicted.entropy[has_chi]
    heterogeneity[rows] = 1.0 - predicted.top_weight[has_chi]
    heavy = np.count_nonzero(predicted.mode_weight[has_chi] >= min_weight, axis=1)
    num_modes[rows] = np.maximum(heavy, 1)  # the heaviest always counts
    num_conformers = np.zeros(num, dtype=np.int8)
    num_conformers[rows] = np.count_nonzero(joint.states.occupancy[has_chi], axis=1)
    p_heterogeneous, sure, strain = np.full((3, num), np.nan)
    p_heterogeneous[rows] = predicted.p_heterogeneous[has_chi]
    sure[rows] = joint.confidence[has_chi]
    strain[rows] = joint.strain[has_chi]
    group = np.full(num, -1, dtype=np.int32)
    for number, members in enumerate(joint.states.groups):
        group[predicted.row[list(members.residues)]] = number
    chi = np.zeros((num, NUM_CHI_MAX))
    chi[rows] = joint.states.chi[has_chi, 0]
    missing = np.ones(num, dtype=bool)
    missing[rows] = False

    why = {
        (row["chain"], row["index"]): explain(row)
        for row in tables["rejected"].to_pylist()
        if row["scope"] in ("residue", "frame") and row["chain"] is not None
    }
    notes = [
        "" if is_built[i] else _why_not(row, missing[i], why)
        for i, row in enumerate(residues.select(list(_NOTED)).to_pylist())
    ]
    columns = id_columns(residues, np.arange(num))
    stays = ~is_built | missing
    defined = CHI_DEFINED[residues["token"].to_numpy()] & ~stays[:, None]
    columns |= chi_columns("chi", chi, "_rad", defined)
    columns |= {
        "entropy": pa.array(entropy.astype(np.float32), mask=missing),
        "heterogeneity": pa.array(heterogeneity.astype(np.float32), mask=missing),
        "num_modes": pa.array(num_modes, mask=missing),
        "p_heterogeneous": pa.array(
            p_heterogeneous.astype(np.float32), mask=np.isnan(p_heterogeneous)
        ),
        "num_conformers": pa.array(num_conformers, mask=stays),
        "group": pa.array(group, mask=group < 0),
        "confidence": pa.array(sure.astype(np.float32), mask=stays),
        "strain": pa.array(strain.astype(np.float32), mask=stays),
        "is_built": pa.array(is_built),
        "note": pa.array(notes, pa.string()),
    }
    return conform(pa.table(columns), RESIDUES, "the residues")


def _null_where_nan(values: np.ndarray) -> pa.Array:
    return pa.array(values.astype(np.float32), mask=np.isnan(values))


_KEPT = {
    "is_d_residue": "a D residue: its side chain is not predicted",
    "is_microheterogeneous": "several residue types at this position: its atoms are kept",
    "is_modified": "a modified residue: its atoms are kept",
}
_NOTED = ("chain", "index", "name", *_KEPT)


def _why_not(row: dict[str, Any], missing: bool, why: dict[tuple, str]) -> str:
    """Why a residue keeps its atoms; empty where a missing side chain is as it should be."""
    reason = why.get((row["chain"], row["index"]), "")
    if parent_name(row["name"]) in ("GLY", "ALA") or (reason and missing):
        return reason
    return next((words for flag, words in _KEPT.items() if row[flag]), "not predicted")
