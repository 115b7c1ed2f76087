"""Several models in one file, written one after the other: mmCIF, and PDB where it can hold them.

What a file says beside the atoms (molecules, bonds, origin, confidence) is said of its first model.
A file of one model is what ``predict`` writes of it.
"""

from pathlib import Path

import gemmi

from qfitlatent.prediction.ensemble import Ensemble
from qfitlatent.structure.written import mmcif_text, pdb_text

_ATOMS = ("ATOM  ", "HETATM", "ANISOU", "TER")
_CATEGORY, _NUMBER, _ID = "_atom_site.", "_atom_site.pdbx_PDB_model_num", "_atom_site.id"


class ModelFiles:
    """Both files of a set of models; ``add`` appends one, and ``close`` ends them."""

    def __init__(self, cif: Path, pdb: Path) -> None:
        self.num = 0
        self.has_pdb = True
        """Whether the PDB format has had room for every model."""
        self._cif, self._pdb, self._num_atoms = cif, pdb, 0
        self._only: tuple[str, str | None] = ("", None)
        self._tags: list[str] = []

    def add(self, ensemble: Ensemble) -> None:
        """The model of one backbone, with its altlocs."""
        self.num += 1
        cif = mmcif_text(ensemble.model, ensemble.origin, ensemble.document)
        pdb = pdb_text(ensemble.model) if self.has_pdb else None
        self._only = cif, pdb
        self._add_cif(cif)
        if pdb is not None:
            self._add_pdb(pdb.splitlines(keepends=True))
        elif self.has_pdb:
            self._pdb.unlink(missing_ok=True)
            self.has_pdb = False

    def close(self) -> None:
        """Nothing can be added from now on."""
        if self.num == 1:
            for path, text in zip((self._cif, self._pdb), self._only, strict=True):
                if text is not None:
                    path.write_text(text, "utf-8")
        elif self.has_pdb:
            _append(self._pdb, "END\n")

    def _add_cif(self, text: str) -> None:
        document = gemmi.cif.read_string(text)
        table = document[0].find_mmcif_category(_CATEGORY)
        tags, rows = list(table.tags), [list(row) for row in table]
        if self.num == 1:
            self._tags = tags
            table.erase()
            style = gemmi.cif.WriteOptions(gemmi.cif.Style.Pdbx)
            _append(self._cif, "\n".join([document.as_string(style), "loop_", *tags, ""]))
        number, serial = tags.index(_NUMBER), tags.index(_ID)
        order = [tags.index(tag) for tag in self._tags]
        for i, row in enumerate(rows, start=self._num_atoms + 1):
            row[number], row[serial] = str(self.num), str(i)
        self._num_atoms += len(rows)
        _append(self._cif, "".join(" ".join(row[i] for i in order) + "\n" for row in rows))

    def _add_pdb(self, lines: list[str]) -> None:
        atoms = [i for i, line in enumerate(lines) if line.startswith(_ATOMS)]
        head = lines[: atoms[0]] if self.num == 1 else []
        body = lines[atoms[0] : atoms[-1] + 1]
        model = [f"MODEL     {self.num:4d}\n", *body, "ENDMDL\n"]
        _append(self._pdb, "".join([*head, *model]))


def _append(path: Path, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)
