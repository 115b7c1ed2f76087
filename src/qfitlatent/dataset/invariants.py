"""What must hold in written tables, checked from the Parquet files alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI, TOKEN, UNKNOWN_TOKEN, parent_name
from qfitlatent.tables.columns import CHI_COLUMNS, KEYS, OBSERVED_COLUMNS
from qfitlatent.tables.names import EXCLUDED, HELD_OUT, SPLITS, TABLES
from qfitlatent.tables.parquet import read_table
from qfitlatent.tables.reasons import Reason

ROTATION_TOLERANCE = 1e-5
OCCUPANCY_TOLERANCE = 1e-6
NUM_SHOWN = 20
"""Rows of a broken invariant that are listed."""

KEY = list(KEYS)


@dataclass(frozen=True)
class Violation:
    """A broken invariant: what should hold, and the rows where it does not."""

    invariant: str
    rows: pd.DataFrame

    def __str__(self) -> str:
        shown = self.rows.head(NUM_SHOWN).to_string(index=False)
        more = len(self.rows) - NUM_SHOWN
        return f"{self.invariant}: {len(self.rows)} rows\n{shown}" + (
            f"\nand {more} more" if more > 0 else ""
        )


Tables = Mapping[str, pd.DataFrame]


def read_tables(tables_dir: str | Path, split_path: str | Path | None) -> dict[str, pd.DataFrame]:
    """All tables as pandas; ``split`` and ``download`` where they are.

    ``not_finite`` has a row for each number that is neither finite nor null, which pandas cannot
    tell apart: table, column, entry.
    """
    tables_dir = Path(tables_dir)
    stored = {name: read_table(tables_dir / f"{name}.parquet") for name in TABLES}
    frames = stored["frames"]
    found = {name: table.to_pandas() for name, table in stored.items() if name != "frames"}
    found["not_finite"] = pd.DataFrame(
        [row for name, table in stored.items() for row in _not_finite(name, table)],
        columns=["table", "column", "entry"],
    )
    rotation = frames["rotation"]
    found["frames"] = frames.select([*KEY, "altloc", "is_observed"]).to_pandas()
    for i in range(9):
        found["frames"][f"r{i}"] = pc.list_element(rotation, i).to_numpy().astype(np.float64)
    found["frames"]["has_translation"] = np.asarray(frames["translation_angstrom"].is_valid())
    if split_path is not None:
        found["split"] = read_table(split_path).to_pandas()
    download = tables_dir.parent / "download.parquet"
    if download.exists():
        found["download"] = read_table(download).to_pandas()
    return found


def _not_finite(name: str, table: pa.Table) -> Iterator[tuple[str, str, str]]:
    """(table, column, entry) of each number that is nan or infinite."""
    for field in table.schema:
        column = table[field.name]
        is_list = pa.types.is_fixed_size_list(field.type)
        if not pa.types.is_floating(field.type.value_type if is_list else field.type):
            continue
        rows = np.arange(len(table))
        if is_list:
            rows = np.repeat(rows[np.asarray(column.is_valid())], field.type.list_size)
            column = pc.list_flatten(column)
        wrong = pc.invert(pc.is_finite(column)).fill_null(False).to_numpy()
        for entry in table["entry"].take(pa.array(rows[wrong])).to_pylist():
            yield name, field.name, entry


def check_invariants(tables: Tables) -> list[Violation]:
    """Everything that must hold for the written tables (:func:`read_tables`); [] where it does."""
    return [
        Violation(invariant, rows)
        for check in _CHECKS
        for invariant, rows in check(tables)
        if len(rows)
    ]


_Checks = Iterator[tuple[str, pd.DataFrame]]


def _numbers(tables: Tables) -> _Checks:
    yield "every number is finite or missing", tables["not_finite"]


def _keys(tables: Tables) -> _Checks:
    unique = {
        "entries": ["entry"],
        "residues": KEY,
        "frames": KEY,
        "conformers": [*KEY, "altloc"],
    }
    if "split" in tables:
        unique["split"] = ["entry", "chain"]
    for name, key in unique.items():
        rows = tables[name]
        yield f"keys of {name} are unique", rows.loc[rows.duplicated(key, keep=False), key]
    residues = tables["residues"]
    yield "residues belong to an entry", _absent(residues, tables["entries"], ["entry"])
    yield "frames belong to a residue", _absent(tables["frames"], residues, KEY)
    yield "every residue has a row in frames", _absent(residues, tables["frames"], KEY)
    yield "conformers belong to a residue", _absent(tables["conformers"], residues, KEY)
    index = residues.groupby(["entry", "chain"])["index"].agg(["min", "max", "size"])
    gaps = index[(index["min"] != 0) | (index["max"] != index["size"] - 1)].reset_index()
    yield "indices of a chain run from 0 without a gap", gaps


def _absent(rows: pd.DataFrame, of: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """Keys of ``rows`` that are not in ``of``."""
    joined = rows[key].merge(of[key].drop_duplicates(), on=key, how="left", indicator=True)
    return joined.loc[joined["_merge"] == "left_only", key]


def _frames(tables: Tables) -> _Checks:
    frames = tables["frames"]
    rotation = frames[[f"r{i}" for i in range(9)]].to_numpy().reshape(-1, 3, 3)
    there = ~np.isnan(rotation[:, 0, 0])
    partial = (there != frames["altloc"].notna()) | (there != frames["has_translation"])
    partial |= there != frames["is_observed"].notna()
    yield (
        "rotation, translation, altloc and is_observed of a frame are null together",
        frames.loc[partial, KEY],
    )
    error = np.zeros(len(frames))
    product = rotation[there].transpose(0, 2, 1) @ rotation[there]
    error[there] = np.abs(product - np.eye(3)).max(axis=(1, 2))
    error[there] = np.maximum(error[there], np.abs(np.linalg.det(rotation[there]) - 1))
    bad = ~(error <= ROTATION_TOLERANCE)
    yield (
        f"rotations are orthonormal with determinant +1 within {ROTATION_TOLERANCE:g}",
        frames.loc[bad, KEY].assign(error=error[bad]),
    )


def _occupancies(tables: Tables) -> _Checks:
    conformers = tables["conformers"]
    grouped = conformers.groupby(KEY, sort=False)
    total = grouped["occupancy_normalised"].sum().reset_index(name="sum")
    yield (
        f"normalised occupancies of a residue sum to 1 within {OCCUPANCY_TOLERANCE:g}",
        total[~((total["sum"] - 1).abs() <= OCCUPANCY_TOLERANCE)],
    )
    wrong = ~conformers["occupancy_normalised"].between(0, 1 + OCCUPANCY_TOLERANCE)
    wrong |= conformers["occupancy_min"] > conformers["occupancy"] + OCCUPANCY_TOLERANCE
    wrong |= conformers["occupancy_max"] < conformers["occupancy"] - OCCUPANCY_TOLERANCE
    yield (
        "occupancies are at least 0 and between their minimum and maximum",
        conformers.loc[wrong, [*KEY, "altloc", "occupancy", "occupancy_min", "occupancy_max"]],
    )
    same = (conformers[KEY] == conformers[KEY].shift()).all(axis=1)
    in_order = np.where(
        same,
        (conformers["rank"] == conformers["rank"].shift() + 1)
        & (conformers["occupancy"] <= conformers["occupancy"].shift()),
        conformers["rank"] == 0,
    )
    yield (
        "ranks count from 0 by falling occupancy",
        conformers.loc[~in_order, [*KEY, "altloc", "rank", "occupancy"]],
    )


def _angles(tables: Tables) -> _Checks:
    conformers = tables["conformers"].merge(tables["residues"][[*KEY, "token"]], on=KEY)
    shown = [*KEY, "altloc", "token", *CHI_COLUMNS]
    chi = conformers[CHI_COLUMNS].to_numpy(dtype=np.float64)
    undefined = ~np.isnan(chi) & ~CHI_DEFINED[conformers["token"].to_numpy()]
    yield (
        "chi is there only where the residue type defines it",
        conformers.loc[undefined.any(axis=1), shown],
    )
    seen = conformers[OBSERVED_COLUMNS].notna().to_numpy()
    yield (
        "a chi is observed or not exactly where it is there",
        conformers.loc[(seen == np.isnan(chi)).any(axis=1), [*shown, *OBSERVED_COLUMNS]],
    )
    yield "a conformer has at least one chi", conformers.loc[np.isnan(chi).all(axis=1), shown]
    yield "chi is in (-pi, pi]", conformers.loc[_outside(chi), shown]
    torsion = tables["residues"][["phi_rad", "psi_rad", "omega_rad"]].to_numpy(dtype=np.float64)
    yield "phi, psi and omega are in (-pi, pi]", tables["residues"].loc[_outside(torsion), KEY]


def _outside(angles: np.ndarray) -> np.ndarray:
    """(n,) whether one of the angles (n,k) is not in (-pi, pi]."""
    return np.any((angles <= -np.pi) | (angles > np.pi), axis=1)


def _types(tables: Tables) -> _Checks:
    residues = tables["residues"]
    token = {
        name: TOKEN.get(parent_name(name), UNKNOWN_TOKEN) for name in residues["name"].unique()
    }
    expected = residues["name"].map(token)
    expected = expected.where(~residues["is_d_residue"], UNKNOWN_TOKEN)
    wrong = residues["token"] != expected
    yield "tokens agree with names", residues.loc[wrong, [*KEY, "name", "token"]]
    wrong = residues["num_chi"].to_numpy() != NUM_CHI[residues["token"].to_numpy()]
    yield "numbers of chi agree with tokens", residues.loc[wrong, [*KEY, "name", "num_chi"]]
    rejected = tables["rejected"]
    unknown = ~rejected["reason"].isin([reason.value for reason in Reason])
    yield "reasons are of the closed vocabulary", rejected.loc[unknown]


def _conformations(tables: Tables) -> _Checks:
    groups = tables["conformers"].groupby(KEY)["group"].agg(["min", "max", "nunique"])
    counted = tables["residues"][[*KEY, "num_distinct_conformers"]].join(groups, on=KEY)
    distinct = counted["num_distinct_conformers"]
    wrong = distinct != counted["nunique"].fillna(0)
    wrong |= (distinct > 0) & ((counted["min"] != 0) | (counted["max"] != distinct - 1))
    yield "groups of conformers count from 0 to the number of distinct ones", counted[wrong]
    rank = tables["residues"][[*KEY, "b_rank"]]
    yield "ranks of B are in [0, 1]", rank[~rank["b_rank"].between(0, 1) & rank["b_rank"].notna()]


def _accounting(tables: Tables) -> _Checks:
    entries, residues, rejected = (tables[n] for n in ("entries", "residues", "rejected"))

    def num_listed(entry: pd.Series) -> pd.Series:
        """How often each entry of the table of entries is there."""
        return entries["entry"].map(entry.value_counts()).fillna(0)

    for what in ("residues", "conformers"):
        columns = [f"num_{what}_read", f"num_{what}", f"num_{what}_rejected"]
        read, kept, lost = (entries[name] for name in columns)
        shown = entries[["entry", *columns]]
        yield f"{what} read = kept + rejected", shown[read != kept + lost]
        listed = num_listed(rejected.loc[rejected["scope"] == what[:-1], "entry"])
        yield f"rejected {what} are as many as listed", shown[lost != listed]
        yield f"{what} are as many as listed", shown[kept != num_listed(tables[what]["entry"])]
    for name, column in (
        ("num_multiconformer", "num_conformers"),
        ("num_heterogeneous", "num_distinct_conformers"),
    ):
        listed = num_listed(residues.loc[residues[column] >= 2, "entry"])
        yield (
            f"{name} is the number of residues with several {column.removeprefix('num_')}",
            entries.loc[entries[name] != listed, ["entry", name]],
        )
    of_residue = tables["conformers"].groupby(KEY).size().rename("listed")
    joined = residues[[*KEY, "num_conformers"]].join(of_residue, on=KEY).fillna({"listed": 0})
    wrong = joined["num_conformers"] != joined["listed"]
    yield "conformers of a residue are as many as counted", joined[wrong]
    frames = tables["frames"]
    without = frames.loc[frames["altloc"].isna(), KEY]
    explained = rejected.loc[rejected["scope"] == "frame", KEY].astype({"index": "int32"})
    yield "a residue without frame has a reason", _absent(without, explained, KEY)
    left_out = rejected.loc[rejected["scope"] == "entry", ["entry"]]
    both = left_out[left_out["entry"].isin(entries["entry"])]
    yield "an entry is kept or rejected, not both", both
    if "download" in tables:
        known = pd.concat([entries[["entry"]], left_out])
        yield "every selected entry is accounted for", _absent(tables["download"], known, ["entry"])


def _backbones(tables: Tables) -> _Checks:
    entries = tables["entries"]
    columns = ["entry", "num_backbones_kept", "num_backbones_rejected"]
    wrong = (entries["num_backbones_kept"] > entries["num_residues"]) | (
        entries["num_backbones_rejected"] > entries["num_residues_rejected"]
    )
    yield "residues with N, CA and C are among those kept and rejected", entries.loc[wrong, columns]


def uncounted_entries(tables: Tables) -> pd.DataFrame:
    """The entries where the census does not hold: entry, and the three numbers of backbones.

    Residues with N, CA and C in the raw records are to be those kept and those rejected (SPEC 2).
    """
    columns = ["num_backbones", "num_backbones_kept", "num_backbones_rejected"]
    entries = tables["entries"]
    counted, kept, rejected = (entries[name] for name in columns)
    return entries.loc[counted.notna() & (counted != kept + rejected), ["entry", *columns]]


def _splits(tables: Tables) -> _Checks:
    if "split" not in tables:
        return
    split = tables["split"]
    # What a user allocates is the user's affair; what is excluded is in no set.
    dealt = split[(split["split"] != EXCLUDED) & (split["allocation"] == "fractions")]
    spread = dealt.groupby("cluster")["split"].nunique()
    bad = dealt[dealt["cluster"].isin(spread.index[spread > 1])]
    yield "no cluster is in two splits", bad
    learnt = split.loc[split["split"] == SPLITS[0], "cluster"]
    held_out = split[split["split"].isin(HELD_OUT)]
    yield (
        "no cluster is learnt from and held out",
        held_out[held_out["cluster"].isin(learnt)],
    )
    chains = tables["residues"][["entry", "chain"]].drop_duplicates()
    yield "every chain is in the split", _absent(chains, split, ["entry", "chain"])
    yield "the split has no other chains", _absent(split, chains, ["entry", "chain"])
    wrong = ~split["split"].isin((*SPLITS, EXCLUDED))
    yield "splits are train, validation, test and excluded", split[wrong]
    wrong = (split["split"] == EXCLUDED) != split["reason"].notna()
    yield "what is excluded, and only that, has a reason", split[wrong]


_CHECKS = (
    _numbers,
    _keys,
    _frames,
    _occupancies,
    _angles,
    _types,
    _conformations,
    _accounting,
    _backbones,
    _splits,
)
