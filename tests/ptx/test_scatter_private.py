"""Many updates to few places, into copies in shared memory (`ptx/scatter_private.py`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, node
from lazygrad_compiler.loops.kernel import ScatterKernel
from lazygrad_compiler.pipeline import compile_graph, lower
from tests.ptx.assembled import assembled
from tests.ptx.programs import TARGET, ReportedError, run_graph
from tests.ptx.support import in_turn
from tests.ptx.test_programs import leaf, scattered


def parts_of(graph: Graph) -> int:
    launches = lower(graph, TARGET).launches
    return next(l.kernel.parts for l in launches if isinstance(l.kernel, ScatterKernel))


def draw(generator: np.random.Generator, dtype: dtypes.DType, shape: tuple[int, ...]) -> np.ndarray:
    if dtype.is_floating:
        return generator.standard_normal(shape).astype(dtype.numpy)
    return generator.integers(0, 50, shape).astype(dtype.numpy)


@pytest.mark.parametrize("mode, name, shape", in_turn(
    ("add", "max", "min"), ("float32", "int64", "float64", "int8", "uint64", "int32"),
    (((5,), 4100), ((64,), 9001), ((3, 7), 2000), ((2, 64), 300), ((4, 130), 1030),
     ((1, 3, 5), 1500)),
))  # fmt: skip
def test_few_places(mode, name, shape):
    base, count = shape
    dtype, generator = dtypes.dtype_named(name), np.random.default_rng(count)
    graph = scattered(mode, dtype, base, count)
    assert parts_of(graph) > 1
    index = generator.integers(-base[0], base[0], count)
    inputs = [draw(generator, dtype, base), draw(generator, dtype, (count, *base[1:])), index]
    (got,), (wanted,) = run_graph(graph, inputs), interpret(graph, inputs)
    if dtype.is_floating and mode == "add":
        exact = [values.astype(np.longdouble) for values in inputs[:2]]
        np.add.at(exact[0], index, exact[1])
        error = np.abs(got - exact[0].astype(np.float64)).max()
        assert error < count**0.5 * np.finfo(dtype.numpy).eps * 8
    else:
        np.testing.assert_array_equal(got, wanted)


def test_values_that_are_no_numbers():
    graph = scattered("add", dtypes.float32, (6,), 5000)
    updates = np.ones(5000, np.float32)
    updates[[7, 1000, 1001]] = np.nan, np.inf, -np.inf
    index = np.arange(5000) % 6
    base = np.zeros(6, np.float32)
    np.testing.assert_array_equal(run_graph(graph, [base, updates, index])[0],
                                  interpret(graph, [base, updates, index])[0])


def test_bits_do_not_depend_on_the_device():
    """A part of the same GPU with fewer multiprocessors."""
    graph, generator = scattered("add", dtypes.float32, (9,), 6000), np.random.default_rng(1)
    inputs = [draw(generator, dtypes.float32, (9,)), draw(generator, dtypes.float32, (6000,)),
              generator.integers(0, 9, 6000)]
    (whole,) = run_graph(graph, inputs)
    (part,) = run_graph(graph, inputs, replace(TARGET, multiprocessors=14))
    assert whole.tobytes() == part.tobytes()


def test_a_bad_index_is_reported():
    graph = scattered("add", dtypes.float32, (5,), 4500)
    index = np.zeros(4500, np.int64)
    index[4444] = 5
    with pytest.raises(ReportedError) as failed:
        run_graph(graph, [np.zeros(5, np.float32), np.ones(4500, np.float32), index])
    assert failed.value.args[:2] == (5, 5)


@pytest.mark.parametrize("why, graph", [
    ("too few updates", scattered("add", dtypes.float32, (5,), 1000)),
    ("too many places", scattered("add", dtypes.float32, (20_000,), 90_000)),
    ("an order that counts", scattered("set", dtypes.float32, (5,), 9000)),
    ("sums of 16 bits", scattered("add", dtypes.bfloat16, (5,), 9000)),
    ("elements apart", Graph((node(
        "scatter", leaf(0, dtypes.float32, 8, 3), leaf(1, dtypes.float32, 4000, 8),
        leaf(2, dtypes.int64, 4000), axes=(1,), mode="add"),))),
])  # fmt: skip
def test_what_is_left_to_the_other_ways(why, graph):
    assert parts_of(graph) == 1


@pytest.mark.parametrize("base, count", [((64,), 1 << 20), ((2, 768), 8192), ((12_000,), 1 << 22)])
def test_it_assembles(base, count):
    graph = scattered("add", dtypes.float32, base, count)
    for text in compile_graph(graph, TARGET).objects.values():
        assembled(text.decode(), "sm_90a")
