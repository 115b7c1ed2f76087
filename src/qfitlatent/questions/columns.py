"""The columns of the tables that questions are answered with."""

from qfitlatent.chemistry.residues import NUM_CHI_MAX
from qfitlatent.questions.agreement import FIGURES
from qfitlatent.tables.columns import AUTHOR, F64, FLAG, I32, TEXT, Column, make_schema

_OF_RESIDUE = (
    Column("entry", TEXT, False, "", "name of the predicted file without its ending"),
    *(column for column in AUTHOR if column.name not in ("label_seq", "name")),
    Column("name", TEXT, False, "", "residue type, which is checked; empty if not known"),
)
_MEASURED = (
    Column("quantity", TEXT, False, "", "S2, 3J or population"),
    Column("site", TEXT, False, "", "as in <id>.observables.csv: CD1, HA-HB2, t"),
    Column("value", F64, False, "", "as measured; couplings in Hz"),
    Column("error", F64, True, "", "of the measurement, in the same unit"),
)

MEASURED = make_schema((*_OF_RESIDUE, *_MEASURED))
"""A table of measurements; insertion_code, name and error may be left out."""

PAIRS = make_schema(
    (
        *_OF_RESIDUE,
        *_MEASURED,
        Column("predicted", F64, True, "", "from the density; null where nothing is predicted"),
        Column("dummy", F64, True, "", "mean of the same type and site in the other proteins"),
        Column("learnt_from", FLAG, True, "", "the model was trained on the chain; null: unknown"),
    )
)


def _with_interval(name: str, unit: str, words: str) -> tuple[Column, ...]:
    return (
        Column(name, F64, True, unit, words),
        Column(f"{name}_low", F64, True, unit, "lower end of its 95 % interval"),
        Column(f"{name}_high", F64, True, unit, "upper end"),
    )


_WORDS = ("correlation", "correlation of the ranks", "root mean square difference, in the unit")
AGREEMENT = make_schema(
    (
        Column("quantity", TEXT, False, "", "S2, 3J or population"),
        Column("method", TEXT, False, "", "predicted, or the dummy on the same values"),
        Column("protein", TEXT, False, "", "the entry, or the mean of proteins"),
        Column("num", I32, False, "", "values"),
        Column("num_proteins", I32, False, "", "proteins"),
        *(
            column
            for name, words in zip(FIGURES, _WORDS, strict=True)
            for column in _with_interval(name, "" if name == "rmse" else "1", words)
        ),
    )
)

SHARES = {
    "chi1_within_20": (1, 20),
    "chi1_within_40": (1, 40),
    "all_within_20": (NUM_CHI_MAX, 20),
    "all_within_40": (NUM_CHI_MAX, 40),
}
"""Of the first so many chi, each within so many degrees."""

ANGLES = tuple(f"chi{d}_error_degrees" for d in range(1, NUM_CHI_MAX + 1))

PACKING = make_schema(
    (
        Column("method", TEXT, False, "", "heaviest modes, joint model, or that of --predicted"),
        Column("residues", TEXT, False, "", "all, core or surface"),
        Column("target", TEXT, False, "", "the native, pooled, or mean of targets"),
        Column("num_targets", I32, False, "", "targets with such residues"),
        Column("num_residues", I32, False, "", "residues that count"),
        *(
            Column(
                name, F64, False, "1", f"share with {'chi1' if num == 1 else 'each chi'} so near"
            )
            for name, (num, _) in SHARES.items()
        ),
        *(Column(name, F64, True, "degree", "mean distance of this chi") for name in ANGLES),
    )
)
