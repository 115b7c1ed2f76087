"""What stood around side chains is listed, and what did not count has its reason."""

import itertools

import gemmi
import numpy as np
import pytest

from helpers.predictions import placement_of
from qfitlatent.base import config
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.prediction.commands import EXAMPLE
from qfitlatent.prediction.scene import Kind, scene_of
from qfitlatent.prediction.score import score_structures
from qfitlatent.prediction.seen import in_words, seen_in
from qfitlatent.prediction.settings import PredictionSettings
from qfitlatent.prediction.surroundings import (
    CRYSTAL,
    CRYSTAL_ANGSTROM,
    SAME_ANGSTROM,
    USUAL,
    WORDS,
    images,
    protein_of,
    words_of,
)
from qfitlatent.structure.preprocess import read_entry
from qfitlatent.tables.parquet import read_table

ALL = frozenset(WORDS)


@pytest.fixture
def example():
    return gemmi.read_structure(str(EXAMPLE))


def written(structure, path):
    structure.make_mmcif_document().write_file(str(path))
    return path


def seen(path, words):
    """The scene, and the rows of what was seen by what they are about."""
    placement = placement_of(
        read_entry(path, "x"),
        lambda token: (np.ones((len(token), 1)), np.zeros((len(token), 1, 4))),
    )
    structure = gemmi.read_structure(str(path))
    structure.setup_entities()
    scene = scene_of(structure, placement)
    _, standing = protein_of(scene, placement, structure, words)
    table = seen_in("x", structure, scene, standing.row, standing.is_image, words)
    return scene, {(row["what"], row["name"]): row for row in table.to_pylist()}, table


def with_cell(structure, name="P 21 21 21", length=60.0):
    structure.cell = gemmi.UnitCell(length, length, length, 90, 90, 90)
    structure.spacegroup_hm = name
    return structure


def test_every_atom_that_is_not_the_proteins_own_is_counted_once(example, tmp_path):
    scene, rows, _ = seen(written(with_cell(example), tmp_path / "x.cif"), ALL)
    listed = sum(row["num_atoms"] for (what, _), row in rows.items() if what != "crystal neighbour")
    assert listed == np.count_nonzero(~np.isin(scene.kind, [Kind.GOES, Kind.BACKBONE]))
    assert all(row["num_used"] <= row["num_atoms"] for row in rows.values())
    assert rows["water", ""]["num_used"] == rows["water", ""]["num_atoms"] > 0
    assert rows["crystal neighbour", ""]["num_used"] > 0


@pytest.mark.parametrize("words", [frozenset(), USUAL])
def test_what_was_not_asked_for_says_so(example, tmp_path, words):
    _, rows, table = seen(written(with_cell(example), tmp_path / "x.cif"), words)
    for what, word in (("water", "waters"), ("crystal neighbour", CRYSTAL)):
        assert rows[what, ""]["num_used"] == 0
        assert rows[what, ""]["note"] == f"not asked for: --surroundings {word}"
        assert f"{what}: not asked for" in in_words(table)


@pytest.mark.parametrize(
    ("name", "length", "why"),
    [
        ("P 1", 1.0, "no unit cell"),
        ("P 99 1", 60.0, "'P 99 1' is not known"),
        ("", 60.0, "no space"),
    ],
)
def test_a_crystal_that_is_not_known_is_said(example, tmp_path, name, length, why):
    _, rows, _ = seen(written(with_cell(example, name, length), tmp_path / "x.cif"), ALL)
    row = rows["crystal neighbour", ""]
    assert row["num_used"] == 0
    assert why in row["note"]


def test_turning_and_renaming_change_nothing(example, tmp_path):
    words = ALL - {CRYSTAL}  # a cell does not turn with what is in it
    _, before, _ = seen(written(example, tmp_path / "x.cif"), words)
    turn = gemmi.Transform(gemmi.Mat33([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), gemmi.Vec3(3, 4, 5))
    example[0].transform_pos_and_adp(turn)
    for chain in example[0]:
        chain.name = f"Z{chain.name}"
    _, after, _ = seen(written(example, tmp_path / "y.cif"), words)
    assert before == after


def test_images_are_those_that_all_operations_and_shifts_give(example, tmp_path):
    # Prior bug: positions in the first cell were taken for those near a centre outside it.
    example[0].transform_pos_and_adp(gemmi.Transform(gemmi.Mat33(), gemmi.Vec3(100, -70, 30)))
    structure = with_cell(example, length=45.0)
    scene, _, _ = seen(written(structure, tmp_path / "x.cif"), ALL)
    centre = scene.position[scene.name == "CA"]
    row, where = images(structure, scene, centre)
    every = []
    for operation in structure.find_spacegroup().operations():
        turned = [operation.apply_to_xyz(x) for x in (scene.position / 45.0).tolist()]
        for shift in itertools.product(range(-6, 7), repeat=3):
            place = 45.0 * (np.array(turned) + shift)
            if np.linalg.norm(place.mean(axis=0) - centre.mean(axis=0)) > 100:
                continue
            near = np.linalg.norm(place[:, None] - centre, axis=2).min(axis=1) <= CRYSTAL_ANGSTROM
            same = np.linalg.norm(place - scene.position, axis=1) < SAME_ANGSTROM
            every += [(n, *place[n]) for n in np.flatnonzero(near & ~same).tolist()]
    found = np.column_stack((row, where))
    assert len(found) == len(every) > 0
    apart = np.abs(found[:, None] - np.array(every)).max(axis=2).min(axis=1)
    assert apart.max() < 1e-3


def test_score_sees_neighbours_in_the_crystal(example, tmp_path):
    atoms = np.array([mark.atom.pos.tolist() for mark in example[0].all()])
    crowded = with_cell(example, "P 1", 0.6 * float(np.ptp(atoms, axis=0).max()))
    out = tmp_path / "scores.parquet"
    chosen = config.settings(PredictionSettings, "predict", {"surroundings": "all", "workers": 0})
    (result,) = score_structures(written(crowded, tmp_path / "x.cif"), out, settings=chosen)
    assert "crystal neighbour (" in result.notes[0]
    clashing = [row for row in read_table(out).to_pylist() if "in the crystal" in row["contact"]]
    assert clashing
    assert all(row["strain"] > 0 and row["contact_angstrom"] < 4 for row in clashing)
    assert "crystal neighbour" in (tmp_path / "scores.surroundings.csv").read_text()


def test_a_word_that_is_none_is_refused_in_a_sentence():
    with pytest.raises(QfitLatentError, match="'ligand', which is none of ligands"):
        words_of("ligand,waters")
    assert words_of("all") == ALL
    assert words_of("none") == frozenset()
    assert words_of(" Waters, crystal") == {"waters", "crystal"}
