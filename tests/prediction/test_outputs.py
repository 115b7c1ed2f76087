"""The files of a prediction: what is built on a backbone, and what other programs read in it."""

import gzip
import math
import warnings
from functools import partial

import gemmi
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.predictions import PLACE, both_texts, placement_of
from helpers.simulated import simulator
from qfitlatent.base.files import structure_id
from qfitlatent.chemistry.geometry import circular_distance, wrap
from qfitlatent.chemistry.residues import (
    CHI_DEFINED,
    NUM_CHI,
    PI_SYMMETRIC,
    SIDE_CHAIN_ATOMS,
    TOKEN,
)
from qfitlatent.joint.states import hundredths
from qfitlatent.prediction.placing import place_side_chains
from qfitlatent.prediction.scene import BACKBONE_NAMES
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import entry_ids
from qfitlatent.structure.coordinates import open_structure
from qfitlatent.structure.preprocess import read_entry
from qfitlatent.tables.columns import CHI_COLUMNS

# --- Helpers ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Two simulated entries: insertion codes, MSE, altlocs, several chains, waters."""
    settings = simulator(num_entries=2, mse_fraction=1.0, insertion_code_fraction=1.0)
    return write_entries(entry_ids(settings), tmp_path_factory.mktemp("simulated"), settings, 5)


def random_modes(token, seed, num_modes=3):
    """weight (N,J) with one to three modes, chi (N,J,4) far enough apart to be told apart."""
    num = len(token)
    rng = np.random.default_rng(seed)
    weight = rng.dirichlet(np.full(num_modes, 2.0), size=num) + 0.05
    weight[np.arange(num_modes) >= rng.integers(1, num_modes + 1, size=num)[:, None]] = 0.0
    weight /= weight.sum(axis=1, keepdims=True)
    weight = -np.sort(-weight, axis=1)
    start = rng.uniform(-math.pi, math.pi, (num, 1, 4))
    chi = start + np.arange(num_modes)[None, :, None] * 2.0
    chi = wrap(chi)
    # A proline's ring only closes for small chi.
    chi[token == TOKEN["PRO"]] = np.deg2rad([[25, -36, 0, 0], [-25, 36, 0, 0], [10, -15, 0, 0]])
    return weight, chi


def write_both(path, tmp_path, seed=0):
    """The input's records, the placement, the keys of what was built, the paths of both formats."""
    records = read_entry(path, structure_id(path))
    placement = placement_of(records, partial(random_modes, seed=seed))
    structure, document = open_structure(path)
    built = {placement.key[n] for n in place_side_chains(structure, placement)}
    cif, pdb = tmp_path / "ensemble.cif", tmp_path / "ensemble.pdb"
    for path, text in zip((cif, pdb), both_texts(structure, document), strict=True):
        path.write_text(text)
    return records, placement, built, (cif, pdb)


def check_conformers(records, placement, built, path, tolerance):
    """Read back by our own reader: altlocs, occupancies and chi are those that were asked for."""
    again = read_entry(path, "again", max_conformers=26)
    rows = again.conformers.to_pylist()
    names = {(r["chain"], r["index"]): r for r in again.residues.to_pylist()}
    found: dict[tuple, list] = {}
    for row in rows:
        r = names[row["chain"], row["index"]]
        key = (r["author_chain"], r["author_number"], r["insertion_code"], r["name"])
        found.setdefault(key, []).append(row)
    nameless = "_" if path.suffix == ".cif" else ""
    author = {
        tuple(r[name] for name in PLACE): r["author_chain"] or nameless
        for r in records.residues.to_pylist()
    }
    num_checked = 0
    for n, key in enumerate(placement.key):
        _, number, code, name, _ = key
        token = placement.token[n]
        if key not in built or NUM_CHI[token] == 0:
            continue
        wanted = hundredths(placement.weight[n : n + 1])[0]
        conformers = found[author[key], number, code, name]
        modes = np.flatnonzero(wanted)
        labels = [""] if len(modes) == 1 else ["A", "B", "C"][: len(modes)]
        assert sorted(row["altloc"] for row in conformers) == labels
        # The largest: a backbone of lower occupancy, which one mode shares, stays as it was.
        assert sum(round(100 * row["occupancy_max"]) for row in conformers) == 100
        for mode, label in zip(modes, labels, strict=True):
            (row,) = (row for row in conformers if row["altloc"] == label)
            assert round(100 * row["occupancy_max"]) == wanted[mode]
            assert row["num_atoms_missing"] == 0
            chi = np.array([row[c] for c in CHI_COLUMNS], dtype=float)
            has = CHI_DEFINED[token]
            wanted_chi = placement.chi[n, mode, has]
            error = circular_distance(chi[has], wanted_chi, PI_SYMMETRIC[token, has])
            assert error.max() < tolerance, (key, np.rad2deg(chi), placement.chi[n, mode])
        num_checked += 1
    assert num_checked > 0.5 * (NUM_CHI[placement.token] > 0).sum()
    return again


