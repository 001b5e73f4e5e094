"""Elementwise operations, reductions, products, shapes: values, dtypes and gradients as torch's."""

from __future__ import annotations

import numpy
import pytest
import torch
import torch.nn.functional as TF

import lazygrad as lg
import lazygrad.functional as LF


def _arrays_of(result, namespace):
    if isinstance(result, namespace.Tensor):
        return [result.detach()]
    return [each.detach() for each in result if isinstance(each, namespace.Tensor)]


def check(function, *arrays, grad=True, tolerance=2e-5, dtype=True):
    """Runs `function(namespace, functional, *tensors)` in both, compares results and gradients."""
    ran = []
    for namespace, functional in ((torch, TF), (lg, LF)):
        inputs = [namespace.tensor(array) for array in arrays]
        if grad:
            for each in inputs:
                if each.is_floating_point():
                    each.requires_grad_()
        result = function(namespace, functional, *inputs)
        outputs = _arrays_of(result, namespace)
        gradients = []
        if grad:
            first = result if isinstance(result, namespace.Tensor) else result[0]
            if first.requires_grad:
                scale = (
                    namespace.arange(first.numel()).reshape(first.shape).to(first.dtype) * 0.1 + 0.3
                )
                first.backward(scale)
            gradients = [each.grad for each in inputs if each.requires_grad]
        ran.append((outputs, gradients))
    (expected, expected_grads), (actual, actual_grads) = ran
    assert len(expected) == len(actual)
    for want, have in zip(expected, actual):
        assert tuple(want.shape) == tuple(have.shape)
        if dtype:
            assert str(want.dtype) == f"torch.{have.dtype.name}"
        numpy.testing.assert_allclose(have.numpy(), want.numpy(), tolerance, tolerance)
    for want, have in zip(expected_grads, actual_grads):
        assert (want is None) == (have is None)
        if want is not None:
            assert tuple(want.shape) == tuple(have.shape)
            numpy.testing.assert_allclose(have.numpy(), want.numpy(), tolerance * 5, tolerance * 5)


random = numpy.random.default_rng(0)


def floats(*shape, low=-2.0, high=2.0):
    return random.uniform(low, high, shape).astype(numpy.float32)


UNARY = [
    "neg",
    "abs",
    "sign",
    "floor",
    "ceil",
    "trunc",
    "square",
    "frac",
    "exp",
    "exp2",
    "expm1",
    "sin",
    "cos",
    "tan",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "erf",
    "erfc",
    "sigmoid",
    "round",
    "isnan",
    "isinf",
    "isfinite",
    "nan_to_num",
    "reciprocal",
    "deg2rad",
    "positive",
]


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("shape", [(), (0, 3), (3, 4)])
def test_unary(name, shape):
    if name == "positive" and not shape:
        pytest.skip("the same")
    check(lambda t, f, x: getattr(t, name)(x), floats(*shape))


@pytest.mark.parametrize(
    "name", ["log", "log2", "log10", "log1p", "sqrt", "rsqrt", "asin", "acos", "atanh"]
)
def test_unary_of_positive(name):
    check(lambda t, f, x: getattr(t, name)(x), floats(5, low=0.1, high=0.9))


@pytest.mark.parametrize(
    "name",
    [
        "exp",
        "sin",
        "sqrt",
        "sigmoid",
        "neg",
        "abs",
        "square",
        "floor",
        "sign",
        "logical_not",
        "isnan",
    ],
)
def test_unary_of_integers(name):
    check(lambda t, f, x: getattr(t, name)(x), numpy.array([1, 2, 5], numpy.int32))


