"""The columns of the prediction's tables."""

import pyarrow as pa

from qfitlatent.tables.columns import (
    AUTHOR,
    CHI,
    F32,
    F64,
    FLAG,
    I8,
    I16,
    I32,
    IDS,
    TEXT,
    Column,
    make_schema,
)

MIXTURE = make_schema(
    (
        *IDS,
        Column("component", I16, False, "", "0, 1, ... within the residue"),
        Column("weight", F32, False, "1", "weight of the component; sums to 1 over the residue"),
        *(Column(f"mean{d}_rad", F32, True, "radian", f"mean of chi{d}") for d in CHI),
        *(Column(f"kappa{d}", F32, True, "1", f"concentration of chi{d}; 0 is flat") for d in CHI),
    )
)

RESIDUES = make_schema(
    (
        *IDS,
        Column("entropy", F32, True, "nat", "differential entropy of the predicted density"),
        Column("conformational_entropy", F32, True, "kB", "entropy, less that of free rotation"),
        Column("rotamer_entropy", F32, True, "kB", "entropy of the joint thirds of the chi"),
        Column("disagreement", F32, True, "nat", "of dropout passes: ignorance; null without them"),
        Column(
            "unlike_training", F32, True, "1", "share of held-out residues that are less unlike"
        ),
        Column("heterogeneity", F32, True, "1", "1 - weight of the heaviest mode"),
        Column("num_modes", I8, True, "", "modes of at least the weight threshold"),
        Column("p_heterogeneous", F32, True, "1", "probability of two or more distinct rotamers"),
        Column("num_conformers", I8, True, "", "side chains written: 1, or as many altlocs"),
        Column("group", I32, True, "", "number of its group in the table of groups"),
        *(
            Column(f"chi{d}_rad", F32, True, "radian", f"chi{d} of the one, or of altloc A")
            for d in CHI
        ),
        Column("confidence", F32, True, "1", "probability that these chi are within 40 degrees"),
        Column("strain", F32, True, "nat", "energy of its contacts, altloc A"),
        Column("is_built", FLAG, False, "", "the ensemble has a rebuilt side chain here"),
        Column("note", TEXT, False, "", "why there is no prediction or no side chain; else empty"),
    )
)

OBSERVABLES = make_schema(
    (
        *IDS,
        Column("quantity", TEXT, False, "", "S2 (methyl axis), 3J (coupling) or population"),
        Column("site", TEXT, False, "", "the methyl carbon, the coupled atoms, or chi1 g+, t, g-"),
        Column("value", F32, False, "", "predicted value"),
        Column("unit", TEXT, False, "", "of value: 1, or Hz"),
        Column("error", F32, True, "", "rms error of the Karplus relation itself, in the unit"),
    )
)
"""``<id>.observables.csv``: what experiments in solution measure, from the density alone."""

GROUPS = make_schema(
    (
        Column("group", I32, False, "", "number of the group, from 0"),
        Column("altloc", TEXT, False, "", "label of the joint state, the same in every residue"),
        Column("population", F32, False, "1", "of the joint state; sums to 1 over the group"),
        Column("distance", F32, False, "1", "of the occupancies from the marginals, 0 to 1"),
        Column("num_residues", I32, False, "", "residues of the group"),
        Column("residues", TEXT, False, "", "those that have a side chain of this label"),
    )
)

