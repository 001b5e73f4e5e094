"""Donation: a replay writes updated state over the old, where nobody else holds the old."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import pytest

import lazygrad as lg
from lazygrad import nn, optim


def pointer(tensor: lg.Tensor) -> int:
    return tensor._cell.node.payload.pointer


def allocated(*shape: int) -> lg.Tensor:
    """A tensor in memory of our own (that of a NumPy array is never donated)."""
    values = numpy.random.default_rng(0).standard_normal(shape).astype("float32")
    tensor = lg.from_numpy(values) * 1
    lg.synchronize()
    return tensor


def counter() -> tuple[lg.Tensor, Callable[[], lg.Tensor]]:
    state = allocated(1000)

    def advance() -> lg.Tensor:
        state.add_(1)
        return state.sum()

    step = lg.compile(advance)
    step()
    return state, step


def test_state_that_starts_as_zeros_is_never_written_over_them() -> None:
    from lazygrad_runtime.memory import Buffer

    layer = nn.Linear(40, 30, bias=False)
    optimizer = optim.Adam(layer.parameters())
    x = allocated(8, 40)

    def step() -> lg.Tensor:
        optimizer.zero_grad()
        loss = layer(x).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    compiled = lg.compile(step)
    zeros = Buffer.zeros(layer.weight.numel() * 4)
    for _ in range(4):
        compiled()
    lg.synchronize()
    assert pointer(optimizer.state[layer.weight]["exp_avg"]) != zeros.pointer
    assert optimizer.state[layer.weight]["exp_avg_sq"].numpy().all()
    assert not zeros.as_numpy(numpy.float32, (30, 40)).any()


def test_state_keeps_its_memory() -> None:
    state, step = counter()
    before, values = pointer(state), state.numpy().copy()
    for _ in range(5):
        step()
        assert pointer(state) == before
    numpy.testing.assert_allclose(state.numpy(), values + 5, rtol=1e-5)


@pytest.mark.parametrize("hold", ["numpy", "detached copy", "view", "result"])
def test_values_that_others_hold_stay_as_they_are(hold: str) -> None:
    state = allocated(1000)

    def advance() -> lg.Tensor:
        state.add_(1)
        return state * 1 if hold != "result" else state.add(0)

    step = lg.compile(advance)
    step()
    kept = {"numpy": lambda: state.numpy(), "detached copy": lambda: state.detach().clone(),
            "view": lambda: state[3:].clone(), "result": lambda: step()}[hold]()
    before = numpy.array(kept)
    for _ in range(3):
        step()
    numpy.testing.assert_array_equal(numpy.array(kept), before)


def test_foreign_memory_is_not_written() -> None:
    array = numpy.zeros(100, "float32")
    state = lg.from_numpy(array)
    step = lg.compile(lambda: state.add_(1).sum())
    for _ in range(3):
        step()
    first = state.numpy().copy()
    assert first[0] == 3
    assert array[0] in (0, 3)  # whatever from_numpy shares: never a value in between


def test_a_value_read_elsewhere_is_not_written_over() -> None:
    """Reversed reads: writing in place would read what was just written."""
    state = allocated(1001)

    def reverse() -> None:
        state.copy_(state.flip(0) + state)

    step = lg.compile(reverse)
    expected = state.numpy().copy()
    for _ in range(4):
        step()
        expected = expected[::-1] + expected
        numpy.testing.assert_allclose(state.numpy(), expected, rtol=1e-5)


def test_a_failing_replay_leaves_state_as_it_was() -> None:
    state, table = allocated(1000), allocated(10)

    def advance(index: lg.Tensor) -> lg.Tensor:
        state.add_(1)
        return table[index].sum() + state.sum()

    step = lg.compile(advance)
    good, bad = lg.tensor([1, 2]), lg.tensor([1, 99])
    step(good)
    before = state.numpy().copy()
    with pytest.raises(IndexError, match="99"):
        step(bad).item()
    numpy.testing.assert_array_equal(state.numpy(), before)
    step(good)
    numpy.testing.assert_allclose(state.numpy(), before + 1, rtol=1e-6)


def test_training_step_reuses_parameters_and_moments() -> None:
    lg.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 1))
    twin = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 1))
    twin.load_state_dict(model.state_dict())

    def trained(net: nn.Module, wrap: Callable) -> tuple[Callable, optim.Adam]:
        optimizer = optim.Adam(net.parameters(), lr=1e-2)

        def step(x: lg.Tensor) -> lg.Tensor:
            loss = net(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return wrap(step), optimizer

    x = allocated(16, 20)
    plain, _ = trained(twin, lambda step: step)
    compiled, optimizer = trained(model, lg.compile)
    plain(x), compiled(x), plain(x), compiled(x)
    weight = model[0].weight
    moment = optimizer.state[weight]["exp_avg"]
    places = pointer(weight), pointer(moment)
    for _ in range(4):
        plain(x), compiled(x)
        assert (pointer(weight), pointer(moment)) == places
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        numpy.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-5)
