"""Every kind of predicted model, in both formats, opens in other programs with all of its atoms.

Kinds: mmCIF and PDB input, insertion codes, altlocs, ligands and metals, nucleic acids, hydrogens,
chains without a name and with a long one, several models. Mol* and NGL read them in a headless
Chromium, where there is one.
"""

import warnings
from functools import cache

import gemmi
import numpy as np
import pytest

from helpers.browser import in_browser
from helpers.predictions import both_texts, origin, placement_of
from helpers.simulated import simulator
from qfitlatent.prediction.placing import place_side_chains
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import entry_ids
from qfitlatent.structure.coordinates import open_structure
from qfitlatent.structure.preprocess import read_entry

RAW = ("1aac.pdb.gz", "1a4w.cif.gz", "2hax.pdb.gz", "3mst.cif.gz")
"""A metal; ligands, insertion codes and a sulphated tyrosine; DNA; selenomethionine."""


def some_modes(token):
    """Two modes on every fourth residue, one on the others."""
    weight = np.tile([0.6, 0.4], (len(token), 1))
    weight[np.arange(len(token)) % 4 > 0] = [1.0, 0.0]
    chi = np.ones((len(token), 2, 4))
    chi[:, 1] = -1.0
    return weight, chi


def inputs(folder):
    """Files that differ in what readers stumble over, by a name for each."""
    settings = simulator(
        num_entries=1, min_residues=25, max_residues=30, mse_fraction=1.0,
        insertion_code_fraction=1.0,
    )  # fmt: skip
    (path,) = write_entries(entry_ids(settings), folder, settings, 5)
    made = {"mmcif": path}
    structure, _ = open_structure(path)
    structure.entities = gemmi.EntityList([])

    def pdb(name, one):
        made[name] = folder / f"{name}.pdb"
        made[name].write_text(one.make_pdb_string(gemmi.PdbWriteOptions(seqres_records=False)))

    pdb("pdb", structure)
    hydrogens = structure.clone()
    for chain in hydrogens[0]:
        for residue in chain:
            ca = residue.find_atom("CA", "\0")
            if ca and residue.name != "GLY":
                for name in ("HA", "HB2"):
                    atom = ca.clone()
                    atom.name, atom.element = name, gemmi.Element("H")
                    atom.pos += gemmi.Position(0.6, 0.6, 0.6)
                    residue.add_atom(atom)
    pdb("hydrogens", hydrogens)
    nameless = structure.clone()
    del nameless[0][1:]
    nameless[0][0].name = ""
    pdb("nameless", nameless)
    long = structure.clone()
    long[0][0].name = "Chain17"
    made["long_chain"] = folder / "long_chain.cif"
    groups = gemmi.MmcifOutputGroups(False, atoms=True, auth_all=True)
    long.make_mmcif_document(groups).write_file(str(made["long_chain"]))
    return made


@pytest.fixture(scope="module")
def models(tmp_path_factory, request):
    """Path of each predicted model that could be written, by kind and format."""
    folder = tmp_path_factory.mktemp("models")
    sources = inputs(folder)
    try:
        raw = request.getfixturevalue("shared_data") / "raw"
        sources |= {name.split(".")[0]: raw / name for name in RAW}
    except pytest.skip.Exception:
        pass  # the simulated ones are read all the same
    paths = {}
    for kind, source in sources.items():
        structure, document = open_structure(source)
        placement = placement_of(read_entry(source, kind), some_modes)
        assert place_side_chains(structure, placement)
        texts = both_texts(structure, document, origin(kind))
        for ending, text in zip(("cif", "pdb"), texts, strict=True):
            if text is None:
                assert (kind, ending) == ("long_chain", "pdb")
                continue
            paths[kind, ending] = folder / f"{kind}_predicted.{ending}"
            paths[kind, ending].write_text(text)
    return paths


