"""Names of tables and of the parts of a split, for those who plan jobs without numpy, too."""

TABLES = ("entries", "residues", "frames", "conformers", "rejected")
"""Tables of a data set: ``tables/<name>.parquet``."""

SPLITS = ("train", "validation", "test")

HELD_OUT = SPLITS[1:]
EXCLUDED = "excluded"
"""Training chains that are related to a held-out one: neither learnt from nor scored (SPEC 5)."""
