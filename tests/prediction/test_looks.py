"""What of a deposited structure is worth a look, in words that people can read."""

import gemmi
import numpy as np
import pyarrow as pa
import pytest

from qfitlatent.chemistry.names import rotamer_name
from qfitlatent.chemistry.residues import CHI_DEFINED, CHI_PATH, SIDE_CHAIN_ATOMS, TOKEN
from qfitlatent.joint.candidates import Densities
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.prediction.columns import LOOKS, SCORES
from qfitlatent.prediction.commands import EXAMPLE
from qfitlatent.prediction.looks import looks_of, with_context, worst_first, write_looks
from qfitlatent.prediction.records import Scored, read_input
from qfitlatent.prediction.surroundings import USUAL
from qfitlatent.tables.columns import id_columns

LOOK = 4.0


def scored_as_deposited(given, level=0.5):
    """Each residue's density: its altlocs, and the rotamer with chi1 a third of a circle on."""
    protein = protein_from_tables(given.tables)
    token, rows = protein.token.numpy(), protein.row_residue.numpy()
    chi, defined = protein.chi.numpy().astype(float), protein.defined.numpy()
    num_modes = 8
    mode_chi, weight = np.zeros((len(token), num_modes, 4)), np.zeros((len(token), num_modes))
    weight[:, 0] = 1.0
    for n in np.unique(rows).tolist():
        own = chi[rows == n]
        other = own[0] + np.where(CHI_DEFINED[token[n]], [2 * np.pi / 3, 0, 0, 0], 0)
        every = np.concatenate((own, other[None]))
        mode_chi[n, : len(every)] = (every + np.pi) % (2 * np.pi) - np.pi
        weight[n, : len(every)] = 1.0 / len(every)
    densities = Densities(token, weight, mode_chi, np.full(mode_chi.shape, 30.0), weight, mode_chi)
    conformers = given.tables["conformers"].take(protein.conformer_row.numpy())
    at = protein.residue_row.numpy()[rows]
    num = len(rows)
    values = {"hdr_level": np.full(num, level), "is_surprising": np.full(num, level > 0.95)}
    columns = {}
    for field in SCORES:
        if field.name in conformers.column_names:
            columns[field.name] = conformers[field.name]
        elif field.name not in ("own_energy", *SCORES.names[SCORES.names.index("own_energy") :]):
            columns[field.name] = pa.nulls(num, field.type)
        if not field.nullable and pa.types.is_floating(field.type):
            columns[field.name] = values.get(field.name, np.zeros(num))
    columns |= id_columns(given.tables["residues"], at) | values
    columns["altloc"] = conformers["altloc"]
    whole = (defined == CHI_DEFINED[token[rows]]).all(axis=1)
    return Scored(protein.residue_row.numpy(), densities, pa.table(columns), rows, chi, whole)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """The example, with an atom of a ligand and a water too near to the ends of two side chains."""
    structure = gemmi.read_structure(str(EXAMPLE))
    structure.setup_entities()
    chain = structure[0][0]
    movable = ("LEU", "ILE", "LYS", "GLU", "MET", "GLN")
    single = [
        r
        for r in chain
        if r.name in movable
        and not any(a.has_altloc() for a in r)
        and {a.name for a in r} >= set(SIDE_CHAIN_ATOMS[r.name])
    ]
    for number, (residue, name) in enumerate(zip(single[:2], ("UNL", "HOH"), strict=True)):
        before, end = (residue.find_atom(x, "*").pos for x in CHI_PATH[residue.name][-2:])
        out = end - before
        atom = gemmi.Atom()
        atom.name = "O" if name == "HOH" else "C1"
        atom.element = gemmi.Element(atom.name[0])
        atom.pos = end + gemmi.Position(*(2.0 / out.length() * np.array(out.tolist())))
        other = gemmi.Residue()
        other.name, other.het_flag, other.seqid = name, "H", gemmi.SeqId(900 + number, " ")
        other.subchain = f"{chain.name}x{number}"
        other.add_atom(atom)
        chain.add_residue(other)
    path = tmp_path_factory.mktemp("crowd") / "crowd.pdb"
    structure.write_pdb(str(path))
    return path, [str(r.seqid) for r in single[:2]]


