"""`scan` against the same steps in Python, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import lazygrad as lg
from lazygrad._core.context import TensorError
from lazygrad_runtime.program import run_callbacks

LENGTH = 5


def drawn(*shape: int, seed: int = 0) -> numpy.ndarray:
    return numpy.random.default_rng(seed).standard_normal(shape).astype("float32")


def step(carry: Any, x: Any) -> tuple[Any, Any]:
    hidden = lg.tanh(carry["h"] @ weight() + x["a"])
    return {"h": hidden, "n": carry["n"] + x["b"]}, (hidden * carry["n"], None)


_weight: list[lg.Tensor] = []


def weight() -> lg.Tensor:
    return _weight[0]


@pytest.fixture
def arguments() -> tuple[Any, Any]:
    _weight[:] = [lg.tensor(drawn(4, 4), requires_grad=True)]
    carry = {"h": lg.tensor(drawn(3, 4, seed=1), requires_grad=True), "n": lg.ones(3, 4)}
    xs = {"a": lg.tensor(drawn(LENGTH, 3, 4, seed=2), requires_grad=True),
          "b": lg.tensor(drawn(LENGTH, 3, 4, seed=3))}
    return carry, xs


def in_python(carry: Any, xs: Any, reverse: bool) -> tuple[Any, lg.Tensor]:
    shown: list[Any] = [None] * LENGTH
    for t in reversed(range(LENGTH)) if reverse else range(LENGTH):
        carry, (shown[t], _) = step(carry, {name: x[t] for name, x in xs.items()})
    return carry, lg.stack(shown)


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_is_the_loop_that_it_replaces(arguments: Any, reverse: bool) -> None:
    carry, xs = arguments
    leaves = [weight(), carry["h"], xs["a"]]
    results = []
    for run in (lambda: lg.scan(step, carry, xs, reverse=reverse),
                lambda: (*in_python(carry, xs, reverse), None)):
        last, shown, *_ = run()
        shown = shown[0] if isinstance(shown, tuple) else shown
        loss = (shown * shown).sum() + (last["h"] * last["n"]).sum()
        found = lg.autograd.grad(loss, leaves, create_graph=True)
        second = lg.autograd.grad(sum((each * each).sum() for each in found), leaves)
        results.append([shown, last["h"], last["n"], *found, *second])
    for have, want in zip(*results, strict=True):
        numpy.testing.assert_allclose(have.detach().numpy(), want.detach().numpy(), rtol=2e-4,
                                      atol=2e-4)


def test_results_have_the_structure_of_the_step(arguments: Any) -> None:
    last, (shown, nothing) = lg.scan(step, *arguments)
    assert set(last) == {"h", "n"} and nothing is None and shown.shape == (LENGTH, 3, 4)


def test_steps_along_another_axis_and_without_xs() -> None:
    x = lg.tensor(drawn(2, 6, 3))
    last, shown = lg.scan(lambda total, each: (total + each, total + each), lg.zeros(2, 3), x,
                          dim=1)
    numpy.testing.assert_allclose(shown.numpy(), numpy.cumsum(x.numpy(), 1), rtol=1e-5)
    numpy.testing.assert_allclose(last.numpy(), x.numpy().sum(1), rtol=1e-5)
    power, none = lg.scan(lambda value, _: (value * 2, None), lg.tensor(1.0), length=10)
    assert power.item() == 1024 and none is None


@pytest.mark.parametrize("length", [0, 1])
def test_few_steps(length: int) -> None:
    last, shown = lg.scan(lambda a, b: (a + b, a * b), lg.ones(2), lg.full((length, 2), 3.0))
    assert last.tolist() == [1.0 + 3 * length] * 2 and shown.tolist() == [[3.0, 3.0]] * length


def test_random_numbers_differ_from_step_to_step() -> None:
    lg.manual_seed(3)
    _, shown = lg.scan(lambda total, _: (total, lg.rand(4)), lg.zeros(1), length=6)
    assert len(set(shown.flatten().tolist())) == 24
    _, kept = lg.scan(lambda total, x: (total, lg.nn.functional.dropout(x)), lg.zeros(1),
                      lg.ones(50, 8))
    rows = {tuple(row) for row in kept.tolist()}
    assert len(rows) > 40 and {each for row in rows for each in row} == {0.0, 2.0}


def test_dtypes_and_integers() -> None:
    last, shown = lg.scan(lambda n, x: (n + 1, n * x), lg.tensor(0), lg.arange(5))
    assert last.dtype is lg.int64 and last.item() == 5
    assert shown.tolist() == [0, 1, 4, 9, 16]
    turn = lg.tensor(1j)
    z, _ = lg.scan(lambda z, _: (z * turn, None), lg.tensor(1 + 0j), length=3)
    assert z.item() == -1j


def test_vmap_and_grad_of_a_scan() -> None:
    xs, w = lg.tensor(drawn(7, LENGTH, 3)), lg.tensor(drawn(3, 3, seed=5))

    def loss(w: Any, x: Any) -> Any:
        return lg.scan(lambda h, a: (lg.sin(h @ w + a), None), lg.zeros(3), x)[0].sum()

    have = lg.vmap(lg.func.grad(loss), in_dims=(None, 0))(w, xs)
    for number in range(7):
        numpy.testing.assert_allclose(have[number].numpy(),
                                      lg.func.grad(loss)(w, xs[number]).numpy(), rtol=1e-4,
                                      atol=1e-5)


def test_detach_and_scans_within_scans() -> None:
    x = lg.tensor(drawn(4, 3), requires_grad=True)

    def outer(total: Any, row: Any) -> tuple[Any, Any]:
        inner, _ = lg.scan(lambda a, b: (a * b + total.detach(), None), lg.tensor(1.0), row)
        return total + inner, inner

    def by_hand(x: Any) -> Any:
        total = lg.tensor(0.0)
        for row in x:
            inner = lg.tensor(1.0)
            for b in row:
                inner = inner * b + total.detach()
            total = total + inner
        return total

    total, _ = lg.scan(outer, lg.tensor(0.0), x)
    want = by_hand(x)
    numpy.testing.assert_allclose(total.item(), want.item(), rtol=1e-5)
    have, = lg.autograd.grad(total, [x])
    expected, = lg.autograd.grad(want, [x])
    numpy.testing.assert_allclose(have.numpy(), expected.numpy(), rtol=1e-4, atol=1e-6)


def test_compiled_functions_contain_scans() -> None:
    w = lg.tensor(drawn(3, 3), requires_grad=True)

    def train(x: Any) -> Any:
        last, _ = lg.scan(lambda h, a: (lg.tanh(h @ w + a), None), lg.zeros(2, 3), x)
        loss = (last * last).sum()
        loss.backward()
        with lg.no_grad():
            w.sub_(0.1 * w.grad)
        w.grad = None
        return loss

    compiled, losses = lg.compile(train), []
    for function in (train, compiled):
        with lg.no_grad():
            w.copy_(lg.tensor(drawn(3, 3)))
        losses.append([function(lg.tensor(drawn(6, 2, 3, seed=k))).item() for k in range(4)])
    numpy.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_gradients_after_the_result_was_looked_at(arguments: Any) -> None:
    """The forward loop is not run again: what backward wants was kept."""
    carry, xs = arguments
    _, (shown, _) = lg.scan(step, carry, xs)
    loss = (shown * shown).sum()
    loss.item()
    loss.backward()
    launched: list[str] = []

    def note(program: Any) -> None:
        launched.extend(about for _, about, _ in program.artifact.launches)

    run_callbacks.append(note)
    try:
        weight().grad.numpy()
    finally:
        run_callbacks.remove(note)
    separate = lg.autograd.grad((in_python(carry, xs, False)[1] ** 2).sum(), [weight()])[0]
    numpy.testing.assert_allclose(weight().grad.numpy(), separate.numpy(), rtol=1e-4, atol=1e-5)
    assert launched and not any("tanh" in about for about in launched)


# ---- refused


@pytest.mark.parametrize("call, message", [
    (lambda: lg.scan(lambda c, x: (c.double(), x), lg.zeros(2), lg.zeros(3, 2)),
     r"\[scan\] state 0 begins as float32 \(2,\), and a step makes it float64 \(2,\)"),
    (lambda: lg.scan(lambda c, x: (c.sum(), x), lg.zeros(2), lg.zeros(3, 2)), "makes it float32"),
    (lambda: lg.scan(lambda c, x: c, lg.zeros(2), lg.zeros(3, 2)), "the next carry and what"),
    (lambda: lg.scan(lambda c, x: ([c], x), (lg.zeros(2),), lg.zeros(3, 2)),
     "begins as tuple.a tensor. and becomes list"),
    (lambda: lg.scan(lambda c, x: (c, x), lg.zeros(2), (lg.zeros(3, 2), lg.zeros(4, 2))),
     "number of steps is not one number: 3, 4"),
    (lambda: lg.scan(lambda c, x: (c, x), lg.zeros(2)), "none is given"),
    (lambda: lg.scan(lambda c, x: (c, x), lg.zeros(2), length=-1), "not -1"),
    (lambda: lg.scan(lambda c, x: (c, x), 3, lg.zeros(3)), "the first carry is a int"),
    (lambda: lg.scan(lambda c, x: (c, x), lg.zeros(2), lg.zeros(3), dim=1), "dim 1 does not"),
    (lambda: lg.scan(lambda c, x: (c if c.sum() > 0 else x, x), lg.zeros(2), lg.zeros(3, 2)),
     "is looked at inside"),
])
def test_refused(call: Any, message: str) -> None:
    with pytest.raises((TensorError, TypeError, IndexError, ValueError), match=message) as caught:
        call()
    assert "test_scan.py" in str(caught.value)


def test_tensors_from_outside_are_not_written() -> None:
    outside = lg.zeros(2)

    def writes(carry: Any, x: Any) -> tuple[Any, Any]:
        outside.add_(x)
        return carry, x

    with pytest.raises(RuntimeError, match="changed in place"):
        lg.scan(writes, lg.zeros(2), lg.ones(3, 2))
    assert outside.tolist() == [0.0, 0.0]
