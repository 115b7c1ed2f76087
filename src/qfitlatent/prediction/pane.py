"""The model that was written, as its page draws it in three dimensions.

The page chooses which atoms it shows and bonds them by distance, so here are the atoms alone. What
draws them is 3Dmol.js (Rego and Koes, Bioinformatics 31, 1322 (2015)), of which the package has the
minified file of its release, gzipped; the page shows its licence.
"""

import base64
import gzip
import json
from functools import cache
from importlib.resources import files
from typing import Any

import gemmi
import pyarrow as pa

STEPS_PER_ANGSTROM = 100


@cache
def packed_viewer() -> str:
    """3Dmol.js, gzipped in base64: the page unpacks it when it is looked at, not before."""
    path = files("qfitlatent").joinpath("data", "pages/3Dmol-min.js.gz")
    return base64.b64encode(path.read_bytes()).decode("ascii")


def packed_atoms(model: gemmi.Model, summary: pa.Table) -> str:
    """All atoms of a model but hydrogen as JSON, gzipped in base64.

    summary: the rows of the page (``columns.RESIDUES``). Of each residue there is its row, or its
    words where it has none, and how many atoms it has; of each atom its name and element by their
    number, its altloc, and x, y and z in steps.
    """
    keys = (summary[name].to_pylist() for name in ("chain", "author_number", "insertion_code"))
    row_of = {key: row for row, key in enumerate(zip(*keys, strict=True))}
    kinds: dict[tuple[str, str], int] = {}
    residues: list[int | str] = []
    counts: list[int] = []
    altlocs: list[str] = []
    kind: list[int] = []
    steps: list[int] = []
    for chain in model:
        for residue in chain:
            atoms = [atom for atom in residue if not atom.is_hydrogen()]
            number, code = residue.seqid.num, residue.seqid.icode.strip()
            words = f"{residue.name} {chain.name} {number}{code}"
            residues.append(row_of.get((residue.subchain, number, code), words))
            counts.append(len(atoms))
            altlocs += [atom.altloc.replace("\0", " ") for atom in atoms]
            for atom in atoms:
                kind.append(kinds.setdefault((atom.name, atom.element.name), len(kinds)))
                steps += [round(x * STEPS_PER_ANGSTROM) for x in atom.pos.tolist()]
    data: dict[str, Any] = {
        "residues": residues,
        "counts": counts,
        "kinds": list(kinds),
        "kind": kind,
        "altlocs": "".join(altlocs),
        "steps": steps,
        "stepsPerAngstrom": STEPS_PER_ANGSTROM,
    }
    text = json.dumps(data, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")