@pytest.mark.parametrize(
    "name",
    [
        "add",
        "sub",
        "mul",
        "div",
        "pow",
        "maximum",
        "minimum",
        "fmod",
        "remainder",
        "floor_divide",
        "atan2",
        "hypot",
        "logaddexp",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "fmax",
        "fmin",
    ],
)
@pytest.mark.parametrize(
    "shapes", [((3, 4), (3, 4)), ((3, 1), (4,)), ((), (2, 3)), ((0, 2), (1, 2))]
)
def test_binary(name, shapes):
    a, b = (floats(*shape, low=0.5, high=3.0) for shape in shapes)
    # torch has no derivative of floor_divide.
    check(lambda t, f, x, y: getattr(t, name)(x, y), a, b, grad=name != "floor_divide")


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "int8"])
@pytest.mark.parametrize(
    "name",
    [
        "add",
        "sub",
        "mul",
        "div",
        "floor_divide",
        "remainder",
        "fmod",
        "maximum",
        "bitwise_and",
        "bitwise_or",
        "bitwise_xor",
        "eq",
        "lt",
        "logical_and",
    ],
)
def test_integer_binary(name, dtype):
    a, b = numpy.array([7, 100, 3, 5], dtype), numpy.array([2, 3, 5, 5], dtype)
    if dtype[0] == "i":
        a = a * numpy.array([-1, 1, -1, 1], dtype)
        b = b * numpy.array([1, -1, 1, -1], dtype)
    check(lambda t, f, x, y: getattr(t, name)(x, y), a, b)


def test_rounding_of_quotients_by_sign():
    a, b = floats(50, low=-9, high=9), floats(50, low=-2, high=2)
    for name in ("remainder", "floor_divide", "fmod"):
        check(lambda t, f, x, y, name=name: getattr(t, name)(x, y), a, b, grad=False)
    for mode in ("floor", "trunc"):
        check(lambda t, f, x, y, mode=mode: t.div(x, y, rounding_mode=mode), a, b, grad=False)


DTYPES = [
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
    "complex128",
]


def test_promotion_table():
    for left in DTYPES:
        for right in DTYPES:
            want = torch.promote_types(getattr(torch, left), getattr(torch, right))
            assert f"torch.{lg.promote_types(getattr(lg, left), getattr(lg, right)).name}" == str(
                want
            )


@pytest.mark.parametrize("left", DTYPES[:10])
@pytest.mark.parametrize("right_shape", [(), (2,)])
def test_result_dtypes(left, right_shape):
    for right in DTYPES[:10]:
        want = (
            torch.ones(2, dtype=getattr(torch, left))
            * torch.ones(right_shape, dtype=getattr(torch, right))
        ).dtype
        have = (
            lg.ones(2, dtype=getattr(lg, left)) * lg.ones(right_shape, dtype=getattr(lg, right))
        ).dtype
        assert str(want) == f"torch.{have.name}", right


@pytest.mark.parametrize("name", DTYPES[:10])
@pytest.mark.parametrize("number", [True, 2, 2.5, 1j])
def test_dtypes_with_numbers(name, number):
    if name == "float16" and number == 1j:
        pytest.skip("torch has a complex32, we have not")
    for left_shape in ((), (2,)):
        want = (torch.ones(left_shape, dtype=getattr(torch, name)) * number).dtype
        have = (lg.ones(left_shape, dtype=getattr(lg, name)) * number).dtype
        assert str(want) == f"torch.{have.name}"


def test_operators_and_reflected():
    x = floats(3, low=0.5)
    for function in (
        lambda x: 2 - x,
        lambda x: 2 / x,
        lambda x: 2**x,
        lambda x: x**2,
        lambda x: x % 0.7,
        lambda x: -x,
        lambda x: abs(x),
        lambda x: x > 1,
        lambda x: x <= 1,
        lambda x: x + numpy.float32(2),
        lambda x: x @ x,
        lambda x: x == x,
    ):
        check(lambda t, f, x, function=function: function(x), x)
    bits = numpy.array([1, 6, 7])
    for function in (
        lambda x: x & 3,
        lambda x: 4 | x,
        lambda x: x ^ x,
        lambda x: ~x,
        lambda x: x << 2,
        lambda x: x >> 1,
        lambda x: x // 2,
        lambda x: x / 2,
        lambda x: x % 4,
    ):
        check(lambda t, f, x, function=function: function(x), bits)


