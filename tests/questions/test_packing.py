"""Packing scores: perfect models, known errors, parts, and folders that do not fit."""

import gemmi
import numpy as np
import pytest

from helpers.predictions import TINY, make_model, settings_of
from qfitlatent import cli
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.prediction.commands import EXAMPLE
from qfitlatent.questions.packing import JOINT, MEAN, POOLED, Target, packing_table, score_packing


def rows_by(table, region="all"):
    return {
        (row["method"], row["target"]): row
        for row in table.to_pylist()
        if row["residues"] == region
    }


def test_figures_are_those_counted_by_hand():
    nothing = np.nan
    apart = np.deg2rad(
        [
            [10.0, nothing, nothing, nothing],
            [30.0, 10.0, nothing, nothing],
            [15.0, 50.0, nothing, nothing],
            [5.0, 15.0, 20.0, 20.0],
        ]
    )
    one = Target({"x": apart}, np.array([25, 17, 10, 3]), 0, 0)
    two = Target({"x": apart[:1]}, np.array([30]), 0, 0)
    table = packing_table({"a": one, "b": two})
    all_of_it = rows_by(table)
    pooled, mean = all_of_it["x", POOLED], all_of_it["x", MEAN]
    assert (pooled["num_targets"], pooled["num_residues"]) == (2, 5)
    assert pooled["chi1_within_20"] == pytest.approx(4 / 5)
    assert pooled["chi1_within_40"] == pytest.approx(1.0)
    assert pooled["all_within_20"] == pytest.approx(3 / 5)
    assert pooled["all_within_40"] == pytest.approx(4 / 5)
    assert pooled["chi1_error_degrees"] == pytest.approx(14.0)
    assert pooled["chi2_error_degrees"] == pytest.approx(25.0)
    assert mean["all_within_20"] == pytest.approx((2 / 4 + 1) / 2)
    assert mean["chi2_error_degrees"] == pytest.approx(25.0)  # target b has no such chi
    assert rows_by(table, "core")["x", POOLED]["num_residues"] == 2
    assert rows_by(table, "surface")["x", POOLED]["num_residues"] == 2
    other_order = packing_table({"b": two, "a": one})
    assert other_order.equals(table)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """The example beside a copy of itself, turned, and one whose second half is gone."""
    folder = tmp_path_factory.mktemp("packing")
    structure = gemmi.read_structure(str(EXAMPLE))
    turn = gemmi.Mat33([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    structure[0].transform_pos_and_adp(gemmi.Transform(turn, gemmi.Vec3(30, -20, 10)))
    for name in ("copy", "half"):
        (folder / name).mkdir()
        if name == "half":
            for chain in structure[0]:
                del chain[len(chain) // 2 :]
        structure.make_mmcif_document().write_file(str(folder / name / "example_turned.cif"))
    model = make_model(folder, **TINY)
    packings = [
        score_packing(
            [EXAMPLE],
            {name: folder / name for name in names},
            folder / "packing.csv",
            model,
            settings_of(),
        )
        for names in (["copy"], ["copy", "half"])
    ]
    return folder, model, packings


def test_a_native_is_all_right_however_it_lies(scored):
    packing = scored[2][0]
    rows = rows_by(packing.table)
    copy, joint = rows["copy", POOLED], rows[JOINT, POOLED]
    assert copy["all_within_20"] == 1.0
    assert copy["chi1_error_degrees"] < 0.2  # coordinates are rounded to 0.001 angstrom
    assert joint["num_residues"] == copy["num_residues"] > 20
    assert joint["chi1_error_degrees"] > 1.0


def test_residues_that_a_method_lacks_count_for_none(scored):
    first, second = scored[2]
    num = rows_by(first.table)["copy", POOLED]["num_residues"]
    fewer = {row["num_residues"] for row in rows_by(second.table).values()}
    assert len(fewer) == 1
    assert fewer.pop() + second.targets["example"].num_missing == num
    assert second.targets["example"].num_missing > 5


def test_folders_that_do_not_fit_are_refused(scored, tmp_path):
    folder, model, _ = scored
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "native.cif").write_bytes(
        (folder / "copy/example_turned.cif").read_bytes()
    )
    for where, said in (
        (tmp_path / "none", "There is no folder"),
        (tmp_path / "other", "no model"),
    ):
        with pytest.raises(QfitLatentError, match=said):
            score_packing([EXAMPLE], {"x": where}, tmp_path / "p.csv", model, settings_of())
    for name in ("example_1.cif", "example_2.cif"):
        (tmp_path / "other" / name).write_text("data_x\n")
    with pytest.raises(QfitLatentError, match="several models of example"):
        score_packing(
            [EXAMPLE], {"x": tmp_path / "other"}, tmp_path / "p.csv", model, settings_of()
        )
    assert not (tmp_path / "p.csv").exists()


def test_the_command_prints_the_table(scored, tmp_path, capsys):
    folder, model, _ = scored
    out = tmp_path / "packing.csv"
    how = ["--model", str(model), "--predicted", str(folder / "half"), "-o", str(out)]
    assert cli.main(["packing", str(EXAMPLE), *how, "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "| half | all | mean of targets | 1 |" in shown
    assert "a method has no side chain there" in shown
    assert out.exists()
