"""The ops built on order: compiled equals interpreted, element for element, in every method."""

from __future__ import annotations

import numpy
import pytest

from lazygrad_compiler.autodiff.residuals import residuals
from lazygrad_compiler.fusion.partition import partition
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, IRError, Node, node
from lazygrad_compiler.loops import sort as plan
from lazygrad_compiler.pipeline import compile_graph
from lazygrad_compiler.target import host
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import Program

ORDERED = tuple(name for name, dtype in DTYPES.items() if not dtype.is_complex)
SPECIAL = (0.0, -0.0, numpy.nan, -numpy.nan, numpy.inf, -numpy.inf, 1.0, 1e-40, -1e-40)


def draw(random: numpy.random.Generator, dtype: str, shape: tuple[int, ...]) -> numpy.ndarray:
    """Values with many ties; of floats a third are special; of integers half span the range."""
    made = DTYPES[dtype]
    if dtype == "bool":
        return random.random(shape) < 0.5
    if made.is_integer:
        low, high = made.limits()
        if random.random() < 0.5:
            return random.integers(low, high, shape, dtype=made.numpy, endpoint=True)
        return random.integers(max(low, -7), 8, shape).astype(made.numpy)
    values = numpy.round(random.standard_normal(shape) * 8) / 4
    values = numpy.where(random.random(shape) < 0.3, random.choice(SPECIAL, shape), values)
    with numpy.errstate(all="ignore"):
        return values.astype(made.numpy)


def assert_same(have: numpy.ndarray, want: numpy.ndarray) -> None:
    """Equal, with equal signs of zeros; a NaN is a NaN."""
    if want.dtype.kind not in "fV":
        numpy.testing.assert_array_equal(have, want)
        return
    have, want = have.astype(numpy.float64), want.astype(numpy.float64)
    numpy.testing.assert_array_equal(have, want)
    numbers = ~numpy.isnan(want)
    numpy.testing.assert_array_equal(numpy.signbit(have)[numbers], numpy.signbit(want)[numbers])


def check(outputs: tuple[Node, ...], inputs: list[numpy.ndarray]) -> None:
    graph = Graph(outputs)
    program = Program(compile_graph(graph, host()))
    given = [Buffer.from_numpy(numpy.ascontiguousarray(array)) for array in inputs]
    buffers = program.run(given[: program.input_count])
    expected = interpret(graph, inputs)
    for buffer, output, want in zip(buffers, outputs, expected, strict=True):
        assert_same(buffer.as_numpy(output.dtype.numpy, output.shape), numpy.asarray(want))


def leaf(index: int, dtype: str, shape: tuple[int, ...]) -> Node:
    return node("input", index=index, dtype=DTYPES[dtype], shape=shape)