SCORES = make_schema(
    (
        *IDS,
        Column("altloc", TEXT, False, "", "altloc label; empty for the blank one"),
        Column("occupancy", F32, False, "1", "as deposited"),
        Column("occupancy_normalised", F64, False, "1", "divided by the residue's sum"),
        *(Column(f"chi{d}_rad", F32, True, "radian", f"chi{d}; null if undefined") for d in CHI),
        Column("nll", F32, False, "nat", "-log density on the full circle"),
        Column("nll_folded", F32, False, "nat", "-log density with pi-symmetric chi folded"),
        Column("hdr_level", F32, False, "1", "predicted mass of the region denser than this"),
        Column("is_surprising", FLAG, False, "", "hdr_level is above the threshold"),
        Column("learnt_from", FLAG, True, "", "the model was trained on this chain; null: unknown"),
        Column("missing_weight", F32, False, "1", "weight of modes that no altloc comes near"),
        *(
            Column(f"missing_chi{d}_rad", F32, True, "radian", "chi of the heaviest such mode")
            for d in CHI
        ),
        Column("own_energy", F32, True, "nat", "-log of its mode's mass, and the loss from there"),
        Column("strain", F32, True, "nat", "energy of its contacts with what is deposited"),
        Column("contact", TEXT, False, "", "atom that it meets most closely; empty if none"),
        Column("contact_angstrom", F32, True, "angstrom", "distance of that atom"),
        Column("gain", F32, True, "nat", "by which a rotamer of a better joint state is better"),
        Column("rotamer", TEXT, False, "", "that rotamer; empty if there is none"),
        *(Column(f"rotamer_chi{d}_rad", F32, True, "radian", f"its chi{d}") for d in CHI),
        Column("look", F32, True, "nat", "gain beyond the usual, or strain that stays"),
        Column("is_worth_a_look", FLAG, False, "", "look is at least the threshold"),
        Column("reason", TEXT, False, "", "why it is worth a look, in words; else empty"),
    )
)

LOOKS = make_schema(
    (
        Column("entry", TEXT, False, "", "name of the file without its ending"),
        *(column for column in AUTHOR if column.name != "label_seq"),
        Column("altloc", TEXT, False, "", "altloc label; empty for the blank one"),
        Column("occupancy", F32, False, "1", "as deposited"),
        Column("look_nats", F32, False, "nat", "the worst stand first"),
        Column("reason", TEXT, False, "", "in words"),
        Column("own_energy_nats", F32, False, "nat", "what the density asks for the side chain"),
        Column("strain_nats", F32, False, "nat", "energy of its contacts"),
        Column("gain_nats", F32, False, "nat", "by which a better rotamer is better"),
        Column("rotamer", TEXT, False, "", "that rotamer; empty if there is none"),
        Column("contact", TEXT, False, "", "atom that it meets most closely; empty if none"),
        Column("contact_angstrom", F32, True, "angstrom", "distance of that atom"),
        Column("hdr_level", F32, False, "1", "predicted mass of what is likelier by itself"),
    )
)
"""``<scores>.look.csv``: side chains that are worth a look, of all structures, the worst first."""

SAMPLES = make_schema(
    (
        *IDS,
        Column("sample", I32, False, "", "number of the draw, from 0"),
        *(Column(f"chi{d}_rad", F32, True, "radian", f"chi{d}; null if undefined") for d in CHI),
    )
)

SEEN = make_schema(
    (
        Column("entry", TEXT, False, "", "name of the file without its ending"),
        Column("what", TEXT, False, "", "kept residue, ligand, metal, water, crystal neighbour"),
        Column("name", TEXT, False, "", "component of a ligand or metal; empty for the others"),
        Column("num_residues", I32, False, "", "residues, or copies of the component"),
        Column("num_atoms", I32, False, "", "heavy atoms, all conformers"),
        Column("num_used", I32, False, "", "of these in the joint energy"),
        Column("note", TEXT, False, "", "why atoms were not used, and what to do; else empty"),
    )
)
"""``<id>.surroundings.csv``: what stood around the side chains, and what of it counted."""

SUMMARY = make_schema(
    (
        Column("entry", TEXT, False, "", "name of the file without its ending"),
        Column("num_residues", I32, False, "", "residues with a prediction"),
        Column("num_built", I32, False, "", "residues whose side chain was built"),
        Column("num_heterogeneous", I32, False, "", "residues with several conformers"),
    )
)
"""``summary.csv`` of the workflow: what was predicted; what was not is in ``failures.csv``."""

