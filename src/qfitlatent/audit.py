"""The audit of a data set: invariants of the written tables, and a page that shows what they hold.

``audit.json`` has every number of the page. The page needs no network. All of it is computed from
the Parquet files alone, so anyone can recompute it with pandas or DuckDB.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path, write_json
from qfitlatent.chemistry.residues import (
    CHI_DEFINED,
    MODIFIED,
    NUM_CHI,
    NUM_CHI_MAX,
    PI_SYMMETRIC,
    RESIDUE_TYPES,
    TOKEN,
    UNKNOWN_TOKEN,
)
from qfitlatent.pages.figures import BLUE, ORANGE, bars_of_histogram, embedded, new_figure
from qfitlatent.pages.reasons import REASON_HELP
from qfitlatent.pages.render import rows_table
from qfitlatent.tables import schemas
from qfitlatent.tables.parquet import read_table
from qfitlatent.tables.reasons import Reason

ROTATION_TOLERANCE = 1e-5


OCCUPANCY_TOLERANCE = 1e-6


NUM_SUSPICIOUS = 20


NUM_CHI_BINS = 36


_NUM_SHOWN = 20
"""Rows of a broken invariant that are listed."""


_KEY = ["entry", "chain", "index"]


_CHI = [f"chi{d}_rad" for d in range(1, NUM_CHI_MAX + 1)]


_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Violation:
    """A broken invariant: what should hold, and the rows where it does not."""

    invariant: str
    rows: pd.DataFrame

    def __str__(self) -> str:
        shown = self.rows.head(_NUM_SHOWN).to_string(index=False)
        more = len(self.rows) - _NUM_SHOWN
        return f"{self.invariant}: {len(self.rows)} rows\n{shown}" + (
            f"\nand {more} more" if more > 0 else ""
        )


Tables = Mapping[str, pd.DataFrame]


def read_tables(tables_dir: str | Path, split_path: str | Path | None) -> dict[str, pd.DataFrame]:
    """All tables as pandas; ``split`` and ``download`` where they are."""
    tables_dir = Path(tables_dir)
    found = {n: _pandas(tables_dir / f"{n}.parquet") for n in schemas.SCHEMAS if n != "frames"}
    frames = read_table(tables_dir / "frames.parquet")
    found["frames"] = frames.select([*_KEY, "altloc"]).to_pandas()
    rotation = frames["rotation"].combine_chunks()
    valid = np.asarray(rotation.is_valid())
    values = np.full((len(frames), 9), np.nan)
    values[valid] = rotation.drop_null().flatten().to_numpy().reshape(-1, 9)
    for i in range(9):
        found["frames"][f"r{i}"] = values[:, i]
    found["frames"]["has_translation"] = np.asarray(frames["translation_angstrom"].is_valid())
    if split_path is not None:
        found["split"] = _pandas(Path(split_path))
    download = tables_dir.parent / "download.parquet"
    if download.exists():
        found["download"] = _pandas(download)
    return found


def _pandas(path: Path) -> pd.DataFrame:
    return read_table(path).to_pandas()


def check_invariants(tables: Tables) -> list[Violation]:
    """Everything that must hold for the written tables (:func:`read_tables`); [] where it does."""
    return [
        Violation(invariant, rows)
        for check in (_keys, _frames, _occupancies, _angles, _types, _accounting, _splits)
        for invariant, rows in check(tables)
        if len(rows)
    ]


_Checks = Iterator[tuple[str, pd.DataFrame]]


def _keys(tables: Tables) -> _Checks:
    unique = {
        "entries": ["entry"],
        "residues": _KEY,
        "frames": _KEY,
        "conformers": [*_KEY, "altloc"],
    }
    if "split" in tables:
        unique["split"] = ["entry", "chain"]
    for name, key in unique.items():
        rows = tables[name]
        yield f"keys of {name} are unique", rows.loc[rows.duplicated(key, keep=False), key]
    residues = tables["residues"]
    yield "residues belong to an entry", _absent(residues, tables["entries"], ["entry"])
    yield "frames belong to a residue", _absent(tables["frames"], residues, _KEY)
    yield "every residue has a row in frames", _absent(residues, tables["frames"], _KEY)
    yield "conformers belong to a residue", _absent(tables["conformers"], residues, _KEY)
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
    yield (
        "rotation, translation and altloc of a frame are null together",
        frames.loc[partial, _KEY],
    )
    error = np.zeros(len(frames))
    product = rotation[there].transpose(0, 2, 1) @ rotation[there]
    error[there] = np.abs(product - np.eye(3)).max(axis=(1, 2))
    error[there] = np.maximum(error[there], np.abs(np.linalg.det(rotation[there]) - 1))
    bad = ~(error <= ROTATION_TOLERANCE)
    yield (
        f"rotations are orthonormal with determinant +1 within {ROTATION_TOLERANCE:g}",
        frames.loc[bad, _KEY].assign(error=error[bad]),
    )


def _occupancies(tables: Tables) -> _Checks:
    conformers = tables["conformers"]
    grouped = conformers.groupby(_KEY, sort=False)
    total = grouped["occupancy_normalised"].sum().reset_index(name="sum")
    yield (
        f"normalised occupancies of a residue sum to 1 within {OCCUPANCY_TOLERANCE:g}",
        total[~((total["sum"] - 1).abs() <= OCCUPANCY_TOLERANCE)],
    )
    wrong = ~conformers["occupancy_normalised"].between(0, 1 + OCCUPANCY_TOLERANCE)
    wrong |= (conformers["occupancy_min"] > conformers["occupancy"] + 1e-6) | (
        conformers["occupancy_max"] < conformers["occupancy"] - 1e-6
    )
    yield (
        "occupancies are at least 0 and between their minimum and maximum",
        conformers.loc[wrong, [*_KEY, "altloc", "occupancy", "occupancy_min", "occupancy_max"]],
    )
    same = (conformers[_KEY] == conformers[_KEY].shift()).all(axis=1)
    in_order = np.where(
        same,
        (conformers["rank"] == conformers["rank"].shift() + 1)
        & (conformers["occupancy"] <= conformers["occupancy"].shift()),
        conformers["rank"] == 0,
    )
    yield (
        "ranks count from 0 by falling occupancy",
        conformers.loc[~in_order, [*_KEY, "altloc", "rank", "occupancy"]],
    )


def _angles(tables: Tables) -> _Checks:
    conformers = tables["conformers"].merge(
        tables["residues"][[*_KEY, "token"]], on=_KEY, how="inner"
    )
    shown = [*_KEY, "altloc", "token", *_CHI]
    chi = conformers[_CHI].to_numpy(dtype=np.float64)
    undefined = ~np.isnan(chi) & ~CHI_DEFINED[conformers["token"].to_numpy()]
    yield (
        "chi is there only where the residue type defines it",
        conformers.loc[undefined.any(axis=1), shown],
    )
    yield "a conformer has at least one chi", conformers.loc[np.isnan(chi).all(axis=1), shown]
    outside = (chi <= -np.pi) | (chi > np.pi)
    yield "chi is in (-pi, pi]", conformers.loc[outside.any(axis=1), shown]
    torsion = tables["residues"][["phi_rad", "psi_rad", "omega_rad"]].to_numpy(dtype=np.float64)
    outside = ((torsion <= -np.pi) | (torsion > np.pi)).any(axis=1)
    yield "phi, psi and omega are in (-pi, pi]", tables["residues"].loc[outside, _KEY]


def _types(tables: Tables) -> _Checks:
    residues = tables["residues"]
    parent = TOKEN | {name: TOKEN[standard] for name, (standard, _) in MODIFIED.items()}
    expected = residues["name"].map(parent).fillna(UNKNOWN_TOKEN).astype(int)
    expected = expected.where(~residues["is_d_residue"], UNKNOWN_TOKEN)
    wrong = residues["token"] != expected
    yield "tokens agree with names", residues.loc[wrong, [*_KEY, "name", "token"]]
    wrong = residues["num_chi"].to_numpy() != NUM_CHI[residues["token"].to_numpy()]
    yield "numbers of chi agree with tokens", residues.loc[wrong, [*_KEY, "name", "num_chi"]]
    rejected = tables["rejected"]
    unknown = ~rejected["reason"].isin([reason.value for reason in Reason])
    yield "reasons are of the closed vocabulary", rejected.loc[unknown]


def _accounting(tables: Tables) -> _Checks:
    entries, rejected = tables["entries"], tables["rejected"]
    for what in ("residues", "conformers"):
        read, kept, lost = (
            entries[name] for name in (f"num_{what}_read", f"num_{what}", f"num_{what}_rejected")
        )
        columns = ["entry", f"num_{what}_read", f"num_{what}", f"num_{what}_rejected"]
        yield f"{what} read = kept + rejected", entries.loc[read != kept + lost, columns]
        rows = rejected.loc[rejected["scope"] == what[:-1], "entry"].value_counts()
        listed = entries["entry"].map(rows).fillna(0)
        yield f"rejected {what} are as many as listed", entries.loc[lost != listed, columns]
        rows = tables[what]["entry"].value_counts()
        listed = entries["entry"].map(rows).fillna(0)
        yield f"{what} are as many as listed", entries.loc[kept != listed, columns]
    conformers = tables["conformers"].groupby(_KEY).size().rename("listed").reset_index()
    residues = tables["residues"][[*_KEY, "num_conformers"]]
    joined = residues.merge(conformers, on=_KEY, how="left").fillna({"listed": 0})
    wrong = joined["num_conformers"] != joined["listed"]
    yield "conformers of a residue are as many as counted", joined[wrong]
    frames = tables["frames"]
    without = frames.loc[frames["altloc"].isna(), _KEY]
    listed = rejected.loc[rejected["scope"] == "frame", _KEY].astype({"index": "int32"})
    yield "a residue without frame has a reason", _absent(without, listed, _KEY)
    left_out = rejected.loc[rejected["scope"] == "entry", ["entry"]]
    both = left_out[left_out["entry"].isin(entries["entry"])]
    yield "an entry is kept or rejected, not both", both
    if "download" in tables:
        known = pd.concat([entries[["entry"]], left_out])
        yield "every selected entry is accounted for", _absent(tables["download"], known, ["entry"])


def _splits(tables: Tables) -> _Checks:
    if "split" not in tables:
        return
    split = tables["split"]
    # What a user allocates is the user's affair, except that an entry cannot be in two sets.
    apart = ["entry"] if (split["method"] == "user").any() else ["cluster", "group", "entry"]
    for column in apart:
        spread = split.groupby(column)["split"].nunique()
        bad = split[split[column].isin(spread.index[spread > 1])]
        yield f"no {column} is in two splits", bad
    chains = tables["residues"][["entry", "chain"]].drop_duplicates()
    yield "every chain is in the split", _absent(chains, split, ["entry", "chain"])
    yield "the split has no other chains", _absent(split, chains, ["entry", "chain"])
    wrong = ~split["split"].isin(_SPLITS)
    yield "splits are train, validation and test", split[wrong]


def summarise(tables: Tables) -> dict[str, object]:
    """Every number of the page, ready for JSON."""
    entries, residues, conformers = (tables[n] for n in ("entries", "residues", "conformers"))
    rejected = tables["rejected"]
    multi = residues["num_conformers"] >= 2
    types = [*RESIDUE_TYPES, "unknown"]
    by_token = np.bincount(residues["token"], minlength=len(types))
    multi_by_token = np.bincount(residues.loc[multi, "token"], minlength=len(types))
    of_type = _with_token(conformers, residues)
    differences = _differences(of_type)
    several = conformers[conformers.duplicated(_KEY, keep=False)]
    summary: dict[str, object] = {
        "counts": {
            "entries": len(entries),
            "entries_rejected": int((rejected["scope"] == "entry").sum()),
            "chains": int(entries["num_chains"].sum()),
            "residues": len(residues),
            "residues_with_frame": int(entries["num_frames"].sum()),
            "conformers": len(conformers),
            "multiconformer_residues": int(multi.sum()),
            "occupancy_disagreements": int(residues["has_occupancy_disagreement"].sum()),
        },
        "entries_by_resolution_angstrom": _histogram(
            entries["resolution_angstrom"], np.arange(0, 4.01, 0.2)
        ),
        "entries_without_resolution": int(entries["resolution_angstrom"].isna().sum()),
        "residues_by_type": dict(zip(types, by_token.tolist(), strict=True)),
        "multiconformer_residues_by_type": dict(zip(types, multi_by_token.tolist(), strict=True)),
        "residues_by_number_of_conformers": _counts(
            residues.loc[residues["num_chi"] > 0, "num_conformers"]
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
        "rejected": [
            {"stage": stage, "scope": scope, "reason": reason, "rows": int(rows)}
            for (stage, scope, reason), rows in rejected.groupby(["stage", "scope", "reason"])
            .size()
            .items()
        ],
        "suspicious": _suspicious(residues, conformers, differences),
    }
    if "split" in tables:
        split = tables["split"]
        sizes = split.groupby("cluster").size()
        chain = residues.groupby(["entry", "chain"]).agg(
            residues=("index", "size"), multiconformer=("num_conformers", lambda n: (n >= 2).sum())
        )
        joined = split.merge(chain.reset_index(), on=["entry", "chain"], how="left")
        summary["split"] = {
            name: {
                "entries": int(rows["entry"].nunique()),
                "chains": len(rows),
                "clusters": int(rows["cluster"].nunique()),
                "residues": int(rows["residues"].sum()),
                "multiconformer_residues": int(rows["multiconformer"].sum()),
            }
            for name, rows in joined.groupby("split")
        }
        summary["split_method"] = str(split["method"].iloc[0]) if len(split) else None
        summary["clusters_by_chains"] = _counts(sizes)
    return summary


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


def _with_token(conformers: pd.DataFrame, residues: pd.DataFrame) -> pd.DataFrame:
    return conformers.merge(residues[[*_KEY, "token", "name"]], on=_KEY)


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
    first = conformers.loc[conformers["rank"] == 0, [*_KEY, *_CHI]]
    others = conformers[conformers["rank"] > 0].merge(first, on=_KEY, suffixes=("", "_first"))
    ours = others[_CHI].to_numpy(dtype=np.float64)
    theirs = others[[f"{name}_first" for name in _CHI]].to_numpy(dtype=np.float64)
    turn = np.abs((ours - theirs + np.pi) % (2 * np.pi) - np.pi)
    symmetric = PI_SYMMETRIC[others["token"].to_numpy()]
    turn = np.where(symmetric, np.minimum(turn, np.pi - turn), turn)
    largest = np.max(turn, axis=1, initial=-1.0, where=~np.isnan(turn))
    found = others[[*_KEY, "altloc"]].assign(degrees=np.degrees(largest))
    return found[largest >= 0]


def _suspicious(
    residues: pd.DataFrame, conformers: pd.DataFrame, differences: pd.DataFrame
) -> list[dict[str, object]]:
    """The residues that a crystallographer should look at first, worst first.

    Points: distance of the occupancies' sum from 1 where there are altlocs; spread of occupancy
    within a conformer; half a point where two altlocs have the same chi within 1 degree.
    """
    spread = (
        (conformers["occupancy_max"] - conformers["occupancy_min"])
        .groupby([conformers[name] for name in _KEY])
        .max()
        .rename("spread")
    )
    closest = differences.groupby(_KEY)["degrees"].min().rename("closest")
    rows = residues.loc[residues["num_conformers"] > 0].merge(
        spread.reset_index(), on=_KEY, how="left"
    )
    rows = rows.merge(closest.reset_index(), on=_KEY, how="left")
    excess = (rows["occupancy_sum"] - 1).abs().where(rows["num_conformers"] >= 2, 0.0)
    alike = rows["closest"] < 1.0
    points = (excess + rows["spread"].fillna(0) + 0.5 * alike).round(3)
    rows = rows.assign(points=points, excess=excess, alike=alike)
    rows = rows[rows["points"] > 0].sort_values(
        ["points", *_KEY], ascending=[False, True, True, True]
    )
    found = []
    for row in rows.head(NUM_SUSPICIOUS).itertuples():
        why = []
        if row.excess > 0.005:
            why.append(f"occupancies sum to {row.occupancy_sum:.2f}")
        if row.spread > 0.005:
            why.append(f"atoms of one conformer differ by {row.spread:.2f} in occupancy")
        if row.alike:
            why.append("two altlocs have the same chi")
        number = f"{row.author_chain}/{row.name} {row.author_number}{row.insertion_code}"
        found.append(
            {
                "entry": row.entry,
                "chain": row.chain,
                "index": int(row.index),
                "residue": number,
                "points": float(row.points),
                "why": "; ".join(why),
            }
        )
    return found


def make_audit(
    tables_dir: str | Path, split_path: str | Path | None, out_dir: str | Path
) -> dict[str, object]:
    """Check the tables and write ``index.html`` and ``audit.json`` into out_dir.

    Returns the numbers of the page.
    Raises:
        QfitLatentError: an invariant is broken; the page is written all the same, and the rows are
            in the message, on the page and in ``audit.json``.
    """
    tables = read_tables(tables_dir, split_path)
    violations = check_invariants(tables)
    # A table with broken keys cannot be summed up.
    summary = {} if violations else summarise(tables)
    summary["broken_invariants"] = [
        {
            "invariant": v.invariant,
            "num_rows": len(v.rows),
            "rows": json.loads(v.rows.head(_NUM_SHOWN).to_json(orient="records")),
        }
        for v in violations
    ]
    out_dir = Path(out_dir)
    write_json(out_dir / "audit.json", summary)
    with atomic_path(out_dir / "index.html") as temporary:
        temporary.write_text(_page(summary, violations), "utf-8")
    if violations:
        listed = "\n\n".join(map(str, violations))
        raise QfitLatentError(
            f"The tables in {tables_dir} break {len(violations)} invariant(s), see "
            f"{out_dir / 'audit.json'}: report it with these rows.\n{listed}"
        )
    return summary


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em;
       color: #222; background: #fff; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2em; }
table { border-collapse: collapse; } td, th { padding: .2em .8em; border-bottom: 1px solid #ddd;
        text-align: left; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; } .broken { color: #a00; } .good { color: #060; }
pre { overflow-x: auto; background: #f6f6f6; padding: 1em; }
"""


