"""Predicted models beside deposited ones: what is judged, and by what."""

from dataclasses import replace

import gemmi
import numpy as np
import pandas as pd
import pytest

from helpers.evaluated import make_data_set
from helpers.predictions import TINY, make_model
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import TOKEN
from qfitlatent.joint.states import States
from qfitlatent.model.checkpoint import load_model
from qfitlatent.model.dataset import first_by_hash
from qfitlatent.model.learnt import Learnt
from qfitlatent.prediction.judge import judge_models
from qfitlatent.prediction.judged import Known, _of_altlocs
from qfitlatent.tables.parquet import read_table, write_table


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Three entries of a split: one has lost its file, one was learnt, one has a D residue."""
    folder = tmp_path_factory.mktemp("judged")
    _, split_path, _ = make_data_set(folder, num_entries=12)
    of_test = read_table(split_path).to_pandas().query("split == 'test'")
    entries = first_by_hash(sorted(set(of_test["entry"])), 3)
    lost, learnt, whole = entries
    log = read_table(folder / "log.parquet")
    frame = log.to_pandas()
    frame = frame.set_index("entry", drop=False)
    structure = gemmi.read_structure(frame.loc[whole, "path"])
    structure[0][0][3].name = "DAL"
    structure.make_mmcif_document().write_file(str(folder / "changed.cif"))
    frame.loc[[lost, whole], "path"] = [str(folder / x) for x in ("gone.cif", "changed.cif")]
    changed = type(log).from_pandas(frame, log.schema, preserve_index=False)
    write_table(changed, folder / "changed.parquet", log.schema)
    chains = of_test.query("entry == @learnt")["chain"].tolist()
    model = load_model(make_model(folder, **TINY))
    known = Learnt(frozenset({(learnt, chain) for chain in chains}), frozenset())
    out = folder / "out"
    judge_models(
        *(folder / "changed.parquet", split_path, "test", 3, out),
        replace(model, learnt=known),
    )
    tables = {x: pd.read_parquet(out / f"{x}.parquet") for x in ("entries", "residues", "bonds")}
    return tables, lost, learnt, whole, out


def test_an_entry_is_judged_or_has_a_reason(judged):
    tables, lost, learnt, whole, out = judged
    rows = tables["entries"].set_index("entry")
    assert set(rows.index) == {lost, learnt, whole}
    assert rows["reason"].dropna().to_dict() == {lost: "no_file", learnt: "learnt_from"}
    assert "download or preprocess" in rows["detail"][lost]
    assert set(tables["residues"]["entry"]) == {whole}
    assert "DAL" in set(tables["residues"]["name"])
    assert rows["num_residues"][whole] == len(tables["residues"])
    assert {path.name for path in out.iterdir()} == {
        *("entries.parquet", "residues.parquet", "bonds.parquet", "README.md")
    }


def test_figures_of_an_entry_are_those_of_its_residues(judged):
    tables, _, _, whole, _ = judged
    row = tables["entries"].set_index("entry").loc[whole]
    residues = tables["residues"]
    for model in ("heaviest", "joint", "deposited"):
        assert row[f"{model}_clashes"] == pytest.approx(100 * residues[f"{model}_clashes"].mean())
    error = residues["joint_chi_error_rad"].dropna()
    assert len(error) > 10
    assert (error >= residues["joint_chi1_error_rad"].dropna()).all()
    assert row["joint_all_within_40"] == pytest.approx((error <= np.deg2rad(40)).mean())
    # Simulated side chains are ideal, and so are those that are built.
    assert residues["joint_bonds_angstrom"].max() == pytest.approx(0, abs=1e-6)
    assert 0 < residues["deposited_bonds_angstrom"].max() < 0.003  # three decimals in the file
    assert residues["confidence"].dropna().between(0, 1).all()
    assert (residues["num_conformers"] >= 1).all()


def test_a_larger_number_of_entries_holds_the_smaller():
    entries = [f"e{i}" for i in range(20)]
    few, many = first_by_hash(entries, 3), first_by_hash(entries[::-1], 8)
    assert set(few) < set(many)
    assert first_by_hash(entries, None) == sorted(entries)


def test_a_split_without_files_is_said(judged, tmp_path):
    out = judged[-1]
    log = read_table(out.parent / "log.parquet")
    write_table(log.slice(0, 0), tmp_path / "log.parquet", log.schema)
    with pytest.raises(QfitLatentError, match="No entry of the split 'test'"):
        judge_models(tmp_path / "log.parquet", out.parent / "split.parquet", "test", None, out)


def altlocs_of(kept=True):
    """A leucine deposited as 0.5, 0.1 (the same rotamer) and 0.4, written as 0.7, 0.2 and 0.1."""
    chi = np.zeros((3, 4))
    chi[:, 0] = np.deg2rad((-60.0, -70.0, 180.0))
    written = np.zeros((1, 4, 4))
    written[0, :, 0] = np.deg2rad((-65.0, 170.0, 60.0, 0.0))
    occupancy = np.array([[70, 20, 10, 0]])
    everything = np.ones(1, dtype=bool)
    known = Known(
        everything, ~everything, np.zeros(3, dtype=int), chi, np.array([0.5, 0.1, 0.4]), kept
    )
    return _of_altlocs(np.array([TOKEN["LEU"]]), States(written, occupancy, ()), known)


def test_occupancies_are_compared_rotamer_by_rotamer():
    found = altlocs_of()
    assert found["is_heterogeneous"].tolist() == [True]
    # 0.6 and 0.4 were deposited, 0.7 and 0.2 written; the third is near neither.
    assert found["occupancy_error"].tolist() == pytest.approx([(0.1 + 0.2) / 2])


def test_where_altlocs_were_not_kept_nothing_is_known():
    found = altlocs_of(kept=False)
    assert found["is_heterogeneous"].tolist() == [None]
    assert np.isnan(found["occupancy_error"]).all()
