"""The predicted model of one structure in memory: what is chosen, built, kept and said of itself.

Shapes: N residues of the structure, n of them predicted, m of these built, S draws, D=4 chi.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar

import gemmi
import numpy as np
import pyarrow as pa

from qfitlatent.chemistry.residues import NUM_CHI, NUM_CHI_MAX
from qfitlatent.joint.candidates import Densities
from qfitlatent.joint.model import JointModel, Protein, joint_model
from qfitlatent.joint.sampling import sample_joint
from qfitlatent.prediction.bonded import add_bonds
from qfitlatent.prediction.confidence import confidence
from qfitlatent.prediction.placing import (
    confidence_as_b,
    place_side_chains,
    remove_crowded_waters,
)
from qfitlatent.prediction.records import Drawn, Input, Predicted, Unusable
from qfitlatent.prediction.scene import Placement, is_complete, scene_of
from qfitlatent.prediction.seen import seen_in
from qfitlatent.prediction.selection import change_types
from qfitlatent.prediction.surroundings import protein_of, words_of
from qfitlatent.structure.coordinates import open_structure
from qfitlatent.structure.origin import SOFTWARE, Origin
from qfitlatent.structure.written import finished
from qfitlatent.tables.keys import fixed_list

Selected = TypeVar("Selected", Predicted, Densities)


@dataclass(frozen=True)
class Ensemble:
    """A multiconformer model, as it is written.

    model: all atoms, entities, sequences and bonds; document: the mmCIF input's, None of PDB;
    origin: what the model says of itself; is_built (N,): has a side chain that was built; row (m,)
    of the residues table whose side chains were chosen together, and their joint model;
    waters_removed: what they are called; seen: what stood around them (``columns.SEEN``).
    """

    model: gemmi.Structure
    document: gemmi.cif.Document | None
    origin: Origin
    is_built: np.ndarray
    row: np.ndarray
    joint: JointModel
    waters_removed: list[str]
    seen: pa.Table

    @property
    def confidence(self) -> np.ndarray:
        """(N,) that altloc A, or the only conformer, is right; nan where nothing was built."""
        known = np.full(len(self.is_built), np.nan)
        known[self.row] = self.joint.confidence
        return np.where(self.is_built, known, np.nan)


class Draws(NamedTuple):
    """Joint states that were drawn, a model each.

    model: all atoms of all of them; document and origin as of ``Ensemble``; row (m,) of the
    residues table that are built, and their chi (S,m,D) radians; seen (``columns.SEEN``).
    """

    model: gemmi.Structure
    document: gemmi.cif.Document | None
    origin: Origin
    row: np.ndarray
    chi: np.ndarray
    seen: pa.Table


def build_ensemble(identity: Mapping[str, Any], given: Input, predicted: Predicted) -> Ensemble:
    """The model of a structure; identity: what made it, settings included (``Runner.identity``).

    Raises QfitLatentError where the structure has names that no written model can have, and
    Unusable where nothing is left to build.
    """
    structure, document = open_given(given)
    placement = placement_of(given.tables, predicted.row)
    wanted = _wanted(given, structure, placement)
    placement, row = placement.select(wanted), predicted.row[wanted]
    protein, seen = protein_and_seen(identity, given.entry, structure, placement)
    chosen = select_rows(predicted, wanted)
    joint = joint_model(
        protein, densities_of(chosen, protein), chosen.heterogeneous, identity["min_weight"]
    )
    states = joint.states
    placement = replace(placement, weight=states.occupancy, chi=states.chi)
    if identity["truncate"]:
        placement = replace(placement, num_chi=_depth(identity, chosen, placement, joint))
    built = place_side_chains(structure, placement)
    is_built = np.zeros(len(given.tables["residues"]), dtype=bool)
    is_built[row[built]] = True
    keys = [placement.key[n] for n in built]
    add_bonds(structure, keys)
    waters = remove_crowded_waters(structure, keys)
    sure = joint.confidence[built].tolist()
    if identity["b_factors"] == "confidence":
        confidence_as_b(structure, keys, sure)
    origin = origin_of(
        identity, given, "ensemble", "predicted", dict(zip(row[built].tolist(), sure, strict=True))
    )
    model = finished(structure, origin)
    return Ensemble(model, document, origin, is_built, row, joint, waters, seen)


def _depth(
    identity: Mapping[str, Any],
    chosen: Predicted,
    placement: Placement,
    joint: JointModel,
) -> np.ndarray:
    """(m,) chi of each side chain whose atoms are placed with confidence.

    All where the joint model is sure of all; else those that the density is sure of.
    """
    least, num_chi = identity["min_confidence"], NUM_CHI[placement.token].astype(np.int64)
    together = confidence(
        chosen.weight, chosen.mean, chosen.kappa, placement.token, placement.chi[:, 0]
    )
    some = np.cumprod(together >= least, axis=1).sum(axis=1)
    some = np.minimum(some, np.maximum(num_chi - 1, 0))
    return np.where(joint.confidence >= least, num_chi, some)


def build_draws(identity: Mapping[str, Any], given: Input, drawn: Drawn) -> Draws:
    """Joint states of what was drawn, a model each, as one structure."""
    first, document = open_given(given)
    placement = placement_of(given.tables, drawn.row)
    wanted = _wanted(given, first, placement)
    placement, row = placement.select(wanted), drawn.row[wanted]
    protein, seen = protein_and_seen(identity, given.entry, first, placement)
    densities = select_rows(drawn.densities, wanted)
    densities = replace(densities, token=protein.backbones.token)
    chi = sample_joint(protein, densities, drawn.chi[:, wanted], drawn.num, identity["seed"])
    models = []
    for draw in chi:
        structure = first.clone()
        place_side_chains(structure, replace(placement, chi=draw[:, None]))
        models.append(structure[0])
    del first[:]
    for number, model in enumerate(models, start=1):
        model.num = number
        first.add_model(model)
    origin = origin_of(identity, given, "samples", "drawn at random")
    return Draws(finished(first, origin), document, origin, row, chi, seen)


def open_given(given: Input) -> tuple[gemmi.Structure, gemmi.cif.Document | None]:
    """The structure with the types that are asked for, and the document of an mmCIF file."""
    structure, document = open_structure(given.path)
    change_types(structure, given.tables["residues"], given.chosen.was)
    return structure, document


def _wanted(given: Input, structure: gemmi.Structure, placement: Placement) -> np.ndarray:
    """(n,) whether each residue of the placement is built anew, as was chosen."""
    keys = given.tables["residues"].select(list(PLACE)).to_pylist()
    row_of = {tuple(key.values()): row for row, key in enumerate(keys)}
    rows = [row_of[key] for key in placement.key]
    wanted = given.chosen.rebuilt[rows]
    if given.chosen.fix_complete:
        changed = np.isin(rows, list(given.chosen.was))
        wanted = wanted & (changed | ~is_complete(structure, placement))
    if not wanted.any():
        raise Unusable(
            "nothing_to_build",
            f"{given.path} has no side chain to build: --residues and --fix leave none.",
        )
    return wanted


def protein_and_seen(
    identity: Mapping[str, Any], entry: str, structure: gemmi.Structure, placement: Placement
) -> tuple[Protein, pa.Table]:
    """What the joint step is given, and what of its surroundings there was (``columns.SEEN``)."""
    words, scene = words_of(identity["surroundings"]), scene_of(structure, placement)
    protein, standing = protein_of(scene, placement, structure, words)
    return protein, seen_in(entry, structure, scene, standing.row, standing.is_image, words)


def densities_of(predicted: Predicted, protein: Protein) -> Densities:
    """As the joint step takes them; what is not built there has no chi.

    The components, most of what a prediction holds, are not copied.
    """
    modes = (x.astype(np.float64) for x in (predicted.mode_weight, predicted.mode_chi))
    components = predicted.weight, predicted.mean, predicted.kappa
    return Densities(protein.backbones.token, *components, *modes)


def select_rows(values: Selected, wanted: np.ndarray) -> Selected:
    """A dataclass whose arrays have a row a residue, with the wanted (n,) bool alone."""
    if wanted.all():
        return values  # a copy would be most of what a prediction holds
    held = {f.name: getattr(values, f.name) for f in fields(values)}
    arrays = {name: x[wanted] for name, x in held.items() if isinstance(x, np.ndarray)}
    return replace(values, **arrays)


def origin_of(
    identity: Mapping[str, Any],
    given: Input,
    what: str,
    how: str,
    sure: Mapping[int, float] | None = None,
) -> Origin:
    """Of the file ``<id>_<what>``; how its side chains came about; confidence by row."""
    keys = ("seed", "model", "model_version", "model_sha256", "trained_on")
    facts = {key: str(identity[key]) for key in keys if key in identity}
    facts["input_sha256"] = given.sha256
    residues = given.tables["residues"]
    chain, name = (residues[column].to_pylist() for column in ("author_chain", "name"))
    number, code = (residues[x].to_pylist() for x in ("author_number", "insertion_code"))
    known = {
        (chain[row], f"{number[row]}{code[row]}", name[row]): value
        for row, value in (sure or {}).items()
    }
    return Origin(
        name=f"{given.entry}_{what}",
        content=f"Side chains {how} by {SOFTWARE}",
        template=given.path.name,
        version=identity["software_version"],
        facts=facts,
        confidence=known,
    )


def placement_of(tables: Mapping[str, pa.Table], row: np.ndarray) -> Placement:
    """One side chain a residue, whose chi are not known yet, on rows (n,) of the residues table."""
    residues = tables["residues"].take(pa.array(row))
    frames = tables["frames"].take(pa.array(row))
    columns = [residues[name].to_pylist() for name in PLACE]
    return Placement(
        key=list(zip(*columns, strict=True)),
        frame_altloc=frames["altloc"].to_pylist(),
        rotation=fixed_list(frames["rotation"], (3, 3)),
        translation=fixed_list(frames["translation_angstrom"], (3,)),
        token=residues["token"].to_numpy(),
        weight=np.ones((len(row), 1)),
        chi=np.zeros((len(row), 1, NUM_CHI_MAX)),
    )


PLACE = ("chain", "author_number", "insertion_code", "name", "label_seq")
"""Columns of the residues table that are a placement's key."""