def test_ternary_and_mixed():
    a, b, c = floats(3, 4), floats(4), floats(3, 1)
    check(lambda t, f, x, y, z: t.where(x > 0, y, z), a, b, c)
    check(lambda t, f, x, y: t.where(x > 0, y, 0.5), a, b)
    check(lambda t, f, x: x.clamp(-0.5, 1), a)
    check(lambda t, f, x, y: t.clamp(x, min=y), a, b)
    check(lambda t, f, x, y, z: t.lerp(x, y.expand(3, 4), z), a, b, c)
    check(lambda t, f, x, y, z: t.addcmul(x, y, z, value=2), a, b, c)
    check(lambda t, f, x, y, z: t.addcdiv(x, y, z + 9, value=2), a, b, c)
    check(lambda t, f, x: x.masked_fill(x > 0, -1), a)
    check(lambda t, f, x, y: t.add(x, y, alpha=3), a, b)


def test_closeness():
    x, y = lg.tensor([1.0, 2.0]), lg.tensor([1.0, 2.0 + 1e-7])
    assert lg.allclose(x, y) and not lg.equal(x, y + 1) and lg.equal(x, x.clone())
    assert not lg.allclose(x, y + 1)


@pytest.mark.parametrize(
    "name",
    [
        "sum",
        "mean",
        "prod",
        "amax",
        "amin",
        "argmax",
        "argmin",
        "var",
        "std",
        "any",
        "all",
        "count_nonzero",
    ],
)
@pytest.mark.parametrize("dim", [None, 0, 1, -1])
@pytest.mark.parametrize("keepdim", [False, True])
def test_reductions(name, dim, keepdim):
    def run(t, f, x):
        if dim is None:
            return getattr(t, name)(x)
        return (
            getattr(t, name)(x, dim)
            if name == "count_nonzero"
            else getattr(t, name)(x, dim, keepdim=keepdim)
        )

    check(run, floats(3, 4))


def test_more_reductions():
    x = floats(2, 3, 4)
    check(lambda t, f, x: x.sum((0, 2)), x)
    check(lambda t, f, x: x.var((0, 2), unbiased=False), x)
    check(lambda t, f, x: t.logsumexp(x, 1), x)
    check(lambda t, f, x: x.norm(), x)
    check(lambda t, f, x: x.norm(1, 1), x)
    check(lambda t, f, x: x.norm(3, (0, 1), keepdim=True), x)
    for name in ("max", "min"):
        check(lambda t, f, x, name=name: getattr(x, name)(1), x)
        check(lambda t, f, x, name=name: getattr(x, name)(), x)
    check(lambda t, f, x: x.sum(), numpy.array([True, True, False]))
    check(lambda t, f, x: x.sum(), numpy.array([200, 200], numpy.uint8))
    check(lambda t, f, x: x.sum(0), numpy.zeros((0, 3), numpy.float32))
    check(lambda t, f, x: x.mean(), numpy.zeros((0,), numpy.float32))
    check(
        lambda t, f, x: t.logsumexp(x, 0),
        numpy.array([-numpy.inf, -numpy.inf], numpy.float32),
        grad=False,
    )
    with pytest.raises(IndexError):
        lg.zeros(0).max()
    with pytest.raises(RuntimeError, match=r"test_tensor.py:\d+"):
        lg.arange(3).mean()


@pytest.mark.parametrize(
    "shapes",
    [
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 2)),
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((5, 2, 3), (5, 3, 4)),
        ((5, 1, 2, 3), (4, 3, 2)),
        ((3,), (5, 3, 2)),
        ((5, 2, 3), (3,)),
        ((2, 0), (0, 3)),
    ],
)
def test_matmul(shapes):
    check(lambda t, f, x, y: t.matmul(x, y), *(floats(*shape) for shape in shapes))


