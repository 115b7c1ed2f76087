"""Chains clustered by sequence."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import ONE_LETTER, RESIDUE_TYPES, UNKNOWN_TOKEN
from qfitlatent.tables.keys import begins_run
from qfitlatent.tables.parquet import read_table

MIN_LINKING_LENGTH = 15
"""Shorter chains, in residues, resemble each other by chance."""

CLUSTER_COVERAGE = 0.8
HIT_COVERAGE = 0.5
"""Share of the shorter sequence over which two of a cluster are alike, and two that are related
directly (SPEC 5)."""

_WORD_LENGTH = 3
"""Residues in a word: measured on diverged families, 3 finds most relatives (0.99 of them at 40 to
60 % identity, against 0.93 for words of 4 in a reduced alphabet) at the same cost."""

_NUM_WORDS = len(RESIDUE_TYPES) ** _WORD_LENGTH
_MAX_WORD_HITS = 20_000
"""Words with more occurrences than this in a part of the index are low complexity, and skipped."""

_DIAGONAL_BAND_BITS = 4
"""Hits count together when their diagonals are within 16 residues: room for gaps."""

_MARGIN = 24
"""Residues on each side of the best diagonal's window that an alignment may use."""

_MIN_SCORE = 40
"""BLOSUM62 score that an alignment must reach; short unrelated sequences stay below it."""

_MAX_CANDIDATES = 6
"""Representatives that are aligned with one sequence at most, best first."""

_MAX_SEARCHED = 24
"""The same where relatives are searched, not a home: none is to be missed."""

_NAMES = [*RESIDUE_TYPES, "UNK"]
"""Residue names by token."""

_PLACE_BITS = 17
"""Bits of a place (a sequence's number, then a diagonal): enough for chains of 65,000 residues."""


@dataclass(frozen=True)
class Chains:
    """The chains of a data set, sorted by entry and chain.

    sequence holds tokens; start[i]:start[i + 1] is chain i. entry_index counts entries from 0.
    """

    entry: np.ndarray
    chain: np.ndarray
    entry_index: np.ndarray
    start: np.ndarray
    token: np.ndarray
    num_multiconformer: np.ndarray

    def __len__(self) -> int:
        return len(self.entry)

    @property
    def length(self) -> np.ndarray:
        """(C,) residues of each chain."""
        return np.diff(self.start)

    def tokens(self, index: int) -> np.ndarray:
        return self.token[self.start[index] : self.start[index + 1]]


def read_chains(tables_dir: Path | str) -> Chains:
    """Sequences and counts of every chain in the residues table.

    Gaps in the numbering are closed: the sequence is that of the residues in the table.
    """
    path = Path(tables_dir) / "residues.parquet"
    table = read_table(path, columns=["entry", "chain", "token", "num_conformers"])
    if len(table) == 0:
        raise QfitLatentError(
            f"{path} holds no residues, so there is nothing to split: see rejected.parquet beside "
            "it for the reasons."
        )
    entry = table["entry"].combine_chunks().dictionary_encode()
    chain = table["chain"].combine_chunks().dictionary_encode()
    entry_code = entry.indices.to_numpy()
    chain_code = chain.indices.to_numpy()
    first = np.flatnonzero(begins_run(entry_code) | begins_run(chain_code))
    multi = (table["num_conformers"].to_numpy() >= 2).astype(np.int64)
    names = entry.dictionary.to_numpy(zero_copy_only=False)
    chain_names = chain.dictionary.to_numpy(zero_copy_only=False)
    return Chains(
        entry=names[entry_code[first]],
        chain=chain_names[chain_code[first]],
        entry_index=entry_code[first].astype(np.int64),
        start=np.r_[first, len(table)].astype(np.int64),
        token=table["token"].to_numpy().astype(np.int8),
        num_multiconformer=np.add.reduceat(multi, first),
    )


def cluster_chains(chains: Chains, identity: float, *, method: str, threads: int = 1) -> np.ndarray:
    """(C,) cluster number of each chain, counted in table order.

    Short chains are in the cluster of the longest chain of their entry.

    Args:
        identity: over 80 % of the shorter chain, fraction.
        method: builtin or mmseqs2.
    """
    long = np.flatnonzero(chains.length >= MIN_LINKING_LENGTH)
    sequences, copy_of = _distinct(chains, long)
    if method == "mmseqs2":
        representative = _cluster_mmseqs2(sequences, identity, threads)
    else:
        representative = cluster_sequences(sequences, identity)
    label = len(sequences) + np.arange(len(chains))
    if len(long):
        label[long] = representative[copy_of]
    return numbered(label[longest_of_entry(chains)])


