"""What residues are evidence for, and what they weigh."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from helpers.trainings import write_tables
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.model.dataset import COLUMNS, Dataset
from qfitlatent.model.labels import LabelWeights

PLAIN = LabelWeights(high_b_weight=1.0, unknown_altlocs_weight=1.0, cluster_weight_power=0.0)


@pytest.fixture
def data(tmp_path):
    write_tables(tmp_path / "tables")
    return tmp_path


def weights(**changes) -> LabelWeights:
    return LabelWeights(**(vars(PLAIN) | changes))


def load(folder, wanted=PLAIN, unknown=None) -> Dataset:
    return Dataset.load(folder / "tables", folder / "split.parquet", ("train",), 0, unknown, wanted)


def listed(folder, *entries):
    path = folder / "unknown.csv"
    path.write_text("entry\n" + "".join(f"{entry}\n" for entry in entries))
    return path


def of(dataset, name) -> torch.Tensor:
    return torch.cat([getattr(protein, name) for protein in dataset])


def shown(dataset) -> torch.Tensor:
    return torch.cat([torch.bincount(p.row_residue, minlength=len(p)) > 0 for p in dataset])


def test_by_default_every_residue_weighs_exactly_one(data):
    assert (of(load(data), "weight") == 1).all()


def test_weights_are_one_in_the_mean_over_the_residues_that_show_a_chi(data):
    unknown = listed(data, "e01")
    wanted = weights(high_b_weight=0.2, unknown_altlocs_weight=0.5, cluster_weight_power=0.5)
    dataset = load(data, wanted, unknown)
    assert float(of(dataset, "weight")[shown(dataset)].mean()) == pytest.approx(1.0, abs=1e-6)


def test_high_b_factors_weigh_less_and_unknown_ones_as_the_lower_half(data):
    path = data / "tables" / "residues.parquet"
    table = pq.read_table(path)
    values = table["b_rank"].to_pylist()
    values[5] = None
    at = table.column_names.index("b_rank")
    pq.write_table(table.set_column(at, "b_rank", pa.array(values, pa.float32())), path)
    dataset = load(data, weights(high_b_weight=0.2))
    b, weight = of(dataset, "b_rank"), of(dataset, "weight")
    assert torch.nonzero(b.isnan()).flatten().tolist() == [5]
    top = weight.max()
    assert (weight[(b <= 0.5) | b.isnan()] == top).all()
    torch.testing.assert_close(weight[b == 1] / top, torch.full_like(weight[b == 1], 0.2))
    torch.testing.assert_close(weight / top, 1 - 0.8 * (2 * b - 1).clamp(min=0).nan_to_num())


def test_chains_of_large_clusters_weigh_less(data):
    # Training entries e00 to e04 in clusters of 2, 2 and 1.
    proteins = list(load(data, weights(cluster_weight_power=1.0)))
    alone = float(proteins[4].weight[0])
    for protein, num in zip(proteins, (2, 2, 2, 2, 1), strict=True):
        torch.testing.assert_close(protein.weight, torch.full((len(protein),), alone / num))


def test_stripped_entries_are_no_evidence_that_a_residue_is_single(data):
    unknown = listed(data, "e01", "e03", "elsewhere")
    wanted = weights(unknown_altlocs_weight=0.25)
    for number, protein in enumerate(load(data, wanted, unknown)):
        known = number not in (1, 3)
        seen = torch.bincount(protein.row_residue, minlength=len(protein)) > 0
        assert torch.equal(protein.heterogeneous.isfinite(), seen & known)
    ratio = of(load(data, wanted, unknown), "weight").unique()
    assert float(ratio[0] / ratio[1]) == pytest.approx(0.25)


def test_heterogeneous_is_a_chi_that_differs_by_more_than_40_degrees(tmp_path):
    """Symmetry-aware: a phenylalanine turned by 170 degrees differs by 10."""
    write_tables(tmp_path / "tables", num_entries=4)
    tables = {
        name: pq.read_table(tmp_path / "tables" / f"{name}.parquet", columns=columns)
        for name, columns in COLUMNS.items()
    }
    phe, ser = 13, 15
    cases = [(ser, (0, 39), 0), (ser, (0, 41), 1), (ser, (-170, 175), 0), (ser, (60,), 0),
             (phe, ((60, 0), (60, 170)), 0), (phe, ((60, 0), (60, 90)), 1)]  # fmt: skip
    num = len(cases)
    residues = tables["residues"].slice(0, num)
    at = residues.column_names.index("token")
    residues = residues.set_column(at, "token", pa.array([c[0] for c in cases], pa.int8()))
    rows = [(i, chi) for i, (_, altlocs, _) in enumerate(cases) for chi in altlocs]
    chi = np.full((len(rows), 4), np.nan)
    for row, (_, angles) in enumerate(rows):
        angles = np.atleast_1d(np.radians(angles))
        chi[row, : len(angles)] = angles
    conformers = pa.table(
        {
            "entry": [residues["entry"][0].as_py()] * len(rows),
            "chain": ["A"] * len(rows),
            "index": pa.array([i for i, _ in rows], pa.int32()),
            "occupancy_normalised": [1 / len(cases[i][1]) for i, _ in rows],
            **{f"chi{d + 1}_rad": pa.array(chi[:, d], from_pandas=True) for d in range(4)},
            **{f"chi{d + 1}_observed": ~np.isnan(chi[:, d]) for d in range(4)},
        }
    )
    frames = tables["frames"].slice(0, num)
    (protein,) = Dataset({"residues": residues, "frames": frames, "conformers": conformers})
    assert protein.heterogeneous.tolist() == [truth for *_, truth in cases]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("entry\nnone_of_them\n", "names no entry of the data set"),
        ("name\ne01\n", "has no column entry"),
        ("", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_list_that_says_nothing_is_one_sentence(data, content, words):
    path = data / "unknown.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(QfitLatentError, match=words):
        load(data, unknown=path)