def test_a_clash_is_named_with_the_rotamer_that_fits_and_a_water_makes_way(crowd):
    path, (beside_ligand, beside_water) = crowd
    given = read_input(path)
    scored = scored_as_deposited(given)
    table, _ = with_context(given, scored, LOOK, USUAL)
    assert table.schema.equals(SCORES, check_metadata=True)
    rows = {str(row["author_number"]): row for row in table.to_pylist()}
    row = rows[beside_ligand]
    num_chi, token = len(CHI_PATH[row["name"]]) - 3, TOKEN[row["name"]]
    rotamer = rotamer_name(token, [row[f"rotamer_chi{d}_rad"] or 0.0 for d in range(1, 5)])
    assert row["is_worth_a_look"]
    assert row["contact"].endswith("/UNL 900 C1")
    assert row["contact_angstrom"] == pytest.approx(2.0, abs=0.01)
    assert row["gain"] == pytest.approx(row["look"] + num_chi, abs=1e-3)  # the usual
    assert row["reason"] == (
        f"clashes with {row['contact']} (2.0 angstrom); another rotamer ({rotamer}) fits, "
        f"{row['gain']:.1f} nat better"
    )
    assert not rows[beside_water]["is_worth_a_look"]
    assert rows[beside_water]["reason"] == ""
    assert row["reason"] in looks_of(table)["reason"].to_pylist()
    rare, _ = with_context(given, scored_as_deposited(given, level=0.99), LOOK, USUAL)
    reasons = looks_of(rare)["reason"].to_pylist()
    assert row["reason"].replace("; another", "; rare here; another") in reasons


def test_side_chains_without_all_atoms_have_no_joint_energy(crowd):
    path, _ = crowd
    given = read_input(path)
    scored = scored_as_deposited(given)
    scored.is_whole[:3] = False
    table, _ = with_context(given, scored, LOOK, USUAL)
    for name in ("own_energy", "strain", "gain", "look"):
        assert table[name].is_null().to_numpy().tolist() == [True] * 3 + [False] * (len(table) - 3)
    assert not any(table["is_worth_a_look"].to_pylist()[:3])


def test_the_lists_are_read_by_people(tmp_path):
    row = {field.name: 0 for field in LOOKS} | {"author_chain": "B", "name": "ASN"}
    row |= {"entry": "1abc", "author_number": 52, "insertion_code": "A", "altloc": "C"}
    row |= {"rotamer": "", "contact": "", "reason": 'side chain without room, "here"'}
    worse = row | {"entry": "2abc", "altloc": "", "look_nats": 12.34}
    looks = worst_first(pa.Table.from_pylist([row, worse], schema=LOOKS))
    write_looks(looks, tmp_path / "looks.csv", tmp_path / "looks.txt")
    assert (tmp_path / "looks.txt").read_text().splitlines() == [
        "entry  residue              nat  why it is worth a look",
        '2abc   B/ASN 52A           12.3  side chain without room, "here"',
        '1abc   B/ASN 52A altloc C   0.0  side chain without room, "here"',
    ]
    first, second, third = (tmp_path / "looks.csv").read_text().splitlines()
    assert "contact_angstrom" in first
    assert second.startswith('"2abc","B",52,"A","ASN",""')
    assert third.startswith('"1abc","B",52,"A","ASN","C"')


@pytest.mark.parametrize(
    ("name", "degrees", "called"),
    [
        ("LYS", (-65, 178, -179, 60), "mttp"),
        ("PHE", (-65, 85, 0, 0), "m85"),
        ("GLN", (62, 180, -20, 0), "pt-20"),
        ("SER", (179, 0, 0, 0), "t"),
        ("GLY", (0, 0, 0, 0), ""),
    ],
)
def test_rotamers_have_their_names(name, degrees, called):
    assert rotamer_name(TOKEN[name], np.deg2rad(degrees).tolist()) == called