def longest_of_entry(chains: Chains) -> np.ndarray:
    """(C,) the chain itself; for a short one the longest of its entry, the first of equals."""
    order = np.lexsort((np.arange(len(chains)), -chains.length, chains.entry_index))
    first = order[begins_run(chains.entry_index[order])]  # (E,)
    long = chains.length >= MIN_LINKING_LENGTH
    return np.where(long, np.arange(len(chains)), first[chains.entry_index])


def direct_hits(
    chains: Chains,
    queries: np.ndarray,
    targets: np.ndarray,
    identity: float,
    *,
    method: str,
    threads: int = 1,
) -> np.ndarray:
    """(Q,) for each of the chains ``queries`` one of the chains ``targets`` that it is related to.

    -1 where there is none. Related is what has the identity over half of the shorter chain (SPEC
    5). Short chains are related to nothing.
    """
    length = chains.length
    asked = np.flatnonzero(length[queries] >= MIN_LINKING_LENGTH)
    targets = targets[length[targets] >= MIN_LINKING_LENGTH]
    query_sequences, query_of = _distinct(chains, queries[asked])
    target_sequences, target_of = _distinct(chains, targets)
    if method == "mmseqs2":
        found = _search_mmseqs2(query_sequences, target_sequences, identity, threads)
    else:
        found = search_sequences(query_sequences, target_sequences, identity)
    _, first_copy = np.unique(target_of, return_index=True)
    hits = np.full(len(queries), -1, dtype=np.int64)
    hit = found[query_of]
    hits[asked[hit >= 0]] = targets[first_copy[hit[hit >= 0]]]
    return hits


