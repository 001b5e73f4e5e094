"""Flushes of one operation: what native code computes is what Python does, and no more."""

from __future__ import annotations

import itertools

import numpy
import pytest

import lazygrad as lg
from lazygrad._core import cell, context, plans
from lazygrad_runtime import program
from tests.lazygrad.compiling import numbers, same
from tests.lazygrad.native_calls import NATIVE, parts

pytestmark = NATIVE


OPERATIONS = {
    "x @ y": lambda x, y: x @ y, "x @ x": lambda x, y: x @ x, "x + x": lambda x, y: x + x,
    "x - y": lambda x, y: x - y, "y - x": lambda x, y: y - x, "x * 2": lambda x, y: x * 2.0,
    "relu": lambda x, y: lg.relu(x), "softmax": lambda x, y: lg.softmax(x, 0),
    "exp": lambda x, y: x.exp(), "sum": lambda x, y: x.sum(1), "max": lambda x, y: x.max(1),
    "where": lambda x, y: lg.where(x > 0, x, y), "view": lambda x, y: x.T,
    "gather": lambda x, y: x.gather(0, (y * 0).long()), "clamp": lambda x, y: x.clamp(-1, 1),
    "sort": lambda x, y: x.sort()[0],
    "solve": lambda x, y: lg.linalg.solve(x + 9 * lg.eye(6, dtype=x.dtype), y),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_flushes_of_one_operation_equal_python_s(name, monkeypatch):
    function = OPERATIONS[name]
    draw = numpy.random.default_rng(0)
    for dtype in (numpy.float32, numpy.float64):
        for _ in range(4):
            x, y = (lg.from_numpy(draw.standard_normal((6, 6)).astype(dtype)) for _ in range(2))
            first = function(x, y)
            found = [part.clone().numpy().tobytes() for part in parts(first)]
            with monkeypatch.context() as patch:
                patch.setattr(cell, "flush_natively", None)
                expected = [part.numpy().tobytes() for part in parts(function(x, y))]
            again = function(x, y)
            lg.synchronize()
            assert found == expected == [part.numpy().tobytes() for part in parts(again)]


def test_a_flush_of_one_operation_is_native(monkeypatch):
    x, y = numbers(6, 6), numbers(6, 6) + 1
    for _ in range(3):
        (x @ y).numpy()

    def never(*_):
        raise AssertionError("this flush was to be native")

    monkeypatch.setattr(program, "execute", never)
    result = x @ y
    lg.synchronize()
    expected = x.numpy() @ y.numpy()
    assert (result.numpy() == expected).all()
    again = x @ y
    assert (again.numpy() == expected).all()
    assert not cell._pending


def test_a_long_program_is_run_to_find_that_out_ever_more_rarely(monkeypatch):
    monkeypatch.setattr(cell, "_SAMPLED", 1)
    x = numbers(7, 5)
    for expected in (1, 1, 0, 1, 0, 0, 0, 1):
        runs = []
        with monkeypatch.context() as patch:
            patch.setattr(plans, "_is_short", lambda run, runs=runs: bool(runs.append(run)))
            x.expm1().numpy()
        assert len(runs) == expected
    assert not any("expm1" in str(key) for key in program.singles)


def test_pending_work_beside_it_is_computed_as_well():
    x, y = numbers(6, 6), numbers(6, 6) + 1
    for _ in range(3):
        (x @ y).numpy()
    for look in (lambda tensor: tensor.numpy(), lambda tensor: lg.synchronize()):
        other = x.exp()
        product = x @ y
        look(product)
        assert other._cell.node.payload is not None and product._cell.node.payload is not None
        del other, product
        for _ in range(3):
            look(x.exp())
    written = x.clone()
    written.numpy()
    written.mul_(2)
    (x @ y).numpy()
    same(written, x * 2)


def test_history_is_kept():
    x, w = numbers(6, 6), (numbers(6, 6) + 1).requires_grad_()
    for _ in range(4):
        w.grad = None
        y = x @ w
        lg.synchronize()
        y.sum().backward()
        same(w.grad, x.T @ lg.ones(6, 6), 1e-6)


def test_many_flushes_bring_native_code(monkeypatch):
    asked = []
    monkeypatch.setattr(plans, "native_functions", lambda: asked.append(True))
    for module, name in ((context, "SAMPLED"), (cell, "_SAMPLED")):
        monkeypatch.setattr(module, name, 1 << 40)
    monkeypatch.setattr(cell, "_flushes", itertools.count(1))
    x = numbers(5)
    for _ in range(cell._MANY_FLUSHES):
        assert not asked
        exp, sine = x.exp(), x.sin()
        lg.synchronize()
    assert asked and exp.shape == sine.shape


def test_counts_follow_from_values_natively_too():
    for shift in (0, 3, 1, 3):
        given = numpy.array([1, 5, 2, 2, 0]) + shift
        for numbers_ in (given, lg.from_numpy(given), lg.from_numpy(given.astype(numpy.int8))):
            for least in (0, 7, 12):
                assert (lg.bincount(numbers_, minlength=least).numpy()
                        == numpy.bincount(given, minlength=least)).all()
    with pytest.raises(lg.TensorError, match="there is -1"):
        lg.bincount(lg.from_numpy(given - 4))
