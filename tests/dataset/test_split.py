"""The split: related chains stay together, each set gets its share, the result is repeatable."""

import os
import stat
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import UNKNOWN_TOKEN
from qfitlatent.dataset import clusters, split
from qfitlatent.tables.names import EXCLUDED

FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}
# Frequencies of the residue types in proteins, in the order of tokens, percent.
BACKGROUND = np.array(
    [
        *[8.3, 5.5, 4.1, 5.5, 1.4, 3.9, 6.7, 7.1, 2.3, 5.9],
        *[9.7, 5.8, 2.4, 3.9, 4.7, 6.6, 5.3, 1.1, 2.9, 6.9],
    ]
)


def random_sequence(rng, length):
    return rng.choice(20, size=length, p=BACKGROUND / BACKGROUND.sum()).astype(np.int8)


def relative(rng, ancestor, identity):
    """A copy with this fraction of positions kept, and one deletion of 1 to 3 residues."""
    copy = ancestor.copy()
    other = rng.random(len(copy)) >= identity
    copy[other] = random_sequence(rng, int(other.sum()))
    cut = int(rng.integers(5, len(copy) - 8))
    return np.delete(copy, slice(cut, cut + int(rng.integers(1, 4))))


def families(rng, num, members, identity, low=60, high=300):
    ancestors = [random_sequence(rng, int(rng.integers(low, high))) for _ in range(num)]
    return [relative(rng, a, identity) for a in ancestors for _ in range(members)]


def write_residues(folder, chains, num_conformers=None):
    """The residues table of (entry, chain, tokens) rows, only the columns that the split reads."""
    columns = {"entry": [], "chain": [], "token": [], "num_conformers": []}
    for number, (entry, chain, tokens) in enumerate(chains):
        columns["entry"] += [entry] * len(tokens)
        columns["chain"] += [chain] * len(tokens)
        columns["token"] += [int(token) for token in tokens]
        several = 1 if num_conformers is None else num_conformers[number]
        columns["num_conformers"] += [2] * several + [1] * (len(tokens) - several)
    types = [pa.string(), pa.string(), pa.int8(), pa.int8()]
    schema = pa.schema(list(zip(columns, types, strict=True)))
    table = pa.table(columns, schema=schema)
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / "residues.parquet")
    return folder


def by_entry(table):
    return dict(zip(table["entry"].to_pylist(), table["split"].to_pylist(), strict=True))


@pytest.fixture
def data(tmp_path):
    """30 families of 3 entries; some entries have a second chain of their own family."""
    rng = np.random.default_rng(0)
    chains = []
    for number, tokens in enumerate(families(rng, 30, 3, 0.7)):
        chains.append((f"e{number:03d}", "A", tokens))
        if number % 4 == 0:
            chains.append((f"e{number:03d}", "B", tokens))
    several = list(rng.integers(0, 40, len(chains)))
    return write_residues(tmp_path / "tables", chains, several)


def run(folder, **changes):
    arguments = {
        "fractions": FRACTIONS,
        "sequence_identity": 0.3,
        "method": "builtin",
        "file": None,
        "seed": 1,
    }
    return split.split_entries(folder, folder.parent / "split.parquet", **arguments | changes)


def write_split(path, rows):
    """rows: (entry, chain or None, split)."""
    columns = dict(zip(("entry", "chain", "split"), zip(*rows, strict=True), strict=True))
    if not any(columns["chain"]):
        del columns["chain"]
    write = pq.write_table if path.suffix == ".parquet" else pa.csv.write_csv
    write(pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()}), path)
    return path


def test_related_sequences_share_a_cluster_and_others_do_not():
    rng = np.random.default_rng(1)
    num, members = 60, 4
    sequences = families(rng, num, members, 0.7)
    representative = clusters.cluster_sequences(sequences, 0.3).reshape(num, members)
    together = (representative == representative[:, :1]).all(axis=1)
    assert together.mean() >= 0.93
    assert len(np.unique(representative)) >= num


def test_a_domain_joins_the_protein_that_holds_it():
    rng = np.random.default_rng(2)
    whole = random_sequence(rng, 400)
    domain = relative(rng, whole[150:270], 0.6)
    representative = clusters.cluster_sequences([domain, whole], 0.3)
    assert representative.tolist() == [1, 1]


def test_unrelated_sequences_stay_apart():
    rng = np.random.default_rng(3)
    sequences = [random_sequence(rng, int(n)) for n in rng.integers(15, 400, 300)]
    representative = clusters.cluster_sequences(sequences, 0.3)
    assert len(np.unique(representative)) >= 0.98 * len(sequences)


