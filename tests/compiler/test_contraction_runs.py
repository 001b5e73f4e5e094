"""Packing along k in runs: gradients of convolutions' weights equal the interpreter."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy
import pytest

from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Graph, node
from lazygrad_compiler.llvm import backend
from lazygrad_compiler.loops.index import Affine, Div, Mod, Var, variable
from lazygrad_compiler.loops.operands import in_run, place_of, quotient_of
from lazygrad_compiler.loops.schedule_contraction import ContractionSchedule
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.target import host
from tests.compiler.error_bounds import check as compare
from tests.compiler.test_compiled import run_compiled, with_gradients


def weight_gradient(
    batch: int, channels: int, wider: int, side: tuple[int, int], kernel: tuple[int, int],
    stride: int = 1, padding: int = 1, dilation: int = 1, dtype: str = "float32",
) -> tuple[Graph, list[numpy.ndarray]]:
    """The graph that gives the gradient of a convolution's weights alone."""
    x = node("input", index=0, dtype=DTYPES[dtype], shape=(batch, channels, *side))
    w = node("input", index=1, dtype=DTYPES[dtype], shape=(wider, channels, *kernel))
    made = node("conv", x, w, strides=(stride,) * 2, padding=((padding, padding),) * 2,
                left_dilation=(1, 1), right_dilation=(dilation,) * 2, groups=1)
    if made.dtype.bits == 16:
        made = node("cast", made, dtype=DTYPES["float32"])
    whole = with_gradients(Graph((node("mul", made, made),)))
    assert whole is not None
    generator = numpy.random.default_rng(batch + channels)
    arrays = [generator.standard_normal(leaf.shape).astype(leaf.dtype.numpy) for leaf in (x, w)]
    return Graph((whole.outputs[-1],)), arrays


def runs_of(graph: Graph) -> list[int]:
    return [kernel.schedule.run for kernel in lower(graph, host()).kernels
            if isinstance(kernel.schedule, ContractionSchedule)]


@pytest.mark.parametrize(
    "batch, channels, wider, side, kernel, options",
    [
        (2, 3, 20, (24, 24), (3, 3), {}),
        (3, 20, 17, (17, 19), (3, 3), {}),
        (2, 5, 33, (16, 40), (5, 3), {"padding": 2}),
        (2, 16, 16, (33, 33), (3, 3), {"stride": 2}),
        (2, 16, 16, (40, 40), (3, 3), {"dilation": 2, "padding": 0}),
        (2, 16, 20, (24, 24), (3, 3), {"dtype": "float64"}),
        (2, 9, 20, (24, 24), (3, 3), {"dtype": "float16"}),
    ],
)  # fmt: skip
def test_weight_gradients_are_packed_in_runs(batch, channels, wider, side, kernel, options):
    graph, arrays = weight_gradient(batch, channels, wider, side, kernel, **options)
    assert max(runs_of(graph)) >= 16
    compare(graph, arrays, run_compiled(graph, arrays))


@pytest.mark.parametrize("swapped", [False, True])
def test_both_ways_round(swapped, monkeypatch):
    """The schedule chooses which operand fills vectors; the result does not depend on it."""
    graph, arrays = weight_gradient(2, 6, 20, (24, 24), (3, 3))
    plain = backend.schedule_contraction

    def turned(kernel, target):
        schedule = plain(kernel, target)
        if schedule.run == 1:
            return schedule
        m = kernel.n if swapped else kernel.m
        kc = 2 * schedule.run if kernel.k.extent > 4 * schedule.run else kernel.k.extent
        return replace(schedule, swapped=swapped, strips=-(-m.extent // 4), vectors=1, block=2,
                       blocks=-(-m.extent // 8), tail=2, nc=schedule.lanes, kc=kc,
                       left="rows", right="transposed")

    monkeypatch.setattr(backend, "schedule_contraction", turned)
    compare(graph, arrays, run_compiled(graph, arrays))


@pytest.mark.parametrize("seed", range(10))
def test_random_weight_gradients(seed):
    draw = random.Random(seed)
    kernel = draw.choice([(1, 1), (3, 3), (2, 5), (1, 7)])
    dilation = draw.choice([1, 1, 2])
    graph, arrays = weight_gradient(
        draw.choice([1, 2, 3]), draw.choice([1, 3, 8, 13]), draw.choice([2, 7, 16, 37]),
        (dilation * kernel[0] + draw.choice([7, 8, 14, 16, 23]),
         dilation * kernel[1] + draw.choice([7, 8, 14, 16, 30])),
        kernel, draw.choice([1, 1, 2]), draw.choice([0, 1, 2]), dilation,
        draw.choice(["float32", "float32", "float64", "bfloat16"]),
    )  # fmt: skip
    compare(graph, arrays, run_compiled(graph, arrays))


def test_a_number_for_each_row_makes_no_runs():
    """x + c[k] over k in images of 197 steps by one along k in c alone: a weight's gradient that
    reads heads of attention is packed by columns, not by gathering runs.
    """
    f32, rows = DTYPES["float32"], 8 * 197
    heads = node("input", index=0, dtype=f32, shape=(8, 3, 197, 64))
    x = node("input", index=1, dtype=f32, shape=(rows, 192))
    c = node("expand", node("input", index=2, dtype=f32, shape=(rows, 1)), shape=x.shape)
    y = node("reshape", node("permute", heads, order=(0, 2, 1, 3)), shape=(rows, 192))
    product = node("dot", node("add", x, c), y, left_batch=(), right_batch=(),
                   left_contract=(0,), right_contract=(0,))
    graph = Graph((product,))
    (schedule,) = [kernel.schedule for kernel in lower(graph, host()).kernels
                   if isinstance(kernel.schedule, ContractionSchedule)]
    assert schedule.run == 1 and schedule.right == "columns" and not schedule.swapped
    generator = numpy.random.default_rng(0)
    arrays = [generator.standard_normal(leaf.shape).astype("float32") for leaf in graph.inputs()]
    compare(graph, arrays, run_compiled(graph, arrays))


def test_a_position_in_runs():
    """Rows of 8 in images of 8 x 4: quotients and remainders of k become those of the run."""
    k = Var("k", 64)
    index = Affine(0, ((Mod(variable(k), 8), 1), (Div(variable(k), 32), 100)))
    q, p = quotient_of(k, 8), place_of(k, 8)
    assert in_run(index, k, 8) == variable(p) + Affine(0, ((Div(variable(q), 4), 100),))
