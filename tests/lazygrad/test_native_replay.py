"""Replays: what native code replays of a compiled function is what Python does, and no more."""

from __future__ import annotations

import numpy
import pytest

import lazygrad as lg
from lazygrad import nn
from lazygrad._core import capture
from lazygrad.explain.watch import Watch
from lazygrad.nn import functional
from lazygrad_runtime import program
from tests.lazygrad.compiling import numbers, same
from tests.lazygrad.native_calls import NATIVE, compiled, parts

pytestmark = NATIVE


@pytest.fixture
def in_python(monkeypatch):
    """Grows by one with each call of a compiled function that takes Python."""
    calls = []
    slowly = capture.CompiledFunction.call_slowly

    def counted(self, *arguments, **keywords):
        calls.append(None)
        return slowly(self, *arguments, **keywords)

    monkeypatch.setattr(capture.CompiledFunction, "call_slowly", counted)
    return calls


def _random_function(draw):
    """A function of two tensors and a number, of random operations."""
    unary = [lg.tanh, lg.exp, lg.sigmoid, lambda x: x.sum(-1, keepdim=True), lambda x: -x,
             lambda x: x * 2.5, lambda x: lg.softmax(x, -1), lambda x: x.sum()]
    binary = [lambda x, y: x + y, lambda x, y: x * y, lambda x, y: x - y.mean(),
              lambda x, y: lg.maximum(x, y)]
    plan = [(unary[draw.integers(len(unary))], binary[draw.integers(len(binary))])
            for _ in range(draw.integers(1, 4))]
    several = draw.integers(3)

    def function(x, y, number):
        value = x
        for first, second in plan:
            value = second(first(value), y) * number
        return value if several == 0 else (value, y + 1) if several == 1 else {"a": value, "b": x}

    return function


@pytest.mark.parametrize("seed", range(12))
def test_native_replays_equal_python_s(seed, in_python):
    draw = numpy.random.default_rng(seed)
    shape = [(), (1,), (0, 3), (7, 5), (1, 64), (13,)][draw.integers(6)]
    dtype = [numpy.float32, numpy.float64][draw.integers(2)]

    def inputs():
        values = [draw.standard_normal(shape) for _ in range(2)]
        values[0][values[0] > 1] = numpy.nan
        return [lg.from_numpy(numpy.asarray(value, dtype)) for value in values]

    function = _random_function(draw)
    number = int(draw.integers(1, 4))
    made = compiled(function, *inputs(), number)
    assert len(made.plans) == 1
    for _ in range(4):
        x, y = inputs()
        before = len(in_python)
        found = made(x, y, number)
        assert len(in_python) == before
        expected = made.call_slowly(x, y, number)
        plain = function(x, y, number)
        for left, right, eager in zip(*map(parts, (found, expected, plain)), strict=True):
            assert _filled(left) == _filled(right)
            assert left.numpy().tobytes() == right.numpy().tobytes()
            same(left, eager, 1e-6)


def _filled(tensor):
    """Which slots hold something, of a tensor that is computed and all that it consists of."""
    node = tensor._cell.node
    return [{name for kind in type(thing).__mro__ for name in vars(kind).get("__slots__", ())
             if hasattr(thing, name)} for thing in (tensor, tensor._cell, node, node.payload)]


def test_results_are_not_overwritten_by_the_next_call():
    made = compiled(lambda x: x * 2, numbers(5))
    kept = [made(numbers(5) + shift) for shift in range(20)]
    for shift, result in enumerate(kept):
        same(result, (numbers(5) + shift) * 2)


def test_what_is_not_computed_yet_is_computed_first(in_python):
    made = compiled(lambda x, y: x + y, numbers(5), numbers(5) + 1)
    same(made(numbers(5) * 3, lg.ones(5)), numbers(5) * 3 + 1)
    same(made(numbers(10)[::2], numbers(5)), numbers(10)[::2] + numbers(5))
    same(made(numbers(5).to(lg.float64), lg.ones(5)), numbers(5).to(lg.float64) + 1)
    same(made(numbers(3), lg.ones(1)), numbers(3) + 1)
    assert len(in_python) >= 6


def test_the_same_tensor_twice():
    x, y = numbers(4), numbers(4) + 1
    made = compiled(lambda x, y: x.add_(1) + y, x.clone(), y)
    value = x.clone()
    same(made(value, value), (x + 1) * 2)
    pure = compiled(lambda x, y: x - y, x, y)
    same(pure(x, x), lg.zeros(4))
    same(pure(x, y), x - y)
    same(pure(x, x.view(4)), lg.zeros(4))
    known = compiled(lambda x, y: x + 1 if x is y else y - 1, x, y)
    same(known(x, x), x + 1)
    same(known(x, y), y - 1)


def test_keywords_and_other_arguments():
    made = compiled(lambda x, number=2, name="a": x * number + len(name), numbers(4), 2, "a")
    for number, name in ((2, "a"), (3, "a"), (2, "bb"), (2.0, "a"), (True, "a"), (2, "a")):
        same(made(numbers(4), number, name), numbers(4) * number + len(name))
        same(made(numbers(4), number=number, name=name), numbers(4) * number + len(name))
    with pytest.raises(TypeError):
        made()
    with pytest.raises(TypeError):
        made(numbers(4), 2, "a", 5)