def test_identity_decides():
    rng = np.random.default_rng(4)
    ancestor = random_sequence(rng, 250)
    near = relative(rng, ancestor, 0.6)
    assert len(set(clusters.cluster_sequences([ancestor, near], 0.3))) == 1
    assert len(set(clusters.cluster_sequences([ancestor, near], 0.9))) == 2


def test_unknown_residues_and_repeats_do_no_harm():
    rng = np.random.default_rng(5)
    unknown = np.full(50, UNKNOWN_TOKEN, dtype=np.int8)
    repeat = np.zeros(60, dtype=np.int8)
    mixed = random_sequence(rng, 80)
    mixed[::2] = UNKNOWN_TOKEN
    representative = clusters.cluster_sequences([unknown, unknown.copy()[:40], repeat, mixed], 0.3)
    assert representative[2] == 2
    assert representative[3] == 3
    assert clusters.cluster_sequences([], 0.3).tolist() == []


def test_no_cluster_spans_two_splits_and_what_is_excluded_says_why(data):
    table = run(data).to_pandas()
    sets = table[table["split"] != EXCLUDED]
    assert (sets.groupby("cluster")["split"].nunique() == 1).all()
    assert ((table["split"] == EXCLUDED) == table["reason"].notna()).all()
    assert set(table["method"]) == {"builtin"}
    assert set(table["allocation"]) == {"fractions"}


def test_each_split_holds_its_share_of_both_counts(data):
    chains = clusters.read_chains(data)
    table = run(data)
    chosen = np.array(table["split"].to_pylist())
    for counts in (chains.length, chains.num_multiconformer):
        for name, fraction in FRACTIONS.items():
            share = counts[chosen == name].sum() / counts.sum()
            assert abs(share - fraction) < 0.04, (name, share)


def test_read_chains_counts(data):
    chains = clusters.read_chains(data)
    table = pq.read_table(data / "residues.parquet").to_pandas()
    grouped = table.groupby(["entry", "chain"])
    assert chains.length.tolist() == grouped.size().tolist()
    several = grouped["num_conformers"].apply(lambda column: (column >= 2).sum())
    assert chains.num_multiconformer.tolist() == several.tolist()
    first = table[(table["entry"] == chains.entry[5]) & (table["chain"] == chains.chain[5])]
    assert chains.tokens(5).tolist() == first["token"].tolist()


def test_same_bytes_twice_and_another_split_with_another_seed(data):
    path = data.parent / "split.parquet"
    first = by_entry(run(data))
    before = path.read_bytes()
    run(data)
    assert path.read_bytes() == before
    assert by_entry(run(data, seed=2)) != first


def test_a_chain_goes_with_its_cluster_not_with_its_entry(tmp_path):
    """e0 has chains of families a and b, e1 of b and c: nothing percolates through entries."""
    rng = np.random.default_rng(6)
    a, b, c, d, e = (random_sequence(rng, 100) for _ in range(5))
    chains = [("e0", "A", a), ("e0", "B", b), ("e1", "A", b), ("e1", "B", c), ("e2", "A", c)]
    chains += [("e3", "A", d), ("e4", "A", e)]
    folder = write_residues(tmp_path / "tables", chains)
    assert run(folder)["cluster"].to_pylist() == [0, 1, 1, 2, 2, 3, 4]
    spread = [
        run(folder, seed=seed).to_pandas().groupby("entry")["split"].nunique().max()
        for seed in range(5)
    ]
    assert max(spread) > 1


def test_short_chains_go_with_the_longest_of_their_entry(tmp_path):
    rng = np.random.default_rng(7)
    peptide = random_sequence(rng, clusters.MIN_LINKING_LENGTH - 1)
    chains = [row for n in range(6) for row in (
        (f"e{n}", "A", random_sequence(rng, 90)), (f"e{n}", "B", peptide))]  # fmt: skip
    table = run(write_residues(tmp_path / "tables", chains)).to_pandas()
    assert table["cluster"].nunique() == 6
    assert (table.groupby("entry")[["cluster", "split"]].nunique() == 1).all(axis=None)


def half_alike(rng, other, identity=0.7):
    """As long as ``other``; its end is related to the first 60 % of ``other``."""
    shared = int(0.6 * len(other))
    own = random_sequence(rng, len(other) - shared)
    return np.r_[own, relative(rng, other[:shared], identity)]


