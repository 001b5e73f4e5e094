"""Complex numbers: split into parts, graphs mean the same; functions are right to a few ulp."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch

from lazygrad_compiler.autodiff.backward import backward
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DTYPES, dtype_of_numpy
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.library import LIBRARY
from lazygrad_compiler.ir.node import Graph, IRError, IRTypeError, Node, node
from lazygrad_compiler.ir.ops import ELEMENTARY_UNARY
from lazygrad_compiler.ir.text import parse_graph, print_graph
from lazygrad_compiler.ir.verify import verify
from lazygrad_compiler.passes.complex import HANDLERS, split_complex
from lazygrad_compiler.passes.complex_functions import FUNCTIONS
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.target import host
from tests.compiler.gradients import against_torch
from tests.compiler.random_graphs import ARGUMENT_LIMIT, KINDS, MAKERS, WEIGHTS, random_graph
from tests.compiler.test_compiled import check, run_compiled

Array = np.ndarray
COMPLEX = ("complex64", "complex128")


def leaf(index: int, array: Array) -> Node:
    return node("input", index=index, dtype=dtype_of_numpy(array.dtype), shape=array.shape)


def numbers(dtype: str, *shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    generator = np.random.default_rng([seed, *shape])
    values = generator.standard_normal(shape) + 1j * generator.standard_normal(shape)
    return (scale * values).astype(dtype)


def as_pairs(array: Array) -> Array:
    """A complex array as its parts along a last axis; any other as it is."""
    if array.dtype.kind != "c":
        return array
    return np.stack([array.real, array.imag], axis=-1)


# ---- random programs

ELEMENTARY = [name for name in ELEMENTARY_UNARY if name in FUNCTIONS]


def _function(maker):
    op = maker.rng.choice([*ELEMENTARY, "sqrt", "sign", "abs", "conj", "real", "imag",
                           "view_as_real"])
    x = maker.pick_kind("complex")
    if x is None:
        return None
    values = maker.values[x]
    finite = np.abs(values[np.isfinite(values)])
    limit = 20 if op in ("sin", "cos", "tan", "tanh") else ARGUMENT_LIMIT.get(op, 1e9)
    if finite.max(initial=0) > limit or (op in ELEMENTARY and finite.min(initial=1) == 0):
        return None
    return maker.add(op, x)


def _from_parts(maker):
    x = maker.pick(lambda value: value.dtype.name in ("float32", "float64"))
    return None if x is None else maker.add("complex", x, maker.partner(x.dtype, x.shape))


def _from_pairs(maker):
    x = maker.pick(lambda value: value.dtype.name in ("float32", "float64")
                   and value.shape[-1:] == (2,))
    return None if x is None else maker.add("view_as_complex", x)


def _product(maker):
    x = maker.pick_kind("complex")
    if x is None or not np.isfinite(maker.values[x]).all():
        return None  # infinities times zeros: which parts are NaN depends on the order
    return maker.add("prod", x, axes=maker.axes(x.ndim))


MAKERS["complex"] = [_function, _function, _function, _from_parts, _from_pairs, _product]
WEIGHTS["complex"] = 12


def complex_graph(seed: int) -> tuple[Graph, list[Array]]:
    return random_graph(seed, size=14, kinds=(*KINDS, "complex"),
                        dtypes=(*COMPLEX, "complex64", "complex128", "float32", "float64", "int64",
                                "bool"))


@pytest.mark.parametrize("first", range(0, 120, 30))
def test_random_programs(first: int) -> None:
    """Compiled equals interpreted; so does the split graph, which is legal and has no complex."""
    seen = 0
    for seed in range(first, first + 30):
        graph, inputs = complex_graph(seed)
        split = split_complex(graph)
        verify(split, dense_inputs=False)
        assert not any(value.dtype.is_complex for value in split.nodes())
        seen += any(value.dtype.is_complex for value in graph.nodes())
        check(graph, inputs)
        text = print_graph(graph)
        assert print_graph(parse_graph(text)) == text
    assert seen > 5


def test_a_graph_without_complex_numbers_is_left_as_it_is() -> None:
    graph, _ = random_graph(3)
    assert split_complex(graph) is graph


def test_inputs_and_outputs_keep_their_bytes() -> None:
    array = numbers("complex64", 3, 4)
    z = leaf(0, array)
    graph = Graph((node("conj", z), z))
    split = split_complex(graph)
    assert [(value.dtype.name, value.shape) for value in split.outputs] == [
        ("float32", (3, 4, 2))] * 2
    assert split.inputs()[0].shape == (3, 4, 2) and split.inputs()[0].attrs[0] == 0
    first, second = run_compiled(graph, [array])
    assert first.tobytes() == array.conj().tobytes() and second.tobytes() == array.tobytes()


# ---- accuracy

MEANING = {
    "exp2": lambda z: mpmath.power(2, z), "log2": lambda z: mpmath.log(z) / mpmath.log(2),
    "log10": lambda z: mpmath.log(z) / mpmath.log(10), "log1p": lambda z: mpmath.log(1 + z),
    "sign": lambda z: z / abs(z), "abs": abs, "sqrt": mpmath.sqrt,
}
ULPS = {"exp2": 20.0}
"""Allowed errors; exp2 multiplies its angle by ln 2, whose rounding grows with the angle."""
WIDE = ("sqrt", "sign", "abs", "log", "log2", "log10", "asin", "acos", "atan", "asinh", "acosh",
        "atanh")


def points(dtype: str, name: str) -> Array:
    """All sizes up to 50, the unit circle, both neighbourhoods of 1 and -1; for some, far out."""
    generator = np.random.default_rng(7)

    def around(center: complex, size: float, count: int = 12) -> Array:
        return center + size * (generator.uniform(-1, 1, count)
                                + 1j * generator.uniform(-1, 1, count))

    parts = [around(0, size) for size in (1e-6, 1e-3, 0.5, 1, 3, 10, 50)]
    turns = generator.uniform(-math.pi, math.pi, 12)
    parts += [np.exp(1j * turns) * (1 + generator.uniform(-1e-4, 1e-4, 12)), around(1, 1e-4),
              around(-1, 1e-4)]
    if name in WIDE:
        reach = 28 if dtype == "complex64" else 240
        size = 2.0 ** generator.uniform(-reach, reach, (2, 24))
        parts.append(generator.choice([-1, 1], 24) * size[0] + 1j * size[1])
    return np.concatenate(parts).astype(dtype)


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("name", [*ELEMENTARY, "sqrt", "sign", "abs"])
def test_accuracy(name: str, dtype: str) -> None:
    array = points(dtype, name)
    result, = run_compiled(Graph((node(name, leaf(0, array)),)), [array])
    function = MEANING.get(name) or getattr(mpmath, name)
    limits = np.finfo(dtype)
    with mpmath.workprec(200):
        for z, got in zip(array, result, strict=True):
            exact = function(mpmath.mpc(complex(z)))
            error = abs(mpmath.mpc(complex(got)) - exact)
            assert error <= ULPS.get(name, 3.0) * float(limits.eps) * max(
                abs(exact), float(limits.tiny)), f"{name}({z}) = {got}"


@pytest.mark.parametrize("dtype", COMPLEX)
def test_nothing_overflows_on_the_way(dtype: str) -> None:
    limits = np.finfo(dtype)
    high, low = float(limits.max) / 4, float(limits.tiny) * 4
    array = np.array([complex(high, high), complex(low, -low), complex(-high, low)], dtype)
    z = leaf(0, array)
    graph = Graph((node("abs", z), node("div", z, z), node("sqrt", z), node("log", z),
                   node("sign", z)))
    size, quotient, root, logarithm, direction = run_compiled(graph, [array])
    wide = array.astype(np.complex128) if dtype == "complex64" else array
    tolerance = 4 * float(limits.eps)
    np.testing.assert_allclose(size, np.abs(wide), rtol=tolerance)
    np.testing.assert_allclose(quotient, np.ones(3), rtol=tolerance)
    np.testing.assert_allclose(root, np.sqrt(wide), rtol=tolerance)
    np.testing.assert_allclose(logarithm, np.log(wide), rtol=tolerance)
    np.testing.assert_allclose(np.abs(direction), np.ones(3), rtol=tolerance)
    steep = np.array([complex(math.log(float(limits.max)) + 0.2, math.pi / 4)], dtype)
    for name in ("exp", "sinh", "cosh"):
        got, = run_compiled(Graph((node(name, leaf(0, steep)),)), [steep])
        assert np.isfinite(got).all(), name
        np.testing.assert_allclose(
            got, getattr(np, name)(steep.astype(np.clongdouble)).astype(dtype), rtol=1e-5)


BRANCHES = [complex(x, y) for x in (-2.0, -1.0, -0.5, 0.0, -0.0, 0.5, 2.0) for y in (0.0, -0.0)]
BRANCHES += [complex(x, y) for x in (0.0, -0.0) for y in (-2.0, -0.5, 0.5, 2.0)]


@pytest.mark.parametrize("name", ["sqrt", "log", "log1p", "asin", "acos", "atan", "asinh", "acosh",
                                  "atanh"])
def test_branch_cuts(name: str) -> None:
    """On the cuts, the sign of zero says which side; poles and the signs of zeros as in NumPy."""
    array = np.array(BRANCHES)
    graph = Graph((node(name, leaf(0, array)),))
    got, = run_compiled(graph, [array])
    want, = interpret(graph, [array])
    for z, ours, theirs in zip(array, got, want, strict=True):
        for part, other in ((ours.real, theirs.real), (ours.imag, theirs.imag)):
            if np.isfinite(theirs):
                assert abs(part - other) < 1e-15 * max(1, abs(other)), f"{name}({z})"
                assert other == 0 or np.sign(part) == np.sign(other), f"{name}({z})"


def test_special_values() -> None:
    inf, nan = math.inf, math.nan
    array = np.array([complex(inf, nan), complex(nan, -inf), complex(-inf, 1), complex(0, 0),
                      complex(nan, 1)])
    z = leaf(0, array)
    zero = node("const", value=0j, dtype=dtypes.complex128, shape=(5,))
    one = node("const", value=1 + 0j, dtype=dtypes.complex128, shape=(5,))
    size, root, quotient, nothing = run_compiled(
        Graph((node("abs", z), node("sqrt", z), node("div", one, z), node("pow", z, zero))),
        [array])
    np.testing.assert_array_equal(size, [inf, inf, inf, 0, nan])
    assert root[0].real == inf and root[1] == complex(inf, -inf) and root[2] == complex(0, inf)
    assert quotient[2] == 0 and quotient[3].real == inf and np.isnan(quotient[4])
    np.testing.assert_array_equal(nothing, np.ones(5))


ENDLESS = [complex(x, y) for x in (math.inf, -math.inf, 1.0, 0.0)
           for y in (math.inf, -math.inf, 1.0, 0.0) if math.inf in (abs(x), abs(y))]


@pytest.mark.parametrize("name", ["sqrt", "log", "log1p", "log10", "asin", "acos", "atan", "asinh",
                                  "acosh", "atanh"])
def test_infinite_parts(name: str) -> None:
    array = np.array(ENDLESS)
    graph = Graph((node(name, leaf(0, array)),))
    got, = run_compiled(graph, [array])
    want, = interpret(graph, [array])
    np.testing.assert_allclose(got.real, want.real, rtol=1e-14)
    np.testing.assert_allclose(got.imag, want.imag, rtol=1e-14)


@pytest.mark.parametrize("dtype", COMPLEX)
def test_powers(dtype: str) -> None:
    z, w = numbers(dtype, 40), numbers(dtype, 40, seed=1)
    tolerance = 40 * float(np.finfo(dtype).eps)
    got, = run_compiled(Graph((node("pow", leaf(0, z), leaf(1, w)),)), [z, w])
    np.testing.assert_allclose(got, np.power(z.astype("c16"), w.astype("c16")), rtol=tolerance)
    z = (z / np.abs(z) * 1.1).astype(dtype)
    for exponent in (2, 3, -1, -4, 0, 0.5, 7, 2.5, 64, 100):
        constant = node("const", value=complex(exponent), dtype=DTYPES[dtype], shape=z.shape)
        got, = run_compiled(Graph((node("pow", leaf(0, z), constant),)), [z])
        np.testing.assert_allclose(got, z.astype("c16") ** exponent, rtol=8 * tolerance)


# ---- ops over several elements


def test_products_and_their_shapes() -> None:
    a, b = numbers("complex64", 5, 33, 40), numbers("complex64", 5, 40, 37, seed=1)
    dot = node("dot", leaf(0, a), leaf(1, b), left_batch=(0,), right_batch=(0,),
               left_contract=(2,), right_contract=(1,))
    got, = run_compiled(Graph((dot,)), [a, b])
    np.testing.assert_allclose(got, a.astype("c16") @ b.astype("c16"), atol=2e-5)
    for count in (0, 1, 2, 7, 16, 1000):
        z = np.exp(1j * np.random.default_rng(count).uniform(-3, 3, (2, count)))
        got, = run_compiled(Graph((node("prod", leaf(0, z), axes=(1,)),)), [z])
        np.testing.assert_allclose(got, z.prod(1), atol=1e-12)


@pytest.mark.parametrize("combine, reverse", [("add", False), ("add", True), ("mul", False),
                                              ("mul", True)])
def test_scans(combine: str, reverse: bool) -> None:
    z = numbers("complex128", 3, 21)
    graph = Graph((node("scan", leaf(0, z), axis=1, combine=combine, reverse=reverse),))
    got, = run_compiled(graph, [z])
    want, = interpret(graph, [z])
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("mode", ["set", "add"])
def test_gather_and_scatter(mode: str) -> None:
    base, updates = numbers("complex64", 5, 3), numbers("complex64", 4, 3, seed=1)
    index = np.array([0, 3, 3, -1])
    place = leaf(2, index)
    changed = node("scatter", leaf(0, base), leaf(1, updates), place, axes=(0,), mode=mode)
    graph = Graph((changed, node("gather", changed, place, axes=(0,))))
    for got, want in zip(run_compiled(graph, [base, updates, index]),
                         interpret(graph, [base, updates, index]), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float64"])
def test_the_bits_of_a_complex_number(dtype: str) -> None:
    z = numbers("complex64", 7)
    there = node("bitcast", leaf(0, z), dtype=DTYPES[dtype])
    bits, back = run_compiled(
        Graph((there, node("bitcast", there, dtype=dtypes.complex64))), [z])
    assert bits.tobytes() == z.tobytes() and back.tobytes() == z.tobytes()


def test_library_calls_take_and_give_complex_arrays() -> None:
    a, b = numbers("complex128", 2, 4, 4), numbers("complex128", 2, 4, 3, seed=1)
    a_leaf, b_leaf = leaf(0, a), leaf(1, b)
    doubled = node("mul", a_leaf, node("const", value=2j, dtype=dtypes.complex128, shape=a.shape))
    solved = node("library", doubled, b_leaf, call="linalg.solve", options=(), part=0)
    graph = Graph((node("conj", solved), solved))
    split = split_complex(graph)
    verify(split, dense_inputs=False)
    want = np.linalg.solve(2j * a, b)
    for got in (interpret(split, [as_pairs(a), as_pairs(b)]),
                list(map(as_pairs, run_compiled(graph, [a, b])))):
        np.testing.assert_allclose(got[0], as_pairs(want.conj()), rtol=1e-10)
        np.testing.assert_allclose(got[1], as_pairs(want), rtol=1e-10)


def test_every_library_call_has_a_row_on_pairs() -> None:
    plain = [name for name in LIBRARY if not name.endswith(" of pairs")]
    assert plain and all(f"{name} of pairs" in LIBRARY for name in plain)


# ---- what is refused


def test_ops_without_an_order_refuse_complex_numbers() -> None:
    z = leaf(0, numbers("complex64", 3))
    for op, operands in (("lt", 2), ("maximum", 2), ("floor", 1), ("erf", 1), ("atan2", 2)):
        with pytest.raises(IRTypeError, match="complex64"):
            node(op, *[z] * operands)
    with pytest.raises(IRTypeError, match="complex64"):
        node("max", z, axes=(0,))
    x = leaf(0, np.ones(3))
    for op in ("real", "imag", "view_as_real"):
        with pytest.raises(IRError, match="complex"):
            node(op, x)
    with pytest.raises(IRError, match="size 2"):
        node("view_as_complex", x)


def test_scatter_by_multiplication_says_that_it_cannot() -> None:
    z, index = leaf(0, numbers("complex64", 3)), leaf(1, np.zeros(3, np.int64))
    graph = Graph((node("scatter", z, z, index, axes=(0,), mode="mul"),))
    with pytest.raises(IRError, match="scatter"):
        split_complex(graph)


def test_every_op_that_takes_complex_numbers_can_be_split() -> None:
    """The table of the pass keeps up with the table of ops."""
    z = node("input", index=0, dtype=dtypes.complex64, shape=(2,))
    from lazygrad_compiler.ir.ops import OPS
    missing = []
    for name, definition in OPS.items():
        if definition.kind != "elementwise" or definition.attributes:
            continue
        try:
            node(name, *[z] * definition.arity)
        except IRError:
            continue
        if name not in HANDLERS:
            missing.append(name)
    assert not missing


# ---- gradients

TO_PARTS = {
    "abs": torch.abs, "sign": torch.sgn, "conj": torch.conj_physical, "real": torch.real,
    "imag": torch.imag, "view_as_real": torch.view_as_real,
}


@pytest.mark.parametrize("name", TO_PARTS)
def test_gradients(name: str) -> None:
    """PyTorch's convention, first and second order."""
    against_torch(lambda z: node(name, z), TO_PARTS[name], numbers("complex128", 5, seed=3))


