"""Composites: a call and its results stand for a graph, and are gone before compiling."""

from __future__ import annotations

import gc

import numpy
import pytest

from lazygrad_compiler.artifact import canonical_graph, pruned
from lazygrad_compiler.ir.composite import Lines, Template, expand_all, placeholder, template
from lazygrad_compiler.ir.dtypes import float32, float64
from lazygrad_compiler.ir.interpret import evaluate
from lazygrad_compiler.ir.node import IRError, Node, node, topological

HERE = (("model.py", 7),)


def given(number: int, *shape: int, dtype=float32) -> Node:
    return node("input", index=number, dtype=dtype, shape=shape)


def sum_and_product() -> Template:
    x, y = placeholder(0, float32, (3,)), placeholder(1, float32, (3,))
    outputs = (node("add", x, y), node("mul", x, y, location=(("rule.py", 1),)))
    return template("both", outputs, ((float32, (3,)), (float32, (3,))))


def called(*inputs: Node) -> tuple[Node, Node]:
    call = node("call", *inputs, template=sum_and_product(), location=HERE)
    return node("result", call, part=0), node("result", call, part=1)


def test_equal_templates_are_one_object_while_they_live() -> None:
    first = sum_and_product()
    assert sum_and_product() is first
    other = template("other", first.outputs, first.inputs)
    assert other is not first
    number = id(first)
    del first
    gc.collect()
    assert sum_and_product() is not other and number


def test_results_have_the_dtype_and_shape_of_the_template() -> None:
    total, product = called(given(5, 3), given(6, 3))
    assert (total.dtype, total.shape) == (float32, (3,))
    assert product is not total


@pytest.mark.parametrize("wrong", [given(6, 4), given(6, 3, dtype=float64)])
def test_inputs_must_fit(wrong: Node) -> None:
    with pytest.raises(IRError, match=r"\[call\] both takes float32\[3\]"):
        called(given(5, 3), wrong)


def test_expansion_is_the_graph_on_the_inputs() -> None:
    a, b = given(5, 3), given(6, 3)
    total, product = called(a, b)
    plain = expand_all((node("neg", total), product))
    assert plain == (node("neg", node("add", a, b)), node("mul", a, b))
    assert plain[0].inputs[0].location == HERE  # it had no line of its own
    assert plain[1].location == (("rule.py", 1),)


def test_a_call_may_know_the_lines_inside() -> None:
    template_ = sum_and_product()
    a, b = given(15, 3), given(16, 3)
    lines = Lines(HERE)
    lines.inside = tuple((("inside.py", k),) for k in range(4))
    call = node("call", a, b, template=template_, location=lines)
    total, product = expand_all(tuple(node("result", call, part=k) for k in range(2)))
    assert {total.location, product.location} <= set(lines.inside)
    assert total.location != product.location


def test_calls_of_calls_expand() -> None:
    a, b = given(5, 3), given(6, 3)
    total, _ = called(a, b)
    _, product = called(total, b)
    expanded, = expand_all((product,))
    assert expanded is node("mul", node("add", a, b), b)
    assert expand_all((a,)) == (a,)


def test_the_interpreter_expands() -> None:
    a, b = given(5, 3), given(6, 3)
    values = {a: numpy.float32([1, 2, 3]), b: numpy.float32([4, 5, 6])}
    total, product = evaluate(called(a, b), values)
    assert total.tolist() == [5, 7, 9] and product.tolist() == [4, 10, 18]


def test_canonical_graphs_have_no_composites() -> None:
    a, b = given(5, 3), given(6, 3)
    graph = canonical_graph(called(a, b), [a, b])
    assert {n.op for n in topological(graph.outputs)} == {"input", "add", "mul"}
    assert graph.outputs[0] is node("add", given(0, 3), given(1, 3))


def test_leaves_that_no_result_reads_are_dropped() -> None:
    y = placeholder(1, float32, (3,))
    second = template("second", (node("neg", y),), ((float32, (3,)), (float32, (3,))))
    a, b = given(5, 3), given(6, 3)
    output = node("result", node("call", a, b, template=second), part=0)
    graph, leaves = pruned(canonical_graph([output], [a, b]), [a, b])
    assert leaves == [b]
    assert graph.outputs == (node("neg", given(0, 3)),)
    assert pruned(canonical_graph([a], [a]), [a])[1] == [a]
