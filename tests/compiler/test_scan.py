"""Scans and compaction, compiled, against the interpreter: every way through an array, every way to
combine, chunk borders, special values; and the scatters that threads share.
"""

from __future__ import annotations

import numpy
import pytest

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.inference_scan import SCAN_COMBINES
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, IRError, Node, node
from lazygrad_compiler.ir.text import parse_graph, print_graph
from lazygrad_compiler.llvm import scan
from lazygrad_compiler.loops.scan import ALIGNED_POSITIONS, COMPACT_CHUNK, LARGE, lines_of
from lazygrad_compiler.loops.scatter import scatter_parts
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.target import host
from tests.compiler.error_bounds import check as compare
from tests.compiler.random_graphs import KINDS, random_graph
from tests.compiler.test_compiled import run_compiled

Array = numpy.ndarray
DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "uint8", "bool")
TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 1e-5, "float64": 1e-11}

SHAPES = [  # (shape, axis): along with inner sizes 1, 2, 4; across with full and partial vectors
    ((1,), 0), ((0,), 0), ((3, 0), 0), ((37,), 0), ((3, 65), 1), ((30, 2), 0), ((19, 3, 4), 1),
    ((9, 3), 0), ((5, 200), 0), ((4, 7, 33), 1),
]
LONG = [((150_003,), 0), ((2, 70_000), 1), ((70_000, 2), 0), ((60_001, 3), 0), ((4000, 40), 0)]


def draw(shape: tuple[int, ...], dtype: str, combine: str, special: bool, seed: int = 0) -> Array:
    generator = numpy.random.default_rng(seed)
    record = dtypes.dtype_named(dtype)
    if record.kind == "bool":
        return generator.random(shape) < 0.1
    if record.is_integer:
        return generator.integers(-9 if record.kind == "signed" else 0, 9, shape).astype(
            record.numpy
        )
    values = generator.standard_normal(shape)
    if combine == "mul":
        values = 1 + values * 1e-3
    if special and values.size > 30:
        places = generator.choice(values.size, 3, replace=False)
        values.reshape(-1)[places] = [-numpy.inf, -0.0, numpy.nan]
    return values.astype(record.numpy)


def scan_graph(shape: tuple[int, ...], dtype: str, axis: int, combine: str, reverse: bool) -> Graph:
    source = node("input", index=0, dtype=dtypes.dtype_named(dtype), shape=shape)
    return Graph((node("scan", source, axis=axis, combine=combine, reverse=reverse),))


def check(shape: tuple[int, ...], dtype: str, axis: int, combine: str, reverse: bool,
          special: bool = False) -> None:
    graph = scan_graph(shape, dtype, axis, combine, reverse)
    values = draw(shape, dtype, combine, special)
    (got,), (expected,) = run_compiled(graph, [values]), interpret(graph, [values])
    assert got.dtype == expected.dtype
    case = f"{shape} {dtype} axis {axis} {combine} reverse {reverse}"
    if not graph.outputs[0].dtype.is_floating:
        numpy.testing.assert_array_equal(got, expected, err_msg=case)
        return
    got, expected = got.astype(numpy.float64), expected.astype(numpy.float64)
    if combine in ("max", "min"):
        numpy.testing.assert_array_equal(got, expected, err_msg=case)
        return
    largest = max(1.0, numpy.abs(expected[numpy.isfinite(expected)]).max(initial=0.0))
    numpy.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE[dtype] * largest,
                                  err_msg=case)