def test_a_training_chain_directly_related_to_a_held_out_one_is_excluded(tmp_path):
    """Alike over 60 % of the shorter: not one cluster (80 %), but a direct hit (50 %)."""
    rng = np.random.default_rng(10)
    held, near, own = (random_sequence(rng, 200) for _ in range(3))
    near = half_alike(rng, held)
    peptide = random_sequence(rng, 10)
    chains = [("h", "A", held), ("n", "A", near), ("n", "P", peptide), ("n", "B", own)]
    chains += [("v", "A", random_sequence(rng, 150)), ("t", "A", random_sequence(rng, 150))]
    folder = write_residues(tmp_path / "tables", chains)
    named = [("h", None, "test"), ("v", None, "validation"), ("n", None, "train")]
    table = run(folder, file=write_split(tmp_path / "mine.csv", named)).to_pandas()
    assert table["cluster"].nunique() == 5  # the peptide goes with the first of the longest
    chosen = dict(zip(table["entry"] + table["chain"], table["split"], strict=True))
    assert chosen == {
        "hA": "test", "nA": EXCLUDED, "nP": chosen["nP"], "nB": "train", "vA": "validation",
        "tA": "train",
    }  # fmt: skip
    longest = "A" if len(near) >= len(own) else "B"
    assert chosen["nP"] == chosen[f"n{longest}"]
    reason = table.set_index(table["entry"] + table["chain"])["reason"]["nA"]
    assert reason == "related to h chain A of the test set"


def test_a_copy_of_a_held_out_chain_is_excluded_however_entries_are_added(tmp_path):
    rng = np.random.default_rng(11)
    held, other, third = (random_sequence(rng, 120) for _ in range(3))
    chains = [("a", "A", held), ("b", "A", other), ("c", "A", third)]
    named = [("a", None, "test"), ("b", None, "validation"), ("c", None, "train")]
    path = write_split(tmp_path / "mine.csv", named)
    before = by_entry(run(write_residues(tmp_path / "tables", chains), file=path))
    chains += [("d", "A", held), ("e", "A", relative(rng, other, 0.6))]
    after = by_entry(run(write_residues(tmp_path / "tables", chains), file=path))
    assert after == before | {"d": EXCLUDED, "e": EXCLUDED}


def test_an_empty_split_is_an_error(tmp_path):
    rng = np.random.default_rng(8)
    ancestor = random_sequence(rng, 100)
    chains = [(f"e{n}", "A", relative(rng, ancestor, 0.8)) for n in range(10)]
    folder = write_residues(tmp_path / "tables", chains)
    with pytest.raises(QfitLatentError, match=r"validation split is empty.*1 cluster"):
        run(folder)
    chains += [("x", "A", random_sequence(rng, 100))]
    with pytest.raises(QfitLatentError, match=r"test split is empty.*2 cluster"):
        run(write_residues(tmp_path / "tables", chains))
    assert not (tmp_path / "split.parquet").exists()


def test_a_share_of_zero_is_an_empty_split(data):
    with pytest.raises(QfitLatentError, match=r"test split is empty"):
        run(data, fractions={"train": 0.9, "validation": 0.1, "test": 0.0})


def test_no_residues_is_an_error(tmp_path):
    folder = write_residues(tmp_path / "tables", [])
    with pytest.raises(QfitLatentError, match="holds no residues"):
        run(folder)


def test_chains_stand_in_the_order_of_the_residues(data):
    residues = pq.read_table(data / "residues.parquet", columns=["entry", "chain"]).to_pylist()
    chains = list(dict.fromkeys((row["entry"], row["chain"]) for row in residues))
    result = run(data)
    assert list(zip(*(result[n].to_pylist() for n in ("entry", "chain")), strict=True)) == chains


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("by_chain", [False, True])
def test_a_split_of_the_users_own(data, suffix, by_chain):
    """Families stay together, so that nothing is excluded; what is not named is learnt from."""
    chains = run(data).to_pandas()
    family = chains["entry"].str[1:].astype(int) // 3
    sets = [*split.SPLITS, EXCLUDED]
    wanted = [sets[number % 4] if number < 24 else "train" for number in family]
    rows = list(zip(chains["entry"], chains["chain"], wanted, strict=True))
    named = [row for row, number in zip(rows, family, strict=True) if number < 24]
    if not by_chain:
        named = list(dict.fromkeys((entry, None, chosen) for entry, _, chosen in named))
    path = write_split(data.parent / f"mine{suffix}", named)
    result = run(data, file=path)
    assert result["split"].to_pylist() == wanted
    assert set(result["allocation"].to_pylist()) == {"file"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,split\ne000,train\n", "no column entry"),
        ("entry,split\ne000,training\n", "puts e000 into 'training'"),
        ("entry,split\ne000,train\ne000,test\n", "puts e000 into train and into test"),
        ("entry,chain,split\ne000,A,train\ne000,A,test\n", "puts e000 chain A into train and"),
        (
            "entry,split\n1abc,train\n",
            "names no entry of the data set: it names, for example, 1abc",
        ),
        ("", "cannot be read"),
    ],
)
def test_mistakes_in_a_split_of_the_users_own(data, text, words):
    path = data.parent / "mine.csv"
    path.write_text(text)
    with pytest.raises(QfitLatentError, match=words):
        run(data, file=path)


