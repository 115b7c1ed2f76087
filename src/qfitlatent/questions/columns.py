"""The columns of the tables that questions are answered with."""

from qfitlatent.questions.agreement import FIGURES
from qfitlatent.tables.columns import AUTHOR, F64, I32, TEXT, Column, make_schema

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
