"""Row buffers: dear values of a row are computed once, cheap ones again, and nothing changes."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy
import pytest

from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.llvm import loops
from lazygrad_compiler.loops import row_buffers
from lazygrad_compiler.loops.kernel import Kernel, LoopKernel, text
from lazygrad_compiler.loops.schedule import LoopSchedule
from lazygrad_compiler.target import host
from tests.compiler.error_bounds import check as compare
from tests.compiler.test_schedule import (
    default_schedule,
    kernels_of,
    leaf,
    random_loop_schedule,
    run_scheduled,
)


def softmax(x: Node, axis: int) -> Node:
    def row(op: str, value: Node) -> Node:
        kept = tuple(1 if k == axis else size for k, size in enumerate(x.shape))
        reduced = node("reshape", node(op, value, axes=(axis,)), shape=kept)
        return node("expand", reduced, shape=x.shape)

    power = node("exp", node("sub", x, row("max", x)))
    return node("div", power, row("sum", power))


def loop_kernel(graph: Graph) -> LoopKernel:
    (kernel,) = kernels_of(graph, LoopKernel)
    return kernel


def test_softmax_keeps_its_exponentials() -> None:
    kernel = loop_kernel(Graph((softmax(leaf(0, 64, 300), 1),)))
    assert kernel.kept == (DTYPES["float32"],)
    assert text(kernel).count("exp(") == 1
    assert loops.scratch_bytes(kernel, default_schedule(kernel)) == -(-300 * 4 // 64) * 64


def test_cheap_values_are_computed_again() -> None:
    x = leaf(0, 64, 300)
    mean = node("reshape", node("sum", node("add", x, x), axes=(1,)), shape=(64, 1))
    centred = node("sub", node("add", x, x), node("expand", mean, shape=x.shape))
    assert loop_kernel(Graph((centred,))).kept == ()


def test_rows_too_long_for_the_cache_are_computed_again() -> None:
    length = row_buffers.KEEP_BYTES // 4
    assert loop_kernel(Graph((softmax(leaf(0, 64, length), 1),))).kept
    assert not loop_kernel(Graph((softmax(leaf(0, 64, length + 1), 1),))).kept


def test_another_value_of_the_same_form_is_not_taken_for_it() -> None:
    x, y = leaf(0, 32, 65), leaf(1, 32, 65)
    total = node("reshape", node("sum", node("exp", x), axes=(1,)), shape=(32, 1))
    total = node("expand", total, shape=x.shape)
    graph = Graph((node("div", node("exp", y), total), node("div", node("exp", x), total)))
    kernel = loop_kernel(graph)
    assert len(kernel.kept) == 1 and text(kernel).count("exp(") == 2
    arrays = [numpy.random.default_rng(k).standard_normal((32, 65)).astype(numpy.float32)
              for k in range(2)]
    compare(graph, arrays, run_scheduled(graph, arrays, default_schedule))


@pytest.mark.parametrize("shape, axis", [((5, 67), 1), ((67, 5), 0), ((3, 7, 11), 1),
                                         ((2, 3, 130), 2), ((1, 1), 1), ((4, 1), 1), ((130,), 0)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_any_schedule_gives_the_interpreters_values(
    shape: tuple[int, ...], axis: int, dtype: str
) -> None:
    graph = Graph((softmax(leaf(0, *shape, dtype=dtype), axis),))
    numbers = numpy.random.default_rng(0).standard_normal(shape) * 3
    array = numbers.astype(DTYPES[dtype].numpy)
    for seed in range(12):
        generator = random.Random(seed)

        def choose(kernel: Kernel, generator: random.Random = generator) -> Any:
            assert isinstance(kernel, LoopKernel)
            return random_loop_schedule(kernel, generator)

        compare(graph, [array], run_scheduled(graph, [array], choose))


def test_kept_and_computed_again_are_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph((softmax(leaf(0, 9, 301), 1),))
    array = numpy.random.default_rng(1).standard_normal((9, 301)).astype(numpy.float32)
    kept = run_scheduled(graph, [array], default_schedule)[0].tobytes()
    monkeypatch.setattr(row_buffers, "KEEP_COST", math.inf)
    assert not loop_kernel(graph).kept
    assert run_scheduled(graph, [array], default_schedule)[0].tobytes() == kept


@pytest.mark.parametrize("length", [16, 33, 64, 301])
@pytest.mark.parametrize("stream", [False, True])
def test_stores_past_the_caches_store_the_same(length: int, stream: bool) -> None:
    x = leaf(0, 7, length)
    graph = Graph((node("neg", x), softmax(x, 1)))
    array = numpy.random.default_rng(2).standard_normal((7, length)).astype(numpy.float32)

    def choose(kernel: Kernel) -> LoopSchedule:
        return replace(default_schedule(kernel), stream=stream)

    results = run_scheduled(graph, [array], choose)
    plain = run_scheduled(graph, [array], default_schedule)
    assert [r.tobytes() for r in results] == [r.tobytes() for r in plain]


def test_large_results_go_past_the_caches() -> None:
    large = loop_kernel(Graph((node("neg", leaf(0, 1 << 23)),)))
    small = loop_kernel(Graph((node("neg", leaf(0, 1 << 20)),)))
    assert default_schedule(large).stream and not default_schedule(small).stream
    if host().simd_bytes == 64:
        rows = loop_kernel(Graph((softmax(leaf(0, 4096, 4096), 1),)))
        assert default_schedule(rows).prefetch == 1  # where the exponentials are


@pytest.mark.parametrize("channels, groups, space", [(6, 3, 35), (4, 2, 1), (6, 1, 16), (5, 5, 7)])
def test_rows_that_end_within_an_axis_stay_in_one_kernel(
    channels: int, groups: int, space: int
) -> None:
    """A group norm: statistics of runs of channels, then a weight for each channel."""
    x, weight = leaf(0, 3, channels, space), leaf(1, channels)
    runs = node("reshape", x, shape=(3, groups, channels // groups * space))
    total = node("reshape", node("sum", runs, axes=(2,)), shape=(3, groups, 1))
    centred = node("sub", runs, node("expand", total, shape=runs.shape))
    each = node("expand", node("reshape", weight, shape=(1, channels, 1)), shape=x.shape)
    graph = Graph((node("mul", node("reshape", centred, shape=x.shape), each),))
    loop_kernel(graph)
    arrays = [numpy.random.default_rng(k).standard_normal(shape).astype(numpy.float32)
              for k, shape in enumerate([x.shape, weight.shape])]
    for seed in range(4):
        generator = random.Random(seed)

        def choose(kernel: Kernel, generator: random.Random = generator) -> Any:
            assert isinstance(kernel, LoopKernel)
            return random_loop_schedule(kernel, generator)

        compare(graph, arrays, run_scheduled(graph, arrays, choose))