def test_gradients_of_putting_together() -> None:
    parts = np.random.default_rng(0).standard_normal((2, 5))
    against_torch(lambda x, y: node("complex", x, y), torch.complex, *parts)
    against_torch(lambda x: node("view_as_complex", x), torch.view_as_complex,
                  np.ascontiguousarray(parts.T))


def test_gradients_at_zero() -> None:
    for name in ("abs", "sign"):
        against_torch(lambda z, name=name: node(name, z), TO_PARTS[name],
                      np.array([0j, 1 + 1j]), second=False)


def test_compiled_gradients() -> None:
    """The gradient of a real loss through most complex ops, compiled against interpreted."""
    z, w = numbers("complex128", 4, 5), numbers("complex128", 5, 3, seed=1)
    a, b = leaf(0, z), leaf(1, w)
    product = node("dot", a, b, left_batch=(), right_batch=(), left_contract=(1,),
                   right_contract=(0,))
    bent = node("div", node("tanh", product), node("exp", node("sqrt", product)))
    loss = node("sum", node("abs", node("sub", bent, node("conj", product))), axes=(0, 1))
    seed = node("const", value=1.0, dtype=dtypes.float64, shape=())
    graph = Graph((loss, *backward([loss], [seed], [a, b])))
    for got, want in zip(run_compiled(graph, [z, w]), interpret(graph, [z, w]), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11)


