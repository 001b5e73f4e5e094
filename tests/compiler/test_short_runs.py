"""Loads whose lanes read some of a short run of memory, several times or not at all: vectors and
shuffles instead of gathers, with the interpreter's values.
"""

from __future__ import annotations

import dataclasses
import random

import numpy
import pytest

from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.target import host
from tests.compiler.test_compiled import check


def in_turn(values: list[Node], axis: int) -> Node:
    """Elements of the values along the axis, one of each in turn."""
    shape = values[0].shape
    lone = (*shape[: axis + 1], 1, *shape[axis + 1 :])
    stacked = node("concat", *(node("reshape", v, shape=lone) for v in values), axis=axis + 1)
    return node("reshape", stacked, shape=(*shape[:axis], shape[axis] * len(values),
                                           *shape[axis + 1 :]))


def phases(shape: tuple[int, int, int], turns: tuple[int, int], dtype: str, holes: int) -> Graph:
    """relu(images put together of phases + x), the first `holes` of which are zeros; and sums."""
    of = DTYPES[dtype]
    parts: list[Node] = []
    for index in range(turns[0] * turns[1]):
        part = node("input", index=index, dtype=of, shape=shape)
        parts.append(node("const", value=0, dtype=of, shape=shape) if index < holes else part)
    rows = [in_turn(parts[k : k + turns[1]], 2) for k in range(0, len(parts), turns[1])]
    whole = in_turn(rows, 1) if len(rows) > 1 else rows[0]
    x = node("input", index=len(parts), dtype=of, shape=whole.shape)
    made = node("maximum", node("add", whole, x), node("const", value=0, dtype=of,
                                                       shape=whole.shape))
    return Graph((made, node("sum", made, axes=(1, 2))))


def repeated(shape: tuple[int, int, int], times: tuple[int, int], dtype: str) -> Graph:
    """x, each element so many times along the last axes, plus y."""
    x = node("input", index=0, dtype=DTYPES[dtype], shape=shape)
    channels, height, width = shape
    apart = node("reshape", x, shape=(channels, height, 1, width, 1))
    wide = node("expand", apart, shape=(channels, height, times[0], width, times[1]))
    made = node("reshape", wide, shape=(channels, height * times[0], width * times[1]))
    y = node("input", index=1, dtype=DTYPES[dtype], shape=made.shape)
    return Graph((node("add", made, y),))


def planes(shape: tuple[int, int, int], steps: tuple[int, int], dtype: str) -> Graph:
    """Every so many-th row and column of images side by side, for each first one."""
    channels, height, width = shape
    x = node("input", index=0, dtype=DTYPES[dtype],
             shape=(channels, height * steps[0], width * steps[1]))
    apart = node("reshape", x, shape=(channels, height, steps[0], width, steps[1]))
    return Graph((node("permute", apart, order=(0, 2, 4, 1, 3)),))


def windows(shape: tuple[int, int, int], steps: tuple[int, int], dtype: str, low: int) -> Graph:
    """Sums over 3 x 3 windows of padded images, at steps: masks that move with the lanes."""
    x = node("input", index=0, dtype=DTYPES[dtype], shape=shape)
    padded = node("pad", x, low=(0, low, low), high=(0, 2, 2), interior=(0, 0, 0), value=0)
    made = node("window", padded, axes=(1, 2), sizes=(3, 3), strides=steps, dilations=(1, 1))
    return Graph((node("sum", made, axes=(3, 4)),))


def arrays_for(graph: Graph, draw: random.Random) -> list[numpy.ndarray]:
    generator = numpy.random.default_rng(draw.randrange(2**32))
    leaves = {leaf.attrs[0]: leaf for leaf in graph.inputs()}
    return [
        generator.integers(-9, 10, leaves[k].shape if k in leaves else (0,)).astype(
            leaves[k].dtype.numpy if k in leaves else "float32")
        for k in range(max(leaves) + 1)
    ]


@pytest.mark.parametrize("seed", range(40))
def test_values(seed):
    draw = random.Random(seed)
    shape = (draw.choice([1, 3]), draw.choice([1, 2, 5]), draw.choice([1, 2, 4, 5, 7, 8, 16, 33]))
    turns = (draw.choice([1, 2, 3]), draw.choice([1, 2, 2, 3, 4]))
    dtype = draw.choice(["float32", "float32", "float64", "float16", "int32", "int8"])
    graph = [phases(shape, turns, dtype, draw.choice([0, 0, 1])), repeated(shape, turns, dtype),
             planes(shape, turns, dtype), windows(shape, turns, dtype, seed % 3)][seed % 4]
    check(graph, arrays_for(graph, draw))


@pytest.mark.parametrize("graph", [
    phases((4, 16, 16), (2, 2), "float32", 1), phases((4, 4, 4), (2, 2), "float32", 0),
    windows((4, 33, 33), (2, 2), "float32", 1), windows((4, 64, 64), (1, 2), "float32", 0),
    planes((4, 8, 8), (2, 2), "float32"), planes((4, 4, 4), (2, 2), "float32"),
    phases((4, 16, 8), (1, 4), "float64", 0), repeated((4, 16, 16), (2, 2), "float32"),
])  # fmt: skip
def test_nothing_is_gathered(graph):
    target = dataclasses.replace(host(), simd_bytes=64, registers=32)
    assert not any("llvm.masked.gather" in kernel.llvm for kernel in lower(graph, target).kernels)
