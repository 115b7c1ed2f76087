"""Ensembles of backbones: one model is what predict says of it, several are their mean."""

import csv
import json

import gemmi
import numpy as np
import pytest

import qfitlatent
from helpers.ensembles import in_order, several, simulated, write_cif, write_pdb
from helpers.predictions import TINY, make_model
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.cli import main
from qfitlatent.questions.ensemble import AVERAGES, ENSEMBLE, POPULATIONS
from qfitlatent.tables.parquet import read_table


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return qfitlatent.load_model(make_model(tmp_path_factory.mktemp("model"), **TINY))


@pytest.fixture(scope="module")
def nmr(tmp_path_factory):
    """Four models of one protein."""
    folder = tmp_path_factory.mktemp("nmr")
    return write_pdb(several(simulated(folder / "made"), 4, 0.3), folder / "nmr.pdb")


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def populations(folder, name="nmr"):
    return np.array([float(x["population"]) for x in rows(folder / f"{name}.populations.csv")])


def test_one_model_is_what_predict_writes(nmr, model, tmp_path):
    structure = gemmi.read_structure(str(nmr))
    del structure[1:]
    for write, name in ((write_cif, "one.cif"), (write_pdb, "two.pdb")):
        path = write(structure, tmp_path / name)
        entry = path.stem
        qfitlatent.predict_ensemble(path, tmp_path / "ensemble", model)
        qfitlatent.predict_files([path], tmp_path / "predict", model)
        for one, two in (
            (".mixture.parquet", ".mixture.parquet"),
            (".mixture.csv", ".mixture.csv"),
            ("_models.cif", "_ensemble.cif"),
            ("_models.pdb", "_ensemble.pdb"),
        ):
            written = (tmp_path / "ensemble" / f"{entry}{one}").read_bytes()
            assert written == (tmp_path / "predict" / f"{entry}{two}").read_bytes(), one


def test_several_models_are_their_mean(nmr, model, tmp_path):
    made = qfitlatent.predict_ensemble(nmr, tmp_path / "all", model)
    assert [path.name for path in made.paths] == [f"nmr{suffix}" for suffix in ENSEMBLE]
    assert made.num_models == 4
    table = rows(tmp_path / "all/nmr.populations.csv")
    assert list(table[0]) == POPULATIONS.names
    sums: dict[str, float] = {}
    for row in table:
        sums[row["index"]] = sums.get(row["index"], 0.0) + float(row["population"])
    assert list(sums.values()) == pytest.approx([1.0] * len(sums), abs=1e-5)
    mixture = read_table(tmp_path / "all/nmr.mixture.parquet").to_pandas()
    assert mixture.groupby("index")["weight"].sum().to_numpy() == pytest.approx(1.0, abs=1e-4)
    averages = rows(tmp_path / "all/nmr.averages.csv")
    assert list(averages[0]) == AVERAGES.names
    for row in averages:
        if row["rotamer"]:
            parts = [float(row[f"well_entropy_{part}"]) for part in ("within", "between")]
            assert sum(parts) == pytest.approx(float(row["well_entropy"]), abs=1e-5)
            assert min(parts) >= 0

    each = []
    for i in range(4):
        qfitlatent.predict_ensemble(nmr, tmp_path / str(i), model, frames=str(i))
        each.append(populations(tmp_path / str(i)))
    assert populations(tmp_path / "all") == pytest.approx(np.mean(each, axis=0), abs=1e-6)
    weights = {"1": 3.0, "2": 0.0, "3": 0.0, "4": 1.0}
    qfitlatent.predict_ensemble(nmr, tmp_path / "weighted", model, weights=weights)
    expected = 0.75 * each[0] + 0.25 * each[3]
    assert populations(tmp_path / "weighted") == pytest.approx(expected, abs=1e-6)

    order = [2, 0, 3, 1]
    other = tmp_path / "other"
    other.mkdir()
    write_pdb(in_order(gemmi.read_structure(str(nmr)), order), other / "nmr.pdb")
    moved = {str(number): weights[str(i + 1)] for number, i in enumerate(order, start=1)}
    qfitlatent.predict_ensemble(other / "nmr.pdb", other, model, weights=moved)
    assert populations(other) == pytest.approx(expected, abs=1e-6)


