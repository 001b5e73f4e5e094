"""The interpreter against closed forms, plain Python and torch: the oracle must be right."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy
import pytest

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.interpret import evaluate, interpret
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.ir.philox import philox
from lazygrad_compiler.ir.reference import REFERENCE, IndexOutOfRange

torch = pytest.importorskip("torch")


def run(op: str, *arrays: Any, **attributes: Any) -> numpy.ndarray:
    """One operation on arrays."""
    values = [numpy.asarray(array) for array in arrays]
    inputs = [node("input", index=k, dtype=dtypes.dtype_of_numpy(v.dtype), shape=v.shape)
              for k, v in enumerate(values)]
    result, = interpret(Graph((node(op, *inputs, **attributes),)), values)
    return result


def integers(*shape: int, seed: int = 0) -> numpy.ndarray:
    return numpy.random.default_rng(seed).integers(-9, 10, shape)


def normal(*shape: int, seed: int = 0) -> numpy.ndarray:
    return numpy.random.default_rng(seed).standard_normal(shape)


def test_products_with_an_infinity_that_is_repeated_are_summed_one_by_one() -> None:
    once = numpy.full((1, 1), numpy.inf, numpy.float32)
    found = run("dot", numpy.array([[1.0, -1.0, 2.0]], numpy.float32),
                numpy.broadcast_to(once, (1, 3)), left_batch=(), right_batch=(),
                left_contract=(1,), right_contract=(1,))
    assert numpy.isnan(found).all()


def test_every_operation_has_a_meaning() -> None:
    plain = {op for op, entry in OPS.items() if entry.kind != "composite"}
    assert set(REFERENCE) == plain - {"input"}


# ---- elementwise

SMALL = {"int8": range(-128, 128), "uint8": range(256)}


def every_pair(dtype: str) -> tuple[numpy.ndarray, numpy.ndarray]:
    left, right = zip(*itertools.product(SMALL[dtype], SMALL[dtype]))
    return numpy.array(left, DTYPES[dtype].numpy), numpy.array(right, DTYPES[dtype].numpy)


def whole_power(x: int, y: int) -> int:
    if y >= 0:
        return pow(x, y, 256)
    return 1 if x == 1 else (-1) ** (y % 2) if x == -1 else 0


INTEGER_MEANINGS = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "idiv": lambda x, y: 0 if y == 0 else abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1),
    "rem": lambda x, y: 0 if y == 0 else int(math.fmod(x, y)),
    "maximum": max,
    "minimum": min,
    "pow": whole_power,
    "and": lambda x, y: x & y,
    "or": lambda x, y: x | y,
    "xor": lambda x, y: x ^ y,
    "shl": lambda x, y: x << y if 0 <= y < 8 else 0,
    "shr": lambda x, y: x >> (y if 0 <= y < 8 else 8),
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
}


@pytest.mark.parametrize("dtype", SMALL)
@pytest.mark.parametrize("op", INTEGER_MEANINGS)
def test_integers_like_python_wrapped(op: str, dtype: str) -> None:
    """All 65,536 pairs of 8-bit integers."""
    left, right = every_pair(dtype)
    expected = numpy.array([INTEGER_MEANINGS[op](int(a), int(b)) for a, b in zip(left, right)])
    got = run(op, left, right)
    assert numpy.array_equal(got, expected.astype(got.dtype))


@pytest.mark.parametrize("op, meaning", [("neg", lambda x: -x), ("abs", abs), ("not", lambda x: ~x),
                                         ("sign", lambda x: (x > 0) - (x < 0))])
@pytest.mark.parametrize("dtype", SMALL)
def test_unary_integers(op: str, meaning: Any, dtype: str) -> None:
    values = numpy.array(SMALL[dtype], DTYPES[dtype].numpy)
    expected = numpy.array([meaning(int(v)) for v in values]).astype(values.dtype)
    assert numpy.array_equal(run(op, values), expected)


@pytest.mark.parametrize("op, name", [
    ("exp", "exp"), ("exp2", "exp2"), ("expm1", "expm1"), ("log", "log"), ("log2", "log2"),
    ("log10", "log10"),
    ("log1p", "log1p"), ("sin", "sin"), ("cos", "cos"), ("tan", "tan"), ("asin", "asin"),
    ("acos", "acos"),
    ("atan", "atan"), ("sinh", "sinh"), ("cosh", "cosh"), ("tanh", "tanh"), ("asinh", "asinh"),
    ("acosh", "acosh"), ("atanh", "atanh"), ("erf", "erf"), ("erfc", "erfc"), ("sqrt", "sqrt"),
    ("floor", "floor"), ("ceil", "ceil"), ("trunc", "trunc"), ("round", "round"), ("abs", "abs"),
])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_of_floats_like_torch(op: str, name: str, dtype: str) -> None:
    specials = [0.0, -0.0, 0.5, -0.5, 1.5, 2.5, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-30]
    values = numpy.concatenate([specials, 3 * normal(100)]).astype(dtype)
    expected = getattr(torch, name)(torch.tensor(values)).numpy()
    tolerance = 8 * numpy.finfo(dtype).eps
    numpy.testing.assert_allclose(run(op, values), expected, rtol=tolerance, atol=tolerance / 100)


def test_choices_and_comparisons_with_nan() -> None:
    x, y = numpy.array([math.nan, 1.0, -0.0]), numpy.array([1.0, math.nan, 0.0])
    assert numpy.isnan(run("maximum", x, y)[:2]).all()
    assert numpy.isnan(run("minimum", x, y)[:2]).all()
    assert run("lt", x, y).tolist() == [False, False, False]
    assert run("le", x, y).tolist() == [False, False, True]
    assert run("eq", x, y).tolist() == [False, False, True]
    assert run("ne", x, y).tolist() == [True, True, False]
    chosen = run("where", numpy.array([True, True, False]), x, y)
    assert math.isnan(chosen[0]) and chosen[1] == 1 and not numpy.signbit(chosen[2])
    assert numpy.signbit(run("where", numpy.array([False, False, True]), x, y)[2])
    assert math.isnan(run("sign", x)[0])


def test_sixteen_bit_floats_round_once() -> None:
    one, step = numpy.float16(1), numpy.float16(2.0**-11)
    assert run("add", one, step) == one  # a tie, to even
    assert run("sum", numpy.full(2049, 1, numpy.float16), axes=(0,)) == numpy.float16(2048)
    ones = numpy.full(4096, 1, numpy.float16)
    assert run("sum", ones, axes=(0,)) == 4096  # adding in float16 would stop at 2048


@pytest.mark.parametrize("source, target, values, expected", [
    ("float32", "int32", [1.9, -1.9, 3e9, -3e9, math.nan, math.inf],
     [1, -1, 2**31 - 1, -2**31, 0, 2**31 - 1]),
    ("float64", "int64", [1e30, -1e30, 2.0**62], [2**63 - 1, -2**63, 2**62]),
    ("float64", "uint64", [2.0**63, 1e30, -1.0], [2**63, 2**64 - 1, 2**64 - 1]),
    ("float32", "int8", [127.9, 128.0, 300.0, -1.0], [127, -128, 44, -1]),
    ("float32", "bool", [0.0, -0.0, 0.1, math.nan], [False, False, True, True]),
    ("int32", "uint8", [-1, 256, 300], [255, 0, 44]),
    ("int64", "int32", [2**31, -2**31 - 1], [-2**31, 2**31 - 1]),
    ("bool", "float32", [True, False], [1.0, 0.0]),
    ("int32", "float16", [2048, 2049, 70000], [2048.0, 2048.0, math.inf]),
    ("float32", "float16", [65519.0, 65520.0, 1e-8], [65504.0, math.inf, 0.0]),
    ("bfloat16", "int32", [1.5, -3.0], [1, -3]),
    ("complex64", "float32", [1 + 2j], [1.0]),
])
def test_conversions(source: str, target: str, values: list, expected: list) -> None:
    got = run("cast", numpy.array(values).astype(DTYPES[source].numpy), dtype=DTYPES[target])
    assert numpy.array_equal(got, numpy.array(expected, DTYPES[target].numpy)), got


def test_bits() -> None:
    got = run("bitcast", numpy.array([1.0, -0.0], numpy.float32), dtype=dtypes.uint32)
    assert got.tolist() == [0x3F800000, 0x80000000]


# ---- leaves


def test_constants_and_counts() -> None:
    assert run("const", value=-0.0, dtype=dtypes.float32, shape=(2,)).tobytes() == b"\0\0\0\x80" * 2
    assert run("iota", axis=1, dtype=dtypes.int32, shape=(2, 3)).tolist() == [[0, 1, 2], [0, 1, 2]]
    rows = run("iota", axis=0, dtype=dtypes.float32, shape=(2, 3))
    assert rows.tolist() == [[0, 0, 0], [1, 1, 1]]


def test_philox_known_answers() -> None:
    """Random123's kat_vectors, philox4x32-10; ours has the upper two counter words at 0."""
    expected = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox(0, 0, 1)[0].tolist() == expected


