"""Recording: operations recorded natively are those of Python."""

from __future__ import annotations

from functools import partial

import numpy
import pytest

import lazygrad as lg
from lazygrad import nn
from lazygrad._core import cell, context, plans
from lazygrad.nn import functional
from lazygrad_compiler.ir.node import topological
from tests.lazygrad.compiling import numbers, same
from tests.lazygrad.native_calls import NATIVE

pytestmark = NATIVE


class Calls:
    """Numbers the calls of operations that take Python."""

    count = 0

    def __next__(self):
        self.count += 1
        return self.count


@pytest.fixture
def operations(monkeypatch):
    """How many operations were recorded in Python: its `count`."""
    assert plans.native_functions() is not None
    monkeypatch.setattr(context, "calls", Calls())
    return context.calls


def _described(tensor):
    """What is in the slots of a tensor, its cell, its node and its call: values, and for what is an
    object of its own, its type.  (Read where it lies: asking a node for its inputs unfolds it.)
    """
    node = tensor._cell.node
    parts = []
    for thing in (tensor, tensor._cell, node, node.call):
        parts.append({})
        for kind in type(thing).__mro__:
            for name in vars(kind).get("__slots__", ()):
                if name in ("__weakref__", "__dict__"):
                    continue
                try:
                    content = vars(kind)[name].__get__(thing)
                except AttributeError:
                    content = "nothing"
                own = name in ("_cell", "node", "call", "serial")
                parts[-1][name] = type(content) if own else (type(content), content)
    return parts


RECORDED = {
    "x @ y": lambda x, y: x @ y, "x + y": lambda x, y: x + y, "x - 2": lambda x, y: x - 2,
    "2 - x": lambda x, y: 2 - x, "exp": lambda x, y: x.exp(), "neg": lambda x, y: -x,
    "tanh": lambda x, y: lg.tanh(x), "relu": lambda x, y: lg.relu(x), "x < y": lambda x, y: x < y,
    "softmax": lambda x, y: lg.softmax(x, 1), "sum": lambda x, y: x.sum(),
    "sums": lambda x, y: x.sum(0), "axes": lambda x, y: x.sum((0, 1)),
    "where": lambda x, y: lg.where(x > 0, x, y),
    "clamp": lambda x, y: x.clamp(-1.0, 1.0), "pow": lambda x, y: x ** 2,
    "linear": lambda x, y: functional.linear(x, y),
}


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("name", RECORDED)
def test_operations_recorded_natively_are_those_of_python(
        name, gradients, operations, monkeypatch):
    function = RECORDED[name]
    x, y = numbers(4, 4), numbers(4, 4) + 1
    if gradients:
        x, y = nn.Parameter(x), (y * 1).requires_grad_()
    lg.synchronize()

    native = partial(function, x, y)

    def python():
        with monkeypatch.context() as patch:
            patch.setattr(context, "record_natively", lambda *_: None)
            for operator, method in plans.PYTHON_OPERATORS.items():
                patch.setattr(lg.Tensor, operator, method)
            return function(x, y)

    for mode in (lg.enable_grad, lg.no_grad):
        with mode():
            for _ in range(3):
                function(x, y)
            before = operations.count
            made = native()
            assert operations.count == before
            found = python()
            assert made._cell.node is found._cell.node  # interned, under the same key
            described = _described(made)
            requires, value = made.requires_grad, made.detach().numpy().tobytes()
            del made, found
            again = python()
            assert described == _described(again)
            assert requires == again.requires_grad
            assert value == again.detach().numpy().tobytes()
            del again


def test_each_node_has_the_line_that_recorded_it(operations):
    x = numbers(5)
    for _ in range(3):
        x.exp()

    def helper():
        return lg.exp(x + 1)

    lines = []
    for number in range(6):
        before = operations.count
        made = (x + 1).exp() if number % 2 else helper()
        lines.append(made._cell.node.location[0])
        del made
    assert operations.count == before
    first = helper.__code__.co_firstlineno + 1
    assert [line for _, line in lines] == [first, first + 5] * 3
    assert {file for file, _ in lines} == {__file__}


def test_a_recipe_is_for_any_two_tensors(operations):
    x, y = numbers(7), numbers(7) + 1
    for _ in range(3):
        same(x + x, x * 2)
    for _ in range(3):
        same(x + y, x * 2 + 1)
        same(y + x, x * 2 + 1)
    same(x + x, x * 2)
    same(x - x, lg.zeros(7))
    ones = lg.ones(7)  # a constant, which operations fold
    for _ in range(3):
        same(ones * x, x)
    before = operations.count
    assert (x + y).shape == (7,) and operations.count == before


def test_modes_count_for_what_is_recorded():
    x, w = numbers(4, 4), (numbers(4, 4) + 1).requires_grad_()
    for _ in range(4):
        assert (x @ w).requires_grad and not (x @ w.detach()).requires_grad
        with lg.no_grad():
            assert not (x @ w).requires_grad
        with lg.autocast("cpu", dtype=lg.bfloat16):
            assert (x @ w).dtype is lg.bfloat16
        same(lg.func.vmap(lambda row: row @ w.detach())(x), x @ w.detach(), 1e-6)
        same(lg.func.grad(lambda value: (value * 3).exp().sum())(x), (x * 3).exp() * 3, 1e-5)
        w.grad = None
        (x @ w).sum().backward()
        same(w.grad, x.T @ lg.ones(4, 4), 1e-6)


def test_attention_written_out_is_still_found():
    q, k, v = (lg.from_numpy(numpy.random.default_rng(seed).standard_normal(
        (2, 32, 16)).astype(numpy.float32)) for seed in range(3))

    def attention():
        return lg.softmax(q @ k.mT / 4, -1) @ v

    def ops():
        return {node.op for node in topological([attention()._cell.node])}

    expected = ops()
    for _ in range(4):
        assert (q @ v.mT).shape == (2, 32, 32)
        assert ops() == expected


def test_pending_work_recorded_natively_is_bounded():
    x = numbers(3)
    for _ in range(2 * cell.MOST_PENDING_NODES):
        x = x + 1.0
        assert len(cell._pending) <= cell.MOST_PENDING_NODES + 256
    same(x, numbers(3) + 2.0 * cell.MOST_PENDING_NODES)


class Other:
    """An operand that knows tensors itself."""

    def __radd__(self, tensor):
        return tensor.shape


def test_operators_leave_to_python_what_they_do_not_know(operations):
    x, y = numbers(3, 4), numbers(3, 4) + 1
    for _ in range(3):
        same(x + y, y + x)
        assert (x == y).shape == (3, 4)
    before = operations.count
    assert (x + y).shape == (3, 4) and operations.count == before
    assert vars(lg.Tensor)["__add__"] is not plans.PYTHON_OPERATORS["__add__"]
    assert x + Other() == (3, 4)
    assert (x == "x") is False
    with pytest.raises(TypeError, match="unsupported operand"):
        x + "x"
    with pytest.raises(lg.TensorError, match=r"\[add\].*test_native_record.py"):
        x + numbers(5)
    with pytest.raises(TypeError):
        x.__add__(y, y)
    with pytest.raises(TypeError):
        x.__neg__(y)


def test_lines_of_one_code_object_are_told_apart(operations):
    x = numbers(5)
    for _ in range(3):
        -x
    made = [-x,
            -x.exp(), -x]
    first = test_lines_of_one_code_object_are_told_apart.__code__.co_firstlineno
    assert [each._cell.node.location[0][1] - first for each in made] == [4, 5, 4]
