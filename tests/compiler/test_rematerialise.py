"""Large values are computed again where every reader has what they are made from."""

from __future__ import annotations

import numpy
import pytest

from lazygrad_compiler.fusion import rematerialise
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.pipeline import compile_graph, lower
from lazygrad_compiler.target import host
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import Program
from tests.compiler.every_kind import drawn, leaf


def product(left: Node, right: Node) -> Node:
    return node("dot", left, right, left_batch=(), right_batch=(), left_contract=(1,),
                right_contract=(0,))


def step(rows: int, wide: int, near: bool = True) -> Graph:
    """h = x w; z = erf(h) is read by the next product, and later beside h (near), or without it."""
    h = product(leaf(0, rows, 8), leaf(1, 8, wide))
    z = node("erf", h)
    forward = product(node("mul", h, z), leaf(2, wide, 8))
    cotangent = product(forward, leaf(3, 8, wide))
    backward = node("mul", cotangent, node("mul", z, h) if near else z)
    return Graph((product(backward, leaf(2, wide, 8)), node("sum", node("mul", h, h), axes=(1,))))


def stored(graph: Graph) -> set[str]:
    stages = lower(graph, host())
    return {value.op for group in stages.partition.groups for value in group.outputs}


def test_a_value_beside_its_source_is_not_kept() -> None:
    graph = step(1024, 1024)
    assert "erf" not in stored(graph)
    expected = interpret(graph, drawn(graph))
    outputs = Program(compile_graph(graph, host())).run(
        [Buffer.from_numpy(array) for array in drawn(graph)])
    for output, want in zip(outputs, expected, strict=True):
        have = output.as_numpy(want.dtype, want.shape)
        assert numpy.abs(have - want).max() <= 1e-3 * numpy.abs(want).max()


def test_it_takes_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = lower(step(1024, 1024), host()).plan.arena_bytes
    monkeypatch.setattr(rematerialise, "MOST_COST", 0)
    assert lower(step(1024, 1024), host()).plan.arena_bytes >= with_it + (4 << 20)


@pytest.mark.parametrize("graph", [step(64, 64), step(1024, 1024, near=False)])
def test_what_is_small_or_far_from_its_source_is_kept(graph: Graph) -> None:
    assert "erf" in stored(graph)


def test_what_is_dear_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rematerialise, "MOST_COST", 8)
    assert "erf" in stored(step(1024, 1024))
