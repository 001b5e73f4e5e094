"""Multi-head attention and transformers against PyTorch, in all their settings."""

import numpy
import pytest
import torch

import lazygrad as lg
from tests.lazygrad.nn_compare import compare, numbers

X, MEMORY = numbers(3, 2, 4), numbers(5, 2, 4, seed=1)
PADDING = numpy.array([[False, False, True], [False, True, True]])
CAUSAL = numpy.triu(numpy.full((3, 3), -numpy.inf), 1)

ATTENTION = {
    "plain": ({}, (X, MEMORY, MEMORY), {}),
    "self": ({}, (X, X, X), {"need_weights": False}),
    "masks": ({}, (X, X, X), {"key_padding_mask": PADDING, "attn_mask": CAUSAL}),
    "bool mask": ({}, (X, X, X), {"attn_mask": CAUSAL < 0, "average_attn_weights": False}),
    "causal": ({}, (X, X, X), {"attn_mask": CAUSAL, "is_causal": True, "need_weights": False}),
    "batch first": ({"batch_first": True}, (X, X, X), {}),
    "bias kv": ({"add_bias_kv": True, "add_zero_attn": True}, (X, MEMORY, MEMORY), {}),
    "sizes": ({"kdim": 3, "vdim": 6}, (X, numbers(5, 2, 3), numbers(5, 2, 6)), {}),
    "no bias": ({"bias": False}, (X, X, X), {}),
    "no batch": ({}, (X[:, 0], MEMORY[:, 0], MEMORY[:, 0]), {}),
    "mask for each head": ({}, (X, X, X), {"attn_mask": numbers(4, 3, 3)}),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_multihead_attention(name):
    settings, inputs, keywords = ATTENTION[name]
    compare(lambda n: n.MultiheadAttention(4, 2, **settings), *inputs, **keywords)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_encoder(norm_first, batch_first):
    def make(n):
        layer = n.TransformerEncoderLayer(4, 2, 8, 0.0, "gelu", batch_first=batch_first,
                                          norm_first=norm_first)
        return n.TransformerEncoder(layer, 2, n.LayerNorm(4), enable_nested_tensor=False)

    padding = numpy.array([[False] * 2, [False, True], [True, False]]) if batch_first else PADDING
    compare(make, X, src_key_padding_mask=padding)


def test_decoder_and_transformer():
    compare(lambda n: n.TransformerDecoder(n.TransformerDecoderLayer(4, 2, 8, 0.0), 2),
            X, MEMORY, tgt_mask=CAUSAL)
    compare(lambda n: n.Transformer(4, 2, 1, 1, 8, 0.0, norm_first=True, bias=False),
            MEMORY, X, tgt_mask=CAUSAL, tgt_is_causal=True)


def test_causal_mask():
    ours = lg.nn.Transformer.generate_square_subsequent_mask(4)
    numpy.testing.assert_array_equal(
        ours.numpy(), torch.nn.Transformer.generate_square_subsequent_mask(4).numpy())


def test_wrong_shapes_are_refused():
    attention = lg.nn.MultiheadAttention(4, 2)
    x = lg.ones(3, 2, 4)
    for arguments, keywords, message in (
        ((x, lg.ones(5, 3, 4), lg.ones(5, 3, 4)), {}, "batch"),
        ((x, x, lg.ones(4, 2, 4)), {}, "length"),
        ((x, x, x), {"attn_mask": lg.ones(3, 4)}, "attn_mask"),
        ((x, x, x), {"key_padding_mask": lg.ones(3, 2)}, "key_padding_mask"),
        ((x, x, x), {"is_causal": True}, "no attn_mask"),
        ((lg.ones(3, 2, 5), x, x), {}, "4 features"),
    ):
        with pytest.raises(RuntimeError, match=message):
            attention(*arguments, **keywords)
    model = lg.nn.Transformer(4, 2, 1, 1, 8)
    with pytest.raises(RuntimeError, match="differ in batch"):
        model(lg.ones(3, 2, 4), lg.ones(3, 1, 4))
    with pytest.raises(RuntimeError, match="d_model"):
        model(lg.ones(3, 2, 5), lg.ones(3, 2, 5))


def test_dropout_of_attention_is_drawn():
    lg.manual_seed(0)
    attention = lg.nn.MultiheadAttention(4, 2, dropout=0.9)
    x = lg.rand(6, 2, 4)
    first, second = attention(x, x, x)[0].detach(), attention(x, x, x)[0].detach()
    assert not lg.equal(first, second)
    attention.eval()
    assert lg.equal(attention(x, x, x)[0].detach(), attention(x, x, x)[0].detach())


@pytest.mark.parametrize("causal", [False, True])
def test_bfloat16_is_as_accurate_as_torch(causal):
    """Root mean square errors of output and gradients against float64, both in bfloat16."""
    random = numpy.random.default_rng(3)
    exact = [torch.tensor(random.standard_normal((2, 3, 150, 32))).bfloat16().double()
             for _ in range(4)]
    found = []
    for t, dtype in ((lg, lg.bfloat16), (torch, torch.bfloat16), (torch, torch.float64)):
        q, k, v, g = (t.tensor(each.numpy()).to(dtype).requires_grad_() for each in exact)
        output = t.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        gradients = t.autograd.grad(output, (q, k, v), g.detach())
        found.append([each.detach().double().numpy() for each in (output, *gradients)])
    for ours, theirs, want in zip(*found, strict=True):
        errors = [numpy.sqrt(((each - want) ** 2).mean()) for each in (ours, theirs)]
        assert errors[0] <= 1.1 * errors[1]
