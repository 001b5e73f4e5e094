"""Rebasing: kernels that differ only in where they start are one, and compute the same."""

from __future__ import annotations

import numpy

from lazygrad_compiler.ir import dtypes
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.target import host
from tests.compiler.test_compiled import run_compiled


def rows(value: Node, start: int, stop: int) -> Node:
    return node("slice", value, starts=(start, 0), stops=(stop, value.shape[1]), steps=(1, 1))


def unrolled(frames: int, width: int) -> Graph:
    """A recurrence over the rows of an input: h = tanh(x_t + h @ w)."""
    x = node("input", index=0, dtype=dtypes.float32, shape=(frames, width))
    w = node("input", index=1, dtype=dtypes.float32, shape=(width, width))
    state = node("const", value=0.0, dtype=dtypes.float32, shape=(1, width))
    for frame in range(frames):
        product = node("dot", state, w, left_batch=(), right_batch=(), left_contract=(1,),
                       right_contract=(0,))
        state = node("tanh", node("add", rows(x, frame, frame + 1), product))
    return Graph((state,))


def data(graph: Graph) -> list[numpy.ndarray]:
    random = numpy.random.default_rng(0)
    return [random.standard_normal(leaf.shape).astype("float32") * 0.3 for leaf in graph.inputs()]


def test_frames_of_a_recurrence_share_their_kernels() -> None:
    few, many = (lower(unrolled(frames, 24), host()) for frames in (6, 30))
    assert len(many.launches) > len(few.launches)
    assert len(many.kernels) == len(few.kernels) <= 4
    graph = unrolled(30, 24)
    arrays = data(graph)
    numpy.testing.assert_allclose(run_compiled(graph, arrays)[0], interpret(graph, arrays)[0],
                                  rtol=2e-5, atol=1e-6)


def test_only_what_every_access_has_in_common_moves() -> None:
    """Neighbours: x[i + 3] * x[i + 7] start at 3."""
    x = node("input", index=0, dtype=dtypes.float32, shape=(100,))
    parts = [node("slice", x, starts=(start,), stops=(start + 50,), steps=(1,)) for start in (3, 7)]
    graph = Graph((node("mul", *parts),))
    stages = lower(graph, host())
    launch, = stages.launches
    assert sorted(launch.offsets) == [0, 3]
    arrays = data(graph)
    numpy.testing.assert_array_equal(run_compiled(graph, arrays)[0], interpret(graph, arrays)[0])


def test_guarded_accesses_before_the_start_stay() -> None:
    """A pad reads at i - 2 where that exists: there is nothing to move."""
    x = node("input", index=0, dtype=dtypes.float32, shape=(40,))
    graph = Graph((node("pad", x, low=(2,), high=(3,), interior=(0,), value=1.5),))
    arrays = data(graph)
    numpy.testing.assert_array_equal(run_compiled(graph, arrays)[0], interpret(graph, arrays)[0])
    assert not any(lower(graph, host()).launches[0].offsets)
