"""What a model remembers of its training set: distances, percentiles and the nearest chain."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.proteins import globule
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.models import shipped_model_path
from qfitlatent.chemistry.residues import NUM_CHI, ONE_LETTER
from qfitlatent.model.batch import collate
from qfitlatent.model.checkpoint import load_model
from qfitlatent.model.reference import (
    QUANTILES,
    REFERENCE_FILE,
    Reference,
    fit,
    read_reference,
)


def made(seed=0, width=12, num=4000):
    """A reference of random residues, and these."""
    rng = np.random.default_rng(seed)
    token = np.arange(num) % 20
    s = rng.standard_normal((num, width)) @ rng.standard_normal((width, width)) + token[:, None]
    sequences = tuple("".join(rng.choice(list(ONE_LETTER[:20]), 80)) for _ in range(6))
    chains = tuple((f"{n}abc", "A") for n in range(6))
    one = Reference("abc", *fit(s, token), QUANTILES, chains, sequences)
    one = replace(one, quantiles=np.quantile(one.distance(s, token), QUANTILES))
    return one, s, token


def tokens(sequence):
    return np.array([ONE_LETTER.index(x) for x in sequence], dtype=np.int8)


def test_a_percentile_of_what_it_was_made_from_is_uniform_and_grows_outwards():
    one, s, token = made()
    found = one.unlike(s, token)
    assert np.quantile(found, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.02)
    centre = np.stack([s[token == k].mean(0) for k in range(20)])[token]
    assert (one.unlike(centre + 1.5 * (s - centre), token) >= found).all()
    assert (one.unlike(centre + 100 * (s - centre), token) == 1).all()
    order = np.random.default_rng(1).permutation(len(s))
    assert np.allclose(one.unlike(s[order], token[order]), found[order])
    assert np.isnan(one.unlike(s[:1], np.array([20]))).all()


def test_the_distance_does_not_depend_on_how_a_representation_is_turned_or_scaled():
    one, s, token = made()
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((12, 12)))[0] * 3.0
    turned = Reference("abc", *fit(s @ turn, token), QUANTILES, (), ())
    assert turned.distance(s @ turn, token) == pytest.approx(one.distance(s, token), rel=1e-3)


def test_the_nearest_chain_is_found_through_mutations_and_named_by_its_sequence():
    one, _, _ = made()
    sequence = list(one.sequences[3])
    sequence[::5] = ["G" if x != "G" else "A" for x in sequence[::5]]
    found = one.nearest(tokens("".join(sequence)))
    assert found == {"training_entry": "3abc", "training_chain": "A", "identity": 0.8}
    assert one.nearest(tokens(one.sequences[5]))["identity"] == 1.0
    half = one.nearest(tokens(one.sequences[2] + "GSGS" * 20))
    assert half["training_entry"] == "2abc"
    assert half["identity"] == pytest.approx(0.5, abs=0.1)
    for none in ("G" * 14, "X" * 40, "WY" * 20):
        assert set(one.nearest(tokens(none)).values()) == {None}


def test_the_file_is_the_same_twice_and_is_bound_to_its_weights(tmp_path):
    one, s, token = made()
    paths = [tmp_path / name / REFERENCE_FILE for name in "ab"]
    for path in paths:
        path.parent.mkdir()
        one.save(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    read, why = read_reference(paths[0].with_name("model.safetensors"), "abc")
    assert (read.chains, read.sequences, why) == (one.chains, one.sequences, "")
    assert read.unlike(s, token) == pytest.approx(one.unlike(s, token), abs=1e-3)
    with pytest.raises(QfitLatentError, match="with 12 numbers for a residue, not 5"):
        read.distance(s[:, :5], token)
    none, why = read_reference(paths[0].with_name("model.safetensors"), "other")
    assert none is None
    assert "other weights" in why
    none, why = read_reference(tmp_path / "model.safetensors", "abc")
    assert none is None
    assert "there is no" in why
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    with pytest.raises(QfitLatentError, match="cannot be read"):
        read_reference(paths[1].with_name("model.safetensors"), "abc")


def test_what_ships_knows_its_training_set_and_a_random_fold_is_unlike_it():
    loaded = load_model()
    reference, why = read_reference(shipped_model_path(), loaded.about.version)
    assert why == ""
    assert set(reference.chains) <= loaded.learnt.chains
    assert (np.diff(reference.quantiles) > 0).all()
    assert shipped_model_path().with_name(REFERENCE_FILE).stat().st_size < 700_000
    protein = globule(60, 1)
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    turned = replace(
        protein, rotation=turn @ protein.rotation, translation=protein.translation @ turn.T + 50.0
    )
    found = []
    for each in (protein, turned):
        with torch.inference_mode():
            s = loaded.model.encode(collate([each])).numpy()
        found.append(reference.distance(s, each.token.numpy()))
    assert found[1] == pytest.approx(found[0], rel=0.01, nan_ok=True)
    has_chi = NUM_CHI[protein.token] > 0
    assert np.nanmean(reference.unlike(s, protein.token.numpy())[has_chi]) > 0.9
