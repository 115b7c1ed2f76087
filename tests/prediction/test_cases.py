"""Every file of ../shared/cases that can be read: built upon, written, and read again."""

from pathlib import Path

import numpy as np
import pytest

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import NUM_CHI
from qfitlatent.prediction.placing import Placement, place_side_chains
from qfitlatent.structure.coordinates import mmcif_text, open_structure, pdb_text
from qfitlatent.structure.preprocess import read_entry
from qfitlatent.tables.keys import fixed_list

CASES = Path(__file__).parents[3] / "shared" / "cases"
FOLDERS = sorted(CASES.glob("[0-9]*")) if CASES.is_dir() else []
MISSING = pytest.mark.skip("no ../shared/cases")
SEVERAL_CHARACTERS = (
    "numbers_to_12.cif", "two_characters.cif", "words.cif", "icode_of_two_characters.cif"
)  # fmt: skip
"""Altlocs and insertion codes that no written model can have: refused in a sentence."""

KEY = ("chain", "author_number", "insertion_code", "name", "label_seq")


@pytest.mark.parametrize("folder", FOLDERS or [pytest.param(None, marks=MISSING)], ids=str)
def test_what_is_read_is_built_and_read_again(folder, tmp_path):
    paths = [path for path in sorted(folder.iterdir()) if path.name != "expected.json"]
    if folder.name == "35_stale_results":
        pytest.skip("a scenario of the workflow")
    for path in paths:
        records = read_entry(path, "x")
        rows = np.flatnonzero(records.frames["rotation"].is_valid().to_numpy())
        if not len(rows):
            continue
        try:
            structure, document = open_structure(path)
        except QfitLatentError:
            assert path.name in SEVERAL_CHARACTERS
            continue
        residues, frames = records.residues.take(rows), records.frames.take(rows)
        token = residues["token"].to_numpy()
        chi = np.ones((len(rows), 2, 4))
        chi[:, 1] = -1.0
        placement = Placement(
            key=list(zip(*(residues[name].to_pylist() for name in KEY), strict=True)),
            frame_altloc=frames["altloc"].to_pylist(),
            rotation=fixed_list(frames["rotation"], (3, 3)),
            translation=fixed_list(frames["translation_angstrom"], (3,)),
            token=token,
            weight=np.full((len(rows), 2), 0.5),
            chi=chi,
        )
        built = np.zeros(len(rows), dtype=bool)
        built[place_side_chains(structure, placement)] = True
        alone = ~residues["is_microheterogeneous"].to_numpy()
        assert built[(NUM_CHI[token] > 0) & alone].all(), path.name
        note = {"content": "test"}
        texts = {"cif": mmcif_text(structure, document, note), "pdb": pdb_text(structure, note)}
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
