"""Sums that let one element through: one load, and the interpreter's values."""

from __future__ import annotations

import random
from typing import Any

import numpy
import pytest

from lazygrad_compiler.in_place import in_place
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.loops.kernel import Kernel, LoopKernel, text
from tests.compiler.error_bounds import check as compare
from tests.compiler.test_schedule import (
    default_schedule,
    kernels_of,
    launches_of,
    leaf,
    random_loop_schedule,
    run_scheduled,
    spread,
)


def constant(number: float, dtype: str, shape: tuple[int, ...]) -> Node:
    value = node("const", value=number, dtype=DTYPES[dtype], shape=())
    return node("expand", node("reshape", value, shape=(1,) * len(shape)), shape=shape)


def picked(value: Node, target: Node, axis: int, otherwise: float = 0) -> Node:
    """The value where its position along the axis is the target, summed."""
    shape = value.shape
    place = node("iota", shape=shape, axis=axis, dtype=dtypes.int64)
    hit = node("eq", spread(target, shape, axis), place)
    chosen = node("where", hit, value, constant(otherwise, value.dtype.name, shape))
    return node("sum", chosen, axes=(axis,))


def loops_of(graph: Graph) -> str:
    return "\n".join(text(kernel) for kernel in kernels_of(graph, LoopKernel))


def arrays_for(shape: tuple[int, ...], axis: int, dtype: str) -> list[numpy.ndarray]:
    """Values, infinite ones among them, and targets, some beyond either end."""
    generator = numpy.random.default_rng(shape[0])
    numbers = (generator.standard_normal(shape) * 5).astype(DTYPES[dtype].numpy)
    if dtype.startswith("float"):
        numbers.reshape(-1)[::7] = numpy.inf
        numbers.reshape(-1)[::11] = numpy.nan
    others = tuple(size for k, size in enumerate(shape) if k != axis)
    return [numbers, generator.integers(-2, shape[axis] + 2, others)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("shape, axis", [((5, 67), 1), ((67, 5), 0), ((3, 7, 11), 1), ((2, 1), 1),
                                         ((1, 130), 1), ((33, 2, 16), 2)])
def test_any_schedule_gives_the_interpreters_values(
    shape: tuple[int, ...], axis: int, dtype: str
) -> None:
    arrays = arrays_for(shape, axis, dtype)
    value, target = leaf(0, *shape, dtype=dtype), leaf(1, *arrays[1].shape, dtype="int64")
    made = node("add", node("mul", value, value), value)
    graph = Graph((picked(made, target, axis), picked(node("neg", value), target, axis)))
    if shape[axis] > 1:
        assert "+= " not in loops_of(graph) and "sum=" not in loops_of(graph)
    for seed in range(8):
        choices = random.Random(seed)

        def choose(kernel: Kernel, choices: random.Random = choices) -> Any:
            if isinstance(kernel, LoopKernel):
                return random_loop_schedule(kernel, choices)
            return default_schedule(kernel)

        compare(graph, arrays, run_scheduled(graph, arrays, choose))


def test_a_mean_of_log_probabilities_and_its_gradient() -> None:
    """As of a cross entropy: the picked value beside reductions of the same row, and stored before
    the gradient may be written over the scores.
    """
    x, target = leaf(0, 64, 300), leaf(1, 64, dtype="int64")
    below = node("sub", x, spread(node("max", x, axes=(1,)), x.shape, 1))
    power = node("exp", below)
    total = node("sum", power, axes=(1,))
    logs = node("sub", below, spread(node("log", total), x.shape, 1))
    loss = picked(logs, target, 1)
    gradient = node("div", power, spread(total, x.shape, 1))
    graph = Graph((loss, gradient))
    arrays = [numpy.random.default_rng(0).standard_normal((64, 300)).astype(numpy.float32),
              numpy.random.default_rng(1).integers(0, 300, 64)]
    compare(graph, arrays, run_scheduled(graph, arrays, default_schedule))
    separate, (launch,) = launches_of(graph)
    assert text(launch.kernel).count("sum=") == 1
    scores = launch.arguments.index(x)
    assert in_place(launch, scores, launch.arguments.index(separate.outputs[1]))


def test_what_is_picked_from_another_row_is_not_written_over() -> None:
    """Row r reads an element of row 63 - r: a result may not take the place of what it reads."""
    x, target = leaf(0, 64, 300), leaf(1, 64, dtype="int64")
    loss = picked(node("flip", x, axes=(0,)), target, 1)
    separate, launches = launches_of(Graph((loss, node("add", x, spread(loss, x.shape, 1)))))
    for launch in launches:
        if x in launch.arguments and separate.outputs[1] in launch.arguments:
            assert not in_place(launch, launch.arguments.index(x),
                                launch.arguments.index(separate.outputs[1]))


@pytest.mark.parametrize("what", ["otherwise", "moving target", "scaled place"])
def test_other_choices_stay_sums(what: str) -> None:
    x, target = leaf(0, 16, 67), leaf(1, 16, dtype="int64")
    arrays = [numpy.random.default_rng(0).standard_normal((16, 67)).astype(numpy.float32),
              numpy.random.default_rng(1).integers(0, 70, 16)]
    if what == "otherwise":
        made = picked(x, target, 1, otherwise=1)
    else:
        place = node("iota", shape=x.shape, axis=1, dtype=dtypes.int64)
        twice = node("mul", place, constant(2, "int64", x.shape))
        along = node("cast", x, dtype=dtypes.int64)
        hit = node("eq", *((along, place) if what == "moving target"
                           else (spread(target, x.shape, 1), twice)))
        chosen = node("where", hit, x, constant(0, "float32", x.shape))
        made = node("sum", chosen, axes=(1,))
    graph = Graph((made,))
    assert "sum=" in loops_of(graph)
    compare(graph, arrays, run_scheduled(graph, arrays, default_schedule))
