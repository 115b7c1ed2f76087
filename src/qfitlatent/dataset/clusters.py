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
"""Shorter chains, in residues, are clusters of their own."""

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


def cluster_chains(
    chains: Chains, sequence_identity: float, *, method: str = "auto", threads: int = 1
) -> tuple[np.ndarray, str]:
    """(C,) cluster number of each chain, counted in table order, and the method that made them."""
    if method == "auto":
        method = "mmseqs2" if shutil.which("mmseqs") else "builtin"
    if method == "mmseqs2" and shutil.which("mmseqs") is None:
        raise QfitLatentError(
            "split.method is mmseqs2, but the program mmseqs is not on the PATH: install MMseqs2 "
            "or set split.method to auto or builtin."
        )
    linking = np.flatnonzero(chains.length >= MIN_LINKING_LENGTH)
    # Most data sets repeat sequences: each distinct one is clustered once.
    distinct: dict[bytes, int] = {}
    copy_of = np.array(
        [distinct.setdefault(chains.tokens(int(i)).tobytes(), len(distinct)) for i in linking],
        dtype=np.int64,
    )
    sequences = [np.frombuffer(key, dtype=np.int8) for key in distinct]
    if method == "mmseqs2":
        representative = _cluster_mmseqs2(sequences, sequence_identity, threads)
    else:
        representative = cluster_sequences(sequences, sequence_identity)
    label = len(sequences) + np.arange(len(chains))
    if len(linking):
        label[linking] = representative[copy_of]
    return numbered(label), method


def cluster_sequences(sequences: Sequence[np.ndarray], identity: float) -> np.ndarray:
    """(S,) index of the representative of each token sequence (its own where it is one).

    Near-linear: a query meets only the representatives that share words with it, and at most
    ``_MAX_CANDIDATES`` of them are aligned.
    """
    representative = np.full(len(sequences), -1, dtype=np.int64)
    scoring = gemmi.AlignmentScoring("b")
    order = sorted(
        range(len(sequences)), key=lambda i: (-len(sequences[i]), sequences[i].tobytes())
    )
    index = _WordIndex()
    names = [*RESIDUE_TYPES, "UNK"]
    for query in order:
        tokens = sequences[query]
        words, positions = _words(tokens)
        residues = [names[token] for token in tokens]
        required = required_identity(identity, len(tokens))
        for candidate, shift in index.candidates(words, positions):
            window = slice(max(0, shift - _MARGIN), shift + len(tokens) + _MARGIN)
            target = [names[token] for token in sequences[candidate][window]]
            if _are_related(residues, target, required, scoring):
                representative[query] = candidate
                break
        else:
            representative[query] = query
            index.add(query, words, positions)
    return representative


def required_identity(identity: float, length: int) -> float:
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
    """Where each word occurs in the representatives; grows as representatives are added.

    A stack of arrays sorted by word, each at least twice as long as the one above it: adding costs
    a logarithm of sorts, a query looks into a logarithm of arrays. A place is one number, the
    sequence in the high bits and the position in the low ones, so that a subtraction turns it into
    sequence and diagonal, and a shift into sequence and diagonal band.
    """

    def __init__(self) -> None:
        self._segments: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        """word (W,) sorted, place (W,), start (_NUM_WORDS + 1,): start[w]:start[w + 1] is word w"""

    def add(self, sequence: int, words: np.ndarray, positions: np.ndarray) -> None:
        middle = 1 << (_PLACE_BITS - 1)
        word, place = words, (sequence << _PLACE_BITS) + middle + positions
        while self._segments and len(self._segments[-1][0]) < 2 * len(word):
            below = self._segments.pop()
            word, place = np.r_[below[0], word], np.r_[below[1], place]
        order = np.argsort(word, kind="stable")
        start = np.r_[0, np.cumsum(np.bincount(word, minlength=_NUM_WORDS))]
        self._segments.append((word[order], place[order], start))

    def candidates(self, words: np.ndarray, positions: np.ndarray) -> list[tuple[int, int]]:
        """Representatives with the most word hits on neighbouring diagonals, best first.

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
        best = _largest(joined, 4 * _MAX_CANDIDATES)
        found: dict[int, int] = {}
        band_bits = _PLACE_BITS - _DIAGONAL_BAND_BITS
        for value in band[best].tolist():
            diagonal_band = (value & ((1 << band_bits) - 1)) - (1 << (band_bits - 1))
            found.setdefault(value >> band_bits, (diagonal_band + 1) << _DIAGONAL_BAND_BITS)
        return list(found.items())[:_MAX_CANDIDATES]

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


def _are_related(
    query: Sequence[str], target: Sequence[str], required: float, scoring: gemmi.AlignmentScoring
) -> bool:
    """Whether a global alignment reaches the identity and is better than chance.

    Identity is counted over the shorter of the two. Unrelated sequences reach 0.2 to 0.3 of it with
    many gaps, but then a negative BLOSUM62 score; gaps at the ends are not counted against it.
    """
    result = gemmi.align_string_sequences(query, target, [], scoring)
    if result.match_count < required * min(len(query), len(target)):
        return False
    gaps = re.findall(r"^\d+(?=[ID])|\d+(?=[ID]$)", result.cigar_str())
    at_ends = sum(-scoring.gapo - scoring.gape * int(length) for length in gaps)
    return result.score + at_ends >= _MIN_SCORE


def _cluster_mmseqs2(sequences: Sequence[np.ndarray], identity: float, threads: int) -> np.ndarray:
    """(S,) representative of each sequence by ``mmseqs easy-cluster``.

    Coverage is asked of the shorter sequence only (``--cov-mode 1``), so that a domain and the
    whole protein that holds it fall into one cluster.
    """
    letters = np.frombuffer(ONE_LETTER.encode(), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        fasta, prefix = Path(folder) / "in.fasta", Path(folder) / "out"
        with fasta.open("w") as stream:
            for number, tokens in enumerate(sequences):
                stream.write(f">{number}\n{letters[tokens].tobytes().decode()}\n")
        command = ["mmseqs", "easy-cluster", str(fasta), str(prefix), str(Path(folder) / "tmp")]
        command += ["--min-seq-id", f"{identity:g}", "-c", "0.8", "--cov-mode", "1"]
        command += ["--threads", str(threads), "-v", "1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise QfitLatentError(
                f"MMseqs2 failed ({' '.join(last)}): repair it, or set split.method to builtin."
            )
        pairs = np.loadtxt(f"{prefix}_cluster.tsv", dtype=np.int64, ndmin=2)
    representative = np.arange(len(sequences))
    representative[pairs[:, 1]] = pairs[:, 0]
    return representative