def minimal_pdb(lines, name, tmp_path):
    path = tmp_path / name
    path.write_text("".join(f"{line}\n" for line in lines) + "END\n")
    return path


# --- Occupancies ------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.floats(0.0, 1.0, allow_subnormal=False), min_size=5, max_size=5),
        min_size=1,
        max_size=8,
    )
)
def test_occupancies_sum_to_exactly_one_hundred(rows):
    weight = np.array(rows)
    shares = hundredths(weight)
    some = weight.sum(axis=1) > 0
    assert (shares[some].sum(axis=1) == 100).all()
    assert (shares[~some] == 0).all()
    assert ((shares > 0) == (weight > 0)).all()
    exact = 100 * weight[some] / weight[some].sum(axis=1, keepdims=True)
    # Only a share that would have vanished, and the largest that pays for it, move by more.
    assert (np.abs(shares[some] - exact) < 1 + 5 * (shares[some] <= 1).sum(1, keepdims=True)).all()


def test_largest_remainder_by_hand():
    weight = np.array([[1 / 3, 1 / 3, 1 / 3], [0.995, 0.005, 0], [0.9999, 0.0001, 0], [1, 0, 0]])
    np.testing.assert_array_equal(
        hundredths(weight), [[34, 33, 33], [100 - 1, 1, 0], [99, 1, 0], [100, 0, 0]]
    )


# --- Ensembles --------------------------------------------------------------------------------


def test_written_files_hold_the_conformers_that_were_placed(simulated, tmp_path):
    for seed, path in enumerate(simulated):
        records, placement, built, (cif, pdb) = write_both(path, tmp_path, seed)
        assert any(key[2] for key in placement.key)  # insertion codes
        assert any(key[3] == "MSE" for key in placement.key)
        # PDB coordinates have three decimals, on bonds of 1.5 angstrom.
        again = check_conformers(records, placement, built, cif, 1e-3)
        check_conformers(records, placement, built, pdb, 2e-3)
        kept = ["chain", "index", "author_chain", "author_number", "insertion_code", "label_seq"]
        assert again.residues.select(kept).equals(records.residues.select(kept))


def test_everything_else_is_kept(simulated, tmp_path):
    path = simulated[0]
    before, _ = open_structure(path)
    *_, (cif, pdb) = write_both(path, tmp_path)
    after = gemmi.read_structure(str(cif))
    assert after.cell == before.cell
    assert after.spacegroup_hm == before.spacegroup_hm
    for structure in (after, gemmi.read_structure(str(pdb))):
        structure.setup_entities()
        for chain, old in zip(structure[0], before[0], strict=True):
            for residue, source in zip(chain, old, strict=True):
                assert (residue.name, str(residue.seqid)) == (source.name, str(source.seqid))
                if source.entity_type == gemmi.EntityType.Polymer:
                    continue
                for atom, original in zip(residue, source, strict=True):  # waters
                    assert atom.name == original.name
                    assert atom.pos.dist(original.pos) < 1e-3
                    assert atom.occ == pytest.approx(original.occ, abs=0.005)


