"""What a prediction opens and writes is what the tables read, on every file of the cases."""

import pytest

from helpers.cases import FOLDERS, LONG_LABELS
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.structure.coordinates import open_structure
from qfitlatent.structure.origin import Origin
from qfitlatent.structure.preprocess import read_entry
from qfitlatent.structure.written import finished, mmcif_text, pdb_text

ORIGIN = Origin("made", "Side chains predicted", "made.pdb", "0.0", {"trained_on": "nothing"})


@pytest.mark.parametrize(
    "folder",
    FOLDERS,
    ids=lambda folder: folder.name if folder else "none",
)
def test_opened_and_written_as_in_the_tables(folder, tmp_path):
    for path in sorted(folder.iterdir()):
        residues = read_entry(path, "x").residues.to_pylist()
        if path.suffix == ".json" or not residues:
            continue
        if path.name in LONG_LABELS:
            with pytest.raises(QfitLatentError, match="not one ASCII character"):
                open_structure(path)
            continue
        structure, document = open_structure(path)
        found = {
            (residue.subchain, residue.seqid.num, residue.seqid.icode.strip(), residue.name)
            for chain in structure[0]
            for residue in chain
        }
        key = ("chain", "author_number", "insertion_code", "name")
        assert {tuple(row[name] for name in key) for row in residues} <= found, path.name
        model = finished(structure, ORIGIN)
        pdb_text(model)
        again = tmp_path / "again.cif"
        again.write_text(mmcif_text(model, ORIGIN, document), "utf-8")
        written = read_entry(again, "x").residues.to_pylist()
        assert _ids(written) == _ids(residues), path.name


def _ids(residues):
    return sorted((r["author_number"], r["insertion_code"], r["name"]) for r in residues)
