"""A maximum and the sum of exponentials below it, in one pass: the same values as in two, special
ones included.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy
import pytest

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.loops.kernel import Kernel, LoopKernel
from lazygrad_compiler.loops.online import online_sum
from lazygrad_compiler.loops.schedule import ONLINE_LENGTH, LoopSchedule
from tests.compiler.error_bounds import check as compare
from tests.compiler.test_schedule import (
    default_schedule,
    kernels_of,
    leaf,
    random_loop_schedule,
    run_scheduled,
    spread,
)


def statistics(x: Node, axis: int, guarded: bool, top_too: bool = True) -> Graph:
    """The maximum along an axis and the sum of exponentials below it."""
    top = node("max", x, axes=(axis,))
    shift = top
    if guarded:
        infinite = node("eq", node("abs", top), constant(math.inf, top))
        shift = node("where", infinite, constant(0.0, top), top)
    total = node("sum", node("exp", node("sub", x, spread(shift, x.shape, axis))), axes=(axis,))
    return Graph((total, top) if top_too else (total,))


def constant(number: float, like: Node) -> Node:
    value = node("const", value=number, dtype=like.dtype, shape=())
    return node("expand", node("reshape", value, shape=(1,) * like.ndim), shape=like.shape)


def one_pass(kernel: Kernel) -> LoopSchedule:
    """The default schedule, in one pass however short the rows are."""
    schedule = default_schedule(kernel)
    return replace(schedule, online=(0,)) if online_sum(kernel, 0) else schedule


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("shape, axis", [((3, 67), 1), ((2, 1300), 1), ((40, 5), 0),
                                         ((3, 7, 33), 1), ((4, 2), 1), ((130,), 0)])
def test_any_schedule_gives_the_interpreters_values(
    shape: tuple[int, ...], axis: int, guarded: bool, dtype: str
) -> None:
    graph = statistics(leaf(0, *shape, dtype=dtype), axis, guarded)
    (kernel,) = kernels_of(graph, LoopKernel)
    assert online_sum(kernel, 0) is not None
    generator = numpy.random.default_rng(len(shape))
    array = (generator.standard_normal(shape) * 20).astype(DTYPES[dtype].numpy)
    compare(graph, [array], run_scheduled(graph, [array], one_pass))
    for seed in range(6):
        choices = random.Random(seed)

        def choose(kernel: Kernel, choices: random.Random = choices) -> Any:
            assert isinstance(kernel, LoopKernel)
            return random_loop_schedule(kernel, choices)

        compare(graph, [array], run_scheduled(graph, [array], choose))


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("length", [1, 40, 300])
def test_special_values(guarded: bool, length: int) -> None:
    largest = float(numpy.finfo(numpy.float32).max)
    rows = [numpy.zeros(length), numpy.full(length, -numpy.inf), numpy.full(length, numpy.inf),
            numpy.full(length, numpy.nan), numpy.full(length, -largest),
            numpy.full(length, largest), numpy.linspace(-100, 100, length),
            numpy.linspace(100, -100, length)]
    for number in (-numpy.inf, numpy.inf, numpy.nan, largest, -largest, 1e30):
        for place in (0, length // 2, length - 1):
            row = numpy.random.default_rng(place).standard_normal(length)
            row[place] = number
            rows.append(row)
    array = numpy.stack(rows).astype(numpy.float32)
    graph = statistics(leaf(0, *array.shape), 1, guarded)
    two = run_scheduled(graph, [array], lambda k: replace(default_schedule(k), online=()))
    one = run_scheduled(graph, [array], one_pass)
    for before, after in zip(two, one, strict=True):
        numpy.testing.assert_allclose(after, before, rtol=1e-5)


def test_long_rows_go_in_one_pass_and_what_keeps_its_exponentials_does_not() -> None:
    def stages(graph: Graph) -> tuple[int, ...]:
        (kernel,) = kernels_of(graph, LoopKernel)
        return default_schedule(kernel).online

    long = leaf(0, 8, ONLINE_LENGTH)
    assert stages(statistics(long, 1, True)) == (0,)
    assert stages(statistics(leaf(0, 8, ONLINE_LENGTH - 1), 1, True)) == ()
    power = node("exp", node("sub", long, spread(node("max", long, axes=(1,)), long.shape, 1)))
    softmax = node("div", power, spread(node("sum", power, axes=(1,)), long.shape, 1))
    assert stages(Graph((softmax,))) == ()


@pytest.mark.parametrize("what", ["another operand", "scaled", "minimum", "integers"])
def test_what_is_no_softmax_stays_as_it_is(what: str) -> None:
    x, y = leaf(0, 4, 2048), leaf(1, 4, 2048)
    top = node("min" if what == "minimum" else "max", y if what == "another operand" else x,
               axes=(1,))
    below = node("sub", x, spread(top, x.shape, 1))
    if what == "scaled":
        below = node("sub", node("add", x, x), spread(top, x.shape, 1))
    if what == "integers":
        whole = leaf(0, 4, 2048, dtype="int32")
        top = node("cast", node("max", whole, axes=(1,)), dtype=dtypes.float32)
        below = node("sub", node("cast", whole, dtype=dtypes.float32), spread(top, x.shape, 1))
    graph = Graph((node("sum", node("exp", below), axes=(1,)),))
    for kernel in kernels_of(graph, LoopKernel):
        assert default_schedule(kernel).online == ()
