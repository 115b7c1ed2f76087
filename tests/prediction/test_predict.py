"""Predict, score, sample and embed as a user calls them, with an untrained model."""

import copy
import gzip
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from helpers.predictions import make_model, output_paths, settings_of
from helpers.simulated import simulator
from helpers.workflow_run import TINY, Checkout
from qfitlatent import cli
from qfitlatent.base import config
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.geometry import wrap
from qfitlatent.chemistry.residues import CHI_DEFINED, NUM_CHI
from qfitlatent.density.mixture import Modes
from qfitlatent.model.batch import collate
from qfitlatent.model.checkpoint import load_model, save_model
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.model.network import QFitLatent
from qfitlatent.model.settings import ModelConfig
from qfitlatent.prediction import outputs
from qfitlatent.prediction.columns import MIXTURE, SCORES
from qfitlatent.prediction.outputs import PREDICTION
from qfitlatent.prediction.predict import predict_structures
from qfitlatent.prediction.records import read_input
from qfitlatent.prediction.runner import batches_by_length
from qfitlatent.prediction.sample import embed_structures, sample_structures
from qfitlatent.prediction.score import missing_modes, score_structures
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import entry_ids
from qfitlatent.structure.preprocess import read_entry
from qfitlatent.tables.columns import CHI, CHI_COLUMNS, IDS
from qfitlatent.tables.reasons import Reason


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def structures(tmp_path_factory):
    """Six simulated entries of 30 to 60 residues."""
    settings = simulator(num_entries=6, min_residues=30, max_residues=60)
    return write_entries(entry_ids(settings), tmp_path_factory.mktemp("structures"), settings, 3)