def test_backbone_elements_and_b_factors(simulated, tmp_path):
    path = simulated[1]
    _, placement, _, (cif, _) = write_both(path, tmp_path)
    after = gemmi.read_structure(str(cif))
    before, _ = open_structure(path)
    old = {(r.subchain, str(r.seqid)): r for c in before[0] for r in c}
    altloc = {
        (k[0], f"{k[1]}{k[2]}"): a
        for k, a in zip(placement.key, placement.frame_altloc, strict=True)
    }
    num_selenium = 0
    for chain in after[0]:
        for residue in chain:
            place = (residue.subchain, str(residue.seqid))
            if place not in altloc:
                continue
            backbone = [residue.find_atom(name, "\0") for name in ("N", "CA", "C")]
            for atom in backbone:
                source = old[place].find_atom(atom.name, altloc[place] or "\0")
                assert atom.pos.dist(source.pos) < 1e-3
            mean_b = np.mean([atom.b_iso for atom in backbone])
            token = TOKEN["MET" if residue.name == "MSE" else residue.name]
            for atom in residue:
                if atom.name in BACKBONE_NAMES or NUM_CHI[token] == 0:
                    continue
                assert atom.b_iso == pytest.approx(mean_b, abs=0.02)
                num_selenium += atom.element.name == "Se"
                expected = "Se" if atom.name == "SE" else atom.name[0]
                assert atom.element.name == expected
            names = {atom.name for atom in residue if atom.name not in BACKBONE_NAMES}
            wanted = set(SIDE_CHAIN_ATOMS["MET" if residue.name == "MSE" else residue.name])
            if residue.name == "MSE":
                wanted = wanted - {"SD"} | {"SE"}
            assert names == wanted
    assert num_selenium > 0


def chirality(residue):
    """(N-CA) x (C-CA) . (CB-CA), positive for L."""
    n, ca, c, cb = (
        np.array(residue.find_atom(name, "\0").pos.tolist()) for name in ("N", "CA", "C", "CB")
    )
    return np.dot(np.cross(n - ca, c - ca), cb - ca)


def test_chirality_is_l_and_rings_are_closed(simulated, tmp_path):
    _, _, built, (cif, _) = write_both(simulated[0], tmp_path)
    prolines = 0
    for chain in gemmi.read_structure(str(cif))[0]:
        for residue in chain:
            number = residue.seqid
            place = (residue.subchain, number.num, number.icode.strip(), residue.name)
            if (*place, residue.label_seq) not in built:
                continue
            assert chirality(residue) > 2.0
            if residue.name == "PRO":
                n = residue.find_atom("N", "\0").pos
                ends = [atom.pos.dist(n) for atom in residue if atom.name == "CD"]
                assert np.allclose(ends, 1.47, atol=0.03)
                prolines += len(ends)
    assert prolines > 0


def test_other_programs_read_both_formats(simulated, tmp_path):
    biotite_pdbx = pytest.importorskip("biotite.structure.io.pdbx")
    biotite_pdb = pytest.importorskip("biotite.structure.io.pdb")
    bio = pytest.importorskip("Bio.PDB")
    _, placement, _, (cif, pdb) = write_both(simulated[0], tmp_path)
    num_atoms = sum(len(r) for c in gemmi.read_structure(str(cif))[0] for r in c)
    multi = (hundredths(placement.weight) > 0).sum(1) > 1
    num_multi = int((multi & (NUM_CHI[placement.token] > 0)).sum())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of chains that are not contiguous, and the like
        arrays = [
            biotite_pdbx.get_structure(
                biotite_pdbx.CIFFile.read(str(cif)),
                model=1,
                altloc="all",
                extra_fields=["occupancy"],
            ),
            biotite_pdb.PDBFile.read(str(pdb)).get_structure(
                model=1, altloc="all", extra_fields=["occupancy"]
            ),
        ]
        parsed = [
            bio.MMCIFParser(QUIET=True).get_structure("x", str(cif)),
            bio.PDBParser(QUIET=True).get_structure("x", str(pdb)),
        ]
    for array in arrays:
        assert array.array_length() == num_atoms
        assert np.isfinite(array.coord).all()
        assert set(array.altloc_id) == {".", "A", "B", "C"} or set(array.altloc_id) == {
            " ", "A", "B", "C",
        }  # fmt: skip
    for structure in parsed:
        residues = [r for r in structure[0].get_residues() if r.id[0] != "W"]
        disordered = [r for r in residues if r.is_disordered()]
        assert len(disordered) == num_multi
        for residue in disordered:
            for atom in residue:
                if atom.is_disordered():
                    total = sum(a.get_occupancy() for a in atom.disordered_get_list())
                    assert total == pytest.approx(1.0, abs=1e-6)


