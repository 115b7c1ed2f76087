"""Cost of what reads whole tables, at sizes that are tedious to simulate.

    python benchmarks/scale_tables.py results/data/<dataset> [--copies 1 3 10] [--out docs/x.json]

The shards of a finished data set are copied under other names, then merged, split, audited and read
for training, each in a process of its own, whose core time and peak memory are reported. For the
split the residue types of each copy are permuted, so that copies are unrelated families and not
clusters ten times as large. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scale import exponent, rounded

from qfitlatent import schemas
from qfitlatent.chemistry import RESIDUE_TYPES
from qfitlatent.tables import write_table

TABLES = ("entries", "residues", "frames", "conformers", "rejected")
FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}
STAGES = {
    "merge_tables": """
for name in {tables}:
    shards = sorted(base.glob(f"shards/*/{{name}}.parquet"))
    merge_tables(shards, base / "tables" / f"{{name}}.parquet", schemas.SCHEMAS[name])
""",
    "split_entries": """
split_entries(base / "permuted", base / "split.parquet", fractions={fractions}, method="builtin")
""",
    "audit_tables": """
make_audit(base / "tables", base / "split.parquet", base / "audit")
""",
    "load for training": """
Dataset.load(base / "tables", base / "split.parquet", ("train",))
""",
}
IMPORTS = {
    "merge_tables": "from qfitlatent import schemas\nfrom qfitlatent.tables import merge_tables",
    "split_entries": "from qfitlatent.split import split_entries",
    "audit_tables": "from qfitlatent.audit import make_audit",
    "load for training": "from qfitlatent.dataset import Dataset",
}


def with_column(table: pa.Table, name: str, values: object) -> pa.Table:
    number = table.schema.get_field_index(name)
    return table.set_column(number, table.schema.field(name), pa.array(values))


def copy_shards(source: Path, base: Path, copies: int) -> None:
    """``base/shards``: every shard under ``copies`` names, with entries named after the copy."""
    for copy in range(copies):
        for shard in sorted((source / "shards").iterdir()):
            for name in TABLES:
                table = pq.read_table(shard / f"{name}.parquet")
                entries = [f"c{copy:02d}_{entry}" for entry in table["entry"].to_pylist()]
                out = base / "shards" / f"{copy:02d}_{shard.name}" / f"{name}.parquet"
                write_table(with_column(table, "entry", entries), out, schemas.SCHEMAS[name])


def permute_types(base: Path) -> None:
    """``base/permuted/residues.parquet``: another assignment of residue types in each copy."""
    table = pq.read_table(base / "tables" / "residues.parquet")
    copy = np.array([int(entry[1:3]) for entry in table["entry"].to_pylist()])
    token = table["token"].to_numpy().astype(np.int8)
    for number in np.unique(copy):
        types = np.random.default_rng(number).permutation(len(RESIDUE_TYPES))
        mapping = np.append(types, len(RESIDUE_TYPES)).astype(np.int8)
        token = np.where(copy == number, mapping[token], token)
    permuted = with_column(table, "token", token)
    write_table(permuted, base / "permuted" / "residues.parquet", schemas.RESIDUES)


def measure(stage: str, base: Path) -> dict[str, float]:
    code = f"from pathlib import Path\n{IMPORTS[stage]}\nbase = Path({str(base)!r})\n"
    code += STAGES[stage].format(tables=TABLES, fractions=FRACTIONS)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{stage} failed on {base}")
    return {
        "core_s": usage.ru_utime + usage.ru_stime,
        "memory_gb": usage.ru_maxrss * 1024 / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of a finished data set")
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--out", type=Path, help="a JSON file for all numbers")
    arguments = parser.parse_args()
    results = []
    for copies in sorted(arguments.copies):
        with tempfile.TemporaryDirectory() as folder:
            base = Path(folder)
            copy_shards(arguments.data, base, copies)
            found: dict = {"stages": {}}
            for stage in STAGES:
                if stage == "split_entries":
                    permute_types(base)
                found["stages"][stage] = measure(stage, base)
            found["entries"] = pq.read_metadata(base / "tables" / "entries.parquet").num_rows
            found["residues"] = pq.read_metadata(base / "tables" / "residues.parquet").num_rows
        results.append(found)
        print(json.dumps(rounded(found)), file=sys.stderr, flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(rounded({"sizes": results}), indent=1) + "\n")

    sizes = [result["entries"] for result in results]
    head = ["", *(f"{n:,}: core s, GB" for n in sizes), "exponent of core time"]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for stage in STAGES:
        costs = [result["stages"][stage] for result in results]
        cells = [f"{cost['core_s']:.1f}, {cost['memory_gb']:.2f}" for cost in costs]
        growth = exponent(sizes, [cost["core_s"] for cost in costs]) if len(sizes) > 1 else 1.0
        print("| " + " | ".join([f"`{stage}`", *cells, f"{growth:.2f}"]) + " |")


if __name__ == "__main__":
    main()