def test_the_files_of_models_hold_each_one_s_own_side_chains(nmr, model, tmp_path):
    qfitlatent.predict_ensemble(nmr, tmp_path / "all", model, num_written=2)
    record = json.loads((tmp_path / "all/nmr.ensemble.json").read_text())
    assert [row["model"] for row in record["models"] if row["is_written"]] == ["1", "4"]
    qfitlatent.predict_ensemble(nmr, tmp_path / "last", model, frames="3")
    expected = gemmi.read_structure(str(tmp_path / "last/nmr_models.cif"))
    for suffix in ("cif", "pdb"):
        structure = gemmi.read_structure(str(tmp_path / f"all/nmr_models.{suffix}"))
        assert len(structure) == 2
        places, wanted = (
            [(x.atom.name, x.atom.altloc, *np.round(x.atom.pos.tolist(), 3)) for x in one.all()]
            for one in (structure[1], expected[0])
        )
        assert places == wanted


@pytest.mark.filterwarnings("ignore")
def test_frames_of_a_trajectory_are_averaged_as_models_are(nmr, model, tmp_path):
    mda = pytest.importorskip("MDAnalysis")
    universe = mda.Universe(str(nmr))
    with mda.Writer(str(tmp_path / "run.dcd"), universe.atoms.n_atoms) as writer:
        for _ in universe.trajectory:
            writer.write(universe.atoms)
    made = qfitlatent.predict_ensemble(
        nmr, tmp_path / "frames", model, trajectory=tmp_path / "run.dcd", frames="1:3"
    )
    assert made.num_models == 2
    qfitlatent.predict_ensemble(nmr, tmp_path / "models", model, frames="1:3")
    away = populations(tmp_path / "frames") - populations(tmp_path / "models")
    assert np.abs(away).max() < 0.02


def test_what_cannot_be_averaged_is_one_sentence(nmr, model, tmp_path, capsys):
    structure, cut = (gemmi.read_structure(str(nmr)) for _ in range(2))
    del structure[1][0][5]
    write_pdb(structure, tmp_path / "uneven.pdb")
    with pytest.raises(QfitLatentError, match="Model 2 has other residues"):
        qfitlatent.predict_ensemble(tmp_path / "uneven.pdb", tmp_path / "out", model)
    assert not (tmp_path / "out").exists()
    for residue in list(cut[2][0])[6:]:
        for atom in residue:
            atom.pos.x += 60.0
    write_pdb(cut, tmp_path / "cut.pdb")
    with pytest.raises(QfitLatentError, match="Model 3 has a chain torn apart"):
        qfitlatent.predict_ensemble(tmp_path / "cut.pdb", tmp_path / "out", model)
    bare = gemmi.read_structure(str(nmr))
    for residue in bare[1][0]:
        for atom in [atom for atom in residue if atom.name == "CA"]:
            residue.remove_atom(atom.name, atom.altloc, atom.element)
    write_pdb(bare, tmp_path / "bare.pdb")
    named = f"^model 2 of {tmp_path / 'bare.pdb'} cannot be used: no protein residue has all of"
    with pytest.raises(QfitLatentError, match=named):
        qfitlatent.predict_ensemble(tmp_path / "bare.pdb", tmp_path / "out", model)
    with pytest.raises(QfitLatentError, match=named):
        qfitlatent.compare_structures(nmr, tmp_path / "bare.pdb", model)
    made = str(make_model(tmp_path, **TINY))
    command = ["ensemble", str(nmr), "--model", made, "-o", str(tmp_path / "out"), "--frames", ":2"]
    for extra, sentence in (
        (["--written", "0"], "--written is 0"),
        (["--frames", "9:"], "leaves none of the 4 models"),
        (["--weights", "nowhere.csv"], "cannot be read as CSV"),
    ):
        assert main([*command, *extra]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert sentence in line
    assert main(command) == 0
    assert "predicted on 2 models" in capsys.readouterr().out
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
