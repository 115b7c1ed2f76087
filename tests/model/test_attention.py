"""The augmented dot product equals the textbook form, in outputs and in every gradient."""

import copy
from dataclasses import asdict, replace

import pytest
import torch

from helpers.proteins import make_protein
from helpers.textbook import attention as textbook_attention
from qfitlatent.model import attention, neighbours
from qfitlatent.model.attention import ExplicitPair, InvariantPointAttention, StaticPair
from qfitlatent.model.batch import collate
from qfitlatent.model.dataset import protein_from_tables
from qfitlatent.model.neighbours import NeighbourAttention, NeighbourList, nearest
from qfitlatent.structure.preprocess import read_entry

D_S, D_Z, HEADS = 24, 6, 3


def make_layer(dtype, pair_values=False, saved=True):
    """With ``saved``, attention weights are kept for the backward pass, else made again."""
    torch.manual_seed(0)
    layer = InvariantPointAttention(D_S, D_Z, HEADS, 5, 4, 2, pair_values).to(dtype)
    layer.save_probabilities_below = 1 << 30 if saved else 0
    with torch.no_grad():
        layer.output.weight.normal_(std=0.2)
        layer.head_weight.add_(0.3 * torch.randn(HEADS))
    return layer


def make_inputs(sizes, dtype):
    return inputs_of([make_protein(n, seed=n) for n in sizes], dtype)


def inputs_of(proteins, dtype):
    batch = collate(proteins)
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    num_proteins, num = batch.token.shape
    x = batch.translation.to(dtype)
    x = (x - x.mean(1, keepdim=True)) / 10
    offset = (batch.position[:, None] - batch.position[:, :, None]).clamp(-3, 3) + 3
    pair = StaticPair(
        relative=normal(7, D_Z).requires_grad_(),
        bins=offset,
        distance_vector=normal(D_Z).requires_grad_(),
        distance=torch.cdist(x, x),
        left=normal(num_proteins, num, D_Z).requires_grad_(),
        right=normal(num_proteins, num, D_Z).requires_grad_(),
        mask=batch.mask,
    )
    s = normal(num_proteins, num, D_S).requires_grad_()
    return s, batch.rotation.to(dtype), x, pair


