"""Scatters whose positions do not meet, and large concatenations: recognised, shared by the
threads, and right.
"""

from __future__ import annotations

import numpy
import pytest

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.loops import concat
from lazygrad_compiler.loops.scatter import meets_nowhere
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.target import host
from tests.compiler.test_compiled import check


def leaf(number: int, dtype: str, shape: tuple[int, ...]) -> Node:
    return node("input", index=number, dtype=dtypes.DTYPES[dtype], shape=shape)


def counts(axis: int, shape: tuple[int, ...]) -> Node:
    return node("iota", axis=axis, dtype=dtypes.int64, shape=shape)


def zeros(shape: tuple[int, ...]) -> Node:
    return node("const", value=0.0, dtype=dtypes.float32, shape=shape)


X = leaf(0, "float32", (5, 700))
ORDER = node("argsort", X, descending=False)
MASK = leaf(0, "bool", (4000,))
PLACES = node("compact", MASK, count=1500)


@pytest.mark.parametrize("indices, counted, expected", [
    ((counts(0, (5, 700)), ORDER), (0,), True),
    ((ORDER,), (), False),  # rows repeat what other rows hold
    ((node("top_k", X, k=300, largest=True),), (0,), True),
    ((PLACES,), (), True),
    ((node("reshape", PLACES, shape=(30, 50)),), (), True),
    ((node("permute", ORDER, order=(1, 0)),), (1,), True),
    ((node("permute", ORDER, order=(1, 0)),), (0,), False),
    ((node("reshape", ORDER, shape=(5, 1, 700)),), (0,), True),
    ((node("reshape", ORDER, shape=(5, 70, 10)),), (0,), False),
    ((node("add", PLACES, PLACES),), (), False),
    ((leaf(0, "int64", (9,)),), (), False),
])
def test_recognised(indices, counted, expected):
    assert meets_nowhere(indices, counted) is expected


@pytest.mark.parametrize("mode", ["add", "set"])
def test_along_an_order(mode):
    random = numpy.random.default_rng(0)
    updates = leaf(1, "float32", (5, 700))
    result = node("scatter", zeros((5, 700)), updates, counts(0, (5, 700)), ORDER, axes=(0, 1),
                  mode=mode)
    check(Graph((result,)), [random.standard_normal((5, 700)).astype("float32"),
                             random.standard_normal((5, 700)).astype("float32")])


@pytest.mark.parametrize("tail", [(), (37,)])
def test_at_the_places_of_a_mask(tail):
    random = numpy.random.default_rng(1)
    mask = numpy.zeros(4000, bool)
    mask[random.permutation(4000)[:1500]] = True
    base, updates = leaf(1, "float32", (4000, *tail)), leaf(2, "float32", (1500, *tail))
    result = node("scatter", base, updates, PLACES, axes=(0,), mode="add")
    check(Graph((result,)), [mask, random.standard_normal((4000, *tail)).astype("float32"),
                             random.standard_normal((1500, *tail)).astype("float32")])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("fused", [False, True])
def test_a_concatenation_in_pieces(axis, fused, monkeypatch):
    monkeypatch.setattr(concat, "LARGE_PIECE", 100)
    random = numpy.random.default_rng(2)
    shapes = []
    for size in (3, 5, 4):
        shape = [6, 7, 8]
        shape[axis] = size
        shapes.append(tuple(shape))
    leaves = [leaf(number, "float32", shape) for number, shape in enumerate(shapes)]
    pieces = [node("exp", each) for each in leaves] if fused else leaves
    graph = Graph((node("concat", *pieces, axis=axis),))
    assert len(lower(graph, host()).launches) == 3
    check(graph, [random.standard_normal(shape).astype("float32") for shape in shapes])
