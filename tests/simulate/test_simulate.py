"""The simulator: files are what the truth says, and the truth is what the docstrings say."""

import gzip
from dataclasses import replace

import gemmi
import numpy as np
import pyarrow as pa
import pytest
import torch

from helpers.simulated import simulator
from helpers.truth import truth_mixture
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.chemistry.residues import CHI_ATOMS, NUM_CHI, ONE_LETTER, RESIDUE_TYPES, TOKEN
from qfitlatent.density.mixture import VonMisesMixture
from qfitlatent.simulate.entry import SimulatedEntry, simulate_entry, write_entries
from qfitlatent.simulate.settings import entry_ids
from qfitlatent.simulate.truth import read_truth, true_mixture

SETTINGS = simulator(num_entries=40, num_families=10)
SEED = 3


@pytest.fixture(scope="module")
def entries():
    return [simulate_entry(entry, SEED, SETTINGS) for entry in entry_ids(SETTINGS)]


@pytest.fixture(scope="module")
def truth(entries) -> pa.Table:
    return pa.concat_tables([entry.truth for entry in entries])


def as_gemmi(entry: SimulatedEntry) -> gemmi.Structure:
    """The entry as gemmi reads it."""
    return gemmi.make_structure_from_block(gemmi.cif.read_string(entry.mmcif).sole_block())


def protein_residues(model: gemmi.Model) -> dict[str, list[gemmi.Residue]]:
    """Residues by label chain, waters left out."""
    found: dict[str, list[gemmi.Residue]] = {}
    for chain in model:
        for residue in chain:
            if residue.name != "HOH":
                found.setdefault(residue.subchain, []).append(residue)
    return found


def conformers(residue: gemmi.Residue) -> dict[str, dict[str, gemmi.Atom]]:
    """Altloc -> its atoms and the blank ones it shares (SPEC 3)."""
    labels = sorted({a.altloc for a in residue} - {"\0"}) or ["\0"]
    blank = {a.name: a for a in residue if a.altloc == "\0"}
    return {label: blank | {a.name: a for a in residue if a.altloc == label} for label in labels}


def parent(name: str) -> str:
    return "MET" if name == "MSE" else name


def observed(entries) -> dict[str, np.ndarray]:
    """Chi of every complete conformer in the files, read by gemmi alone; 0 where undefined."""
    rows = {key: [] for key in ("entry", "chain", "index", "chi", "occupancy", "num")}
    for entry in entries:
        for chain, residues in protein_residues(as_gemmi(entry)[0]).items():
            for index, residue in enumerate(residues):
                quads = CHI_ATOMS[parent(residue.name)]
                if not quads:
                    continue
                alternatives = conformers(residue)
                for atoms in alternatives.values():
                    if "SE" in atoms:
                        atoms["SD"] = atoms["SE"]
                    if not all(name in atoms for quad in quads for name in quad):
                        continue
                    chi = np.zeros(4)
                    for d, quad in enumerate(quads):
                        chi[d] = gemmi.calculate_dihedral(*(atoms[name].pos for name in quad))
                    rows["entry"].append(entry.entry)
                    rows["chain"].append(chain)
                    rows["index"].append(index)
                    rows["chi"].append(chi)
                    rows["occupancy"].append(atoms[quads[-1][-1]].occ)
                    rows["num"].append(len(alternatives))
    return {key: np.array(value) for key, value in rows.items()}


@pytest.fixture(scope="module")
def seen(entries) -> dict[str, np.ndarray]:
    return observed(entries)


@pytest.fixture(scope="module")
def seen_truth(seen, truth) -> VonMisesMixture:
    """The truth of each conformer of ``seen``, looked up by key."""
    keys, mixture = truth_mixture(truth)
    row = {
        key: i
        for i, key in enumerate(
            zip(*(keys[c].to_pylist() for c in ("entry", "chain", "index")), strict=True)
        )
    }
    wanted = zip(*(seen[c].tolist() for c in ("entry", "chain", "index")), strict=True)
    return mixture.select(torch.tensor([row[key] for key in wanted]))


# --- Determinism ------------------------------------------------------------------------------