def _page(summary: Mapping[str, object], violations: list[Violation]) -> str:
    parts = ["<h1>Audit of the data set</h1>"]
    if violations:
        parts.append(f'<p class="broken">{len(violations)} invariants are broken.</p>')
        parts += [f"<pre>{html.escape(str(v))}</pre>" for v in violations]
    else:
        parts.append('<p class="good">All invariants of the tables hold.</p>')
        parts += _sections(summary)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>qFitLatent: audit</title>'
        f"<style>{_STYLE}</style>{''.join(parts)}</html>\n"
    )


def _sections(s: Mapping[str, object]) -> Iterator[str]:
    yield "<p>Every number is in <code>audit.json</code> beside this page.</p>"
    yield rows_table(("what", "number"), [(k.replace("_", " "), v) for k, v in s["counts"].items()])

    yield "<h2>Entries by resolution</h2>"
    yield f"<p>{s['entries_without_resolution']} entries do not state a resolution.</p>"
    yield embedded(
        bars_of_histogram(s["entries_by_resolution_angstrom"], "resolution / Å", "entries")
    )

    yield "<h2>Residues by type</h2>"
    figure, (left, right) = new_figure(1, 2)
    names = list(s["residues_by_type"])
    left.bar(names, list(s["residues_by_type"].values()), color=BLUE)
    left.set_title("all")
    right.bar(names, list(s["multiconformer_residues_by_type"].values()), color=ORANGE)
    right.set_title("with at least two conformers")
    for axes in (left, right):
        axes.tick_params(axis="x", rotation=90, labelsize=7)
    yield embedded(figure)

    yield "<h2>Conformers of a residue</h2>"
    figure, axes = new_figure()
    numbers = s["residues_by_number_of_conformers"]
    axes.bar(list(numbers), list(numbers.values()), color=BLUE)
    axes.set(xlabel="conformers kept", ylabel="residues with chi", yscale="log")
    yield embedded(figure)

    yield "<h2>Occupancy</h2>"
    yield "<p>Conformers of residues that have at least two.</p>"
    yield embedded(bars_of_histogram(s["altlocs_by_occupancy"], "occupancy", "conformers"))

    yield "<h2>Chi angles by residue type</h2>"
    yield "<p>chi1 across, chi2 upwards, −180° to 180°; weight by occupancy, square root.</p>"
    yield embedded(_chi_figure(s["chi_density"]))

    yield "<h2>How far altlocs differ</h2>"
    yield "<p>Largest chi difference from the conformer of highest occupancy, symmetry-aware.</p>"
    yield embedded(
        bars_of_histogram(s["altlocs_by_largest_chi_difference_degrees"], "degrees", "altlocs")
    )

    yield "<h2>What was left out, and why</h2>"
    yield rows_table(
        ("stage", "scope", "reason", "rows", "meaning", "what to do"),
        [
            (r["stage"], r["scope"], r["reason"], r["rows"], *REASON_HELP[Reason(r["reason"])])
            for r in s["rejected"]
        ],
    )
    if "split" in s:
        yield "<h2>Split</h2>"
        yield f"<p>Clusters by {html.escape(str(s['split_method']))}.</p>"
        columns = ("entries", "chains", "clusters", "residues", "multiconformer_residues")
        yield rows_table(
            ("split", *(c.replace("_", " ") for c in columns)),
            [
                (name, *(s["split"][name][c] for c in columns))
                for name in _SPLITS
                if name in s["split"]
            ],
        )
        figure, axes = new_figure()
        sizes = {int(k): v for k, v in s["clusters_by_chains"].items()}
        axes.scatter(list(sizes), list(sizes.values()), color=BLUE, s=12)
        axes.set(xlabel="chains in the cluster", ylabel="clusters", xscale="log", yscale="log")
        yield embedded(figure)
    yield "<h2>Residues to look at first</h2>"
    yield rows_table(
        ("entry", "chain", "index", "residue", "why"),
        [
            tuple(r[c] for c in ("entry", "chain", "index", "residue", "why"))
            for r in s["suspicious"]
        ],
    )


def _chi_figure(density: Mapping[str, list]) -> Figure:
    figure, axes = new_figure(3, 6, height=1.7)
    ticks = [0, NUM_CHI_BINS / 2, NUM_CHI_BINS]
    for axis, (name, values) in zip(axes.flat, density.items(), strict=True):
        values = np.sqrt(np.array(values))
        if values.ndim == 1:
            axis.bar(np.arange(len(values)) + 0.5, values, 1.0, color=BLUE)
            axis.set_yticks([])
        else:
            extent = (0, NUM_CHI_BINS, 0, NUM_CHI_BINS)
            axis.imshow(values.T, origin="lower", cmap="Blues", extent=extent, aspect="auto")
            axis.set_yticks(ticks, ["−180", "0", "180"], fontsize=6)
        axis.set_xticks(ticks, ["−180", "0", "180"], fontsize=6)
        axis.set_title(name, fontsize=8)
    return figure