def test_the_mmcif_is_consistent_by_itself(simulated, tmp_path):
    """What gemmi checks without a dictionary, and loops whose columns all have the same length."""
    *_, (cif, _) = write_both(simulated[0], tmp_path)
    document = gemmi.cif.read(str(cif))
    document.check_for_missing_values()
    document.check_for_duplicates()
    atoms = document[0].get_mmcif_category("_atom_site.")
    assert len({len(column) for column in atoms.values()}) == 1
    for name in ("label_asym_id", "label_seq_id", "auth_asym_id", "auth_seq_id", "auth_atom_id"):
        assert name in atoms
    assert atoms["id"] == [str(i + 1) for i in range(len(atoms["id"]))]
    assert document[0].find_value("_qfitlatent.model_sha256") == "0" * 64


# --- Inputs that are not as they should be ----------------------------------------------------


def residue_lines(structure, only=None):
    """ATOM records of a structure as PDB text lines."""
    return [
        line
        for line in structure.make_pdb_string().splitlines()
        if line.startswith(("ATOM", "HETATM")) and (only is None or line[12:16].strip() in only)
    ]


@pytest.fixture(scope="module")
def one_chain(simulated):
    structure, _ = open_structure(simulated[0])
    structure.remove_alternative_conformations()
    structure.remove_waters()
    for residue in structure[0].all():
        residue.atom.occ = 1.0
    return structure


def test_a_backbone_alone_gets_side_chains(one_chain, tmp_path):
    path = minimal_pdb(residue_lines(one_chain, ("N", "CA", "C", "O")), "bb.pdb", tmp_path)
    records, placement, built, (cif, pdb) = write_both(path, tmp_path)
    check_conformers(records, placement, built, cif, 1e-3)
    check_conformers(records, placement, built, pdb, 2e-3)
    alanines = sum(key[3] == "ALA" for key in placement.key)
    assert alanines
    assert len(built) == sum(key[3] != "GLY" for key in placement.key)


def test_only_a_missing_cb_of_alanine_is_built(one_chain, tmp_path):
    lines = residue_lines(one_chain)
    alanines = [i for i, line in enumerate(lines) if line[12:20] == " CB  ALA"]
    assert len(alanines) >= 2
    lost = lines.pop(alanines[0])
    path = minimal_pdb(lines, "cb.pdb", tmp_path)
    _, _, built, (cif, _) = write_both(path, tmp_path)
    assert [key for key in built if key[3] == "ALA"] == [
        (gemmi_subchain(path, lost), int(lost[22:26]), lost[26].strip(), "ALA", None)
    ]
    cbs = {
        str(r.seqid): r.find_atom("CB", "\0").pos
        for c in gemmi.read_structure(str(cif))[0]
        for r in c
        if r.name == "ALA" and c.name == lost[21]
    }
    at = gemmi.Position(*(float(lost[i : i + 8]) for i in (30, 38, 46)))
    assert cbs[lost[22:27].strip()].dist(at) < 0.1


def gemmi_subchain(path, line):
    structure, _ = open_structure(path)
    for residue in structure[0][line[21]]:
        if str(residue.seqid) == line[22:27].strip():
            return residue.subchain
    raise AssertionError(line)


