"""Panels: arranged and restored operands are the same values, contractions read them in place, and
loops have theirs arranged before the first step.
"""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest

from lazygrad_compiler.autodiff.vjp_build import Builder
from lazygrad_compiler.fusion.panels import PANEL_BYTES, SMALLEST, arrange, restore
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.loop import make_loop
from lazygrad_compiler.ir.node import Graph, Node, fresh_input, node, topological
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.loops.operands import direct, operands
from lazygrad_compiler.loops.schedule_contraction import ContractionSchedule
from lazygrad_compiler.pipeline import lower, optimized
from lazygrad_compiler.target import Target, host
from tests.compiler.error_bounds import check as compare
from tests.compiler.test_compiled import run_compiled

AT = Builder()
NEON = Target("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon", 16, 32)


def leaf(index: int, *shape: int, dtype: Any = dtypes.float32) -> Node:
    return node("input", index=index, dtype=dtype, shape=shape)


def draw(graph: Graph) -> list[numpy.ndarray]:
    generator = numpy.random.default_rng(0)
    return [
        generator.standard_normal(each.shape).astype(each.dtype.numpy) for each in graph.inputs()
    ]


@pytest.mark.parametrize(
    ("shape", "k_axes"),
    [((5, 64), (0,)), ((7, 65), (0,)), ((130, 9), (1,)), ((1, 3), (0,)), ((4, 3, 50, 2), (1, 3))],
)
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64])
def test_arranging_and_restoring(
    shape: tuple[int, ...], k_axes: tuple[int, ...], dtype: Any
) -> None:
    value = leaf(0, *shape, dtype=dtype)
    panels = arrange(value, k_axes)
    k_shape = [shape[axis] for axis in k_axes]
    free = [axis for axis in range(len(shape)) if axis not in k_axes]
    width = PANEL_BYTES // dtype.itemsize
    n = math.prod(shape[axis] for axis in free)
    assert panels.shape == (-(-n // width), math.prod(k_shape), width)
    back = restore(panels, k_shape, [shape[axis] for axis in free])
    (array,) = draw(Graph((panels,)))
    (made,) = interpret(Graph((back,)), [array])
    numpy.testing.assert_array_equal(made, array.transpose(*k_axes, *free))


def schedules_of(
    graph: Graph, target: Target
) -> list[tuple[ContractionKernel, ContractionSchedule]]:
    return [
        (kernel.kernel, kernel.schedule)
        for kernel in lower(graph, target).kernels
        if isinstance(kernel.kernel, ContractionKernel)
    ]


@pytest.mark.parametrize("target", [host(), NEON], ids=["host", "neon"])
@pytest.mark.parametrize(
    ("m", "k", "n"), [(33, 40, 64), (7, 33, 130), (100, 300, 257), (2, 50, 40)]
)
def test_a_contraction_reads_panels_in_place(target: Target, m: int, k: int, n: int) -> None:
    panels = leaf(1, -(-n // 64), k, 64)
    right = restore(panels, (k,), (n,))
    product = node("dot", leaf(0, m, k), right, left_batch=(), right_batch=(), left_contract=(1,),
                   right_contract=(0,))
    graph = Graph((product,))
    ((kernel, schedule),) = schedules_of(graph, target)
    assert schedule.right == "direct" and not schedule.swapped
    if n > 64:
        place = direct(kernel, operands(kernel, False)[1], kernel.dtype)
        assert place is not None and place.width == 64 and place.width % schedule.nr == 0
    inputs = draw(graph)
    compare(graph, inputs, run_compiled(graph, inputs))


def recurrence(length: int, size: int) -> Graph:
    """h -> tanh(h w' + h' of both weights), over a number of steps."""
    leaves = [leaf(0, 9, size), leaf(1, size, size), leaf(2, length, 9, size)]
    h, w, x = (fresh_input(dtypes.float32, shape, ()) for shape in ((9, size), (size, size),
                                                                    (9, size)))
    product = AT.op("dot", h, w, attrs=((), (), (1,), (1,)))
    again = AT.op("dot", AT.op("tanh", product), w, attrs=((), (), (1,), (0,)))
    after = AT.op("tanh", AT.add(again, x))
    loop = make_loop("step", [(h, leaves[0], after)], [(x, leaves[2])], [(w, leaves[1])], [after],
                     length)
    return Graph((loop.part(0), loop.part(1)))


@pytest.mark.parametrize(("length", "size", "packed"),
                         [(6, 90, True), (6, SMALLEST - 2, False), (2, 90, False)])
def test_weights_of_a_loop_come_in_panels(length: int, size: int, packed: bool) -> None:
    """Both products of a step, of the weight and of its transpose, each with panels of its own."""
    graph = recurrence(length, size)
    found = [direct(kernel, operands(kernel, schedule.swapped)[1], kernel.dtype)
             for kernel, schedule in schedules_of(graph, host())]
    widths = {place.width for place in found if place is not None}
    assert (64 in widths) is packed
    # the weight itself is read by no step any more
    loop = next(each for each in topological(optimized(graph).outputs) if each.op == "loop")
    assert ((size, size) in [shape for _, shape in loop.attr("body").inputs]) is not packed
    inputs = [array * numpy.float32(0.1) for array in draw(graph)]
    for got, expected in zip(run_compiled(graph, inputs), interpret(graph, inputs), strict=True):
        numpy.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
