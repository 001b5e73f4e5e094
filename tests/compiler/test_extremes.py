"""The largest and the smallest: a NaN anywhere is found under every schedule, whatever comes before
or after it, and lanes past the end say nothing.
"""

from __future__ import annotations

import random

import ml_dtypes
import numpy
import pytest

from lazygrad_compiler.ir.node import Graph, node
from tests.compiler.test_row_buffers import loop_kernel
from tests.compiler.test_schedule import (
    default_schedule,
    leaf,
    random_loop_schedule,
    run_scheduled,
)

FORMATS = {"float32": numpy.float32, "float64": numpy.float64, "float16": numpy.float16,
           "bfloat16": ml_dtypes.bfloat16}


def values(dtype: str, rows: int, length: int, seed: int) -> numpy.ndarray:
    """Every other row has one NaN, every third an infinity of each sign; zeros of both signs."""
    generator = numpy.random.default_rng(seed)
    array = generator.choice([-3.0, -0.0, 0.0, 0.5, 7.0], (rows, length))
    array[::3, generator.integers(length)] = numpy.inf
    array[1::3, generator.integers(length)] = -numpy.inf
    array[4::5] = -numpy.inf
    marked = numpy.arange(0, rows, 2)
    array[marked, generator.permutation(max(rows, length))[: len(marked)] % length] = numpy.nan
    return array.astype(FORMATS[dtype])


@pytest.mark.parametrize("op", ["max", "min"])
@pytest.mark.parametrize("dtype", FORMATS)
def test_nan_is_found_wherever_it_is(op: str, dtype: str) -> None:
    generator = random.Random(f"{op} {dtype}")
    reduce = numpy.max if op == "max" else numpy.min
    for seed, (rows, length) in enumerate([(150, 75), (9, 1), (33, 64), (7, 129), (64, 256)]):
        array = values(dtype, rows, length, seed)
        for axes in ((0,), (1,), (0, 1)):
            graph = Graph((node(op, leaf(0, rows, length, dtype=dtype), axes=axes),))
            wanted = reduce(array.astype(numpy.float64), axis=axes)
            for choose in (default_schedule, lambda k: random_loop_schedule(k, generator)):
                (result,) = run_scheduled(graph, [array], choose, seed)
                numpy.testing.assert_array_equal(result.astype(numpy.float64), wanted)


def test_long_rows_are_fetched_ahead() -> None:
    """Each row of a large array while the one before is reduced."""
    large = loop_kernel(Graph((node("sum", leaf(0, 4096, 4096), axes=(1,)),)))
    small = loop_kernel(Graph((node("sum", leaf(0, 64, 4096), axes=(1,)),)))
    assert default_schedule(large).prefetch == 0 and default_schedule(small).prefetch == -1
