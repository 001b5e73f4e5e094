"""Tiled row kernels: windows over random shapes equal the interpreter, whatever the tile."""

from __future__ import annotations

import dataclasses
import random

import numpy
import pytest

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.llvm import backend, tiles
from lazygrad_compiler.loops.index import Affine, Var, divide, variable
from lazygrad_compiler.loops.kernel import Instr
from lazygrad_compiler.loops.schedule_tiles import TileSchedule, schedule_tiles
from lazygrad_compiler.loops.unroll import Unrolled
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.target import host
from tests.compiler.test_compiled import check, run_compiled, with_gradients


def depthwise(draw: random.Random, dtype: dtypes.DType) -> tuple[Graph, list[numpy.ndarray]]:
    """A depthwise convolution of random sizes, with a bias and its gradients."""
    channels, batch = draw.choice([1, 2, 5]), draw.choice([1, 2])
    kernel = (draw.choice([1, 2, 3, 5]), draw.choice([3, 4, 7]))
    dilation, stride = draw.choice([(1, 1), (2, 1)]), draw.choice([(1, 1), (1, 1), (2, 1), (1, 2)])
    side = [
        (size - 1) * spread + draw.choice([1, 6, 7, 16, 17, 29, 33])
        for size, spread in zip(kernel, dilation, strict=True)
    ]
    padding = tuple((draw.randrange(4), draw.randrange(4)) for _ in range(2))
    x = node("input", index=0, dtype=dtype, shape=(batch, channels, *side))
    w = node("input", index=1, dtype=dtype, shape=(channels, 1, *kernel))
    b = node("input", index=2, dtype=dtype, shape=(1, channels, 1, 1))
    made = node("conv", x, w, strides=stride, padding=padding, left_dilation=(1, 1),
                right_dilation=dilation, groups=channels)
    output = node("add", made, node("expand", b, shape=made.shape))
    generator = numpy.random.default_rng(draw.randrange(2**32))
    arrays = [generator.standard_normal(leaf.shape).astype(dtype.numpy) for leaf in (x, w, b)]
    graph = Graph((output,))
    return with_gradients(graph) or graph, arrays


def pooling(draw: random.Random, op: str, dtype: dtypes.DType) -> tuple[Graph, list[numpy.ndarray]]:
    """A window of random size and stride, reduced; NaN, infinities and -0.0 are among the input."""
    sizes, strides = (draw.choice([1, 2, 3]), draw.choice([2, 3, 5])), draw.choice([(1, 1), (2, 2)])
    side = tuple(size + draw.choice([1, 8, 15, 31, 40]) for size in sizes)
    x = node("input", index=0, dtype=dtype, shape=(3, *side))
    fill = dtype.limits()[0] if op == "max" else 0
    low, high = draw.randrange(3), draw.randrange(3)
    padded = node("pad", x, low=(0, low, high), high=(0, high, low), interior=(0, 0, 0), value=fill)
    windows = node("window", padded, axes=(1, 2), sizes=sizes, strides=strides, dilations=(1, 1))
    reduced = node(op, windows, axes=(3, 4))
    generator = numpy.random.default_rng(draw.randrange(2**32))
    array = generator.standard_normal(x.shape) * 10
    if dtype.is_floating and op == "max":
        for value in (numpy.nan, numpy.inf, -numpy.inf, -0.0):
            array.flat[draw.randrange(array.size)] = value
    return Graph((reduced,)), [array.astype(dtype.numpy)]


def schedules(graph: Graph) -> list[TileSchedule]:
    return [kernel.schedule for kernel in lower(graph, host()).kernels
            if isinstance(kernel.schedule, TileSchedule)]


@pytest.mark.parametrize("seed", range(12))
def test_depthwise_convolutions_and_gradients(seed):
    draw = random.Random(seed)
    check(*depthwise(draw, draw.choice([dtypes.float32, dtypes.float64])))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("op", ["max", "sum", "min"])
def test_pooling(op, seed):
    draw = random.Random(seed)
    check(*pooling(draw, op, draw.choice(
        [dtypes.float32, dtypes.float64, dtypes.float16, dtypes.int32, dtypes.uint8])))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 250))
def test_windows_at_length(seed):
    draw = random.Random(seed)
    check(*depthwise(draw, draw.choice([dtypes.float32, dtypes.float64, dtypes.float16])))
    check(*pooling(draw, draw.choice(["max", "sum"]), dtypes.float32))


def fixed(dtype: dtypes.DType = dtypes.float32) -> tuple[Graph, list[numpy.ndarray]]:
    x = node("input", index=0, dtype=dtype, shape=(2, 3, 29, 37))
    w = node("input", index=1, dtype=dtype, shape=(3, 1, 5, 5))
    made: Node = node("conv", x, w, strides=(1, 1), padding=((2, 2), (2, 2)),
                      left_dilation=(1, 1), right_dilation=(1, 1), groups=3)
    generator = numpy.random.default_rng(0)
    arrays = [generator.standard_normal(leaf.shape).astype(dtype.numpy) for leaf in (x, w)]
    return Graph((made,)), arrays


