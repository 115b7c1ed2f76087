"""The columns of every table: name, type, unit and meaning, declared once (SPEC 5).

``SCHEMAS[name]`` is the Arrow schema of ``tables/<name>.parquet``. Unit and description travel as
metadata of each field, so that a table explains itself wherever it is copied. Missing is null,
never 0. Rows are sorted by the key: entry, chain, index, and rank of a conformer.
"""

import pyarrow as pa

from qfitlatent.tables.columns import (
    AUTHOR,
    CHAIN,
    CHI,
    ENTRY,
    F32,
    F64,
    FLAG,
    I8,
    I16,
    I32,
    I64,
    INDEX,
    TEXT,
    Column,
    make_schema,
)

_KEY = (ENTRY, CHAIN, INDEX)
ENTRIES = make_schema(
    (
        ENTRY,
        Column("source", TEXT, False, "", "rcsb, pdb_redo, url, local or simulated"),
        Column("url", TEXT, True, "", "address the file came from; null for local files"),
        Column("path", TEXT, False, "", "the file, relative to the working directory if below it"),
        Column("sha256", TEXT, False, "", "sha256 of the file's bytes"),
        Column("num_bytes", I64, False, "byte", "size of the file"),
        Column("format", TEXT, False, "", "pdb or mmcif"),
        Column("method", TEXT, True, "", "experiment, such as X-RAY DIFFRACTION"),
        Column("resolution_angstrom", F32, True, "angstrom", "high resolution limit"),
        Column("r_free", F32, True, "1", "free R factor of the refinement"),
        Column("deposition_date", TEXT, True, "", "ISO 8601, where the file has it"),
        Column("num_models", I32, False, "", "models in the file; only the first is used"),
        Column("num_chains", I32, False, "", "protein chains with at least one kept residue"),
        Column("num_residues_read", I32, False, "", "protein residues, each name at a position"),
        Column("num_residues", I32, False, "", "residues kept: rows of the residues table"),
        Column("num_residues_rejected", I32, False, "", "residues in the rejected table"),
        Column("num_backbones", I32, True, "", "residues with N, CA and C in the raw records"),
        Column("num_backbones_kept", I32, False, "", "residues kept that have N, CA and C"),
        Column("num_backbones_rejected", I32, False, "", "residues rejected that have N, CA and C"),
        Column("num_conformers_read", I32, False, "", "side-chain conformers of kept residues"),
        Column("num_conformers", I32, False, "", "conformers kept: rows of the conformers table"),
        Column("num_conformers_rejected", I32, False, "", "conformers in the rejected table"),
        Column("num_multiconformer", I32, False, "", "residues with at least two conformers kept"),
        Column("num_heterogeneous", I32, False, "", "residues with several distinct conformers"),
        Column("num_frames", I32, False, "", "residues with a backbone frame"),
    )
)

RESIDUES = make_schema(
    (
        *_KEY,
        *AUTHOR,
        Column("token", I8, False, "", "residue type, 0 to 19 alphabetical by code, 20 unknown"),
        Column("segment", I32, False, "", "run of bonded residues in the chain, from 0"),
        Column("is_modified", FLAG, False, "", "the name is none of the 20 standard ones"),
        Column("is_het", FLAG, False, "", "deposited as HETATM"),
        Column("is_d_residue", FLAG, False, "", "a D amino acid"),
        Column("is_microheterogeneous", FLAG, False, "", "several residue names at the position"),
        Column("num_residue_types", I8, False, "", "residue names at the position"),
        Column("phi_rad", F32, True, "radian", "C(i-1)-N-CA-C, where i-1 is bonded"),
        Column("psi_rad", F32, True, "radian", "N-CA-C-N(i+1), where i+1 is bonded"),
        Column("omega_rad", F32, True, "radian", "CA(i-1)-C(i-1)-N-CA, where i-1 is bonded"),
        Column("num_chi", I8, False, "", "chi angles that the residue type defines"),
        Column("num_conformers", I8, False, "", "side-chain conformers kept"),
        Column(
            "num_distinct_conformers",
            I8,
            False,
            "",
            "conformers kept, those counted once that agree in every observed chi",
        ),
        Column("num_altlocs", I16, False, "", "named altlocs seen, with or without chi atoms"),
        Column("occupancy_sum", F32, True, "1", "sum of the kept conformers' occupancies"),
        Column(
            "has_occupancy_disagreement",
            FLAG,
            False,
            "",
            "a kept conformer's own chi atoms differ in occupancy by more than 0.01",
        ),
        Column(
            "b_rank",
            F32,
            True,
            "1",
            "rank of the side chain's mean B in the entry, 0 lowest to 1; null if all are equal",
        ),
        Column("num_neighbours", I16, True, "", "other residues with CB within 10 angstrom"),
        Column("secondary", TEXT, False, "", "helix, strand or loop, from runs of phi and psi"),
    )
)

