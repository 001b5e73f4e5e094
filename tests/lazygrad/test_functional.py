"""Neural-network functions: values and gradients as torch's."""

from __future__ import annotations

import numpy
import pytest
import torch
import torch.nn.functional as TF

import lazygrad as lg
import lazygrad.functional as LF

random = numpy.random.default_rng(1)


def floats(*shape, low=-2.0, high=2.0):
    return random.uniform(low, high, shape).astype(numpy.float32)


def check(function, *arrays, tolerance=3e-5):
    ran = []
    for t, f in ((torch, TF), (lg, LF)):
        inputs = [t.tensor(array) for array in arrays]
        for each in inputs:
            if each.is_floating_point():
                each.requires_grad_()
        result = function(t, f, *inputs)
        weights = t.arange(result.numel()).reshape(result.shape).to(result.dtype) * 0.01 + 0.3
        if result.requires_grad:
            (result * weights).sum().backward()
        ran.append([result.detach(), *(each.grad for each in inputs if each.requires_grad)])
    for want, have in zip(*ran, strict=True):
        assert (want is None) == (have is None)
        if want is not None:
            assert (
                tuple(want.shape) == tuple(have.shape)
                and str(want.dtype) == f"torch.{have.dtype.name}"
            )
            numpy.testing.assert_allclose(have.numpy(), want.numpy(), tolerance, tolerance)


@pytest.mark.parametrize(
    "name",
    [
        "relu",
        "gelu",
        "silu",
        "mish",
        "softplus",
        "leaky_relu",
        "elu",
        "selu",
        "celu",
        "relu6",
        "hardtanh",
        "hardsigmoid",
        "hardswish",
        "hardshrink",
        "softshrink",
        "tanhshrink",
        "softsign",
        "logsigmoid",
        "sigmoid",
        "tanh",
    ],
)
def test_activations(name):
    array = numpy.concatenate([floats(20, low=-6, high=6), [0.0, -30.0, 30.0]]).astype(
        numpy.float32
    )
    if name in ("hardtanh", "relu6", "hardshrink", "softshrink", "hardsigmoid", "hardswish"):
        array = floats(23, low=-7, high=7)
    check(lambda t, f, x: getattr(f, name)(x), array)


def test_parametrised_activations():
    x = floats(4, 6)
    check(lambda t, f, x: f.gelu(x, approximate="tanh"), x)
    check(lambda t, f, x: f.softplus(x, beta=2, threshold=1), x)
    check(lambda t, f, x: f.threshold(x, 0.1, -3), x)
    check(lambda t, f, x, w: f.prelu(x, w), x, floats(6))
    check(lambda t, f, x: f.glu(x), x)
    check(lambda t, f, x: f.normalize(x), x)
    check(lambda t, f, x, y: f.cosine_similarity(x, y), x, floats(4, 6))
    for dim in (0, 1):
        for name in ("softmax", "log_softmax", "softmin"):
            check(lambda t, f, x, name=name, dim=dim: getattr(f, name)(x, dim), x * 10)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_class_losses(reduction):
    scores, classes = floats(5, 4), numpy.array([0, 3, 1, 2, 3])
    weight = floats(4, low=0.5)
    check(lambda t, f, x, y: f.cross_entropy(x, y, reduction=reduction), scores, classes)
    check(
        lambda t, f, x, y: f.cross_entropy(x, y, ignore_index=3, reduction=reduction),
        scores,
        classes,
    )
    check(
        lambda t, f, x, y: f.cross_entropy(x, y, label_smoothing=0.2, reduction=reduction),
        scores,
        classes,
    )
    check(
        lambda t, f, x, y: f.cross_entropy(
            x, y, t.tensor(weight), label_smoothing=0.2, ignore_index=1, reduction=reduction
        ),
        scores,
        classes,
    )
    check(
        lambda t, f, x, y: f.nll_loss(
            f.log_softmax(x, 1), y, t.tensor(weight), reduction=reduction
        ),
        scores,
        classes,
    )
    check(
        lambda t, f, x, y: f.cross_entropy(x, y, reduction=reduction),
        floats(2, 4, 3),
        numpy.array([[0, 1, 2], [3, 3, 0]]),
    )
    check(
        lambda t, f, x, y: f.cross_entropy(
            x, f.softmax(y, 1), label_smoothing=0.1, reduction=reduction
        ),
        scores,
        floats(5, 4),
    )
    if reduction != "none":
        check(
            lambda t, f, x, y: f.cross_entropy(x, y, reduction=reduction), floats(4), numpy.array(2)
        )


