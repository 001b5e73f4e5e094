"""Lowered row kernels equal the interpreter, on shapes that leave remainders everywhere; merging
loops changes no access.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator

import numpy
import pytest

from lazygrad_compiler.backend import backend_of
from lazygrad_compiler.fusion.partition import partition
from lazygrad_compiler.fusion.prepare import prepare
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.loops import lower
from lazygrad_compiler.loops.index import Affine, Div, Dyn, Mod, Term, Var
from lazygrad_compiler.loops.kernel import LoopKernel
from lazygrad_compiler.passes.optimize import optimize
from lazygrad_compiler.passes.outputs import separate_outputs
from lazygrad_compiler.pipeline import lower_groups
from lazygrad_compiler.target import host
from tests.compiler.error_bounds import IllConditioned
from tests.compiler.error_bounds import check as compare
from tests.compiler.random_graphs import random_graph
from tests.compiler.test_compiled import check, run_compiled

Array = numpy.ndarray
EXTENTS = (1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 32, 33, 64, 97)


def leaf(index: int, *shape: int, dtype: str = "float32") -> Node:
    return node("input", index=index, dtype=DTYPES[dtype], shape=shape)


def reduce(op: str, value: Node, *axes: int, keep: bool = False) -> Node:
    result = node(op, value, axes=axes)
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(value.shape))
    return node("reshape", result, shape=kept) if keep else result


def expand(value: Node, *shape: int) -> Node:
    return node("expand", value, shape=shape)


def number(value: float, like: Node) -> Node:
    return node("const", value=value, dtype=like.dtype, shape=like.shape)


def softmax(value: Node, axis: int) -> Node:
    highest = expand(reduce("max", value, axis, keep=True), *value.shape)
    powers = node("exp", node("sub", value, highest))
    return node("div", powers, expand(reduce("sum", powers, axis, keep=True), *value.shape))


def moments(value: Node, *axes: int) -> tuple[Node, Node]:
    """(x - mean, variance with kept axes)."""
    count = float(math.prod(value.shape[axis] for axis in axes))
    total = reduce("sum", value, *axes, keep=True)
    mean = node("div", total, number(count, total))
    centred = node("sub", value, expand(mean, *value.shape))
    squares = reduce("sum", node("mul", centred, centred), *axes, keep=True)
    return centred, node("div", squares, number(count, squares))


def normalised(value: Node, weight: Node, bias: Node, *axes: int) -> Node:
    centred, variance = moments(value, *axes)
    deviation = node("sqrt", node("add", variance, number(1e-5, variance)))
    scaled = node("div", centred, expand(deviation, *value.shape))
    return node(
        "add", node("mul", scaled, expand(weight, *value.shape)), expand(bias, *value.shape)
    )


def draw(graph: Graph, seed: int) -> list[Array]:
    """Values near 1, none the same: sums stay away from cancellation."""
    generator = numpy.random.default_rng(seed)
    inputs = []
    for leaf in graph.inputs():
        if leaf.dtype.kind == "bool":
            inputs.append(generator.random(leaf.shape) < 0.5)
        elif leaf.dtype.is_integer:
            inputs.append(generator.integers(-9, 9, leaf.shape).astype(leaf.dtype.numpy))
        else:
            values = generator.standard_normal(leaf.shape) + 0.5
            inputs.append(values.astype(leaf.dtype.numpy))
    return inputs


def agree(*outputs: Node, seed: int = 0) -> None:
    """Compiled equals interpreted, within what error analysis allows; where that allows anything
    (differences that cancel), within some ulp of the largest element.
    """
    graph = Graph(outputs)
    inputs = draw(graph, seed)
    got = run_compiled(graph, inputs)
    try:
        compare(graph, inputs, got)
    except IllConditioned:
        for array, expected in zip(got, interpret(graph, inputs), strict=True):
            scale = max(1.0, float(abs(expected).max(initial=0.0)))
            numpy.testing.assert_allclose(array, expected, rtol=1e-4, atol=2e-5 * scale)


def shapes(rank: int, count: int, seed: int, most: int = 4000) -> list[tuple[int, ...]]:
    generator = random.Random(seed)
    found: list[tuple[int, ...]] = []
    while len(found) < count:
        shape = tuple(generator.choice(EXTENTS) for _ in range(rank))
        if math.prod(shape) <= most and shape not in found:
            found.append(shape)
    return found


# ---- kernels people write


@pytest.mark.parametrize("shape", [*shapes(2, 6, 1), (1, 1), (5, 1), (1, 97), (3, 0), (0, 3)])
@pytest.mark.parametrize("axis", [0, 1])
def test_softmax(shape: tuple[int, ...], axis: int) -> None:
    agree(softmax(leaf(0, *shape), axis))


@pytest.mark.parametrize("shape", shapes(3, 4, 2))
def test_softmax_of_the_middle_axis(shape: tuple[int, ...]) -> None:
    agree(softmax(leaf(0, *shape), 1))


@pytest.mark.parametrize("shape", [*shapes(3, 5, 3), (2, 7, 1)])
def test_layer_norm(shape: tuple[int, ...]) -> None:
    row = (1, 1, shape[2])
    agree(normalised(leaf(0, *shape), leaf(1, *row), leaf(2, *row), 2))


@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (1, 3, 1, 1), (2, 1, 5, 5), (7, 13, 3, 1)])
def test_batch_norm_of_images(shape: tuple[int, ...]) -> None:
    channel = (1, shape[1], 1, 1)
    value = leaf(0, *shape)
    result = normalised(value, leaf(1, *channel), leaf(2, *channel), 0, 2, 3)
    agree(result, moments(value, 0, 2, 3)[1])


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1), (2,), (0, 2), (0, 1, 2)])
def test_variance(axes: tuple[int, ...]) -> None:
    agree(moments(leaf(0, 7, 5, 11, dtype="float64"), *axes)[1])


@pytest.mark.parametrize("op", ["argmax", "argmin"])
@pytest.mark.parametrize("shape", [(5, 37), (37, 5), (1, 17), (17, 1), (33, 64)])
def test_arg_reductions_of_both_axes(op: str, shape: tuple[int, ...]) -> None:
    value = leaf(0, *shape)
    graph = Graph(tuple(node(op, value, axes=axes) for axes in [(0,), (1,), (0, 1)]))
    array = numpy.random.default_rng(3).integers(0, 4, shape).astype(numpy.float32)  # many ties
    check(graph, [array])
    array[shape[0] // 2, shape[1] // 2] = numpy.nan
    check(graph, [array])


@pytest.mark.parametrize("op", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int32", "uint8", "bool"])
def test_reductions_of_every_kind(op: str, dtype: str) -> None:
    if dtype == "bool" and op in ("sum", "prod"):
        pytest.skip("not defined")
    value = leaf(0, 13, 19, dtype=dtype)
    agree(*(reduce(op, value, *axes) for axes in [(0,), (1,), (0, 1)]))


@pytest.mark.parametrize("op", ["sum", "prod", "max", "min"])
def test_reductions_of_nothing(op: str) -> None:
    value = leaf(0, 3, 0, 4)
    agree(reduce(op, value, 1), reduce(op, value, 0), reduce(op, value, 0, 1, 2))


@pytest.mark.parametrize("shape", [*shapes(2, 6, 5, 20000), (257, 3), (3, 257)])
def test_column_sums(shape: tuple[int, ...]) -> None:
    value, scale = leaf(0, *shape), leaf(1, *shape)
    agree(reduce("sum", node("mul", value, scale), 0), reduce("sum", value, 1))


@pytest.mark.parametrize(
    "shape", [(16, 16), (17, 31), (97, 33), (5, 64), (1, 9), (9, 1), (130, 67)]
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8"])
def test_transposes(shape: tuple[int, ...], dtype: str) -> None:
    value = leaf(0, *shape, dtype=dtype)
    turned = node("permute", value, order=(1, 0))
    agree(node("add", turned, leaf(1, *turned.shape, dtype=dtype)), turned)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_every_order_of_three_axes(order: tuple[int, ...]) -> None:
    value = leaf(0, 5, 7, 18)
    turned = node("permute", value, order=order)
    flat = node("reshape", turned, shape=(value.size,))
    agree(turned, node("neg", flat), reduce("sum", turned, 1))


@pytest.mark.parametrize(
    "low, high, interior",
    [((1, 2), (3, 0), (0, 0)), ((0, 1), (0, 2), (2, 1)), ((2, 0), (1, 3), (3, 0)), ((0,) * 2,) * 3],
)
@pytest.mark.parametrize("shape", [(5, 7), (1, 17), (16, 1), (0, 4), (3, 32)])
def test_pads_with_interior(
    shape: tuple[int, ...],
    low: tuple[int, ...],
    high: tuple[int, ...],
    interior: tuple[int, ...],
) -> None:
    value = node("exp", leaf(0, *shape))
    padded = node("pad", value, low=low, high=high, interior=interior, value=2.5)
    again = node("pad", padded, low=(1, 1), high=(0, 1), interior=(0, 1), value=-1.0)
    agree(padded, node("permute", again, order=(1, 0)), reduce("sum", again, 0))


def test_reshapes_between_pads() -> None:
    """Positions outside the inner array divide by the wrong sign unless they are masked."""
    value = node("pad", leaf(0, 5, 6), low=(1, 2), high=(0, 3), interior=(0, 0), value=7.0)
    flat = node("reshape", value, shape=(value.size,))
    wide = node("pad", flat, low=(5,), high=(1,), interior=(0,), value=3.0)
    square = node("reshape", wide, shape=(12, 6))
    agree(node("pad", square, low=(2, 1), high=(1, 1), interior=(1, 2), value=0.0), square)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concat_of_many(axis: int) -> None:
    sizes = [1, 3, 0, 7, 2, 16, 1, 5]
    pieces = []
    for number, size in enumerate(sizes):
        shape = [4, 3, 5]
        shape[axis] = size
        piece = leaf(number, *shape)
        pieces.append(node("neg", piece) if number % 2 else piece)
    joined = node("concat", *pieces, axis=axis)
    flipped = node("flip", joined, axes=(axis,))
    agree(joined, node("add", joined, flipped), reduce("sum", joined, axis))


@pytest.mark.parametrize("step", [1, 2, 3])
def test_slices_and_flips(step: int) -> None:
    value = leaf(0, 19, 23)
    cut = node("slice", value, starts=(3, 1), stops=(19, 22), steps=(step, step))
    turned = node("flip", cut, axes=(0, 1))
    agree(node("sub", turned, cut), reduce("max", turned, 0), node("flip", value, axes=(1,)))


def test_windows() -> None:
    value = leaf(0, 2, 11, 13)
    windows = node("window", value, axes=(1, 2), sizes=(3, 2), strides=(2, 1), dilations=(1, 3))
    agree(reduce("max", windows, 3, 4), windows)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (1, 1, 1), (2, 0, 3), (1, 5, 1)])
def test_scalars_ones_and_zeros(shape: tuple[int, ...]) -> None:
    value, other = leaf(0, *shape), leaf(1, *shape)
    agree(node("add", value, other), node("exp", value), value, value)


def test_rank_seven() -> None:
    value = leaf(0, 2, 3, 1, 2, 5, 1, 3)
    turned = node("permute", value, order=(6, 2, 4, 0, 5, 3, 1))
    agree(node("neg", turned), reduce("sum", turned, 0, 3, 5), reduce("sum", turned, 1, 2, 4))


@pytest.mark.parametrize("seed", range(12))
def test_broadcasts_of_permuted_arrays(seed: int) -> None:
    """x[permuted] * broadcast + broadcast, then a reduction over random axes and the map itself."""
    generator = random.Random(seed)
    shape = shapes(3, 1, seed + 100, 3000)[0]
    order = tuple(generator.sample(range(3), 3))
    stored = [0] * 3
    for axis, source in enumerate(order):
        stored[source] = shape[axis]
    value = node("permute", leaf(0, *stored), order=order)
    for index in (1, 2):
        small = tuple(size if generator.random() < 0.5 else 1 for size in shape)
        op = "mul" if index == 1 else "add"
        value = node(op, value, expand(leaf(index, *small), *shape))
    axes = tuple(sorted(generator.sample(range(3), generator.randint(1, 3))))
    total = reduce("sum", value, *axes, keep=True)
    agree(value, node("sub", value, expand(total, *shape)), reduce("max", value, *axes))


# ---- gather and scatter


def gather(value: Node, axes: tuple[int, ...], *indices: Node) -> Node:
    return node("gather", value, *indices, axes=axes)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 7, 16, 33])
def test_gather_with_negative_indices(axis: int, count: int) -> None:
    value, index = leaf(0, 5, 9, 17), leaf(1, count, dtype="int64")
    size = value.shape[axis]
    graph = Graph((gather(node("neg", value), (axis,), index), gather(value, (axis,), index)))
    numbers = numpy.random.default_rng(count)
    values = numbers.standard_normal(value.shape).astype(numpy.float32)
    check(graph, [values, numbers.integers(-size, size, count)])
    check(graph, [values, numpy.full(count, -size)])
    check(graph, [values, numpy.full(count, size - 1)])


def test_gather_of_two_axes() -> None:
    value = leaf(0, 5, 6, 7)
    indices = leaf(1, 4, 3, dtype="int64"), leaf(2, 4, 3, dtype="int64")
    graph = Graph((gather(value, (0, 2), *indices),))
    numbers = numpy.random.default_rng(0)
    values = numbers.standard_normal(value.shape).astype(numpy.float32)
    check(graph, [values, numbers.integers(-5, 5, (4, 3)), numbers.integers(-7, 7, (4, 3))])


@pytest.mark.parametrize("mode", ["set", "add", "mul", "max", "min"])
@pytest.mark.parametrize("inner", [(), (1,), (5,), (16,), (3, 17)])
def test_scatter_with_repeated_and_negative_indices(mode: str, inner: tuple[int, ...]) -> None:
    base, updates = leaf(0, 6, *inner), leaf(1, 20, *inner)
    index = leaf(2, 20, dtype="int64")
    graph = Graph((node("scatter", base, updates, index, axes=(0,), mode=mode),))
    numbers = numpy.random.default_rng(1)
    values = [numbers.random(n.shape).astype(numpy.float32) + 0.5 for n in (base, updates)]
    check(graph, [*values, numbers.integers(-6, 6, 20)])


@pytest.mark.parametrize("wrong", [7, -8, 100, -(2**62), 2**62])
@pytest.mark.parametrize("position", [0, 6, 16, 32])
def test_gather_out_of_range_names_index_axis_and_size(wrong: int, position: int) -> None:
    value, index = leaf(0, 3, 7), leaf(1, 33, dtype="int64")
    picked = node("gather", value, index, axes=(1,), location=(("model.py", 12),))
    graph = Graph((picked,))
    numbers = numpy.zeros(33, numpy.int64)
    numbers[position] = wrong
    with pytest.raises(IndexError) as caught:
        run_compiled(graph, [numpy.zeros((3, 7), numpy.float32), numbers])
    message = str(caught.value)
    assert "gather" in message and "model.py:12" in message
    assert f"index {wrong} is out of range for axis 1 of size 7" in message
    with pytest.raises(IndexError):
        interpret(graph, [numpy.zeros((3, 7), numpy.float32), numbers])


@pytest.mark.parametrize("mode", ["set", "add"])
@pytest.mark.parametrize("wrong", [6, -7])
def test_scatter_out_of_range_names_op_index_axis_and_size(mode: str, wrong: int) -> None:
    base, updates, index = leaf(0, 4, 6), leaf(1, 3, 4), leaf(2, 3, dtype="int64")
    graph = Graph((node("scatter", base, updates, index, axes=(1,), mode=mode),))
    arrays = [numpy.zeros(n.shape, numpy.float32) for n in (base, updates)]
    with pytest.raises(IndexError, match=f"scatter.*index {wrong} .*axis 1 of size 6"):
        run_compiled(graph, [*arrays, numpy.array([0, wrong, 1])])


def test_an_index_that_padding_hides_is_not_checked() -> None:
    """Outside the padded array nothing is read, so nothing can be out of range there."""
    value, index = leaf(0, 4), leaf(1, 5, dtype="int64")
    picked = gather(value, (0,), index)
    padded = node("pad", picked, low=(3,), high=(4,), interior=(1,), value=9.0)
    graph = Graph((padded,))
    check(graph, [numpy.arange(4, dtype=numpy.float32), numpy.array([0, 3, -1, -4, 2])])


def test_an_index_out_of_range_is_reported_even_where_the_axis_is_not_needed() -> None:
    value, index = leaf(0, 1), leaf(1, 3, dtype="int64")
    with pytest.raises(IndexError, match="index 1 is out of range for axis 0 of size 1"):
        run_compiled(
            Graph((gather(value, (0,), index),)),
            [numpy.ones(1, numpy.float32), numpy.array([0, 1, 0])],
        )


# ---- merging loops


def accesses(kernel: LoopKernel) -> Iterator[tuple]:
    """Every access of the kernel in the order of its loops: (stage, what, addresses)."""
    for number, stage in enumerate(kernel.stages):
        axes = (*kernel.row_axes, *stage.axes)
        flat = [index.ravel() for index in numpy.indices([axis.extent for axis in axes])]
        total = math.prod(axis.extent for axis in axes)
        points: dict[Term, Array] = dict(zip(axes, flat, strict=True))

        def at(value: Affine, points: dict[Term, Array] = points, total: int = total) -> Array:
            result = numpy.full(total, value.constant)
            for term, c in value.terms:
                if isinstance(term, (Div, Mod)):
                    inner = at(term.inner)
                    part = inner // term.divisor if isinstance(term, Div) else inner % term.divisor
                    result = result + c * part
                elif isinstance(term, Dyn):
                    result = result + c * (term.value % term.extent)
                else:
                    result = result + c * points[term]
            return result

        for place in stage.values:
            for item in kernel.values[place].data:
                if isinstance(item, Affine):
                    yield number, place, at(item).tolist()
        for store in stage.stores:
            yield number, f"store b{store.buffer}", at(store.index).tolist()
        for reduction in stage.reductions:
            if reduction.position is not None:
                yield number, "position", at(reduction.position).tolist()


def pairs_of_kernels(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    seen: list[tuple[LoopKernel, LoopKernel]] = []
    original = lower.coalesce

    def recording(kernel: LoopKernel) -> LoopKernel:
        merged = original(kernel)
        seen.append((kernel, merged))
        return merged

    with monkeypatch.context() as patch:
        patch.setattr(lower, "coalesce", recording)
        lower_groups(partition(separate_outputs(prepare(optimize(graph)))), backend_of(host()))
    return seen


def axis_count(kernel: LoopKernel) -> int:
    return len(kernel.row_axes) + sum(len(stage.axes) for stage in kernel.stages)


def test_merging_loops_keeps_every_access_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = fewer = 0
    for seed in range(60):
        for before, after in pairs_of_kernels(random_graph(seed)[0], monkeypatch):
            assert list(accesses(before)) == list(accesses(after)), f"seed {seed}"
            assert axis_count(after) <= axis_count(before)
            checked += 1
            fewer += axis_count(after) < axis_count(before)
    # loops start as one and are split where an index needs it, so few are left to merge
    assert checked > 100 and fewer > 0


def test_contiguous_arrays_of_any_rank_become_one_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (3, 4, 5, 6)
    graph = Graph((node("add", leaf(0, *shape), leaf(1, *shape)),))
    ((_, merged),) = {
        id(after): (before, after) for before, after in pairs_of_kernels(graph, monkeypatch)
    }.values()
    assert [axis.extent for axis in merged.row_axes] == [360]


def test_a_broadcast_keeps_its_loops_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    row = expand(leaf(1, 1, 1, 32), 4, 5, 32)
    graph = Graph((node("add", leaf(0, 4, 5, 32), row),))
    _, merged = pairs_of_kernels(graph, monkeypatch)[-1]
    assert [axis.extent for axis in merged.row_axes] == [20, 32]


def test_a_broadcast_along_an_axis_shorter_than_a_vector_is_a_remainder_in_the_lanes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = expand(leaf(1, 1, 1, 6), 4, 5, 6)
    graph = Graph((node("add", leaf(0, 4, 5, 6), row),))
    _, merged = pairs_of_kernels(graph, monkeypatch)[-1]
    assert [axis.extent for axis in merged.row_axes] == [120]


def test_reshapes_that_cut_axes_split_the_loops_instead_of_dividing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = node("reshape", leaf(0, 6, 20), shape=(24, 5))
    turned = node("permute", value, order=(1, 0))
    other = node("reshape", leaf(1, 5, 24), shape=(5, 24))
    _, merged = pairs_of_kernels(Graph((node("add", turned, other),)), monkeypatch)[-1]
    for instr in merged.values:
        for item in instr.data:
            if isinstance(item, Affine):
                assert all(isinstance(term, Var) for term, _ in item.terms), str(item)


# ---- long and split reductions


@pytest.mark.parametrize("length", [16384, 16411, 20011, 65537, 100003])
@pytest.mark.parametrize("op", ["sum", "max"])
def test_long_reductions_of_prime_length(length: int, op: str) -> None:
    assert_close_to_interpreter(op, (length,), (0,))


@pytest.mark.parametrize("op", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16", "int32", "int64"])
def test_split_reductions_of_every_dtype(op: str, dtype: str) -> None:
    assert_close_to_interpreter(op, (3, 16411), (1,), dtype)


@pytest.mark.parametrize("axes", [(0,), (0, 2), (1, 2), (0, 1, 2)])
def test_split_reductions_of_some_axes(axes: tuple[int, ...]) -> None:
    shape = [3, 2, 5]
    shape[axes[0]] = 16411
    assert_close_to_interpreter("sum", tuple(shape), axes)
    assert_close_to_interpreter("min", tuple(shape), axes)


def assert_close_to_interpreter(
    op: str, shape: tuple[int, ...], axes: tuple[int, ...], dtype: str = "float32"
) -> None:
    value = leaf(0, *shape, dtype=dtype)
    graph = Graph((reduce(op, value, *axes),))
    numbers = numpy.random.default_rng(5)
    if op == "prod":
        # exact in every dtype: signs, and few enough twos
        array = numpy.where(numbers.random(shape) < 0.5, 1, -1).astype(value.dtype.numpy)
        array.reshape(-1)[::4096] = 2
    elif value.dtype.is_integer:
        array = numbers.integers(-1000, 1000, shape).astype(value.dtype.numpy)
    else:
        # all positive: sums do not cancel, and a wrong neutral 0 would be the least
        array = (abs(numbers.standard_normal(shape)) + 0.25).astype(value.dtype.numpy)
        array = -array if op == "max" else array / array.dtype.type(64)
    check(graph, [array])


def test_splitting_takes_place_and_keeps_sums_accurate() -> None:
    value = leaf(0, 1 << 20)
    graph = Graph((reduce("sum", value, 0),))
    sums = [n for n in prepare(graph).nodes() if n.op == "sum"]
    assert len(sums) == 2 and sums[0].size >= 64
    array = numpy.full(1 << 20, 0.1, numpy.float32)
    (got,) = run_compiled(graph, [array])
    assert abs(float(got) / (float(array[0]) * (1 << 20)) - 1) < 1e-6


def test_nan_survives_split_reductions() -> None:
    value = leaf(0, 16411)
    graph = Graph(tuple(reduce(op, value, 0) for op in ("sum", "max", "min", "prod")))
    array = numpy.ones(16411, numpy.float32)
    array[-1] = numpy.nan
    assert all(numpy.isnan(got) for got in run_compiled(graph, [array]))


# ---- dots that are no contraction


@pytest.mark.parametrize("m, n, k", [(1, 17, 33), (17, 1, 33), (1, 1, 97), (13, 19, 1), (1, 1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int32"])
def test_thin_dots(m: int, n: int, k: int, dtype: str) -> None:
    left, right = leaf(0, 3, m, k, dtype=dtype), leaf(1, 3, k, n, dtype=dtype)
    product = node(
        "dot",
        left,
        right,
        left_batch=(0,),
        right_batch=(0,),
        left_contract=(2,),
        right_contract=(1,),
    )
    graph = Graph((product,))
    prepared = prepare(graph)
    assert not any(n.op == "dot" for n in prepared.nodes())
    agree(product)


@pytest.mark.parametrize("m, n, k", [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
def test_dots_of_nothing(m: int, n: int, k: int) -> None:
    left, right = leaf(0, m, k), leaf(1, k, n)
    product = node(
        "dot", left, right, left_batch=(), right_batch=(), left_contract=(1,), right_contract=(0,)
    )
    agree(product, node("add", product, number(1.0, product)))


def test_dtype_of_indices_in_kernels() -> None:
    counted = node("iota", axis=1, dtype=dtypes.float32, shape=(5, 19))
    agree(node("mul", counted, leaf(0, 5, 19)), node("iota", axis=0, dtype=dtypes.int8, shape=(9,)))
