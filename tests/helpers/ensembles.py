"""Files of several models of one simulated protein, and a small model to predict them with."""

import gemmi
import numpy as np

from helpers.simulated import simulator
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import entry_ids


def simulated(folder, seed=3, num_residues=14):
    """A simulated structure of one chain without altlocs, as gemmi's."""
    settings = simulator(
        num_entries=1, min_residues=num_residues, max_residues=num_residues, max_chains=1
    )
    structure = gemmi.read_structure(
        str(write_entries(entry_ids(settings), folder, settings, seed)[0])
    )
    structure.remove_alternative_conformations()
    structure.setup_entities()
    return structure


def several(structure, num, angstrom=0.15, seed=1):
    """So many models of the structure, each atom displaced at random; the first is as it was."""
    rng = np.random.default_rng(seed)
    made = structure.clone()
    for number in range(2, num + 1):
        model = structure[0].clone()
        model.num = number
        for site in model.all():
            moved = rng.normal(scale=angstrom, size=3)
            site.atom.pos = gemmi.Position(*(np.array(site.atom.pos.tolist()) + moved))
        made.add_model(model)
    return made


def in_order(structure, order):
    """The structure's models in another order, numbered anew."""
    made = structure.clone()
    del made[:]
    for number, i in enumerate(order, start=1):
        model = structure[i].clone()
        model.num = number
        made.add_model(model)
    return made


def write_cif(structure, path):
    groups = gemmi.MmcifOutputGroups(True, auth_all=True)
    path.write_text(structure.make_mmcif_document(groups).as_string(), "utf-8")
    return path


def write_pdb(structure, path):
    path.write_text(structure.make_pdb_string(), "utf-8")
    return path
