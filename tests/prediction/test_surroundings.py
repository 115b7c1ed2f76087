"""What the joint step is given of a structure."""

import gemmi
import numpy as np
import pytest

from helpers.predictions import placement_of
from helpers.simulated import simulator
from qfitlatent.chemistry.residues import NUM_CHI, RESIDUE_TYPES, TOKEN
from qfitlatent.joint.atoms import KIND
from qfitlatent.prediction.scene import Kind, scene_of
from qfitlatent.prediction.surroundings import CRYSTAL, USUAL, protein_of
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import entry_ids
from qfitlatent.structure.coordinates import open_structure
from qfitlatent.structure.preprocess import read_entry


def one_mode(token):
    return np.ones((len(token), 1)), np.zeros((len(token), 1, 4))


def given(path, in_crystal=False):
    placement = placement_of(
        read_entry(path, "x"),
        lambda token: (np.ones((len(token), 1)), np.zeros((len(token), 1, 4))),
    )
    structure, _ = open_structure(path)
    scene = scene_of(structure, placement)
    words = USUAL | {CRYSTAL} if in_crystal else USUAL
    protein, _ = protein_of(scene, placement, structure, words)
    return scene, placement, protein


def test_a_side_chain_meets_all_backbones_but_its_own(tmp_path):
    settings = simulator(num_entries=1)
    (path,) = write_entries(entry_ids(settings), tmp_path, settings, 5)
    scene, placement, protein = given(path)
    around, token = protein.around, protein.backbones.token
    assert (token == placement.token).all()
    # N, CA, C, O of every residue, and a CB of all but GLY.
    counts = np.bincount(around.excluded[:, 0][around.excluded[:, 0] >= 0], minlength=len(token))
    assert (counts >= np.where(token == TOKEN["GLY"], 4, 5)).all()
    # C of the residue before and N of the residue behind are three bonds from CB.
    n = len(token) // 2
    others = around.excluded[around.excluded[:, 1] == n, 0]
    assert sorted(others.tolist()) == [n - 1, n + 1]
    # No water, and no side chain that is built anew.
    water = scene.position[scene.kind == Kind.WATER]
    assert len(water) > 0
    apart = np.linalg.norm(water[:, None] - around.position, axis=2)
    assert apart.min() > 1e-6
    assert (scene.kind == Kind.GOES).sum() > NUM_CHI[token].sum()


@pytest.mark.parametrize(
    ("name", "bound", "num_disulfides"),
    [("1aac.pdb.gz", {("HIS", "ND1"), ("CYS", "SG")}, 0), ("1lit.pdb.gz", set(), 3)],
)
def test_recorded_bonds_of_real_entries(shared_data, name, bound, num_disulfides):
    _, _, protein = given(shared_data / "raw" / name)
    links = protein.metals.links
    token = protein.backbones.token
    assert {(RESIDUE_TYPES[token[n]], atom) for n, atom, _ in links} == bound
    assert len(protein.recorded) == num_disulfides
    assert all(token[n] == TOKEN["CYS"] for pair in protein.recorded for n in pair)
    is_metal = protein.around.kind == KIND["metal"]
    assert np.count_nonzero(is_metal) == len(protein.metals.position)


def test_neighbours_in_the_crystal_are_images_of_what_stays(shared_data):
    path = shared_data / "raw" / "1aac.pdb.gz"
    scene, _, alone = given(path)
    _, _, crowded = given(path, in_crystal=True)
    here = {tuple(x) for x in np.round(alone.around.position, 2)}
    there = [tuple(x) for x in np.round(crowded.around.position, 2)]
    assert here < set(there)
    images = [x for x in there if x not in here]
    assert len(images) == len(there) - len(alone.around.position) > 50
    structure, _ = open_structure(path)
    stays = scene.position[scene.kind != Kind.WATER]
    for image in images[::20]:
        apart = [
            structure.cell.find_nearest_image(
                gemmi.Position(*image), gemmi.Position(*atom), gemmi.Asu.Any
            ).dist()
            for atom in stays
        ]
        assert min(apart) < 0.05