@pytest.mark.parametrize("combine", SCAN_COMBINES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_way_through_an_array(combine, dtype):
    if dtypes.dtype_named(dtype).kind not in SCAN_COMBINES[combine]:
        with pytest.raises(IRError, match=combine):
            scan_graph((3,), dtype, 0, combine, False)
        return
    for number, (shape, axis) in enumerate(SHAPES):
        check(shape, dtype, axis, combine, reverse=number % 2 == 1, special=number % 3 == 0)


@pytest.mark.parametrize("shape, axis", LONG)
def test_long_lines_in_chunks(shape, axis):
    lines = lines_of(shape, axis)
    assert lines.chunks > 1 and lines.chunk % ALIGNED_POSITIONS == 0
    for combine in SCAN_COMBINES:
        for reverse in (False, True):
            # one after the other, as the interpreter goes, float32 loses more than chunks do
            dtype = "float32" if combine in ("max", "min") else "float64"
            check(shape, dtype, axis, combine, reverse)
    check(shape, "int64", axis, "add", False)
    check(shape, "bfloat16", axis, "max", True, special=True)


@pytest.mark.parametrize("dtype", ("float32", "float64", "bfloat16", "uint8"))
@pytest.mark.parametrize("shape, axis", [((3, 128), 1), ((5, 64, 2), 1), ((2, 90_048), 1)])
def test_results_past_the_caches(shape, axis, dtype, monkeypatch):
    """As large ones are written; chunks, too."""
    monkeypatch.setattr(scan, "PAST_CACHES_FROM", 0)
    for reverse in (False, True):
        kernels = lower(scan_graph(shape, dtype, axis, "add", reverse), host()).kernels
        assert any("!nontemporal" in kernel.llvm for kernel in kernels)
        check(shape, dtype, axis, "add", reverse)


def test_chunks_cover_a_line_exactly():
    for length in (LARGE - 1, LARGE, LARGE + 1, 3 * LARGE + 17):
        lines = lines_of((length,), 0)
        assert (lines.chunks - 1) * lines.chunk < length <= lines.chunks * lines.chunk


def test_totals_of_nothing_but_negative_zeros_are_zero():
    graph = scan_graph((40,), "float32", 0, "add", False)
    (got,) = run_compiled(graph, [numpy.full(40, -0.0, numpy.float32)])
    assert not numpy.signbit(got).any()


def test_infinities_of_logarithms():
    values = numpy.array([-numpy.inf, -numpy.inf, 0.0, numpy.inf, 1.0, numpy.nan, 2.0])
    graph = scan_graph((7,), "float64", 0, "logaddexp", False)
    (got,) = run_compiled(graph, [values])
    numpy.testing.assert_array_equal(got[[0, 1, 2, 3, 4]], [-numpy.inf, -numpy.inf, 0.0,
                                                           numpy.inf, numpy.inf])
    assert numpy.isnan(got[5:]).all()


def test_a_scan_of_a_computed_value_and_read_by_another():
    source = node("input", index=0, dtype=dtypes.float32, shape=(6, 50))
    doubled = node("add", source, source)
    scanned = node("scan", node("permute", doubled, order=(1, 0)), axis=0, combine="add",
                   reverse=False)
    graph = Graph((node("sum", node("mul", scanned, scanned), axes=(1,)),))
    values = draw((6, 50), "float32", "add", False)
    (got,), (expected,) = run_compiled(graph, [values]), interpret(graph, [values])
    numpy.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("attributes, message", [
    (dict(axis=2, combine="add", reverse=False), "axis 2 does not exist"),
    (dict(axis=0, combine="sub", reverse=False), "combines by"),
    (dict(axis=0, combine="add", reverse=1), "reverse is True or False"),
])
def test_what_is_no_scan(attributes, message):
    with pytest.raises(IRError, match=message):
        node("scan", node("input", index=0, dtype=dtypes.float32, shape=(3, 4)), **attributes)


# ---- among other ops


@pytest.mark.parametrize("first", range(0, 90, 30))
def test_random_programs(first):
    seen = 0
    for seed in range(first, first + 30):
        graph, inputs = random_graph(seed, size=12, kinds=(*KINDS, "scan"))
        seen += any(value.op == "scan" for value in graph.nodes())
        compare(graph, inputs, run_compiled(graph, inputs))
        text = print_graph(graph)
        assert print_graph(parse_graph(text)) == text
    assert seen > 5


# ---- compaction


def compact(mask: Array, count: int) -> Array:
    source = node("input", index=0, dtype=dtypes.bool_, shape=mask.shape)
    (got,) = run_compiled(Graph((node("compact", source, count=count),)), [mask])
    return got


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000, COMPACT_CHUNK, COMPACT_CHUNK + 1,
                                  2 * COMPACT_CHUNK + 77])
