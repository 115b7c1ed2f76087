"""What the model and the evaluation read of the tables: framed residues, and what was observed."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from helpers.trainings import write_tables
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.model.dataset import COLUMNS, Dataset


@pytest.fixture
def tables(tmp_path):
    write_tables(tmp_path / "tables", num_entries=4)
    return {
        name: pq.read_table(tmp_path / "tables" / f"{name}.parquet", columns=columns)
        for name, columns in COLUMNS.items()
    }


def with_column(table: pa.Table, name: str, values) -> pa.Table:
    at = table.column_names.index(name)
    return table.set_column(at, name, pa.array(values, table.schema.field(name).type))


def test_a_protein_is_its_rows_of_the_tables(tables):
    dataset = Dataset(tables)
    for protein in dataset:
        residues = tables["residues"].take(protein.residue_row.numpy())
        assert set(residues["entry"].to_pylist()) == {protein.entry}
        assert residues["token"].to_pylist() == protein.token.tolist()
        rows = tables["conformers"].take(protein.conformer_row.numpy())
        of_row = residues["index"].to_numpy()[protein.row_residue]
        assert rows["index"].to_pylist() == of_row.tolist()
        chi = torch.where(protein.defined, protein.chi, torch.nan)[:, 0]
        np.testing.assert_array_equal(chi, rows["chi1_rad"].to_numpy())


def test_chains_of_other_sets_are_context(tables):
    """Their backbones are seen, their chi never."""
    index = tables["residues"]["index"].to_numpy()
    chains = {
        name: np.where(table["index"].to_numpy() < 12, "A", "B")
        for name, table in tables.items()
        if name != "frames"
    }
    two = dict(tables)
    for name, chain in chains.items():
        two[name] = with_column(tables[name], "chain", chain)
    entry = tables["residues"]["entry"][0].as_py()
    dataset = Dataset(two, pa.table({"entry": [entry], "chain": ["B"]}))
    (protein,) = dataset
    assert len(protein) == pc.sum(pc.equal(tables["residues"]["entry"], entry)).as_py()
    assert index[protein.residue_row[protein.row_residue]].min() >= 12
    observed, residue_row, conformer_row = dataset.observed()
    assert set(residue_row.tolist()) == set(
        protein.residue_row[protein.row_residue.unique()].tolist()
    )
    assert torch.equal(conformer_row, protein.conformer_row)
    torch.testing.assert_close(
        observed.sum_rows(observed.occupancy), torch.ones(len(observed)), rtol=1e-6, atol=1e-6
    )


def test_a_chi_that_was_not_observed_is_not_there(tables):
    """A conformer that shows none is left out, and the others' occupancies sum to 1 without it."""
    conformers = tables["conformers"]
    keys = keys_of(conformers)
    second = np.array([keys[i] == keys[i - 1] if i else False for i in range(len(keys))])
    observed = {f"chi{d}_observed": np.array(conformers[f"chi{d}_observed"]) for d in range(1, 5)}
    observed["chi1_observed"] = observed["chi1_observed"] & second
    for name, values in observed.items():
        conformers = with_column(conformers, name, values)
    plain, fewer = Dataset(tables), Dataset(tables | {"conformers": conformers})
    for all_seen, some_seen in zip(plain, fewer, strict=True):
        assert torch.equal(all_seen.token, some_seen.token)
        kept = torch.from_numpy(second)[some_seen.conformer_row]
        assert torch.equal(some_seen.defined[:, 0], some_seen.defined[:, 0] & kept)
        assert some_seen.defined.any(1).all()
        total = torch.zeros(len(some_seen)).index_add_(
            0, some_seen.row_residue, some_seen.occupancy
        )
        shown = total > 0
        torch.testing.assert_close(total[shown], torch.ones(int(shown.sum())))


def keys_of(table: pa.Table) -> list[tuple[str, int]]:
    return list(zip(table["entry"].to_pylist(), table["index"].to_pylist(), strict=True))


def test_residues_without_a_frame_are_counted(tables):
    rotation = tables["frames"]["rotation"].to_pylist()
    shown = set(keys_of(tables["conformers"].filter(tables["conformers"]["chi1_observed"])))
    keys = keys_of(tables["residues"])
    lost = [i for i, key in enumerate(keys) if key in shown][::5]
    for i in lost:
        rotation[i] = None
    frames = with_column(tables["frames"], "rotation", rotation)
    dataset = Dataset(tables | {"frames": frames})
    assert dataset.num_without_frame == len(lost)
    assert sum(map(len, dataset)) == len(keys) - len(lost)


def test_fewer_entries_are_among_more(tmp_path):
    split = write_tables(tmp_path / "tables")
    everything, few, fewer = (
        Dataset.load(tmp_path / "tables", split, ("train",), num).entries for num in (0, 3, 2)
    )
    assert set(fewer) < set(few) < set(everything)
    assert (len(fewer), len(few)) == (2, 3)


def test_tables_of_different_runs_are_refused(tables):
    other = with_column(
        tables["conformers"], "index", tables["conformers"]["index"].to_numpy() + 99
    )
    with pytest.raises(QfitLatentError, match="different runs"):
        Dataset(tables | {"conformers": other})
    with pytest.raises(QfitLatentError, match="different runs"):
        Dataset(tables | {"frames": tables["frames"].slice(1)})