@cache
def counts(path, altlocs=True, waters=True):
    """Atoms of a model by gemmi; without altlocs each atom once."""
    atoms = [
        (a.chain.name, str(a.residue.seqid), a.residue.name, a.atom.name)
        for a in gemmi.read_structure(str(path))[0].all()
        if waters or not a.residue.is_water()
    ]
    return len(atoms) if altlocs else len(set(atoms))


def test_sequences_numbers_and_entities_agree(models):
    for (kind, ending), path in models.items():
        if ending == "pdb":
            continue
        block = gemmi.cif.read(str(path)).sole_block()
        assert block.name == kind
        sequence = {
            (row.str(0), row.str(1), row.str(2))
            for row in block.find("_entity_poly_seq.", ["entity_id", "num", "mon_id"])
        }
        polymers = {row.str(0) for row in block.find("_entity_poly.", ["entity_id"])}
        asym = {row.str(0): row.str(1) for row in block.find("_struct_asym.", ["id", "entity_id"])}
        columns = ["label_asym_id", "label_entity_id", "label_seq_id", "label_comp_id"]
        for row in block.find("_atom_site.", columns):
            chain, entity, number, name = (row.str(i) for i in range(4))
            assert asym[chain] == entity
            assert (entity in polymers) == bool(number), kind
            assert not number or (entity, number, name) in sequence, kind
        scheme = block.find("_pdbx_poly_seq_scheme.", ["entity_id", "seq_id", "mon_id"])
        assert {tuple(row.str(i) for i in range(3)) for row in scheme} == sequence
        components = {row.str(0) for row in block.find("_chem_comp.", ["id"])}
        assert components >= {name for *_, name in sequence}


def test_bonds_of_records_have_both_atoms(models):
    for (kind, ending), path in models.items():
        if ending == "pdb":
            continue
        block = gemmi.cif.read(str(path)).sole_block()
        names = ["label_asym_id", "auth_seq_id", "label_comp_id", "label_atom_id"]
        atoms = {tuple(row.str(i) for i in range(4)) for row in block.find("_atom_site.", names)}
        for end in ("ptnr1_", "ptnr2_"):
            for row in block.find("_struct_conn.", [end + name for name in names]):
                assert tuple(row.str(i) for i in range(4)) in atoms, kind


def test_anisotropic_b_factors_are_of_atoms_that_stay(models):
    for (kind, ending), path in models.items():
        if ending == "cif":
            block = gemmi.cif.read(str(path)).sole_block()
            atoms = {row.str(0) for row in block.find("_atom_site.", ["id"])}
            assert {r.str(0) for r in block.find("_atom_site_anisotrop.", ["id"])} <= atoms, kind


def test_biotite_reads_them(models):
    pdbx = pytest.importorskip("biotite.structure.io.pdbx")
    pdb = pytest.importorskip("biotite.structure.io.pdb")
    for (kind, ending), path in models.items():
        if ending == "cif":
            file = pdbx.CIFFile.read(str(path))
            array = pdbx.get_structure(file, model=1, altloc="all")
            sequences = pdbx.get_sequence(file)
            assert sequences, kind
        else:
            array = pdb.PDBFile.read(str(path)).get_structure(model=1, altloc="all")
        assert array.array_length() == counts(path), kind


