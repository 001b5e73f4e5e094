"""Reductions over the rows of a row kernel: what else the kernel computes is read once, and every
order of tasks gives the interpreter's values.
"""

from __future__ import annotations

import contextlib
import random
from typing import Any

import numpy
import pytest

from lazygrad_compiler.fusion.partition import partition
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.loops import columns, lower
from lazygrad_compiler.loops.kernel import Kernel, LoopKernel
from tests.compiler.error_bounds import IllConditioned
from tests.compiler.error_bounds import check as compare
from tests.compiler.random_graphs import random_graph
from tests.compiler.test_schedule import (
    default_schedule,
    launches_of,
    leaf,
    random_loop_schedule,
    run_scheduled,
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every reduction that can be one over rows is one, in blocks of three rows at most."""
    for name in ("LEAST_ROWS", "LEAST_COLUMNS", "LEAST_ELEMENTS"):
        monkeypatch.setattr(columns, name, 2)
    monkeypatch.setattr(lower, "LEAST_BLOCK", 3)


def abouts(graph: Graph) -> list[str]:
    return [launch.about for launch in launches_of(graph)[1]]


def repeated(value: Node, shape: tuple[int, ...], axis: int) -> Node:
    kept = tuple(1 if k == axis else size for k, size in enumerate(shape))
    return node("expand", node("reshape", value, shape=kept), shape=shape)


def norm_backward(rows: int, length: int) -> Graph:
    """The gradients of (x - mean) * weight, roughly as those of a layer norm."""
    x, g, weight = leaf(0, rows, length), leaf(1, rows, length), leaf(2, length)
    mean = repeated(node("sum", x, axes=(1,)), x.shape, 1)
    centred = node("sub", x, mean)
    scaled = node("mul", node("mul", g, repeated(weight, x.shape, 0)), centred)
    gx = node("sub", scaled, repeated(node("sum", scaled, axes=(1,)), x.shape, 1))
    gw = node("sum", node("mul", g, centred), axes=(0,))
    gb = node("sum", g, axes=(0,))
    return Graph((gx, gw, gb))


def test_sums_of_rows_and_of_columns_share_a_pass() -> None:
    graph = norm_backward(512, 256)
    _first, second = abouts(graph)
    assert second.startswith("blocks of sum")
    kernel = launches_of(graph)[1][0].kernel
    assert isinstance(kernel, LoopKernel)
    assert kernel.block == lower.block_rows(512) and len(kernel.stages) == 3
    assert sum(len(stage.columns) for stage in kernel.stages) == 2
    arrays = [numpy.random.default_rng(k).standard_normal(shape).astype(numpy.float32)
              for k, shape in enumerate([(512, 256), (512, 256), (256,)])]
    compare(graph, arrays, run_scheduled(graph, arrays, default_schedule))


def test_an_elementwise_result_is_summed_where_it_is_stored() -> None:
    made = node("exp", leaf(0, 1000, 100))
    assert abouts(Graph((made, node("sum", made, axes=(0,))))) == ["exp+sum", "blocks of sum"]


@pytest.mark.parametrize("what", ["few rows", "few columns", "few elements", "transposed",
                                  "statistics", "argmax"])
def test_where_columns_are_done_one_by_one(what: str) -> None:
    rows, length = {"few rows": (32, 4096), "few columns": (4096, 32),
                    "few elements": (100, 100)}.get(what, (512, 256))
    x = leaf(0, rows, length)
    if what == "transposed":
        x = node("permute", leaf(0, length, rows), order=(1, 0))
    total = node("argmax" if what == "argmax" else "sum", x, axes=(0,))
    outputs = [node("sub", x, repeated(total, x.shape, 0)) if what == "statistics" else total]
    assert not any("blocks" in about for about in abouts(Graph(tuple(outputs))))


def test_backends_may_do_without() -> None:
    graph = Graph((node("sum", leaf(0, 512, 256), axes=(0,)),))
    assert partition(graph).groups[0].columns and not partition(graph, False).groups[0].columns


def test_rows_go_abreast_where_memory_is_all_that_they_take() -> None:
    plain, heavy = leaf(0, 515, 256), norm_backward(515, 256)
    relu = node("mul", plain, node("cast", node("lt", plain, leaf(1, 515, 256)),
                                   dtype=DTYPES["float32"]))
    for graph, expected in ((Graph((node("sum", plain, axes=(0,)),)), 4),
                            (Graph((relu, node("sum", relu, axes=(0,)))), 4),
                            (Graph((node("sum", node("exp", plain), axes=(0,)),)), 1),
                            (heavy, 1)):
        kernel = launches_of(graph)[1][0].kernel
        assert default_schedule(kernel).abreast == expected
        arrays = [numpy.random.default_rng(k).standard_normal(value.shape).astype(numpy.float32)
                  for k, value in enumerate(graph.inputs())]
        compare(graph, arrays, run_scheduled(graph, arrays, default_schedule))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("op", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int32", "bool"])
def test_all_reductions_in_all_dtypes(op: str, dtype: str) -> None:
    if dtype == "bool" and op in ("sum", "prod"):
        pytest.skip("sums of booleans are sums of integers")
    generator = random.Random(f"{op} {dtype}")
    for shape, axes in (((7, 5), (0,)), ((67, 33), (0,)), ((3, 5, 17), (0, 1)),
                        ((16, 4, 5), (0,)), ((2, 2), (0,))):
        value = leaf(0, *shape, dtype=dtype)
        graph = Graph((node(op, value, axes=axes),))
        if dtype != "bool" or "blocks" in "".join(abouts(graph)):
            assert "blocks" in abouts(graph)[-1]
        numbers = numpy.random.default_rng(0).standard_normal(shape)
        if dtype == "int32":
            numbers = numpy.random.default_rng(0).integers(-3, 4, shape)
        array = numbers.astype(DTYPES[dtype].numpy)
        if op in ("max", "min") and dtype != "int32" and dtype != "bool":
            array[0, 0] = numpy.nan

        def choose(kernel: Kernel, generator: random.Random = generator) -> Any:
            assert isinstance(kernel, LoopKernel)
            return random_loop_schedule(kernel, generator)

        compare(graph, [array], run_scheduled(graph, [array], choose))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(12))
def test_norm_gradients_under_random_schedules(seed: int) -> None:
    generator = random.Random(seed)
    rows, length = generator.choice([2, 5, 33]), generator.choice([2, 31, 64, 101])
    graph = norm_backward(rows, length)
    arrays = [numpy.random.default_rng(k + seed).standard_normal(shape).astype(numpy.float32)
              for k, shape in enumerate([(rows, length), (rows, length), (length,)])]
    choose = lambda kernel: random_loop_schedule(kernel, generator)
    compare(graph, arrays, run_scheduled(graph, arrays, choose, seed))


@pytest.mark.usefixtures("small")
def test_random_graphs() -> None:
    met = 0
    for seed in range(250):
        graph, inputs = random_graph(seed + 40_000, size=12)
        if not any("blocks" in about for about in abouts(graph)):
            continue
        met += 1
        generator = random.Random(seed)

        def choose(kernel: Kernel, generator: random.Random = generator) -> Any:
            if isinstance(kernel, LoopKernel):
                return random_loop_schedule(kernel, generator)
            return default_schedule(kernel)

        with contextlib.suppress(IllConditioned):
            compare(graph, inputs, run_scheduled(graph, inputs, choose, seed))
    assert met > 3