def test_no_tile_changes_a_bit(monkeypatch):
    """Rows of a tile are computed as each would be alone."""
    graph, arrays = fixed()
    (chosen,) = schedules(graph)
    assert chosen.tile > 1
    results = []
    for tile in (1, 2, 4, 5, 8):
        monkeypatch.setattr(backend, "schedule_tiles", lambda kernel, target, tile=tile: (
            dataclasses.replace(chosen, tile=tile)))
        results.append(run_compiled(graph, arrays)[0])
    assert all(result.tobytes() == results[0].tobytes() for result in results[1:])


@pytest.mark.parametrize("width", [37, 83])
def test_gradients_of_weights_take_a_row_of_taps(width, monkeypatch):
    """Short rows of an image are written out vector by vector, long ones looped over; neither that
    nor the tile changes a bit.
    """
    x = node("input", index=0, dtype=dtypes.float32, shape=(2, 3, 29, width))
    w = node("input", index=1, dtype=dtypes.float32, shape=(3, 1, 5, 5))
    conv = node("conv", x, w, strides=(1, 1), padding=((2, 2), (2, 2)), left_dilation=(1, 1),
                right_dilation=(1, 1), groups=3)
    whole = with_gradients(Graph((node("mul", conv, conv),)))
    assert whole is not None
    (gradient,) = (output for output in whole.outputs if output.shape == w.shape)
    graph = Graph((gradient,))
    generator = numpy.random.default_rng(0)
    arrays = [generator.standard_normal(leaf.shape).astype("float32") for leaf in (x, w)]
    chosen = next(schedule for schedule in schedules(graph) if schedule.vector == "inner")
    assert chosen.tile == 5
    check(graph, arrays)

    def of(tile: int, written_out: int) -> bytes:
        def schedule(kernel, target):
            made = schedule_tiles(kernel, target)
            inner = made is not None and made.vector == "inner"
            return dataclasses.replace(made, tile=tile) if inner else made

        monkeypatch.setattr(backend, "schedule_tiles", schedule)
        monkeypatch.setattr(tiles, "MOST_SHORT", written_out)
        return run_compiled(graph, arrays)[0].tobytes()

    assert len({of(tile, most) for tile in (1, 3, 5, 8) for most in (0, 4)}) == 1


def test_tiles_are_chosen_where_windows_overlap_only():
    graph, _ = fixed()
    assert len(schedules(graph)) == 1
    x = node("input", index=0, dtype=dtypes.float32, shape=(64, 512))
    assert schedules(Graph((node("sum", x, axes=(1,)),))) == []


def test_large_windows_fetch_the_next_plane_ahead():
    """One line a row of the tile and vector, a plane further on; small windows need none."""
    graph, _ = fixed()
    (text,) = [kernel.llvm for kernel in lower(graph, host()).kernels]
    assert "@llvm.prefetch" in text
    assert f"{29 * 37}" in text, "so many elements on"
    x = node("input", index=0, dtype=dtypes.float32, shape=(2, 3, 29, 37))
    w = node("input", index=1, dtype=dtypes.float32, shape=(3, 1, 3, 3))
    small = node("conv", x, w, strides=(1, 1), padding=((1, 1), (1, 1)), left_dilation=(1, 1),
                 right_dilation=(1, 1), groups=3)
    assert len(schedules(Graph((small,)))) == 1
    assert not any("@llvm.prefetch" in kernel.llvm
                   for kernel in lower(Graph((small,)), host()).kernels)


def test_unrolled_windows_share_their_loads():
    """Two rows of a window of three, one below the other, read four elements, not six."""
    row, tap = Var("row", 8), Var("tap", 3)
    load = Instr("load", dtypes.float32, (), (0, variable(row) + variable(tap)))
    code = Unrolled([load])
    for first in range(2):
        for k in range(3):
            code.at(0, code.place({row: variable(row) + first, tap: Affine(k)}))
    assert [instr.data[1].constant for instr in code.values] == [0, 1, 2, 3]


def test_a_masked_load_stands_for_zero_only_where_it_is_a_vector():
    """A load that all lanes share is read where any lane is on: it says nothing of the others."""
    row, lane = Var("row", 8), Var("lane", 32)
    mask = Instr("bounds", dtypes.bool_, (), (variable(lane), 2, 30))
    zero = Instr("const", dtypes.float32, (), (0.0,))
    for index, folded in ((variable(lane), True), (variable(row), False),
                          (divide(variable(lane), 8), False)):
        load = Instr("load", dtypes.float32, (0,), (0, index))
        code = Unrolled([mask, load, zero, Instr("where", dtypes.float32, (0, 1, 2))], lane)
        number = code.at(3, code.place({row: Affine(3)}))
        assert (code.values[number].op == "load") == folded
