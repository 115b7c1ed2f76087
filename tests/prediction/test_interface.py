"""Predictions as objects: the same as the files, from a path, from text and from gemmi."""

import gemmi
import numpy as np
import pytest
import torch

import qfitlatent
from helpers.predictions import TINY, make_model, output_paths, settings_of
from helpers.simulated import simulator
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.prediction.predict import predict_structures
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import entry_ids


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return qfitlatent.load_model(make_model(tmp_path_factory.mktemp("model"), **TINY))


@pytest.fixture(scope="module")
def structure(tmp_path_factory):
    settings = simulator(num_entries=1, min_residues=20, max_residues=20, max_chains=1)
    return write_entries(entry_ids(settings), tmp_path_factory.mktemp("made"), settings, 3)[0]


def positions(model):
    return np.array([atom.atom.pos.tolist() for atom in model[0].all()])


def test_what_is_written_is_what_the_command_writes(structure, model, tmp_path):
    prediction = qfitlatent.predict(structure, model, min_weight=0.2)
    written = prediction.write(tmp_path / "one")
    predict_structures([structure], tmp_path / "two", model, settings_of(min_weight=0.2))
    expected = output_paths(tmp_path / "two", prediction.entry)
    assert [p.name for p in written] == [p.name for p in expected if p.exists()]
    for one, two in zip(written, expected, strict=False):
        assert one.read_bytes() == two.read_bytes(), one.name
    with pytest.raises(QfitLatentError, match="exists already"):
        prediction.write(tmp_path / "one")
    assert prediction.write(tmp_path / "one", overwrite=True) == written


def test_path_text_and_gemmi_give_the_same(structure, model):
    of_path = qfitlatent.predict(str(structure), model)
    read = gemmi.read_structure(str(structure))
    text = read.make_mmcif_document().as_string()
    for given in (text, read, read.make_pdb_string()):
        other = qfitlatent.predict(given, model)
        assert other.ensemble[0].count_atom_sites() == of_path.ensemble[0].count_atom_sites()
        assert np.abs(positions(other.ensemble) - positions(of_path.ensemble)).max() < 0.02
    assert read[0].count_atom_sites() == gemmi.read_structure(str(structure))[0].count_atom_sites()


def test_density_and_conformers_are_of_the_rows_of_the_table(structure, model):
    prediction = qfitlatent.predict(structure, model)
    num, draws = len(prediction.row), prediction.density.sample(4, torch.Generator().manual_seed(1))
    assert draws.shape == (4, num, 4)
    assert prediction.chi.shape[:2] == prediction.weight.shape
    assert prediction.residues.num_rows >= num
    written = prediction.residues["num_conformers"].to_pylist()
    for row, weight in zip(prediction.built.tolist(), prediction.weight, strict=True):
        assert written[row] is None or written[row] == np.count_nonzero(weight)


def test_what_cannot_be_used_is_one_sentence(structure, model):
    with pytest.raises(QfitLatentError, match="There is no file"):
        qfitlatent.predict("nowhere.pdb", model)
    with pytest.raises(QfitLatentError, match="no model, and so no atoms"):
        qfitlatent.predict(gemmi.Structure(), model)
    with pytest.raises(QfitLatentError, match="residue_s"):
        qfitlatent.predict(structure, model, residue_s="A:1")
    with pytest.raises(QfitLatentError, match="cannot be used"):
        qfitlatent.predict("no\nstructure\n", model)