def gradients(function, layer, s, rotation, x, pair):
    out = function(s, rotation, x, pair)
    mask = pair.mask if pair.mask.ndim == 2 else pair.mask[:, 0]
    out = out * mask[..., None]
    leaves = [s, *layer.parameters()]
    if isinstance(pair, StaticPair):
        leaves += [pair.relative, pair.distance_vector, pair.left, pair.right]
    loss = (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum()
    return out.detach(), torch.autograd.grad(loss, leaves)


def textbook(layer, *inputs):
    """Output and gradients of the textbook form."""
    return gradients(lambda *a: textbook_attention(layer, *a), layer, *inputs)


def check_equal(fast, slow, limit):
    """Outputs within ``limit``, and each gradient within this part of its largest value."""
    torch.testing.assert_close(fast[0].double(), slow[0], atol=limit, rtol=0)
    for a, b in zip(fast[1], slow[1], strict=True):
        atol = limit * max(1.0, float(b.abs().max()))
        torch.testing.assert_close(a.double(), b, atol=atol, rtol=0)


@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize("sizes", [(40,), (33, 12)])
def test_equals_textbook_fp64(saved, sizes, monkeypatch):
    # Small blocks, so that a protein takes several.
    monkeypatch.setattr(attention, "BLOCK_ELEMENTS", 1024)
    layer = make_layer(torch.float64, saved=saved)
    # The fast form works in fp32 unless its inputs are fp64: keep it in fp64 here.
    inputs = make_inputs(sizes, torch.float64)
    check_equal(gradients(layer, layer, *inputs), textbook(layer, *inputs), 1e-10)


def test_equals_textbook_fp32():
    layer = make_layer(torch.float32)
    inputs = make_inputs((300,), torch.float32)
    fast, _ = gradients(layer, layer, *inputs)
    slow, _ = textbook(layer, *inputs)
    torch.testing.assert_close(fast, slow, atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", ["2yl0.pdb", "1us0.pdb", "1vme.cif"])
def test_equals_textbook_on_real_backbones(shared_data, name):
    """126, 314 and 800 residues, two chains and gaps among them; fp32 against fp64."""
    check_textbook(read_entry(shared_data / "multiconformer" / name, "real"))


def test_equals_textbook_on_a_simulated_backbone(simulated_files):
    check_textbook(read_entry(simulated_files[0], "simulated"))


def check_textbook(records):
    protein = protein_from_tables(records.tables())
    protein = protein.select(torch.arange(min(len(protein), 800)))
    inputs = inputs_of([protein], torch.float64)
    layers = [make_layer(torch.float64, saved=saved) for saved in (True, False)]
    layer = layers[0]
    slow = textbook(layer, *inputs)
    for each in layers:
        check_equal(gradients(each, each, *inputs), slow, 1e-10)
    s, rotation, x, pair = inputs
    single = StaticPair(**{n: to_fp32(value) for n, value in asdict(pair).items()})
    layer = copy.deepcopy(layer).float()
    fast = gradients(layer, layer, to_fp32(s), rotation.float(), x.float(), single)
    check_equal(fast, slow, 2e-4)


def to_fp32(x):
    return x.detach().float().requires_grad_(x.requires_grad) if x.is_floating_point() else x


def test_explicit_pair_with_values_equals_textbook():
    layer = make_layer(torch.float64, pair_values=True)
    s, rotation, x, static = make_inputs((21, 9), torch.float64)
    z = torch.randn(2, 21, 21, D_Z, dtype=torch.float64)
    pair = ExplicitPair(z, None, (static.mask[:, :, None] & static.mask[:, None]))
    inputs = (s, rotation, x, pair)
    check_equal(gradients(layer, layer, *inputs), textbook(layer, *inputs), 1e-10)


def test_neighbour_list_of_everyone_equals_all_pairs():
    layer = make_layer(torch.float64, pair_values=True)
    s, rotation, x, _ = make_inputs((17,), torch.float64)
    z = torch.randn(1, 17, 17, D_Z, dtype=torch.float64)
    order = torch.stack([torch.randperm(17) for _ in range(17)])[None]
    every = ExplicitPair(z, None, torch.ones(1, 17, 17, dtype=torch.bool))
    shuffled = ExplicitPair(
        z.gather(2, order[..., None].expand(-1, -1, -1, D_Z)), NeighbourList(order), every.mask
    )
    torch.testing.assert_close(
        layer(s, rotation, x, every), layer(s, rotation, x, shuffled), atol=1e-12, rtol=0
    )


def test_padding_is_never_attended_to():
    layer = make_layer(torch.float64)
    s, rotation, x, pair = make_inputs((20, 11), torch.float64)
    out = layer(s, rotation, x, pair)[1, :11]
    changed = s.detach().clone()
    changed[1, 11:] += 100.0
    right = pair.right.detach().clone()
    right[1, 11:] += 100.0
    again = layer(changed, rotation, x, replace(pair, right=right))[1, :11]
    torch.testing.assert_close(out, again, atol=1e-12, rtol=0)


def test_mixed_precision_costs_digits_of_what_is_projected_alone():
    """Coordinates enter the logits squared: in bf16 a protein of 100 angstrom would lose them."""
    layer = make_layer(torch.float32)
    s, rotation, x, pair = make_inputs((64,), torch.float32)
    x = x * (10.0 / x.norm(dim=-1).max())
    expected = layer(s, rotation, x, pair)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(s, rotation, x, pair).float()
    # Logits of rounded queries and keys would cost another 0.012.
    assert (low - expected).norm() < 0.007 * expected.norm()


def test_sums_over_bins_are_a_histogram():
    generator = torch.Generator().manual_seed(0)
    offset = torch.arange(70) - torch.arange(70)[:, None]
    bins = offset.clamp(-5, 5) + 5
    bins[:20, 20:] = bins[20:, :20] = 11
    values = torch.randn(3, 70, 70, generator=generator, dtype=torch.float64)
    sums = attention.BinSums(bins, torch.float64)
    for rows in (slice(0, 70), slice(16, 48)):
        expected = [torch.bincount(bins[rows].flatten(), own[rows].flatten(), 12) for own in values]
        torch.testing.assert_close(sums(values[:, rows], rows, 12), torch.stack(expected))


@pytest.mark.parametrize("one_block", [True, False])
def test_attention_to_neighbours_equals_gathered_keys(one_block, monkeypatch):
    """Two proteins, one padded: outputs, weights and gradients of the form that gathers."""
    if not one_block:
        monkeypatch.setattr(neighbours, "ONE_BLOCK_UP_TO", 0)
        monkeypatch.setattr(neighbours, "BLOCK_QUERIES", 16)
    batch = collate([make_protein(n, seed=n) for n in (40, 27)])
    near = nearest(batch.translation.double(), batch.mask, 7)
    generator = torch.Generator().manual_seed(0)
    q, k, v, bias = (
        torch.randn(3, 80, width, generator=generator, dtype=torch.float64).requires_grad_()
        for width in (5, 5, 4, 7)
    )
    flat = near.flat.flatten(0, 1)  # (T,J)
    weights = torch.softmax((q[:, :, None] * k[:, flat]).sum(-1) + bias, dim=-1)
    slow = (weights[..., None] * v[:, flat]).sum(2), weights
    fast = NeighbourAttention.apply(q, k, v, bias, near)
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
        scale = torch.randn(b.shape, generator=generator, dtype=torch.float64)
        gradients = (
            torch.autograd.grad(
                (x * scale).sum(), (q, k, v, bias), retain_graph=True, allow_unused=True
            )
            for x in (a, b)
        )
        for own, expected in zip(*gradients, strict=True):
            if expected is not None:
                torch.testing.assert_close(own, expected, atol=1e-11, rtol=0)
