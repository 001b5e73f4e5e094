"""`lg.func` against torch.func: every transform, and their compositions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import lazygrad as lg
from lazygrad import func, nn
from lazygrad.functional.ternary import where  # noqa: F401  (the name that messages suggest)

torch = pytest.importorskip("torch")

random = numpy.random.default_rng(0)
VECTOR, OTHER = random.standard_normal((2, 3))
MATRIX, BATCH = random.standard_normal((4, 3)), random.standard_normal((5, 3))


def arrays(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [arrays(item) for item in value]
    if isinstance(value, dict):
        return {key: arrays(item) for key, item in value.items()}
    return value.detach().numpy() if hasattr(value, "detach") else value


def compare(ours: Any, theirs: Any, path: str = "result") -> None:
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            compare(ours[key], theirs[key], f"{path}[{key!r}]")
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), path
        for number, (left, right) in enumerate(zip(ours, theirs, strict=True)):
            compare(left, right, f"{path}[{number}]")
    else:
        assert ours.shape == theirs.shape, (path, ours.shape, theirs.shape)
        assert ours.dtype == theirs.dtype, path
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11, err_msg=path)


def both(program: Callable[..., Any], *given: numpy.ndarray) -> None:
    """The same program in both libraries: program(library, tensors…) -> tensors."""
    theirs = arrays(program(torch, *[torch.from_numpy(each.copy()) for each in given]))
    ours = arrays(program(lg, *[lg.from_numpy(each.copy()) for each in given]))
    compare(ours, theirs)


def curved(t: Any, x: Any, a: Any) -> Any:
    return t.tanh(a @ x) * t.sin(x).sum()


def gradient_through_vmap(t: Any, b: Any, x: Any) -> Any:
    x.requires_grad_()
    return t.autograd.grad(t.func.vmap(lambda row: (row * x).sin().sum())(b).sum(), x)


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[numpy.ndarray, ...]]] = {
    "grad": (lambda t, x, a: t.func.grad(lambda x: curved(t, x, a).sum())(x), (VECTOR, MATRIX)),
    "grad of several": (
        lambda t, x, y: t.func.grad(lambda x, y: (x * y.exp()).sum(), (0, 1))(x, y),
        (VECTOR, OTHER)),
    "grad of the last": (
        lambda t, x, y: t.func.grad(lambda x, y: (x * y.exp()).sum(), -1)(x, y), (VECTOR, OTHER)),
    "grad of a dict": (
        lambda t, x, y: t.func.grad(lambda p: (p["a"] * p["b"][0] ** 2).sum())(
            {"a": x, "b": (y,)}), (VECTOR, OTHER)),
    "grad with aux": (
        lambda t, x: t.func.grad(lambda x: ((x ** 3).sum(), {"square": x * x}), has_aux=True)(x),
        (VECTOR,)),
    "grad and value": (
        lambda t, x: t.func.grad_and_value(lambda x: (x ** 3).sum())(x), (VECTOR,)),
    "grad of grad": (
        lambda t, x: t.func.grad(lambda x: t.func.grad(
            lambda y: (y ** 3 * x).sum())(x).sum())(x), (VECTOR,)),
    "grad where nothing depends": (
        lambda t, x, y: t.func.grad(lambda x: (y * 2).sum())(x), (VECTOR, OTHER)),
    "vjp": (
        lambda t, x, a: t.func.vjp(lambda x: curved(t, x, a), x)[1](a[:, 0]), (VECTOR, MATRIX)),
    "vjp of nests": (
        lambda t, x, y: t.func.vjp(lambda x, y: (x * y, {"s": (x + y).sin()}), x, y)[1](
            (x, {"s": y})), (VECTOR, OTHER)),
    "jvp": (lambda t, x, a: t.func.jvp(lambda x: curved(t, x, a), (x,), (x,)), (VECTOR, MATRIX)),
    "jvp of several": (
        lambda t, x, y: t.func.jvp(lambda x, y: (x * y, t.floor(x)), (x, y), (y, x)),
        (VECTOR, OTHER)),
    "linearize": (
        lambda t, x, a: t.func.linearize(lambda x: curved(t, x, a), x)[1](x), (VECTOR, MATRIX)),
    "jacrev": (lambda t, x, a: t.func.jacrev(lambda x: curved(t, x, a))(x), (VECTOR, MATRIX)),
    "jacfwd": (lambda t, x, a: t.func.jacfwd(lambda x: curved(t, x, a))(x), (VECTOR, MATRIX)),
    "jacobians of several": (
        lambda t, x, a: t.func.jacrev(lambda x, a: {"p": a @ x, "q": (a * x).sum()}, (0, 1))(x, a),
        (VECTOR, MATRIX)),
    "jacfwd of several": (
        lambda t, x, a: t.func.jacfwd(lambda x, a: (a @ x, (a * x).sum()), (0, 1))(x, a),
        (VECTOR, MATRIX)),
    "hessian": (
        lambda t, x, a: t.func.hessian(lambda x: curved(t, x, a).sum())(x), (VECTOR, MATRIX)),
    "jacrev of jacrev": (
        lambda t, x: t.func.jacrev(t.func.jacrev(lambda x: (x ** 4).sum()))(x), (VECTOR,)),
    "vmap of grad": (
        lambda t, b, a: t.func.vmap(t.func.grad(lambda x: curved(t, x, a).sum()))(b),
        (BATCH, MATRIX)),
    "grad of vmap": (
        lambda t, b, a: t.func.grad(
            lambda a: t.func.vmap(lambda x: curved(t, x, a))(b).sum())(a), (BATCH, MATRIX)),
    "vmap of jacfwd": (
        lambda t, b, a: t.func.vmap(t.func.jacfwd(lambda x: curved(t, x, a)))(b), (BATCH, MATRIX)),
    "vmap of vmap": (
        lambda t, b, a: t.func.vmap(lambda x: t.func.vmap(lambda r: r * x + r.sum())(a))(b),
        (BATCH, MATRIX)),
    "jvp of vmap": (
        lambda t, b: t.func.jvp(t.func.vmap(lambda x: x.softmax(0)), (b,), (b * b,)), (BATCH,)),
    "autograd over vmap": (lambda t, b, x: gradient_through_vmap(t, b, x), (BATCH, VECTOR)),
    "chunks": (
        lambda t, b: t.func.vmap(lambda x: (x.sum(), x * 2), chunk_size=2)(b), (BATCH,)),
    "in_dims and out_dims": (
        lambda t, b, x: t.func.vmap(lambda x, y: (x + y, x * y[0]), in_dims=(1, None),
                                    out_dims=(1, -1))(b, b[:, 0]), (BATCH, VECTOR)),
    "one tensor on two axes": (
        lambda t, b: t.func.vmap(lambda x, y: x @ y, in_dims=(None, 0))(b, b), (MATRIX,)),
    "one tensor on two axes, in chunks": (
        lambda t, b: t.func.vmap(lambda x, y: (x * y).sum(0), in_dims=(0, None), chunk_size=2)(
            b, b), (BATCH,)),
    "all pairs": (
        lambda t, b: t.func.vmap(t.func.vmap(lambda x, y: (x - y).square().sum(), (None, 0)),
                                 (0, None))(b, b), (BATCH,)),
    "gradients by one tensor given twice": (
        lambda t, x: t.func.grad(lambda x, y: (x ** 2 * y).sum(), (0, 1))(x, x), (VECTOR,)),
    "jvp of one tensor given twice": (
        lambda t, x, y: t.func.jvp(lambda x, y: x ** 2 * y, (x, x), (y, x)), (VECTOR, OTHER)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_transforms(name: str) -> None:
    program, given = PROGRAMS[name]
    both(program, *given)


ITEMS: dict[str, Callable[[Any, Any], Any]] = {
    "reductions": lambda t, x: (x.sum(), x.sum(0), x.mean(1), x.amax(0), x.argmax(), x.std(1),
                                x.logsumexp(0), x.prod(1)),
    "movement": lambda t, x: (x.T, x.reshape(-1), x[1:, ::2], x.flip(0), x[None].expand(2, -1, -1),
                              t.cat([x, x * 2], 1), t.stack([x, x]), x.unfold(1, 2, 1),
                              t.nn.functional.pad(x, (1, 2)), x.roll(1, 0), x.diagonal(),
                              t.tril(x)),
    "elementwise": lambda t, x: (t.where(x > 0, x, t.exp(x)), x.clamp(-1, 1), x / 2 + 1,
                                 t.atan2(x, x + 1), (x > 0) & (x < 1), x.to(t.float32)),
    "products": lambda t, x: (x @ x.T, t.einsum("ij,kj->ik", x, x), t.outer(x[0], x[1]),
                              t.linalg.vector_norm(x, dim=1), t.bmm(x[None], x.T[None])),
    "indexing": lambda t, x: (x[t.tensor([0, 2])], x.gather(1, t.tensor([[0], [1], [2]])),
                              x.index_select(1, t.tensor([1, 0])),
                              t.zeros(4, 3, dtype=x.dtype).index_add(
                                  0, t.tensor([0, 0, 3]), x[:3, :3]),
                              t.take_along_dim(x, x.argsort(1), 1)),
    "order": lambda t, x: (x.sort(1).values, x.sort(0).indices, x.topk(2).values,
                           x.cumsum(0), x.cumsum(1), t.cummax(x, 1).values,
                           t.searchsorted(t.tensor([-1.0, 0.0, 1.0], dtype=x.dtype), x)),
    "linalg": lambda t, x: (t.linalg.inv(x[:3, :3] + 5 * t.eye(3, dtype=x.dtype)),
                            t.linalg.det(x[:3, :3]), t.linalg.svdvals(x)),
    "fft": lambda t, x: (t.view_as_real(t.fft.fft(x, dim=0)), t.fft.rfft(x).abs(),
                         t.fft.irfft(t.fft.rfft(x), n=x.shape[-1])),
    "layers": lambda t, x: (t.nn.functional.layer_norm(x, x.shape[-1:]),
                            t.nn.functional.conv1d(x[None], x[:2, None, :2].repeat(1, 3, 1)),
                            t.nn.functional.max_pool1d(x[None], 2),
                            t.nn.functional.cross_entropy(x, t.tensor([0, 1, 2]))),
}


@pytest.mark.parametrize("name", ITEMS)
def test_vmap_is_a_loop_over_items(name: str) -> None:
    """Against running the function item by item, here: the operations themselves have tests."""
    data = random.standard_normal((4, 3, 4))

    def program(x: Any) -> Any:
        return ITEMS[name](lg, x)

    items = [program(lg.from_numpy(item.copy())) for item in data]
    mapped = func.vmap(program)(lg.from_numpy(data))
    for number, result in enumerate(mapped):
        expected = numpy.stack([item[number].numpy() for item in items])
        assert result.numpy().dtype == expected.dtype
        numpy.testing.assert_allclose(result.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("inputs", [False, True])
def test_vmap_of_convolutions(inputs: bool, weights: bool) -> None:
    if not inputs and not weights:
        return
    x = random.standard_normal((3, 2, 4, 6, 6) if inputs else (2, 4, 6, 6))
    w = random.standard_normal((3, 6, 2, 3, 3) if weights else (6, 2, 3, 3))
    dims = (0 if inputs else None, 0 if weights else None)

    def program(t: Any, x: Any, w: Any) -> Any:
        return t.func.vmap(lambda x, w: t.nn.functional.conv2d(
            x, w, stride=2, padding=1, groups=2), dims)(x, w)

    both(program, x, w)


def test_ensembles_of_modules() -> None:
    models = [nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)) for _ in range(3)]
    parameters, buffers = func.stack_module_state(models)
    x = lg.randn(5, 3)

    def run(parameters: Any, buffers: Any, x: Any) -> Any:
        return func.functional_call(models[0], (parameters, buffers), (x,))

    together = func.vmap(run, in_dims=(0, 0, None))(parameters, buffers, x)
    for number, model in enumerate(models):
        numpy.testing.assert_allclose(
            together[number].detach().numpy(), model(x).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_per_sample_gradients_of_a_module() -> None:
    model = nn.Linear(3, 2)
    x, y = lg.randn(6, 3), lg.randn(6, 2)
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        return ((func.functional_call(model, parameters, (x,)) - y) ** 2).mean()

    each = func.vmap(func.grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    for number in range(6):
        model.zero_grad()
        ((model(x[number]) - y[number]) ** 2).mean().backward()
        for name, parameter in model.named_parameters():
            numpy.testing.assert_allclose(each[name][number].numpy(), parameter.grad.numpy(),
                                          rtol=1e-4, atol=1e-6)
    assert model.weight.requires_grad


def test_custom_functions_keep_their_backward() -> None:
    class Double(lg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 1

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            return gradient * 10

    x = lg.tensor([1.0, 2.0])
    assert func.grad(lambda x: Double.apply(x).sum())(x).tolist() == [10, 10]
    inner = func.grad(lambda x: (Double.apply(x) * x).sum())
    assert inner(x).tolist() == [11, 22]


def test_transforms_compose_with_compile() -> None:
    step = lg.compile(func.vmap(func.grad(lambda x: (x ** 3).sum())))
    for seed in range(3):
        x = numpy.random.default_rng(seed).standard_normal((4, 2)).astype("float32")
        numpy.testing.assert_allclose(step(lg.from_numpy(x)).numpy(), 3 * x * x, rtol=1e-5)
    assert step.recordings == 1
    inner = lg.compile(lambda x: x * 2)
    assert func.vmap(inner)(lg.ones(3)).tolist() == [2, 2, 2]


def test_randomness() -> None:
    x = lg.zeros(1000)
    with pytest.raises(RuntimeError, match=r"\[vmap\].*random.*test_func.py"):
        func.vmap(lambda x: x + lg.rand(()))(x)
    same = func.vmap(lambda x: x + lg.rand(()), randomness="same")(x)
    assert same.unique().numel() == 1
    different = func.vmap(lambda x: x + lg.rand(()), randomness="different")(x)
    assert different.unique().numel() > 990
    assert abs(different.mean().item() - 0.5) < 0.05


# ---- what goes wrong


def test_looking_at_an_item_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"\[vmap\] a value.*test_func.py:\d+"):
        func.vmap(lambda x: x if x.sum() > 0 else -x)(lg.ones(3, 2))
    weight = lg.ones(2) * 3
    scaled = func.vmap(lambda x: x * weight.sum().item())(lg.ones(3, 2))
    assert scaled.tolist() == [[6, 6]] * 3
    assert (lg.ones(2) + 1).tolist() == [2, 2]


@pytest.mark.parametrize(("call", "message"), [
    (lambda: func.vmap(lambda x: x, in_dims=None)(lg.ones(3)), "nothing is mapped"),
    (lambda: func.vmap(lambda x, y: x + y)(lg.ones(3), lg.ones(4)), "different sizes: 3 .* 4"),
    (lambda: func.vmap(lambda x: x, in_dims=2)(lg.ones(3)), "axis 2 does not exist"),
    (lambda: func.vmap(lambda x: x, in_dims=(0, 0))(lg.ones(3)), "does not fit 1 arguments"),
    (lambda: func.vmap(lambda x: x, out_dims=None)(lg.ones(3)), "differs from item to item"),
    (lambda: func.vmap(lambda x: x, out_dims=5)(lg.ones(3)), "out_dims 5"),
    (lambda: func.vmap(lambda x: 3)(lg.ones(3)), "returns a int"),
    (lambda: func.vmap(lambda x: x, randomness="perhaps"), "randomness is one of"),
    (lambda: func.grad(lambda x: x)(lg.ones(3)), r"\(3,\), not one 0-d"),
    (lambda: func.grad(lambda x: x.sum())(lg.ones(3, dtype=lg.int64)), "int64"),
    (lambda: func.grad(lambda x: x.sum(), 1)(lg.ones(3)), "argnums 1 with 1 arguments"),
    (lambda: func.grad(lambda x: x.sum(), has_aux=True)(lg.ones(3)), "auxiliary"),
    (lambda: func.jvp(lambda x: x, lg.ones(3), lg.ones(3)), "are tuples"),
    (lambda: func.jvp(lambda x: x, (lg.ones(3),), (lg.ones(4),)), r"\(4,\).*\(3,\)"),
    (lambda: func.vjp(lambda x: x, lg.ones(3))[1](lg.ones(2)), r"\(2,\).*\(3,\)"),
    (lambda: func.functional_call(nn.Linear(2, 2), {"wight": lg.ones(2, 2)}, lg.ones(2)),
     "no parameter or buffer 'wight'"),
    (lambda: func.functional_call(nn.Linear(2, 2), {"bias": lg.ones(2)}, lg.ones(2), strict=True),
     "'weight' is not given"),
    (lambda: func.stack_module_state([]), "at least one"),
])
def test_errors(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError, RuntimeError, KeyError), match=message):
        call()


def test_outside_tensors_are_not_changed_by_items() -> None:
    total = lg.zeros(2)

    def add(x: lg.Tensor) -> lg.Tensor:
        total.add_(x)
        return x

    with pytest.raises(RuntimeError, match="changed in place"):
        func.vmap(add)(lg.ones(3, 2))
    assert total.tolist() == [0, 0]


def test_errors_inside_pass_and_leave_nothing_behind() -> None:
    kept = []

    def broken(x: lg.Tensor) -> lg.Tensor:
        kept.append(x * 2)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        func.vmap(broken)(lg.ones(3))
    with pytest.raises(KeyError, match="mine"):
        func.grad(broken)(lg.ones(()))
    lg.synchronize()
    assert lg.is_grad_enabled()
    assert (lg.ones(2) * 2).tolist() == [2, 2]
