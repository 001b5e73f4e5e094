"""Rows fetched ahead, those too whose numbers are read at run time."""

from __future__ import annotations

import numpy
import pytest

from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.loops import schedule
from lazygrad_compiler.pipeline import compile_graph, lower
from lazygrad_compiler.target import host
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import IndexOutOfRange, Program
from tests.compiler.every_kind import leaf
from tests.compiler.test_row_buffers import softmax


def picked(rows: int, wide: int, count: int, dtype: str = "int64") -> Graph:
    """softmax of `count` rows of a table."""
    number: Node = leaf(1, count, dtype=dtype)
    if dtype != "int64":
        number = node("cast", number, dtype=leaf(2, 1, dtype="int64").dtype)
    return Graph((softmax(node("gather", leaf(0, rows, wide), number, axes=(0,)), 1),))


def fetches(graph: Graph) -> int:
    return sum(kernel.llvm.count("call void @llvm.prefetch")
               for kernel in lower(graph, host()).kernels)


@pytest.fixture
def fetching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of small arrays are fetched ahead, too."""
    monkeypatch.setattr(schedule, "FETCHED_FROM", 0)


@pytest.mark.parametrize(("wide", "dtype"), [(777, "int64"), (512, "int32")])
def test_rows_picked_at_run_time(fetching: None, wide: int, dtype: str) -> None:
    """As interpreted: every row, the last one, negative numbers."""
    graph = picked(41, wide, 33, dtype)
    assert fetches(graph)
    random = numpy.random.default_rng(0)
    table = random.standard_normal((41, wide)).astype(numpy.float32)
    numbers = random.integers(-41, 41, 33).astype(dtype)
    program = Program(compile_graph(graph, host()))
    result, = program.run([Buffer.from_numpy(table), Buffer.from_numpy(numbers)])
    want, = interpret(graph, [table, numbers])
    assert numpy.abs(result.as_numpy(numpy.float32, want.shape) - want).max() <= 1e-6


def test_the_next_number_is_not_checked_before_its_turn(fetching: None) -> None:
    """One that is out of range is an error, and it names the first such."""
    graph = picked(43, 640, 9)
    assert fetches(graph)
    program = Program(compile_graph(graph, host()))
    table = Buffer.from_numpy(numpy.ones((43, 640), numpy.float32))
    for wrong in (0, 4, 8):
        numbers = numpy.arange(9)
        numbers[wrong] = 10**12
        with pytest.raises(IndexOutOfRange, match="index 1000000000000 is out of range"):
            program.run([table, Buffer.from_numpy(numbers)])


def test_a_number_that_is_the_same_for_all_rows_is_not_fetched_for(fetching: None) -> None:
    scale = leaf(2, 64, 4096)

    def scaled(row: Node) -> Graph:
        return Graph((softmax(node("mul", node("expand", row, shape=(64, 4096)), scale), 1),))

    chosen = node("gather", leaf(0, 5, 4096), leaf(1, 1, dtype="int64"), axes=(0,))
    assert fetches(scaled(chosen)) == fetches(scaled(leaf(0, 1, 4096))) > 0