def sorting(dtype: str, shape: tuple[int, ...], descending: bool, what: str) -> tuple[Node, ...]:
    """what: the outputs, `v`alues and `i`ndices in some order."""
    order = node("argsort", leaf(0, dtype, shape), descending=descending)
    values = node("sort_values", order.inputs[0], order)
    return tuple({"v": values, "i": order}[letter] for letter in what)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done to rows of millions is done to rows of hundreds."""
    monkeypatch.setattr(plan, "LONG_ROW", 50)
    monkeypatch.setattr(plan, "SHORTEST_CHUNK", 60)
    monkeypatch.setattr(plan, "LARGEST_ROW", 1000)
    monkeypatch.setattr(plan, "MANY_ROWS", 4)
    monkeypatch.setattr(plan, "LONGEST_LIST", 40)
    monkeypatch.setattr(plan, "MOST_CHUNKS", 7)


LENGTHS = (1, 2, 16, 17, 65, 129, 161, 400)
"""Around vectors, and where sorting by rank ends."""


@pytest.mark.parametrize("dtype", ORDERED)
def test_sort_of_rows(dtype: str) -> None:
    random = numpy.random.default_rng(1)
    for number, length in enumerate(LENGTHS):
        array = draw(random, dtype, (3, length))
        what = ("v", "i", "vi", "iv")[number % 4]
        check(sorting(dtype, array.shape, number % 2 == 1, what), [array])


@pytest.mark.parametrize("dtype", ORDERED)
def test_sort_of_chunks(dtype: str, small_chunks: None) -> None:
    random = numpy.random.default_rng(2)
    for number, length in enumerate((51, 120, 121, 1001)):
        array = draw(random, dtype, (2, length))
        what = ("v", "vi", "i", "iv")[number % 4]
        check(sorting(dtype, array.shape, number % 2 == 0, what), [array])


def test_many_rows_too_long_for_one_task(small_chunks: None) -> None:
    array = draw(numpy.random.default_rng(3), "float32", (6, 1100))
    check(sorting("float32", array.shape, False, "vi"), [array])


def test_sort_of_a_really_long_row() -> None:
    """More than one chunk without changing the plan."""
    array = draw(numpy.random.default_rng(4), "float32", (plan.LONG_ROW + 5,))
    assert plan.is_long(leaf(0, "float32", array.shape)) and plan.chunks_of(array.size) > 1
    check(sorting("float32", array.shape, True, "vi"), [array])


@pytest.mark.parametrize("length", [100, 1000])
def test_rows_of_all_kinds(length: int) -> None:
    """Sorted, reversed, constant, one digit different, all NaN: skipped passes and all ties."""
    up = numpy.arange(length, dtype=numpy.float32)
    rows = numpy.stack([up, -up, up * 0, numpy.full(length, numpy.nan, "f4"),
                        numpy.where(up % 2 == 0, 0.0, -0.0).astype("f4"), up % 2 + 1])
    for descending in (False, True):
        check(sorting("float32", rows.shape, descending, "vi"), [rows])
    numbers = (rows[[0, 1, 2, 5]] * 65536).astype(numpy.int64)
    check(sorting("int64", numbers.shape, True, "vi"), [numbers])


def test_stable_in_both_directions() -> None:
    array = numpy.array([[2, 1, 2, 1, 2]], numpy.int32)
    up, down = (sorting("int32", array.shape, d, "i")[0] for d in (False, True))
    graph = Graph((up, down))
    program = Program(compile_graph(graph, host()))
    have = [b.as_numpy(numpy.int64, (1, 5)).tolist() for b in
            program.run([Buffer.from_numpy(array)])]
    assert have == [[[1, 3, 0, 2, 4]], [[0, 2, 4, 1, 3]]]


def test_nothing_to_sort() -> None:
    for shape in ((0,), (3, 0), (0, 4)):
        check(sorting("float32", shape, False, "vi"), [numpy.zeros(shape, "f4")])
    x = leaf(0, "float32", (3, 4))
    check((node("top_k", x, k=0, largest=True),), [numpy.ones((3, 4), "f4")])


def test_another_axis_and_a_computed_operand() -> None:
    x = leaf(0, "float32", (5, 40, 3))
    rows = node("permute", node("neg", x), order=(0, 2, 1))
    order = node("argsort", rows, descending=False)
    values = node("permute", node("sort_values", rows, order), order=(0, 2, 1))
    check((values, node("add", values, values)),
          [draw(numpy.random.default_rng(5), "float32", x.shape)])


def test_values_and_indices_are_one_kernel() -> None:
    for what, written in (("v", 1), ("vi", 2)):
        groups = partition(Graph(sorting("float32", (8, 30), False, what))).groups
        assert [group.kind for group in groups] == ["sort"]
        assert len(groups[0].outputs) == written


def test_a_later_backward_pass_does_not_sort_again() -> None:
    x = node("variable", leaf(0, "float32", (8, 30)), uid=1)
    order = node("argsort", node("stop_gradient", x), descending=False)
    assert residuals([node("sort_values", x, order)]) == [order]


def test_values_in_an_order_from_elsewhere() -> None:
    random = numpy.random.default_rng(6)
    for dtype in ("bool", "bfloat16", "float64"):
        x, order = leaf(0, dtype, (3, 50)), leaf(1, "int64", (3, 50))
        places = random.permuted(numpy.tile(numpy.arange(50), (3, 1)), axis=1)
        check((node("sort_values", x, order),), [draw(random, dtype, x.shape), places])


# ---- ranks


def top_k(random: numpy.random.Generator, dtype: str, shape: tuple[int, ...], k: int) -> None:
    x = leaf(0, dtype, shape)
    both = tuple(node("top_k", x, k=k, largest=largest) for largest in (False, True))
    check(both, [draw(random, dtype, shape)])


@pytest.mark.parametrize("dtype", ORDERED)
def test_top_k_of_rows(dtype: str) -> None:
    random = numpy.random.default_rng(7)
    for length, k in ((1, 1), (17, 17), (160, 3), (400, 5), (300, 40), (300, 299), (900, 200),
                      (700, 9), (2111, 50)):
        top_k(random, dtype, (2, length), k)


@pytest.mark.parametrize("dtype", ("uint8", "int64", "bfloat16", "float32", "float64"))
def test_top_k_of_chunks(dtype: str, small_chunks: None) -> None:
    random = numpy.random.default_rng(8)
    for k in (5, 33, 100, plan.FEW, plan.FEW + 1, 1001):  # by scan, by digits, by sorting all
        top_k(random, dtype, (2, 2000), k)
    top_k(random, dtype, (3, 100), 20)


def test_top_k_in_the_worst_order() -> None:
    """Each element is better than all before; and the best all in one group of those that are
    compared first, so that many pass and the scan's buffer is cleared again and again.
    """
    up = numpy.arange(5000, dtype=numpy.float32)
    group = numpy.where(numpy.arange(5000) % 1024 < 16, up, 0)
    rows = numpy.stack([up, up[::-1], up * 0, up // 100, group, -group])
    x = leaf(0, "float32", rows.shape)
    for k in (1, 50, plan.FEW, plan.FEW + 1):
        both = tuple(node("top_k", x, k=k, largest=largest) for largest in (False, True))
        check(both, [rows])


def select(
    random: numpy.random.Generator, dtype: str, shape: tuple[int, ...], wanted: int
) -> None:
    x, ranks = leaf(0, dtype, shape), leaf(1, "int64", (*shape[:-1], wanted))
    given = random.integers(-1, shape[-1] + 1, ranks.shape)  # those beyond the row are clamped
    check((node("select_rank", x, ranks),), [draw(random, dtype, shape), given])


@pytest.mark.parametrize("dtype", ORDERED)
def test_select_rank_of_rows(dtype: str) -> None:
    random = numpy.random.default_rng(9)
    for length, wanted in ((1, 1), (17, 3), (400, 1), (300, 2), (300, 5)):
        select(random, dtype, (3, length), wanted)


@pytest.mark.parametrize("dtype", ("bool", "int16", "uint64", "float16", "float32"))
def test_select_rank_of_chunks(dtype: str, small_chunks: None) -> None:
    random = numpy.random.default_rng(10)
    for wanted in (1, 4, 5):
        select(random, dtype, (3, 400), wanted)


# ---- searching


@pytest.mark.parametrize("dtype", ORDERED)
def test_searchsorted(dtype: str) -> None:
    random = numpy.random.default_rng(11)
    shapes = (((3, 17), (3, 9)), ((129,), (3, 2, 7)), ((0,), (3,)), ((5,), ()), ((2, 1), (2, 3)))
    for number, (row_shape, value_shape) in enumerate(shapes):
        rows, values = leaf(0, dtype, row_shape), leaf(1, dtype, value_shape)
        drawn = draw(random, dtype, row_shape)
        wide = drawn.astype(numpy.float32) if dtype == "bfloat16" else drawn
        side = ("left", "right")[number % 2]
        check((node("searchsorted", rows, values, side=side),),
              [numpy.sort(wide, -1).astype(drawn.dtype), draw(random, dtype, value_shape)])


def test_searchsorted_in_rows_that_are_not_sorted_stays_inside() -> None:
    random = numpy.random.default_rng(12)
    rows, values = leaf(0, "float32", (2, 33)), leaf(1, "float32", (2, 50))
    check((node("searchsorted", rows, values, side="left"),),
          [draw(random, "float32", (2, 33)), draw(random, "float32", (2, 50))])


def test_what_does_not_fit_is_refused() -> None:
    x, z = leaf(0, "float32", (3, 4)), leaf(1, "complex64", (3, 4))
    scalar, other = leaf(2, "float32", ()), leaf(3, "float32", (2, 4))
    ranks = node("cast", other, dtype=dtypes.int64)
    for build in (
        lambda: node("argsort", z, descending=False),
        lambda: node("argsort", scalar, descending=False),
        lambda: node("top_k", x, k=5, largest=True),
        lambda: node("top_k", x, k=-1, largest=True),
        lambda: node("select_rank", x, ranks),
        lambda: node("sort_values", x, x),
        lambda: node("searchsorted", x, other, side="left"),
        lambda: node("searchsorted", x, x, side="middle"),
    ):
        with pytest.raises(IRError):
            build()