def test_bytes_depend_on_id_seed_and_settings_alone(tmp_path):
    ids = entry_ids(SETTINGS)[:4]
    write_entries(ids, tmp_path / "a", SETTINGS, SEED)
    write_entries(reversed(ids), tmp_path / "b", SETTINGS, SEED)
    write_entries(ids, tmp_path / "c", SETTINGS, SEED + 1)
    names = sorted(
        p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()
    )
    assert [str(n) for n in names] == sorted(
        [f"{i}.cif.gz" for i in ids] + [f"truth/{i}.parquet" for i in ids]
    )
    for name in names:
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes()
        assert content != (tmp_path / "c" / name).read_bytes()


def test_more_entries_of_the_same_families_leave_the_others_as_they_were():
    more = replace(SETTINGS, num_entries=400)
    assert (
        simulate_entry("sim00007", SEED, more).mmcif
        == simulate_entry("sim00007", SEED, SETTINGS).mmcif
    )


def test_file_on_disk_is_the_entry_and_its_truth(tmp_path):
    ids = ["sim00000", "sim00001"]
    paths = write_entries(ids, tmp_path, SETTINGS, SEED)
    direct = [simulate_entry(entry, SEED, SETTINGS) for entry in ids]
    for path, entry in zip(paths, direct, strict=True):
        assert gzip.decompress(path.read_bytes()).decode() == entry.mmcif
        assert gemmi.read_structure(str(path)).name == entry.entry
    assert read_truth(tmp_path, ids).equals(pa.concat_tables([e.truth for e in direct]))
    with pytest.raises(QfitLatentError, match="sim00009"):
        read_truth(tmp_path, ["sim00009"])


# --- The files say what the truth says --------------------------------------------------------


@pytest.fixture(scope="module")
def excess(seen, seen_truth) -> np.ndarray:
    """What each conformer costs beyond what its distribution costs on average, nats."""
    chi = torch.from_numpy(seen["chi"])
    surprise = -seen_truth.log_prob(chi, torch.ones(chi.shape, dtype=torch.bool))
    return (surprise - seen_truth.entropy()).numpy()


def test_observed_chi_have_the_entropy_of_the_truth(excess):
    """The whole chain at once: sampling, folding, building, altlocs, keys of the truth."""
    assert len(excess) > 3000
    assert abs(excess.mean()) < 4 * excess.std() / np.sqrt(len(excess))
    assert excess.std() < 2.0  # a wrong key or quadruple would cost hundreds of nats


def test_occupancies_know_nothing_of_the_chi(seen, excess):
    """SPEC 7 weights by occupancy: its expectation is the entropy only if these are independent."""
    multiple = seen["num"] > 1
    weight = seen["occupancy"] - 1 / seen["num"]
    product = (weight * (excess - excess.mean()))[multiple]
    assert abs(product.mean()) < 4 * product.std() / np.sqrt(multiple.sum())


def test_symmetric_angles_are_deposited_folded(seen, seen_truth):
    symmetric = seen["chi"][seen_truth.symmetric.numpy()]
    assert len(symmetric) > 200
    assert np.abs(symmetric).max() <= np.pi / 2 + 2e-3  # coordinates have three decimals
    others = seen["chi"][(seen_truth.chi_mask & ~seen_truth.symmetric).numpy()]
    assert np.abs(others).max() > 3.0


def test_truth_can_be_read_off_the_backbone_and_the_sequence(entries, truth):
    """Recomputed from the file's coordinates: nothing hidden moves the generator."""
    keys, mixture = truth_mixture(truth)
    weights, means, count = [], [], 0
    for entry in entries[:8]:
        for residues in protein_residues(as_gemmi(entry)[0]).values():
            main = [{a.name: a.pos for a in r if a.altloc in "\0A"} for r in residues]
            num = len(main)
            phi, psi, bonded = np.zeros(num), np.zeros(num), np.zeros(num, dtype=bool)
            for i in range(num - 1):
                here, there = main[i], main[i + 1]
                bonded[i] = here["C"].dist(there["N"]) < 2.0
                psi[i] = gemmi.calculate_dihedral(here["N"], here["CA"], here["C"], there["N"])
                phi[i + 1] = gemmi.calculate_dihedral(
                    here["C"], there["N"], there["CA"], there["C"]
                )
            token = np.array([TOKEN[parent(r.name)] for r in residues])
            again = true_mixture(token, phi, psi, bonded, SETTINGS.context_strength)
            has_chi = NUM_CHI[token] > 0
            weights.append(again.weight[has_chi])
            means.append(again.mean[has_chi])
            count += has_chi.sum()
    np.testing.assert_allclose(np.concatenate(weights), mixture.log_weight.exp()[:count], atol=0.02)
    turned = np.angle(np.exp(1j * (np.concatenate(means) - mixture.mean.numpy()[:count])))
    assert np.abs(turned).max() < 0.01
    assert keys["entry"][count - 1].as_py() == entries[7].entry


