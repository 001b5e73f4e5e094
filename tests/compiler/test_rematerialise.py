"""Rematerialisation: less memory at the peak, the same values, and no more bytes than agreed on."""

from __future__ import annotations

import pytest

from lazygrad_compiler.fusion import rematerialise as subject
from lazygrad_compiler.fusion.rematerialise import computed_again, rematerialise
from lazygrad_compiler.ir.interpret import interpret
from lazygrad_compiler.ir.node import Graph, Node, node
from lazygrad_compiler.ir.text import parse_graph, print_graph
from lazygrad_compiler.ir.verify import verify
from lazygrad_compiler.loops.cost import cost_of
from lazygrad_compiler.pipeline import Stages, lower, optimized
from lazygrad_compiler.target import host
from tests.compiler.every_kind import drawn, leaf
from tests.compiler.random_graphs import random_graph
from tests.compiler.test_compiled import check, sane, with_gradients
from tests.compiler.test_shared import agrees, product


def spread(row: Node, rows: int) -> Node:
    return node("expand", node("reshape", row, shape=(1, row.size)), shape=(rows, row.size))


def number(value: float, like: Node) -> Node:
    return node("const", value=value, dtype=like.dtype, shape=like.shape)


def gelu(h: Node) -> Node:
    half = node("mul", h, number(0.5, h))
    return node("mul", half, node("add", node("erf", node("mul", h, number(0.7071, h))),
                                  number(1.0, h)))


def layer_norm(x: Node, scale: Node) -> Node:
    def mean(value: Node) -> Node:
        total = node("reshape", node("sum", value, axes=(1,)), shape=(x.shape[0], 1))
        return node("expand", node("div", total, number(x.shape[1], total)), shape=x.shape)

    centred = node("sub", x, mean(x))
    deviation = node("sqrt", node("add", mean(node("mul", centred, centred)), number(1e-5, x)))
    return node("mul", node("div", centred, deviation), spread(scale, x.shape[0]))


def blocks(layers: int, rows: int, width: int) -> Graph:
    """x + gelu(layer_norm(x) @ w) @ v, some times, and the gradients of all weights."""
    x = start = leaf(0, rows, width)
    for place in range(0, 3 * layers, 3):
        normal = layer_norm(x, leaf(1 + place, width))
        h = product(normal, leaf(2 + place, width, 4 * width))
        x = node("add", x, product(gelu(h), leaf(3 + place, 4 * width, width)))
    graph = with_gradients(Graph((node("sum", node("mul", x, x), axes=(0, 1)),)))
    assert graph is not None and start in graph.inputs()
    return graph


def moved(stages: Stages) -> int:
    return sum(cost_of(launch.kernel).nbytes for launch in stages.launches)


def test_a_block_of_norm_and_gelu_takes_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """h of each layer is kept over the peak, gelu(h) is not."""
    rows, width, layers = 1024, 256, 4
    graph = blocks(layers, rows, width)
    one = rows * width * 4
    with_it = lower(graph, host())
    again = computed_again(with_it.opt)
    assert sum(value.nbytes for value, _ in again) >= 4 * (layers - 1) * one
    assert {source.op for _, sources in again for source in sources} == {"dot"}
    monkeypatch.setattr(subject, "LEAST_BYTES", 1 << 60)
    without = lower(graph, host())
    assert not computed_again(without.opt)
    saved = without.plan.arena_bytes - with_it.plan.arena_bytes
    assert saved >= 4 * (layers - 2) * one
    assert moved(with_it) - moved(without) <= sum(value.nbytes for value, _ in again), \
        "each is written once more, and no kernel reads more than before"


def test_its_values_are_the_interpreters() -> None:
    graph = blocks(3, 1024, 256)
    assert computed_again(optimized(graph, None, host()))
    inputs = [array / array.shape[-1] ** 0.5 if array.ndim == 2 else array
              for array in drawn(graph)]
    agrees(graph, inputs, 1e-4)


def test_products_are_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = blocks(3, 1024, 256)
    with_it = [value.op for value in optimized(graph, None, host()).nodes()]
    monkeypatch.setattr(subject, "LEAST_BYTES", 1 << 60)
    without = [value.op for value in optimized(graph, None, host()).nodes()]
    assert with_it.count("erf") > without.count("erf")
    for op in ("dot", "sum"):
        assert with_it.count(op) == without.count(op)


def test_it_is_the_same_every_time() -> None:
    first, second = (print_graph(optimized(blocks(2, 1024, 256), None, host())) for _ in range(2))
    assert first == second
    assert "again" in first and print_graph(parse_graph(first)) == first


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_keep_their_values(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is computed again, and however small: in the interpreter bit by bit."""
    graph, inputs = random_graph(seed, size=25)
    graph = with_gradients(graph) or graph
    graph = optimized(graph, None, host())
    monkeypatch.setattr(subject, "LEAST_BYTES", 1)
    made = rematerialise(graph)
    verify(made, dense_inputs=False)
    expected = interpret(graph, inputs)
    for have, want in zip(interpret(made, inputs), expected, strict=True):
        assert have.tobytes() == want.tobytes()
    if sane(expected) and seed < 4:
        check(made, inputs)


def test_what_is_computed_again_waits() -> None:
    """For a product of the backward part, whose kernel computes it."""
    stages = lower(blocks(3, 1024, 256), host())
    home = {value: place for place, launch in enumerate(stages.launches)
            for value in launch.group.roots}
    again = computed_again(stages.opt)
    assert again
    for value, sources in again:
        late, = {operand.inputs[1] for operand in stages.opt.nodes()
                 if operand.op == "again" and operand.inputs[0] in sources}
        assert home[value] == home[late] > max(home[source] for source in sources)
