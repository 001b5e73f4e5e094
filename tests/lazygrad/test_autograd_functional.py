"""autograd.functional, gradcheck and checkpoint, against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import lazygrad as lg
from lazygrad import nn
from lazygrad.utils.checkpoint import checkpoint, checkpoint_sequential
from tests.lazygrad.test_func import MATRIX, VECTOR, both

torch = pytest.importorskip("torch")

ONE = {
    "jacobian": lambda t, x: t.autograd.functional.jacobian(lambda x: x.exp() * x.sum(), x),
    "forward": lambda t, x: t.autograd.functional.jacobian(
        lambda x: x.exp() * x.sum(), x, strategy="forward-mode", vectorize=True),
    "hessian": lambda t, x: t.autograd.functional.hessian(lambda x: (x ** 3).sum(), x),
    "vjp": lambda t, x: t.autograd.functional.vjp(lambda x: x.exp(), x, x * 2),
    "vjp scalar": lambda t, x: t.autograd.functional.vjp(lambda x: x.exp().sum(), x),
    "jvp": lambda t, x: t.autograd.functional.jvp(lambda x: x.exp() * x.sum(), x, x * 2),
    "vhp": lambda t, x: t.autograd.functional.vhp(lambda x: (x ** 3).prod(), x, x * 2),
    "hvp": lambda t, x: t.autograd.functional.hvp(lambda x: (x ** 3).prod(), x, x * 2),
}
TWO = {
    "jacobian": lambda t, x, a: t.autograd.functional.jacobian(lambda x, a: (a @ x, x.sum()),
                                                               (x, a)),
    "hessian": lambda t, x, a: t.autograd.functional.hessian(
        lambda x, a: ((a @ x) ** 2).sum(), (x, a)),
    "vhp": lambda t, x, a: t.autograd.functional.vhp(lambda x, a: ((a @ x) ** 2).sum(), (x, a),
                                                     (x, a)),
    "jvp": lambda t, x, a: t.autograd.functional.jvp(lambda x, a: a @ x, (x, a), (x, a)),
}


@pytest.mark.parametrize("name", ONE)
def test_one_input(name: str) -> None:
    both(ONE[name], VECTOR)


@pytest.mark.parametrize("name", TWO)
def test_two_inputs(name: str) -> None:
    both(TWO[name], VECTOR, MATRIX)


def test_results_are_detached_unless_asked() -> None:
    x = lg.tensor([1.0, 2.0], requires_grad=True)
    assert not lg.autograd.functional.jacobian(lambda x: x ** 2, x).requires_grad
    kept = lg.autograd.functional.jacobian(lambda x: x ** 3, x, create_graph=True)
    kept.sum().backward()
    assert x.grad.tolist() == [6, 12]


def test_errors_of_the_functional_interface() -> None:
    functional = lg.autograd.functional
    x = lg.ones(2)
    for call, message in [
        (lambda: functional.hessian(lambda x: x, x), "one element"),
        (lambda: functional.vjp(lambda x: x, x), "v is needed"),
        (lambda: functional.jacobian(lambda x: x.detach(), x, strict=True), "does not depend"),
        (lambda: functional.jacobian(lambda x: x, x, strategy="sideways"), "strategy"),
        (lambda: functional.jvp(lambda x: x, [1.0]), "inputs are tensors"),
    ]:
        with pytest.raises((RuntimeError, ValueError, TypeError), match=message):
            call()


class Wrong(lg.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return gradient * 3


def double(*shape: int, dtype: str = "float64") -> lg.Tensor:
    values = numpy.random.default_rng(1).standard_normal(shape)
    if dtype.startswith("complex"):
        values = values + 1j * numpy.random.default_rng(2).standard_normal(shape)
    return lg.from_numpy(numpy.asarray(values, dtype)).requires_grad_()


def test_gradcheck() -> None:
    x, y = double(3, 2), double(2)
    assert lg.autograd.gradcheck(lambda x, y: (x * y).sin().sum(0), (x, y))
    assert lg.autograd.gradcheck(lambda x: (x.exp(), x.sum()), x, check_forward_ad=True)
    with pytest.raises(RuntimeError, match=r"derivatives differ; at \(0,\)"):
        lg.autograd.gradcheck(Wrong.apply, double(3))
    assert not lg.autograd.gradcheck(Wrong.apply, double(3), raise_exception=False)
    with pytest.raises(ValueError, match="requires gradients"):
        lg.autograd.gradcheck(lambda x: x, lg.ones(2))
    with pytest.raises(RuntimeError, match="nothing to differentiate"):
        lg.autograd.gradcheck(lambda x: x.detach(), double(2))


def test_gradgradcheck() -> None:
    assert lg.autograd.gradgradcheck(lambda x, y: (x * y.exp()).sum(), (double(3), double(3)))

    class WrongTwice(lg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x ** 3

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            x, = ctx.saved_tensors
            return gradient * Wrong.apply(x) * 3

    assert lg.autograd.gradcheck(WrongTwice.apply, double(3))
    with pytest.raises(RuntimeError, match="derivatives differ"):
        lg.autograd.gradgradcheck(WrongTwice.apply, double(3))


def test_gradcheck_of_complex_functions() -> None:
    z = double(3, dtype="complex128")
    assert lg.autograd.gradcheck(lambda z: z * z.conj(), z)
    assert lg.autograd.gradcheck(lambda z: z.abs() * z, z)


def test_checkpoint_gives_the_same_gradients() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    x = lg.randn(2, 3, requires_grad=True)
    expected = lg.autograd.grad(model(x).sum(), x)[0].numpy()
    for run in (lambda: checkpoint(model, x, use_reentrant=False),
                lambda: checkpoint_sequential(model, 2, x)):
        numpy.testing.assert_allclose(lg.autograd.grad(run().sum(), x)[0].numpy(), expected,
                                      rtol=1e-6)
    with pytest.raises(ValueError, match="9 segments"):
        checkpoint_sequential(model, 9, x)