def test_biopython_reads_them(models):
    bio = pytest.importorskip("Bio.PDB")
    for (kind, ending), path in models.items():
        parser = (bio.MMCIFParser if ending == "cif" else bio.PDBParser)(QUIET=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of chains that are not contiguous
            atoms = sum(1 for _ in parser.get_structure(kind, str(path)).get_atoms())
        assert atoms == counts(path, altlocs=False), (kind, ending)


def test_mdanalysis_reads_them(models):
    mda = pytest.importorskip("MDAnalysis")
    for (kind, ending), path in models.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            universe = mda.Universe(str(path))
        assert len(universe.atoms) == counts(path), (kind, ending)


def test_openmm_and_pdbfixer_read_them_with_all_atoms(models):
    pdbfixer = pytest.importorskip("pdbfixer")
    for (kind, ending), path in models.items():
        with open(path) as file:
            how = {"pdbxfile": file} if ending == "cif" else {"pdbfile": file}
            fixer = pdbfixer.PDBFixer(**how)
        # Of waters with altlocs OpenMM drops all but one, in any mmCIF: they have no label_seq_id.
        found = [a for a in fixer.topology.atoms() if a.residue.name != "HOH"]
        assert len(found) == counts(path, altlocs=False, waters=False), (kind, ending)


def test_modelcif_reads_where_they_come_from(models):
    reader = pytest.importorskip("modelcif.reader")
    for (kind, ending), path in models.items():
        if ending == "pdb":
            continue
        with open(path) as file:
            (system,) = reader.read(file)
        assert [s.name for s in system.software] == ["qFitLatent"]
        assert all(t.name == "made.pdb" for t in system.templates), kind
        assert system.templates
        (group,) = system.model_groups
        assert len(group) == 1


VIEW = """
await page.setContent("<div id=molstar></div><div id=ngl></div>");
await page.addStyleTag({content: "div { position: relative; width: 300px; height: 200px; }"});
for (const name of ["molstar/build/viewer/molstar.js", "ngl/dist/ngl.js"])
  await page.addScriptTag({path: tools.file(name)});
await page.evaluate(async () => {
  globalThis.plugin = (await molstar.Viewer.create("molstar", {layoutShowControls: false})).plugin;
  globalThis.stage = new NGL.Stage("ngl");
});
const found = [];
for (const [at, path] of given.paths.entries()) {
  const text = tools.fs.readFileSync(path, "utf8"), isCif = path.endsWith(".cif"), draw = at < 2;
  found.push(await page.evaluate(async ({text, isCif, draw}) => {
    const data = await plugin.builders.data.rawData({data: text}), {builders: {structure}} = plugin;
    const trajectory = await structure.parseTrajectory(data, isCif ? "mmcif" : "pdb");
    const made = await structure.createStructure(await structure.createModel(trajectory));
    const {elementCount: atoms, polymerResidueCount: residues} = made.cell.obj.data;
    if (draw) await structure.representation.applyPreset(made, "polymer-cartoon");
    plugin.canvas3d.commit(true);
    const drawn = plugin.canvas3d.reprCount.value;
    await plugin.clear();
    const component = await stage.loadFile(new Blob([text]), {ext: isCif ? "cif" : "pdb"});
    let ofPolymers = 0;
    component.structure.eachPolymer((polymer) => { ofPolymers += polymer.residueCount; });
    if (draw) component.autoView();
    const shown = draw ? component.addRepresentation("cartoon").repr : null;
    const read = {
      molstar: {atoms, residues, drawn: drawn > 0},
      ngl: {atoms: component.structure.atomCount, residues: ofPolymers, drawn: shown !== null},
    };
    stage.removeAllComponents();
    return read;
  }, {text, isCif, draw}));
}
return found;
"""


@pytest.fixture(scope="module")
def viewed(models):
    """What Mol* and NGL read in a browser, by kind and format; the first two they draw, too."""
    found = in_browser(VIEW, paths=[str(path) for path in models.values()])
    return dict(zip(models, found, strict=True))


@pytest.mark.parametrize("viewer", ["molstar", "ngl"])
def test_viewers_see_every_atom_and_the_polymers(viewed, models, viewer):
    for (kind, ending), path in models.items():
        found = viewed[kind, ending][viewer]
        assert found["atoms"] == counts(path), (kind, ending)
        structure = gemmi.read_structure(str(path))
        structure.setup_entities()
        residues = sum(len(chain.get_polymer()) for chain in structure[0])
        assert found["residues"] >= 0.95 * residues, (kind, ending)
    assert sum(found[viewer]["drawn"] for found in viewed.values()) == 2