def test_a_residue_without_backbone_stays_as_it_was(one_chain, tmp_path):
    lines = residue_lines(one_chain)
    chosen = next(line for line in lines[40:] if line[12:16].strip() == "CA" and "GLY" not in line)
    place = chosen[17:27]
    kept = [x for x in lines if not (x[17:27] == place and x[12:16].strip() == "C")]
    path = minimal_pdb(kept, "nobackbone.pdb", tmp_path)
    records, placement, built, (cif, pdb) = write_both(path, tmp_path)
    check_conformers(records, placement, built, cif, 1e-3)
    before = [x for x in kept if x[17:27] == place]
    after = [x for x in pdb.read_text().splitlines() if x[17:27] == place and x[:4] == "ATOM"]
    assert [x[12:66] for x in after] == [x[12:66] for x in before]


def test_alternative_backbones_become_the_one_of_the_frame(one_chain, tmp_path):
    lines = []
    for line in residue_lines(one_chain):
        if line[22:27] == residue_lines(one_chain)[60][22:27] and line[21] == "A":
            for label, occupancy, shift in (("A", 0.35, 0.0), ("B", 0.65, 0.4)):
                x = float(line[30:38]) + shift
                lines.append(
                    f"{line[:16]}{label}{line[17:30]}{x:8.3f}{line[38:54]}{occupancy:6.2f}{line[60:]}"
                )
        else:
            lines.append(line)
    path = minimal_pdb(lines, "alternative.pdb", tmp_path)
    records, placement, built, (cif, _) = write_both(path, tmp_path)
    assert "B" in placement.frame_altloc
    check_conformers(records, placement, built, cif, 1e-3)
    for chain in gemmi.read_structure(str(cif))[0]:
        for residue in chain:
            for name in ("N", "CA", "C", "O"):
                atoms = [atom for atom in residue if atom.name == name]
                assert len(atoms) == 1
                assert not atoms[0].has_altloc()
                assert atoms[0].occ == 1.0


def test_several_residue_types_at_one_place_are_left_alone(one_chain, tmp_path):
    lines = residue_lines(one_chain)
    first = next(line for line in lines if line[17:20] == "SER")
    out = []
    for line in lines:
        if line[17:27] != first[17:27]:
            out.append(line)
            continue
        out.append(f"{line[:16]}A{line[17:54]}  0.60{line[60:]}")
    at = max(i for i, line in enumerate(out) if line[17:27] == first[17:27]) + 1
    other = [
        f"{line[:16]}BTHR{line[20:54]}  0.40{line[60:]}"
        for line in lines
        if line[17:27] == first[17:27] and line[12:16].strip() in ("N", "CA", "C", "O", "CB")
    ]
    out[at:at] = other
    path = minimal_pdb(out, "micro.pdb", tmp_path)
    _, _, built, (_, pdb) = write_both(path, tmp_path)
    assert not any(key[1:4] == (int(first[22:26]), first[26].strip(), "SER") for key in built)
    place = [x[12:66] for x in pdb.read_text().splitlines() if x[21:27] == first[21:27]]
    wanted = [x[12:66] for x in out if x[21:27] == first[21:27]]
    assert [x for x in place if x[:4] != "    "] == wanted


def test_nucleic_acids_ligands_and_d_residues_stay(one_chain, tmp_path):
    extra = [
        "HETATM 9001  C1  LIG Z   1      50.000  50.000  50.000  1.00 20.00           C",
        "HETATM 9002  N1  LIG Z   1      51.400  50.000  50.000  1.00 20.00           N",
    ]
    dna = [
        f"ATOM   {9100 + i:>4}  {name:<3}  DG X   1      {60 + i:6.3f}  60.000  60.000  1.00 20.00"
        f"           {name[0]}"
        for i, name in enumerate(("P", "OP1", "O5'", "C5'", "C4'", "N9"))
    ]
    path = minimal_pdb([*residue_lines(one_chain), "TER", *dna, "TER", *extra], "mix.pdb", tmp_path)
    records, placement, built, (cif, pdb) = write_both(path, tmp_path)
    check_conformers(records, placement, built, cif, 1e-3)
    text = [line[12:54] for line in pdb.read_text().splitlines()]
    for line in (*extra, *dna):
        assert line[12:54] in text