def test_random_bits_are_words_of_blocks() -> None:
    state = numpy.array([123456789012345, 7], numpy.int64)
    got = run("random_bits", state, shape=(2, 5))
    assert got.ravel().tolist() == philox(123456789012345, 7, 3).ravel()[:10].tolist()
    later = run("random_bits", numpy.array([123456789012345, 8], numpy.int64), shape=(4,))
    assert later.tolist() == got.ravel()[4:8].tolist()


# ---- movement


def test_movement() -> None:
    x = numpy.arange(6).reshape(2, 3)
    assert run("reshape", x, shape=(3, 2)).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert run("permute", x, order=(1, 0)).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert run("permute", numpy.zeros((2, 3, 4)), order=(1, 2, 0)).shape == (3, 4, 2)
    assert run("expand", x[:1], shape=(2, 3)).tolist() == [[0, 1, 2]] * 2
    assert run("slice", x, starts=(0, 1), stops=(2, 3), steps=(1, 2)).tolist() == [[1], [4]]
    assert run("flip", x, axes=(1,)).tolist() == [[2, 1, 0], [5, 4, 3]]
    assert run("concat", x, x[:1], axis=0).tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]


def test_padding() -> None:
    got = run("pad", numpy.array([1, 2, 3]), low=(1,), high=(2,), interior=(2,), value=9)
    assert got.tolist() == [9, 1, 9, 9, 2, 9, 9, 3, 9, 9]
    got = run("pad", numpy.zeros(0, int), low=(1,), high=(2,), interior=(2,), value=9)
    assert got.tolist() == [9, 9, 9]