@pytest.mark.parametrize(
    "equation, shapes",
    [
        ("ij,jk->ik", ((2, 3), (3, 4))),
        ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))),
        ("i,i->", ((3,), (3,))),
        ("ij->ji", ((2, 3),)),
        ("ii->i", ((3, 3),)),
        ("ij,kj,lk->il", ((2, 3), (4, 3), (5, 4))),
        ("...ij,...jk->...ik", ((2, 3, 4), (4, 5))),
        ("bhid,bhjd->bhij", ((2, 3, 4, 5), (2, 3, 6, 5))),
        ("ij,k", ((2, 3), (2,))),
    ],
)
def test_einsum(equation, shapes):
    check(lambda t, f, *x: t.einsum(equation, *x), *(floats(*shape) for shape in shapes))


def test_products():
    a, b = floats(2, 3), floats(4, 3)
    check(lambda t, f, x, y: f.linear(x, y), a, b)
    check(lambda t, f, x, y, z: f.linear(x, y, z), a, b, floats(4))
    check(lambda t, f, x, y, z: t.addmm(z, x, y.T, beta=2, alpha=0.5), a, b, floats(4))
    check(lambda t, f, x, y: t.tensordot(x, y, ([1], [1])), a, b)
    check(lambda t, f, x, y: t.outer(x, y), floats(2), floats(3))
    with pytest.raises(
        RuntimeError, match=r"\[matmul\].*inner sizes 3 and 4 differ \(test_tensor.py:\d+\).*w.T"
    ):
        lg.zeros(2, 3) @ lg.zeros(4, 3)


def test_shapes():
    x = floats(2, 3, 4)
    for function in (
        lambda t, x: x.reshape(6, -1),
        lambda t, x: x.view(4, 6),
        lambda t, x: x.flatten(1),
        lambda t, x: x.permute(2, 0, 1),
        lambda t, x: x.transpose(0, -1),
        lambda t, x: x.mT,
        lambda t, x: x[0].T,
        lambda t, x: x.movedim(0, 2),
        lambda t, x: x.unsqueeze(1),
        lambda t, x: x[:, :1].squeeze(1),
        lambda t, x: x[:1].squeeze(),
        lambda t, x: x[:1].expand(5, 3, 4),
        lambda t, x: x[0].expand(2, -1, -1),
        lambda t, x: x.repeat(2, 1, 3),
        lambda t, x: x.repeat(2, 1, 1, 3),
        lambda t, x: t.tile(x, (2,)),
        lambda t, x: x.flip(0, 2),
        lambda t, x: x.roll(1, 2),
        lambda t, x: x.roll((1, -1), (0, 1)),
        lambda t, x: x.roll(3),
        lambda t, x: x.split(2, 2),
        lambda t, x: x.split([1, 3], 2),
        lambda t, x: x.chunk(3, 2),
        lambda t, x: x.unbind(1),
        lambda t, x: x.narrow(2, 1, 2),
        lambda t, x: x.select(1, -1),
        lambda t, x: t.cat([x, x * 2], 1),
        lambda t, x: t.stack([x, x], -1),
        lambda t, x: t.hstack([x, x]),
        lambda t, x: t.vstack([x, x]),
        lambda t, x: x.tril(),
        lambda t, x: x.triu(1),
        lambda t, x: x[0, :, :3].diagonal(),
        lambda t, x: x.diagonal(1, 1, 2),
        lambda t, x: x.unflatten(2, (2, 2)),
        lambda t, x: t.meshgrid(x[0, 0], x[0, :, 0], indexing="ij"),
        lambda t, x: t.meshgrid(x[0, 0], x[0, :, 0], indexing="xy"),
        lambda t, x: x.repeat_interleave(2, 1),
        lambda t, x: t.diag(x[0, 0]),
        lambda t, x: t.rot90(x[0]),
        lambda t, x: x.unfold(2, 2, 1),
        lambda t, x: t.diag_embed(x[0], 1),
        lambda t, x: t.dstack([x[0], x[1]]),
        lambda t, x: t.column_stack([x[0, 0], x[1, 0]]),
        lambda t, x: t.block_diag(x[0], x[1]),
        lambda t, x: t.atleast_3d(x[0]),
        lambda t, x: t.atleast_2d(x[0, 0]),
        lambda t, x: x.tensor_split(3, 2),
        lambda t, x: t.broadcast_tensors(x, x[0, 0]),
    ):
        check(lambda t, f, x, function=function: function(t, x), x)


