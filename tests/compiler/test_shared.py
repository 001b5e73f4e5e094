"""Shared values: large ones are computed again where every reader has what they are made from, and
sums are stored in place of products.
"""

from __future__ import annotations

import numpy
import pytest

from lazygrad_compiler.fusion import partition, shared
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.loops.cost import cost_of
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


def agrees(graph: Graph, inputs: list[numpy.ndarray], tolerance: float) -> None:
    """Compiled as interpreted, but for so much of the largest element."""
    outputs = Program(compile_graph(graph, host())).run(
        [Buffer.from_numpy(array) for array in inputs])
    for output, want in zip(outputs, interpret(graph, inputs), strict=True):
        have = output.as_numpy(want.dtype, want.shape)
        assert numpy.abs(have - want).max() <= tolerance * numpy.abs(want).max()


def test_a_value_beside_its_source_is_not_kept() -> None:
    graph = step(1024, 1024)
    assert "erf" not in stored(graph)
    agrees(graph, drawn(graph), 1e-3)


def test_it_takes_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = lower(step(1024, 1024), host()).plan.arena_bytes
    monkeypatch.setattr(shared, "MOST_COST", 0)
    assert lower(step(1024, 1024), host()).plan.arena_bytes >= with_it + (4 << 20)


@pytest.mark.parametrize("graph", [step(64, 64), step(1024, 1024, near=False)])
def test_what_is_small_or_far_from_its_source_is_kept(graph: Graph) -> None:
    assert "erf" in stored(graph)


def test_what_is_dear_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "MOST_COST", 8)
    assert "erf" in stored(step(1024, 1024))


def residual_stack(layers: int, rows: int = 64, width: int = 32) -> Graph:
    """x + relu(x) @ w, again and again, and of each x the sums of tanh(x) along its rows."""
    x = leaf(0, rows, width)
    sums = []
    for number in range(layers):
        zero = node("const", value=0.0, dtype=x.dtype, shape=x.shape)
        x = node("add", x, product(node("maximum", x, zero), leaf(1 + number, width, width)))
        sums.append(node("sum", node("tanh", x), axes=(1,)))
    return Graph((*sums, product(x, leaf(1, width, width))))


def bytes_moved(graph: Graph) -> int:
    return sum(cost_of(launch.kernel).nbytes for launch in lower(graph, host()).launches)


def test_sums_along_residuals_are_stored_in_place_of_products(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = residual_stack(5)
    assert stored(graph) == {"add", "maximum", "sum", "dot"}
    parts = lower(graph, host()).partition.groups
    assert sum(value.op == "dot" for group in parts for value in group.outputs) == 1, "the last"
    with_rule = bytes_moved(graph)
    agrees(graph, drawn(graph), 1e-4)
    monkeypatch.setattr(partition, "instead_of_products", lambda *_: set())
    assert bytes_moved(graph) > 1.2 * with_rule


def test_a_product_that_is_wanted_itself_is_stored() -> None:
    x, w = leaf(0, 64, 32), leaf(1, 32, 32)
    made = product(x, w)
    total = node("add", x, made)
    graph = Graph((product(total, w), node("sum", node("exp", total), axes=(0,)), made))
    assert "dot" in stored(graph)