# --- The density ------------------------------------------------------------------------------


def test_context_matters_and_strength_zero_is_a_library(truth):
    """A model that sees the context can beat the library of its type by far."""
    keys, mixture = truth_mixture(truth)
    token, weight = keys["token"].to_numpy(), mixture.log_weight.exp().numpy()
    rotamer = -(weight * np.log(np.maximum(weight, 1e-300))).sum(axis=1)
    library = np.zeros_like(rotamer)
    for t in np.unique(token):
        mean = weight[token == t].mean(axis=0)
        library[token == t] = -(mean * np.log(np.maximum(mean, 1e-300))).sum()
    assert library.mean() - rotamer.mean() > 0.4  # nats that only the context can give
    assert rotamer.mean() > 0.3  # and yet residues stay heterogeneous

    flat = simulate_entry("sim00000", SEED, replace(SETTINGS, context_strength=0.0)).truth
    keys, mixture = truth_mixture(flat)
    token, weight = keys["token"].to_numpy(), mixture.log_weight.exp().numpy()
    for t in np.unique(token):
        assert np.ptp(weight[token == t], axis=0).max() < 1e-12


def test_context_is_smooth_in_phi_and_psi():
    token = np.full(3, TOKEN["LEU"])
    bonded = np.array([True, True, False])

    def weight(phi: float, psi: float) -> np.ndarray:
        strength = SETTINGS.context_strength
        return true_mixture(token, np.full(3, phi), np.full(3, psi), bonded, strength).weight[1]

    for phi in np.linspace(-np.pi, np.pi, 25):
        for psi in np.linspace(-np.pi, np.pi, 25):
            assert np.abs(weight(phi + 0.01, psi) - weight(phi, psi)).max() < 0.02
    np.testing.assert_allclose(weight(-np.pi, 1.0), weight(np.pi, 1.0), atol=1e-12)


# --- Families ---------------------------------------------------------------------------------


def sequence(entry) -> str:
    block = gemmi.cif.read_string(entry.mmcif).sole_block()
    return block.find_value("_entity_poly.pdbx_seq_one_letter_code_can").strip(";\n")


def best_identity(a: str, b: str) -> float:
    """Best ungapped identity over shifts, of the shorter sequence."""
    best = 0
    for shift in range(-len(b) + 1, len(a)):
        best = max(best, sum(x == y for x, y in zip(a[max(0, shift) :], b[max(0, -shift) :])))  # noqa: B905
    return best / min(len(a), len(b))


def test_members_are_alike_and_families_are_strangers(entries):
    sequences = [sequence(e) for e in entries[:20]]
    for i in range(10):  # entries i and i + 10 are of one family
        assert best_identity(sequences[i], sequences[i + 10]) > 0.35
        for j in range(i):
            assert best_identity(sequences[i], sequences[j]) < 0.3


def test_all_chains_of_an_entry_are_one_sequence(entries):
    assert any(len(protein_residues(as_gemmi(e)[0])) > 1 for e in entries)
    for entry in entries[:20]:
        declared = sequence(entry)
        assert set(declared) <= set(ONE_LETTER)
        for residues in protein_residues(as_gemmi(entry)[0]).values():
            for residue in residues:
                assert (
                    parent(residue.name)
                    == RESIDUE_TYPES[ONE_LETTER.index(declared[residue.label_seq - 1])]
                )


# --- The disorder of real files ---------------------------------------------------------------


