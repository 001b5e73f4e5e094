"""Composites applied natively are those of Python, and are forgotten with their nodes."""

from __future__ import annotations

import pytest

from lazygrad._core import plans
from lazygrad_compiler.ir import composite, dtypes
from lazygrad_compiler.ir import node as nodes
from lazygrad_compiler.ir.composite import apply, placeholder, template
from lazygrad_compiler.ir.node import fresh_input, node
from tests.lazygrad.native_calls import NATIVE

pytestmark = NATIVE

LINE, OTHER = (("user.py", 1),), (("user.py", 2),)


def _python(monkeypatch, *arguments):
    with monkeypatch.context() as patch:
        patch.setattr(composite, "apply_natively", None)
        return apply(*arguments)


@pytest.fixture
def applied():
    """A template whose results are an input, a constant, and three computed ones."""
    assert plans.native_functions() is not None and composite.apply_natively is not None
    x, y = (placeholder(number, dtypes.float32, (2, 3), bool(number)) for number in range(2))
    one = node("const", value=1.0, dtype=dtypes.float32, shape=(2, 3))
    total = node("add", x, y)
    product = node("mul", total, one)
    return template("test", [x, one, product, total, node("exp", product)], [x, y])


def _inputs():
    return tuple(fresh_input(dtypes.float32, (2, 3), LINE) for _ in range(2))


def _described(results):
    return [(type(each), each.op, each.attrs, each.dtype, each.shape, each.location,
             each.differentiable, each.payload, each.call and (
                 each.part, each.call.template, each.call.inside, each.call.folded,
                 each.call.built)) for each in results]


@pytest.mark.parametrize("lines", [False, True])
def test_results_are_those_of_python(applied, lines, monkeypatch):
    inside = ()
    if lines:
        inside = tuple(OTHER if number % 2 else () for number in range(len(applied.place)))
    inputs = _inputs()
    native = composite.apply_natively(applied, inputs, LINE, inside)
    assert native[0] is inputs[0] and native[1] is applied.outputs[1]
    same = _python(monkeypatch, applied, inputs, LINE, inside)
    assert all(one is other for one, other in zip(native, same, strict=True))
    described = _described(native)
    assert {each[5] for each in described[2:]} <= {LINE, OTHER}
    del native, same
    python = _python(monkeypatch, applied, inputs, LINE, inside)
    assert _described(python) == described
    assert all(one is other for one, other
               in zip(python, apply(applied, inputs, LINE, inside), strict=True))
    assert [each.op for each in python[4].inputs] == ["mul"]


def test_what_is_there_is_not_made_again(applied):
    inputs = _inputs()
    total = apply(applied, inputs, LINE)[3]
    assert total.call.folded == 3
    results = apply(applied, inputs, OTHER)
    assert results[3] is total and results[3].location == LINE
    assert results[2].location == OTHER and results[2].call.folded == 2
    assert results[2].inputs[0].inputs == inputs  # unfolded


def test_nodes_are_forgotten(applied):
    def work():
        inputs = _inputs()
        results = apply(applied, inputs, LINE)
        assert all(each.inputs for each in results[2:])
        node("sin", inputs[0])

    work()
    before = len(nodes._interned)
    for _ in range(100):
        work()
    assert len(nodes._interned) == before
