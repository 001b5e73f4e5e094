"""Strided convolutions over planes: equal to the whole, and read without jumps."""

from __future__ import annotations

import dataclasses
import random

import numpy
import pytest

from lazygrad_compiler.fusion.conv_planes import with_planes
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.target import host
from tests.compiler.test_compiled import check, run_compiled, with_gradients


def strided_conv(draw: random.Random, rank: int, dtype: str) -> tuple[Node, list[numpy.ndarray]]:
    groups = draw.choice([1, 1, 2])
    one_tap = draw.random() < 0.25
    kernel = [1 if one_tap else draw.choice([3, 4, 5]) for _ in range(rank)]
    strides = tuple(draw.choice([1, 2, 2]) for _ in range(rank))
    padding = tuple((draw.randrange(-1, 4), draw.randrange(-1, 4)) for _ in range(rank))
    if one_tap and draw.random() < 0.8:
        padding = tuple((0, high) for _, high in padding)
    side = [max(taps - low - high, 1) + draw.choice([0, 1, 2, 5, 8, 13])
            for taps, (low, high) in zip(kernel, padding, strict=True)]
    x = node("input", index=0, dtype=DTYPES[dtype], shape=(2, 2 * groups, *side))
    w = node("input", index=1, dtype=DTYPES[dtype], shape=(5 * groups, 2, *kernel))
    conv = node("conv", x, w, strides=strides, padding=padding, left_dilation=(1,) * rank,
                right_dilation=(1,) * rank, groups=groups)
    generator = numpy.random.default_rng(draw.randrange(2**32))
    return conv, [generator.integers(-4, 5, leaf.shape).astype(leaf.dtype.numpy)
                  for leaf in (x, w)]


@pytest.mark.parametrize("seed", range(40))
def test_planes_equal_the_whole(seed):
    """Whole numbers: sums are exact in any order."""
    draw = random.Random(seed)
    conv, arrays = strided_conv(draw, draw.choice([1, 2, 2, 3]), draw.choice(["float32", "int32"]))
    graph = Graph((conv,))
    if conv.dtype.is_floating:
        graph = with_gradients(Graph((node("mul", conv, conv),))) or graph
    apart = with_planes(graph)
    if apart.outputs == graph.outputs:
        padded = any(low or high for low, high in conv.attrs[1])
        assert max(conv.attrs[0]) == 1 or (max(conv.inputs[1].shape[2:]) == 1 and padded)
        return
    for whole, planes in zip(interpret(graph, arrays), interpret(apart, arrays), strict=True):
        assert whole.dtype == planes.dtype
        numpy.testing.assert_array_equal(planes, whole)


@pytest.mark.parametrize("seed", range(8))
def test_compiled(seed):
    conv, arrays = strided_conv(random.Random(500 + seed), 2, "float32")
    graph = with_gradients(Graph((node("mul", conv, conv),)))
    assert graph is not None
    check(graph, arrays)


def gradients_at_a_stride_of_two(taps, padding):
    """Of the squares of a 2d convolution with so many taps a side, and those; and its leaves."""
    x = node("input", index=0, dtype=DTYPES["float32"], shape=(2, 16, 32, 32))
    w = node("input", index=1, dtype=DTYPES["float32"], shape=(32, 16, taps, taps))
    conv = node("conv", x, w, strides=(2, 2), padding=((padding, padding),) * 2,
                left_dilation=(1, 1), right_dilation=(1, 1), groups=1)
    graph = with_gradients(Graph((node("mul", conv, conv),)))
    assert graph is not None
    return graph, (x, w)


def test_one_tap_reads_what_is_picked_once():
    """Forward and for the weights' gradient; whose cotangent is put in order, too."""
    graph, _ = gradients_at_a_stride_of_two(1, 0)
    stages = lower(graph, host())
    picked = [root for launch in stages.launches for root in launch.group.roots
              if root.op == "slice" and root.shape == (2, 16, 16, 16)]
    assert len(picked) == 1
    products = [kernel for kernel in stages.kernels if kernel.kernel.kind == "contraction"]
    assert len(products) == 3 and not any("masked.gather" in kernel.llvm for kernel in products)


def test_cotangents_are_read_where_they_lie():
    """By the gradient of a strided convolution's weights, which would pack them again and again."""
    x = node("input", index=0, dtype=DTYPES["float32"], shape=(8, 32, 16, 16))
    g = node("input", index=1, dtype=DTYPES["float32"], shape=(8, 64, 8, 8))
    turned = [node("permute", value, order=(1, 0, 2, 3)) for value in (x, g)]
    conv = node("conv", *turned, strides=(1, 1), padding=((1, 0), (1, 0)), left_dilation=(1, 1),
                right_dilation=(2, 2), groups=1)
    assert conv.shape == (32, 64, 3, 3)
    stages = lower(Graph((conv,)), dataclasses.replace(host(), simd_bytes=64, registers=32))
    (product,) = [kernel for kernel in stages.kernels if kernel.kernel.kind == "contraction"]
    assert product.schedule.left == "direct"


def test_no_gathers():
    """Forward and for the weights' gradient, with planes that both read."""
    graph, leaves = gradients_at_a_stride_of_two(3, 1)
    stages = lower(graph, host())
    groups = [launch.group for launch in stages.launches]
    assert sum(any(root.op == "permute" and root.ndim == 6 for root in group.roots)
               for group in groups) == 1
    by_name = dict(zip(stages.names, stages.launches, strict=True))
    readers = [kernel for kernel in stages.kernels
               if any(value.op == "permute" and value.ndim == 6
                      for value in by_name[kernel.name].arguments[:2])
               and kernel.kernel.kind == "contraction"]
    assert len(readers) == 2 and not any("masked.gather" in kernel.llvm for kernel in readers)
    generator = numpy.random.default_rng(0)
    arrays = [generator.standard_normal(leaf.shape).astype("float32") for leaf in leaves]
    first = run_compiled(graph, arrays)
    assert all((a == b).all() for a, b in zip(first, run_compiled(graph, arrays), strict=True))
