"""Sets of backbones: what is a member, how it is called, and what it weighs."""

import sys

import gemmi
import numpy as np
import pytest

from helpers.ensembles import several, simulated, write_cif, write_pdb
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.prediction.records import read_input
from qfitlatent.questions.backbones import Backbones
from qfitlatent.tables.keys import fixed_list


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbones")
    models = several(simulated(folder / "made"), 4)
    write_cif(models, folder / "models.cif")
    write_pdb(models, folder / "models.pdb")
    del models[1:]
    write_pdb(models, folder / "one.pdb")
    (folder / "weights.csv").write_text("model,weight\n1,3\n2,1\n3,0\n4,4\n")
    return folder


def places(path):
    """CA of each residue of a file's first model."""
    return fixed_list(read_input(path).tables["frames"]["translation_angstrom"], (3,))


@pytest.mark.parametrize("name", ["models.cif", "models.pdb"])
def test_every_model_of_a_file_is_a_member(folder, name):
    backbones = Backbones(folder / name)
    assert backbones.names == ["1", "2", "3", "4"]
    assert backbones.name == "models"
    whole = gemmi.read_structure(str(folder / name))
    for number, member in enumerate(backbones):
        assert member.weight == 0.25
        expected = [
            site.atom.pos.tolist() for site in whole[number].all() if site.atom.name == "CA"
        ]
        assert places(member.path) == pytest.approx(np.array(expected), abs=2e-3)


def test_a_file_of_one_model_is_given_as_it_is(folder):
    (member,) = Backbones(folder / "one.pdb")
    assert member.path == folder / "one.pdb"
    assert member.name == "one"


def test_of_several_files_the_members_are_named_after_them(folder):
    backbones = Backbones([folder / "one.pdb", folder / "models.cif"])
    assert backbones.names == ["one", "models#1", "models#2", "models#3", "models#4"]
    assert [member.name for member in backbones] == backbones.names


@pytest.mark.parametrize(
    ("frames", "names"),
    [("1:", "234"), ("::2", "13"), ("-1:", "4"), ("2", "3"), (slice(0, 2), "12"), (None, "1234")],
)
def test_a_selection_counts_from_0_as_python_does(folder, frames, names):
    backbones = Backbones(folder / "models.cif", frames=frames)
    assert backbones.names == list(names)
    assert [member.name for member in backbones] == list(names)


def test_weights_are_shares_of_those_that_are_chosen(folder):
    every = Backbones(folder / "models.pdb", weights=folder / "weights.csv")
    assert [member.weight for member in every] == [3 / 8, 1 / 8, 0, 1 / 2]
    some = Backbones(folder / "models.pdb", weights={"1": 3, "2": 1, "3": 0, "4": 4}, frames=":2")
    assert [member.weight for member in some] == [0.75, 0.25]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"frames": "7:"}, "leaves none of the 4 models"),
        ({"frames": "a:b"}, "must be start:stop:step"),
        ({"frames": "::0"}, "must be start:stop:step"),
        ({"weights": {"1": 1.0}}, "no weight of '2'"),
        ({"weights": {"1": 1, "2": 1, "3": 1, "4": 1, "9": 1}}, "'9', which is no model"),
        ({"weights": {"1": -1, "2": 1, "3": 1, "4": 1}}, "no number from 0 on"),
        ({"weights": {"1": 0, "2": 0, "3": 0, "4": 0}}, "only zeros"),
        ({"weights": "nowhere.csv"}, "cannot be read as CSV"),
        ({"trajectory": "nowhere.xtc"}, "There is no file nowhere.xtc"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(folder, given, sentence):
    with pytest.raises(QfitLatentError, match=sentence) as error:
        Backbones(folder / "models.cif", **given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,weight\n1,1\n", "needs the columns model and weight"),
        ("model,weight\n1,many\n", "'many', which is no number"),
        ("model,weight\n1,1\n1,2\n", "two weights of '1'"),
    ],
)
def test_a_table_of_weights_that_is_none_is_refused(folder, tmp_path, text, sentence):
    (tmp_path / "weights.csv").write_text(text)
    with pytest.raises(QfitLatentError, match=sentence):
        Backbones(folder / "models.cif", weights=tmp_path / "weights.csv")


def trajectory_of(folder, name="run.xtc"):
    """The models of a file as the frames of a trajectory."""
    mda = pytest.importorskip("MDAnalysis")
    universe = mda.Universe(str(folder / "models.pdb"))
    with mda.Writer(str(folder / name), universe.atoms.n_atoms) as writer:
        for _ in universe.trajectory:
            writer.write(universe.atoms)
    return folder / name


@pytest.mark.filterwarnings("ignore")
def test_frames_of_a_trajectory_are_members(folder):
    trajectory = trajectory_of(folder)
    backbones = Backbones(folder / "one.pdb", trajectory=trajectory, frames="1:")
    assert backbones.names == ["1", "2", "3"]
    of_models = [places(member.path) for member in Backbones(folder / "models.pdb", frames="1:")]
    for member, expected in zip(backbones, of_models, strict=True):
        assert places(member.path) == pytest.approx(expected, abs=0.02)  # xtc keeps 0.01 angstrom
        residues = read_input(member.path).tables["residues"]
        assert residues["name"].to_pylist() == (
            read_input(folder / "one.pdb").tables["residues"]["name"].to_pylist()
        )
    with pytest.raises(QfitLatentError, match="one topology"):
        Backbones(folder, trajectory=trajectory)
    with pytest.raises(QfitLatentError, match="MDAnalysis cannot read"):
        Backbones(folder / "one.pdb", trajectory=folder / "weights.csv")


def test_without_mdanalysis_it_is_said_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "MDAnalysis", None)
    with pytest.raises(QfitLatentError, match=r"pip install 'qfitlatent\[trajectories\]'"):
        Backbones(folder / "one.pdb", trajectory=folder / "models.pdb")
