"""Residues and conformers as the five tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qfitlatent.structure.backbone import Backbone
from qfitlatent.structure.conformers import Conformers
from qfitlatent.structure.rejections import Loss
from qfitlatent.structure.residues import Residues
from qfitlatent.tables import schemas
from qfitlatent.tables.columns import CHI_COLUMNS, OBSERVED_COLUMNS


def all_tables(
    residues: Residues,
    backbone: Backbone,
    conformers: Conformers,
    losses: Sequence[tuple[int, Loss]],
) -> dict[str, pa.Table]:
    """The five tables; losses as (index of the entry, loss)."""
    residue = {name: values[residues.residue_row] for name, values in residues.residue.items()}
    entry_of = pa.array(residues.names, pa.string())
    name_of = pa.array(residues.vocabulary, pa.string())
    key = {
        "entry": entry_of.take(pa.array(residues.entry)),
        "chain": name_of.take(pa.array(residues.chain)),
        "index": residues.index,
    }
    residue_columns = key | {
        "author_chain": name_of.take(pa.array(residue["author_chain"])),
        "author_number": residue["author_number"],
        "insertion_code": name_of.take(pa.array(residue["insertion_code"])),
        "label_seq": pa.array(residue["label_seq"], mask=residue["label_seq"] == 0),
        "name": name_of.take(pa.array(residue["residue_name"])),
        "token": residues.token,
        "segment": backbone.segment,
        "is_modified": residues.is_modified,
        "is_het": residue["is_het"],
        "is_d_residue": residues.is_d,
        "is_microheterogeneous": residues.num_residue_types > 1,
        "num_residue_types": residues.num_residue_types,
        "phi_rad": angle_column(backbone.phi),
        "psi_rad": angle_column(backbone.psi),
        "omega_rad": angle_column(backbone.omega),
        "num_chi": residues.num_chi,
        "num_conformers": conformers.num,
        "num_distinct_conformers": conformers.num_distinct,
        "num_altlocs": residues.num_altlocs,
        "occupancy_sum": conformers.occupancy_sum,
        "has_occupancy_disagreement": conformers.disagreement,
        "b_rank": null_where_nan(conformers.b_rank),
        "num_neighbours": pa.array(backbone.num_neighbours, mask=~backbone.ok),
        "secondary": _SECONDARY.take(pa.array(backbone.secondary)),
    }
    frames = key | {
        "rotation": float_lists(backbone.rotation.reshape(-1, 9), backbone.ok),
        "translation_angstrom": float_lists(backbone.translation, backbone.ok),
        "altloc": name_of.take(pa.array(np.maximum(backbone.label, 0), mask=backbone.label < 0)),
        "is_observed": pa.array(backbone.is_observed, mask=~backbone.ok),
    }
    conformer = conformers.columns
    row = pa.array(conformer["row"])
    conformer_columns = {
        "entry": key["entry"].take(row),
        "chain": key["chain"].take(row),
        "index": residues.index[conformer["row"]],
        "altloc": name_of.take(pa.array(conformer["label"])),
        "mean_b_angstrom2": null_where_nan(conformer["mean_b"]),
        **dict(zip(CHI_COLUMNS, map(angle_column, conformer["chi"].T), strict=True)),
        **{
            name: pa.array(seen, mask=np.isnan(chi))
            for name, seen, chi in zip(
                OBSERVED_COLUMNS, conformer["observed"].T, conformer["chi"].T, strict=True
            )
        },
        **{n: conformer[n] for n in schemas.CONFORMERS.names if n in conformer},
    }
    return {
        "entries": make_table(_entries(residues, backbone, conformers), schemas.ENTRIES),
        "residues": make_table(residue_columns, schemas.RESIDUES),
        "frames": make_table(frames, schemas.FRAMES),
        "conformers": make_table(conformer_columns, schemas.CONFORMERS),
        "rejected": rejected_table(residues.names, losses, residues),
    }


def _entries(residues: Residues, backbone: Backbone, conformers: Conformers) -> dict[str, object]:
    num = len(residues.names)

    def count(rows: np.ndarray) -> np.ndarray:
        return np.bincount(residues.entry[rows], minlength=num)

    kept = residues.has_backbone[residues.residue_row]
    backbones = np.bincount(residues.residue_entry[residues.has_backbone], minlength=num)
    lost = {"residues": np.zeros(num, dtype=np.int64), "backbones": np.zeros(num, dtype=np.int64)}
    for e, parsed in residues.read:
        of_entry = [loss for loss in parsed.losses if loss.scope == "residue"]
        lost["residues"][e] = len(of_entry)
        lost["backbones"][e] = sum(loss.has_backbone for loss in of_entry)
    per_entry = {
        "num_chains": count(residues.first_in_chain),
        "num_residues_read": np.bincount(residues.residue_entry, minlength=num) + lost["residues"],
        "num_residues": np.bincount(residues.entry, minlength=num),
        "num_residues_rejected": _num_rejected(residues, "residue") + lost["residues"],
        "num_backbones_kept": count(np.flatnonzero(kept)),
        "num_backbones_rejected": backbones - count(np.flatnonzero(kept)) + lost["backbones"],
        "num_conformers_read": conformers.num_read,
        "num_conformers": count(conformers.columns["row"]),
        "num_conformers_rejected": _num_rejected(residues, "conformer"),
        "num_multiconformer": count(conformers.num >= 2),
        "num_heterogeneous": count(conformers.num_distinct >= 2),
        "num_frames": count(backbone.ok),
    }
    which = np.array([e for e, _ in residues.read])
    columns: dict[str, object] = {n: values[which] for n, values in per_entry.items()}
    for name in ("entry", "source", "url", "num_backbones"):
        columns[name] = [getattr(parsed, name) for _, parsed in residues.read]
    for name in schemas.ENTRIES.names:
        if name not in columns:
            values = [parsed.header[name] for _, parsed in residues.read]
            columns[name] = [None if v in (np.inf, -np.inf) or v != v else v for v in values]
    return columns


def _num_rejected(residues: Residues, scope: str) -> np.ndarray:
    counts = np.zeros(len(residues.names), dtype=np.int64)
    for piece in residues.rejected:
        if piece["scope"][0] == scope:
            counts += np.bincount(residues.entry[piece["place"]], minlength=len(counts))
    return counts


def rejected_table(
    names: Sequence[str], losses: Sequence[tuple[int, Loss]], residues: Residues | None = None
) -> pa.Table:
    """The rows of all entries, sorted; losses as (index of the entry, loss)."""
    own = [name for name in Loss._fields if name in schemas.REJECTED.names]
    rows = [{name: getattr(loss, name) for name in own} | {"entry": names[e]} for e, loss in losses]
    pieces = [pa.Table.from_pylist(rows, schema=schemas.REJECTED)]
    place = np.full(len(losses), -1)
    if residues is not None and residues.rejected:
        columns = _rejected_columns(residues)
        pieces.append(make_table(columns, schemas.REJECTED))
        place = np.r_[place, columns["place"]]
    table = pa.concat_tables(pieces)
    keys = {
        "entry": table["entry"],
        "place": pa.array(place),
        "number": table["author_number"].fill_null(-(1 << 31)),
        **{n: table[n].fill_null("") for n in ("name", "altloc", "scope", "reason")},
    }
    order = pc.sort_indices(pa.table(keys), [(key, "ascending") for key in keys])
    return table.take(order)


def _rejected_columns(residues: Residues) -> dict[str, Any]:
    rejected = {
        name: np.concatenate([piece[name] for piece in residues.rejected])
        for name in residues.rejected[0]
    }
    place, name, altloc = (rejected[n] for n in ("place", "name", "altloc"))
    residue = {n: values[residues.residue_row][place] for n, values in residues.residue.items()}
    name_of = pa.array(residues.vocabulary, pa.string())
    return rejected | {
        "entry": pa.array(residues.names, pa.string()).take(pa.array(residues.entry[place])),
        "stage": ["preprocess"] * len(place),
        "name": name_of.take(pa.array(name, mask=name == 0)),
        "altloc": name_of.take(pa.array(np.maximum(altloc, 0), mask=altloc < 0)),
        "chain": name_of.take(pa.array(residues.chain[place])),
        "index": residues.index[place],
        "author_chain": name_of.take(pa.array(residue["author_chain"])),
        "author_number": residue["author_number"],
        "insertion_code": name_of.take(pa.array(residue["insertion_code"])),
    }


_SECONDARY = pa.array(["loop", "helix", "strand"])


def make_table(columns: dict[str, object], schema: pa.Schema) -> pa.Table:
    """Columns by name, cast to the schema's types."""
    arrays = []
    for declared in schema:
        values = columns[declared.name]
        if isinstance(values, np.ndarray) and pa.types.is_floating(declared.type):
            values = values.astype(declared.type.to_pandas_dtype(), copy=False)
        elif isinstance(values, np.ndarray) and pa.types.is_integer(declared.type):
            values = pa.array(values)  # whose cast refuses what does not fit
        array = values if isinstance(values, pa.Array) else pa.array(values, declared.type)
        arrays.append(array if array.type == declared.type else array.cast(declared.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def angle_column(values: np.ndarray) -> pa.Array:
    """float32 angles in (-pi, pi]; null where nan."""
    angle = values.astype(np.float32)
    # float32(pi) is above pi, and its negative below -pi.
    limit = np.nextafter(np.float32(np.pi), np.float32(0))
    return null_where_nan(np.clip(angle, -limit, limit))


def null_where_nan(values: np.ndarray) -> pa.Array:
    """As float32."""
    return pa.array(values.astype(np.float32), mask=np.isnan(values))


def float_lists(values: np.ndarray, valid: np.ndarray) -> pa.Array:
    """(n, width) as a float32 list column of fixed size, null where not valid."""
    flat = np.where(valid[:, None], values, 0.0).astype(np.float32).ravel()
    width = values.shape[1]
    kind = pa.list_(pa.field("element", pa.float32(), nullable=False), width)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind, mask=pa.array(~valid))