def test_class_out_of_range_is_reported():
    with pytest.raises(IndexError):
        LF.cross_entropy(lg.zeros(2, 3), lg.tensor([0, 3])).item()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "name",
    [
        "mse_loss",
        "l1_loss",
        "smooth_l1_loss",
        "huber_loss",
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
        "kl_div",
        "poisson_nll_loss",
    ],
)
def test_pairwise_losses(name, reduction):
    low, high = (0.1, 0.9) if name in ("binary_cross_entropy", "kl_div") else (-2.0, 2.0)
    target = (
        floats(3, 4, low=0.1, high=0.9) if "entropy" in name or name == "kl_div" else floats(3, 4)
    )
    check(
        lambda t, f, x, y: getattr(f, name)(x, y, reduction=reduction),
        floats(3, 4, low=low, high=high),
        target,
    )


def test_other_losses():
    a, b, c = floats(4, 5), floats(4, 5), floats(4, 5)
    sign = numpy.array([1.0, -1.0, 1.0, -1.0], numpy.float32)
    check(lambda t, f, x, y, z: f.triplet_margin_loss(x, y, z), a, b, c)
    check(lambda t, f, x, y: f.cosine_embedding_loss(x, y, t.tensor(sign)), a, b)
    check(lambda t, f, x, y: f.margin_ranking_loss(x, y, t.tensor(sign), 0.1), a[:, 0], b[:, 0])
    check(lambda t, f, x: f.soft_margin_loss(x, t.tensor(sign)), a[:, 0])
    check(lambda t, f, x: f.hinge_embedding_loss(x, t.tensor(sign)), a[:, 0])
    check(
        lambda t, f, x, y: f.binary_cross_entropy_with_logits(
            x, t.sigmoid(y), pos_weight=t.tensor(2.0)
        ),
        a,
        b,
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1},
        {"stride": 2, "padding": 1},
        {"dilation": 2},
        {"padding": "same"},
        {"groups": 2},
    ],
)
def test_convolutions(rank, options):
    groups = options.get("groups", 1)
    x, w, b = floats(2, 4, *(6, 5, 5)[:rank]), floats(6, 4 // groups, *(3, 2, 2)[:rank]), floats(6)
    check(
        lambda t, f, x, w, b: getattr(f, f"conv{rank}d")(x, w, b, **options),
        x,
        w,
        b,
        tolerance=2e-4,
    )


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "padding": 1, "output_padding": 1}, {"groups": 2, "dilation": 2}]
)
def test_transposed_convolution(options):
    x, w = floats(2, 4, 5, 4), floats(4, 3, 3, 2)
    check(
        lambda t, f, x, w, b: f.conv_transpose2d(x, w, b, **options),
        x,
        w,
        floats(3 * options.get("groups", 1)),
        tolerance=1e-4,
    )


def test_pooling():
    x = floats(2, 3, 7, 8)
    for options in (
        {},
        {"stride": 1},
        {"padding": 1},
        {"ceil_mode": True},
        {"padding": 1, "ceil_mode": True, "stride": 2},
    ):
        check(lambda t, f, x, options=options: f.max_pool2d(x, 3, **options), x)
        check(lambda t, f, x, options=options: f.avg_pool2d(x, 3, **options), x)
        check(
            lambda t, f, x, options=options: f.avg_pool2d(x, 3, count_include_pad=False, **options),
            x,
        )
    check(lambda t, f, x: f.max_pool2d(x, 2, return_indices=True)[1], x)
    check(lambda t, f, x: f.max_pool1d(x, 2), x[0])
    for size in (1, (1, 2), (3, 5), (7, 4), (None, 2)):
        check(lambda t, f, x, size=size: f.adaptive_avg_pool2d(x, size), x)
    check(lambda t, f, x: f.adaptive_max_pool2d(x, (3, 4)), x)
    check(lambda t, f, x: f.unfold(x, (2, 3), padding=1, stride=2), x)
    for options in (
        {"scale_factor": 2},
        {"size": (5, 11)},
        {"scale_factor": 2, "mode": "bilinear"},
        {"size": (5, 11), "mode": "bilinear", "align_corners": True},
    ):
        check(lambda t, f, x, options=options: f.interpolate(x, **options), x, tolerance=1e-4)


