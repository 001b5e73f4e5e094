"""Gradients by template: autodiff runs once a structure, and the values are those it gives."""

from __future__ import annotations

import numpy
import pytest

import lazygrad as lg
from lazygrad._core import derived
from lazygrad_compiler.autodiff import backward as autodiff
from lazygrad_runtime import program, store


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each run of the autodiff pass."""
    runs: list[int] = []
    plain = autodiff.backward

    def counted(outputs, cotangents, wanted):
        runs.append(len(wanted))
        return plain(outputs, cotangents, wanted)

    derived._templates.clear()
    monkeypatch.setattr(autodiff, "backward", counted)
    return runs


def weights(*shape: int, seed: int = 0) -> lg.Tensor:
    values = numpy.random.default_rng(seed).standard_normal(shape).astype("float32")
    return lg.from_numpy(values).requires_grad_()


def test_a_structure_is_differentiated_once(passes: list[int]) -> None:
    w, x = weights(3, 2), weights(4, 3, seed=1).detach()
    grads = []
    for _ in range(3):
        loss = lg.tanh(x @ w).square().sum()
        w.grad = None
        loss.backward()
        grads.append(w.grad.numpy())
    assert passes == [1]
    expected = 2 * numpy.tanh(x.numpy() @ w.detach().numpy())
    expected = x.numpy().T @ (expected * (1 - numpy.tanh(x.numpy() @ w.detach().numpy()) ** 2))
    numpy.testing.assert_allclose(grads[0], expected, rtol=2e-5, atol=1e-6)
    numpy.testing.assert_array_equal(grads[0], grads[2])


def test_other_shapes_attributes_and_wanted_leaves_are_other_structures(passes: list[int]) -> None:
    a, b = weights(3), weights(3, seed=2)

    def product(left: lg.Tensor, right: lg.Tensor, axis: int = 0) -> tuple:
        loss = (left * right).sum(axis).sum()
        return lg.autograd.grad(loss, [t for t in (left, right) if t.requires_grad])

    product(a, b)
    product(weights(3, seed=4), weights(3, seed=5))  # the same structure on other leaves
    assert len(passes) == 1
    product(a, b.detach())
    c, d = weights(3, 2), weights(3, 2, seed=3)
    first, second = product(c, d), product(c, d, 1)
    numpy.testing.assert_array_equal(first[0].numpy(), d.detach().numpy())
    numpy.testing.assert_array_equal(second[1].numpy(), c.detach().numpy())
    assert len(passes) == 4


def test_two_leaves_and_one_leaf_twice_differ(passes: list[int]) -> None:
    a, b = weights(3), weights(3, seed=2)

    def cube(x: lg.Tensor, y: lg.Tensor) -> lg.Tensor:
        return (x * x * y).sum()

    one, = lg.autograd.grad(cube(a, b), [a])
    two, = lg.autograd.grad(cube(a, a), [a])
    numpy.testing.assert_allclose(one.numpy(), (2 * a * b).detach().numpy(), rtol=1e-6)
    numpy.testing.assert_allclose(two.numpy(), (3 * a * a).detach().numpy(), rtol=1e-6)


def test_known_values_are_not_computed_again(passes: list[int]) -> None:
    w, x = weights(3), weights(3, seed=1).detach()
    graphs = []
    for look in (False, True, True):
        hidden = lg.exp(w * x)
        loss = hidden.sum()
        if look:
            loss.item()  # computes the exponential, which backward wants
        program.forget_programs()
        callback = lambda graph, stages, artifact: graphs.append(graph)
        store.compile_callbacks.append(callback)
        try:
            gradient, = lg.autograd.grad(loss, [w])
            gradient = gradient.numpy()
        finally:
            store.compile_callbacks.remove(callback)
        ops = {node.op for node in graphs[-1].nodes()}
        assert ("exp" in ops) is not look
        numpy.testing.assert_allclose(
            gradient, (x * lg.exp(w * x)).detach().numpy(), rtol=1e-6)
    assert len(passes) == 2


def test_create_graph_differentiates_as_it_is(passes: list[int]) -> None:
    x = weights(3)
    for _ in range(2):
        first, = lg.autograd.grad((x ** 3).sum(), [x], create_graph=True)
        second, = lg.autograd.grad(first.sum(), [x])
        numpy.testing.assert_allclose(second.numpy(), (6 * x).detach().numpy(), rtol=1e-6)
    assert passes == [1, 1, 1]


def test_index_errors_in_the_gradient_name_this_recordings_line() -> None:
    table = weights(4, 2)

    def loss_of(indices: lg.Tensor, line: int) -> lg.Tensor:
        if line == 1:
            return table[indices].exp().sum()
        return table[indices].exp().sum()

    for line, indices in ((1, [0, 1]), (2, [1, 7])):
        try:
            lg.autograd.grad(loss_of(lg.tensor(indices), line), [table])[0].numpy()
        except IndexError as error:
            message = str(error)
    number = loss_of.__code__.co_firstlineno + 3
    assert "7" in message and f"test_derived.py:{number}" in message


def test_gradients_that_are_constants() -> None:
    w = lg.zeros(3, requires_grad=True)
    for _ in range(2):
        gradient, = lg.autograd.grad(w.sum(), [w])
        assert gradient.tolist() == [1, 1, 1]
    v = weights(3)
    for _ in range(2):
        gradient, = lg.autograd.grad(lg.floor(v).sum() + v.sum(), [v])
        assert gradient.tolist() == [1, 1, 1]


def test_templates_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "MOST_TEMPLATES", 3)
    for size in range(2, 9):
        w = weights(size)
        lg.autograd.grad((w * w).sum(), [w])
        assert len(derived._templates) <= 3