@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_positions_of_a_mask(size, share):
    mask = numpy.random.default_rng(size).random(size) < share
    expected = numpy.flatnonzero(mask)
    numpy.testing.assert_array_equal(compact(mask, expected.size), expected)


def test_a_wrong_count_writes_nothing_beyond_the_result():
    """Who gives the count has to know it; memory is safe all the same."""
    assert (compact(numpy.ones(5000, bool), 70) == numpy.arange(70)).all()


# ---- scatters that tasks share


def scatter_graph(base: tuple[int, ...], updates: tuple[int, ...], axis: int, mode: str,
                  dtype: str) -> Graph:
    """Along an axis: the other indices count their own axes."""
    record = dtypes.dtype_named(dtype)
    places = node("input", index=2, dtype=dtypes.int64, shape=updates)
    indices = [places if k == axis else node("iota", axis=k, dtype=dtypes.int64, shape=updates)
               for k in range(len(updates))]
    return Graph((node(
        "scatter", node("input", index=0, dtype=record, shape=base),
        node("input", index=1, dtype=record, shape=updates), *indices,
        axes=tuple(range(len(base))), mode=mode,
    ),))


@pytest.mark.parametrize("mode", ["set", "add", "mul", "max", "min"])
@pytest.mark.parametrize("base, updates, axis", [
    ((7, 13), (5, 9), 1), ((7, 200), (5, 131), 0), ((4, 5, 6), (3, 9, 6), 1), ((50,), (99,), 0),
    ((4, 5, 70), (3, 9, 70), 1), ((5, 3), (9, 1), 0),
])
def test_scatters_along_an_axis(mode, base, updates, axis):
    generator = numpy.random.default_rng(axis)
    inputs = [generator.integers(-9, 9, base), generator.integers(-9, 9, updates),
              generator.integers(-base[axis], base[axis], updates)]
    graph = scatter_graph(base, updates, axis, mode, "int64")
    (got,), (expected,) = run_compiled(graph, inputs), interpret(graph, inputs)
    numpy.testing.assert_array_equal(got, expected)


UFUNCS = {"add": numpy.add, "max": numpy.maximum, "min": numpy.minimum}


@pytest.mark.parametrize("mode", UFUNCS)
@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32"])
@pytest.mark.parametrize("bins", [3, 900, 9000])
def test_many_updates_to_few_places(mode, dtype, bins):
    graph = scatter_graph((bins,), (73_001,), 0, mode, dtype)
    assert scatter_parts(graph.outputs[0]) == (4 if bins == 9000 else 16)
    generator = numpy.random.default_rng(bins)
    base, updates = (generator.integers(0, 9, size).astype(dtype) for size in (bins, 73_001))
    places = generator.integers(-bins, bins, 73_001)
    expected = base.copy()
    UFUNCS[mode].at(expected, places % bins, updates)
    (got,) = run_compiled(graph, [base, updates, places])
    numpy.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("mode, dtype, base, updates", [
    ("set", "int64", (10,), (100_000,)), ("mul", "int64", (10,), (100_000,)),
    ("add", "float16", (10,), (100_000,)), ("add", "int64", (90_000,), (100_000,)),
    ("add", "int64", (10,), (1000,)),
])
def test_scatters_that_stay_in_order(mode, dtype, base, updates):
    result: Node = scatter_graph(base, updates, 0, mode, dtype).outputs[0]
    assert scatter_parts(result) == 1
