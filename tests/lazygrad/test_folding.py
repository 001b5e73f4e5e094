"""Operations recorded as templates give the very nodes that their functions would record."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

import lazygrad as lg
from lazygrad._core import cell as cells
from lazygrad._core import folding
from lazygrad._core.tensor import Tensor, node_of
from lazygrad_compiler.autodiff import backward
from lazygrad_compiler.ir.composite import Folded, unfold
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.text import print_graph
from lazygrad_runtime import program
from tests.lazygrad.operations.checks import caller, samples_of
from tests.lazygrad.operations.libraries import LAZY, tensors_in
from tests.lazygrad.operations.record import FULL_FLOATS
from tests.lazygrad.test_operations import LOADED

F = lg.nn.functional


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    folding.forget_recipes()
    yield
    folding.forget_recipes()


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a call with functions recorded as they are."""
    def run(call: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(folding, "_recipe", lambda *_: folding._UNFIT)
            folding.forget_recipes()
            result = call()
        folding.forget_recipes()
        return result

    return run


def nodes_of(result: Any) -> list[Node]:
    return [node_of(tensor) for tensor in tensors_in(result)]


def alike(one: Node, other: Node) -> bool:
    """Whether two nodes are one computation; thanks to hash-consing, on equal inputs mostly."""
    if (one.op, one.attrs, one.inputs) == (other.op, other.attrs, other.inputs):
        return True
    texts = []
    for node in (one, other):
        unfold([node])
        texts.append(print_graph(program.pending_graph([node])[0], locations=False))
    return texts[0] == texts[1]


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("family", LOADED)
def test_every_operation_records_the_same_nodes(family: str, gradients: bool, without,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """What unfolds is what was recorded."""
    monkeypatch.setattr(cells, "MOST_PENDING_NODES", 1 << 40)  # nothing is computed meanwhile
    unequal, several = [], 0

    def make(array: numpy.ndarray) -> Tensor:
        tensor = LAZY.make_tensor(array)
        if gradients and tensor.dtype.is_differentiable:
            tensor.requires_grad_()
        return tensor

    for record in LOADED[family][0]:
        dtype = next((name for name in FULL_FLOATS if name in record.dtypes), record.dtypes[0])
        for number, sample in enumerate(samples_of(record, dtype)):
            arguments = LAZY.convert(sample.arguments, make)
            keywords = {name: LAZY.convert(value, make) for name, value in sample.keywords.items()}
            call = lambda: caller(record, LAZY)(*arguments, **keywords)  # noqa: B023
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    plain = nodes_of(without(call))
                    folded = nodes_of(call())
            except (RuntimeError, TypeError, ValueError):
                continue  # gradients asked of what has none
            for one, other in zip(plain, folded, strict=True):
                if other.call is None:
                    continue
                several += 1
                if one.differentiable != other.differentiable or not alike(one, other):
                    unequal.append(f"{record.identity}, sample {number}")
    assert not unequal
    assert several or family in ("complex", "creation", "fft", "linalg", "numeric", "special")


def folds(result: Tensor) -> bool:
    return type(node_of(result)) is Folded


def test_a_second_call_runs_no_function() -> None:
    x, calls = lg.randn(3, 4), []

    @folding.folded
    def twice(value: Tensor, factor: float) -> Tensor:
        calls.append(factor)
        return value * factor + value

    results = [twice(x, 2.0) for _ in range(3)]
    assert calls == [2.0] and all(map(folds, results))
    assert lg.equal(results[2], x * 3)
    twice(x, 3.0), twice(lg.randn(4), 2.0), twice(x.double(), 2.0)
    assert len(calls) == 4


@pytest.mark.parametrize(("first", "second"), [
    (0.0, -0.0), (1, 1.0), (True, 1), (float("nan"), 1.0), ((1, 2), [1, 2])])
def test_plain_values_that_are_equal_but_not_alike(first: Any, second: Any) -> None:
    seen = []

    @folding.folded
    def note(value: Tensor, plain: Any) -> Tensor:
        seen.append(repr(plain))
        return -value

    x = lg.ones(2).add_(1)
    note(x, first), note(x, second)
    assert seen == [repr(first), repr(second)]


@pytest.mark.parametrize("change", ["gradients", "no_grad", "autocast", "default dtype"])
def test_what_is_part_of_a_signature(change: str) -> None:
    calls = []

    @folding.folded
    def half(value: Tensor) -> Tensor:
        calls.append(value.requires_grad)
        return value / 2

    x = lg.randn(3)
    half(x)
    if change == "gradients":
        assert half(x.requires_grad_()).requires_grad
    elif change == "no_grad":
        with lg.no_grad():
            half(x)
    elif change == "autocast":
        with lg.autocast("cpu"):
            half(x)
    else:
        lg.set_default_dtype(lg.float64)
        try:
            half(x)
        finally:
            lg.set_default_dtype(lg.float32)
    assert len(calls) == 2


def looks(value: Tensor) -> Tensor:
    return value if value.sum() > 0 else -value


def warns(value: Tensor) -> Tensor:
    from lazygrad._core.context import warn
    warn("this was noticed")
    return -value


def gives_back(value: Tensor) -> Tensor:
    return value


def gives_a_view(value: Tensor) -> Tensor:
    return value[1:]


def draws(value: Tensor) -> Tensor:
    return value + OUTSIDE


OUTSIDE = lg.tensor([1.0, 2.0])


@pytest.mark.parametrize("function", [looks, warns, gives_back, gives_a_view, draws])
def test_what_a_template_cannot_repeat_runs_as_it_is(function) -> None:
    wrapped = folding.folded(function)
    x = lg.tensor([1.0, 2.0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = [wrapped(x) for _ in range(3)]
        assert len(caught) == 3 * (function is warns)
        assert all(lg.equal(result, function(x)) for result in results)
    assert not any(map(folds, results))


def test_a_constant_may_be_folded_away() -> None:
    assert node_of(lg.softmax(lg.zeros(3, 4), 1)).call is None


def test_errors_are_those_of_the_function() -> None:
    x = lg.randn(3, 4)
    for _ in range(2):
        with pytest.raises(IndexError, match=r"\[softmax\] dim 5 .*test_folding\.py"):
            lg.softmax(x, 5)
        with pytest.raises(RuntimeError, match=r"\[linear\] .*test_folding\.py"):
            F.linear(x, lg.randn(2, 5))


def test_each_call_keeps_its_line() -> None:
    x = lg.randn(3, 4)
    results = [lg.softmax(x, 1),
               lg.softmax(x + 1, 1)]
    first, second = (node_of(result) for result in results)
    assert second.location[0][1] == first.location[0][1] + 1
    assert second.inputs[0].location == second.location


def test_writes_to_arguments_are_repeated() -> None:
    image, mean, variance = lg.randn(4, 3, 2), lg.randn(3), lg.rand(3)
    expected = 0.9 * mean + 0.1 * image.mean((0, 2))
    F.batch_norm(image, mean, variance, training=True)
    assert lg.allclose(mean, expected)
    version, alias = mean._version, mean[1:]
    expected = 0.9 * mean + 0.1 * image.mean((0, 2))
    folded = F.batch_norm(image, mean, variance, training=True)
    assert folds(folded)
    assert mean._version == version + 1
    assert lg.allclose(mean, expected) and lg.allclose(alias, expected[1:])


def test_writes_to_shared_memory_are_not_repeated_blindly() -> None:
    """One tensor as both running statistics: the second write goes on from the first."""
    image, both = lg.randn(4, 3, 2), lg.ones(3).add_(0)
    for _ in range(2):
        mean, variance = image.mean((0, 2)), image.var((0, 2))
        expected = 0.9 * (0.9 * both + 0.1 * mean) + 0.1 * variance
        F.batch_norm(image, both, both, training=True)
        assert lg.allclose(both, expected)


def test_vmap_and_func_go_through() -> None:
    x, weight = lg.randn(5, 3, 4), lg.randn(4)
    for _ in range(2):
        mapped = lg.func.vmap(lambda item: F.layer_norm(item, (4,), weight))(x)
        assert lg.allclose(mapped, F.layer_norm(x, (4,), weight), atol=1e-6)
        jacobian = lg.func.jacrev(lambda value: lg.softmax(value, 0))(x[0, 0])
        share = lg.softmax(x[0, 0], 0)
        assert lg.allclose(jacobian, lg.diag(share) - lg.outer(share, share), atol=1e-6)


def training_step(model: Any, optimizer: Any, x: Tensor, labels: Tensor, look: bool) -> float:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), labels)
    if look:
        loss.item()
    loss.backward()
    optimizer.step()
    return loss.item()


@pytest.mark.parametrize("look", [False, True])
def test_a_training_step_is_compiled_and_differentiated_once(look: bool, without) -> None:
    """Also where the loss is looked at before backward, which keeps values inside of templates."""
    def run() -> list[float]:
        lg.manual_seed(0)
        model = lg.nn.Sequential(lg.nn.Linear(6, 8), lg.nn.LayerNorm(8), lg.nn.GELU(),
                                 lg.nn.Linear(8, 3))
        optimizer = lg.optim.Adam(model.parameters(), lr=0.1)
        x, labels = lg.randn(7, 6), lg.tensor([0, 1, 2, 0, 1, 2, 0])
        return [training_step(model, optimizer, x, labels, look) for _ in range(6)]

    expected = without(run)
    passes, programs = [], []
    run()
    original, made = backward.backward, program.Program.__init__

    def counted(*arguments: Any) -> Any:
        passes.append(1)
        return original(*arguments)

    def noted(self: Any, artifact: Any) -> None:
        programs.append(artifact)
        made(self, artifact)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backward, "backward", counted)
        patch.setattr(program.Program, "__init__", noted)
        found = run()
    assert found == pytest.approx(expected, rel=1e-5)
    assert not passes and not programs


def test_gradients_of_kept_values_read_them() -> None:
    """A softmax looked at before backward is not computed again."""
    x = lg.randn(4, 5, requires_grad=True)
    y = lg.softmax(x, 1)
    y.detach().numpy()
    (y * y).sum().backward()
    other = x.detach().requires_grad_()
    (lg.softmax(other, 1) ** 2).sum().backward()
    assert lg.allclose(x.grad, other.grad, atol=1e-6)


def test_a_second_backward_is_refused_as_before() -> None:
    x = lg.randn(4, 5, requires_grad=True)
    y = lg.softmax(x, 1)
    loss = F.mse_loss(y, lg.rand(4, 5))
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()


def test_signatures_are_bounded() -> None:
    x = lg.randn(3)

    @folding.folded
    def scaled(value: Tensor, factor: float) -> Tensor:
        return value * factor

    recipes = folding._known[-1]
    for number in range(folding.MOST_SIGNATURES + 10):
        scaled(x, float(number))
    assert 0 < len(recipes) <= folding.MOST_SIGNATURES
