"""The columns of the evaluation's tables, and of the tables that others bring.

Residues and altlocs are named as in the tables of the data set; a method is the model (``model``),
a baseline, the simulator (``generator``) or a table of ``evaluate.external``.
"""

from qfitlatent.tables.columns import (
    CHI,
    F32,
    F64,
    FLAG,
    I8,
    I16,
    I64,
    IDS,
    TEXT,
    Column,
    make_schema,
)

MODEL, GENERATOR = "model", "generator"

_KEY = IDS[:3]
_RESIDUE = (*_KEY, next(column for column in IDS if column.name == "name"))
_METHOD = Column("method", TEXT, False, "", "model, a baseline, generator, or an external table")
_CHI = tuple(Column(f"chi{d}_rad", F32, True, "radian", f"chi{d}, (-pi, pi]") for d in CHI)


def _accuracy(part: str, words: str, tolerance: int) -> Column:
    about = f"1 where the heaviest mode has {words} within {tolerance} degrees of the main altloc"
    return Column(f"{part}_within_{tolerance}", F32, True, "1", about)


RESIDUE_METRICS = (
    Column("nll", F32, True, "nat", "minus log density of the altlocs, by occupancy"),
    Column("nll_folded", F32, True, "nat", "the same in the form of the training loss (SPEC 7)"),
    Column("recall", F32, True, "1", "share of the altlocs near a mode"),
    Column("precision", F32, True, "1", "share of the modes' weight that is near an altloc"),
    Column(
        "wasserstein_rad", F32, True, "radian", "Wasserstein-1 distance to the altlocs, at most 12"
    ),
    *(
        _accuracy(part, words, tolerance)
        for tolerance in (20, 40)
        for part, words in (("chi1", "chi1"), ("chi12", "chi1 and chi2"), ("all", "every chi"))
    ),
    Column("entropy", F32, True, "nat", "of the predicted density"),
    Column("heterogeneity", F32, True, "1", "probability that two draws are distinct rotamers"),
    Column("num_modes", F32, True, "", "modes heavy enough to count"),
)
"""One value a residue and method; null where the residue has none, or the method no density."""

ROW_METRICS = (
    Column("hdr", F32, True, "1", "predicted mass of the region denser than the altloc"),
    Column("predicted_occupancy", F32, True, "1", "mass that is near, and nearest to it"),
    Column("match_weight", F32, True, "1", "weight of the heaviest mode near it; 0 if none is"),
)
"""One value an observed altloc and method."""

SCORES = make_schema(
    (
        *IDS,
        Column("secondary", TEXT, False, "", "helix, strand or loop, from runs of phi and psi"),
        Column("num_neighbours", I16, True, "", "other residues with CB within 10 angstrom"),
        Column("num_conformers", I8, False, "", "altlocs that are scored"),
        Column("num_distinct_conformers", I8, False, "", "conformers that differ in some chi"),
        Column("altloc_distance_rad", F32, False, "radian", "largest distance of a chi"),
        Column("distinct_rotamers", FLAG, False, "", "some chi differs by more than 40 degrees"),
        Column("population", TEXT, False, "", "multiconformer (two or more altlocs) or single"),
        _METHOD,
        *RESIDUE_METRICS,
        # Of a model with outputs beside its density (SPEC 11).
        Column("p_heterogeneous", F32, True, "1", "probability of two or more distinct rotamers"),
        Column("b_rank_mean", F32, True, "1", "predicted mean of the B rank"),
        Column("b_rank_spread", F32, True, "1", "predicted standard deviation of the B rank"),
        # On simulated data, where the density that made them is known.
        Column("gap_to_entropy", F32, True, "nat", "nll minus the entropy of the generator"),
    )
)

ALTLOCS = make_schema(
    (
        *_RESIDUE,
        Column("altloc", TEXT, False, "", "altloc label; empty for the blank one"),
        Column("occupancy", F32, False, "1", "normalised over the altlocs that are scored"),
        *_CHI,
        _METHOD,
        *ROW_METRICS,
    )
)

PREDICTIONS = make_schema(
    (
        *_RESIDUE,
        Column("mode", I8, False, "", "number of the mode, from 0 for the heaviest"),
        Column("weight", F32, False, "1", "predicted mass of the mode"),
        *_CHI,
        Column("is_near_altloc", FLAG, False, "", "some altloc has every chi within 30 degrees"),
    )
)

CHI_MAPS = make_schema(
    (
        *_RESIDUE,
        *(column._replace(nullable=False) for column in _CHI[:2]),
        Column("density", F32, False, "1/radian^2", "predicted density at chi1 and chi2"),
    )
)

_POPULATION = Column("population", TEXT, False, "", "multiconformer, single or all")
_METRIC = Column("metric", TEXT, False, "", "a column of scores, or made of one")
_INTERVAL = (
    Column("low", F64, True, "", "2.5 % of the resampled entries"),
    Column("high", F64, True, "", "97.5 % of the resampled entries"),
)

_SIZES = (
    Column("num_residues", I64, False, "", "residues behind the figure"),
    Column("num_entries", I64, False, "", "entries behind the figure"),
)

BY_GROUP = make_schema(
    (
        _POPULATION,
        _METHOD,
        Column("reference", TEXT, True, "", "null: the figure; else minus this method's, paired"),
        _METRIC,
        Column("group", TEXT, False, "", "how the residues are divided"),
        Column("level", TEXT, False, "", "which part of the division"),
        Column("value", F64, True, "", "mean over the residues, in the metric's unit"),
        *_INTERVAL,
        *_SIZES,
    )
)

CALIBRATION = make_schema(
    (
        _POPULATION,
        _METHOD,
        Column("nominal", F64, False, "1", "mass of the highest-density region"),
        Column("coverage", F64, True, "1", "share of the altlocs inside, by occupancy"),
        *_INTERVAL,
        Column("num_altlocs", I64, False, "", "altlocs behind the figure"),
        Column("num_entries", I64, False, "", "entries behind the figure"),
    )
)

CURVES = make_schema(
    (
        _POPULATION,
        _METHOD,
        Column("mode_weight", F64, False, "1", "smallest weight that makes a mode"),
        Column("recall", F64, False, "1", "mean over the residues"),
        Column("precision", F64, True, "1", "mean over the residues that have such a mode"),
    )
)

COMPARE = make_schema(
    (
        _POPULATION,
        Column("run", TEXT, False, "", "name of the run; type_library is that of the first"),
        Column("reference", TEXT, True, "", "null: the figure; else minus this run's, paired"),
        _METRIC,
        Column("value", F64, True, "", "mean over the residues, in the metric's unit"),
        *_INTERVAL,
        *_SIZES,
    )
)

MIXTURES = make_schema(
    (
        *_KEY,
        Column("weight", F64, False, "1", "weight of the component; normalised over the residue"),
        *(Column(f"mean{d}_rad", F64, True, "radian", f"mean of chi{d}; may be null") for d in CHI),
        *(Column(f"kappa{d}", F64, True, "1", "concentration; may be null") for d in CHI),
    )
)
"""An external table of kind ``mixture``; the simulator's truth tables have these columns too."""

SAMPLES = make_schema(
    (
        *_KEY,
        Column("weight", F64, False, "1", "weight of the sample; 1 where there is no such column"),
        *(Column(f"chi{d}_rad", F64, True, "radian", f"chi{d}; null if none") for d in CHI),
    )
)
"""An external table of kind ``samples``; a packer's single answer is one sample."""
