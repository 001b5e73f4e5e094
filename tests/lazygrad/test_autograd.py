"""Backward: accumulation, modes, hooks, freed history, higher order, custom functions."""

from __future__ import annotations

import gc
import weakref

import numpy
import pytest
import torch

import lazygrad as lg


def both(program):
    """The program's numbers with torch and with lazygrad."""
    results = []
    for namespace in (torch, lg):
        outcome = program(namespace)
        results.append([numpy.asarray(each.detach().numpy()) for each in outcome])
    for want, have in zip(*results, strict=True):
        numpy.testing.assert_allclose(have, want, 1e-5, 1e-6)


def test_accumulation_and_reuse():
    def program(t):
        x = t.tensor([1.0, 2.0], requires_grad=True)
        (x * x).sum().backward()
        first = x.grad
        (x * x * x).sum().backward()
        assert x.grad is first
        return [x.grad]

    both(program)


def test_detach_no_grad_and_flags():
    def program(t):
        x = t.tensor([1.0, 2.0], requires_grad=True)
        y = x * 2
        z = y.detach() * x
        with t.no_grad():
            w = y * 3
        assert (
            y.requires_grad
            and not w.requires_grad
            and not y.detach().requires_grad
            and not y.is_leaf
        )
        assert x.is_leaf and w.is_leaf and y.grad_fn is not None and w.grad_fn is None
        (z * w).sum().backward()
        return [x.grad]

    both(program)


def test_data_is_not_tracked():
    def program(t):
        x = t.tensor([1.0, 2.0], requires_grad=True)
        x.data.mul_(3)
        x.data = x.data + 1
        (x * x).sum().backward()
        return [x, x.grad]

    both(program)


def test_update_between_forward_and_backward_keeps_old_values():
    x = lg.tensor([1.0, 2.0], requires_grad=True)
    loss = (x * x).sum()
    with lg.no_grad():
        x.mul_(10)
    loss.backward()
    assert x.grad.tolist() == [2.0, 4.0] and x.tolist() == [10.0, 20.0]


def test_errors_teach():
    x = lg.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(RuntimeError, match="does not require gradients"):
        lg.ones(2).sum().backward()
    with pytest.raises(RuntimeError, match="scalar"):
        (x * 2).backward()
    loss = (x * 2).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
    with pytest.raises(RuntimeError, match="leaf"):
        x.add_(1)
    with pytest.raises(RuntimeError, match="view of a leaf"):
        x[0] = 3
    with pytest.raises(RuntimeError, match="detach"):
        x.numpy()
    with pytest.raises(RuntimeError):
        lg.arange(3).requires_grad_()


def test_second_backward_through_shared_history():
    x = lg.tensor([1.0, 2.0], requires_grad=True)
    shared = (x * x).exp()
    shared.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        (shared * 2).sum().backward()
    lg.synchronize()
    with pytest.raises(RuntimeError, match="second time"):
        (shared * 2).sum().backward()
    assert numpy.allclose(shared.detach().numpy(), numpy.exp([1.0, 4.0]))


def test_retain_graph():
    def program(t):
        x = t.tensor([1.0, 2.0], requires_grad=True)
        y = (x**3).sum()
        y.backward(retain_graph=True)
        y.backward()
        return [x.grad]

    both(program)


def test_observed_before_backward():
    def program(t):
        x = t.tensor([1.0, 2.0], requires_grad=True)
        h = x.exp()
        float(h.sum().item())
        loss = (h * x).sum()
        float(loss.item())
        loss.backward()
        return [x.grad, h]

    both(program)


def test_grad_function_and_second_order():
    def program(t):
        x = t.tensor([1.0, 2.0], requires_grad=True)
        y = t.tensor([0.5, -1.0], requires_grad=True)
        loss = (x**3 * y.exp()).sum()
        first, second = t.autograd.grad(loss, [x, y], create_graph=True)
        (mixed,) = t.autograd.grad((first * second).sum(), x, retain_graph=True)
        (first**2).sum().backward()
        return [first, second, mixed, x.grad, y.grad]

    both(program)