@pytest.fixture(scope="module")
def predicted(structures, model_path, tmp_path_factory):
    out = tmp_path_factory.mktemp("predicted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "RESIDUES_AT_A_TIME", 10)  # the mixture in several pieces
        results = predict_structures(structures[:1], out, model_path)
    return results[0], out


def write_pdb(structure, path):
    path.write_text(structure.make_pdb_string())
    return path


def read_structure(path):
    structure = gemmi.read_structure(str(path))
    structure.setup_entities()
    return structure


def mixtures(path, model_path, out):
    """Weights (N,K) and the table of the mixture of one structure."""
    (result,) = predict_structures([path], out, model_path)
    return pq.read_table(out / f"{result.entry}.mixture.parquet").to_pandas()


def densities_differ_by(a, b):
    """Largest difference between two tables of mixtures, angles on the circle."""
    worst = (a["weight"] - b["weight"]).abs().max()
    for d in CHI:
        delta = wrap((a[f"mean{d}_rad"] - b[f"mean{d}_rad"]).to_numpy())
        worst = max(worst, np.nanmax(np.abs(delta)))
        worst = max(worst, (a[f"kappa{d}"] / b[f"kappa{d}"] - 1).abs().max())
    return worst


# --- predict ----------------------------------------------------------------------------------


def test_no_figure_depends_on_the_name_of_the_file(structures, model_path, tmp_path):
    """What a copy of a file gets differs in names alone: tables, models, page and scores."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("original", "likeness"):
        shutil.copy(structures[0], folder / f"{name}.cif.gz")
    chi_by_chi = make_model(tmp_path, "autoregressive")
    predict_structures([folder], tmp_path, chi_by_chi)
    sample_structures([folder], tmp_path, chi_by_chi, num=2)
    embed_structures([folder], tmp_path, chi_by_chi)
    for name in ("original", "likeness"):
        score_structures(
            [folder / f"{name}.cif.gz"], tmp_path / f"{name}.scores.parquet", model_path
        )
    files = sorted(path.name for path in tmp_path.glob("original*"))
    assert len(files) == len(PREDICTION) + 3 + 3 + 1 + 4
    for name in files:
        ours, theirs = tmp_path / name, tmp_path / name.replace("original", "likeness", 1)
        if name.endswith(".parquet"):
            tables = [pq.read_table(path) for path in (ours, theirs)]
            one, two = (t.drop_columns("entry") if "entry" in t.column_names else t for t in tables)
            assert one.equals(two)
        elif name.endswith(".pdb"):
            assert without_names(ours) == without_names(theirs)
        elif not name.endswith(".npz"):
            assert ours.read_bytes().replace(b"original", b"likeness") == theirs.read_bytes()


def without_names(path):
    """Lines of a PDB file but those that name it and its template, in capitals or broken."""
    named = ("HEADER", "TITLE", "REMARK   1")
    return [line for line in path.read_text().splitlines() if not line.startswith(named)]


def test_the_tables_hold_what_the_model_says(structures, model_path, predicted):
    result, out = predicted
    assert not result.error
    table = pq.read_table(out / f"{result.entry}.mixture.parquet")
    assert table.schema.with_metadata(MIXTURE.metadata).equals(MIXTURE, check_metadata=True)
    frame = table.to_pandas()

    given = read_input(structures[0])
    protein = protein_from_tables(given.tables)
    density = load_model(model_path).model.predict(protein)
    has_chi = NUM_CHI[protein.token.numpy()] > 0
    weight = frame["weight"].to_numpy().reshape(has_chi.sum(), -1)
    np.testing.assert_allclose(weight, density.log_weight.exp().numpy()[has_chi], atol=1e-6)
    np.testing.assert_allclose(weight.sum(1), 1.0, atol=1e-5)
    mask = CHI_DEFINED[protein.token.numpy()[has_chi]].repeat(weight.shape[1], axis=0)
    means = frame[[f"mean{d}_rad" for d in CHI]].to_numpy()
    assert (np.isnan(means) == ~mask).all()
    expected = density.mean.numpy()[has_chi].reshape(-1, 4)
    np.testing.assert_allclose(means[mask], expected[mask], atol=1e-5)

    residues = given.tables["residues"].to_pandas()
    ids = [column.name for column in IDS if column.name != "entry"]
    merged = frame[ids].drop_duplicates().merge(residues[ids], on=ids)
    assert len(merged) == has_chi.sum()

    csv = pd.read_csv(out / f"{result.entry}.mixture.csv", keep_default_na=False, na_values=[""])
    assert list(csv.columns) == list(frame.columns)
    np.testing.assert_allclose(csv["weight"], frame["weight"], atol=1e-6)


def test_the_ensemble_is_the_joint_model_of_the_tables(structures, model_path, tmp_path):
    settings = settings_of(min_weight=0.2, ambiguous_above=0.3)
    predict_structures(structures[:1], tmp_path, model_path, settings)
    density = load_model(model_path).model.predict(
        protein_from_tables(read_input(structures[0]).tables)
    )
    modes = density.modes(0.2, math.radians(30))
    entry = read_input(structures[0]).entry
    summary = pd.read_csv(tmp_path / f"{entry}.residues.csv", keep_default_na=False)
    shown = summary[summary["num_modes"] != ""]
    has_chi = density.chi_mask.any(1).numpy()
    counts = modes.valid.sum(1).numpy()[has_chi]
    assert shown["num_modes"].astype(int).tolist() == counts.tolist()
    heterogeneity = 1 - modes.weight[:, 0].numpy()[has_chi]
    np.testing.assert_allclose(shown["heterogeneity"].astype(float), heterogeneity, atol=1e-5)

    for name in ("conformational_entropy", "rotamer_entropy"):
        assert np.isfinite(shown[name].astype(float)).all()
    observed = pd.read_csv(tmp_path / f"{entry}.observables.csv", keep_default_na=False)
    of_chi1 = observed[observed["quantity"] == "population"].groupby(["chain", "index"])
    assert len(of_chi1) == np.count_nonzero(shown["name"] != "PRO")
    np.testing.assert_allclose(of_chi1["value"].sum(), 1.0, atol=1e-5)

    again = read_entry(tmp_path / f"{entry}_ensemble.cif", "x")
    built = shown[shown["is_built"] == True]  # noqa: E712
    assert built["confidence"].astype(float).between(0.0, 1.0).all()
    many = built[built["num_conformers"].astype(int) > 1]
    assert (many["heterogeneity"].astype(float) >= 0.3).all()
    assert len(many) > 5
    seen = again.residues.to_pandas().merge(many[["chain", "index"]], on=["chain", "index"])
    assert seen["num_conformers"].tolist() == many["num_conformers"].astype(int).tolist()
    # Every altloc is in the table of groups, with the population that its residues add up to.
    groups = pd.read_csv(tmp_path / f"{entry}.groups.csv")
    assert sorted(groups["group"].unique()) == sorted(many["group"].astype(int).unique())
    np.testing.assert_allclose(groups.groupby("group")["population"].sum(), 1.0, atol=1e-6)
    assert (groups["population"] >= 0.2 - 1e-6).all()
    sizes = many.groupby(many["group"].astype(int)).size()
    assert groups.groupby("group")["num_residues"].first().tolist() == sizes.tolist()
    # Chi of altloc A, or of the only one.
    rows = again.conformers.to_pandas().merge(built, on=["chain", "index"])
    first = rows[rows["altloc"].isin(["", "A"])]
    assert len(first) == len(built)
    apart = np.abs(first["chi1_rad_x"] - first["chi1_rad_y"].astype(float))
    assert np.minimum(apart, 2 * np.pi - apart).max() < 0.02


def test_rotating_moving_and_renaming_change_nothing(structures, model_path, tmp_path):
    structure = read_structure(structures[0])
    before = mixtures(write_pdb(structure, tmp_path / "a.pdb"), model_path, tmp_path / "a")
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    for residue in structure[0].all():
        residue.atom.pos = gemmi.Position(
            *(rotation @ residue.atom.pos.tolist() + np.array([400.0, -300.0, 200.0]))
        )
    for chain in structure[0]:
        chain.name = {"A": "Q", "B": "R"}.get(chain.name, chain.name)
    after = mixtures(write_pdb(structure, tmp_path / "b.pdb"), model_path, tmp_path / "b")
    assert len(after) == len(before)
    # Coordinates of a PDB file are rounded to 0.001 angstrom, differently before and after.
    assert densities_differ_by(before, after) < 0.02


def test_side_chains_of_the_input_change_nothing(structures, model_path, tmp_path):
    structure = read_structure(structures[1])
    before = mixtures(write_pdb(structure, tmp_path / "a.pdb"), model_path, tmp_path / "a")
    lines = structure.make_pdb_string().splitlines(keepends=True)
    keep = ("N", "CA", "C", "O")
    bare = [x for x in lines if x[:4] not in ("ATOM", "HETA") or x[12:16].strip() in keep]
    (tmp_path / "b.pdb").write_text("".join(bare))
    after = mixtures(tmp_path / "b.pdb", model_path, tmp_path / "b")
    assert densities_differ_by(before, after) < 1e-4


def test_two_calls_write_the_same_bytes_whatever_the_workers(structures, model_path, tmp_path):
    alone = predict_structures(structures, tmp_path / "alone", model_path, settings_of(workers=0))
    pooled = predict_structures(structures, tmp_path / "pooled", model_path, settings_of(workers=1))
    assert [r.entry for r in alone] == [r.entry for r in pooled]
    again = predict_structures(structures, tmp_path / "again", model_path, settings_of(workers=0))
    assert all(not r.error for r in [*alone, *pooled, *again])
    files = sorted(p.name for p in (tmp_path / "alone").iterdir())
    assert len(files) == len(structures) * len(PREDICTION)
    for name in files:
        first = (tmp_path / "alone" / name).read_bytes()
        assert first == (tmp_path / "again" / name).read_bytes(), name
        assert first == (tmp_path / "pooled" / name).read_bytes(), name


def test_a_structure_alone_and_in_a_batch_agree(structures, model_path, tmp_path):
    predict_structures(structures, tmp_path / "all", model_path)
    for path in structures[:2]:
        alone = mixtures(path, model_path, tmp_path / "one")
        entry = alone["entry"].iloc[0]
        batch = pq.read_table(tmp_path / "all" / f"{entry}.mixture.parquet").to_pandas()
        assert densities_differ_by(alone, batch) < 1e-3


def test_batches_hold_similar_lengths_within_the_budget():
    class Fake:
        def __init__(self, size):
            self.size = size

        def __len__(self):
            return self.size

    sizes = [100, 95, 90, 400, 390, 30, 28, 2000, 50]
    batches = batches_by_length([(None, Fake(size)) for size in sizes], 800)
    lengths = [[len(p) for _, p in batch] for batch in batches]
    assert sorted(x for batch in lengths for x in batch) == sorted(sizes)
    for batch in lengths:
        assert min(batch) >= 0.75 * max(batch)
        assert len(batch) == 1 or max(batch) * len(batch) <= 800
    assert [400, 390] in lengths


def test_a_folder_goes_on_where_it_stopped(structures, model_path, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for path in structures[:3]:
        shutil.copy(path, folder)
    (folder / "broken.pdb").write_text("this is no structure\n")
    (folder / "notes.txt").write_text("not looked at")
    goes_on = {"overwrite": True, "resume": True}
    results = predict_structures([folder], out, model_path, **goes_on)
    assert [bool(r.error) for r in results] == [True, False, False, False]
    failures = pd.read_csv(out / "failures.csv")
    assert failures["entry"].tolist() == ["broken"]
    assert failures["reason"].isin([reason.value for reason in Reason]).all()
    assert "broken.pdb" in failures["error"][0]

    done = [p for p in out.iterdir() if p.name.endswith(".prediction.json")]
    assert len(done) == 3
    done[0].unlink()  # as if it had been stopped before this one was complete
    times = {p: p.stat().st_mtime_ns for p in out.iterdir() if p.name != "failures.csv"}
    again = predict_structures([folder], out, model_path, **goes_on)
    assert [r.num_residues for r in again] == [r.num_residues for r in results]
    results = again
    assert sum(r.notes == ("done before",) for r in results) == 2
    assert done[0].exists()
    entry = done[0].name.removesuffix(".prediction.json")
    for path, before in times.items():
        assert (path.stat().st_mtime_ns != before) == path.name.startswith(entry)

    (folder / "broken.pdb").unlink()
    other = settings_of(min_weight=0.3)  # other settings: all again
    predict_structures([folder], out, model_path, other, **goes_on)
    assert not (out / "failures.csv").exists()
    assert all(json.loads(p.read_text())["min_weight"] == 0.3 for p in done)


def test_an_autoregressive_model_predicts_too(structures, tmp_path):
    path = make_model(tmp_path, "autoregressive")
    (result,) = predict_structures(structures[:1], tmp_path / "out", path)
    assert not result.error
    frame = pq.read_table(tmp_path / "out" / f"{result.entry}.mixture.parquet").to_pandas()
    sums = frame.groupby(["chain", "index"])["weight"].sum()
    np.testing.assert_allclose(sums, 1.0, atol=1e-4)
    score_structures(structures[:1], tmp_path / "s.parquet", path)
    assert np.isfinite(pq.read_table(tmp_path / "s.parquet")["nll"].to_numpy()).all()
    sample_structures(structures[:1], tmp_path / "out", path, num=2)


# --- Inputs that are not as they should be ----------------------------------------------------


def test_bad_backbones_are_reported_and_spoil_nothing(structures, model_path, tmp_path):
    """A residue without C, one on a line, one without coordinates: finite numbers elsewhere."""
    lines = read_structure(structures[2]).make_pdb_string().splitlines(keepends=True)
    places = list(dict.fromkeys(x[17:27] for x in lines if x[:4] == "ATOM"))
    no_c, flat = places[5], places[12]
    out = []
    for x in lines:
        if x[17:27] == no_c and x[12:16].strip() == "C":
            continue
        if x[17:27] == flat and x[12:16].strip() in ("N", "CA", "C"):
            shift = {"N": 0.0, "CA": 1.5, "C": 3.0}[x[12:16].strip()]
            x = f"{x[:30]}{10 + shift:8.3f}{10:8.3f}{10:8.3f}{x[54:]}"
        out.append(x)
    (tmp_path / "bad.pdb").write_text("".join(out))
    (result,) = predict_structures([tmp_path / "bad.pdb"], tmp_path / "out", model_path)
    assert not result.error
    summary = pd.read_csv(tmp_path / "out" / "bad.residues.csv", keep_default_na=False)
    for place in (no_c, flat):
        row = summary[summary["author_number"].astype(str) == place[5:9].strip()].iloc[0]
        assert row["entropy"] == ""
        assert "frame" in row["note"]
    for suffix in PREDICTION:
        path = tmp_path / "out" / f"bad{suffix}"
        if path.suffix in (".csv", ".cif", ".pdb", ".html", ".json"):
            shown = path.read_text().split("<script>")[0]  # of the page, what is not its program
            assert not re.search(r"\bnan\b", shown, re.IGNORECASE)
    table = pq.read_table(tmp_path / "out" / "bad.mixture.parquet")
    assert np.isfinite(table["weight"].to_numpy()).all()
    assert len(table) > 0
    status = json.loads((tmp_path / "out" / "bad.prediction.json").read_text())
    assert len(status["left_as_they_were"]) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.pdb", ""),
        ("words.cif", "not a structure at all\n"),
        ("garbage.cif", "data_x\nloop_\n_atom_site.id\n_atom_site.type_symbol\n1\n"),
        ("water.pdb", "HETATM    1  O   HOH A   1       1.000   1.000   1.000  1.00 20.00  O\n"),
        (
            "ca_only.pdb",
            "".join(
                f"ATOM  {i:>5}  CA  ALA A{i:>4}    {3.8 * i:8.3f}   0.000   0.000  1.00 20.00  C\n"
                for i in range(1, 30)
            ),
        ),
    ],
)
def test_a_bad_file_is_one_sentence_and_nothing_is_written(
    name, content, model_path, tmp_path, capsys
):
    path = tmp_path / name
    path.write_text(content)
    out = tmp_path / "out"
    for command in (
        ["predict", str(path), "-o", str(out)],
        ["score", str(path), "-o", str(out / "s.parquet")],
        ["sample", str(path), "-o", str(out)],
        ["embed", str(path), "-o", str(out)],
    ):
        assert cli.main([*command, "--model", str(model_path)]) == 2, command
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.count("\n") == 1
        assert name in shown.err
        assert not out.exists()


def test_paths_models_options_and_existing_results(structures, model_path, tmp_path, capsys):
    out = tmp_path / "out"
    good = ["predict", str(structures[0]), "-o", str(out), "--model", str(model_path)]

    def refused(arguments, words):
        assert cli.main(arguments) == 2
        shown = capsys.readouterr()
        assert shown.err.count("\n") == 1
        assert words in shown.err

    refused(["predict", str(tmp_path / "none.pdb"), "-o", str(out), *good[4:]], "no file")
    (tmp_path / "bad.safetensors").write_bytes(b"not a model")
    refused([*good[:4], "--model", str(tmp_path / "bad.safetensors")], "model")
    refused([*good[:4], "--model", str(tmp_path / "absent")], "no model")
    refused([*good, "--min-weight", "0"], "at least 0.01")
    (tmp_path / "empty").mkdir()
    refused(["predict", str(tmp_path / "empty"), *good[2:]], "no structure")
    (tmp_path / "file").write_text("")
    refused([*good[:2], "-o", str(tmp_path / "file"), *good[4:]], "is a file")
    assert not out.exists()

    assert cli.main(good) == 0
    before = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    capsys.readouterr()
    refused(good, "--overwrite")
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == before
    assert cli.main([*good, "--overwrite"]) == 0


def test_one_bad_file_among_several_is_named_and_the_others_are_done(
    structures, model_path, tmp_path, capsys
):
    bad, out = tmp_path / "bad.pdb", tmp_path / "out"
    bad.write_text("nothing\n")
    files = [str(structures[0]), str(bad), str(structures[1]), "--model", str(model_path)]
    for command in ("predict", "score", "sample", "embed"):
        where = out / "scores.parquet" if command == "score" else out
        assert cli.main([command, *files, "-o", str(where)]) == 2
        shown = capsys.readouterr()
        lines = shown.out.splitlines()
        assert len(lines) == 3 + (command == "score")  # the model, two structures; where to look
        assert re.search(r"^qfitlatent: .*bad\.pdb", shown.err, re.MULTILINE)
        (listed,) = re.findall(r"1 of 3 structures could not be used: see (.*)", shown.err)
        assert pd.read_csv(listed)["entry"].tolist() == ["bad"]
    for kind in ("prediction", "samples", "embedding"):
        assert len(list(out.glob(f"*.{kind}.json"))) == 2


def test_a_model_that_gives_no_numbers_is_refused(structures, model_path, tmp_path):
    loaded = load_model(model_path)
    broken = copy.deepcopy(loaded.model)
    with torch.no_grad():
        broken.head.kappa.bias.fill_(math.nan)
    settings = loaded.config
    save_model(broken, settings, tmp_path / "nan.safetensors")
    out = tmp_path / "out"
    for use in (
        lambda: predict_structures(structures[:1], out, tmp_path / "nan.safetensors"),
        lambda: score_structures(structures[:1], out / "s.parquet", tmp_path / "nan.safetensors"),
        lambda: sample_structures(structures[:1], out, tmp_path / "nan.safetensors", num=2),
    ):
        with pytest.raises(QfitLatentError, match="not a number"):
            use()
    assert not list(out.glob("*"))


@pytest.mark.slow
def test_five_thousand_residues(model_path, tmp_path):
    settings = simulator(num_entries=1, min_residues=500, max_residues=500, max_chains=1)
    (path,) = write_entries(entry_ids(settings), tmp_path / "in", settings, 1)
    one = read_structure(path)
    large = one.clone()
    del large[0][:]
    for i in range(10):
        for chain in one[0]:
            copied = chain.clone()
            copied.name = f"{chain.name}{i}"
            for residue in copied:
                residue.subchain = f"{residue.subchain}{i}"
                for atom in residue:
                    atom.pos = gemmi.Position(atom.pos.x + 300 * i, atom.pos.y, atom.pos.z)
            large[0].add_chain(copied)
    large.make_mmcif_document().write_file(str(tmp_path / "large.cif"))
    # An untrained model would have altlocs nearly everywhere.
    settings = settings_of(ambiguous_above=1.0)
    (result,) = predict_structures([tmp_path / "large.cif"], tmp_path / "out", model_path, settings)
    assert result.num_residues > 4900
    weight = pq.read_table(tmp_path / "out" / "large.mixture.parquet")["weight"].to_numpy()
    assert np.isfinite(weight).all()
    assert (tmp_path / "out" / "large_ensemble.pdb").exists()
    assert (tmp_path / "out" / "large.html").stat().st_size < 3e6


# --- score ------------------------------------------------------------------------------------


def test_scores_are_the_densities_of_the_observed_conformers(structures, model_path, tmp_path):
    out = tmp_path / "scores.parquet"
    how = settings_of(surprising_above=0.8, look_above=0.5)
    results = score_structures(structures[:3], out, model_path, how)
    assert not any(r.error for r in results)
    table = pq.read_table(out)
    assert table.schema.with_metadata(SCORES.metadata).equals(SCORES, check_metadata=True)
    frame = table.to_pandas()
    assert frame["entry"].nunique() == 3
    given = read_input(structures[1])
    protein = protein_from_tables(given.tables)
    density = load_model(model_path).model.predict(protein)
    args = (protein.chi, protein.defined, protein.row_residue)
    own = frame[frame["entry"] == given.entry]
    np.testing.assert_allclose(own["nll"], -density.log_prob(*args), atol=1e-3)
    np.testing.assert_allclose(own["nll_folded"], -density.log_prob(*args, folded=True), atol=1e-3)
    assert own["hdr_level"].between(0, 1).all()
    assert (own["is_surprising"] == (own["hdr_level"] > 0.8)).all()
    conformers = given.tables["conformers"].to_pandas()
    merged = own.merge(conformers, on=["chain", "index", "altloc"], suffixes=("", "_read"))
    assert len(merged) == len(own) == len(conformers)
    np.testing.assert_allclose(merged["occupancy"], merged["occupancy_read"])
    for name in CHI_COLUMNS:
        np.testing.assert_allclose(merged[name], merged[f"{name}_read"], atol=1e-6)
    again = tmp_path / "again.parquet"
    score_structures(structures[2::-1], again, model_path, how)
    assert again.read_bytes() == out.read_bytes()

    looks = pd.read_csv(tmp_path / "scores.look.csv")
    assert len(looks) == frame["is_worth_a_look"].sum() == sum(r.num_looks for r in results) > 0
    assert (frame["is_worth_a_look"] == (frame["look"] >= 0.5)).all()
    assert looks["look_nats"].is_monotonic_decreasing
    assert len((tmp_path / "scores.look.txt").read_text().splitlines()) == 1 + len(looks)
    (worst,) = (r for r in results if r.entry == looks["entry"][0])
    assert worst.notes[-1].startswith("worst ")
    assert worst.notes[-1].endswith(f": {looks['reason'][0]}")
    assert not (tmp_path / "scores.look.coot.py").exists()  # of one structure alone

    with pytest.raises(QfitLatentError, match="overwrite"):
        score_structures(structures[:1], out, model_path, how)
    score_structures(structures[:1], out, model_path, how, overwrite=True)
    opened, listed = [], []
    names = {
        "handle_read_draw_molecule_with_recentre": lambda path, *_: opened.append(path),
        "interesting_things_gui": lambda title, rows: listed.extend(rows),
    }
    exec((tmp_path / "scores.look.coot.py").read_text(), names)
    assert (tmp_path / opened[0]).resolve() == structures[0].resolve()
    (one,) = {r.num_looks for r in results if r.path == structures[0]}
    assert len(listed) == one


def test_missing_modes_are_those_that_no_altloc_is_near():
    modes = Modes(
        weight=torch.tensor([[0.6, 0.3, 0.1], [0.9, 0.1, 0.0]]),
        chi=torch.tensor([[[3.1], [1.0], [-1.0]], [[1.4], [0.0], [0.0]]]),
        valid=torch.tensor([[True, True, False], [True, False, False]]),
    )
    chi = torch.tensor([[-3.1], [-1.4]])  # across the seam; and chi2 + pi of a symmetric angle
    defined = torch.ones(2, 1, dtype=torch.bool)
    symmetric = torch.tensor([[False], [True]])
    weight, where = missing_modes(modes, chi, defined, torch.tensor([0, 1]), symmetric)
    np.testing.assert_allclose(weight, [0.3, 0.0], atol=1e-6)
    np.testing.assert_allclose(where, [[1.0], [0.0]])
    weight, _ = missing_modes(modes, chi, ~defined, torch.tensor([0, 1]), symmetric)
    np.testing.assert_allclose(weight, [0.0, 0.0])  # nothing is known of a missing chi


# --- sample and embed -------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["cif", "pdb"])
def test_samples_are_seeded_and_their_models_have_these_chi(
    structures, model_path, tmp_path, file_format
):
    def draw(out, seed):
        settings, how = settings_of(seed=seed), {"num": 5, "file_format": file_format}
        (result,) = sample_structures(structures[:1], tmp_path / out, model_path, settings, **how)
        names = (".samples.parquet", f"_samples.{file_format}")
        return [tmp_path / out / f"{result.entry}{name}" for name in names]

    files, again, other = draw("a", 4), draw("b", 4), draw("c", 5)
    assert [p.read_bytes() for p in files] == [p.read_bytes() for p in again]
    assert files[0].read_bytes() != other[0].read_bytes()
    frame = pq.read_table(files[0]).to_pandas()
    assert frame["sample"].nunique() == 5
    models = gemmi.read_structure(str(files[1]))
    assert len(models) == 5
    for number in range(5):
        structure = gemmi.read_structure(str(files[1]))
        for i in reversed(range(5)):
            if i != number:
                del structure[i]
        path = tmp_path / f"model{number}.pdb"
        path.write_text(structure.make_pdb_string())
        read = read_entry(path, "x")
        keys = read.residues.select(["chain", "index", "author_number", "insertion_code", "name"])
        observed = read.conformers.to_pandas().merge(keys.to_pandas(), on=["chain", "index"])
        drawn = frame[frame["sample"] == number]
        both = observed.merge(
            drawn, on=["author_number", "insertion_code", "name"], suffixes=("", "_drawn")
        )
        both = both[(both["author_chain"] == both["author_chain"]) & (both["name"] != "PRO")]
        assert len(both) > 20
        delta = np.abs(wrap((both["chi1_rad"] - both["chi1_rad_drawn"]).to_numpy()))
        if observed.groupby(["author_number", "insertion_code"]).size().max() == 1:
            assert delta.max() < 5e-3


def test_embeddings_are_the_single_representation(structures, model_path, tmp_path):
    (result,) = embed_structures(structures[:1], tmp_path, model_path)
    files = [tmp_path / f"{result.entry}.embedding{ending}" for ending in (".parquet", ".npz")]
    protein = protein_from_tables(read_input(structures[0]).tables)
    loaded = load_model(model_path)
    with torch.inference_mode():
        s = loaded.model.encode(collate([protein])).numpy()
    table = pq.read_table(files[0])
    flat = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    np.testing.assert_allclose(flat, s, atol=1e-5)
    with np.load(files[1]) as arrays:
        np.testing.assert_array_equal(arrays["embedding"], flat)
        assert arrays["name"].tolist() == table["name"].to_pylist()
        assert arrays["author_number"].tolist() == table["author_number"].to_pylist()


def test_one_path_may_be_a_text(structures, model_path, tmp_path):
    (result,) = predict_structures(str(structures[0]), tmp_path, model_path)
    assert not result.error
    with pytest.raises(QfitLatentError, match=r"There is no file absent\.pdb"):
        predict_structures("absent.pdb", tmp_path, model_path)


# --- Folders of qFit --------------------------------------------------------------------------


def test_models_of_qfit_are_predicted_and_scored_under_the_names_of_their_folders(
    structures, model_path, tmp_path, capsys
):
    """As a folder with a pattern, and as what a shell makes of the same pattern."""
    for name, path in zip(("1abc", "2abc"), structures, strict=False):
        (tmp_path / "qfit" / name).mkdir(parents=True)
        shutil.copy(path, tmp_path / "qfit" / name / "multiconformer_model2.cif.gz")
    (tmp_path / "qfit" / "2abc" / "multiconformer_A_301.pdb").write_text("a ligand\n")
    model, out = ["--model", str(model_path)], tmp_path / "out"
    folder, pattern = str(tmp_path / "qfit"), "*/multiconformer_model2.cif.gz"
    assert cli.main(["predict", folder, "-o", str(out), *model]) == 2
    assert f"the pattern '{pattern}' would find 2 of the 3" in capsys.readouterr().err
    assert cli.main(["predict", folder, "--pattern", pattern, "-o", str(out), *model]) == 0
    files = sorted(map(str, Path(folder).glob(pattern)))
    scores = out / "scores.parquet"
    assert cli.main(["score", *files, "-o", str(scores), *model]) == 0
    assert all(p.exists() for name in ("1abc", "2abc") for p in output_paths(out, name))
    assert set(pd.read_parquet(scores)["entry"]) == {"1abc", "2abc"}
    num = int(pd.read_parquet(scores)["is_worth_a_look"].sum())
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == f"{num} side chains worth a look: see {out / 'scores.look.txt'}"


def test_equal_names_in_different_folders_are_told_apart(structures, model_path, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(structures[0], tmp_path / name / "model.cif.gz")
    (tmp_path / "b" / "model.pdb").write_text("bad\n")
    files = [tmp_path / "a" / "model.cif.gz", tmp_path / "b" / "model.cif.gz"]
    results = predict_structures(files, tmp_path / "out", model_path)
    assert [result.entry for result in results] == ["a_model", "b_model"]
    assert not any(result.error for result in results)
    results = predict_structures(
        [*files, tmp_path / "b" / "model.pdb"], tmp_path / "more", model_path
    )
    assert [result.reason for result in results] == ["", "same_name", "same_name"]


# --- The workflow -----------------------------------------------------------------------------


def test_the_target_predict_goes_over_a_folder(structures, model_path, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for path in structures[:2]:
        shutil.copy(path, folder)
    (folder / "broken.pdb").write_text("this is no structure\n")
    settings = {"predict": {"structures": str(folder), "model": str(model_path), "workers": 1}}
    checkout = Checkout(tmp_path / "one", TINY | settings)
    assert checkout.plan("predict") == {"predict_structures": 1}
    checkout.run("predict")
    out = checkout.folder / "results/runs/tiny/predictions"
    summary = pd.read_csv(out / "summary.csv")
    assert summary["entry"].tolist() == ["sim00000", "sim00001"]
    assert (summary["num_residues"] > 0).all()
    assert pd.read_csv(out / "failures.csv")["entry"].tolist() == ["broken"]
    assert all(p.exists() for x in ("sim00000", "sim00001") for p in output_paths(out, x))
    assert checkout.plan("predict") == {}


def test_the_workflow_predicts_with_the_shipped_model_unless_told_otherwise(tmp_path):
    """A model of the simulated default run says nothing about real proteins."""
    checkout = Checkout(tmp_path / "one", TINY | {"predict": {"structures": "workflow"}})
    for model in (None, "shipped", "qfitlatent-chi-2.1"):
        checkout.change_config("predict", model=model)
        assert checkout.plan("predict") == {"predict_structures": 1}
    checkout.change_config("predict", model="run")
    printed = checkout.refused("-n", "predict")
    assert "the run tiny learns from simulated proteins" in printed
    assert "name it: predict.model: results/runs/tiny" in printed
    checkout.change_config("predict", model="results/runs/tiny")
    assert checkout.plan("predict")["train_model"] == 1


# --- Start-up ---------------------------------------------------------------------------------


def test_a_packed_pdb_file_is_predicted_from_the_shell(simulated_files, tmp_path):
    """With a model of the default size."""
    settings = config.load([])
    torch.manual_seed(0)
    save_model(
        QFitLatent(ModelConfig.from_dict(settings["model"])), settings, tmp_path / "m.safetensors"
    )
    path = tmp_path / "mine.pdb.gz"
    path.write_bytes(gzip.compress(simulated_files[1].read_bytes()))
    command = [sys.executable, "-m", "qfitlatent", "predict", str(path), "-o", str(tmp_path / "o")]
    subprocess.run([*command, "--model", str(tmp_path / "m.safetensors")], check=True)
    assert all(p.exists() for p in output_paths(Path(tmp_path / "o"), path.name.split(".")[0]))
