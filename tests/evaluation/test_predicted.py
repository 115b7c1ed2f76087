"""Figures of predicted models are those of the tables, worked out by hand."""

import numpy as np
import pytest

from helpers.judged import write_tables
from qfitlatent.evaluation.predicted import predicted_figures

DEGREES = np.pi / 180


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predicted")
    write_tables(folder)
    return predicted_figures(folder, 200, 0)


def values(figures):
    return {name: figure["value"] for name, figure in figures.items()}


def test_models(found):
    assert (found["num_entries"], found["num_residues"]) == (2, 5)
    assert found["left_out"] == {"c": "The file of c is not there any more."}
    heaviest, joint, deposited = (
        values(found["models"][x]) for x in ("heaviest", "joint", "deposited")
    )
    assert (heaviest["clashes"], joint["clashes"], deposited["clashes"]) == (60.0, 20.0, 10.0)
    # Three residues have every chi observed.
    assert heaviest["all_within_20"] == pytest.approx(1 / 3)
    assert joint["all_within_20"] == pytest.approx(2 / 3)
    assert joint["all_within_40"] == 1.0
    assert found["gain"]["all_within_20"]["value"] == pytest.approx(1 / 3)
    assert found["gain"]["all_within_20"]["num"] == 3
    assert deposited["bonds_angstrom"] == pytest.approx(np.sqrt((0.03**2 + 3 * 0.01**2) / 4))
    assert deposited["angles_degrees"] == pytest.approx(2.0)
    assert "all_within_20" not in deposited


def test_altlocs(found):
    figures = values(found["altlocs"])
    assert figures["altlocs_written"] == 0.5  # two of the four with chi
    assert figures["altlocs_precision"] == 0.5
    assert figures["altlocs_base_rate"] == pytest.approx(1 / 3)  # of one it is not known
    assert figures["altlocs_recall"] == 1.0
    assert figures["altlocs_occupancy_error"] == pytest.approx(0.15)
    assert figures["altlocs_clashes"] == 0.0


def test_bonds_count_where_they_are_deposited(found):
    assert found["models"]["joint"]["disulfides"]["value"] == 0.5
    assert found["models"]["joint"]["disulfides_allowed"]["value"] == 1.0
    assert found["models"]["joint"]["disulfides_allowed"]["num"] == 1
    assert found["models"]["heaviest"]["disulfides"]["value"] == 0.0
    assert found["models"]["joint"]["metal_bonds"]["value"] == 1.0


def test_confidence_by_tenths(found):
    first, second = found["confidence"]
    assert (first["from"], second["from"]) == (0.5, 0.9)
    assert first["predicted"] == pytest.approx(0.55)
    assert (first["observed"]["value"], first["observed"]["num"]) == (1.0, 1)
    assert second["predicted"] == pytest.approx(0.95)


def test_intervals_hold_the_figure(found):
    figure = found["models"]["heaviest"]["clashes"]
    assert figure["low"] <= figure["value"] <= figure["high"]