def test_a_users_split_without_a_test_set(data):
    path = write_split(data.parent / "mine.csv", [("e000", None, "validation")])
    with pytest.raises(QfitLatentError, match="test split is empty: the split file"):
        run(data, file=path)


FAKE_MMSEQS = """#!{python}
import sys
if {fail}:
    sys.exit("out of patience")
fasta, prefix = sys.argv[2:4]
assert "--min-seq-id" in sys.argv
names = [line[1:].strip() for line in open(fasta) if line.startswith(">")]
if sys.argv[1] == "easy-search":
    with open(sys.argv[4], "w") as out:
        out.write("0\\t0\\t60\\t100\\t100\\n" + "1\\t0\\t40\\t100\\t100\\n")
    sys.exit()
assert sys.argv[1] == "easy-cluster"
with open(prefix + "_cluster.tsv", "w") as out:
    for name in names:
        out.write(str(int(name) // 3 * 3) + "\\t" + name + "\\n")
"""


def put_mmseqs_on_path(folder, monkeypatch, fail=False):
    program = folder / "bin" / "mmseqs"
    program.parent.mkdir()
    program.write_text(FAKE_MMSEQS.format(python=sys.executable, fail=fail))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def test_what_is_installed_does_not_decide(data, tmp_path, monkeypatch):
    before = run(data)
    put_mmseqs_on_path(tmp_path, monkeypatch)
    assert run(data).equals(before)
    table = run(data, method="mmseqs2").to_pandas()
    assert set(table["method"]) == {"mmseqs2"}
    assert table["cluster"].nunique() == 30
    assert (table["split"] == EXCLUDED).any()  # by the search, which finds one hit


def test_mmseqs2_failing_or_absent_is_a_sentence(data, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(QfitLatentError, match="mmseqs is not on the PATH"):
        run(data, method="mmseqs2")
    put_mmseqs_on_path(tmp_path, monkeypatch, fail=True)
    with pytest.raises(QfitLatentError, match="out of patience"):
        run(data, method="mmseqs2")


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 400), min_size=3, max_size=60),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_allocation_holds_for_any_sizes(sizes, seed, data):
    """Every cluster in one split, no split empty, and none far above its share."""
    several = [data.draw(st.integers(0, size)) for size in sizes]
    chains = clusters.Chains(
        entry=np.array([f"e{n}" for n in range(len(sizes))], dtype=object),
        chain=np.array(["A"] * len(sizes), dtype=object),
        entry_index=np.arange(len(sizes)),
        start=np.r_[0, np.cumsum(sizes)],
        token=np.zeros(sum(sizes), dtype=np.int8),
        num_multiconformer=np.array(several),
    )
    chosen = split.allocate(chains, np.arange(len(sizes)), FRACTIONS, seed)
    assert set(chosen) == set(split.SPLITS)
    for name in ("validation", "test"):
        residues = chains.length[chosen == name].sum()
        assert residues <= 0.1 * sum(sizes) + max(sizes)


@pytest.mark.slow
def test_cost_grows_almost_as_the_data():
    """Twice the chains take less than three times as long (quadratic growth takes four)."""
    rng = np.random.default_rng(9)
    seconds = []
    for num in (300, 600, 1200):
        sequences = families(rng, num // 2, 2, 0.75, 80, 200)
        begin = time.process_time()
        clusters.cluster_sequences(sequences, 0.3)
        seconds.append(time.process_time() - begin)
    assert seconds[2] / seconds[1] < 3.0
    assert seconds[2] / seconds[0] < 7.0