def _distinct(chains: Chains, which: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The sequences of some chains, each once, and (len(which),) which of them a chain has."""
    number: dict[bytes, int] = {}
    copy_of = [number.setdefault(chains.tokens(int(i)).tobytes(), len(number)) for i in which]
    sequences = [np.frombuffer(key, dtype=np.int8) for key in number]
    return sequences, np.array(copy_of, dtype=np.int64)


def cluster_sequences(sequences: Sequence[np.ndarray], identity: float) -> np.ndarray:
    """(S,) index of the representative of each token sequence (its own where it is one).

    Near-linear: a query meets only the representatives that share words with it, and at most
    ``_MAX_CANDIDATES`` of them are aligned.
    """
    representative = np.arange(len(sequences))
    index = _WordIndex()
    order = sorted(
        range(len(sequences)), key=lambda i: (-len(sequences[i]), sequences[i].tobytes())
    )
    for query in order:
        found = index.related(sequences[query], identity, CLUSTER_COVERAGE, _MAX_CANDIDATES)
        if found < 0:
            index.add(query, sequences[query])
        else:
            representative[query] = found
    return representative


def search_sequences(
    queries: Sequence[np.ndarray], targets: Sequence[np.ndarray], identity: float
) -> np.ndarray:
    """(Q,) index of a target that each query is directly related to, -1 where there is none."""
    index = _WordIndex()
    for number, tokens in enumerate(targets):
        index.add(number, tokens)
    hits = (index.related(tokens, identity, HIT_COVERAGE, _MAX_SEARCHED) for tokens in queries)
    return np.fromiter(hits, np.int64, len(queries))


def required_identity(identity: float, length: float) -> float:
    """Identity that a chain of ``length`` residues must reach to count as related.

    Short sequences align by chance: unrelated ones at 0.18 with a spread that falls as the root of
    the length. Below about 60 residues the bar is therefore 2.5 of these spreads above chance.
    """
    return max(identity, 0.18 + 2.5 * (0.15 / length) ** 0.5)


def numbered(label: np.ndarray) -> np.ndarray:
    """The same labels as numbers from 0 in order of first appearance."""
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _words(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Words of a sequence and where they start; words with unknown residues are left out."""
    windows = np.lib.stride_tricks.sliding_window_view(tokens.astype(np.int64), _WORD_LENGTH)
    known = (windows != UNKNOWN_TOKEN).all(axis=1)
    weight = len(RESIDUE_TYPES) ** np.arange(_WORD_LENGTH)
    return windows[known] @ weight, np.flatnonzero(known)


class _WordIndex:
    """Sequences by the words that occur in them; grows as sequences are added.

    A stack of arrays sorted by word, each at least twice as long as the one above it: adding costs
    a logarithm of sorts, a query looks into a logarithm of arrays. A place is one number, the
    sequence in the high bits and the position in the low ones, so that a subtraction turns it into
    sequence and diagonal, and a shift into sequence and diagonal band.
    """

    def __init__(self) -> None:
        self._segments: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        """word (W,) sorted, place (W,), start (_NUM_WORDS + 1,): start[w]:start[w + 1] is word w"""
        self._residues: dict[int, list[str]] = {}
        self._scoring = gemmi.AlignmentScoring("b")

    def add(self, number: int, tokens: np.ndarray) -> None:
        self._residues[number] = [_NAMES[token] for token in tokens]
        words, positions = _words(tokens)
        middle = 1 << (_PLACE_BITS - 1)
        word, place = words, (number << _PLACE_BITS) + middle + positions
        while self._segments and len(self._segments[-1][0]) < 2 * len(word):
            below = self._segments.pop()
            word, place = np.r_[below[0], word], np.r_[below[1], place]
        order = np.argsort(word, kind="stable")
        start = np.r_[0, np.cumsum(np.bincount(word, minlength=_NUM_WORDS))]
        self._segments.append((word[order], place[order], start))

    def related(
        self, tokens: np.ndarray, identity: float, coverage: float, max_candidates: int
    ) -> int:
        """The best candidate that the sequence is related to (``is_related``), -1 for none."""
        residues = [_NAMES[token] for token in tokens]
        for candidate, shift in self.candidates(*_words(tokens), max_candidates):
            window = slice(max(0, shift - _MARGIN), shift + len(tokens) + _MARGIN)
            target = self._residues[candidate]
            shorter = min(len(residues), len(target))
            if is_related(residues, target[window], identity, coverage * shorter, self._scoring):
                return candidate
        return -1

    def candidates(
        self, words: np.ndarray, positions: np.ndarray, num: int
    ) -> list[tuple[int, int]]:
        """The ``num`` sequences with the most word hits on neighbouring diagonals, best first.

        Each with the shift, in residues, of the query along it that gives these hits.
        """
        hits = [self._bands(segment, words, positions) for segment in self._segments]
        if not hits:
            return []
        band = np.concatenate(hits)
        band.sort()
        first = np.flatnonzero(begins_run(band))
        count = np.diff(np.r_[first, len(band)])
        band = band[first]
        joined = count.copy()  # with the next band, where it belongs to the same sequence
        adjacent = np.flatnonzero(band[1:] - band[:-1] == 1)
        joined[adjacent] += count[adjacent + 1]
        best = _largest(joined, 4 * num)
        found: dict[int, int] = {}
        band_bits = _PLACE_BITS - _DIAGONAL_BAND_BITS
        for value in band[best].tolist():
            diagonal_band = (value & ((1 << band_bits) - 1)) - (1 << (band_bits - 1))
            found.setdefault(value >> band_bits, (diagonal_band + 1) << _DIAGONAL_BAND_BITS)
        return list(found.items())[:num]

    @staticmethod
    def _bands(
        segment: tuple[np.ndarray, ...], words: np.ndarray, positions: np.ndarray
    ) -> np.ndarray:
        """Sequence and diagonal band of every hit, as one number."""
        _, places, start = segment
        low = start[words]
        num = start[words + 1] - low
        num[num > _MAX_WORD_HITS] = 0
        ends = np.cumsum(num)
        where = np.arange(ends[-1] if len(ends) else 0) + np.repeat(low - ends + num, num)
        place = places[where] - np.repeat(positions, num)
        return (place >> _DIAGONAL_BAND_BITS).astype(np.uint32)


def _largest(values: np.ndarray, num: int) -> np.ndarray:
    """Indices of the ``num`` largest values, largest first, ties by position on every machine."""
    among = np.flatnonzero(values > 1)  # nearly all are 1: a quick way past the partition
    if len(among) < num:
        among = np.arange(len(values))
    if len(among) > num:
        among = among[values[among] >= np.partition(values[among], -num)[-num]]
    return among[np.argsort(-values[among], kind="stable")][:num]


def is_related(
    query: Sequence[str],
    target: Sequence[str],
    identity: float,
    wanted: float,
    scoring: gemmi.AlignmentScoring,
) -> bool:
    """Whether two sequences, as residue names, are similar over at least ``wanted`` residues.

    Some stretch of their global alignment has at least the identity, gaps included, pairs so many
    residues, and scores better than chance when aligned by itself: unrelated sequences reach an
    identity of 0.2 to 0.3 with many gaps, but then a negative BLOSUM62 score.
    """
    required = required_identity(identity, wanted)
    result = gemmi.align_string_sequences(query, target, [], scoring)
    if result.match_count < required * wanted:
        return False
    columns = np.frombuffer(result.match_string.encode(), dtype=np.uint8)
    balance = np.r_[0.0, np.cumsum((columns == ord("|")) - required)]
    # The longest stretch begins where the balance was first as low as where it ends.
    begin = np.searchsorted(-np.minimum.accumulate(balance), -balance, side="left")
    end = int(np.argmax(np.arange(len(balance)) - begin))
    stretch = slice(int(begin[end]), end)
    if np.count_nonzero(columns[stretch] != ord(" ")) < wanted:
        return False
    kind = np.concatenate(
        [np.full(int(num), ord(op)) for num, op in re.findall(r"(\d+)([MID])", result.cigar_str())]
    )

    def part(sequence: Sequence[str], gap: str) -> Sequence[str]:
        place = np.r_[0, np.cumsum(kind != ord(gap))]
        return sequence[place[stretch.start] : place[stretch.stop]]

    alone = gemmi.align_string_sequences(part(query, "D"), part(target, "I"), [], scoring)
    return alone.score >= _MIN_SCORE


def _cluster_mmseqs2(sequences: Sequence[np.ndarray], identity: float, threads: int) -> np.ndarray:
    """(S,) representative of each sequence by ``mmseqs easy-cluster``.

    Coverage is asked of the shorter sequence only (``--cov-mode 1``), so that a domain and the
    whole protein that holds it fall into one cluster; in a single step, because members of members
    percolate.
    """
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "out"
        options = ["-c", f"{CLUSTER_COVERAGE:g}", "--cov-mode", "1", "--single-step-clustering"]
        _mmseqs(
            ["easy-cluster", _fasta(sequences, folder, "in"), str(prefix), f"{folder}/tmp"],
            [*options, "1", "--min-seq-id", f"{identity:g}", "--threads", str(threads)],
        )
        pairs = np.loadtxt(f"{prefix}_cluster.tsv", dtype=np.int64, ndmin=2)
    representative = np.arange(len(sequences))
    representative[pairs[:, 1]] = pairs[:, 0]
    return representative


def _search_mmseqs2(
    queries: Sequence[np.ndarray], targets: Sequence[np.ndarray], identity: float, threads: int
) -> np.ndarray:
    """As ``search_sequences``, by ``mmseqs easy-search``."""
    hits = np.full(len(queries), -1, dtype=np.int64)
    if not queries or not targets:
        return hits
    with tempfile.TemporaryDirectory() as folder:
        files = [_fasta(queries, folder, "queries"), _fasta(targets, folder, "targets")]
        out = f"{folder}/hits.tsv"
        columns = ["--format-output", "query,target,alnlen,qlen,tlen"]
        _mmseqs(
            ["easy-search", *files, out, f"{folder}/tmp"],
            [*columns, "--min-seq-id", f"{identity:g}", "-s", "7.5", "--threads", str(threads)],
        )
        if Path(out).stat().st_size:
            query, target, aligned, *lengths = np.loadtxt(out, dtype=np.int64, ndmin=2).T
            related = aligned >= HIT_COVERAGE * np.minimum(*lengths)
            hits[query[related][::-1]] = target[related][::-1]  # the best hit stands first
    return hits


def _fasta(sequences: Sequence[np.ndarray], folder: str, name: str) -> str:
    """The path of a file with the sequences, each named by its number."""
    letters = np.frombuffer(ONE_LETTER.encode(), dtype=np.uint8)
    path = Path(folder) / f"{name}.fasta"
    with path.open("w") as stream:
        for number, tokens in enumerate(sequences):
            stream.write(f">{number}\n{letters[tokens].tobytes().decode()}\n")
    return str(path)


def _mmseqs(command: list[str], options: list[str]) -> None:
    if shutil.which("mmseqs") is None:
        raise QfitLatentError(
            "split.method is mmseqs2, but the program mmseqs is not on the PATH: install MMseqs2 "
            "or set split.method to builtin."
        )
    command = ["mmseqs", *command, *options, "-v", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise QfitLatentError(
            f"MMseqs2 failed ({' '.join(last)}): repair it, or set split.method to builtin."
        )
