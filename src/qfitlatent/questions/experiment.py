"""Predicted order parameters, couplings and populations beside measured ones.

The measurements are a CSV file with the columns ``MEASURED``; the predictions are the files
``<id>.observables.csv`` of ``predict``. They are joined by what the file calls the residue. The
dummy beside the prediction is the mean of what was measured of the same quantity, residue type and
site in the other proteins: what knowing nothing but the sequence gives.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import parent_name
from qfitlatent.prediction.columns import OBSERVABLES
from qfitlatent.questions.agreement import FIGURES, agreement, mean_of_others
from qfitlatent.questions.columns import AGREEMENT, MEASURED, PAIRS
from qfitlatent.questions.named import named_entries
from qfitlatent.tables.parquet import conform, write_csv

PLACE = ("entry", "author_chain", "author_number", "insertion_code")
"""What joins the two tables, beside the quantity and the site."""

OPTIONAL = {"insertion_code": "", "name": "", "error": None}
"""Columns that a table of measurements may lack, and what stands there then."""

ENDING = ".observables.csv"
MEAN = "mean of proteins"


class Compared(NamedTuple):
    """pairs: rows of ``PAIRS``; figures: rows of ``AGREEMENT``.

    num_unpaired measurements have no prediction; num_learnt_from have one of a chain that the
    model was trained on.
    """

    pairs: pa.Table
    figures: pa.Table
    num_unpaired: int
    num_learnt_from: int


def compare_experiment(
    measured_path: str | Path,
    predicted: Sequence[str | Path],
    out: str | Path,
    num_samples: int,
    seed: int,
) -> Compared:
    """Writes ``experiment.pairs.csv`` and ``experiment.csv`` into ``out``.

    predicted: folders of predictions, or files ``<id>.observables.csv`` in them. A measurement
    without a prediction stays out of the figures and is a pair without a value. Intervals are over
    residues in a protein, and over proteins in the mean.

    Raises QfitLatentError for tables that cannot be read or do not fit together.
    """
    measured = read_measured(measured_path)
    known = _read_predicted(predicted)
    return write_compared(measured, known, measured_path, out, num_samples, seed)


def write_compared(
    measured: pa.Table,
    known: pa.Table,
    measured_path: str | Path,
    out: str | Path,
    num_samples: int,
    seed: int,
) -> Compared:
    """The same of tables that were read: known has ``OBSERVABLES``, and may have ``learnt_from``.

    What is said to be of chains that the model learnt from is in no figure.
    """
    pairs = _paired(measured, known, measured_path)
    is_learnt = pc.fill_null(pairs["learnt_from"], False)
    figures = _figures(pairs.filter(pc.invert(is_learnt)), num_samples, seed)
    write_csv(Path(out) / "experiment.pairs.csv", pairs)
    write_csv(Path(out) / "experiment.csv", figures)
    return Compared(pairs, figures, pairs["predicted"].null_count, pc.sum(is_learnt).as_py())


def read_measured(path: str | Path) -> pa.Table:
    """Rows of ``MEASURED``. Raises QfitLatentError, in one sentence, for anything else."""
    named_entries(path)
    table = _read_csv(Path(path), MEASURED)
    for name, value in OPTIONAL.items():
        if name not in table.column_names:
            kind = MEASURED.field(name).type
            table = table.append_column(name, pa.array([value] * len(table), kind))
    table = conform(table, MEASURED, path)
    if not len(table):
        raise QfitLatentError(f"{path} has no measurement: a row for each is needed.")
    quantities = sorted({*_read_quantities()})
    for quantity in table["quantity"].unique().to_pylist():
        if quantity not in quantities:
            near = difflib.get_close_matches(quantity, quantities, 1, 0.0)[0]
            raise QfitLatentError(
                f"{path} has the quantity {quantity!r}, which is none of "
                f"{', '.join(quantities)}: is {near} meant?"
            )
    if not np.isfinite(table["value"].to_numpy()).all():
        raise QfitLatentError(f"{path} has a value that is not a finite number: leave it out.")
    keys = list(zip(*(table[name].to_pylist() for name in _KEY), strict=True))
    repeated = next((key for n, key in enumerate(keys) if key in keys[:n]), None)
    if repeated:
        raise QfitLatentError(
            f"{path} has {repeated[4]} of {repeated[5]} of {_label(repeated)} twice: give each "
            "measurement once."
        )
    return table


_KEY = (*PLACE, "quantity", "site")


def _read_quantities() -> set[str]:
    from qfitlatent.chemistry.observables import kinds

    return {kind.quantity for kind in kinds()}


def _label(key: Sequence[Any]) -> str:
    entry, chain, number, code = key[:4]
    return f"{entry} {chain}:{number}{code}"


def _read_csv(path: Path, schema: pa.Schema) -> pa.Table:
    """These columns of a CSV file, those that are there; nothing is read as missing but nothing."""
    try:
        return csv.read_csv(
            path,
            convert_options=csv.ConvertOptions(
                column_types={field.name: field.type for field in schema},
                null_values=[""],
                strings_can_be_null=False,
            ),
        )
    except FileNotFoundError as error:
        raise QfitLatentError(f"There is no table {path}: correct the path.") from error
    except pa.ArrowInvalid as error:
        what = " ".join(str(error).split())
        raise QfitLatentError(f"{path} is no table of numbers and names: {what}.") from error


def _read_predicted(given: Sequence[str | Path]) -> pa.Table:
    files: list[Path] = []
    for path in map(Path, given):
        found = sorted(path.glob(f"*{ENDING}")) if path.is_dir() else [path]
        if not found:
            raise QfitLatentError(
                f"The folder {path} holds no prediction (<id>{ENDING}): run `qfitlatent predict "
                f"STRUCTURES -o {path}` first."
            )
        files += found
    tables = [conform(_read_csv(path, OBSERVABLES), OBSERVABLES, path) for path in files]
    entries = [entry for table in tables for entry in table["entry"].unique().to_pylist()]
    repeated = next((entry for n, entry in enumerate(entries) if entry in entries[:n]), None)
    if repeated:
        raise QfitLatentError(f"There are two predictions of {repeated}: give one.")
    return pa.concat_tables(tables)


def _paired(measured: pa.Table, known: pa.Table, path: str | Path) -> pa.Table:
    """Every measurement with its prediction; in the order of residues, quantities and sites."""
    place = {tuple(row[name] for name in _KEY): row for row in known.to_pylist()}
    names = {tuple(row[name] for name in PLACE): row["name"] for row in place.values()}
    rows = []
    for row in measured.to_pylist():
        at = tuple(row[name] for name in PLACE)
        name = names.get(at)
        if row["name"] and name and parent_name(row["name"]) != parent_name(name):
            raise QfitLatentError(
                f"{_label(at)} is {row['name']} in {path} and {name} in the structure: number "
                "the measurements as the structure is numbered."
            )
        found = place.get((*at, row["quantity"], row["site"]))
        rows.append(
            row
            | {"name": parent_name(name) if name else row["name"]}
            | {"predicted": found["value"] if found else None}
            | {"learnt_from": found.get("learnt_from") if found else None}
        )
    if all(row["predicted"] is None for row in rows):
        raise QfitLatentError(
            f"No measurement of {path} has a prediction: {_label(tuple(rows[0].values()))} "
            f"{rows[0]['quantity']} {rows[0]['site']} is not there; entries, chains, numbers and "
            "sites must be those of the predicted files."
        )
    rows.sort(key=lambda row: tuple(row[name] for name in _KEY))
    values = np.array([row["value"] for row in rows])
    groups = [(row["quantity"], row["name"], row["site"]) for row in rows]
    numbered = {group: n for n, group in enumerate(dict.fromkeys(groups))}
    entries = np.unique([row["entry"] for row in rows], return_inverse=True)[1]
    dummy = mean_of_others(values, np.array([numbered[group] for group in groups]), entries)
    columns = {name: [row.get(name) for row in rows] for name in PAIRS.names if name != "dummy"}
    columns["dummy"] = pa.array(dummy, from_pandas=True)
    return conform(pa.table(columns), PAIRS, "the pairs")


def _figures(pairs: pa.Table, num_samples: int, seed: int) -> pa.Table:
    """Rows of ``AGREEMENT``: prediction and dummy, on the pairs that have both where any has."""
    rows = []
    for quantity in pairs["quantity"].unique().sort().to_pylist():
        of_quantity = pairs.filter(pc.equal(pairs["quantity"], quantity))
        of_quantity = of_quantity.filter(pc.is_valid(of_quantity["predicted"]))
        has_dummy = len(of_quantity) > of_quantity["dummy"].null_count
        if has_dummy:
            of_quantity = of_quantity.filter(pc.is_valid(of_quantity["dummy"]))
        for method in ("predicted", "dummy")[: 1 + has_dummy]:
            found = []
            for entry in of_quantity["entry"].unique().sort().to_pylist():
                own = of_quantity.filter(pc.equal(of_quantity["entry"], entry))
                one = agreement(own[method].to_numpy(), own["value"].to_numpy(), num_samples, seed)
                rows.append(_row(quantity, method, entry, one.figures, one.num, 1))
                found.append(one)
            if len(found) > 1:
                mean = _mean(np.stack([one.figures[:, 0] for one in found]), num_samples, seed)
                num = sum(one.num for one in found)
                rows.append(_row(quantity, method, MEAN, mean, num, len(found)))
    columns = {name: [row[name] for row in rows] for name in AGREEMENT.names}
    return conform(pa.table(columns, schema=AGREEMENT), AGREEMENT, "the figures")


def _mean(values: np.ndarray, num_samples: int, seed: int) -> np.ndarray:
    """(3,3) mean of figures (proteins, 3) with an interval over proteins; nan ones are left out."""
    rng = np.random.default_rng(seed)
    figures = np.full((values.shape[1], 3), np.nan)
    for row, column in zip(figures, values.T, strict=True):
        known = column[np.isfinite(column)]
        if len(known):
            row[0] = known.mean()
        if len(known) > 1:
            drawn = rng.choice(known, (num_samples, len(known))).mean(1)
            row[1:] = np.percentile(drawn, [2.5, 97.5])
    return figures


def _row(
    quantity: str, method: str, protein: str, figures: np.ndarray, num: int, num_proteins: int
) -> dict[str, Any]:
    row: dict[str, Any] = {"quantity": quantity, "method": method, "protein": protein}
    row |= {"num": num, "num_proteins": num_proteins}
    for name, values in zip(FIGURES, figures.tolist(), strict=True):
        for part, value in zip(("", "_low", "_high"), values, strict=True):
            row[name + part] = value if np.isfinite(value) else None
    return row


def as_text(compared: Compared) -> str:
    """The figures as a Markdown table: the means, or of one protein its own."""
    rows = compared.figures.to_pylist()
    has_mean = {row["quantity"] for row in rows if row["protein"] == MEAN}
    lines = [f"| quantity | | proteins | values | {' | '.join(FIGURES)} |"]
    lines.append(f"|---|---|---:|---:|{'---|' * len(FIGURES)}")
    for row in rows:
        if row["quantity"] in has_mean and row["protein"] != MEAN:
            continue
        cells = [_cell(*(row[f + part] for part in ("", "_low", "_high"))) for f in FIGURES]
        head = [row["quantity"], row["method"], str(row["num_proteins"]), str(row["num"])]
        lines.append(f"| {' | '.join([*head, *cells])} |")
    return "\n".join(lines)


def _cell(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.3f} to {high:.3f})"