# ---- the code that comes out


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("count", [1, 2, 7, 15, 16, 17, 31, 32, 33, 64, 100])
def test_parts_are_read_and_written_side_by_side(count: int, dtype: str) -> None:
    """Full vectors, partial ones, and shapes that no vector fits; backwards, too."""
    z, w = numbers(dtype, count), numbers(dtype, count, seed=1)
    a, b = leaf(0, z), leaf(1, w)
    graph = Graph((node("mul", a, node("conj", b)), node("flip", node("imag", a), axes=(0,)),
                   node("add", node("flip", a, axes=(0,)), b), node("sum", a, axes=(0,)),
                   node("flip", node("mul", b, b), axes=(0,))))
    got = run_compiled(graph, [z, w])
    wanted = (z * w.conj(), z.imag[::-1], z[::-1] + w, z.sum(), (w * w)[::-1])
    for ours, theirs in zip(got, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    columns = z.real.copy(), w.real.copy()
    x, y = leaf(0, columns[0]), leaf(1, columns[1])
    wide = [node("reshape", value, shape=(count, 1)) for value in (node("neg", x), y)]
    stacked, = run_compiled(Graph((node("concat", *wide, axis=1),)), list(columns))
    np.testing.assert_array_equal(stacked, np.stack([-columns[0], columns[1]], axis=1))


def test_a_chain_is_one_kernel() -> None:
    """Parts fuse like any other elementwise values."""
    z = leaf(0, numbers("complex64", 1000))
    value = node("mul", node("add", z, z), node("conj", z))
    stages = lower(Graph((node("exp", value),)), host())
    assert len(stages.launches) == 1
    stages = lower(Graph((node("abs", value),)), host())
    assert len(stages.launches) == 1
