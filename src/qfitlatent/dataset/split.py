"""Training, validation and test set, divided by sequence cluster (SPEC 5).

Chains are clustered at a sequence identity over 80 % of the shorter chain, by the program that the
configuration names: the greedy clustering of this package, in the manner of CD-HIT (Li & Godzik
2006), or MMseqs2. With the first, sequences go from the longest to the shortest, and each joins the
first representative that it is similar enough to, or becomes one. Candidates come from an inverted
index of short words, and every candidate is verified by a global alignment with BLOSUM62.

What keeps the sets apart:
- a cluster goes to one set as a whole, and a chain to the set of its cluster; an entry may have
  chains in several sets;
- a training chain that is directly related to a held-out one (over half of the shorter), or is in
  the cluster of one, is excluded: neither learnt from nor scored;
- chains shorter than ``MIN_LINKING_LENGTH`` residues go with the longest chain of their entry;
- clusters are dealt so that each set holds its fraction of the residues *and* of the
  multiconformer residues, in an order that follows from the seed and from the names alone.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.dataset.clusters import (
    MIN_LINKING_LENGTH,
    Chains,
    cluster_chains,
    direct_hits,
    longest_of_entry,
    read_chains,
)
from qfitlatent.tables.columns import CHAIN, ENTRY, I32, TEXT, Column, make_schema
from qfitlatent.tables.names import EXCLUDED, HELD_OUT, SPLITS
from qfitlatent.tables.parquet import write_table

SCHEMA = make_schema(
    (
        ENTRY,
        CHAIN,
        Column("cluster", I32, False, "", "sequence cluster, from 0"),
        Column("split", TEXT, False, "", "train, validation, test or excluded"),
        Column("reason", TEXT, True, "", "why a chain is excluded, otherwise null"),
        Column("method", TEXT, False, "", "what clustered the chains: builtin or mmseqs2"),
        Column("allocation", TEXT, False, "", "who dealt the clusters: fractions or file"),
    )
)
"""The columns of ``split.parquet``."""


def split_entries(
    tables_dir: Path | str,
    out: Path | str,
    *,
    fractions: Mapping[str, float],
    sequence_identity: float,
    method: str,
    file: str | Path | None,
    seed: int,
    threads: int = 1,
) -> pa.Table:
    """Write ``split.parquet`` for the residues table in ``tables_dir`` and return it.

    Args:
        fractions: share of residues of train, validation and test.
        sequence_identity: chains at least this identical are related, 0 to 1.
        method: builtin or mmseqs2.
        file: the user's own sets (columns entry and split, and chain if by chain), which replace
            the allocation; chains that it does not name are learnt from.
    Raises:
        QfitLatentError: a split would be empty, MMseqs2 is asked for and absent, or ``file`` does
            not fit the data set.
    """
    chains = read_chains(tables_dir)
    cluster = cluster_chains(chains, sequence_identity, method=method, threads=threads)
    if file is None:
        split, reason = allocate(chains, cluster, fractions, seed), np.full(len(chains), None)
    else:
        split, reason = _user_split(Path(file), chains)
    _exclude_related(
        chains, cluster, split, reason, identity=sequence_identity, method=method, threads=threads
    )
    for name in SPLITS:
        if name not in split:
            raise QfitLatentError(_empty_split(name, len(np.unique(cluster)), file))
    table = pa.table(
        {
            "entry": chains.entry,
            "chain": chains.chain,
            "cluster": cluster.astype(np.int32),
            "split": split,
            "reason": pa.array(reason, pa.string()),
            "method": np.full(len(chains), method, dtype=object),
            "allocation": np.full(len(chains), "file" if file else "fractions", dtype=object),
        }
    )
    write_table(table, out, SCHEMA)
    return table


def summary(table: pa.Table) -> str:
    """In words: entries, chains and clusters of each split, and what clustered them."""
    parts = []
    for name in (*SPLITS, EXCLUDED):
        rows = table.filter(pc.equal(table["split"], name))
        entries, clusters = (pc.count_distinct(rows[key]).as_py() for key in ("entry", "cluster"))
        parts.append(f"{name} {entries} entries, {len(rows)} chains, {clusters} clusters")
    return f"Split ({table['method'][0]}): {'; '.join(parts)}"


def _exclude_related(
    chains: Chains,
    cluster: np.ndarray,
    split: np.ndarray,
    reason: np.ndarray,
    **search: Any,
) -> None:
    """Sets split and reason (C,) of the training chains that are related to a held-out one."""
    training = np.flatnonzero(split == SPLITS[0])
    held_out = np.flatnonzero(np.isin(split, HELD_OUT))
    related = direct_hits(chains, training, held_out, **search)
    _, first = np.unique(cluster[held_out], return_index=True)
    of_cluster = np.full(int(cluster.max()) + 1, -1)
    of_cluster[cluster[held_out[first]]] = held_out[first]
    related = np.where(related >= 0, related, of_cluster[cluster[training]])
    to = np.full(len(chains), -1)
    to[training] = related
    # A short chain goes with the longest of its entry.
    short = chains.length[training] < MIN_LINKING_LENGTH
    to[training[short]] = to[longest_of_entry(chains)[training[short]]]
    for i in np.flatnonzero(to >= 0):
        split[i] = EXCLUDED
        entry, chain, held = (of[to[i]] for of in (chains.entry, chains.chain, split))
        reason[i] = f"related to {entry} chain {chain} of the {held} set"


def allocate(
    chains: Chains, cluster: np.ndarray, fractions: Mapping[str, float], seed: int
) -> np.ndarray:
    """(C,) split of each chain; whole clusters, balanced by residues and multiconformer residues.

    Clusters go from large to small, in an order within each size class (powers of two) that a hash
    of the seed and of the cluster's first chain gives; each to the split where the shares of both
    counts end nearest to the fractions. A split left empty by few clusters takes the smallest that
    another can spare.
    """
    num_clusters = int(cluster.max()) + 1
    if num_clusters < len(SPLITS):
        raise QfitLatentError(_empty_split(SPLITS[num_clusters], num_clusters, None))
    of_chain = (chains.length, chains.num_multiconformer)
    counts = np.stack([np.bincount(cluster, numbers) for numbers in of_chain], axis=1)  # (G, 2)
    share = counts / np.maximum(counts.sum(axis=0), 1)
    _, first_chain = np.unique(cluster, return_index=True)
    draw = [
        hashlib.sha256(f"{seed} {chains.entry[i]} {chains.chain[i]}".encode()).digest()
        for i in first_chain
    ]
    size_class = np.floor(np.log2(np.maximum(counts[:, 0], 1))).astype(int)
    order = sorted(range(num_clusters), key=lambda g: (-size_class[g], draw[g]))
    target = np.array([fractions[name] for name in SPLITS])
    wanted = np.flatnonzero(target > 0)
    filled = np.zeros((len(SPLITS), 2))
    split_of_cluster = np.zeros(num_clusters, dtype=int)
    for g in order:
        # (wanted,) total squared distance to the fractions if cluster g went there; terms that do
        # not depend on the choice are left out.
        gap = filled[wanted] - target[wanted, None]
        cost = ((gap + share[g]) ** 2 - gap**2).sum(axis=1) / target[wanted]
        chosen = int(wanted[np.argmin(cost)])
        split_of_cluster[g] = chosen
        filled[chosen] += share[g]
    for empty in [s for s in wanted if not (split_of_cluster == s).any()]:
        in_split = np.bincount(split_of_cluster, minlength=len(SPLITS))
        spare = [g for g in range(num_clusters) if in_split[split_of_cluster[g]] > 1]
        best = min(spare, key=lambda g: (counts[g, 1] == 0, counts[g, 0], draw[g]))
        split_of_cluster[best] = empty
    return np.array(SPLITS, dtype=object)[split_of_cluster[cluster]]


_TEXT = pa.csv.ConvertOptions(
    column_types={name: pa.string() for name in ("entry", "chain", "split", "reason")}
)


def _user_split(path: Path, chains: Chains) -> tuple[np.ndarray, np.ndarray]:
    """(C,) split of each chain as the user's table says, train where it does not; (C,) reason."""
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
        else:
            table = pa.csv.read_csv(path, convert_options=_TEXT)
    except (OSError, pa.ArrowInvalid) as error:
        raise QfitLatentError(f"The split file {path} cannot be read: {error}.") from error
    absent = [name for name in ("entry", "split") if name not in table.column_names]
    if absent:
        raise QfitLatentError(
            f"The split file {path} has no column {absent[0]}: it needs entry and split, and chain "
            "where an entry has chains in several sets."
        )
    nothing = [None] * len(table)
    chain, why = (
        table[name].to_pylist() if name in table.column_names else nothing
        for name in ("chain", "reason")
    )
    named: dict[tuple[str, str | None], tuple[str, str | None]] = {}
    rows = zip(table["entry"].to_pylist(), chain, table["split"].to_pylist(), why, strict=True)
    for entry, of_chain, split, reason in rows:
        who = f"{entry} chain {of_chain}" if of_chain else entry
        if split not in (*SPLITS, EXCLUDED):
            raise QfitLatentError(
                f"The split file {path} puts {who} into {split!r}: use "
                f"{', '.join((*SPLITS, EXCLUDED))}."
            )
        reason = (reason or "as the split file says") if split == EXCLUDED else None
        before = named.setdefault((entry, of_chain or None), (split, reason))[0]
        if before != split:
            raise QfitLatentError(
                f"The split file {path} puts {who} into {before} and into {split}: keep one of the "
                "lines."
            )
    keys = set(zip(chains.entry, chains.chain, strict=True)) | {(e, None) for e in chains.entry}
    if not keys & named.keys():
        raise QfitLatentError(
            f"The split file {path} names no entry of the data set: it names, for example, "
            f"{next(iter(named), ('nothing',))[0]}, and the data set has {chains.entry[0]}."
        )
    default = (SPLITS[0], None)
    chosen = [
        named.get((entry, chain), named.get((entry, None), default))
        for entry, chain in zip(chains.entry, chains.chain, strict=True)
    ]
    split, reason = np.array(chosen, dtype=object).T
    return split.copy(), reason.copy()


def _empty_split(name: str, num_clusters: int, file: str | Path | None) -> str:
    if file is not None:
        return (
            f"The {name} split is empty: the split file {file} puts no chain of the set into it"
            + (
                ", or all that it puts there are related to validation and test."
                if name == SPLITS[0]
                else "."
            )
        )
    return (
        f"The {name} split is empty: the chains form {num_clusters} cluster(s) of related "
        "sequences, and a cluster is never divided; add unrelated entries, give "
        f"split.fractions.{name} a share above 0, or give a split.file of your own."
    )
