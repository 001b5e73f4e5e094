"""Transposed convolutions and gradients of strided ones, taken apart by phase."""

from __future__ import annotations

import math
import random

import numpy
import pytest

from lazygrad_compiler.fusion.conv_phases import by_phases, takes_phases
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node, topological
from tests.compiler.test_compiled import check, run_compiled, with_gradients


def dilated_conv(draw: random.Random, rank: int, dtype: str) -> tuple[Node, list[numpy.ndarray]]:
    groups = draw.choice([1, 1, 2])
    side = [draw.choice([1, 2, 5, 8]) for _ in range(rank)]
    kernel = [draw.choice([1, 2, 3, 4]) for _ in range(rank)]
    spread = [draw.choice([1, 2, 3]) for _ in range(rank)]
    dilation = [draw.choice([1, 1, 2, 3]) for _ in range(rank)]
    strides = tuple(draw.choice([1, 1, 1, 2, 3]) for _ in range(rank))
    padding = []
    for size, taps, d, r in zip(side, kernel, spread, dilation, strict=True):
        reach, window = (size - 1) * d + 1, (taps - 1) * r + 1
        low = draw.randrange(-1, 4)
        padding.append((low, max(draw.randrange(-1, 4), window - reach - low)))
    x = node("input", index=0, dtype=DTYPES[dtype], shape=(2, 2 * groups, *side))
    w = node("input", index=1, dtype=DTYPES[dtype], shape=(3 * groups, 2, *kernel))
    conv = node("conv", x, w, strides=strides, padding=tuple(padding),
                left_dilation=tuple(spread), right_dilation=tuple(dilation), groups=groups)
    generator = numpy.random.default_rng(draw.randrange(2**32))
    return conv, [generator.integers(-4, 5, leaf.shape).astype(leaf.dtype.numpy)
                  for leaf in (x, w)]


@pytest.mark.parametrize("seed", range(80))
def test_phases_equal_the_whole(seed):
    """Whole numbers: sums are exact in any order."""
    draw = random.Random(seed)
    conv, arrays = dilated_conv(draw, draw.choice([1, 2, 3]), draw.choice(["float32", "int32"]))
    if not takes_phases(conv):
        pytest.skip("nothing to take apart")
    apart = by_phases(conv)
    assert not any(n.op == "conv" and math.prod(n.attrs[2]) > 1 for n in topological((apart,)))
    (whole,), (phased,) = interpret(Graph((conv,)), arrays), interpret(Graph((apart,)), arrays)
    assert (apart.shape, apart.dtype) == (conv.shape, conv.dtype)
    numpy.testing.assert_array_equal(phased, whole)


@pytest.mark.parametrize("seed", range(10))
def test_compiled(seed):
    conv, arrays = dilated_conv(random.Random(1000 + seed), 2, "float32")
    (whole,), (made,) = interpret(Graph((conv,)), arrays), run_compiled(Graph((conv,)), arrays)
    numpy.testing.assert_array_equal(made, whole)


def test_gradient_of_a_strided_convolution():
    x = node("input", index=0, dtype=DTYPES["float32"], shape=(2, 8, 17, 16))
    w = node("input", index=1, dtype=DTYPES["float32"], shape=(5, 8, 3, 3))
    conv = node("conv", x, w, strides=(2, 2), padding=((1, 1), (1, 1)), left_dilation=(1, 1),
                right_dilation=(1, 1), groups=1)
    generator = numpy.random.default_rng(0)
    graph = with_gradients(Graph((node("mul", conv, conv),)))
    assert graph is not None
    check(graph, [generator.standard_normal(leaf.shape).astype("float32") for leaf in (x, w)])


def test_a_conv_of_very_many_phases_stays_whole():
    x = node("input", index=0, dtype=DTYPES["float32"], shape=(1, 4, 8, 8))
    w = node("input", index=1, dtype=DTYPES["float32"], shape=(4, 4, 3, 3))
    for spread, apart in ((16, True), (17, False), (10**5, False)):
        conv = node("conv", x, w, strides=(1, 1), padding=((1, 2), (1, 2)),
                    left_dilation=(spread, spread), right_dilation=(1, 1), groups=1)
        assert takes_phases(conv) == apart


def test_no_phase_multiplies_by_zeros():
    """The phases' taps are those of the kernel, each once."""
    x = node("input", index=0, dtype=DTYPES["float32"], shape=(1, 4, 8, 8))
    w = node("input", index=1, dtype=DTYPES["float32"], shape=(4, 4, 3, 3))
    conv = node("conv", x, w, strides=(1, 1), padding=((1, 2), (1, 2)), left_dilation=(2, 2),
                right_dilation=(1, 1), groups=1)
    apart = [n for n in topological((by_phases(conv),)) if n.op == "conv"]
    assert sorted(n.inputs[1].shape[2:] for n in apart) == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_gaps_take_no_part():
    """PyTorch's transposed convolutions do not multiply by zeros: an infinite weight makes no NaN
    where it meets nothing.
    """
    x = node("input", index=0, dtype=DTYPES["float32"], shape=(1, 1, 3))
    w = node("input", index=1, dtype=DTYPES["float32"], shape=(1, 1, 2))
    conv = node("conv", x, w, strides=(1,), padding=((1, 1),), left_dilation=(2,),
                right_dilation=(1,), groups=1)
    arrays = [numpy.ones((1, 1, 3), "float32"), numpy.array([[[numpy.inf, 2]]], "float32")]
    wanted = [[[2, numpy.inf, 2, numpy.inf, 2, numpy.inf]]]
    for (got,) in (interpret(Graph((conv,)), arrays), run_compiled(Graph((conv,)), arrays)):
        numpy.testing.assert_array_equal(got, wanted)


def test_more_phases_than_can_be_kernels():
    """A stride of 2^40 is left as it is: its result is too large, which the allocator says."""
    x = node("input", index=0, dtype=DTYPES["float32"], shape=(1, 1, 3))
    w = node("input", index=1, dtype=DTYPES["float32"], shape=(1, 1, 2))
    conv = node("conv", x, w, strides=(1,), padding=((1, 1),), left_dilation=(1 << 40,),
                right_dilation=(1,), groups=1)
    assert not takes_phases(conv)
