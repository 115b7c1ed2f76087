"""Training, validation and test set, divided by sequence cluster (SPEC 5).

Chains are clustered at a sequence identity (30 %) by MMseqs2 where it is installed, otherwise by
the greedy clustering of this module, in the manner of CD-HIT (Li & Godzik 2006): sequences from
the longest to the shortest, each joins the first representative that it is similar enough to, or
becomes one. Candidates come from an inverted index of short words, and every candidate is
verified by a global alignment with BLOSUM62.

What keeps the sets apart:
- entries that share a cluster form a group (connected components), and a whole group goes to one
  split, so no cluster and no entry spans two;
- chains shorter than ``MIN_LINKING_LENGTH`` residues link nothing: peptides resemble each other by
  chance, and would glue unrelated entries together;
- groups are dealt so that each split holds its fraction of the residues *and* of the
  multiconformer residues, in an order that follows from the seed and from the entry ids alone.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.dataset.clusters import Chains, cluster_chains, numbered, read_chains
from qfitlatent.tables.columns import CHAIN, ENTRY, I32, TEXT, Column, make_schema
from qfitlatent.tables.names import SPLITS
from qfitlatent.tables.parquet import write_table

SCHEMA = make_schema(
    (
        ENTRY,
        CHAIN,
        Column("cluster", I32, False, "", "sequence cluster, from 0"),
        Column("group", I32, False, "", "entries joined by common clusters, from 0"),
        Column("split", TEXT, False, "", "train, validation or test"),
        Column("method", TEXT, False, "", "what clustered the chains: mmseqs2, builtin or user"),
    )
)
"""The columns of ``split.parquet``."""


def split_entries(
    tables_dir: Path | str,
    out: Path | str,
    *,
    fractions: Mapping[str, float],
    sequence_identity: float = 0.3,
    method: str = "auto",
    file: str | Path | None = None,
    seed: int = 1,
    threads: int = 1,
) -> pa.Table:
    """Write ``split.parquet`` for the residues table in ``tables_dir`` and return it.

    Args:
        fractions: share of residues of train, validation and test.
        sequence_identity: chains at least this identical fall into one cluster, 0 to 1.
        method: auto, mmseqs2 or builtin.
        file: the user's own split (columns entry and split), which replaces the allocation.
    Raises:
        QfitLatentError: a split would be empty, MMseqs2 is asked for and absent, or ``file`` does
            not fit the data set.
    """
    chains = read_chains(tables_dir)
    cluster, used = cluster_chains(chains, sequence_identity, method=method, threads=threads)
    group = join_groups(chains.entry_index, cluster)
    if file is None:
        split_of_chain = allocate(chains, group, fractions, seed)
    else:
        split_of_chain = _user_split(Path(file), chains)
        used = "user"
    for name in SPLITS:
        if name not in split_of_chain:
            raise QfitLatentError(_empty_split(name, len(np.unique(group)), file))
    table = pa.table(
        {
            "entry": chains.entry,
            "chain": chains.chain,
            "cluster": cluster.astype(np.int32),
            "group": group.astype(np.int32),
            "split": split_of_chain,
            "method": np.full(len(chains), used, dtype=object),
        }
    )
    write_table(table, out, SCHEMA)
    return table


def summary(table: pa.Table) -> str:
    """In words: entries, chains and clusters of each split, and what clustered them."""
    parts = []
    for name in SPLITS:
        rows = table.filter(pc.equal(table["split"], name))
        entries, clusters = (pc.count_distinct(rows[key]).as_py() for key in ("entry", "cluster"))
        parts.append(f"{name} {entries} entries, {len(rows)} chains, {clusters} clusters")
    return f"Split ({table['method'][0]}): {'; '.join(parts)}"


def join_groups(entry_index: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """(C,) group of each chain: connected components of entries that share a cluster."""
    parent = np.arange(int(entry_index.max()) + 1)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first_of_cluster: dict[int, int] = {}
    for entry, number in zip(entry_index.tolist(), cluster.tolist(), strict=True):
        a, b = root(first_of_cluster.setdefault(number, entry)), root(entry)
        parent[max(a, b)] = min(a, b)
    roots = np.array([root(i) for i in range(len(parent))])
    return numbered(roots[entry_index])


def allocate(
    chains: Chains, group: np.ndarray, fractions: Mapping[str, float], seed: int
) -> np.ndarray:
    """(C,) split of each chain; whole groups, balanced by residues and multiconformer residues.

    Groups go from large to small, in an order within each size class (powers of two) that a hash
    of the seed and of the group's first entry gives; each to the split where the shares of both
    counts end nearest to the fractions. A split left empty by few groups takes the smallest group
    that another can spare.
    """
    num_groups = int(group.max()) + 1
    if num_groups < len(SPLITS):
        raise QfitLatentError(_empty_split(SPLITS[num_groups], num_groups, None))
    of_chain = (chains.length, chains.num_multiconformer)
    counts = np.stack([np.bincount(group, numbers) for numbers in of_chain], axis=1)  # (G, 2)
    share = counts / np.maximum(counts.sum(axis=0), 1)
    _, first_chain = np.unique(group, return_index=True)
    draw = [hashlib.sha256(f"{seed} {chains.entry[i]}".encode()).digest() for i in first_chain]
    size_class = np.floor(np.log2(np.maximum(counts[:, 0], 1))).astype(int)
    order = sorted(range(num_groups), key=lambda g: (-size_class[g], draw[g]))
    target = np.array([fractions[name] for name in SPLITS])
    wanted = np.flatnonzero(target > 0)
    filled = np.zeros((len(SPLITS), 2))
    split_of_group = np.zeros(num_groups, dtype=int)
    for g in order:
        # (wanted,) total squared distance to the fractions if group g went there; terms that do
        # not depend on the choice are left out.
        gap = filled[wanted] - target[wanted, None]
        cost = ((gap + share[g]) ** 2 - gap**2).sum(axis=1) / target[wanted]
        chosen = int(wanted[np.argmin(cost)])
        split_of_group[g] = chosen
        filled[chosen] += share[g]
    for empty in [s for s in wanted if not (split_of_group == s).any()]:
        in_split = np.bincount(split_of_group, minlength=len(SPLITS))
        spare = [g for g in range(num_groups) if in_split[split_of_group[g]] > 1]
        best = min(spare, key=lambda g: (counts[g, 1] == 0, counts[g, 0], draw[g]))
        split_of_group[best] = empty
    return np.array(SPLITS, dtype=object)[split_of_group[group]]


_ENTRY_AND_SPLIT_AS_TEXT = pa.csv.ConvertOptions(
    column_types={"entry": pa.string(), "split": pa.string()}
)


def _user_split(path: Path, chains: Chains) -> np.ndarray:
    """(C,) split of each chain as the user's table says."""
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
        else:
            table = pa.csv.read_csv(path, convert_options=_ENTRY_AND_SPLIT_AS_TEXT)
    except (OSError, pa.ArrowInvalid) as error:
        raise QfitLatentError(f"The split file {path} cannot be read: {error}.") from error
    absent = [name for name in ("entry", "split") if name not in table.column_names]
    if absent:
        raise QfitLatentError(
            f"The split file {path} has no column {absent[0]}: it needs entry and split."
        )
    chosen: dict[str, str] = {}
    for entry, split in zip(table["entry"].to_pylist(), table["split"].to_pylist(), strict=True):
        if split not in SPLITS:
            raise QfitLatentError(
                f"The split file {path} puts {entry} into {split!r}: use {', '.join(SPLITS)}."
            )
        if chosen.setdefault(entry, split) != split:
            raise QfitLatentError(
                f"The split file {path} puts {entry} into {chosen[entry]} and into {split}: "
                "keep one of the lines."
            )
    missing = sorted(set(chains.entry) - set(chosen))
    if missing:
        some = ", ".join(missing[:5])
        raise QfitLatentError(
            f"The split file {path} lacks {len(missing)} entries of the data set ({some}"
            f"{', ...' if len(missing) > 5 else ''}): add a line for each."
        )
    return np.array([chosen[entry] for entry in chains.entry], dtype=object)


def _empty_split(name: str, num_groups: int, file: str | Path | None) -> str:
    if file is not None:
        return f"The {name} split is empty: the split file {file} puts no entry of the set into it."
    return (
        f"The {name} split is empty: the entries form {num_groups} group(s) of related sequences, "
        f"and a group is never divided; add unrelated entries, give split.fractions.{name} a share "
        "above 0, or give a split.file of your own."
    )
