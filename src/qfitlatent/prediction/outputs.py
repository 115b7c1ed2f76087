"""The files that predict, sample and embed write; no torch here, so that workers start at once.

Shapes: N residues, n of them predicted, J modes, S samples, D=4 chi.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from qfitlatent.base.files import write_text
from qfitlatent.chemistry.names import residue_label
from qfitlatent.chemistry.observables import kinds, kinds_of
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI, NUM_CHI_MAX, parent_name
from qfitlatent.joint.states import States
from qfitlatent.pages.reasons import explain
from qfitlatent.prediction.columns import (
    GROUPS,
    MIXTURE,
    OBSERVABLES,
    RESIDUES,
    SAMPLES,
    SCORES,
    SEEN,
    embedding_schema,
)
from qfitlatent.prediction.ensemble import Ensemble, build_draws, build_ensemble
from qfitlatent.prediction.handover import HANDOVER, hand_over
from qfitlatent.prediction.looks import with_context
from qfitlatent.prediction.page import page
from qfitlatent.prediction.placing import ALTLOCS
from qfitlatent.prediction.records import (
    Chosen,
    Drawn,
    Input,
    Predicted,
    Scored,
    Unusable,
    Written,
)
from qfitlatent.prediction.results import COUNTS, Results
from qfitlatent.prediction.seen import in_words
from qfitlatent.prediction.surroundings import words_of
from qfitlatent.structure.written import mmcif_text, pdb_text
from qfitlatent.tables.columns import chi_columns, id_columns
from qfitlatent.tables.parquet import conform, csv_writer, table_writer, write_csv, write_table

PREDICTION = (
    ".mixture.parquet",  # a row a residue and component of its density
    ".mixture.csv",
    ".residues.csv",  # a row a residue: entropy, modes, or why there are none
    ".observables.csv",  # a row a residue and quantity that experiments measure
    ".groups.csv",  # a row a group of residues and altloc: what belongs together
    ".surroundings.csv",  # what stood around the side chains, and what of it counted
    "_ensemble.cif",  # the multiconformer model (placing.py)
    "_ensemble.pdb",
    ".html",  # a page to look at (page.py)
    *HANDOVER,  # scripts and groups for other programs (handover.py)
    ".prediction.json",  # input, model and settings by checksum
)
"""How the names of the files of one structure end, here and below, the record last."""

SCORE = (".scores.parquet", ".surroundings.parquet", ".scores.json")

RESIDUES_AT_A_TIME = 1024
"""Residues whose rows of the mixture are held at a time."""

EMBEDDING = (".embedding.parquet", ".embedding.npz", ".embedding.json")


def sample_suffixes(file_format: str) -> tuple[str, ...]:
    return ".samples.parquet", f"_samples.{file_format}", ".samples.json"


def write_prediction(results: Results, given: Input, predicted: Predicted) -> Written:
    """All files of one structure."""
    ensemble = build_ensemble(results.identity, given, predicted)
    return write_built(results, given, predicted, ensemble)


def write_built(
    results: Results, given: Input, predicted: Predicted, ensemble: Ensemble
) -> Written:
    """All files of one structure whose model is built."""
    residues = given.tables["residues"]
    token = residues["token"].to_numpy()[predicted.row]
    states, waters = ensemble.joint.states, ensemble.waters_removed
    cif = mmcif_text(ensemble.model, ensemble.origin, ensemble.document)
    pdb = pdb_text(ensemble.model)
    summary = summary_table(given, predicted, ensemble, results.identity["min_weight"])
    groups = _groups_table(residues, ensemble.row, states)
    rows = summary.to_pylist()
    labels = [residue_label(*(row[name] for name in _LABEL)) for row in rows]
    left_out = [f"{x}: {row['note']}" for x, row in zip(labels, rows, strict=True) if row["note"]]
    least = results.identity["min_confidence"]
    unsure = [x for x, sure in zip(labels, ensemble.confidence, strict=True) if sure < least]
    notes = []
    if left_out:
        listed = f"{given.entry}.residues.csv"
        notes.append(f"{len(left_out)} residues stay as they were; see {listed}")
    listed = f"see {given.entry}.prediction.json"
    if unsure:
        notes.append(f"{len(unsure)} residues have a confidence below {least:g}; {listed}")
    if waters:
        notes.append(f"{len(waters)} waters removed; {listed}")
    if predicted.no_reference:
        notes.append(f"no unlike_training: {predicted.no_reference}")
    notes.append(f"around: {in_words(ensemble.seen)}")
    if pdb is None:
        notes.append("no PDB file: that format has no room for these names of chains or numbers")
    conformers = np.count_nonzero(states.occupancy, axis=1)
    written = Written(
        given.entry,
        given.path,
        notes=tuple(notes),
        num_residues=len(predicted.row),
        num_built=int(ensemble.is_built.sum()),
        num_heterogeneous=int(np.count_nonzero(conformers > 1)),
    )
    counts = {name: getattr(written, name) for name in COUNTS}
    about = {"left_as_they_were": left_out, "below_min_confidence": unsure}
    seen = {"surroundings_seen": ensemble.seen.to_pylist()}
    trained = {"nearest_training_chains": list(predicted.nearest)}
    record = {**counts, **about, "waters_removed": waters, **seen, **trained, "notes": notes}
    with results.files(given, record) as (
        mixture_path, mixture_csv, residues_csv, observables_csv, groups_csv, seen_csv,
        cif_path, pdb_path, page_path, *others,
    ):  # fmt: skip
        mixture_paths = mixture_path, mixture_csv
        write_mixture(mixture_paths, residues, predicted, token, results.about_model())
        write_csv(residues_csv, summary)
        write_csv(observables_csv, observables_table(residues, predicted, token))
        write_csv(groups_csv, groups)
        write_csv(seen_csv, ensemble.seen)
        write_text(cif_path, cif)
        if pdb is not None:
            write_text(pdb_path, pdb)
        conformers = given.tables["conformers"]
        shown = _states_of_all(predicted, ensemble)
        model = ensemble.model[0]
        text = page(
            given.entry, summary, predicted, shown, token, conformers, model, results.identity,
            ensemble.seen,
        )  # fmt: skip
        write_text(page_path, text)
        handed = hand_over(given.entry, results.identity["model"], ensemble.model, summary)
        for path, text in zip(others, handed.values(), strict=True):
            write_text(path, text)
    return written


def write_samples(results: Results, given: Input, drawn: Drawn) -> Written:
    """Joint states of what was drawn; a row a residue and draw."""
    residues = given.tables["residues"]
    model, document, origin, row, chi, seen = build_draws(results.identity, given, drawn)
    token = residues["token"].to_numpy()[row]
    has_chi = NUM_CHI[token] > 0
    columns: dict[str, Any] = id_columns(residues, np.repeat(row[has_chi], len(chi)))
    columns["sample"] = np.tile(np.arange(len(chi)), has_chi.sum())
    mask = np.repeat(CHI_DEFINED[token[has_chi]], len(chi), axis=0)
    flat = chi[:, has_chi].transpose(1, 0, 2).reshape(-1, chi.shape[2])
    columns |= chi_columns("chi", flat, "_rad", mask)
    as_pdb = results.suffixes[1].endswith("pdb")
    text = pdb_text(model) if as_pdb else mmcif_text(model, origin, document)
    if text is None:
        raise Unusable(
            "no_pdb",
            f"{given.path} has names of chains or numbers of residues for which the PDB format has "
            "no room: use --format cif.",
        )
    record = {"num_residues": len(row), "surroundings_seen": seen.to_pylist()}
    with results.files(given, record) as (table_path, model_path):
        write_text(model_path, text)
        write_table(pa.table(columns), table_path, SAMPLES, results.about_model())
    return Written(given.entry, given.path, num_residues=len(row))


def write_scores(results: Results, given: Input, scored: Scored) -> Written:
    """Rows of ``columns.SCORES``."""
    words, num = words_of(results.identity["surroundings"]), len(scored.row)
    scores, seen = with_context(given, scored, results.identity["look_above"], words)
    with results.files(given, {"num_residues": num}) as (table_path, seen_path):
        write_table(scores, table_path, SCORES)
        write_table(seen, seen_path, SEEN)
    return Written(given.entry, given.path, notes=(f"around: {in_words(seen)}",), num_residues=num)


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


def _states_of_all(predicted: Predicted, ensemble: Ensemble) -> States:
    """The states of all n predicted residues: what is not built has occupancy 0."""
    states = ensemble.joint.states
    at = np.flatnonzero(np.isin(predicted.row, ensemble.row))
    num_labels = states.occupancy.shape[1]
    occupancy = np.zeros((len(predicted.row), num_labels), dtype=states.occupancy.dtype)
    chi = np.zeros((len(predicted.row), num_labels, NUM_CHI_MAX))
    occupancy[at], chi[at] = states.occupancy, states.chi
    groups = tuple(
        replace(group, residues=tuple(at[list(group.residues)].tolist())) for group in states.groups
    )
    return States(chi, occupancy, groups)


_LABEL = ("chain", "name", "author_number", "insertion_code")


def write_mixture(
    paths: tuple[Path, Path],
    residues: pa.Table,
    predicted: Predicted,
    token: np.ndarray,
    facts: Mapping[str, str],
) -> None:
    """Rows of ``MIXTURE`` as Parquet and as CSV, of n residues of types token (n,).

    They are most of what a prediction holds, and are made for some residues at a time.
    """
    table_path, csv_path = paths
    with table_writer(table_path, MIXTURE, facts) as table, csv_writer(csv_path, MIXTURE) as csv:
        for first in range(0, len(token), RESIDUES_AT_A_TIME):
            piece = _mixture_of(residues, predicted, token, first)
            table.write(piece)
            csv.write(piece)


def _mixture_of(
    residues: pa.Table, predicted: Predicted, token: np.ndarray, first: int
) -> pa.Table:
    """Of the residues from this one on."""
    some = slice(first, first + RESIDUES_AT_A_TIME)
    # Components of weight 0 only fill up the array.
    has_chi = NUM_CHI[token[some]] > 0
    residue, component = np.nonzero(has_chi[:, None] & (predicted.weight[some] > 0))
    residue += first
    mask = CHI_DEFINED[token[residue]]
    columns = id_columns(residues, predicted.row[residue])
    columns["component"] = component
    columns["weight"] = predicted.weight[residue, component].astype(np.float32)
    columns |= chi_columns("mean", predicted.mean[residue, component], "_rad", mask)
    columns |= chi_columns("kappa", predicted.kappa[residue, component], "", mask)
    return conform(pa.table(columns), MIXTURE, "the mixture")


def observables_table(residues: pa.Table, predicted: Predicted, token: np.ndarray) -> pa.Table:
    """Rows of ``OBSERVABLES`` of the n predicted residues, of types token (n,)."""
    number = kinds_of()[token]
    residue, slot = np.nonzero(number >= 0)
    known = [kinds()[n] for n in number[residue, slot].tolist()]
    columns: dict[str, Any] = id_columns(residues, predicted.row[residue])
    for name in ("quantity", "site", "unit"):
        columns[name] = pa.array([getattr(kind, name) for kind in known], pa.string())
    columns["value"] = predicted.observables[residue, slot].astype(np.float32)
    columns["error"] = pa.array([kind.error for kind in known], pa.float32())
    return conform(pa.table(columns), OBSERVABLES, "the observables")


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


def summary_table(
    given: Input, predicted: Predicted, ensemble: Ensemble, min_weight: float
) -> pa.Table:
    """A row a residue, with the columns of ``columns.RESIDUES``."""
    residues, is_built, joint = given.tables["residues"], ensemble.is_built, ensemble.joint
    num = len(residues)
    token = residues["token"].to_numpy()
    has_chi = NUM_CHI[token[predicted.row]] > 0
    turns = NUM_CHI[token[ensemble.row]] > 0  # of those that are built
    entropy, heterogeneity, free, of_rotamers, apart, unlike = np.full((6, num), np.nan)
    num_modes = np.zeros(num, dtype=np.int8)
    rows = predicted.row[has_chi]
    entropy[rows] = predicted.entropy[has_chi]
    free[rows] = entropy[rows] - NUM_CHI[token[rows]] * np.log(2.0 * np.pi)
    of_rotamers[rows] = predicted.rotamer_entropy[has_chi]
    apart[rows] = predicted.disagreement[has_chi]
    unlike[rows] = predicted.unlike_training[has_chi]
    heterogeneity[rows] = 1.0 - predicted.top_weight[has_chi]
    heavy = np.count_nonzero(predicted.mode_weight[has_chi] >= min_weight, axis=1)
    num_modes[rows] = np.maximum(heavy, 1)  # the heaviest always counts
    num_conformers = np.zeros(num, dtype=np.int8)
    built = ensemble.row[turns]
    num_conformers[built] = np.count_nonzero(joint.states.occupancy[turns], axis=1)
    p_heterogeneous, sure, strain = np.full((3, num), np.nan)
    p_heterogeneous[rows] = predicted.p_heterogeneous[has_chi]
    sure[built] = joint.confidence[turns]
    strain[built] = joint.strain[turns]
    group = np.full(num, -1, dtype=np.int32)
    for number, members in enumerate(joint.states.groups):
        group[ensemble.row[list(members.residues)]] = number
    chi = np.zeros((num, NUM_CHI_MAX))
    chi[built] = joint.states.chi[turns, 0]
    missing = np.ones(num, dtype=bool)
    missing[rows] = False

    why = {
        (row["chain"], row["index"]): explain(row)
        for row in given.tables["rejected"].to_pylist()
        if row["scope"] in ("residue", "frame") and row["chain"] is not None
    }
    notes = [
        "" if is_built[i] else _why_not(row, missing[i], why, given.chosen, i)
        for i, row in enumerate(residues.select(list(_NOTED)).to_pylist())
    ]
    columns = id_columns(residues, np.arange(num))
    stays = ~is_built | missing
    defined = CHI_DEFINED[token] & ~stays[:, None]
    columns |= chi_columns("chi", chi, "_rad", defined)
    columns |= {
        "entropy": pa.array(entropy.astype(np.float32), mask=missing),
        "conformational_entropy": pa.array(free.astype(np.float32), mask=missing),
        "rotamer_entropy": pa.array(of_rotamers.astype(np.float32), mask=missing),
        "disagreement": _null_where_nan(apart),
        "unlike_training": _null_where_nan(unlike),
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


def _why_not(
    row: dict[str, Any], missing: bool, why: dict[tuple, str], chosen: Chosen, i: int
) -> str:
    """Why a residue keeps its atoms; empty where a missing side chain is as it should be."""
    reason = why.get((row["chain"], row["index"]), "")
    if parent_name(row["name"]) in ("GLY", "ALA") or (reason and missing):
        return reason
    kept = next((words for flag, words in _KEPT.items() if row[flag]), "not predicted")
    as_asked = not chosen.rebuilt[i] or (chosen.fix_complete and kept == "not predicted")
    return "its atoms are kept, as asked" if as_asked and not missing else kept