FAILURES = make_schema(
    (
        Column("entry", TEXT, False, "", "name of the file without its ending"),
        Column("path", TEXT, False, "", "the file"),
        Column("reason", TEXT, False, "", "why there is no result, in one word"),
        Column("error", TEXT, False, "", "the same as a sentence, and what to do"),
    )
)
"""``failures.csv``, a table a command: the only place that says what could not be used."""

MODELS = {
    "heaviest": "heaviest modes",
    "joint": "altloc A of the joint model",
    "deposited": "deposited side chains",
}
"""Side chains that are judged beside each other."""

JUDGED_RESIDUES = make_schema(
    (
        *IDS,
        *(
            Column(f"{model}_{part}_error_rad", F32, True, "radian", f"{words}: {of}")
            for model, words in list(MODELS.items())[:2]
            for part, of in (("chi1", "distance of chi1"), ("chi", "largest distance of a chi"))
        ),
        Column("confidence", F32, True, "1", "probability that each chi is within 40 degrees"),
        *(
            Column(f"{model}_clashes", F32, False, "", f"{words}: clashes, half of each it shares")
            for model, words in MODELS.items()
        ),
        Column("altloc_clashes", F32, False, "", "the same of B, C, ..., beyond those of A"),
        *(
            Column(f"{model}_{part}", F32, True, unit, f"{words}: rms from ideal {of}")
            for model, words in list(MODELS.items())[1:]
            for part, unit, of in (
                ("bonds_angstrom", "angstrom", "bond lengths"),
                ("angles_rad", "radian", "bond angles"),
            )
        ),
        Column("num_conformers", I8, False, "", "side chains written: 1, or as many altlocs"),
        Column("is_heterogeneous", FLAG, True, "", "deposited with distinct rotamers; or null"),
        Column("occupancy_error", F32, True, "1", "mean over rotamers of what has several in both"),
    )
)
"""A row a residue that is judged; errors are null where not every chi was observed."""

JUDGED_BONDS = make_schema(
    (
        *IDS,
        Column("kind", TEXT, False, "", "disulfide or metal"),
        Column("atom", TEXT, False, "", "of the side chain"),
        Column("partner", TEXT, False, "", "the other cysteine, or the element of the metal"),
        Column("is_deposited", FLAG, False, "", "bonded in the deposited model"),
        *(
            Column(f"{model}_angstrom", F32, True, "angstrom", f"{words}: length")
            for model, words in MODELS.items()
        ),
        Column("cb_cb_angstrom", F32, True, "angstrom", "of a disulfide: between its CB"),
    )
)
"""A row a disulfide or bond to a metal, deposited or of altloc A; the length where it is none."""

JUDGED_ENTRIES = make_schema(
    (
        Column("entry", TEXT, False, "", "id of the entry"),
        Column("reason", TEXT, True, "", "why it is not judged, in one word; else null"),
        Column("detail", TEXT, True, "", "the same as a sentence, and what to do"),
        Column("num_residues", I32, True, "", "residues that are judged"),
        Column("num_learnt_from", I32, True, "", "residues left out, as it was trained on them"),
        *(
            Column(f"{model}_clashes", F32, True, "1/100 residues", f"{words}: clashes")
            for model, words in MODELS.items()
        ),
        *(
            Column(f"{model}_all_within_{degrees}", F32, True, "1", f"{words}: all chi so near")
            for model, words in list(MODELS.items())[:2]
            for degrees in (20, 40)
        ),
        Column("num_with_altlocs", I32, True, "", "residues written with altlocs"),
        Column("num_heterogeneous", I32, True, "", "deposited with distinct rotamers"),
    )
)
"""A row an entry that was to be judged."""


def embedding_schema(width: int) -> pa.Schema:
    """Schema of an embedding of this width."""
    kind = pa.list_(pa.field("element", F32, nullable=False), width)
    return make_schema(
        (*IDS, Column("embedding", kind, False, "1", "final single representation s"))
    )
