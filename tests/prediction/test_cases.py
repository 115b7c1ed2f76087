"""Every file of ../shared/cases that can be read: built upon, written, and read again."""

import numpy as np
import pytest

from helpers.cases import FOLDERS, LONG_LABELS
from helpers.predictions import both_texts, placement_of
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import NUM_CHI
from qfitlatent.prediction.placing import place_side_chains
from qfitlatent.structure.coordinates import open_structure
from qfitlatent.structure.preprocess import read_entry


def two_modes(token):
    """All chi at 1 and at -1 radian, each with half of the weight."""
    chi = np.ones((len(token), 2, 4))
    chi[:, 1] = -1.0
    return np.full((len(token), 2), 0.5), chi


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_what_is_read_is_built_and_read_again(folder, tmp_path):
    paths = [path for path in sorted(folder.iterdir()) if path.name != "expected.json"]
    if folder.name == "35_stale_results":
        pytest.skip("a scenario of the workflow")
    for path in paths:
        records = read_entry(path, "x")
        has_frame = records.frames["rotation"].is_valid()
        if not has_frame.to_numpy().any():
            continue
        try:
            structure, document = open_structure(path)
        except QfitLatentError:
            assert path.name in LONG_LABELS
            continue
        placement = placement_of(records, two_modes)
        token = placement.token
        built = np.zeros(len(token), dtype=bool)
        built[place_side_chains(structure, placement)] = True
        alone = ~records.residues.filter(has_frame)["is_microheterogeneous"].to_numpy()
        assert built[(NUM_CHI[token] > 0) & alone].all(), path.name
        texts = dict(zip(("cif", "pdb"), both_texts(structure, document), strict=True))
        for ending, text in texts.items():
            if text is None:
                continue
            (tmp_path / f"built.{ending}").write_text(text, "utf-8")
            again = read_entry(tmp_path / f"built.{ending}", "x").residues
            where = f"{path.name} as {ending}"
            # Chains may come in another order, and modified residues keep the altlocs they have.
            tokens = [sorted(table["token"].to_pylist()) for table in (again, records.residues)]
            assert tokens[0] == tokens[1], where
            num_double = np.count_nonzero(again["num_conformers"].to_numpy() >= 2)
            assert num_double >= np.count_nonzero(built & (NUM_CHI[token] > 0)), where