def test_grad_of_computed_and_unused():
    x = lg.tensor([1.0, 2.0], requires_grad=True)
    z = lg.tensor([1.0], requires_grad=True)
    y = x * 2
    (gradient,) = lg.autograd.grad((y * y).sum(), y, retain_graph=True)
    assert gradient.tolist() == [4.0, 8.0]
    assert lg.autograd.grad((y * y).sum(), z, allow_unused=True, retain_graph=True) == (None,)
    with pytest.raises(RuntimeError, match="allow_unused"):
        lg.autograd.grad((y * y).sum(), z)


def test_retain_grad_and_hooks():
    def program(t):
        seen = []
        x = t.tensor([1.0, 2.0], requires_grad=True)
        x.register_hook(lambda gradient: gradient * 10)
        y = x * 3
        handle = y.register_hook(lambda gradient: seen.append(gradient) or gradient + 1)
        gone = y.register_hook(lambda gradient: gradient * 1000)
        gone.remove()
        z = y * y
        z.retain_grad()
        z.sum().backward()
        assert handle is not None
        return [x.grad, z.grad, seen[0]]

    both(program)


def test_custom_function():
    def program(t):
        class Scaled(t.autograd.Function):
            @staticmethod
            def forward(ctx, x, y, factor):
                ctx.save_for_backward(x, y)
                ctx.factor = factor
                return x * y * factor, x + y

            @staticmethod
            def backward(ctx, first, second):
                x, y = ctx.saved_tensors
                return first * y * ctx.factor * 100 + second, first * x * ctx.factor + second, None

        x = t.tensor([1.0, 2.0], requires_grad=True)
        y = t.tensor([3.0, 4.0], requires_grad=True)
        a, b = Scaled.apply(x * 2, y, 5.0)
        (a * b + x).sum().backward()
        return [x.grad, y.grad, a, b]

    both(program)


def test_a_function_that_is_differentiable_once():
    from lazygrad.autograd.function import once_differentiable

    class Cube(lg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x ** 3

        @staticmethod
        @once_differentiable
        def backward(ctx, gradient):
            return 3 * gradient * ctx.saved_tensors[0] ** 2

    x = lg.tensor([1.0, 2.0], requires_grad=True)
    first, = lg.autograd.grad(Cube.apply(x).sum(), x, create_graph=True)
    assert first.tolist() == [3.0, 12.0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        lg.autograd.grad(first.sum(), x)
    plain, = lg.autograd.grad(Cube.apply(x).sum(), x)
    assert plain.tolist() == [3.0, 12.0] and not plain.requires_grad


def test_modes():
    assert lg.is_grad_enabled()
    with lg.no_grad():
        assert not lg.is_grad_enabled()
        with lg.enable_grad():
            assert lg.is_grad_enabled()
        with lg.set_grad_enabled(True):
            assert lg.is_grad_enabled()
        assert not lg.is_grad_enabled()

    @lg.no_grad()
    def evaluate(x):
        return x * 2

    assert not evaluate(lg.ones(1, requires_grad=True)).requires_grad
    with lg.inference_mode():
        assert not lg.is_grad_enabled()


def test_leaf_that_is_a_view():
    def program(t):
        flat = t.arange(6.0)
        first = flat[:4].view(2, 2).requires_grad_()
        (first * first).sum().backward()
        with t.no_grad():
            first.sub_(first.grad)
        return [flat, first.grad]

    both(program)


def test_several_outputs():
    def program(t):
        x = t.tensor([1.0, 2.0], requires_grad=True)
        t.autograd.backward([x.exp().sum(), (x * x).sum()])
        return [x.grad]

    both(program)


def test_training_loop_does_not_grow():
    w = lg.ones(3, requires_grad=True)
    old = None
    for _ in range(5):
        loss = ((w * 2 - 1) ** 2).sum()
        node = weakref.ref(loss._cell.node)
        loss.backward()
        with lg.no_grad():
            w -= 0.1 * w.grad
        w.grad = None
        lg.synchronize()
        if old is not None:
            gc.collect()
            assert old() is None
        old = node
        del loss
    assert w._cell.node.op == "input"


def test_pending_work_is_bounded():
    x = lg.zeros(2)
    for _ in range(12000):
        x = x + 1
    assert x._cell.node.serial and x.tolist() == [12000.0, 12000.0]
