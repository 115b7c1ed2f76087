"""The columns of a scan."""

from qfitlatent.tables.columns import CHI, F32, FLAG, I8, I16, IDS, TEXT, Column, make_schema

SCAN = make_schema(
    (
        *IDS,
        Column("type", TEXT, False, "", "what the residue is taken to be"),
        Column("is_native", FLAG, False, "", "the type that the file has"),
        Column("fit", F32, False, "nat", "neighbour_change - energy_change; 0 of the native type"),
        Column("rank", I8, False, "", "of the types that were scanned by fit, 1 the best"),
        Column("neighbour_change", F32, False, "nat", "log density of the neighbours' conformers"),
        Column("num_neighbours", I16, False, "", "residues with chi, CB within 10 angstrom"),
        Column("num_deposited", I16, False, "", "of these as deposited; others as predicted"),
        Column("entropy", F32, True, "nat", "of its density, differential; null without chi"),
        Column("num_modes", I8, True, "", "modes of at least the weight threshold"),
        Column("fitting_mass", F32, True, "1", "of its modes those that fit; null without chi"),
        *(Column(f"chi{d}_rad", F32, True, "radian", f"chi{d} in the best state") for d in CHI),
        Column("energy_change", F32, False, "nat", "joint energy of the best state of the site"),
        Column("strain", F32, False, "nat", "energy of its own contacts in that state"),
        Column("strain_change", F32, False, "nat", "energy of all contacts of the site"),
        Column("num_clashes", I16, False, "", "pairs with atoms within 2.5 angstrom"),
        Column("clash_change", I16, False, "", "the same, beyond those of the native type"),
        Column("burial", I16, False, "", "residues with CB within 10 angstrom"),
        Column("has_no_room", FLAG, False, "", "strain_change is that of a clash or more"),
        Column("note", TEXT, False, "", "what the numbers do not see; else empty"),
    )
)
"""``<id>.scan.parquet``: a row a position and type; changes are against the native type."""