SCALE = 2.0
WEIGHT = None


def test_guards_on_what_a_function_names(in_python, monkeypatch):
    monkeypatch.setitem(globals(), "WEIGHT", numbers(4))
    offset = 1.0

    def function(x):
        return x * SCALE + offset + WEIGHT

    made = compiled(function, numbers(4))
    before = len(in_python)
    same(made(numbers(4)), numbers(4) * 2 + 1 + WEIGHT)
    assert len(in_python) == before
    monkeypatch.setitem(globals(), "SCALE", 5.0)
    same(made(numbers(4)), numbers(4) * 5 + 1 + WEIGHT)
    offset = 7.0
    same(made(numbers(4)), numbers(4) * 5 + 7 + WEIGHT)
    WEIGHT.add_(1)
    same(made(numbers(4)), numbers(4) * 5 + 7 + WEIGHT)
    monkeypatch.setitem(globals(), "WEIGHT", lg.ones(4))
    for _ in range(3):
        same(made(numbers(4)), numbers(4) * 5 + 8)
    WEIGHT.data = lg.ones(4) * 2
    same(made(numbers(4)), numbers(4) * 5 + 9)


def test_guards_on_modules(in_python):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    made = lg.compile(model)
    with lg.no_grad():
        for _ in range(3):
            made(numbers(3, 4))
        before = len(in_python)
        same(made(numbers(3, 4)), model(numbers(3, 4)), 1e-6)
        assert len(in_python) == before
        for change in (
            lambda: model[0].weight.mul_(2), lambda: setattr(model[2], "bias", None),
            lambda: setattr(model[0], "bias", nn.Parameter(lg.ones(8))),
            lambda: model.append(nn.Tanh()), lambda: model[0].weight.copy_(lg.ones(8, 4)),
            lambda: setattr(model[0].weight, "data", lg.ones(8, 4) * 3),
            lambda: model[1].register_forward_hook(lambda module, given, result: result + 1),
        ):
            change()
            for _ in range(3):
                same(made(numbers(3, 4)), model(numbers(3, 4)), 1e-6)


def test_modes_are_looked_at():
    weight = nn.Parameter(numbers(4))
    made = lg.compile(lambda x: (x * 2 + weight.detach()).float())
    with lg.no_grad():
        for _ in range(3):
            made(numbers(4))
    assert not made(numbers(4)).requires_grad
    traced = numbers(4).requires_grad_()
    assert made(traced).requires_grad
    with lg.no_grad():
        assert not made(traced).requires_grad
    same(lg.func.vmap(made)(numbers(3, 4)), numbers(3, 4) * 2 + weight.detach())
    asking = compiled(lambda x: x * (2 if lg.is_grad_enabled() else 3), numbers(4))
    with lg.no_grad():
        same(asking(numbers(4)), numbers(4) * 3)
    same(asking(numbers(4)), numbers(4) * 2)
    products = compiled(lambda x, y: x @ y, numbers(4, 4), numbers(4, 4) + 1)
    with lg.autocast("cpu", dtype=lg.bfloat16):
        assert products(numbers(4, 4), numbers(4, 4) + 1).dtype is lg.bfloat16
    assert products(numbers(4, 4), numbers(4, 4) + 1).dtype is lg.float32
    made = compiled(lambda x: x + lg.arange(4) / 2, numbers(4))
    lg.set_default_dtype(lg.float64)
    try:
        assert made(numbers(4)).dtype is lg.float64
    finally:
        lg.set_default_dtype(lg.float32)


def test_subclasses_take_python(in_python):
    made = compiled(lambda x: x * 2, numbers(4))
    before = len(in_python)
    same(made(nn.Parameter(numbers(4), requires_grad=False)), numbers(4) * 2)
    assert len(in_python) == before + 1


def test_an_index_out_of_range_is_an_error_with_its_line():
    table = numbers(5, 2)
    made = compiled(lambda index: functional.embedding(index, table), lg.tensor([1, 2]))
    assert made.plans
    for _ in range(2):
        with pytest.raises(IndexError, match=r"\[embedding\] index 9 .*test_native_replay.py"):
            made(lg.tensor([1, 9]))
        same(made(lg.tensor([1, 2])), table[1:3])


def test_recordings_that_go_take_their_plans_along(monkeypatch):
    monkeypatch.setattr(capture, "MOST_ENTRIES", 3)
    made = lg.compile(lambda x: x + 1)
    for size in range(1, 9):
        for _ in range(3):
            same(made(numbers(size)), numbers(size) + 1)
    assert made.recordings == 3 and len(made.plans) == 3


def test_who_watches_programs_sees_all_of_them(monkeypatch):
    made = compiled(lambda x: x * 3, numbers(4))
    seen = []
    monkeypatch.setattr(program, "run_callbacks", program.run_callbacks)
    program.run_callbacks.append(seen.append)
    try:
        for _ in range(3):
            made(numbers(4))
            (numbers(4) + 1).numpy()
    finally:
        program.run_callbacks.remove(seen.append)
    assert len(seen) == 6


def test_tools_that_watch_see_all_runs():
    with Watch() as watch:
        made = compiled(lambda x: x * 3, numbers(4))  # three runs
        for _ in range(3):
            made(numbers(4))
            lg.relu(numbers(4)).numpy()
    assert sum(seen.runs for seen in watch.programs) == 9