def test_creation():
    for function in (
        lambda t: t.arange(5),
        lambda t: t.arange(1, 9, 3),
        lambda t: t.arange(0, 1, 0.25),
        lambda t: t.arange(5, 0, -2),
        lambda t: t.linspace(0, 1, 7),
        lambda t: t.linspace(-3, 3, 6),
        lambda t: t.eye(3),
        lambda t: t.eye(2, 3),
        lambda t: t.full((2,), 7),
        lambda t: t.full((2,), 7.0),
        lambda t: t.full((2, 2), True),
        lambda t: t.zeros(2, 3, dtype=t.int32),
        lambda t: t.ones((2, 3)),
        lambda t: t.tensor([[1, 2], [3, 4]]),
        lambda t: t.tensor([1.5]),
        lambda t: t.tensor(True),
        lambda t: t.tensor([]),
        lambda t: t.tensor(3.0, dtype=t.float64),
        lambda t: t.tensor([True, False]),
        lambda t: t.tensor([1, 2.5]),
        lambda t: t.zeros_like(t.ones(2, dtype=t.int8)),
        lambda t: t.full_like(t.ones(2), 3),
        lambda t: t.tensor(numpy.arange(3.0)),
        lambda t: t.ones(2).new_zeros(3),
        lambda t: t.tril_indices(3, 3),
        lambda t: t.tensor([t.tensor(1.0), t.tensor(2.0)]),
    ):
        check(lambda t, f, function=function: function(t), grad=False)


def test_conversions():
    x = numpy.array([-1.7, 0.0, 2.5], numpy.float32)
    for name in ("int64", "int32", "int8", "bool", "float64", "float16"):
        check(lambda t, f, x, name=name: x.to(getattr(t, name)), x, grad=False)
    check(lambda t, f, x: x.double().float(), x)
    check(lambda t, f, x: x.long().float() * x, x)


def test_order_and_running_totals():
    x = random.permutation(24).reshape(2, 3, 4).astype(numpy.float32)
    for dim in (0, 1, -1):
        check(lambda t, f, x, dim=dim: t.sort(x, dim), x)
        check(lambda t, f, x, dim=dim: x.sort(dim, descending=True), x)
        check(lambda t, f, x, dim=dim: x.topk(2, dim), x)
        check(lambda t, f, x, dim=dim: x.cumsum(dim), x)
        check(lambda t, f, x, dim=dim: x.median(dim), x)
    check(lambda t, f, x: t.sort(x, stable=True), numpy.array([2, 1, 2, 1, 0, 2]))
    check(lambda t, f, x: t.sort(x, stable=True, descending=True), numpy.array([2, 1, 2, 1, 0, 2]))
    check(
        lambda t, f, x: t.sort(x),
        numpy.array([2, numpy.nan, -numpy.inf, 1], numpy.float32),
        grad=False,
    )
    check(lambda t, f, x: x.median(), x)
    check(lambda t, f, x: t.cumsum(x, 0), numpy.array([True, False, True]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int8", "uint8",
                                   "int32", "int64", "bool_", "complex64"])
@pytest.mark.parametrize("how", ["known", "pending", "constant", "a view", "one element"])
def test_item_of_every_dtype(dtype, how):
    ours, theirs = (getattr(module, dtype.strip("_")) for module in (lg, torch))
    x, y = (module.tensor([1.5, 0.0, 2.5]).to(kind)
            for module, kind in ((lg, ours), (torch, theirs)))
    lg.synchronize()
    pick = {
        "known": lambda module, t: module.tensor(2.5).to(t.dtype),
        "pending": lambda module, t: t[0] * t[2],
        "constant": lambda module, t: module.ones((), dtype=t.dtype),
        "a view": lambda module, t: t[2],
        "one element": lambda module, t: t[1:2],
    }[how]
    found, expected = pick(lg, x), pick(torch, y)
    if how == "known":
        lg.synchronize()
    assert type(found.item()) is type(expected.item())
    assert found.item() == expected.item()
