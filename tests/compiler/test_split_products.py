"""Products that are cut into slices of k equal those that are not."""

from __future__ import annotations

import random

import numpy
import pytest

from lazygrad_compiler.fusion.split_products import Slicing, outermost, split, split_products
from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.llvm.backend import SLICING
from lazygrad_compiler.loops.kernel import ContractionKernel
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.target import host
from tests.compiler.error_bounds import check as compare
from tests.compiler.test_compiled import run_compiled
from tests.compiler.test_contraction import draw, matmul

FINE = Slicing(tile=16, tasks=64, shortest=4, most=8)


def long_product(dtype: str, m: int, n: int, k_shape: tuple[int, ...]) -> Node:
    """A gradient of weights: summed over the leading axes of both."""
    axes = tuple(range(len(k_shape)))
    x = node("input", index=0, dtype=dtypes.dtype_named(dtype), shape=(*k_shape, m))
    y = node("input", index=1, dtype=dtypes.dtype_named(dtype), shape=(*k_shape, n))
    return node("dot", x, y, left_batch=(), right_batch=(), left_contract=axes, right_contract=axes)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
def test_few_results_over_a_long_depth(dtype, turned):
    graph = Graph((matmul(1, 20, 24, 12288, dtype, turned),))
    contraction, _ = (launch.kernel for launch in lower(graph, host()).launches)
    assert isinstance(contraction, ContractionKernel) and contraction.batch.extent == 3
    arrays = draw(graph)
    compare(graph, arrays, run_compiled(graph, arrays))


def test_several_axes_are_cut_along_the_first_that_is_longer_than_one():
    dot = long_product("float32", 17, 9, (1, 6, 2048))
    assert (outermost(dot), SLICING.slices(dot)) == (1, 3)
    graph = Graph((node("exp", node("mul", dot, node("const", value=1e-4, dtype=dot.dtype,
                                                     shape=dot.shape))),))  # fmt: skip
    arrays = draw(graph)
    compare(graph, arrays, run_compiled(graph, arrays))


@pytest.mark.parametrize(
    "dot",
    [
        long_product("float32", 64, 64, (8191,)),  # short
        long_product("float32", 64, 64, (100_003,)),  # a prime
        long_product("float32", 2048, 2048, (16384,)),  # work for all
        long_product("int32", 8, 8, (16384,)),
        long_product("float32", 0, 8, (16384,)),
        long_product("float32", 8, 8, (0,)),
        long_product("float32", 8, 8, ()),
    ],
    ids=lambda dot: f"{dot.dtype.name}-{dot.inputs[0].shape}",
)
def test_what_is_left_whole(dot):
    assert SLICING.slices(dot) == 1 and split(dot, 1) is dot


@pytest.mark.parametrize("seed", range(12))
def test_random_products_in_fine_slices(seed):
    """Axes of every role in any order."""
    generator = random.Random(seed)
    extents = {"b": generator.choice([1, 2]), "m": generator.choice([1, 3, 5]),
               "n": generator.choice([2, 4]), "k": generator.choice([8, 12, 30]),
               "l": generator.choice([1, 2, 7])}  # fmt: skip
    left, right = list("bmkl"), list("bnkl")
    generator.shuffle(left)
    generator.shuffle(right)
    summed = generator.choice(["kl", "lk"])
    dtype = dtypes.dtype_named(generator.choice(["float32", "float64", "float16"]))
    x = node("input", index=0, dtype=dtype, shape=tuple(extents[axis] for axis in left))
    y = node("input", index=1, dtype=dtype, shape=tuple(extents[axis] for axis in right))
    dot = node("dot", x, y, left_batch=(left.index("b"),), right_batch=(right.index("b"),),
               left_contract=tuple(left.index(axis) for axis in summed),
               right_contract=tuple(right.index(axis) for axis in summed))  # fmt: skip
    graph = Graph((dot,))
    cut = split_products(FINE)(graph)
    arrays = draw(graph)
    assert (cut.outputs[0] is dot) == (FINE.slices(dot) == 1)
    compare(graph, arrays, run_compiled(cut, arrays))


def test_a_fine_slicing_cuts_most_of_them():
    assert FINE.slices(long_product("float32", 3, 4, (12,))) == 3
    assert FINE.slices(long_product("float32", 3, 4, (2, 7))) == 2


def test_infinities_meet_as_they_do_in_one_sum():
    graph = Graph((matmul(1, 4, 4, 8192),))
    left, right = draw(graph)
    left[0, 1, 5], left[0, 1, 8000], left[0, 2, 4096] = numpy.inf, -numpy.inf, numpy.inf
    right[0, :, :] = abs(right)[0]
    (got,) = run_compiled(graph, [left, right])
    assert numpy.isnan(got[0, 1]).all() and (got[0, 2] == numpy.inf).all()
    assert numpy.isfinite(got[0, [0, 3]]).all()
