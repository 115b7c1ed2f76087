"""Names of tables and of the parts of a split, for those who plan jobs without numpy, too."""

TABLES = ("entries", "residues", "frames", "conformers", "rejected")
"""Tables of a data set: ``tables/<name>.parquet``."""

SPLITS = ("train", "validation", "test")
