"""Composites: results of a call stand for a graph, which is there as soon as somebody reads it."""

from __future__ import annotations

import gc

import numpy

from lazygrad_compiler.artifact import canonical_graph, pruned
from lazygrad_compiler.ir import composite
from lazygrad_compiler.ir.composite import Folded, Template, apply, placeholder, template, unfold
from lazygrad_compiler.ir.dtypes import float32
from lazygrad_compiler.ir.interpret import evaluate
from lazygrad_compiler.ir.node import Graph, Node, build, node, topological
from lazygrad_compiler.ir.ops import OPS
from lazygrad_compiler.ir.text import print_graph

HERE = (("model.py", 7),)


def given(number: int, *shape: int, dtype=float32) -> Node:
    return node("input", index=number, dtype=dtype, shape=shape)


def sum_and_product() -> Template:
    """x + y, and -x * (x + y)."""
    x, y = placeholder(0, float32, (3,)), placeholder(1, float32, (3,))
    total = node("add", x, y)
    return template("both", (total, node("mul", node("neg", x), total)), (x, y))


def called(*inputs: Node) -> list[Node]:
    return apply(sum_and_product(), inputs, HERE)


def test_equal_templates_are_one_object_while_they_live() -> None:
    first = sum_and_product()
    assert sum_and_product() is first
    other = template("other", first.outputs, first.inputs)
    assert other is not first
    number = id(first)
    del first
    gc.collect()
    assert sum_and_product() is not other and number


def test_results_are_known_but_for_their_inputs() -> None:
    a, b = given(15, 3), given(16, 3)
    total, product = called(a, b)
    assert type(total) is type(product) is Folded
    assert (total.op, total.dtype, total.shape, total.location) == ("add", float32, (3,), HERE)
    assert (product.op, product.attrs) == ("mul", ())
    assert type(total) is Folded  # nothing so far has built anything


def test_the_same_call_gives_the_same_nodes() -> None:
    a, b = given(15, 3), given(16, 3)
    first = called(a, b)
    assert all(x is y for x, y in zip(called(a, b), first, strict=True))
    first[0].inputs
    assert called(a, b)[0] is first[0]
    assert called(b, a)[0] is not first[0]


def test_reading_the_inputs_unfolds() -> None:
    a, b = given(15, 3), given(16, 3)
    product = called(a, b)[1]
    negated, total = product.inputs
    assert type(product) is Node
    assert negated is node("neg", a) and total is node("add", a, b)
    assert negated.location == HERE


def test_a_call_may_know_the_lines_inside() -> None:
    applied = sum_and_product()
    inside = tuple((("inside.py", number),) for number in range(len(applied.place)))
    a, b = given(25, 3), given(26, 3)
    total, product = apply(applied, (a, b), HERE, inside)
    assert total.location == inside[applied.place[applied.outputs[0]]]
    assert product.inputs[0].location == inside[applied.place[applied.outputs[1].inputs[0]]]
    without, _ = apply(applied, (given(27, 3), b), HERE, ((),) * len(inside))
    assert without.location == HERE


def test_inputs_and_constants_among_the_results_are_themselves() -> None:
    x, y = placeholder(0, float32, (3,)), placeholder(1, float32, (3,))
    two = node("const", value=2.0, dtype=float32, shape=())
    applied = template("through", (y, two, node("neg", x)), (x, y))
    a, b = given(15, 3), given(16, 3)
    results = apply(applied, (a, b), HERE)
    assert results[0] is b and results[1] is two and results[2].inputs == (a,)


def test_gradients_reach_inputs_that_results_are_made_from() -> None:
    x, y = placeholder(0, float32, (3,), True), placeholder(1, float32, (3,), True)
    stopped = build(OPS["stop_gradient"], (y,), ())
    applied = template("half", (node("mul", x, stopped),), (x, y))
    a, b = (node("variable", given(number, 3), uid=number) for number in (15, 16))
    output, = apply(applied, (a, b), HERE)
    assert output.differentiable
    assert applied.reached == ((0, 1),)
    left, right = output.inputs
    assert left is a and right.op == "stop_gradient" and right.inputs == (b,)


def test_calls_of_calls_unfold_one_by_one() -> None:
    a, b = given(15, 3), given(16, 3)
    total = called(a, b)[0]
    product = called(total, b)[1]
    assert product.inputs[1].inputs == (total, b)
    assert type(total) is Folded
    assert {each.op for each in topological([product])} == {"input", "add", "neg", "mul"}
    assert type(total) is Node


def test_unfolding_a_graph_stops_at_known_values() -> None:
    a, b = given(15, 3), given(16, 3)
    known, _ = called(a, b)
    known.payload = object()
    product = called(known, b)[1]
    unfold([product])
    assert product.call is None and type(product) is Node
    assert known.call is not None and type(known) is Folded


def test_what_results_share_is_built_once(monkeypatch) -> None:
    x = placeholder(0, float32, (3,))
    chain = [x]
    for _ in range(50):
        chain.append(node("neg", chain[-1]))
    applied = template("chain", [node("abs", each) for each in chain[1:]], (x,))
    results = apply(applied, (given(31, 3),), HERE)
    built = []
    intern = composite.intern_node
    monkeypatch.setattr(composite, "intern_node",
                        lambda *parts: built.append(parts[0]) or intern(*parts))
    for result in results:
        assert result.inputs[0].op == "neg"
    assert built == ["neg"] * 50
    assert results[0].call.built is None  # all are unfolded


def test_the_interpreter_unfolds() -> None:
    a, b = given(15, 3), given(16, 3)
    values = {a: numpy.float32([1, 2, 3]), b: numpy.float32([4, 5, 6])}
    total, product = evaluate(called(a, b), values)
    assert total.tolist() == [5, 7, 9] and product.tolist() == [-5, -14, -27]


def same(graph: Graph, *outputs: Node) -> None:
    """As text: a canonical graph shares no node with another."""
    assert print_graph(graph, locations=False) == print_graph(Graph(outputs), locations=False)


def test_canonical_graphs_are_plain() -> None:
    a, b = given(15, 3), given(16, 3)
    graph = canonical_graph(called(a, b), [a, b])
    total = node("add", given(0, 3), given(1, 3))
    same(graph, total, node("mul", node("neg", given(0, 3)), total))
    assert graph.outputs[1].inputs[1] is graph.outputs[0]


def test_leaves_that_no_result_reads_are_dropped() -> None:
    x, y = placeholder(0, float32, (3,)), placeholder(1, float32, (3,))
    second = template("second", (node("neg", y),), (x, y))
    a, b = given(15, 3), given(16, 3)
    graph, leaves = pruned(canonical_graph(apply(second, (a, b), HERE), [a, b]), [a, b])
    assert leaves == [b]
    same(graph, node("neg", given(0, 3)))
    assert pruned(canonical_graph([a], [a]), [a])[1] == [a]
