"""The audit of a data set: invariants of the written tables, and a page that shows what they hold.

``audit.json`` has every number of the page. The page needs no network. All of it is computed from
the Parquet files alone, so anyone can recompute it with pandas or DuckDB.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import write_json, write_text
from qfitlatent.chemistry.geometry import circular_distance
from qfitlatent.chemistry.residues import NUM_CHI, PI_SYMMETRIC, RESIDUE_TYPES, TOKEN
from qfitlatent.dataset.invariants import (
    KEY,
    NUM_SHOWN,
    Tables,
    check_invariants,
    read_tables,
    uncounted_entries,
)
from qfitlatent.dataset.page import audit_page
from qfitlatent.pages.readmes import write_readme
from qfitlatent.tables.columns import CHI_COLUMNS, OBSERVED_COLUMNS, author_label
from qfitlatent.tables.reasons import Reason

NUM_SUSPICIOUS = 20
NUM_CHI_BINS = 36


def summarise(tables: Tables) -> dict[str, object]:
    """Every number of the page, ready for JSON."""
    entries, residues, conformers = (tables[n] for n in ("entries", "residues", "conformers"))
    rejected = tables["rejected"]
    heterogeneous = residues["num_distinct_conformers"] >= 2
    types = [*RESIDUE_TYPES, "unknown"]
    by_token, heterogeneous_by_token = (
        np.bincount(tokens, minlength=len(types)).tolist()
        for tokens in (residues["token"], residues.loc[heterogeneous, "token"])
    )
    of_type = conformers.merge(residues[[*KEY, "token"]], on=KEY)
    differences = _differences(of_type)
    several = conformers[conformers.duplicated(KEY, keep=False)]
    return {
        "counts": {
            "entries": len(entries),
            "entries_rejected": int((rejected["scope"] == "entry").sum()),
            "chains": int(entries["num_chains"].sum()),
            "residues": len(residues),
            "residues_with_frame": int(entries["num_frames"].sum()),
            "conformers": len(conformers),
            "multiconformer_residues": int((residues["num_conformers"] >= 2).sum()),
            "heterogeneous_residues": int(heterogeneous.sum()),
            "residues_with_unobserved_chi": _num_unobserved(conformers),
            "occupancy_disagreements": int(residues["has_occupancy_disagreement"].sum()),
        },
        "census": _census(tables),
        "unexpected_errors": rejected.loc[
            rejected["reason"] == Reason.UNEXPECTED_ERROR, ["entry", "detail"]
        ].to_dict("records"),
        "entries_by_resolution_angstrom": _histogram(
            entries["resolution_angstrom"], np.arange(0, 4.01, 0.2)
        ),
        "median_resolution_angstrom": _median(entries["resolution_angstrom"]),
        "entries_without_resolution": int(entries["resolution_angstrom"].isna().sum()),
        "residues_by_type": dict(zip(types, by_token, strict=True)),
        "heterogeneous_residues_by_type": dict(zip(types, heterogeneous_by_token, strict=True)),
        "residues_by_number_of_distinct_conformers": _counts(
            residues.loc[residues["num_chi"] > 0, "num_distinct_conformers"]
        ),
        "conformers_by_occupancy": _histogram(conformers["occupancy"], np.linspace(0, 1, 21)),
        "altlocs_by_occupancy": _histogram(several["occupancy"], np.linspace(0, 1, 21)),
        "chi_density": {
            name: _chi_density(of_type[of_type["token"] == TOKEN[name]], name)
            for name in RESIDUE_TYPES
            if NUM_CHI[TOKEN[name]]
        },
        "altlocs_by_largest_chi_difference_degrees": _histogram(
            differences["degrees"], np.linspace(0, 180, 19)
        ),
        "rejected": rejected.groupby(["stage", "scope", "reason"])
        .size()
        .reset_index(name="rows")
        .to_dict("records"),
        "suspicious": _suspicious(residues, conformers, differences),
        **(_divided(tables["split"], residues) if "split" in tables else {}),
    }


def _divided(split: pd.DataFrame, residues: pd.DataFrame) -> dict[str, object]:
    """What each set of the split holds, and how large the clusters are."""
    several = residues.assign(several=residues["num_conformers"] >= 2)
    of_chain = several.groupby(["entry", "chain"])["several"].agg(["size", "sum"])
    joined = split.join(of_chain, on=["entry", "chain"])
    return {
        "split": {
            name: {
                "entries": int(rows["entry"].nunique()),
                "chains": len(rows),
                "clusters": int(rows["cluster"].nunique()),
                "largest_cluster_chains": int(rows["cluster"].value_counts().max()),
                "residues": int(rows["size"].sum()),
                "multiconformer_residues": int(rows["sum"].sum()),
            }
            for name, rows in joined.groupby("split")
        },
        "split_method": str(split["method"].iloc[0]) if len(split) else None,
        "clusters_by_chains": _counts(split.groupby("cluster").size()),
    }


def _census(tables: Tables) -> dict[str, object]:
    """Residues with N, CA and C in the raw records, and what became of them (SPEC 2)."""
    entries = tables["entries"]
    counted = entries[entries["num_backbones"].notna()]
    apart = uncounted_entries(tables)
    return {
        "entries_counted": len(counted),
        "in_raw_records": int(counted["num_backbones"].sum()),
        "kept": int(counted["num_backbones_kept"].sum()),
        "rejected": int(counted["num_backbones_rejected"].sum()),
        "entries_where_it_does_not_hold": apart.astype({"num_backbones": int}).to_dict("records"),
        "fraction_of_entries": len(apart) / max(len(entries), 1),
    }


def _num_unobserved(conformers: pd.DataFrame) -> int:
    """Residues with a chi that hangs on an atom of occupancy 0."""
    unseen = conformers[OBSERVED_COLUMNS].eq(False).any(axis=1)  # null is neither
    return len(conformers.loc[unseen, KEY].drop_duplicates())


def _median(values: pd.Series) -> float | None:
    """Of the values that there are."""
    known = values.dropna().astype(np.float64)
    return round(float(known.median()), 3) if len(known) else None


def _counts(values: pd.Series) -> dict[str, int]:
    counts = values.value_counts().sort_index()
    return {str(value): int(number) for value, number in counts.items()}


def _histogram(values: pd.Series, edges: np.ndarray) -> dict[str, list]:
    """Counts between edges; what lies beyond the last edge is in the last bin."""
    # 0.7 in float32 is below 0.7, and belongs into the bin that begins there.
    edges = np.round(edges, 6)
    clipped = np.clip(values.dropna().to_numpy(np.float64).round(6), edges[0], edges[-1])
    counts, _ = np.histogram(clipped, edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _chi_density(rows: pd.DataFrame, name: str) -> list:
    """Normalised occupancy in bins of 10 degrees from -180: by chi1, and by chi1 and chi2."""
    edges = np.linspace(-np.pi, np.pi, NUM_CHI_BINS + 1)
    if NUM_CHI[TOKEN[name]] == 1:
        rows = rows.dropna(subset=["chi1_rad"])
        counts, _ = np.histogram(rows["chi1_rad"], edges, weights=rows["occupancy_normalised"])
    else:
        rows = rows.dropna(subset=["chi1_rad", "chi2_rad"])
        counts, _, _ = np.histogram2d(
            rows["chi1_rad"], rows["chi2_rad"], (edges, edges), weights=rows["occupancy_normalised"]
        )
    return np.round(counts, 3).tolist()


def _differences(conformers: pd.DataFrame) -> pd.DataFrame:
    """For each altloc but the first: its largest chi difference from the first, in degrees."""
    first = conformers.loc[conformers["rank"] == 0, [*KEY, *CHI_COLUMNS]]
    others = conformers[conformers["rank"] > 0].merge(first, on=KEY, suffixes=("", "_first"))
    ours = others[CHI_COLUMNS].to_numpy(dtype=np.float64)
    theirs = others[[f"{name}_first" for name in CHI_COLUMNS]].to_numpy(dtype=np.float64)
    turn = circular_distance(ours, theirs, PI_SYMMETRIC[others["token"].to_numpy()])
    largest = np.max(turn, axis=1, initial=-1.0, where=~np.isnan(turn))
    found = others[[*KEY, "altloc"]].assign(degrees=np.degrees(largest))
    return found[largest >= 0]


def _suspicious(
    residues: pd.DataFrame, conformers: pd.DataFrame, differences: pd.DataFrame
) -> list[dict[str, object]]:
    """The residues that a crystallographer should look at first, worst first.

    Points: distance of the occupancies' sum from 1 where there are altlocs; spread of occupancy
    within a conformer; half a point where two altlocs have the same chi within 1 degree.
    """
    spread = conformers["occupancy_max"] - conformers["occupancy_min"]
    spread = conformers.assign(spread=spread).groupby(KEY)["spread"].max()
    closest = differences.groupby(KEY)["degrees"].min().rename("closest")
    rows = residues[residues["num_conformers"] > 0].join(spread, on=KEY).join(closest, on=KEY)
    excess = (rows["occupancy_sum"] - 1).abs().where(rows["num_conformers"] >= 2, 0.0)
    alike = rows["closest"] < 1.0
    points = (excess + rows["spread"].fillna(0) + 0.5 * alike).round(3)
    rows = rows.assign(points=points, excess=excess, alike=alike)
    rows = rows[rows["points"] > 0].sort_values(
        ["points", *KEY], ascending=[False, True, True, True]
    )
    found = []
    for row in rows.head(NUM_SUSPICIOUS).to_dict("records"):
        why = []
        if row["excess"] > 0.005:
            why.append(f"occupancies sum to {row['occupancy_sum']:.2f}")
        if row["spread"] > 0.005:
            why.append(f"atoms of one conformer differ by {row['spread']:.2f} in occupancy")
        if row["alike"]:
            why.append("two altlocs have the same chi")
        found.append(
            {
                **{name: row[name] for name in (*KEY, "points")},
                "residue": author_label(row),
                "why": "; ".join(why),
            }
        )
    return found


def make_audit(
    tables_dir: str | Path,
    split_path: str | Path | None,
    out_dir: str | Path,
    max_uncounted_fraction: float = 1.0,
) -> dict[str, object]:
    """Check the tables and write ``index.html`` and ``audit.json`` into out_dir.

    Returns the numbers of the page.
    Raises:
        QfitLatentError: an invariant is broken, or the census does not hold in more than
            ``max_uncounted_fraction`` of the entries; the page is written all the same, and the
            rows are in the message, on the page and in ``audit.json``.
    """
    tables = read_tables(tables_dir, split_path)
    violations = check_invariants(tables)
    # A table with broken keys cannot be summed up.
    summary = {} if violations else summarise(tables)
    summary["broken_invariants"] = [
        {
            "invariant": v.invariant,
            "num_rows": len(v.rows),
            "rows": json.loads(v.rows.head(NUM_SHOWN).to_json(orient="records")),
        }
        for v in violations
    ]
    out_dir = Path(out_dir)
    write_json(out_dir / "audit.json", summary)
    write_text(out_dir / "index.html", audit_page(summary, violations, out_dir / "figures"))
    write_readme("readmes/audit.md", out_dir)
    if violations:
        listed = "\n\n".join(map(str, violations))
        raise QfitLatentError(
            f"The tables in {tables_dir} break {len(violations)} invariant(s), see "
            f"{out_dir / 'audit.json'}: report it with these rows.\n{listed}"
        )
    uncounted = uncounted_entries(tables)
    if len(uncounted) > max_uncounted_fraction * len(tables["entries"]):
        raise QfitLatentError(
            f"In {len(uncounted)} of {len(tables['entries'])} entries the residues with N, CA and "
            "C of the raw records are not those kept and rejected, more than "
            f"audit.max_uncounted_fraction = {max_uncounted_fraction:g} allows: report it with "
            f"these files, or raise the limit.\n{uncounted.head(NUM_SHOWN).to_string(index=False)}"
        )
    return summary