def test_a_chain_without_a_name_is_predicted_too(one_chain, tmp_path):
    """As in entries before 2000, such as 1BHE."""
    first = [x for x in residue_lines(one_chain) if x[21] == residue_lines(one_chain)[0][21]]
    ssbond = "SSBOND   1 CYS      {0}    CYS      {0}".format("  1")
    path = minimal_pdb([ssbond, *(f"{x[:21]} {x[22:]}" for x in first)], "old.pdb", tmp_path)
    records, placement, built, (cif, pdb) = write_both(path, tmp_path)
    check_conformers(records, placement, built, cif, 1e-3)
    check_conformers(records, placement, built, pdb, 2e-3)


@pytest.mark.parametrize("change", [str.lower, lambda line: line])
def test_other_names_of_residues_are_built(one_chain, tmp_path, change):
    """Names of force fields and lower case: built as their residues, under the names they have."""
    other = {"HIS": "HIE", "CYS": "CYX", "GLU": "GLH", "LYS": "LYN", "ASP": "ASH"}
    lines = [
        line[:17] + change(other.get(line[17:20], line[17:20])) + line[20:]
        for line in residue_lines(one_chain)
    ]
    path = minimal_pdb(lines, "names.pdb", tmp_path)
    _, placement, built, (cif, _) = write_both(path, tmp_path)
    names = {key[3] for key in placement.key}
    assert len(names & {change(name) for name in other.values()}) >= 3
    with_chi = {k for k, n in zip(placement.key, NUM_CHI[placement.token], strict=True) if n}
    assert with_chi == built  # ALA and GLY have theirs
    after = gemmi.read_structure(str(cif))[0]
    assert {residue.name for chain in after for residue in chain} == names


# --- Formats ----------------------------------------------------------------------------------


def test_pdb_format_says_when_it_has_no_room(one_chain):
    copy = one_chain.clone()
    copy[0][0].name = "ABC"
    assert both_texts(copy, None)[1] is None


def test_gzipped_and_misnamed_files_are_opened_by_content(simulated, tmp_path):
    text = gzip.decompress(simulated[0].read_bytes())
    path = tmp_path / "actually_cif.pdb"
    path.write_bytes(text)
    structure, document = open_structure(path)
    assert document is not None
    assert len(structure[0]) > 0


# --- Real residues ----------------------------------------------------------------------------


def test_rebuilding_files_from_their_own_chi(some_files):
    """Placed with the chi of the deposited conformers, side chains come out where they were."""
    deviations = []
    for path in some_files:
        records = read_entry(path, path.stem)
        own = own_chi(records)
        placement = placement_of(records, lambda _, own=own: (np.ones((len(own), 1)), own[:, None]))
        structure, _ = open_structure(path)
        found = {}
        for chain in structure[0]:
            for residue in chain:
                place = (residue.subchain, residue.seqid.num, residue.seqid.icode.strip())
                found[place] = {a.name: a.pos for a in residue if not a.has_altloc()}
        whole = np.isfinite(np.where(CHI_DEFINED[placement.token], own, 0.0)).all(1)
        place_side_chains(structure, placement)
        after = {
            (r.subchain, r.seqid.num, r.seqid.icode.strip()): r for c in structure[0] for r in c
        }
        for n, key in enumerate(placement.key):
            if not whole[n] or NUM_CHI[placement.token[n]] == 0 or key[3] not in TOKEN:
                continue
            squares = [
                atom.pos.dist(found[key[:3]][atom.name]) ** 2
                for atom in after[key[:3]]
                if atom.name in SIDE_CHAIN_ATOMS[key[3]] and atom.name in found[key[:3]]
            ]
            if len(squares) == len(SIDE_CHAIN_ATOMS[key[3]]):
                deviations.append(math.sqrt(np.mean(squares)))
    assert len(deviations) > 100
    assert np.median(deviations) < 0.25


def own_chi(records):
    """(N,4) chi of the first conformer of each residue with a frame; nan where missing."""
    conformers = records.conformers.to_pandas()
    first = conformers[conformers["rank"] == 0].set_index(["chain", "index"])[CHI_COLUMNS]
    residues = records.residues.filter(records.frames["rotation"].is_valid()).to_pandas()
    return first.reindex(pd.MultiIndex.from_frame(residues[["chain", "index"]])).to_numpy(float)