def test_windows() -> None:
    x = integers(7, 6)
    got = run("window", x, axes=(1, 0), sizes=(2, 3), strides=(3, 2), dilations=(2, 1))
    assert got.shape == (3, 2, 2, 3)
    for place in numpy.ndindex(got.shape):
        row, column, second, first = place
        assert got[place] == x[2 * row + first, 3 * column + 2 * second]


# ---- reductions


def test_reductions_of_nothing() -> None:
    x = numpy.zeros((0, 2), numpy.float32)
    assert run("sum", x, axes=(0,)).tolist() == [0, 0]
    assert run("prod", x, axes=(0,)).tolist() == [1, 1]
    assert run("max", x, axes=(0,)).tolist() == [-math.inf] * 2
    assert run("min", x.astype(numpy.int8), axes=(0,)).tolist() == [127] * 2


@pytest.mark.parametrize("axes", [(), (0,), (1,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("op", ["sum", "prod", "max", "min"])
def test_reductions_like_numpy(op: str, axes: tuple[int, ...]) -> None:
    x = integers(3, 4, 5)
    assert numpy.array_equal(run(op, x, axes=axes), getattr(numpy, op)(x, axis=axes))


def test_extremes_with_nan() -> None:
    x = numpy.array([[1.0, math.nan, 3.0], [2.0, 5.0, 5.0]])
    assert math.isnan(run("max", x, axes=(1,))[0]) and run("max", x, axes=(1,))[1] == 5
    assert run("argmax", x, axes=(1,)).tolist() == [1, 1]
    assert run("argmin", x, axes=(1,)).tolist() == [1, 0]


def test_places_within_several_axes() -> None:
    x = integers(3, 4, 5)
    expected = [x[:, k, :].reshape(-1).argmax() for k in range(4)]
    assert run("argmax", x, axes=(0, 2)).tolist() == expected


# ---- contractions


def test_dot_by_hand() -> None:
    x, y = integers(2, 3, 4), integers(5, 4, 2, seed=1)
    got = run("dot", x, y, left_batch=(0,), right_batch=(2,), left_contract=(2,),
              right_contract=(1,))
    assert got.shape == (2, 3, 5)
    for batch, row, column in numpy.ndindex(got.shape):
        expected = sum(x[batch, row, k] * y[column, k, batch] for k in range(4))
        assert got[batch, row, column] == expected


@pytest.mark.parametrize("strides, padding, dilation, groups", [
    ((1, 1), (0, 0), (1, 1), 1), ((2, 1), (1, 2), (1, 2), 1), ((1, 3), (2, 0), (2, 1), 2),
    ((2, 2), (1, 1), (1, 1), 4),
])
def test_convolution_like_torch(strides: tuple, padding: tuple, dilation: tuple,
                                groups: int) -> None:
    x, w = normal(2, 4, 9, 8), normal(8, 4 // groups, 3, 2, seed=1)
    expected = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(w), stride=strides,
                                          padding=padding, dilation=dilation, groups=groups)
    got = run("conv", x, w, strides=strides, padding=tuple((p, p) for p in padding),
              left_dilation=(1, 1), right_dilation=dilation, groups=groups)
    numpy.testing.assert_allclose(got, expected.numpy(), rtol=1e-12, atol=1e-12)


def test_left_dilation_and_negative_padding() -> None:
    """A transposed convolution is one of the spread input; negative padding cuts."""
    x, w = normal(1, 2, 5), normal(2, 3, 4, seed=1)
    expected = torch.nn.functional.conv_transpose1d(torch.tensor(x), torch.tensor(w), stride=2,
                                                    padding=1)
    flipped = numpy.flip(w.transpose(1, 0, 2), 2).copy()
    got = run("conv", x, flipped, strides=(1,), padding=((2, 2),), left_dilation=(2,),
              right_dilation=(1,), groups=1)
    numpy.testing.assert_allclose(got, expected.numpy(), rtol=1e-12, atol=1e-12)
    cut = run("conv", x, flipped, strides=(1,), padding=((-1, 2),), left_dilation=(2,),
              right_dilation=(1,), groups=1)
    numpy.testing.assert_allclose(cut, got[..., 3:], rtol=1e-12, atol=1e-12)


# ---- gather and scatter


def test_gather_puts_index_axes_first() -> None:
    x = integers(3, 4, 5)
    first, last = numpy.array([[0, -1], [2, 1]]), numpy.array([[4, -5], [0, 3]])
    got = run("gather", x, first, last, axes=(0, 2))
    assert got.shape == (2, 2, 4)
    for a, b, k in numpy.ndindex(got.shape):
        assert got[a, b, k] == x[first[a, b], k, last[a, b]]


@pytest.mark.parametrize("mode, combine", [
    ("set", lambda old, new: new), ("add", lambda old, new: old + new),
    ("mul", lambda old, new: old * new), ("max", max), ("min", min),
])
def test_scatter(mode: str, combine: Any) -> None:
    base, updates, index = integers(3, 4), integers(5, 3, seed=1), numpy.array([0, -1, 2, 0, 3])
    expected = base.copy()
    for number, place in enumerate(index):
        for row in range(3):
            expected[row, place] = combine(expected[row, place], updates[number, row])
    assert numpy.array_equal(run("scatter", base, updates, index, axes=(1,), mode=mode), expected)


@pytest.mark.parametrize("index", [3, -4])
def test_indices_out_of_range(index: int) -> None:
    where = numpy.array([0, index])
    with pytest.raises(IndexOutOfRange, match=rf"\[gather\] index {index} .* axis 0 of size 3"):
        run("gather", integers(3, 2), where, axes=(0,))
    with pytest.raises(IndexOutOfRange, match=rf"\[scatter\] index {index}"):
        run("scatter", integers(3, 2), integers(2, 2), where, axes=(0,), mode="set")


# ---- graphs


def test_markers_are_identities() -> None:
    x = normal(3)
    assert numpy.array_equal(run("variable", x, uid=1), x)
    assert numpy.array_equal(run("stop_gradient", x), x)


def leaf(index: int) -> Node:
    return node("input", index=index, dtype=dtypes.float64, shape=(2,))


def test_graph_with_several_outputs_and_shared_nodes() -> None:
    x, y = leaf(0), leaf(1)
    total = node("add", x, y)
    graph = Graph((node("mul", total, total), total, x))
    got = interpret(graph, [numpy.array([1.0, 2.0]), numpy.array([3.0, 4.0])])
    assert [value.tolist() for value in got] == [[16, 36], [4, 6], [1, 2]]


def test_evaluate_starts_from_what_is_known() -> None:
    x = leaf(0)
    inner = node("neg", x)
    got, = evaluate([node("abs", inner)], {inner: numpy.array([-5.0, 6.0])})
    assert got.tolist() == [5, 6]


def test_values_that_do_not_fit_are_refused() -> None:
    x = leaf(0)
    for wrong in (numpy.zeros(3), numpy.zeros(2, numpy.float32)):
        with pytest.raises(ValueError, match="was given"):
            evaluate([node("neg", x)], {x: wrong})


def test_deep_graphs_need_no_recursion() -> None:
    current = leaf(0)
    for _ in range(5_000):
        current = node("neg", current)
    assert interpret(Graph((current,)), [numpy.array([1.0, -2.0])])[0].tolist() == [1, -2]
