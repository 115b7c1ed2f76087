"""Files for other programs: each read back by the program itself, or by a reader of its syntax."""

import json
import re
import shutil
import subprocess
import sys
import types

import gemmi
import numpy as np
import pyarrow as pa
import pytest

from helpers.predictions import both_texts, placement_of, settings_of
from helpers.simulated import simulator
from qfitlatent.prediction.columns import RESIDUES
from qfitlatent.prediction.commands import EXAMPLE
from qfitlatent.prediction.handover import HANDOVER, hand_over
from qfitlatent.prediction.placing import place_side_chains
from qfitlatent.prediction.predict import predict_structures
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import entry_ids
from qfitlatent.structure.coordinates import open_structure
from qfitlatent.structure.preprocess import read_entry
from qfitlatent.tables.columns import id_columns
from qfitlatent.tables.parquet import conform

PYMOL = shutil.which("pymol", path="/usr/local/bin:/usr/bin:/bin")


def modes(token):
    """One, two and three modes in turn."""
    weight = np.tile([[1.0, 0, 0], [0.7, 0.3, 0], [0.6, 0.3, 0.1]], (len(token) // 3 + 1, 1))
    chi = np.tile(np.array([1.0, -1.0, 3.0])[:, None], (len(token), 1, 4))
    return weight[: len(token)], chi


def shifted(path, folder, by):
    """The same entry with other residue numbers, below zero among them."""
    structure = gemmi.read_structure(str(path))
    for chain in structure[0]:
        for residue in chain:
            residue.seqid.num += by
    path = folder / "shifted.cif"
    structure.make_mmcif_document().write_file(str(path))
    return path


class Handed:
    """A predicted model and the files beside it, and what is truly in the model."""

    def __init__(self, path, folder):
        records = read_entry(path, "x")
        placement = placement_of(records, modes)
        structure, document = open_structure(path)
        built = {placement.key[n] for n in place_side_chains(structure, placement)}
        rows = records.residues.to_pylist()
        keys = [(r["chain"], r["author_number"], r["insertion_code"]) for r in rows]
        is_built = [
            (*k, r["name"], r["label_seq"]) in built for k, r in zip(keys, rows, strict=True)
        ]
        blank = {f.name: pa.nulls(len(rows), f.type) for f in RESIDUES}
        columns = (
            blank
            | id_columns(records.residues, np.arange(len(rows)))
            | {
                "entropy": pa.array(np.linspace(-3, 3, len(rows)), pa.float32()),
                "heterogeneity": pa.array(np.linspace(0, 1, len(rows)), pa.float32()),
                "confidence": pa.array([0.4 if i % 7 == 0 else 0.9 for i in range(len(rows))]),
                "group": pa.array([i // 8 for i in range(len(rows))], pa.int32()),
                "is_built": is_built,
                "note": ['left as "it" was'] + [""] * (len(rows) - 1),
            }
        )
        self.summary = conform(pa.table(columns), RESIDUES, "summary")
        self.folder = folder
        (folder / "x_ensemble.cif").write_text(both_texts(structure, document)[0])
        self.texts = hand_over("x", "a-model", structure, self.summary)
        for suffix, text in self.texts.items():
            (folder / f"x{suffix}").write_text(text)
        self.names, self.altlocs = model_of(folder / "x_ensemble.cif")


def model_of(path):
    """As another program sees it: (chain, number, code) -> name; -> label -> occupancies."""
    names, altlocs = {}, {}
    for chain in gemmi.read_structure(str(path))[0]:
        for residue in chain:
            place = (chain.name, residue.seqid.num, residue.seqid.icode.strip())
            names[place] = residue.name
            for atom in residue:
                if atom.has_altloc():
                    labels = altlocs.setdefault(place, {})
                    labels.setdefault(atom.altloc, set()).add(round(atom.occ, 2))
    return names, altlocs


@pytest.fixture(scope="module", params=["as written", "negative numbers"])
def handed(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("handed")
    settings = simulator(num_entries=1, max_chains=2, insertion_code_fraction=1.0)
    (path,) = write_entries(entry_ids(settings), folder / "in", settings, 5)
    if request.param != "as written":
        path = shifted(path, folder, -60)
    found = Handed(path, folder)
    assert len(found.altlocs) > 20
    assert any(code for _, _, code in found.altlocs)
    return found


def split(resid):
    number, code = re.fullmatch(r"(-?\d+)([A-Z]?)", resid).groups()
    return int(number), code


def chimerax_places(spec):
    """Residues of an atom specification: /A:45,46A/B:3."""
    found = []
    for chain, numbers in re.findall(r"/(\w+):([^/]+)", spec):
        found += [(chain, *split(resid)) for resid in numbers.split(",")]
    return found


def phenix_groups(text):
    """Every group as label -> residues, by the grammar of the file: scopes, definitions."""
    body = re.sub(r"#.*", "", text)
    (scope,) = re.findall(r"refinement\.refine\.occupancies \{(.*)\}\s*\Z", body, re.S)
    left = re.sub(r"constrained_group \{[^{}]*\}", "", scope)
    assert not left.strip()
    one = r"\(chain '(\S+)' and resseq (-?\d+) and icode '(.)' and altid '(.)'\)"
    groups = []
    for group in re.findall(r"constrained_group \{([^{}]*)\}", scope):
        lines = [line.strip() for line in group.splitlines() if line.strip()]
        labels = {}
        for line in lines:
            assert re.fullmatch(rf"selection = {one}( or {one})*", line), line
            members = re.findall(one, line)
            (label,) = {m[3] for m in members}
            labels[label] = [(c, int(n), code.strip()) for c, n, code, _ in members]
        assert len(labels) == len(lines)
        groups.append(labels)
    return groups


def refmac_groups(text):
    """The same of keywords for REFMAC."""
    ids, groups = {}, []
    lines = [line for line in text.splitlines() if line and not line.startswith("!")]
    assert lines.pop() == "occupancy refine"
    for line in lines:
        words = line.split()
        if words[:3] == ["occupancy", "group", "id"]:
            number, chain, resid, label = re.fullmatch(
                r"occupancy group id (\d+) chain (\S+) residue (\S+) alt (\S)", line
            ).groups()
            ids.setdefault(number, (label, []))[1].append((chain, *split(resid)))
        else:
            assert words[:4] == ["occupancy", "group", "alts", "complete"], line
            groups.append({ids[number][0]: ids[number][1] for number in words[4:]})
    assert sum(len(group) for group in groups) == len(ids)
    return groups


def test_occupancy_groups_are_those_of_the_written_model(handed):
    check_groups(handed.texts[".phenix.eff"], handed.texts[".refmac.txt"], handed.altlocs)


def test_occupancy_groups_of_a_prediction_are_those_of_its_joint_states(tmp_path):
    """By the model that ships; where every residue may have altlocs, groups have several."""
    predict_structures([EXAMPLE], tmp_path, settings=settings_of(heterogeneous_above=0.0))
    texts = [(tmp_path / f"example{x}").read_text() for x in (".phenix.eff", ".refmac.txt")]
    groups = check_groups(*texts, model_of(tmp_path / "example_ensemble.cif")[1])
    assert max(len(next(iter(group.values()))) for group in groups) > 2


def check_groups(phenix, refmac, altlocs):
    groups = phenix_groups(phenix)
    assert refmac_groups(refmac) == groups
    members = [place for group in groups for place in next(iter(group.values()))]
    assert sorted(members) == sorted(altlocs), "each residue with altlocs, once"
    for group in groups:
        occupancies = []
        residues = next(iter(group.values()))
        for label, places in group.items():
            assert places == residues, "all states of the same residues"
            found = {value for place in places for value in altlocs[place][label]}
            assert len(found) == 1, "one occupancy a label"
            occupancies += found
        for place in residues:
            assert set(altlocs[place]) == set(group)
        assert sum(occupancies) == pytest.approx(1.0)
    return groups


def test_residues_of_a_joint_group_are_refined_together(handed):
    rows = handed.summary.to_pylist()
    group_of = {
        (r["author_chain"], r["author_number"], r["insertion_code"]): r["group"] for r in rows
    }
    groups = [group["A"] for group in phenix_groups(handed.texts[".phenix.eff"])]
    assert any(len(places) > 1 for places in groups)
    for places in groups:
        assert len({group_of[place] for place in places}) == 1
    # With the same labels and occupancies they are never apart.
    signs = [(group_of[p[0]], len(handed.altlocs[p[0]])) for p in groups]
    assert len(set(signs)) == len(signs)


def test_attributes_are_the_numbers_of_the_table(handed):
    expected = {
        name: {
            (r["author_chain"], r["author_number"], r["insertion_code"]): r[name]
            for r in handed.summary.to_pylist()
        }
        for name in ("entropy", "heterogeneity", "confidence")
    }
    found: dict[str, dict] = {}
    name, control = "", {}
    for line in handed.texts[".defattr"].splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("\t"):
            spec, value = line[1:].split("\t")
            assert control == {"attribute": name, "match mode": "any", "recipient": "residues"}
            (place,) = chimerax_places(spec)
            found[name][place] = float(value)
        else:
            key, value = line.split(": ")
            if key == "attribute":
                name, control = value, {}
                found[name] = {}
            control[key] = value
    assert all(not values for name, values in found.items() if name not in expected), "nulls"
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, abs=1e-4)
        assert values.keys() <= handed.names.keys()


def test_chimerax_opens_what_is_there_and_shows_the_altlocs(handed):
    commands = [x for x in handed.texts[".cxc"].splitlines() if x and not x.startswith("#")]
    opened = [json.loads(x.split(" ", 1)[1]) for x in commands if x.startswith("open ")]
    assert opened == ["x_ensemble.cif", "x.defattr"]
    assert all((handed.folder / name).exists() for name in opened)
    (shown,) = (x for x in commands if x.startswith("altlocs show "))
    assert sorted(chimerax_places(shown.split()[-1])) == sorted(handed.altlocs)
    assert any(x.startswith("color byattribute r:heterogeneity ") for x in commands)


@pytest.mark.parametrize("version", ["0.9", "1"])
def test_coot_lists_the_residues_to_look_at(handed, version, monkeypatch):
    calls = []

    def read(name, recentre):
        assert (handed.folder / name).exists()
        return 7

    names = {"handle_read_draw_molecule_with_recentre": read}
    gui = {"interesting_things_gui": lambda title, things: calls.append(things)}
    monkeypatch.setitem(sys.modules, "coot", None)  # as where there is none
    monkeypatch.setitem(sys.modules, "coot_gui", None)
    if version == "1":
        for module, content in (("coot", names), ("coot_gui", gui)):
            stub = types.ModuleType(module)
            vars(stub).update(content)
            monkeypatch.setitem(sys.modules, module, stub)
    exec(handed.texts[".coot.py"], {} if version == "1" else names | gui)
    (things,) = calls
    places = [(chain, number, code) for _, _, chain, number, code, _, _ in things]
    num = len(handed.altlocs)
    assert sorted(places[:num]) == sorted(handed.altlocs)
    assert len(places) > num + 1
    assert not set(places[num:-1]) & set(handed.altlocs)
    assert {label.split(": ")[1] for label, *_ in things[num:-1]} == {"confidence 0.40"}
    assert places[-1] in handed.names
    assert things[-1][0].endswith(': left as "it" was')
    assert {(m, atom, label) for _, m, _, _, _, atom, label in things} == {(7, " CA ", "")}
    chain, number, code = places[0]
    assert things[0][0].startswith(f"{chain}/{number}{code} {handed.names[places[0]]}: A 0.")


@pytest.mark.skipif(PYMOL is None, reason="PyMOL is not installed: apt-get install pymol")
def test_pymol_runs_the_script(handed):
    report = (
        "atoms = []\n"
        "cmd.iterate('altlocs', 'atoms.append((chain, resi, b))', space={'atoms': atoms})\n"
        "open('report.json', 'w').write(json.dumps([atoms, cmd.get_names('selections')]))\n"
    )
    (handed.folder / "report.py").write_text("import json\nfrom pymol import cmd\n" + report)
    done = subprocess.run(
        [PYMOL, "-cq", "x.pml", "report.py"],
        cwd=handed.folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(handed.folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Error" not in done.stdout
    atoms, selections = json.loads((handed.folder / "report.json").read_text())
    assert sorted({(chain, *split(resi)) for chain, resi, _ in atoms}) == sorted(handed.altlocs)
    together = [g["A"] for g in phenix_groups(handed.texts[".phenix.eff"]) if len(g["A"]) > 1]
    assert len(selections) == 1 + len(together)
    b = {(chain, *split(resi)): value for chain, resi, value in atoms}
    for row in handed.summary.to_pylist():
        place = (row["author_chain"], row["author_number"], row["insertion_code"])
        if place in b:
            assert b[place] == pytest.approx(100 * row["heterogeneity"], abs=0.06)


def test_servalcat_reads_the_keywords(handed):
    keywords = pytest.importorskip("servalcat.refmac.refmac_keywords")
    read = keywords.parse_keywords(handed.texts[".refmac.txt"].splitlines())["occu"]
    groups = phenix_groups(handed.texts[".phenix.eff"])
    assert [len(ids) for complete, ids in read["const"] if complete] == [len(g) for g in groups]
    assert read["ncycle"] > 0


def test_nothing_to_refine_is_no_group(tmp_path):
    settings = simulator(num_entries=1, max_chains=1)
    (path,) = write_entries(entry_ids(settings), tmp_path, settings, 1)
    structure, _ = open_structure(path)
    summary = conform(RESIDUES.empty_table(), RESIDUES, "summary")
    texts = hand_over("x", "a-model", structure, summary)
    assert set(texts) == set(HANDOVER)
    for suffix, comment in ((".phenix.eff", "#"), (".refmac.txt", "!")):
        lines = texts[suffix].splitlines()
        assert all(line.startswith(comment) for line in lines if line), suffix
    assert all("a-model" in text for text in texts.values())


def test_a_chain_whose_name_cannot_be_selected_is_said(tmp_path):
    settings = simulator(num_entries=1, max_chains=1)
    (path,) = write_entries(entry_ids(settings), tmp_path, settings, 1)
    structure = gemmi.read_structure(str(path))
    structure.rename_chain(structure[0][0].name, "A-2")
    structure.make_mmcif_document().write_file(str(tmp_path / "odd.cif"))
    texts = Handed(tmp_path / "odd.cif", tmp_path).texts
    for suffix in (".cxc", ".refmac.txt"):
        assert "A-2 has a name that no" in texts[suffix]
        assert not re.search("^occupancy", texts[suffix], re.M)
        assert "altlocs show" not in texts[suffix]
    assert {place[0] for g in phenix_groups(texts[".phenix.eff"]) for place in g["A"]} == {"A-2"}