FRAMES = make_schema(
    (
        *_KEY,
        Column(
            "rotation",
            pa.list_(pa.field("element", F32, nullable=False), 9),
            True,
            "1",
            "local to global, row-major; columns x along CA-C, y towards N, z",
        ),
        Column(
            "translation_angstrom",
            pa.list_(pa.field("element", F32, nullable=False), 3),
            True,
            "angstrom",
            "position of CA",
        ),
        Column("altloc", TEXT, True, "", "altloc of N, CA, C; empty for blank, null if no frame"),
        Column("is_observed", FLAG, True, "", "N, CA and C have occupancy; null if no frame"),
    )
)

CONFORMERS = make_schema(
    (
        *_KEY,
        Column("altloc", TEXT, False, "", "altloc label; empty for the blank one"),
        Column("rank", I8, False, "", "0 for the highest occupancy; ties by label"),
        Column("occupancy", F32, False, "1", "mean over the conformer's own chi-defining atoms"),
        Column("occupancy_min", F32, False, "1", "smallest of these atoms"),
        Column("occupancy_max", F32, False, "1", "largest of these atoms"),
        Column("occupancy_normalised", F64, False, "1", "divided by the residue's sum"),
        *(
            Column(f"chi{d}_rad", F32, True, "radian", f"chi{d}, (-pi, pi]; null if undefined")
            for d in CHI
        ),
        *(
            Column(f"chi{d}_observed", FLAG, True, "", f"no atom of chi{d} has occupancy 0")
            for d in CHI
        ),
        Column("group", I8, False, "", "conformers that agree within 10 degrees share it; from 0"),
        Column("num_atoms_own", I8, False, "", "chi-defining atoms with this altloc"),
        Column("num_atoms_shared", I8, False, "", "chi-defining atoms taken from the blank one"),
        Column("num_atoms_missing", I8, False, "", "chi-defining atoms that are in neither"),
        Column("mean_b_angstrom2", F32, True, "angstrom^2", "mean B factor of the own atoms"),
    )
)

REJECTED = make_schema(
    (
        ENTRY,
        Column("chain", TEXT, True, "", "as in the residues table; null for a whole entry"),
        Column("index", I32, True, "", "as in the residues table; null for a whole entry"),
        Column("altloc", TEXT, True, "", "altloc of the conformer or atom; null for the others"),
        Column("author_chain", TEXT, True, "", "auth_asym_id"),
        Column("author_number", I32, True, "", "auth_seq_id"),
        Column("insertion_code", TEXT, True, "", "insertion code; empty if none"),
        Column("name", TEXT, True, "", "component name as deposited"),
        Column("stage", TEXT, False, "", "download, preprocess or split"),
        Column("scope", TEXT, False, "", "entry, residue, frame, conformer or atom"),
        Column("reason", TEXT, False, "", "from the closed vocabulary of errors.Reason"),
        Column("detail", TEXT, False, "", "the particulars, in words; empty if none"),
    )
)

SCHEMAS: dict[str, pa.Schema] = {
    "entries": ENTRIES,
    "residues": RESIDUES,
    "frames": FRAMES,
    "conformers": CONFORMERS,
    "rejected": REJECTED,
}
"""Schema of each table in ``tables/``, by the stem of its file name."""
