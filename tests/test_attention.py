"""The augmented dot product equals the textbook form, in outputs and in every gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from proteins import make_protein
from textbook import attention as textbook_attention

from qfitlatent import attention
from qfitlatent.attention import ExplicitPair, InvariantPointAttention, StaticPair
from qfitlatent.dataset import collate

D_S, D_Z, HEADS = 24, 6, 3


def make_layer(dtype, pair_values=False, form="auto"):
    torch.manual_seed(0)
    layer = InvariantPointAttention(D_S, D_Z, HEADS, 5, 4, 2, pair_values, form).to(dtype)
    with torch.no_grad():
        layer.output.weight.normal_(std=0.2)
        layer.head_weight.add_(0.3 * torch.randn(HEADS))
    return layer


def make_inputs(sizes, dtype):
    batch = collate([make_protein(n, seed=n) for n in sizes])
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


@pytest.mark.parametrize("form", ["fused", "blocked"])
@pytest.mark.parametrize("sizes", [(40,), (33, 12)])
def test_equals_textbook_fp64(form, sizes, monkeypatch):
    # Small blocks, so that a protein takes several.
    monkeypatch.setattr(attention, "BLOCK_ELEMENTS", 1024)
    layer = make_layer(torch.float64, form=form)
    # The fast form works in fp32 unless its inputs are fp64: keep it in fp64 here.
    inputs = make_inputs(sizes, torch.float64)
    fast, fast_grads = gradients(layer, layer, *inputs)
    slow, slow_grads = gradients(lambda *a: textbook_attention(layer, *a), layer, *inputs)
    torch.testing.assert_close(fast, slow, atol=1e-10, rtol=0)
    for a, b in zip(fast_grads, slow_grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


def test_equals_textbook_fp32():
    layer = make_layer(torch.float32)
    inputs = make_inputs((300,), torch.float32)
    fast, _ = gradients(layer, layer, *inputs)
    slow, _ = gradients(lambda *a: textbook_attention(layer, *a), layer, *inputs)
    torch.testing.assert_close(fast, slow, atol=2e-4, rtol=0)


def test_explicit_pair_with_values_equals_textbook():
    layer = make_layer(torch.float64, pair_values=True)
    s, rotation, x, static = make_inputs((21, 9), torch.float64)
    z = torch.randn(2, 21, 21, D_Z, dtype=torch.float64)
    pair = ExplicitPair(z, None, (static.mask[:, :, None] & static.mask[:, None]))
    fast, fast_grads = gradients(layer, layer, s, rotation, x, pair)
    slow, slow_grads = gradients(
        lambda *a: textbook_attention(layer, *a), layer, s, rotation, x, pair
    )
    torch.testing.assert_close(fast, slow, atol=1e-10, rtol=0)
    for a, b in zip(fast_grads, slow_grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


def test_neighbour_list_of_everyone_equals_all_pairs():
    layer = make_layer(torch.float64, pair_values=True)
    s, rotation, x, _ = make_inputs((17,), torch.float64)
    z = torch.randn(1, 17, 17, D_Z, dtype=torch.float64)
    order = torch.stack([torch.randperm(17) for _ in range(17)])[None]
    every = ExplicitPair(z, None, torch.ones(1, 17, 17, dtype=torch.bool))
    shuffled = ExplicitPair(
        z.gather(2, order[..., None].expand(-1, -1, -1, D_Z)), order, every.mask
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