def test_padding():
    x = floats(2, 3, 4, 5)
    check(lambda t, f, x: f.pad(x, (1, 2, 0, 3), value=1.5), x)
    check(lambda t, f, x: f.pad(x, (-1, 2, 1, -2)), x)
    for mode in ("reflect", "replicate", "circular"):
        check(lambda t, f, x, mode=mode: f.pad(x, (1, 2, 3, 0), mode=mode), x)


def test_normalisations():
    x, w, b = floats(4, 6, 5), floats(6), floats(6)
    check(lambda t, f, x, w, b: f.layer_norm(x, (5,), w[:5], b[:5]), x, w, b, tolerance=1e-4)
    check(lambda t, f, x, w, b: f.group_norm(x, 3, w, b), x, w, b, tolerance=1e-4)
    check(lambda t, f, x, w, b: f.instance_norm(x, None, None, w, b), x, w, b, tolerance=1e-4)
    check(lambda t, f, x, w: f.rms_norm(x, (5,), w[:5]), x, w, tolerance=1e-4)
    check(lambda t, f, x: f.local_response_norm(x, 3), x)
    for training in (True, False):

        def run(t, f, x, w, b, training=training):
            mean, var = t.zeros(6), t.ones(6)
            result = f.batch_norm(x, mean, var, w, b, training)
            return t.cat([result.flatten(), mean, var])

        check(run, x, w, b, tolerance=1e-4)


def test_embedding():
    rows, index = floats(5, 3), numpy.array([[0, 4, 2], [2, 2, 1]])
    check(lambda t, f, w, i: f.embedding(i, w), rows, index)
    check(lambda t, f, w, i: f.embedding(i, w, padding_idx=2), rows, index)
    check(lambda t, f, i: f.one_hot(i), index)
    check(lambda t, f, i: f.one_hot(i, 7), index)


def test_attention():
    q, k, v = floats(2, 3, 4, 5), floats(2, 3, 6, 5), floats(2, 3, 6, 7)
    check(lambda t, f, q, k, v: f.scaled_dot_product_attention(q, k, v), q, k, v, tolerance=1e-4)
    check(
        lambda t, f, q, k, v: f.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3),
        q,
        k,
        v,
        tolerance=1e-4,
    )
    mask = random.uniform(size=(4, 6)) > 0.4
    mask[1] = False
    check(
        lambda t, f, q, k, v: f.scaled_dot_product_attention(q, k, v, t.tensor(mask)),
        q,
        k,
        v,
        tolerance=1e-4,
    )
    bias = floats(4, 6)
    check(
        lambda t, f, q, k, v, m: f.scaled_dot_product_attention(q, k, v, m),
        q,
        k,
        v,
        bias,
        tolerance=1e-4,
    )


@pytest.mark.parametrize("name", ["gelu", "silu", "mish", "softplus", "logsigmoid", "elu", "selu",
                                  "hardswish"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_activations_of_16_bit_floats_are_rounded_once(name, dtype):
    """As close as the dtype goes, where formulas cancel and in slopes, too."""
    values = numpy.linspace(-6, 6, 997, dtype=numpy.float32)
    x = lg.tensor(values).to(getattr(lg, dtype)).requires_grad_(True)
    wide = torch.tensor(values).to(getattr(torch, dtype)).double().requires_grad_(True)
    y, want = getattr(lg.nn.functional, name)(x), getattr(torch.nn.functional, name)(wide)
    y.sum().backward()
    want.sum().backward()
    unit = 2.0 ** (-7 if dtype == "bfloat16" else -10)
    for have, exact in ((y, want), (x.grad, wide.grad)):
        error = numpy.abs(have.detach().double().numpy() - exact.detach().numpy())
        assert (error <= unit * numpy.abs(exact.detach().numpy()) + 1e-6).all()