def test_altlocs_and_occupancies(entries):
    multiple = total = uneven = whole = shared_cb = 0
    for entry in entries:
        for residues in protein_residues(as_gemmi(entry)[0]).values():
            for residue in residues:
                if NUM_CHI[TOKEN[parent(residue.name)]] == 0:
                    assert {a.altloc for a in residue} == {"\0"}
                    continue
                total += 1
                labels = {a.altloc for a in residue} - {"\0"}
                if not labels:
                    continue
                multiple += 1
                assert labels == set("ABCDEF"[: len(labels)])
                assert 2 <= len(labels) <= SETTINGS.max_altlocs
                occupancy = {a.altloc: a.occ for a in residue if a.altloc in labels}
                assert min(occupancy.values()) > 0
                uneven += abs(sum(occupancy.values()) - 1) > 0.005
                blank = {a.name for a in residue if a.altloc == "\0"}
                whole += "CA" not in blank
                shared_cb += "CB" in blank
                for label in labels:  # every conformer is complete but for the atoms cut from all
                    assert {a.name for a in residue if a.altloc == label} == {
                        a.name for a in residue if a.altloc == "A"
                    }
    assert 0.30 < multiple / total < 0.40
    assert 0 < uneven / multiple < 0.1
    assert 0.08 < whole / multiple < 0.22
    assert 0.3 < shared_cb / multiple < 0.6


def test_files_hold_every_oddity(entries):
    insertion = missing_atoms = gaps = selenium = waters = 0
    for entry in entries:
        structure = as_gemmi(entry)
        assert 0.9 <= structure.resolution <= 1.9
        assert structure.meta.refinement[0].r_free > 0.1
        assert "imulated" in structure.info["_struct.title"]
        assert structure.spacegroup_hm == "P 1"
        waters += sum(r.name == "HOH" for c in structure[0] for r in c)
        for residues in protein_residues(structure[0]).values():
            numbers = [(r.seqid.num, r.seqid.icode) for r in residues]
            assert len(set(numbers)) == len(numbers)
            insertion += any(r.seqid.icode != " " for r in residues)
            gaps += int(np.any(np.diff([r.label_seq for r in residues]) > 1))
            for residue in residues:
                selenium += residue.name == "MSE"
                assert (residue.het_flag == "H") == (residue.name == "MSE")
                heavy = {a.name for a in residue}
                missing_atoms += not all(
                    {n.replace("SD", "SE") if residue.name == "MSE" else n for n in quad} <= heavy
                    for quad in CHI_ATOMS[parent(residue.name)]
                )
                assert {"N", "CA", "C", "O"} <= heavy
    assert insertion > 0
    assert missing_atoms > 3
    assert gaps > 0
    assert selenium > 0
    assert waters == SETTINGS.num_waters * len(entries)


def test_proline_rings_are_closed_in_the_files(entries):
    lengths = []
    for entry in entries[:10]:
        for residues in protein_residues(as_gemmi(entry)[0]).values():
            for residue in residues:
                if residue.name == "PRO":
                    lengths += [
                        atoms["N"].pos.dist(atoms["CD"].pos)
                        for atoms in conformers(residue).values()
                        if "CD" in atoms
                    ]
    assert len(lengths) > 5
    assert np.abs(np.array(lengths) - 1.473).max() < 0.03


def test_chains_are_folded_enough_for_burial_to_vary(entries):
    count = []
    for entry in entries[:10]:
        for residues in protein_residues(as_gemmi(entry)[0]).values():
            ca = np.array([r.find_atom("CA", "*").pos.tolist() for r in residues])
            distance = np.linalg.norm(ca[:, None] - ca[None], axis=-1)
            count += ((distance < 10).sum(axis=1) - 1).tolist()
    assert np.quantile(count, 0.9) - np.quantile(count, 0.1) >= 6


# --- Settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_entries": 0}, {"num_entries": 100_001}, {"num_families": 0}, {"max_chains": 0},
        {"multiconformer_fraction": 1.5}, {"min_residues": 90, "max_residues": 60},
        {"max_altlocs": 1}, {"max_altlocs": 7}, {"num_waters": -1},
        {"min_residues": 5},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(QfitLatentError, match=next(iter(wrong))):
        simulator(**wrong)


@pytest.mark.parametrize("entry", ["1abc", "sim1", "simabcde", "sim000001"])
def test_ids_that_are_not_simulated_are_refused(entry):
    with pytest.raises(QfitLatentError, match=entry):
        simulate_entry(entry, 0, SETTINGS)
